"""Trains a GAN from two of your own networks on the 5,000 digits in the package, and writes a grid of samples.

Run `python examples/subclass_gan.py`. The samples go to runs/subclass_gan/samples. STEPS sets the number of steps.
"""

import os

import keras
from keras import layers

from trainer import GAN
from trainer.callbacks import SampleGrid
from trainer.data.loading import load

STEPS = int(os.environ.get("STEPS", "600"))


class MyGAN(GAN):
    """Two networks with one hidden layer each."""

    def get_generator(self) -> keras.Model:
        """Returns a network that maps latents [B, Z] to images [B, 28, 28, 1] in [-1, 1]."""
        hidden, pixels = layers.Dense(256, "relu"), layers.Dense(784, "tanh")
        return keras.Sequential([keras.Input((self.latent_dim,)), hidden, pixels, layers.Reshape((28, 28, 1))])

    def get_discriminator(self) -> keras.Model:
        """Returns a network that maps images [B, 28, 28, 1] to logits [B, 1]."""
        hidden = layers.Dense(256, "leaky_relu")
        return keras.Sequential([keras.Input((28, 28, 1)), layers.Flatten(), hidden, layers.Dense(1)])


gan = MyGAN(latent_dim=64)
gan.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), loss="non_saturating")
history = gan.fit(
    load("digits").images, batch_size=64, steps=STEPS, callbacks=[SampleGrid("runs/subclass_gan/samples")]
)
print({name: round(values[-1], 3) for name, values in history.history.items() if name.startswith("loss/")})

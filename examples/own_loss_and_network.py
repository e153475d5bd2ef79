"""Registers a loss and an architecture, and trains a config that uses both.

Run `python examples/own_loss_and_network.py`. The samples go to runs/own_loss/samples. To train a run with checkpoints:
`cd examples && python -m trainer.task --recipe=own_loss_and_network:my_recipe --job_dir=runs/mine`.
"""

import os

import tensorflow as tf

from trainer import TrainConfig, callbacks, networks
from trainer.data.loading import load
from trainer.models import from_config, losses


@losses.register_loss("smoothed")
class Smoothed(losses.NonSaturating):
    """The non-saturating loss with targets of 0.9 for real images."""

    def on_real(self, real_logits: tf.Tensor) -> tf.Tensor:
        return 0.9 * tf.nn.softplus(-real_logits) + 0.1 * tf.nn.softplus(real_logits)


@networks.register_architecture
def one_layer(image_shape, latent_dim, condition_size, output_activation, *, units=128):
    """Returns functions that build networks with one hidden layer of `units`."""
    widths = {"generator_units": [units], "discriminator_units": [units]}
    return networks.build("mlp", image_shape, latent_dim, condition_size, output_activation, widths)


def my_recipe() -> TrainConfig:
    """Returns the settings of the run."""
    return TrainConfig(architecture="one_layer", latent_dim=64, loss="smoothed", global_batch_size=64, steps=600)


if __name__ == "__main__":
    gan = from_config(my_recipe(), image_shape=(28, 28, 1), num_classes=10)
    samples = callbacks.SampleGrid("runs/own_loss/samples")
    gan.fit(load("digits").images, batch_size=64, steps=int(os.environ.get("STEPS", "600")), callbacks=samples)

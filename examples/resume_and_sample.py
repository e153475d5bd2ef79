"""Trains a GAN in two parts, shows that it ends with the weights of one uninterrupted run, and writes samples.

Run `python examples/resume_and_sample.py`. The samples go to runs/resume. STEPS sets the number of steps.
"""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from trainer import GAN, networks
from trainer.callbacks import Checkpoint, SampleGrid
from trainer.data.loading import load

STEPS = int(os.environ.get("STEPS", "400"))
UNITS = {"generator_units": [128], "discriminator_units": [128]}

tf.config.experimental.enable_op_determinism()  # the commands of the package do this, too


def train(steps: int, *callbacks: keras.callbacks.Callback) -> GAN:
    """Returns a new GAN that is trained up to `steps`, from the newest checkpoint if there is one."""
    gan = GAN(latent_dim=64, networks=networks.build("mlp", (28, 28, 1), 64, 0, "tanh", UNITS))
    gan.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), loss="non_saturating", seed=1)
    gan.fit(load("digits").images, batch_size=64, steps=steps, callbacks=callbacks)
    return gan


with tempfile.TemporaryDirectory() as checkpoints:
    train(STEPS // 2, Checkpoint(checkpoints))  # the first part; a kill would look the same
    resumed = train(STEPS, Checkpoint(checkpoints), SampleGrid("runs/resume", every_steps=0))
uninterrupted = train(STEPS)
for name, variable in uninterrupted.state.items():
    np.testing.assert_array_equal(variable.numpy(), resumed.state[name].numpy())
print(f"Both GANs have the same weights at step {resumed.step}.")

"""Trains a conditional GAN on digits and their labels, and writes images of one digit.

Run `python examples/labels.py`. The images go to runs/labels/threes.png. STEPS sets the number of steps.
"""

import os
from pathlib import Path

import keras

from trainer import ConditionalGAN, networks
from trainer.data.loading import load
from trainer.image_io import save_grid, tile

STEPS = int(os.environ.get("STEPS", "600"))
LATENT_DIM = 64

digits = load("digits")
num_classes = digits.info.num_classes
# The package's perceptrons take a one-hot label beside the latents and beside the image.
options = {"generator_units": [256, 512], "discriminator_units": [512, 256], "batch_norm_momentum": 0.9}
factories = networks.build("mlp", digits.info.image_shape, LATENT_DIM, num_classes, "tanh", options)

gan = ConditionalGAN(LATENT_DIM, num_classes, networks=factories)
gan.compile(keras.optimizers.Adam(2e-4, beta_1=0.5), loss="non_saturating")
gan.fit(digits.images, digits.labels, batch_size=64, steps=STEPS)

images, labels = gan.sample(25, labels=3)  # without labels: each class in turn
folder = Path("runs/labels")
folder.mkdir(parents=True, exist_ok=True)
save_grid(folder / "threes.png", tile(images, columns=5))
print(f"{len(images)} images of class {labels[0]} are in {folder / 'threes.png'}")

"""Recipes with perceptrons."""

from trainer.config import TrainConfig
from trainer.config.recipes.registry import register_recipe

_RMSPROP_NETWORKS = {
    "generator_units": [256, 512],
    "discriminator_units": [512, 256],
    "generator_activation": "relu",
    "discriminator_activation": "leaky_relu",
    "leaky_slope": 0.1,
    "batch_norm_momentum": 0.9,
    "dropout": 0.4,
    "initializer": "he_normal",
}


@register_recipe
def vanilla() -> TrainConfig:
    """The original GAN: two perceptrons, LeakyReLU .2, tanh, dropout .3.

    Source: arXiv 1406.2661, in the form of most tutorials: G 100-256-512-1024-784, D 1024-512-256-1, Adam 2e-4,
    batch 100, 200 epochs, non-saturating loss. `--dataset=mnist` trains on all of MNIST.
    Scored frechet_digits_5k 67.1 in 472 s on 2 CPU cores.
    """
    return TrainConfig(
        architecture="mlp",
        architecture_options={
            "generator_units": [256, 512, 1024],
            "discriminator_units": [1024, 512, 256],
            "leaky_slope": 0.2,
            "dropout": 0.3,
        },
        latent_dim=100,
        beta_1=0.9,
        global_batch_size=100,
        epochs=200,
        steps_per_execution=50,
        sample_every_steps=1000,
        checkpoint_every_steps=1000,
        evaluate_every_steps=2000,
    )


@register_recipe
def gan_rmsprop() -> TrainConfig:
    """Perceptrons with batch norm .9, LeakyReLU .1, dropout .4 and He initialization, trained with RMSprop 1e-4.

    Source: tutorials that define a `GAN` class with batch-normalized networks. 150 epochs with batch 128.
    `--image_range=0..1` replaces the generator's tanh by a sigmoid.
    Scored frechet_digits_5k 56 in 118 s on 2 CPU cores.
    """
    return TrainConfig(
        architecture="mlp",
        architecture_options=_RMSPROP_NETWORKS,
        latent_dim=100,
        discriminator_updates="concatenated",
        optimizer="rmsprop",
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        global_batch_size=128,
        epochs=150,
        sample_every_steps=1000,
        checkpoint_every_steps=1000,
        evaluate_every_steps=1500,
    )


@register_recipe
def cgan() -> TrainConfig:
    """Conditional GAN: one-hot labels are concatenated to latents and images, with the networks of `gan_rmsprop`.

    Source: arXiv 1411.1784; He initialization, batch norm .9, LeakyReLU .1, dropout .4 and RMSprop 1e-4. This small
    learning rate needs many epochs, so the step is simultaneous, which takes a sixth less time than an alternating
    one. An EMA of the generator makes the samples less grainy.
    Scored frechet_digits_5k 6.29 in 455 s on 2 CPU cores.
    """
    return gan_rmsprop().override(
        model="conditional",
        discriminator_updates="together",
        latent_dim=32,
        ema_half_life_images=50_000,
        update_order="simultaneous",
        epochs=820,
        evaluate_every_steps=10_000,
    )


@register_recipe
def two_phase() -> TrainConfig:
    """Two discriminator updates per step, one on real and one on fake images, then one generator update.

    Source: arXiv 1406.2661, algorithm 1, as in tutorials with two phases. `--loss=least_squares` selects the squared
    loss, `--discriminator_updates=together` a single discriminator update.
    Scored frechet_digits_5k 36.9 in 191 s on 2 CPU cores.
    """
    return vanilla().override(discriminator_updates="separate", beta_1=0.5, epochs=100)


@register_recipe
def lsgan() -> TrainConfig:
    """Least-squares GAN of perceptrons: G 256-512-1024 with batch norm .8, D 512-256-1 with a linear output.

    Source: arXiv 1611.04076; Adam 2e-4 with beta_1 .5, batch 32.
    Scored frechet_digits_5k 31.1 in 247 s on 2 CPU cores.
    """
    return TrainConfig(
        architecture="mlp",
        architecture_options={
            "generator_units": [256, 512, 1024],
            "discriminator_units": [512, 256],
            "leaky_slope": 0.2,
            "batch_norm_momentum": 0.8,
        },
        latent_dim=100,
        loss="least_squares",
        global_batch_size=32,
        epochs=100,
        steps_per_execution=50,
        sample_every_steps=1000,
        checkpoint_every_steps=1000,
        evaluate_every_steps=3000,
    )


@register_recipe
def mlp_zeros() -> TrainConfig:
    """The smallest useful GAN: ReLU perceptrons on the digit zero, with raw pixel values from 0 to 255.

    Source: introductory perceptron GANs on the zeros of MNIST: D 150-100-1, G 100-150-784, Adam with default values,
    batch 32. Ten epochs of MNIST's 5,923 zeros are 1,850 steps, or 123 epochs of the 500 zeros in the package.
    Scored frechet_digits_5k 720 in 20 s on 2 CPU cores.
    """
    return TrainConfig(
        classes=(0,),
        image_range="0..255",
        architecture="mlp",
        architecture_options={
            "generator_units": [100, 150],
            "discriminator_units": [150, 100],
            "generator_activation": "relu",
            "discriminator_activation": "relu",
        },
        latent_dim=100,
        generator_learning_rate=1e-3,
        discriminator_learning_rate=1e-3,
        beta_1=0.9,
        global_batch_size=32,
        steps=1850,
        evaluate_every_steps=500,
    )

"""Recipes with deep convolutional networks (DCGANs)."""

from trainer.config import TrainConfig
from trainer.config.recipes.registry import register_recipe


@register_recipe
def digits() -> TrainConfig:
    """The default: a small conditional DCGAN with an EMA of the generator.

    Both gradients of a step come from one forward pass. With the same number of steps, labels improved
    frechet_digits_5k from 6.4 to 1.8, and doubling the usual learning rate improved it to .60.
    Scored frechet_digits_5k 0.648 in 218 s on 2 CPU cores.
    """
    return TrainConfig(
        model="conditional",
        architecture="dcgan",
        architecture_options={
            "generator_filters": [128, 64],
            "generator_strides": [2, 2],
            "kernel_size": 4,
            "discriminator_filters": [64, 128],
            "discriminator_batch_norm": "all",
            "dropout": 0.0,
        },
        latent_dim=64,
        update_order="simultaneous",
        generator_learning_rate=4e-4,
        discriminator_learning_rate=4e-4,
        ema_half_life_images=9000,
        global_batch_size=64,
        steps=2500,
        sample_every_steps=250,
        evaluate_every_steps=500,
    )


@register_recipe
def dcgan() -> TrainConfig:
    """A DCGAN of tutorial size: G 256-128-64, D 64-128, 5×5 kernels, dropout .3, 2.5 M weights.

    Source: arXiv 1511.06434; the simultaneous step, Adam 1e-4 and a discriminator without batch norm are common in
    tutorials.
    Scored frechet_digits_5k 25.6 in 492 s on 2 CPU cores.
    """
    return TrainConfig(
        architecture="dcgan",
        architecture_options={
            "generator_filters": [256, 128, 64],
            "generator_strides": [1, 2, 2],
            "kernel_size": 5,
            "generator_activation": "leaky_relu",
            "discriminator_filters": [64, 128],
            "discriminator_batch_norm": "none",
            "dropout": 0.3,
        },
        latent_dim=100,
        update_order="simultaneous",
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        beta_1=0.9,
        global_batch_size=128,
        epochs=50,
        steps_per_execution=10,
        evaluate_every_steps=500,
    )


@register_recipe
def dcgan_conditional() -> TrainConfig:
    """The `dcgan` networks with labels, batch norm and an EMA of the generator.

    Source: arXiv 1411.1784 for the labels; otherwise as `digits`, with networks of tutorial size.
    Scored frechet_digits_5k 0.508 in 376 s on 2 CPU cores.
    """
    return TrainConfig(
        model="conditional",
        architecture="dcgan",
        architecture_options={
            "generator_filters": [256, 128, 64],
            "generator_strides": [1, 2, 2],
            "kernel_size": 5,
            "generator_activation": "leaky_relu",
            "discriminator_filters": [64, 128],
            "discriminator_batch_norm": "all",
        },
        latent_dim=100,
        update_order="simultaneous",
        generator_learning_rate=4e-4,
        discriminator_learning_rate=4e-4,
        ema_half_life_images=9000,
        global_batch_size=64,
        steps=2500,
        evaluate_every_steps=500,
    )


@register_recipe
def dcgan_dropout() -> TrainConfig:
    """A small DCGAN for beginners: 5×5 kernels in G, 3×3 in D, batch norm .8, dropout .25, batch 32.

    Source: arXiv 1511.06434, as in its Keras tutorials: G dense 7·7·256, transposed convolutions 128-64-1, batch norm
    .8, LeakyReLU .2, tanh; D convolutions 32-64-128-256, dropout .25, batch norm; Adam 2e-4 with beta_1 .5. The sigmoid
    is part of the loss.
    Scored frechet_digits_5k 3.65 in 462 s on 2 CPU cores.
    """
    return TrainConfig(
        architecture="dcgan",
        architecture_options={
            "generator_filters": [256, 128, 64],
            "generator_strides": [1, 2, 2],
            "generator_activation": "leaky_relu",
            "kernel_size": 5,
            "discriminator_filters": [32, 64, 128, 256],
            "discriminator_strides": [2, 2, 2, 1],
            "discriminator_kernel_size": 3,
            "discriminator_batch_norm": "hidden",
            "leaky_slope": 0.2,
            "batch_norm_momentum": 0.8,
            "dropout": 0.25,
        },
        latent_dim=100,
        global_batch_size=32,
        epochs=30,
        evaluate_every_steps=1000,
    )


@register_recipe
def dcgan_least_squares() -> TrainConfig:
    """A DCGAN for color images with the least-squares loss. Set `--dataset` to a prepared set of any image size.

    Source: arXiv 1611.04076 for the loss ½[(D(x)−1)²+D(G(z))²]; the networks of `dcgan_dropout`. The default dataset
    is digits in random colors.
    Scored frechet_digits_5k 6.08 in 474 s on 2 CPU cores.
    """
    return dcgan_dropout().override(dataset="tinted:digits", loss="least_squares")


@register_recipe
def dcgan_upsampling() -> TrainConfig:
    """A DCGAN with upsampling layers: 32×32, uniform latents, sigmoid output, simultaneous step, Adam 1e-4.

    Source: tutorials on DCGANs with upsampling: G dense 4·4·256, upsampling and 3×3 convolutions 128-64, transposed
    convolution 32-1; D 4×4 convolutions 32-64 with stride 2, ReLU, dropout .3. A grid every epoch, a checkpoint every
    20 epochs.
    Scored frechet_digits_5k 19.9 in 431 s on 2 CPU cores.
    """
    return TrainConfig(
        padding=2,
        image_range="0..1",
        architecture="upsampling",
        architecture_options={
            "generator_filters": [256, 128, 64, 32],
            "discriminator_filters": [32, 64],
            "dropout": 0.3,
        },
        latent_dim=100,
        latent_distribution="uniform",
        update_order="simultaneous",
        generator_learning_rate=1e-4,
        discriminator_learning_rate=1e-4,
        beta_1=0.9,
        global_batch_size=128,
        epochs=50,
        steps_per_execution=10,
        sample_every_epochs=1,
        checkpoint_every_epochs=20,
        evaluate_every_steps=500,
    )


@register_recipe
def dcgan_paper() -> TrainConfig:
    """The DCGAN of its paper at 64×64: no pooling, no dense layer, batch norm in both networks, N(0, .02) init.

    Source: arXiv 1511.06434, sections 3 and 4: transposed convolutions 512-256-128-64-C, the mirrored D with LeakyReLU
    .2, Adam 2e-4 with beta_1 .5, batch 128. Digits are padded to 64×64. After so few steps the generator produces a
    single shape.
    Scored frechet_digits_5k 1,460 in 15 min on 2 CPU cores.
    """
    return TrainConfig(
        padding=18,
        architecture="dcgan",
        architecture_options={
            "generator_stem": "transposed_convolution",
            "generator_filters": [512, 256, 128, 64],
            "generator_strides": [2, 2, 2, 2],
            "discriminator_filters": [64, 128, 256, 512],
            "discriminator_batch_norm": "hidden",
            "discriminator_head": "convolution",
            "kernel_size": 4,
            "leaky_slope": 0.2,
            "initializer": "normal_02",
        },
        latent_dim=100,
        global_batch_size=128,
        epochs=10,
        steps_per_execution=2,
        sample_every_steps=100,
        checkpoint_every_steps=100,
        evaluate_every_steps=100,
    )

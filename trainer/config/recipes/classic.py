"""Recipes of the field's first years: perceptrons, deep convolutions, labels, translation."""

from trainer.config import TrainConfig
from trainer.config.recipes import register_recipe

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
def digits() -> TrainConfig:
    """The default: the best digits that three minutes of two CPU cores can buy.

    A small conditional DCGAN whose two gradients come from one forward pass, with an average of the generator. At the
    same number of steps labels took frechet_digits_5k from 6.4 to 1.8, and twice the usual learning rate to .60.
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
def vanilla() -> TrainConfig:
    """The original GAN: two perceptrons, LeakyReLU .2, tanh, dropout .3.

    Source: arXiv 1406.2661, in the form that most tutorials give it: G 100-256-512-1024-784, D 1024-512-256-1,
    Adam 2e-4, batch 100, 200 epochs, the non-saturating loss. `--dataset=mnist` trains on all of MNIST.
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
def dcgan() -> TrainConfig:
    """DCGAN of the size that tutorials teach: G 256-128-64 and D 64-128 with 5×5 kernels, dropout .3, 2.5 M weights.

    Source: arXiv 1511.06434 for the idea; the joint step, no batch norm in D and Adam 1e-4 are the tutorials'.
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
def cgan() -> TrainConfig:
    """Conditional GAN: one-hot labels joined to latents and to images, on the networks of `gan_rmsprop`.

    Source: arXiv 1411.1784 for the idea; He init, batch norm .9, LeakyReLU .1, dropout .4 and RMSprop 1e-4. So small a
    rate takes many passes over so few images, hence the simultaneous step, which takes a sixth less time than an
    alternating one; an average of the generator takes the grain out of the samples.
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
def gan_rmsprop() -> TrainConfig:
    """Perceptrons with batch norm .9, LeakyReLU .1, dropout .4 and He init, under RMSprop 1e-4.

    Source: the batch-normalized networks of the tutorials around the `GAN` class. `image_range="0..1"` makes the
    generator end in a sigmoid; 150 epochs of batches of 128.
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
def two_phase() -> TrainConfig:
    """The discriminator learns on real and on fake images in two separate updates, then the generator through it.

    Source: arXiv 1406.2661, algorithm 1, as the two-phase tutorials write it; `--loss=least_squares` makes the log a
    mean square, `--discriminator_updates=together` one update of two.
    Scored frechet_digits_5k 36.9 in 191 s on 2 CPU cores.
    """
    return vanilla().override(discriminator_updates="separate", beta_1=0.5, epochs=100)


@register_recipe
def dcgan_dropout() -> TrainConfig:
    """A small DCGAN that many first learn from: 5×5 up, 3×3 down, batch norm .8, dropout .25, batches of 32.

    Source: arXiv 1511.06434 by way of its Keras tutorials: G dense 7·7·256, transposed conv 128-64-1 k5, BN .8,
    LeakyReLU .2, tanh; D conv 32-64-128-256 k3, dropout .25, BN; Adam 2e-4, beta_1 .5. The sigmoid is in the loss.
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
    """A DCGAN for color images under the mean-square loss; `--dataset` names the folder's prepared set.

    Source: arXiv 1611.04076 for the loss ½[(D(x)−1)²+D(G(z))²]; the networks are `dcgan_dropout`'s. Any size, 28×28 and
    64×64 alike. Without a data set of one's own it draws on digits tinted at random.
    Scored frechet_digits_5k 6.08 in 474 s on 2 CPU cores.
    """
    return dcgan_dropout().override(dataset="tinted:digits", loss="least_squares")


@register_recipe
def lsgan() -> TrainConfig:
    """Least-squares GAN of perceptrons: G 256-512-1024 with batch norm .8, D 512-256-1 with a linear end.

    Source: arXiv 1611.04076; Adam 2e-4, beta_1 .5, batches of 32.
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
def cyclegan() -> TrainConfig:
    """CycleGAN: two unpaired domains, ResNet generators, 70×70 PatchGAN, cycle 10, identity 5, a pool of 50.

    Source: arXiv 1703.10593: mean squared error, Adam 2e-4 with beta_1 .5, constant for the first half and then
    linearly to 0. Trains digits against their negatives, with the paper's network in small; for 128×128 photographs
    give --architecture_options='{"generator_filters": 64, "residual_blocks": 6, "discriminator_filters": 64}',
    --global_batch_size=1 and two data sets.
    Scored cycle_error 0.0146 in 10 min on 2 CPU cores.
    """
    return TrainConfig(
        dataset="digits",
        dataset_b="inverted:digits",
        model="cyclegan",
        model_options={"cycle_weight": 10.0, "identity_weight": 5.0, "pool_size": 50},
        architecture="resnet_translator",
        architecture_options={
            "generator_filters": 16,
            "residual_blocks": 2,
            "downsamplings": 2,
            "discriminator_filters": 16,
            "discriminator_layers": 2,
        },
        loss="mean_squared_error",
        learning_rate_decay="linear",
        learning_rate_decay_begin=0.5,
        global_batch_size=16,
        steps=3000,
        sample_every_steps=250,
        evaluate_every_steps=500,
    )


@register_recipe
def dcgan_upsampling() -> TrainConfig:
    """A DCGAN that grows by upsampling: 32×32, uniform latents, sigmoid images, one joint step, Adam 1e-4.

    Source: the upsampling DCGAN of its tutorials: G dense 4·4·256, upsample and conv3 128-64, transposed conv 32-1; D
    conv 32-64 k4 s2, ReLU, dropout .3. Grids each epoch, a checkpoint each 20.
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
def mlp_zeros() -> TrainConfig:
    """Perceptrons on the zeros alone, on raw pixels 0-255, all ReLU: the smallest GAN that shows something.

    Source: the introductory MLP GAN on the zeros of MNIST: D 150-100-1, G 100-150-784, Adam's defaults, batches of 32.
    Ten epochs of MNIST's 5,923 zeros are 1,850 steps; the embedded 500 zeros take 123 epochs to that.
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


@register_recipe
def dcgan_paper() -> TrainConfig:
    """The DCGAN of its paper at 64×64: no pooling, no dense layer, batch norm in both, N(0, .02) init.

    Source: arXiv 1511.06434, sections 3 and 4: transposed conv 512-256-128-64-C, its mirror with LeakyReLU .2, Adam
    2e-4 with beta_1 .5, batches of 128. Digits are padded to 64×64; so few steps bring it to a single
    shape, no more.
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


@register_recipe
def dcgan_conditional() -> TrainConfig:
    """The `dcgan` networks with labels, batch norm and an average of the generator.

    Source: arXiv 1411.1784 for the labels; the rest as `digits`, with the tutorial-sized networks.
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

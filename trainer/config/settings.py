"""The single source of every setting: its default, range, choices and help. Command-line flags are derived from it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trainer.config.choices import (
    DiscriminatorUpdates,
    EmaSchedule,
    ImageRange,
    JitCompile,
    LatentDistribution,
    LearningRateDecay,
    MetricSuite,
    OptimizerName,
    Precision,
    Resume,
    Size,
    StrategyName,
    UpdateOrder,
)
from trainer.config.fields import setting
from trainer.config.suites import SUITES, describe_default_numbers


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The fields of `TrainConfig`."""

    recipe: str = setting("digits", "Name of the recipe that provides the default of every other setting.")
    size: str = setting(
        Size.AUTO,
        "Size of the networks and of the run, for recipes that choose their settings by the data and the device, such "
        "as photos: small for a CPU, medium for a GPU of 16 to 24 GB, large for a GPU of 40 GB and more. auto: by the "
        "device.",
        choices=Size,
    )
    job_dir: str | None = setting(
        None, "Run directory. None: runs/RECIPE in the current directory.", is_path=True, resumable=True
    )

    dataset: str = setting(
        "digits",
        "Dataset to train on: digits (5,000 MNIST digits that ship with the package), mnist, fashion_mnist, cifar10, "
        "or a local or gs:// folder that prepare wrote. A prefix derives a set: stacked: puts three digits into the "
        "channels of one image, inverted: makes negatives, tinted: colors gray images, gray_to_color: makes pairs "
        "of a gray input and a color image for model=pix2pix.",
        is_path=True,
    )
    dataset_b: str | None = setting(
        None,
        "Dataset named like --dataset: of the second domain of model=cyclegan, or of held-out pairs for the metrics "
        "and sample grids of model=pix2pix. None: no such dataset.",
        is_path=True,
    )
    padding: int = setting(
        0,
        "Black pixels to add on each side of every image (white in an inverted: set). 2 turns 28x28 into 32x32.",
        minimum=0,
    )
    classes: tuple[int | str, ...] | None = setting(
        None,
        "Classes to train on, as names or numbers from 0, such as cat,dog or 0,3. If a number is also the name of "
        "another class, write it with a zero before it, such as 03. None: all classes.",
    )
    balance_classes: bool = setting(
        False, "Show every class equally often by repeating images of smaller classes within an epoch."
    )
    horizontal_flips: bool = setting(False, "Mirror real images left to right with probability 0.5.")
    data_memory_mib: float | None = setting(
        None,
        "Memory for decoded images, in MiB. A larger prepared set is split into chunks, two of which are in memory at "
        "a time. None: a quarter of the machine's memory.",
        minimum=0.001,
        resumable=True,
    )
    num_chunks: int | None = setting(
        None,
        "Number of chunks that a prepared set is split into. None: as few as data_memory_mib allows. A resumed run "
        "keeps its number on any machine.",
        minimum=1,
    )
    cache_mib: float = setting(
        10_240.0,
        "Local disk space for cached shards of datasets in buckets, in MiB.",
        minimum=0.0,
        resumable=True,
    )
    image_range: str = setting(
        ImageRange.SIGNED_UNIT,
        "Range that 8-bit pixels are scaled to. The generator's output has the same range.",
        choices=ImageRange,
    )

    model: str = setting(
        "gan",
        "Name of the model, which defines the networks and the phases of a step, such as gan or conditional.",
    )
    model_options: Mapping[str, Any] = setting(
        {}, 'Options of the model as a JSON object, such as {"cycle_weight": 10}.'
    )
    architecture: str = setting("dcgan", "Name of the function that builds the networks for an image shape.")
    architecture_options: Mapping[str, Any] = setting(
        {}, 'Options of the architecture as a JSON object, such as {"discriminator_filters": [64, 128]}.'
    )
    latent_dim: int = setting(100, "Number of latent variables of the generator.", minimum=1)
    latent_distribution: str = setting(
        LatentDistribution.NORMAL,
        "Distribution of the latents: N(0, 1) or U[0, 1).",
        choices=LatentDistribution,
    )

    loss: str = setting("non_saturating", "Name of the adversarial loss.")
    update_order: str = setting(
        UpdateOrder.ALTERNATING,
        "alternating: update the discriminator, then the generator with new latents. simultaneous: compute both "
        "gradients in one forward pass.",
        choices=UpdateOrder,
    )
    discriminator_updates: str = setting(
        DiscriminatorUpdates.TOGETHER,
        "together: one update on a real and a fake batch. separate: one update on real images, then one on fake "
        "images. concatenated: one update on a single batch of both, which share batch normalization statistics.",
        choices=DiscriminatorUpdates,
    )
    discriminator_repeats: int = setting(
        1, "Number of discriminator updates per step, each on different images.", minimum=1
    )
    optimizer: str = setting(OptimizerName.ADAM, "Optimizer of both networks.", choices=OptimizerName)
    generator_learning_rate: float = setting(2e-4, "Learning rate of the generator.", minimum=0.0)
    discriminator_learning_rate: float = setting(2e-4, "Learning rate of the discriminator.", minimum=0.0)
    learning_rate_decay: str = setting(
        LearningRateDecay.NONE, "Decay schedule of the learning rates.", choices=LearningRateDecay
    )
    learning_rate_end: float = setting(
        0.0, "Final learning rates as a fraction of the initial ones.", minimum=0.0, maximum=1.0
    )
    learning_rate_decay_begin: float = setting(
        0.0, "Start of the decay as a fraction of schedule_images.", minimum=0.0, maximum=0.999
    )
    beta_1: float = setting(0.5, "Adam's decay rate of the first moment.", minimum=0.0, maximum=0.9999)
    beta_2: float = setting(0.999, "Adam's decay rate of the second moment.", minimum=0.0, maximum=0.999999)
    beta_2_end: float | None = setting(
        None, "Value of beta_2 at the end of a cosine schedule. None: constant.", minimum=0.0, maximum=0.999999
    )
    epsilon: float = setting(1e-7, "Epsilon of Adam and RMSprop.", minimum=0.0)
    schedule_images: int | None = setting(
        None, "Number of images seen at which all schedules end. None: the end of the run.", minimum=1
    )
    penalties: tuple[str, ...] = setting(
        (), "Penalties on the discriminator, such as r1,r2 or gradient_penalty. Empty: no penalty."
    )
    penalty_weight: float = setting(
        10.0,
        "Weight of each penalty; gamma for r1 and r2. Published weights are for image_range=-1..1: penalties depend on "
        "the range.",
        minimum=0.0,
    )
    penalty_weight_end: float | None = setting(
        None, "Penalty weight at the end of a cosine schedule. None: constant.", minimum=0.0
    )
    penalty_every_steps: int = setting(
        1,
        "Number of steps from one penalty to the next (lazy regularization). With a value of k, each penalty has k "
        "times its weight, and the discriminator's learning rate and betas are corrected by k/(k+1).",
        minimum=1,
    )
    augment: str | None = setting(
        None, "Augmentation of the discriminator's input: diffaugment or ada. None: no augmentation."
    )
    augment_probability: float | None = setting(
        1.0,
        "Probability of each transformation. None: adapted to the discriminator's overfitting.",
        minimum=0,
        maximum=1,
    )
    augment_probability_end: float | None = setting(
        None, "Augmentation probability at the end of a cosine schedule. None: constant.", minimum=0.0, maximum=1.0
    )
    ema_half_life_images: float = setting(
        0.0,
        "Half-life, in images seen, of the exponential moving average (EMA) of the generator's weights, which samples, "
        "metrics and exports use. 0: no EMA.",
        minimum=0.0,
    )
    ema_schedule: str = setting(
        EmaSchedule.EARLY,
        "Growth of the EMA's half-life. early: a twentieth of the images seen, up to ema_half_life_images. cosine: "
        "from 0 to ema_half_life_images at schedule_images.",
        choices=EmaSchedule,
    )

    global_batch_size: int = setting(64, "Number of real images per phase, over all replicas.", minimum=1)
    accumulate_steps: int = setting(
        1,
        "Number of micro-batches that each replica divides its batch into, to save memory. Their gradients are summed "
        "before the update: the results are those of the whole batch, except for rounding. Works with "
        "architecture=r3gan, with mlp without batch normalization, and with image translators without an image pool. "
        "Networks with batch normalization, and stylegan2, are refused.",
        minimum=1,
    )
    steps: int | None = setting(
        None, "Total number of training steps. None: derived from --epochs.", minimum=1, resumable=True
    )
    epochs: float | None = setting(
        None, "Total number of passes over the data. None: derived from --steps.", above=0.0, resumable=True
    )
    seed: int = setting(
        0, "Seed of weights, data order, latents, augmentation and dropout.", minimum=0, maximum=2**31 - 1
    )
    init_from: str | None = setting(
        None,
        "Run whose weights this run starts with, local or gs://: RUN for its best checkpoint, RUN@STEP or RUN@latest. "
        "The generator and its moving average start with the moving average of that run. Step, optimizers and "
        "schedules start from zero. After its first checkpoint, a run no longer reads the other run. None: random "
        "weights.",
        is_path=True,
    )
    freeze_discriminator_layers: int = setting(
        0,
        "Number of layers with weights of the discriminator, counted from the image, that are not trained. Needs "
        "init_from.",
        minimum=0,
    )

    strategy: str = setting(
        StrategyName.AUTO,
        "Distribution strategy. auto: multi_worker if TF_CONFIG lists several machines, mirrored if there are several "
        "devices, else one_device.",
        choices=StrategyName,
        resumable=True,
    )
    worker_timeout_secs: float = setting(
        600.0,
        "Multi-worker timeout in seconds. If a worker or a step takes longer, all workers exit so that the job "
        "restarts.",
        minimum=1.0,
        resumable=True,
    )
    num_virtual_devices: int = setting(
        1, "Number of virtual devices to split the CPU into, for testing several replicas.", minimum=1, resumable=True
    )
    steps_per_execution: int = setting(
        20, "Number of training steps that the device runs in one call.", minimum=1, resumable=True
    )
    jit_compile: str = setting(
        JitCompile.AUTO,
        "Compile the phases with XLA. auto: only for networks without convolutions, and not in bfloat16 on a CPU. A "
        "resumed run keeps the choice.",
        choices=JitCompile,
    )
    precision: str = setting(
        Precision.AUTO,
        "Precision of the networks' computations. Weights, losses, and optimizers are always float32. auto: bfloat16 "
        "on CPUs with AMX-BF16 or AVX512-BF16 and on GPUs of compute capability 8.0 or more, else float32. A resumed "
        "run keeps the choice on any machine.",
        choices=Precision,
    )
    max_weights: int = setting(
        500_000_000,
        "Largest number of weights of all networks together, with their moving averages. Larger networks are rejected "
        "before memory is taken for them.",
        minimum=1,
        resumable=True,
    )

    sample_every_steps: int = setting(
        500, "Number of steps between sample grids. 0: only before and after training.", minimum=0, resumable=True
    )
    checkpoint_every_steps: int = setting(
        500, "Number of steps between checkpoints. 0: only at the end.", minimum=0, resumable=True
    )
    sample_every_epochs: float | None = setting(
        None, "Number of epochs between sample grids, in place of sample_every_steps.", minimum=0.0, resumable=True
    )
    checkpoint_every_epochs: float | None = setting(
        None, "Number of epochs between checkpoints, in place of checkpoint_every_steps.", minimum=0.0, resumable=True
    )
    evaluate_every_steps: int = setting(
        0, "Number of steps between evaluations. 0: only before and after training.", minimum=0, resumable=True
    )
    max_to_keep: int = setting(
        3, "Number of newest checkpoints to keep in addition to the best one.", minimum=1, resumable=True
    )
    metrics: str = setting(
        MetricSuite.AUTO,
        "Metric suite. auto: digits for the digits and mnist datasets, stacked for stacked: sets, cycle for "
        "model=cyclegan, paired for model=pix2pix; for all other images inception if inception_weights is set or in "
        "the cache, else photos, and none for fewer than 12 images. A job of several machines or a tuning trial does "
        "not look in the cache. none: no metrics. Otherwise the name of a suite: "
        f"{', '.join(SUITES.names())}, or a registered one. A resumed run keeps its suite.",
        resumable=True,
    )
    num_metric_samples: int | None = setting(
        None,
        "Number of images to generate for each evaluation, which the names of the metrics state. None: "
        f"{describe_default_numbers()}. A resumed run keeps its number.",
        minimum=12,
        maximum=1_000_000,
        resumable=True,
    )
    inception_weights: str | None = setting(
        None,
        "Weights of metrics=inception: a local file, gs://BUCKET/NAME, or an https:// address of the published .pb or "
        ".tgz file, or download. None: the file in the cache.",
        is_path=True,
        resumable=True,
    )
    inception_score: bool = setting(
        False, "Also compute the Inception score, with metrics=inception or metrics=photos.", resumable=True
    )
    stop_on_collapse: bool = setting(
        False,
        "End a run whose generator collapses, as if it had taken all steps: its best checkpoint is exported. If False, "
        "a warning is logged.",
        resumable=True,
    )
    track: tuple[str, ...] = setting(
        (),
        "Experiment trackers that also get the settings, metrics, and sample grids: wandb, mlflow, or vertex. Empty: "
        "none.",
        resumable=True,
    )
    export_model: bool = setting(
        True, "Write the best generator as a SavedModel for serving when training ends.", resumable=True
    )
    allow_config_change: bool = setting(
        False,
        "Resume from a checkpoint even if settings or data have changed since it was written.",
        resumable=True,
    )
    resume: str = setting(
        Resume.AUTO,
        "auto: resume from the newest valid checkpoint in the run directory. never: refuse a run directory that has "
        "checkpoints.",
        choices=Resume,
        resumable=True,
    )

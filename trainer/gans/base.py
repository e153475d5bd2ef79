"""`GAN`: the vanilla wiring, and the Keras model that users subclass.

Legend: `B` images a replica, `H W C` an image, `Z` latent size.
"""

import contextlib
import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from trainer import console
from trainer.callbacks import Progress
from trainer.combinations import check_updates
from trainer.config import check_batch
from trainer.data.balance import balanced_order
from trainer.data.feeds import Feed, Resident, Stream, Streamed
from trainer.data.windows import IMAGE_RANGES, Window
from trainer.engine import loop, optimizers
from trainer.engine.preemption import Preemption
from trainer.engine.randomness import Noise, seeded_initialisation
from trainer.engine.schedules import Scheduled
from trainer.engine.share import Share
from trainer.engine.step import Losses, Metrics, StepPlan
from trainer.engine.strategy import spans_machines
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.gans.augmenter import Augmenter
from trainer.gans.beside import check_beside
from trainer.gans.checks import (
    POLICIES,
    as_classes,
    as_images,
    check_built,
    check_owners,
    check_precision,
    check_reaches,
    check_reads,
    check_same_shape,
    check_takes_images,
    check_takes_latents,
    has_convolutions,
    range_of,
)
from trainer.gans.objective import Objective, Outcome
from trainer.gans.planning import average_of, step_plan
from trainer.gans.sampling import Sampler
from trainer.images import tile
from trainer.settings import check_number


class GAN(keras.Model):
    """A generator and a discriminator that train each other.

    Subclass it and override `get_generator` and `get_discriminator`, then `compile` and `fit` as with any Keras model:

        class MyGAN(GAN):
            def get_generator(self):  # [B, Z] -> [B, H, W, C]
                return keras.Sequential([...])

            def get_discriminator(self):  # [B, H, W, C] -> [B, 1]
                return keras.Sequential([...])

        gan = MyGAN(100)
        gan.compile(optimizer=keras.optimizers.Adam(2e-4, beta_1=0.5), loss="non_saturating")
        gan.fit(images, epochs=10, batch_size=64)

    Args:
        latent_dim: Z.
        networks: Factories by network name, in place of overriding the methods.
        latent_distribution: `normal` for N(0, 1), `uniform` for U[0, 1).
        image_range: What uint8 images are mapped to: `-1..1`, `0..1` or `0..255`. Float images are used as they are.
        name: Of the model.
    """

    num_classes = 0
    """K of a conditional model; 0 where there are no labels."""

    labels_are_codes = False
    """Whether what a sample is labelled with is a code whose meaning the model chose, not a class of the data."""

    owners: Mapping[str, tuple[str, ...]] = {"discriminator": ("discriminator",), "generator": ("generator",)}
    """The networks that each optimiser moves. A wiring with more networks says so here."""

    averaged: tuple[str, ...] = ("generator",)
    """The generators that an average follows, where one is asked for."""

    def __init__(
        self,
        latent_dim: int,
        *,
        networks: Mapping[str, Callable[[], keras.Model]] | None = None,
        latent_distribution: str = "normal",
        image_range: str = "-1..1",
        name: str | None = None,
    ):
        super().__init__(name=name)
        if type(self).train_step is not keras.Model.train_step:
            raise ConfigError(
                f"{type(self).__name__} has a train_step, which nothing would call; override forward or add_losses."
            )
        if latent_distribution not in ("normal", "uniform"):
            raise ConfigError(f"latent_distribution={latent_distribution} is unknown; choose normal or uniform.")
        if image_range not in IMAGE_RANGES:
            raise ConfigError(f"image_range={image_range} is unknown; choose one of {', '.join(IMAGE_RANGES)}.")
        self.latent_dim = latent_dim
        self.latent_distribution = latent_distribution
        self.image_range = IMAGE_RANGES[image_range]
        self.step = 0
        self._factories = dict(networks or {})
        self._made: set[int] = set()
        self._preemption = Preemption()

    @property
    def latent_size(self) -> int:
        """Size of what the generator takes beside a label: Z here."""
        return self.latent_dim

    @property
    def condition_size(self) -> int:
        """Size of the label that generator and discriminator both take; 0 for none."""
        return 0

    # What a subclass may override.

    def get_generator(self) -> keras.Model:
        """A new generator: [B, Z] -> [B, H, W, C]. Called inside the strategy's scope."""
        return self._from_factory("generator")

    def get_discriminator(self) -> keras.Model:
        """A new discriminator: [B, H, W, C] -> [B, 1]. Called inside the strategy's scope."""
        return self._from_factory("discriminator")

    def get_networks(self) -> dict[str, keras.layers.Layer]:
        """All networks that learn or hold state, by name; weights of one's own that learn elsewhere are refused."""
        return {"generator": self.get_generator(), "discriminator": self.get_discriminator()}

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        """Fake images [B, H, W, C] of a generator `network` for latents [B, Z]."""
        check_takes_latents(network, latents.shape[-1])
        return network(latents, training=training)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> Any:
        """The discriminator's output for images [B, H, W, C]: [B, 1], or a pair of that and features [B, F]."""
        return self.discriminator(images, training=True)

    def sample_latents(self, noise: Noise) -> tf.Tensor:
        """Latents float32 [B, Z]."""
        draw = noise.normal if self.latent_distribution == "normal" else noise.uniform
        return draw("latents", self.latent_dim)

    def sample_labels(self, noise: Noise) -> tf.Tensor | None:
        """Labels int32 [B] for fake images; None in an unconditional model."""
        return None

    def forward(self, real_images: tf.Tensor, labels: tf.Tensor | None, noise: Noise) -> tuple[Losses, Metrics]:
        """One forward pass: the per-example losses [B] of all phases, and what to log, [B], by phase.

        What a phase does not need of it never runs: the graph is pruned.
        """
        fake_labels = self.sample_labels(noise)
        latents = self.sample_latents(noise)
        fake_images = tf.cast(self.generate(latents, fake_labels, self.generator, True), tf.float32)
        check_same_shape(fake_images, real_images)
        outcome = self.objective(
            self.discriminate, self.discriminator, (real_images, labels), (fake_images, fake_labels), noise
        )
        self.add_losses(outcome, latents)
        return outcome.losses, outcome.metrics

    def add_losses(self, outcome: Outcome, latents: tf.Tensor) -> None:
        """Adds a wiring's own terms to the losses; `latents` are those of the fake images. Here: none."""

    # Keras's methods.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = "non_saturating",
        *,
        update_order: str = "alternating",
        discriminator_updates: str = "together",
        discriminator_repeats: int = 1,
        penalties: Sequence[Any] = (),
        penalty_weight: Scheduled = 10.0,
        penalty_every_steps: int = 1,
        augment: str | None = None,
        augment_probability: Scheduled | None = 1.0,
        ema_half_life_images: Scheduled = 0.0,
        jit_compile: bool | str = "auto",
        precision: str = "float32",
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Builds networks and optimisers inside the strategy's scope, once: training goes on with the settings given.

        Args:
            optimizer: One Keras optimiser, which each phase gets a clone of, or a dict with one for `generator` and
                one for `discriminator`.
            loss: A name of `trainer.losses`, an `AdversarialLoss` or a subclass of it, or a Keras loss
                `(y_true, y_pred)`, which is applied to the targets 1 and 0.
            update_order: `alternating` or `simultaneous`.
            discriminator_updates: `together`, `separate` (one update on real, then one on fake images) or
                `concatenated` (one batch of both).
            discriminator_repeats: Discriminator updates a step.
            penalties: Names of `trainer.penalties`, or such functions.
            penalty_weight: Of each penalty; a number or a function of the step.
            penalty_every_steps: Steps between two penalties.
            augment: Name of `trainer.augment`; None for no augmentation.
            augment_probability: Of each transformation; a number, a function of the step, or None to adapt it.
            ema_half_life_images: Half-life in images of the averaged generator that samples; 0 for no average. A
                function of the step is used as it is, a number is approached while training is young.
            jit_compile: XLA; `auto` where the networks have no convolution.
            precision: `float32` or `bfloat16`.
            seed: Decides weights, data order, latents, augmentation and dropout.
            strategy: Where to train; None: the current strategy.

        Raises:
            ConfigError: A setting or a name is unknown, two settings do not fit each other, or training has begun.
            NetworkError: Networks, loss and optimisers do not fit each other.
        """
        if self.step:
            raise ConfigError(
                f"compile makes new networks, and these have taken {self.step} steps; make another GAN for new ones, "
                "or set optimizers['generator'].learning_rate to go on with another rate."
            )
        check_precision(precision)
        check_updates(update_order, discriminator_updates, discriminator_repeats, penalties, penalty_every_steps)
        self.objective = Objective(
            loss,
            updates=discriminator_updates,
            penalties=penalties,
            weight=penalty_weight,
            every_steps=penalty_every_steps,
            augmenter=Augmenter(augment, augment_probability, self.image_range) if augment else None,
        )
        self.seed = seed
        self._strategy = strategy or tf.distribute.get_strategy()
        self.update_order, self.discriminator_repeats = update_order, discriminator_repeats
        self.ema_half_life_images = ema_half_life_images
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy(POLICIES[precision])
        try:
            with self._strategy.scope(), seeded_initialisation(seed):
                self._build_networks(optimizer)
        finally:
            keras.config.set_dtype_policy(policy)
        self.with_xla = not has_convolutions(self.networks.values()) if jit_compile == "auto" else bool(jit_compile)
        self.optimizer = SimpleNamespace(optimizers=[*self.optimizers.values()])  # where Keras's callbacks find several
        self.built = True

    def fit(
        self,
        x: Any,
        y: Any = None,
        *,
        batch_size: int = 32,
        epochs: float = 1,
        steps: int | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | None = None,
        verbose: str | int = "auto",
        steps_per_window: int = 20,
        balance_classes: bool = False,
        horizontal_flips: bool = False,
    ) -> keras.callbacks.History:
        """Trains from `self.step` on, with this package's loop and ordinary Keras callbacks.

        SIGTERM ends it after the step that runs; then `preempted` is true.

        Args:
            x: Images [N, H, W, C]: uint8, or float in the range of the generator's output; or a `Stream` of a prepared
                set, labels included.
            y: Labels: integers [N] or one-hot [N, K]; needed by conditional models.
            batch_size: Global batch size.
            epochs: Passes over `x` in all, those of an earlier `fit` included.
            steps: Generator updates in all, in place of `epochs`.
            callbacks: They see `on_epoch_*`, and `on_train_batch_*` once a window. Those of Keras that set learning
                rates set those of both optimisers.
            verbose: 0 for no progress display; otherwise a bar on a terminal, JSON lines elsewhere.
            steps_per_window: Most steps between two calls of the callbacks.
            balance_classes: Show every class of `y` as often as any other: images of smaller classes come several
                times an epoch.
            horizontal_flips: Mirror every other real image, at random, left to right.

        Returns:
            Keras's `History`; its `history` has a list of epoch means for each scalar. The last one is of what was run,
            where that ends within an epoch.

        Raises:
            ConfigError: The model is not compiled, a number is out of range, the batch is larger than the data, or the
                replicas do not divide it.
            DataError: `x` and `y` do not fit each other or the model.
            NetworkError: The networks do not fit the data, or a variable gets no gradient.
            DivergenceError: A loss is not finite.
        """
        self._check_compiled("fit")
        check_number("batch_size", batch_size, whole=True, minimum=1)
        check_number("steps_per_window", steps_per_window, whole=True, minimum=1)
        feed = self._feed(x, y, batch_size, balance_classes)
        steps_per_epoch = feed.steps_per_epoch
        num_steps = max(1, round(epochs * steps_per_epoch)) if steps is None else steps
        shown = [] if verbose == 0 else [Progress()]
        callback_list = keras.callbacks.CallbackList(
            [*(callbacks or []), *shown],
            add_history=True,
            model=self,
            epochs=-(-num_steps // steps_per_epoch),
            steps=steps_per_epoch,
            verbose=0,
            num_steps=num_steps,
            global_batch_size=batch_size,
        )
        if self.step >= num_steps:
            console.say(
                f"There is nothing to train: epochs and steps count from the beginning, and the model has taken "
                f"{self.step} of {num_steps} steps.",
                severity="WARNING",
            )
        with contextlib.closing(feed), self._preemption:
            loop.run(
                self,
                functools.partial(self._device_window, batch_size, horizontal_flips),
                feed,
                callback_list,
                num_steps=num_steps,
                global_batch_size=batch_size,
                steps_per_window=steps_per_window,
                preemption=self._preemption,
            )
        return next(held for held in callback_list.callbacks if isinstance(held, keras.callbacks.History))

    def save(self, *args: Any, **settings: Any) -> NoReturn:
        """Refuses: a GAN is its class's code and its state, which other methods save.

        Raises:
            ConfigError: Always, with those methods.
        """
        raise ConfigError(
            "a GAN is not saved whole; use averaged_generator.save(FILE) for the network that samples, "
            "save_weights(FILE) for all weights, or trainer.callbacks.Checkpoint to go on exactly."
        )

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, C] of the generator that samples (the average, where there is one)."""
        self._check_compiled("the model")
        return self.generate(latents, None, self.averaged_generator, training)

    # What callbacks and commands use.

    @property
    def averaged_generator(self) -> keras.Model:
        """The generator that samples: the average where there is one, else the one that learns."""
        return self.best_of("generator")

    def best_of(self, name: str) -> keras.Model:
        """A network's average where there is one, else the network."""
        return self.networks.get(average_of(name), self.networks[name])

    @property
    def preempted(self) -> bool:
        """Whether SIGTERM has stopped `fit`."""
        return self._preemption.requested

    @property
    def state(self) -> dict[str, keras.Variable]:
        """All that training changes, by names that are the same in every process: weights, moments, optimiser slots."""
        named: dict[str, keras.Variable] = {}
        for name, network in self.networks.items():
            named |= {f"{name}/{i:03d}/{_name_of(v)}": v for i, v in enumerate(network.weights)}
        for name, optimizer in self.optimizers.items():
            named |= {f"{name}_optimizer/{i:03d}": v for i, v in enumerate(optimizer.variables)}
        return named

    def sample(self, num_images: int, *, labels: Any = None, seed: int | None = None) -> tuple[np.ndarray, Any]:
        """Generated images, the same for the same seed, and the first ones whatever the number.

        Args:
            num_images: N.
            labels: For conditional models, one label or N; None: each class in turn.
            seed: Of the latents; None: the run's.

        Returns:
            uint8 [N, H, W, C] and int32 labels [N], or None where the model has no classes.

        Raises:
            ConfigError: The model is not compiled.
            DataError: Labels were given to an unconditional model, or are out of range.
        """
        self._check_compiled("sample")
        chosen = self._labels_to_sample(num_images, labels)
        seed = self.seed if seed is None else seed
        latents = self.sample_latents(Noise(seed, 0, num_images, purpose="samples")).numpy()
        return self._sampler(self.image_range, latents, chosen), chosen

    def sample_grid(self, rows: int, columns: int) -> np.ndarray:
        """What the model has to show, on fixed latents, as one picture: uint8 [height, width, C]."""
        return tile(self.sample(rows * columns)[0], columns)

    def use(self, networks: Mapping[str, Callable[[], keras.Model]]) -> None:
        """Takes networks from factories by name, where the methods are not overridden; before `compile`."""
        self._factories |= networks

    # Inside.

    def _check_compiled(self, called: str) -> None:
        if not hasattr(self, "optimizers"):
            raise ConfigError(f"{called} was called before compile; call compile(optimizer=..., loss=...) first.")

    def _from_factory(self, name: str) -> keras.Model:
        if name not in self._factories:
            raise NetworkError(f"{type(self).__name__} has no {name}; override get_{name}() to return a keras.Model.")
        return self._factories[name]()

    def _build_networks(self, optimizer: Any) -> None:
        self.networks = self.get_networks()
        for name, network in self.networks.items():
            check_built(name, network)
        check_owners(self.owners, self.networks)
        if self.ema_half_life_images:
            for name in self.averaged:
                average = self.get_generator()
                average.set_weights(self.networks[name].get_weights())
                self.networks[average_of(name)] = average
        if self.objective.augmenter is not None:
            self.networks["augmenter"] = self.objective.augmenter
        for name, network in self.networks.items():
            setattr(self, name, network)
        self._check_beside()
        for network in self._named("discriminator"):
            check_reads(self.objective.loss, network)
        moved = {
            phase: [variable for name in names for variable in self.networks[name].trainable_variables]
            for phase, names in self.owners.items()
        }
        self.optimizers = optimizers.for_phases(optimizer, moved)
        self._sampler = Sampler(lambda latents, labels: self.generate(latents, labels, self.averaged_generator, False))

    def _check_beside(self) -> None:
        """Refuses weights outside of all networks, those of an earlier `compile` included."""
        self._made |= {id(variable) for network in self.networks.values() for variable in network.variables}
        check_beside(self, self._made)

    def _device_window(self, batch_size: int, horizontal_flips: bool, window: Window) -> loop.DeviceWindow:
        made = loop.DeviceWindow(self._plan(batch_size, horizontal_flips), window, self._strategy)
        self._check_beside()  # once more: a layer may have got its weights in the pass that was just traced
        return made

    def _plan(self, batch_size: int, horizontal_flips: bool = False) -> StepPlan:
        return step_plan(self, batch_size, horizontal_flips)

    def _feed(self, x: Any, y: Any, batch_size: int, balance_classes: bool) -> Feed:
        """What the steps are taken from, checked against the batch and the networks."""
        num_replicas = self._strategy.num_replicas_in_sync
        if isinstance(x, Stream):
            check_batch(batch_size, x.num_examples, num_replicas)
            self._check_images(x.image_shape)
            return Streamed(x, self._window, batch_size, balance_classes, self._share(batch_size))
        window = self._window(x, y)
        if balance_classes:
            window = self._balanced(window, y)
        check_batch(batch_size, window.largest_batch, num_replicas)
        self._check_images(window.images.shape[1:])
        return Resident(window, batch_size)

    def _share(self, batch_size: int) -> Callable[[int], Share] | None:
        """What this process loads of a window of some steps; None: all of it, where it trains alone."""
        if not spans_machines(self._strategy):
            return None
        return lambda num_steps: Share(self._strategy, num_steps, batch_size, self.seed, self.discriminator_repeats)

    def _balanced(self, window: Window, y: Any) -> Window:
        if y is None or window.is_unpaired:
            raise DataError(f"balance_classes needs labels, which {type(self).__name__} was not given; pass y.")
        return dataclasses.replace(window, order=balanced_order(as_classes(y, len(window.images))))

    def _window(self, x: Any, y: Any) -> Window:
        """The data as a window, labels dropped where the model has no use for them."""
        images = as_images(x)
        if images.dtype != np.uint8:
            self._take_range(range_of(images))
        return Window(images, None, self.image_range)

    def _take_range(self, image_range: tuple[float, float]) -> None:
        """Makes a range that of the images, for whatever shows or augments them."""
        self.image_range = image_range
        if self.objective.augmenter is not None:
            self.objective.augmenter.image_range = image_range

    def _check_images(self, shape: tuple[int, ...]) -> None:
        """Refuses images of a shape or in a range that the networks do not take or make."""
        self._check_image_shape(shape)
        for network in self._named("generator"):
            check_reaches(network, self.image_range)

    def _named(self, owner: str) -> list[keras.layers.Layer]:
        """The generators or the discriminators, without heads and other state beside them."""
        return [self.networks[name] for name in self.owners[owner] if name.partition("_")[0] == owner]

    def _check_image_shape(self, shape: tuple[int, ...]) -> None:
        check_takes_images(self.discriminator, shape)

    def _labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray | None:
        if labels is not None:
            raise DataError(f"labels={labels} were given to {type(self).__name__}, which has no classes.")
        return None


def _name_of(weight: keras.Variable) -> str:
    """A weight's name; of one that was given none, without the number by which Keras tells it from others."""
    return re.sub(r"^variable_\d+$", "variable", weight.name)

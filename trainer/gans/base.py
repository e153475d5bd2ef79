"""`GAN`: the vanilla wiring, and the Keras model that users subclass.

Legend: `B` images a replica, `H W C` an image, `Z` latent size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from trainer import losses
from trainer.callbacks import Progress
from trainer.config import check_batch
from trainer.data.windows import IMAGE_RANGES, Window
from trainer.engine import loop, optimizers
from trainer.engine.preemption import Preemption
from trainer.engine.randomness import Noise, seeded_initialisation
from trainer.engine.step import Average, Losses, Metrics, Phase, PhaseGroup, StepPlan
from trainer.errors import ConfigError, DataError, NetworkError
from trainer.gans.checks import as_logits, check_built, check_reads, check_same_shape, has_convolutions, range_of

_SAMPLING_BATCH = 250


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
        if latent_distribution not in ("normal", "uniform"):
            raise ConfigError(f"latent_distribution={latent_distribution} is unknown; choose normal or uniform.")
        if image_range not in IMAGE_RANGES:
            raise ConfigError(f"image_range={image_range} is unknown; choose one of {', '.join(IMAGE_RANGES)}.")
        self.latent_dim = latent_dim
        self.latent_distribution = latent_distribution
        self.image_range = IMAGE_RANGES[image_range]
        self.step = 0
        self._factories = dict(networks or {})
        self._preemption = Preemption()

    # What a subclass may override.

    def get_generator(self) -> keras.Model:
        """A new generator: [B, Z] -> [B, H, W, C]. Called inside the strategy's scope."""
        return self._from_factory("generator")

    def get_discriminator(self) -> keras.Model:
        """A new discriminator: [B, H, W, C] -> [B, 1]. Called inside the strategy's scope."""
        return self._from_factory("discriminator")

    def generate(self, latents: tf.Tensor, labels: tf.Tensor | None, network: keras.Model, training: bool) -> tf.Tensor:
        """Fake images [B, H, W, C] of a generator `network` for latents [B, Z]."""
        return network(latents, training=training)

    def discriminate(self, images: tf.Tensor, labels: tf.Tensor | None) -> tf.Tensor:
        """The discriminator's output for images [B, H, W, C]: [B, 1]."""
        return self.discriminator(images, training=True)

    def sample_labels(self, noise: Noise) -> tf.Tensor | None:
        """Labels int32 [B] for fake images; None in an unconditional model."""
        return None

    def forward(self, real_images: tf.Tensor, labels: tf.Tensor | None, noise: Noise) -> tuple[Losses, Metrics]:
        """One forward pass: the per-example losses [B] of both phases, and what to log, [B], by phase.

        What a phase does not need of it never runs: the graph is pruned.
        """
        fake_labels = self.sample_labels(noise)
        latents = self.sample_latents(noise)
        fake_images = tf.cast(self.generate(latents, fake_labels, self.generator, True), tf.float32)
        check_same_shape(fake_images, real_images)
        real_logits = as_logits(self.discriminate(real_images, labels))
        fake_logits = as_logits(self.discriminate(fake_images, fake_labels))
        loss = self.adversarial_loss
        of_phase = {
            "discriminator": loss.discriminator(real_logits, fake_logits),
            "generator": loss.generator(real_logits, fake_logits),
        }
        metrics = {
            "discriminator": {
                "score/real": loss.score(real_logits),
                "score/fake": loss.score(fake_logits),
                "accuracy/real": tf.cast(real_logits > loss.boundary, tf.float32),
                "accuracy/fake": tf.cast(fake_logits <= loss.boundary, tf.float32),
            }
        }
        return of_phase, metrics

    # Keras's methods.

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = "non_saturating",
        *,
        update_order: str = "alternating",
        discriminator_repeats: int = 1,
        ema_half_life_images: float = 0.0,
        jit_compile: bool | str = "auto",
        precision: str = "float32",
        seed: int = 0,
        strategy: tf.distribute.Strategy | None = None,
    ) -> None:
        """Builds networks and optimisers inside the strategy's scope.

        Args:
            optimizer: One Keras optimiser, which each network gets a clone of, or a dict with one for `generator` and
                one for `discriminator`.
            loss: A name (`non_saturating`, `minimax`, `least_squares`, `hinge`), an `AdversarialLoss`, or a Keras
                loss `(y_true, y_pred)`, which is applied to the targets 1 and 0.
            update_order: `alternating` or `simultaneous`.
            discriminator_repeats: Discriminator updates a step.
            ema_half_life_images: Half-life in images of the averaged generator that samples; 0 for no average.
            jit_compile: XLA; `auto` where the networks have no convolution.
            precision: `float32` or `bfloat16`.
            seed: Decides weights, data order, latents and dropout.
            strategy: Where to train; None: the current strategy.

        Raises:
            ConfigError: A setting or the loss's name is unknown.
            NetworkError: Networks, loss and optimisers do not fit each other.
        """
        if update_order not in ("alternating", "simultaneous"):
            raise ConfigError(f"update_order={update_order} is unknown; choose alternating or simultaneous.")
        if update_order == "simultaneous" and discriminator_repeats != 1:
            raise ConfigError(
                f"discriminator_repeats={discriminator_repeats} needs update_order=alternating; "
                "a simultaneous step updates both networks once."
            )
        self.adversarial_loss = losses.get(loss)
        self.seed = seed
        self._strategy = strategy or tf.distribute.get_strategy()
        self._update_order, self._discriminator_repeats = update_order, discriminator_repeats
        self._ema_half_life_images = ema_half_life_images
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy({"float32": "float32", "bfloat16": "mixed_bfloat16"}[precision])
        try:
            with self._strategy.scope(), seeded_initialisation(seed):
                self._build_networks(optimizer)
        finally:
            keras.config.set_dtype_policy(policy)
        self._with_xla = not has_convolutions(self.networks.values()) if jit_compile == "auto" else bool(jit_compile)
        self.optimizer = self.optimizers["generator"]
        self.step = 0
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
    ) -> keras.callbacks.History:
        """Trains from `self.step` on, with this package's loop and ordinary Keras callbacks.

        Args:
            x: Images [N, H, W, C]: uint8, or float in the range of the generator's output.
            y: Labels: integers [N] or one-hot [N, K]; needed by conditional models.
            batch_size: Global batch size.
            epochs: Passes over `x` in all.
            steps: Generator updates in all, in place of `epochs`.
            callbacks: They see `on_epoch_*`, and `on_train_batch_*` once a window.
            verbose: 0 for no progress display; otherwise a bar on a terminal, JSON lines elsewhere.
            steps_per_window: Most steps between two calls of the callbacks.

        Returns:
            Keras's `History`; its `history` has a list of epoch means for each scalar.

        Raises:
            ConfigError: The batch is larger than the data, or the replicas do not divide it.
            DataError: `x` and `y` do not fit each other or the model.
            NetworkError: The networks do not fit the data, or a variable gets no gradient.
            DivergenceError: A loss is not finite.
        """
        if not hasattr(self, "optimizers"):
            raise ConfigError("fit was called before compile; call compile(optimizer=..., loss=...) first.")
        window = self._window(x, y)
        check_batch(batch_size, window.num_examples, self._strategy.num_replicas_in_sync)
        self._check_image_shape(window.images.shape[1:])
        steps_per_epoch = window.num_examples // batch_size
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
        with self._preemption:
            loop.run(
                self,
                lambda: loop.DeviceWindow(self._plan(batch_size), window, self._strategy),
                callback_list,
                num_steps=num_steps,
                global_batch_size=batch_size,
                steps_per_epoch=steps_per_epoch,
                steps_per_window=steps_per_window,
                preemption=self._preemption,
            )
        return next(held for held in callback_list.callbacks if isinstance(held, keras.callbacks.History))

    def call(self, latents: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Images [B, H, W, C] of the generator that samples (the average, where there is one)."""
        return self.generate(latents, None, self.averaged_generator, training)

    # What callbacks and commands use.

    @property
    def preempted(self) -> bool:
        """Whether SIGTERM has stopped `fit`."""
        return self._preemption.requested

    @property
    def state(self) -> dict[str, keras.Variable]:
        """All that training changes, by names that are the same in every process: weights, moments, optimiser slots."""
        named: dict[str, keras.Variable] = {}
        for name, network in self.networks.items():
            named |= {f"{name}/{i:03d}/{v.name}": v for i, v in enumerate(network.weights)}
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
            DataError: Labels were given to an unconditional model, or are out of range.
        """
        chosen = self._labels_to_sample(num_images, labels)
        seed = self.seed if seed is None else seed
        latents = self.sample_latents(Noise(seed, 0, num_images, purpose="samples")).numpy()
        low, high = self.image_range
        made = []
        for start in range(0, num_images, _SAMPLING_BATCH):
            part = slice(start, start + _SAMPLING_BATCH)
            images = self._sampling_function(
                tf.constant(latents[part]), None if chosen is None else tf.constant(chosen[part])
            )
            pixels = (images.numpy() - low) * (255.0 / (high - low))
            made.append(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))
        return np.concatenate(made), chosen

    def sample_latents(self, noise: Noise) -> tf.Tensor:
        """Latents float32 [B, Z]."""
        draw = noise.normal if self.latent_distribution == "normal" else noise.uniform
        return draw("latents", self.latent_dim)

    # Inside.

    def _from_factory(self, name: str) -> keras.Model:
        if name not in self._factories:
            raise NetworkError(f"{type(self).__name__} has no {name}; override get_{name}() to return a keras.Model.")
        return self._factories[name]()

    def _build_networks(self, optimizer: Any) -> None:
        self.generator, self.discriminator = self.get_generator(), self.get_discriminator()
        self.networks = {"generator": self.generator, "discriminator": self.discriminator}
        for name, network in self.networks.items():
            check_built(name, network)
        self.averaged_generator = self.generator
        if self._ema_half_life_images:
            self.averaged_generator = self.get_generator()
            self.averaged_generator.set_weights(self.generator.get_weights())
            self.networks["averaged_generator"] = self.averaged_generator
        check_reads(self.adversarial_loss, self.discriminator)
        self.optimizers = optimizers.for_networks(optimizer, self.networks)

    def _plan(self, batch_size: int) -> StepPlan:
        phases = {name: Phase(name, self.networks[name], self.optimizers[name]) for name in self.optimizers}
        discriminator, generator = phases["discriminator"], phases["generator"]
        if self._update_order == "simultaneous":
            groups: tuple[PhaseGroup, ...] = (PhaseGroup((discriminator, generator)),)
        else:
            groups = (PhaseGroup((discriminator,), self._discriminator_repeats), PhaseGroup((generator,)))
        average = None
        if self._ema_half_life_images:
            average = Average(self.generator, self.averaged_generator, self._ema_half_life_images)
        return StepPlan(
            forward=self.forward,
            groups=groups,
            networks=(self.generator, self.discriminator),
            average=average,
            global_batch_size=batch_size,
            seed=self.seed,
            jit_compile=self._with_xla,
        )

    def _window(self, x: Any, y: Any) -> Window:
        """The data as a window, labels dropped where the model has no use for them."""
        images = np.asarray(x)
        if images.ndim < 2 or images.dtype.kind not in "uif":
            raise DataError(f"x is {images.dtype} of shape {images.shape}; expected numbers of shape [N, H, W, C].")
        if images.dtype != np.uint8:
            images = images.astype(np.float32)
            self.image_range = range_of(images)
        return Window(images, None, self.image_range)

    def _check_image_shape(self, shape: tuple[int, ...]) -> None:
        expected = tuple(self.discriminator.input_shape[1:])
        if len(expected) == len(shape) and any(e not in (None, s) for e, s in zip(expected, shape, strict=True)):
            raise DataError(f"x has images of shape {shape} where the discriminator takes {expected}.")

    def _labels_to_sample(self, num_images: int, labels: Any) -> np.ndarray | None:
        if labels is not None:
            raise DataError(f"labels={labels} were given to {type(self).__name__}, which has no classes.")
        return None

    @property
    def _sampling_function(self) -> Callable[..., tf.Tensor]:
        if not hasattr(self, "_compiled_sampling"):
            self._compiled_sampling = tf.function(
                lambda latents, labels: tf.cast(
                    self.generate(latents, labels, self.averaged_generator, False), tf.float32
                ),
                autograph=False,
                reduce_retracing=True,
            )
        return self._compiled_sampling

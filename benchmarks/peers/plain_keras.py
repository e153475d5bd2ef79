"""A GAN from plain `keras.layers`, Keras optimizers and losses, with one function per step.

Legend: `B` batch size, `H W C` image shape, `Z` latent size, `K` classes.
"""

import keras
import tensorflow as tf

from benchmarks.cases import Case
from benchmarks.peers import keras_networks


class PlainGAN:
    """Networks, optimizers and training step of a case, shared by `tensorflow_loop` and `keras_fit`.

    Args:
        case: Case to train.
        precision: Precision of the networks: float32 or bfloat16. Losses, penalties and weights are float32.
    """

    def __init__(self, case: Case, precision: str):
        self._case = case
        policy = keras.config.dtype_policy()
        keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
        try:
            self.generator, self.discriminator = keras_networks.build(case)
        finally:
            keras.config.set_dtype_policy(policy)
        self.num_parameters = self.generator.count_params(), self.discriminator.count_params()
        self._losses = {
            "non_saturating": (_cross_entropy_generator, _cross_entropy_discriminator),
            "relativistic": (_relativistic_generator, _relativistic_discriminator),
            "hinge": (_hinge_generator, _hinge_discriminator),
        }[case.config.loss]
        self.optimizers = tuple(
            _optimizer(case, rate)
            for rate in (case.config.generator_learning_rate, case.config.discriminator_learning_rate)
        )
        for optimizer, network in zip(self.optimizers, (self.generator, self.discriminator), strict=True):
            optimizer.build(network.trainable_variables)

    def step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Runs all phases once on images [B, H, W, C] and labels [B]; returns generator and discriminator loss."""
        if self._case.config.update_order == "simultaneous":
            return self._joint_step(images, labels)
        return self._alternating_step(images, labels)

    def _joint_step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        generator_loss_of, discriminator_loss_of = self._losses
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fakes, fake_labels = self._generate()
            names, weight = self._case.config.penalties, self._case.config.penalty_weight
            fake_logits, fake_norms = self._logits_and_norms(fakes, fake_labels, "r2" in names)
            real_logits, real_norms = self._logits_and_norms(images, labels, "r1" in names)
            generator_loss = generator_loss_of(real_logits, fake_logits)
            discriminator_loss = discriminator_loss_of(real_logits, fake_logits)
            discriminator_loss += weight / 2 * (real_norms + fake_norms)
        self._update(0, self._gradients(0, generator_tape, generator_loss))
        self._update(1, self._gradients(1, discriminator_tape, discriminator_loss))
        return generator_loss, discriminator_loss

    def _alternating_step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        generator_loss_of, _ = self._losses
        fakes, fake_labels = self._generate()
        every = self._case.config.penalty_every_steps
        batches = (images, labels), (fakes, fake_labels)
        if not self._case.config.penalties or every == 1:
            discriminator_loss, gradients = self._discriminator_gradients(*batches, bool(self._case.config.penalties))
        else:
            discriminator_loss, gradients = tf.cond(
                self.optimizers[1].iterations.value % every == 0,
                lambda: self._discriminator_gradients(*batches, True),
                lambda: self._discriminator_gradients(*batches, False),
            )
        self._update(1, gradients)
        with tf.GradientTape() as tape:
            fake_logits = self._discriminate(*self._generate())
            real_logits = (
                self._discriminate(images, labels) if self._case.config.loss == "relativistic" else fake_logits
            )
            generator_loss = generator_loss_of(real_logits, fake_logits)
        self._update(0, self._gradients(0, tape, generator_loss))
        return generator_loss, discriminator_loss

    def _discriminator_gradients(
        self, real: tuple[tf.Tensor, tf.Tensor], fake: tuple[tf.Tensor, tf.Tensor], has_penalties: bool
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Returns the discriminator's loss for labeled images, and its gradients."""
        names = self._case.config.penalties if has_penalties else ()
        weight = self._case.config.penalty_weight * self._case.config.penalty_every_steps
        with tf.GradientTape() as tape:
            fake_logits, fake_norms = self._logits_and_norms(*fake, "r2" in names)
            real_logits, real_norms = self._logits_and_norms(*real, "r1" in names)
            loss = self._losses[1](real_logits, fake_logits) + weight / 2 * (real_norms + fake_norms)
        return loss, self._gradients(1, tape, loss)

    def _logits_and_norms(self, images: tf.Tensor, labels: tf.Tensor, has_norms: bool) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns logits [B, 1], and the mean squared norm of their gradients, or 0."""
        if not has_norms:
            return self._discriminate(images, labels), tf.constant(0.0)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(images)
            logits = self._discriminate(images, labels)
        gradients = tape.gradient(logits, images)
        return logits, tf.reduce_mean(tf.reduce_sum(tf.square(gradients), axis=[1, 2, 3]))

    def _generate(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns fake images [B, H, W, C] and their labels [B]."""
        latents = tf.random.normal([self._case.batch_size, self._case.config.latent_dim])
        if not self._case.num_classes:
            fakes = self.generator(latents, training=True)
            return tf.cast(fakes, tf.float32), tf.zeros([self._case.batch_size], tf.int32)
        labels = tf.random.uniform([self._case.batch_size], 0, self._case.num_classes, tf.int32)
        joined = tf.concat([latents, tf.one_hot(labels, self._case.num_classes)], axis=-1)
        return tf.cast(self.generator(joined, training=True), tf.float32), labels

    def _discriminate(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self._case.num_classes:
            planes = tf.one_hot(labels, self._case.num_classes)[:, tf.newaxis, tf.newaxis]
            planes = tf.tile(planes, [1, *self._case.image_shape[:2], 1])
            images = tf.concat([images, planes], axis=-1)
        return tf.cast(self.discriminator(images, training=True), tf.float32)

    def _gradients(self, index: int, tape: tf.GradientTape, loss: tf.Tensor) -> list[tf.Tensor]:
        variables = (self.generator, self.discriminator)[index].trainable_variables
        return tape.gradient(loss, [variable.value for variable in variables])

    def _update(self, index: int, gradients: list[tf.Tensor]) -> None:
        variables = (self.generator, self.discriminator)[index].trainable_variables
        self.optimizers[index].apply_gradients(zip(gradients, variables, strict=True))


_cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)


def _cross_entropy_generator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    del real_logits
    return _cross_entropy(tf.ones_like(fake_logits), fake_logits)


def _cross_entropy_discriminator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    real = _cross_entropy(tf.ones_like(real_logits), real_logits)
    return real + _cross_entropy(tf.zeros_like(fake_logits), fake_logits)


def _relativistic_generator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(real_logits - fake_logits))


def _relativistic_discriminator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.softplus(fake_logits - real_logits))


def _hinge_generator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    del real_logits
    return -tf.reduce_mean(fake_logits)


def _hinge_discriminator(real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.nn.relu(1.0 - real_logits)) + tf.reduce_mean(tf.nn.relu(1.0 + fake_logits))


def _optimizer(case: Case, learning_rate: float) -> keras.optimizers.Optimizer:
    if case.config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate, epsilon=case.config.epsilon)
    betas = {"beta_1": case.config.beta_1, "beta_2": case.config.beta_2}
    return keras.optimizers.Adam(learning_rate, **betas, epsilon=case.config.epsilon)

"""A GAN from plain `keras.layers`, Keras optimizers and losses, with one function per step.

Legend: `B` batch size, `H W C` image shape, `Z` latent size, `K` classes.
"""

import keras
import tensorflow as tf

from benchmarks.cases import Case
from benchmarks.peers import keras_networks


class PlainGAN:
    """Networks, optimizers and training step of a case, shared by `tensorflow_loop` and `keras_fit`."""

    def __init__(self, case: Case):
        self._case = case
        self.generator, self.discriminator = keras_networks.build(case)
        self.num_parameters = self.generator.count_params(), self.discriminator.count_params()
        self._cross_entropy = keras.losses.BinaryCrossentropy(from_logits=True)
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
        with tf.GradientTape() as generator_tape, tf.GradientTape() as discriminator_tape:
            fakes, fake_labels = self._generate()
            fake_logits = self._discriminate(fakes, fake_labels)
            real_logits = self._discriminate(images, labels)
            generator_loss = self._generator_loss(fake_logits)
            discriminator_loss = self._discriminator_loss(real_logits, fake_logits)
        self._update(0, generator_tape, generator_loss)
        self._update(1, discriminator_tape, discriminator_loss)
        return generator_loss, discriminator_loss

    def _alternating_step(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        fakes, fake_labels = self._generate()
        with tf.GradientTape() as tape:
            fake_logits = self._discriminate(fakes, fake_labels)
            real_logits = self._discriminate(images, labels)
            discriminator_loss = self._discriminator_loss(real_logits, fake_logits)
        self._update(1, tape, discriminator_loss)
        with tf.GradientTape() as tape:
            generator_loss = self._generator_loss(self._discriminate(*self._generate()))
        self._update(0, tape, generator_loss)
        return generator_loss, discriminator_loss

    def _generate(self) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns fake images [B, H, W, C] and their labels [B]."""
        latents = tf.random.normal([self._case.batch_size, self._case.config.latent_dim])
        if not self._case.num_classes:
            return self.generator(latents, training=True), tf.zeros([self._case.batch_size], tf.int32)
        labels = tf.random.uniform([self._case.batch_size], 0, self._case.num_classes, tf.int32)
        joined = tf.concat([latents, tf.one_hot(labels, self._case.num_classes)], axis=-1)
        return self.generator(joined, training=True), labels

    def _discriminate(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        if self._case.num_classes:
            planes = tf.one_hot(labels, self._case.num_classes)[:, tf.newaxis, tf.newaxis]
            planes = tf.tile(planes, [1, *self._case.image_shape[:2], 1])
            images = tf.concat([images, planes], axis=-1)
        return self.discriminator(images, training=True)

    def _generator_loss(self, fake_logits: tf.Tensor) -> tf.Tensor:
        return self._cross_entropy(tf.ones_like(fake_logits), fake_logits)

    def _discriminator_loss(self, real_logits: tf.Tensor, fake_logits: tf.Tensor) -> tf.Tensor:
        real = self._cross_entropy(tf.ones_like(real_logits), real_logits)
        return real + self._cross_entropy(tf.zeros_like(fake_logits), fake_logits)

    def _update(self, index: int, tape: tf.GradientTape, loss: tf.Tensor) -> None:
        variables = (self.generator, self.discriminator)[index].trainable_variables
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        self.optimizers[index].apply_gradients(zip(gradients, variables, strict=True))


def _optimizer(case: Case, learning_rate: float) -> keras.optimizers.Optimizer:
    if case.config.optimizer == "rmsprop":
        return keras.optimizers.RMSprop(learning_rate)
    return keras.optimizers.Adam(learning_rate, beta_1=case.config.beta_1, beta_2=case.config.beta_2)

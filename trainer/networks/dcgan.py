"""Deep convolutional GAN: transposed convolutions up, strided convolutions down, no pooling.

The generator starts with a map of `generator_filters[0]` channels. Each stride except the last leads to the next number
of filters, and the last one to the image. Images are cropped if the strides do not divide their size. The paper's own
networks have no dense layers: use `generator_stem="transposed_convolution"` with `discriminator_head="convolution"`.
The scale of batch normalization starts at 1; the paper does not specify it.

Source: arXiv 1511.06434, section 3. Every choice that later networks vary is an option.
"""

import dataclasses
import math
from collections.abc import Sequence

import keras
from keras import layers as keras_layers

from trainer.config.fields import check_choice
from trainer.errors import ConfigError
from trainer.networks.building_blocks import LayerFactory, crop_layers
from trainer.networks.layers import Conv2D, Conv2DTranspose, Dropout, WholeMapConv2D, layer_class
from trainer.networks.registry import NetworkPart, Networks, register_architecture
from trainer.networks.validation import check_int_list, check_positive_ints, check_rates


@register_architecture(parts=[NetworkPart.DENSE_OUTPUT])
def dcgan(
    image_shape: tuple[int, int, int],
    latent_dim: int,
    condition_size: int,
    output_activation: str,
    *,
    generator_filters: Sequence[int] = (128, 64),
    generator_strides: Sequence[int] = (2, 2),
    generator_activation: str = "relu",
    generator_dense: Sequence[int] = (),
    generator_stem: str = "dense",
    discriminator_filters: Sequence[int] = (64, 128),
    discriminator_strides: Sequence[int] | None = None,
    discriminator_activation: str = "leaky_relu",
    discriminator_kernel_size: int | None = None,
    discriminator_batch_norm: str = "hidden",
    discriminator_dense: Sequence[int] = (),
    discriminator_head: str = "dense",
    spectral_norm: bool = False,
    kernel_size: int = 4,
    leaky_slope: float = 0.2,
    batch_norm_momentum: float = 0.9,
    dropout: float = 0.0,
    initializer: str = "normal_02",
) -> Networks:
    """Generator [B, Z+K] -> [B, H, W, C] and discriminator [B, H, W, C+K] -> logits [B, 1].

    Args:
        generator_filters: Channels of the first map and of each hidden transposed convolution.
        generator_strides: Stride of each transposed convolution; as many as `generator_filters`.
        generator_activation: Hidden activation, relu or leaky_relu.
        generator_dense: Units of dense layers before the first map.
        generator_stem: Layer that makes the first map: `dense`, with batch normalization of each element, or
            `transposed_convolution` of a 1×1 map, with batch normalization of each channel.
        discriminator_filters: Channels of each convolution.
        discriminator_strides: Stride of each convolution; None for 2.
        discriminator_activation: Hidden activation, relu or leaky_relu.
        discriminator_kernel_size: Kernel size of the discriminator's convolutions; None for `kernel_size`.
        discriminator_batch_norm: Batch normalization: `none`, `hidden` (all but the first convolution) or `all`.
        discriminator_dense: Units of dense layers before the logit, with batch normalization unless it is `none`.
        discriminator_head: Layer that makes the logit: `dense`, or a `convolution` as large as the last map.
        spectral_norm: True for spectral normalization of all kernels of the discriminator.
        kernel_size: Kernel size of all convolutions.
        leaky_slope: Factor of leaky_relu below 0, in both networks.
        batch_norm_momentum: Momentum of the moving moments.
        dropout: Dropout rate after each convolution of the discriminator, in [0, 1).
        initializer: Initializer of all kernels: `normal_02` for N(0, 0.02), or a Keras name.
    """
    check_rates(leaky_slope, dropout, batch_norm_momentum)
    check_int_list("discriminator_filters", discriminator_filters)
    height, width, channels = image_shape
    generator = _DCGANGenerator(
        input_shape=(latent_dim + condition_size,),
        create=LayerFactory(generator_activation, leaky_slope, batch_norm_momentum, initializer),
        filters=generator_filters,
        strides=generator_strides,
        kernel_size=kernel_size,
        dense=generator_dense,
        image_shape=image_shape,
        output_activation=output_activation,
        stem=generator_stem,
    )
    discriminator = DCGANDiscriminator(
        input_shape=(height, width, channels + condition_size),
        create=LayerFactory(discriminator_activation, leaky_slope, batch_norm_momentum, initializer),
        filters=discriminator_filters,
        strides=[2] * len(discriminator_filters) if discriminator_strides is None else discriminator_strides,
        kernel_size=kernel_size if discriminator_kernel_size is None else discriminator_kernel_size,
        dense=discriminator_dense,
        batch_norm=discriminator_batch_norm,
        head=discriminator_head,
        spectral_norm=spectral_norm,
        dropout=dropout,
    )
    return {"generator": generator.build, "discriminator": discriminator.build}


@dataclasses.dataclass(frozen=True)
class _DCGANGenerator:
    input_shape: tuple[int]
    create: LayerFactory
    filters: Sequence[int]
    strides: Sequence[int]
    kernel_size: int
    dense: Sequence[int]
    image_shape: tuple[int, int, int]
    output_activation: str
    stem: str

    def __post_init__(self) -> None:
        check_int_list("generator_filters", self.filters)
        check_int_list("generator_strides", self.strides)
        check_int_list("generator_dense", self.dense, min_length=0)
        check_choice("generator_activation", self.create.activation_name, ("relu", "leaky_relu"))
        check_choice("generator_stem", self.stem, ("dense", "transposed_convolution"))
        check_positive_ints(kernel_size=self.kernel_size)
        _check_equal_lengths("generator", self.filters, self.strides)

    def build(self) -> keras.Model:
        create, (height, width, channels) = self.create, self.image_shape
        stack: list[keras_layers.Layer] = [keras.Input(self.input_shape), *self._stem_layers()]
        for filters, stride in zip(self.filters[1:], self.strides[:-1], strict=True):
            stack += [
                Conv2DTranspose(
                    filters, self.kernel_size, stride, "same", use_bias=False, kernel_initializer=create.initializer()
                ),
                create.batch_norm(),
                create.activation(),
            ]
        stack.append(
            Conv2DTranspose(
                channels,
                self.kernel_size,
                self.strides[-1],
                "same",
                activation=self.output_activation,
                kernel_initializer=create.initializer(),
            )
        )
        base_height, base_width = self._base_size()
        total_stride = math.prod(self.strides)
        stack += crop_layers((base_height * total_stride, base_width * total_stride), (height, width))
        return keras.Sequential(stack, name="generator")

    def _stem_layers(self) -> list[keras_layers.Layer]:
        """Returns the layers from the latents to the first map, with normalization and activation."""
        create, filters, base_size = self.create, self.filters[0], self._base_size()
        stack: list[keras_layers.Layer] = []
        units = [*self.dense, math.prod(base_size) * filters] if self.stem == "dense" else self.dense
        for size in units:
            dense = keras_layers.Dense(size, use_bias=False, kernel_initializer=create.initializer())
            stack += [dense, create.batch_norm(), create.activation()]
        if self.stem == "dense":
            return [*stack, keras_layers.Reshape((*base_size, filters))]
        size = self.dense[-1] if self.dense else self.input_shape[0]
        convolution = Conv2DTranspose(
            filters, base_size, 1, "valid", use_bias=False, kernel_initializer=create.initializer()
        )
        return [
            *stack,
            keras_layers.Reshape((1, 1, size)),
            convolution,
            create.batch_norm(),
            create.activation(),
        ]

    def _base_size(self) -> tuple[int, int]:
        """Returns the size of the first map, rounded up so that the generated images are large enough to crop."""
        total_stride = math.prod(self.strides)
        return -(-self.image_shape[0] // total_stride), -(-self.image_shape[1] // total_stride)


@dataclasses.dataclass(frozen=True)
class DCGANDiscriminator:
    """A stack of strided convolutions; see the options of `dcgan`. Other architectures may use it, too."""

    input_shape: tuple[int, int, int]
    create: LayerFactory
    filters: Sequence[int]
    strides: Sequence[int]
    kernel_size: int
    dense: Sequence[int] = ()
    batch_norm: str = "none"
    head: str = "dense"
    spectral_norm: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        check_int_list("discriminator_strides", self.strides)
        check_int_list("discriminator_dense", self.dense, min_length=0)
        check_choice("discriminator_activation", self.create.activation_name, ("relu", "leaky_relu"))
        check_choice("discriminator_batch_norm", self.batch_norm, ("none", "hidden", "all"))
        check_choice("discriminator_head", self.head, ("dense", "convolution"))
        check_choice("spectral_norm", self.spectral_norm, (True, False))
        check_positive_ints(discriminator_kernel_size=self.kernel_size)
        if self.dense and self.head == "convolution":
            raise ConfigError(
                f"discriminator_dense={list(self.dense)} cannot be combined with discriminator_head=convolution, which "
                "needs a map; set discriminator_head=dense or leave discriminator_dense empty."
            )
        _check_equal_lengths("discriminator", self.filters, self.strides)

    def build(self) -> keras.Model:
        convolution, dense, whole_map = (
            layer_class(base_class, self.spectral_norm) for base_class in (Conv2D, keras_layers.Dense, WholeMapConv2D)
        )
        create, size = self.create, self.input_shape[:2]
        stack: list[keras_layers.Layer] = [keras.Input(self.input_shape)]
        for depth, (filters, stride) in enumerate(zip(self.filters, self.strides, strict=True)):
            is_normalized = self.batch_norm == "all" or (self.batch_norm == "hidden" and depth > 0)
            settings = {"use_bias": not is_normalized, "kernel_initializer": create.initializer()}
            stack.append(convolution(filters, self.kernel_size, stride, "same", **settings))
            stack += self._normalize_and_activate(is_normalized)
            if self.dropout:
                stack.append(Dropout(self.dropout))
            size = (-(-size[0] // stride), -(-size[1] // stride))
        if self.head == "convolution":
            stack.append(whole_map(1, size, kernel_initializer=create.initializer(), dtype="float32"))
            return keras.Sequential(stack, name="discriminator")
        stack.append(keras_layers.Flatten())
        for units in self.dense:
            is_normalized = self.batch_norm != "none"
            stack.append(dense(units, use_bias=not is_normalized, kernel_initializer=create.initializer()))
            stack += self._normalize_and_activate(is_normalized)
        stack.append(dense(1, kernel_initializer=create.initializer(), dtype="float32"))
        return keras.Sequential(stack, name="discriminator")

    def _normalize_and_activate(self, is_normalized: bool) -> list[keras_layers.Layer]:
        return [*([self.create.batch_norm()] if is_normalized else []), self.create.activation()]


def _check_equal_lengths(network: str, filters: Sequence[int], strides: Sequence[int]) -> None:
    if len(filters) != len(strides):
        raise ConfigError(
            f"{network}_filters={list(filters)} and {network}_strides={list(strides)} "
            "must have the same length; give one stride per convolution."
        )

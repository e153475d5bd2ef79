"""The choice whether XLA compiles the steps of networks."""

from collections.abc import Iterable

import keras
import tensorflow as tf

from trainer.config.fields import check_choice
from trainer.models.validation import has_convolutions, policy_of


def resolve_jit_compile(
    jit_compile: bool | str, networks: Iterable[keras.layers.Layer], precision: str | None = None
) -> bool:
    """Resolves `auto`: XLA is on for networks that train faster with it.

    Args:
        jit_compile: True, False, or `auto`.
        networks: Networks to train.
        precision: Precision of the networks, as for `GAN.compile`.

    Raises:
        ConfigError: If `jit_compile` has another value.
    """
    check_choice("jit_compile", jit_compile, (True, False, "auto"))
    if jit_compile != "auto":
        return bool(jit_compile)
    return gains_from_xla(networks, keras.DTypePolicy(policy_of(precision)).compute_dtype)


def gains_from_xla(networks: Iterable[keras.layers.Layer], precision: str) -> bool:
    """Returns whether networks train faster with XLA.

    Those without convolutions do, except in bfloat16 on a CPU, where XLA computes matrix products in float32.
    """
    is_exception = precision != "float32" and not tf.config.list_physical_devices("GPU")
    return not is_exception and not has_convolutions(networks)

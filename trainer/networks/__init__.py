"""Architectures: functions that build the networks of a GAN for an image shape, registered by one decorator."""

from trainer.networks.registry import (
    GeneratorInput,
    NetworkPart,
    Networks,
    build,
    check_name,
    check_options,
    default_options,
    generator_input,
    get,
    is_custom,
    lacks,
    names,
    register_architecture,
)

from trainer.networks import (  # isort: skip  (importing a module registers its architectures)
    dcgan,  # noqa: F401
    fastgan,  # noqa: F401
    image_translation,  # noqa: F401
    mlp,  # noqa: F401
    r3gan,  # noqa: F401
    resnet,  # noqa: F401
    stylegan2,  # noqa: F401
    upsampling,  # noqa: F401
)

__all__ = [
    "GeneratorInput",
    "NetworkPart",
    "Networks",
    "build",
    "check_name",
    "check_options",
    "default_options",
    "generator_input",
    "get",
    "is_custom",
    "lacks",
    "names",
    "register_architecture",
]

"""A user's parts have names of their own, and never replace those of the package."""

import pytest
from refusals import check_refusal

from trainer import networks
from trainer.config.suites import SUITES, register_suite
from trainer.errors import ConfigError
from trainer.networks.registry import _ARCHITECTURES
from trainer.registry import Registry


def part(module):
    """Returns a part that a module defines."""
    return type("Part", (), {"__module__": module})


def test_a_part_of_a_user_does_not_replace_one_of_the_package():
    registry = Registry("loss")
    built_in = registry.add("hinge", part("trainer.models.losses"))
    check_refusal(lambda: registry.add("hinge", part("my_gans")), ConfigError, "loss", "hinge")
    assert registry["hinge"] is built_in


@pytest.mark.parametrize("module", ["my_gans", "__main__"])
def test_a_user_may_register_a_part_again(module):
    registry = Registry("loss")
    registry.add("smoothed", part(module))
    again = registry.add("smoothed", part(module))
    assert registry["smoothed"] is again


def test_an_architecture_of_a_user_does_not_change_one_of_the_package():
    def unet_translator(image_shape, latent_dim, condition_size, output_activation):
        return {}

    entry = _ARCHITECTURES["unet_translator"]
    check_refusal(lambda: networks.register_architecture(unet_translator), ConfigError, "unet_translator")
    assert _ARCHITECTURES["unet_translator"] == entry and entry.generator_input == "images"


def test_a_suite_of_a_user_does_not_replace_one_of_the_package():
    entry = SUITES["digits"]
    register = register_suite("digits", monitor="x", minimized=("x",), num_samples=20)
    check_refusal(lambda: register(part("my_gans")), ConfigError, "digits")
    assert SUITES["digits"] is entry

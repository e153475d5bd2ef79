"""A metric suite that a user's own module registers."""

from types import SimpleNamespace

import numpy as np
import pytest
from refusals import check_refusal

from trainer import metrics
from trainer.config import TrainConfig
from trainer.config.compatibility import check_metrics
from trainer.config.suites import SUITES
from trainer.data import stacked
from trainer.errors import ConfigError
from trainer.metrics import MeasuredImages, register_suite
from trainer.metrics.suite import Suite
from trainer.training.metric_suite import create_suite


class Brightness(Suite):
    """The difference in mean brightness of a model's constant images."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def measure(self, model):
        return {"brightness": 0.0}

    def real_vs_real(self):
        return {"brightness": 0.0}


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(SUITES, "_members", dict(SUITES._members))


def register(**changes):
    arguments = {"monitor": "brightness", "minimized": ("brightness",), "num_real_images": 100, **changes}
    return register_suite("brightness", **arguments)(Brightness)


def create(**changes):
    """Returns the suite of a config, and the numbers of real images that it asked for."""
    requested = []

    def real_images(num_images):
        requested.append(num_images)
        return (np.zeros((2, 4, 4, 1), np.uint8),)

    config = TrainConfig(metrics="brightness", **changes)
    check_metrics(config)
    return create_suite(config, SimpleNamespace(real_images=real_images)), requested


def test_a_registered_suite_gets_as_many_real_images_as_it_states():
    assert register() is Brightness
    suite, requested = create()
    assert isinstance(suite, Brightness) and len(suite.arguments) == 1
    assert requested == [100]
    assert metrics.monitor_name("brightness") == "brightness" and "brightness" in metrics.names()


def test_a_suite_that_generates_images_gets_as_many_real_ones():
    register(num_samples=50, num_real_images=None)
    assert create()[1] == [50]
    suite, requested = create(num_metric_samples=30)
    assert requested == [30] and suite.arguments[1:] == (30,)
    assert metrics.monitor_name("brightness", 30) == "brightness_brightness_30"


def test_the_suite_stacked_gets_all_stacked_images():
    assert SUITES["stacked"].num_real_images == stacked.NUM_IMAGES


@pytest.mark.parametrize(
    ("registered", "settings", "mentions"),
    [
        ({"measures": MeasuredImages.PAIRED}, {}, ("brightness", "gan", "photos")),
        ({}, {"num_metric_samples": 20}, ("num_metric_samples", "20", "brightness")),
        ({}, {"inception_score": True}, ("inception_score", "brightness")),
        (None, {}, ("metrics", "brightness", "photos")),
    ],
)
def test_settings_that_do_not_fit_the_suite_are_refused(registered, settings, mentions):
    if registered is not None:
        register(**registered)
    check_refusal(lambda: create(**settings), ConfigError, *mentions)


@pytest.mark.parametrize(
    ("changes", "mentions"),
    [({"num_real_images": None}, ("brightness", "num_samples")), ({"minimized": ()}, ("brightness", "minimized"))],
)
def test_an_incomplete_suite_is_refused(changes, mentions):
    check_refusal(lambda: register(**changes), ConfigError, *mentions)


@pytest.mark.parametrize("name", ["auto", "none"])
def test_a_suite_cannot_have_the_name_of_a_special_value(name):
    arguments = {"monitor": "brightness", "minimized": ("brightness",), "num_real_images": 100}
    check_refusal(lambda: register_suite(name, **arguments)(Brightness), ConfigError, name)

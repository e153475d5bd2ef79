"""The first ten steps of every recipe, in small, are what they were: nobody changes a recipe's learning unseen.

A recipe runs as it stands but for the widths of its networks, its batch and its steps; its schedules shrink with them.
After a change that is meant, write the traces anew and read what moved:

    UPDATE_GOLDEN=1 python -m pytest tests/conformance/test_golden.py
    git diff tests/conformance/golden
"""

import json
import os
import pathlib

import keras
import numpy as np
import pytest
from conftest import TINY_ARCHITECTURES

from trainer import data
from trainer.config import recipes
from trainer.config.train_config import TrainConfig
from trainer.data.loading import load
from trainer.models import CycleGAN, from_config

GOLDEN = pathlib.Path(__file__).parent / "golden"
STEPS, BATCH, IMAGES = 10, 8, 64
LARGEST_LOADED = 10_000
"""Sets of more images are not made or downloaded for this; digits of their shape and classes stand for them."""
WIDTHS = ("_filters", "_units")
RTOL, RTOL_MOVED, ATOL = 1e-4, 2e-2, 1e-5
"""Other processors round otherwise, and what they round grows from step to step; so does the tolerance, RTOL a step."""


def small_options(config):
    """The recipe's options with a thirty-second of its widths; where it gives none, the architecture's tiny ones."""
    given = dict(config.architecture_options)
    widths = {name: given[name] for name in given if name.endswith(WIDTHS)}
    if not widths:
        tiny = TINY_ARCHITECTURES[config.architecture]
        return {name: value for name, value in tiny.items() if name != "dropout"} | given
    for name, value in widths.items():
        given[name] = narrow(value) if isinstance(value, int) else [narrow(width) for width in value]
    return given


def narrow(width):
    return max(2, width // 32)


def small(config):
    """A recipe of ten steps that is itself in all but size."""
    info = data.describe(config.dataset, config.padding).with_classes(config.classes)
    whole = config.resolve(max(info.num_examples, config.global_batch_size))
    changes = {"steps": STEPS, "global_batch_size": BATCH, "architecture_options": small_options(config)}
    if config.schedule_images is not None:
        share = config.schedule_images / (whole.steps * whole.global_batch_size)
        changes["schedule_images"] = round(share * STEPS * BATCH)
    return config.override(**changes).resolve(IMAGES)


def some_images(name, classes, padding):
    """64 images of a set and their labels."""
    info = data.describe(name, padding).with_classes(classes)
    if info.num_examples <= LARGEST_LOADED:
        arrays = load(name, classes, padding)
        return arrays.images[:IMAGES], arrays.labels[:IMAGES]
    height, width, channels = info.image_shape
    digits = load("digits").images[: IMAGES * channels, :, :, 0].reshape(IMAGES, channels, 28, 28)
    digits = np.pad(digits, ((0, 0), (0, 0), (0, max(0, height - 28)), (0, max(0, width - 28))))[:, :, :height, :width]
    labels = np.flatnonzero(info.class_counts)
    return digits.transpose(0, 2, 3, 1), np.resize(labels, IMAGES).astype(np.int32)


def trace_of(name):
    """The logged losses and penalties of each step, and how far its networks are from 0 and from their start."""
    config = small(recipes.get(name))
    images, targets = some_images(config.dataset, config.classes, config.padding)
    num_classes = data.describe(config.dataset).num_classes
    gan = from_config(config, images.shape[1:], num_classes)
    if isinstance(gan, CycleGAN):
        targets, _ = some_images(config.dataset_b, None, config.padding)
    steps, start = [], weights_of(gan)
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(logs))
    settings = {"batch_size": BATCH, "steps": STEPS, "steps_per_execution": 1, "verbose": 0, "callbacks": [log]}
    gan.fit(images, targets, **settings)
    kept = sorted(scalar for scalar in steps[0] if scalar.startswith(("loss/", "penalty/")))
    trace = {scalar: [float(f"{logs[scalar]:.7g}") for logs in steps] for scalar in kept}
    for network, end in weights_of(gan).items():
        trace[f"norm/{network}"] = [float(f"{np.linalg.norm(end):.7g}")]
        trace[f"moved/{network}"] = [float(f"{np.linalg.norm(end - start[network]):.7g}")]
    return trace


def settings_of(name):
    """What decides a recipe's learning and is not the default; ten small steps would not show all of it."""
    usual = TrainConfig().identity
    return {setting: value for setting, value in recipes.get(name).identity.items() if value != usual[setting]}


def weights_of(gan):
    """The trainable weights of each network as one vector; how far they move tells rates and moments apart."""
    weights = {name: [v.numpy().ravel() for v in network.trainable_variables] for name, network in gan.networks.items()}
    return {name: np.concatenate(values).astype(np.float64) for name, values in weights.items() if values}


@pytest.mark.parametrize("name", recipes.names())
def test_ten_steps_of_a_recipe_have_their_golden_trace(name):
    found = trace_of(name) | {"settings": settings_of(name)}
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        lines = [f"  {json.dumps(scalar)}: {json.dumps(values)}" for scalar, values in found.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert path.exists(), f"{name} has no golden trace; write it as this module's docstring says"
    golden = json.loads(path.read_text())
    assert set(found) == set(golden)
    assert found["settings"] == golden.pop("settings")
    for scalar, values in golden.items():
        assert len(values) == (STEPS if scalar.startswith(("loss/", "penalty/")) else 1)
        for step, (ours, theirs) in enumerate(zip(found[scalar], values, strict=True)):
            rtol = RTOL_MOVED if scalar.startswith("moved/") else RTOL * (step + 1)
            assert ours == pytest.approx(theirs, rel=rtol, abs=ATOL), f"{scalar} at step {step}"


def test_there_is_a_golden_trace_for_every_recipe_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(recipes.names())

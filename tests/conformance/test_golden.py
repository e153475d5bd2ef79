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

from trainer import data, recipes
from trainer.data.loading import load
from trainer.gans import CycleGAN, from_config

GOLDEN = pathlib.Path(__file__).parent / "golden"
STEPS, BATCH, IMAGES = 10, 8, 64
LARGEST_LOADED = 10_000
"""Sets of more images are not made or downloaded for this; digits of their shape and classes stand for them."""
WIDTHS = ("_filters", "_units")
RTOL, ATOL = 1e-4, 1e-5  # other processors round otherwise


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
    """The logged losses and penalties of each step, and how far from 0 each network's weights are at the end."""
    config = small(recipes.get(name))
    images, targets = some_images(config.dataset, config.classes, config.padding)
    num_classes = data.describe(config.dataset).num_classes
    gan = from_config(config, images.shape[1:], num_classes)
    if isinstance(gan, CycleGAN):
        targets, _ = some_images(config.dataset_b, None, config.padding)
    steps = []
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(logs))
    settings = {"batch_size": BATCH, "steps": STEPS, "steps_per_window": 1, "verbose": 0, "callbacks": [log]}
    gan.fit(images, targets, **settings)
    kept = sorted(scalar for scalar in steps[0] if scalar.startswith(("loss/", "penalty/")))
    trace = {scalar: [float(f"{logs[scalar]:.7g}") for logs in steps] for scalar in kept}
    norms = {
        f"norm/{network}": np.sqrt(sum(float(np.sum(np.square(w, dtype=np.float64))) for w in layer.get_weights()))
        for network, layer in gan.networks.items()
        if layer.trainable_variables
    }
    return trace | {network: [float(f"{norm:.7g}")] for network, norm in norms.items()}


@pytest.mark.parametrize("name", recipes.names())
def test_ten_steps_of_a_recipe_have_their_golden_trace(name):
    found = trace_of(name)
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        lines = [f"  {json.dumps(scalar)}: {json.dumps(values)}" for scalar, values in found.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert path.exists(), f"{name} has no golden trace; write it as this module's docstring says"
    golden = json.loads(path.read_text())
    assert set(found) == set(golden)
    for scalar, values in golden.items():
        assert len(values) == (1 if scalar.startswith("norm/") else STEPS)
        np.testing.assert_allclose(found[scalar], values, rtol=RTOL, atol=ATOL, err_msg=scalar)


def test_there_is_a_golden_trace_for_every_recipe_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(recipes.names())

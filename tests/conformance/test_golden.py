"""Golden traces: the first ten steps of a small version of every recipe do not change unnoticed.

Only the widths of the networks, the batch size and the number of steps differ from the recipe; its schedules are scaled
accordingly. After an intended change, update the traces and review the differences:

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
PAIRS = "gray_to_color:tinted:digits"
LARGEST_LOADED = 10_000
"""Larger datasets are not loaded; digits with the same shape and classes replace them."""
WIDTHS = ("_filters", "_units")
FAST = {"acgan", "dcgan", "dcgan_conditional", "dcgan_paper", "digits", "infogan", "mlp_zeros", "r1"}
"""Recipes that are also tested in the fast tier."""
RTOL, RTOL_MOVED, ATOL = 1e-4, 2e-2, 1e-5
"""Tolerances. Rounding depends on the processor and the number of threads, and errors grow, so RTOL is per step."""


def small_options(config):
    """Returns the recipe's options with 1/32 of its widths, or with tiny widths if the recipe sets none."""
    options = dict(config.architecture_options)
    widths = {name: options[name] for name in options if name.endswith(WIDTHS)}
    if not widths:
        tiny = TINY_ARCHITECTURES[config.architecture]
        return {name: value for name, value in tiny.items() if name != "dropout"} | options
    for name, value in widths.items():
        options[name] = narrow(value) if isinstance(value, int) else [narrow(width) for width in value]
    if config.architecture == "stylegan2":
        options["group_size"] = min(options["group_size"], BATCH)
    return options


def config_of(name):
    """Returns the config of a recipe. A recipe that takes a context chooses wide networks for the digits."""
    facts = {"image_shape": (28, 28, 1), "num_images": 5000, "num_classes": 10, "size": "large"}
    return recipes.get(name, recipes.RecipeContext(**facts))


def narrow(width):
    return max(2, width // 32)


def small(config):
    """Returns a recipe with ten steps, a small batch and narrow networks."""
    info = data.describe(config.dataset, config.padding).with_classes(config.class_numbers)
    full = config.resolve(max(info.num_examples, config.global_batch_size))
    changes = {"steps": STEPS, "global_batch_size": BATCH, "architecture_options": small_options(config)}
    changes |= {
        "precision": "float32",
        "jit_compile": "on" if config.architecture == "mlp" else "off",
    }  # as `auto` does
    if config.schedule_images is not None:
        fraction = config.schedule_images / (full.steps * full.global_batch_size)
        changes["schedule_images"] = round(fraction * STEPS * BATCH)
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


def compiled(name, **changes):
    """Returns the model of a small recipe, and the arguments of `fit` with its data."""
    config = small(config_of(name)).override(**changes)
    if config.model == "pix2pix":
        config = config.override(dataset=PAIRS)
    images, targets = some_images(config.dataset, config.class_numbers, config.padding)
    info = data.describe(config.dataset)
    image_shape = (*images.shape[1:3], info.image_shape[2])
    gan = from_config(config, image_shape, info.num_classes, input_channels=info.input_channels)
    if isinstance(gan, CycleGAN):
        targets, _ = some_images(config.dataset_b, None, config.padding)
    return gan, (images, targets if gan.takes_targets and not gan.ignores_labels else None)


def trace_of(name):
    """The logged losses and penalties of each step, and how far its networks are from 0 and from their start."""
    gan, arrays = compiled(name)
    steps, start = [], weights_of(gan)
    log = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(logs))
    settings = {"batch_size": BATCH, "steps": STEPS, "steps_per_execution": 1, "verbose": 0, "callbacks": [log]}
    gan.fit(*arrays, **settings)
    kept = sorted(scalar for scalar in steps[0] if scalar.startswith(("loss/", "penalty/")))
    trace = {scalar: [float(f"{logs[scalar]:.7g}") for logs in steps] for scalar in kept}
    for network, end in weights_of(gan).items():
        trace[f"norm/{network}"] = [float(f"{np.linalg.norm(end):.7g}")]
        trace[f"moved/{network}"] = [float(f"{np.linalg.norm(end - start[network]):.7g}")]
    return trace


def settings_of(name):
    """Returns the settings of a recipe that affect training and differ from the defaults."""
    defaults = TrainConfig().identity
    return {setting: value for setting, value in config_of(name).identity.items() if value != defaults[setting]}


def weights_of(gan):
    """Returns the trainable weights of each network as one vector. Their change depends on rates and moments."""
    weights = {name: [v.numpy().ravel() for v in network.trainable_variables] for name, network in gan.networks.items()}
    return {name: np.concatenate(values).astype(np.float64) for name, values in weights.items() if values}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in recipes.names()]
)
def test_ten_steps_of_a_recipe_have_their_golden_trace(name):
    trace = trace_of(name) | {"settings": settings_of(name)}
    path = GOLDEN / f"{name}.json"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        lines = [f"  {json.dumps(scalar)}: {json.dumps(values)}" for scalar, values in trace.items()]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    assert path.exists(), f"{name} has no golden trace; create it as described in the docstring of this module"
    golden = json.loads(path.read_text())
    assert set(trace) == set(golden)
    assert trace["settings"] == golden.pop("settings")
    # A generator's loss may be a mean of logits that is close to 0. Its rounding errors have the scale of the logits.
    logit_scale = max(map(abs, golden.get("loss/discriminator", [0.0])))
    for scalar, values in golden.items():
        assert len(values) == (STEPS if scalar.startswith(("loss/", "penalty/")) else 1)
        for step, (value, golden_value) in enumerate(zip(trace[scalar], values, strict=True)):
            rtol = RTOL_MOVED if scalar.startswith("moved/") else RTOL * (step + 1)
            atol = rtol * logit_scale if scalar == "loss/generator" else ATOL
            assert value == pytest.approx(golden_value, rel=rtol, abs=atol), f"{scalar} at step {step}"


def test_there_is_a_golden_trace_for_every_recipe_and_no_other():
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(recipes.names())

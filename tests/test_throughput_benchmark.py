"""The throughput benchmark measures the loop that `fit` runs, on networks of the same size as those of its peers."""

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import TINY_FILTERS, TINY_MLP, differences, tiny_config, values_of

from benchmarks import cases, contenders, products, throughput, worker
from benchmarks.ours import Engine
from benchmarks.peers import keras_fit, keras_networks
from benchmarks.peers.tensorflow_loop import TensorFlowLoop
from trainer.models import from_config

CONFIGS = {
    "mlp": tiny_config("mlp", architecture_options=TINY_MLP),
    "conditional dcgan": tiny_config(
        "dcgan",
        architecture_options=TINY_FILTERS | {"generator_strides": [2, 2], "kernel_size": 4},
        model="conditional",
        update_order="simultaneous",
    ),
    "paper": tiny_config(
        "dcgan",
        architecture_options=TINY_FILTERS
        | {
            "generator_strides": [2, 2],
            "kernel_size": 4,
            "generator_stem": "transposed_convolution",
            "discriminator_head": "convolution",
        },
    ),
    "r3gan": tiny_config(
        "r3gan",
        architecture_options={
            "generator_filters": [16, 8],
            "discriminator_filters": [8, 16],
            "blocks_per_stage": 1,
            "group_size": 8,
        },
        loss="relativistic",
        penalties=("r1", "r2"),
    ),
    "ungrouped": tiny_config(
        "r3gan",
        architecture_options={
            "generator_filters": [8, 8],
            "discriminator_filters": [8, 8],
            "blocks_per_stage": 1,
            "expansion": 1,
            "group_size": 8,
        },
        loss="relativistic",
        penalties=("r1",),
        penalty_every_steps=2,
    ),
    "stylegan2": tiny_config(
        "stylegan2",
        model="stylegan2",
        model_options={"path_length_every_steps": 2},
        penalties=("r1",),
        penalty_every_steps=2,
    ),
}


CONFIGS["simultaneous r3gan"] = CONFIGS["r3gan"].override(update_order="simultaneous")


@pytest.fixture(params=CONFIGS)
def case(request):
    return cases.from_config(CONFIGS[request.param])


@pytest.fixture
def quick_products(monkeypatch):
    """Makes the measurement of products short."""
    monkeypatch.setattr(products, "_SWEEPS", 1)
    monkeypatch.setattr(products, "_SECONDS_PER_TIMING", 0.0)


@pytest.mark.parametrize("name", cases.CASES)
def test_peers_implement_the_networks_of_every_case(name):
    case = cases.get(name)
    assert case.options and case.image_shape == cases.IMAGE_SHAPES.get(name, case.image_shape)
    assert len(case.images) % case.batch_size == 0


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("loss", {"loss": "wasserstein"}),
        ("penalties", {"penalties": ("gradient_penalty",)}),
        ("discriminator_repeats", {"discriminator_repeats": 2}),
        (
            "penalty_every_steps",
            {"penalties": ("r1",), "penalty_every_steps": 2, "update_order": "simultaneous"},
        ),
        ("discriminator_updates", {"discriminator_updates": "separate"}),
        ("model", {"model": "acgan"}),
        ("model", {"architecture": "stylegan2", "architecture_options": {}}),
    ],
)
def test_a_case_that_peers_do_not_implement_is_refused(name, changes):
    with pytest.raises(ValueError, match=name):
        cases.from_config(CONFIGS["mlp"].override(**changes))


def test_a_case_omits_augmentation_ema_and_schedules():
    config = CONFIGS["mlp"].override(
        augment="ada", augment_probability=None, ema_half_life_images=100.0, learning_rate_decay="cosine"
    )
    case = cases.from_config(config, (8, 12, 3))
    assert case.image_shape == (8, 12, 3)
    assert (case.config.augment, case.config.ema_half_life_images) == (None, 0.0)
    assert case.config.learning_rate_decay == "none"


def test_turns_have_whole_cycles_of_lazy_penalties():
    assert cases.get("stylegan2").steps_per_cycle == 16
    lengths = {"path_length_every_steps": 6}
    both = CONFIGS["stylegan2"].override(penalty_every_steps=4, model_options=lengths)
    assert cases.from_config(both).steps_per_cycle == 12
    assert cases.from_config(both.override(penalties=())).steps_per_cycle == 6
    assert cases.from_config(CONFIGS["ungrouped"]).steps_per_cycle == 2
    assert cases.from_config(CONFIGS["mlp"]).steps_per_cycle == 1
    assert [contenders.whole_cycles(steps, 4) for steps in (0.1, 4.2, 4.6, 9.0)] == [4, 4, 8, 12]


def test_peers_that_do_not_implement_a_case_are_not_started(monkeypatch):
    names = []

    class NamedWorker:
        def __init__(self, name, *args):
            self.name, self.precision, self.num_parameters = name, "float32", [len(names)]
            names.append(name)

    monkeypatch.setattr(throughput, "Worker", NamedWorker)
    values = SimpleNamespace(steps="auto", precisions=["float32"], round_seconds=1.0)
    with pytest.raises(RuntimeError, match=r"torch has \[1\] weights, but ours has \[0\]"):
        throughput.measure("stylegan2", list(cases.PEERS), values)
    assert names == ["ours", "torch", "ours-constant"]


@pytest.mark.parametrize("name", CONFIGS)
def test_our_contender_ends_with_the_bits_of_fit(name):
    case = cases.from_config(CONFIGS[name])
    gan = from_config(case.config, case.image_shape, case.num_classes)
    gan.fit(case.images, case.labels if gan.takes_targets else None, batch_size=case.batch_size, steps=3, verbose=0)
    ends = []
    for constant_input in (False, True):
        engine = Engine(case, "float32", constant_input=constant_input)
        engine.run(2)
        engine.run(1)
        ends.append(differences(values_of(engine.gan), values_of(gan)))
    assert not ends[0] and ends[1]


def test_every_turn_with_checkpoints_starts_at_step_0_and_commits():
    engine = Engine(cases.from_config(CONFIGS["mlp"]), "float32", checkpoints=True)
    engine.run(2)
    engine.run(2)
    assert engine.gan.step == 2


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [name for name in CONFIGS if name != "stylegan2"])
def test_a_peer_has_networks_of_our_size_and_trains_them(name, precision, quick_products):
    case = cases.from_config(CONFIGS[name])
    assert case.peers == cases.PEERS
    ours, peer = Engine(case, precision), TensorFlowLoop(case, precision)
    assert peer.num_parameters == ours.num_parameters
    assert peer.precision == ours.precision == precision
    peer.run(1)
    shares = products.measure(ours, case.batch_size, num_steps=1)
    assert shares["seconds_per_step"] > 0 and {"ours", "plain"} < set(shares)


def test_a_variant_that_cannot_run_is_omitted():
    class Broken:
        def run(self, num_steps):
            raise cases.VariantError("no kernel")

    class Working:
        def run(self, num_steps):
            time.sleep(0.01 * num_steps)

    omitted = {}
    assert set(worker._steps_per_sec({"broken": Broken(), "working": Working()}, omitted)) == {"working"}
    assert omitted == {"broken": "no kernel"}


def test_a_step_that_keras_cannot_run_is_an_error_and_no_wait(monkeypatch):
    def step(self, images, labels):
        loss = tf.debugging.check_numerics(tf.reduce_mean(images) / 0.0, "not finite")
        return loss, loss

    keras.utils.set_random_seed(0)
    monkeypatch.setattr(keras_fit.PlainGAN, "step", step)
    with pytest.raises(cases.VariantError):
        keras_fit.KerasFit(cases.get("small"), "float32", jit_compile=False).run(1)


def test_products_are_omitted_without_layers_of_keras(quick_products):
    case = cases.from_config(CONFIGS["stylegan2"])
    assert set(products.measure(Engine(case, "float32"), case.batch_size, num_steps=1)) == {"seconds_per_step"}


@pytest.mark.parametrize("name", ["r3gan", "ungrouped"])
def test_a_peer_has_the_networks_of_r3gan(name):
    case = cases.from_config(CONFIGS[name])
    ours, peer = Engine(case, "float32").gan, keras_networks.build(case)
    for network, own, size in (("generator", peer[0], case.config.latent_dim), ("discriminator", peer[1], None)):
        own.set_weights(
            [
                value.reshape(weight.shape)
                for value, weight in zip(getattr(ours, network).get_weights(), own.get_weights(), strict=True)
            ]
        )
        shape = (2, size) if size else (2, *case.image_shape)
        inputs = np.random.default_rng(0).standard_normal(shape, np.float32)
        np.testing.assert_allclose(own(inputs), getattr(ours, network)(inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("changes", "network", "first", "counts"),
    [
        ({"loss": "non_saturating", "penalties": ()}, "discriminator", False, (3, 2, 3)),
        ({"loss": "non_saturating", "penalties": ()}, "discriminator", True, (3, 2, 1)),
        ({"penalties": ()}, "discriminator", False, (4, 2, 3)),
        ({}, "discriminator", False, (6, 4, 5)),
        ({}, "discriminator", True, (6, 4, 3)),
        ({"penalty_every_steps": 4}, "discriminator", False, (5, 2.5, 3.5)),
        ({"penalties": ("r1",)}, "discriminator", False, (5, 3, 4)),
        ({"discriminator_repeats": 2}, "discriminator", False, (8, 6, 7)),
        ({}, "generator", True, (2, 1, 0)),
        ({}, "generator", False, (2, 1, 1)),
        ({"penalties": (), "update_order": "simultaneous"}, "discriminator", False, (2, 2, 3)),
        ({"update_order": "simultaneous"}, "discriminator", False, (4, 4, 5)),
        ({"update_order": "simultaneous"}, "discriminator", True, (4, 4, 3)),
        ({"update_order": "simultaneous"}, "generator", False, (1, 1, 1)),
    ],
)
def test_products_of_a_step_are_counted_with_those_of_penalties(changes, network, first, counts):
    assert products.counts(CONFIGS["r3gan"].override(**changes), network, first=first) == counts


PYTORCH = """
import json, sys
from pathlib import Path
import torch
from benchmarks.cases import Case
from benchmarks.peers import pytorch

torch.compile = lambda function: function  # compiling takes a minute
for folder in map(Path, sys.argv[1:]):
    case = Case.load(folder)
    variants = pytorch.variants(case, ["float32", "bfloat16"])
    peers = {label: variants[label]() for label in list(variants)[-2:]}
    peers |= {label: make() for label, make in pytorch.refinements(case, peers[next(iter(peers))]).items()}
    for label, peer in peers.items():
        assert peer.precision in label
        before = [parameter.detach().clone() for parameter in sum(peer._parameters, [])]
        peer.run(2)
        after = sum(peer._parameters, [])
        assert all(parameter.isfinite().all() for parameter in after), label
        assert any((old != new).any() for old, new in zip(before, after)), label
    print(json.dumps({"num_variants": len(variants), "num_parameters": peer.num_parameters}))

images, gradients = torch.randn(4, *case.image_shape[::-1]), []
for differentiate in (peer._differentiate, peer._differentiate_eagerly):
    logits, slopes = differentiate(peer._named_parameters, images, "float32")
    gradients.append(torch.autograd.grad(logits.mean() + slopes.square().sum(), peer._parameters[1]))
assert peer.settings.compiled and peer._differentiate != peer._differentiate_eagerly
for compiled, eager in zip(*gradients):
    torch.testing.assert_close(compiled, eager)
"""


@pytest.mark.slow
def test_pytorch_peers_have_networks_of_our_size_and_train_them(tmp_path):
    """A process of its own: PyTorch's compiler and TensorFlow do not start in the same one."""
    pytest.importorskip("torch", exc_type=ImportError)
    names = ["mlp", "conditional dcgan", "paper", "ungrouped", "stylegan2", "simultaneous r3gan", "r3gan"]
    for name in names:
        (tmp_path / name).mkdir()
        cases.from_config(CONFIGS[name]).save(tmp_path / name)
    done = subprocess.run(
        [sys.executable, "-c", PYTORCH, *(str(tmp_path / name) for name in names)],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"CXX": "true", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for name, line in zip(names, done.stdout.splitlines(), strict=True):
        peers = json.loads(line)
        assert peers["num_variants"] == (4 if name == "mlp" else 8)
        case = cases.from_config(CONFIGS[name])
        assert tuple(peers["num_parameters"]) == Engine(case, "float32").num_parameters

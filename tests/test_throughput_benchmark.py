"""The throughput benchmark measures the loop that `fit` runs, on networks of the same size as those of its peers."""

import pytest
from conftest import TINY_FILTERS, TINY_MLP, tiny_config, values_of

from benchmarks import cases, products
from benchmarks.ours import Engine
from benchmarks.peers.tensorflow_loop import TensorFlowLoop
from trainer.models import from_config
from trainer.training.checkpoint.manifest import state_sha256

CONFIGS = {
    "mlp": tiny_config("mlp", architecture_options=TINY_MLP),
    "conditional dcgan": tiny_config(
        "dcgan",
        architecture_options=TINY_FILTERS | {"generator_strides": [2, 2], "kernel_size": 4},
        model="conditional",
        update_order="simultaneous",
    ),
}


@pytest.fixture(params=CONFIGS)
def case(request):
    return cases.from_config(CONFIGS[request.param])


@pytest.mark.parametrize("name", cases.CASES)
def test_peers_implement_the_networks_of_every_case(name):
    assert cases.get(name).options


def test_our_contender_ends_with_the_bits_of_fit(case):
    gan = from_config(case.config, case.image_shape, case.num_classes)
    gan.fit(case.images, case.labels, batch_size=case.batch_size, steps=3, verbose=0)
    ends = []
    for constant_input in (False, True):
        engine = Engine(case, constant_input=constant_input)
        engine.run(2)
        engine.run(1)
        ends.append(state_sha256(values_of(engine.gan)))
    assert ends[0] == state_sha256(values_of(gan)) != ends[1]


def test_every_turn_with_checkpoints_starts_at_step_0_and_commits():
    engine = Engine(cases.from_config(CONFIGS["mlp"]), checkpoints=True)
    engine.run(2)
    engine.run(2)
    assert engine.gan.step == 2


@pytest.mark.slow
def test_a_peer_has_networks_of_our_size_and_trains_them(case, monkeypatch):
    monkeypatch.setattr(products, "_SWEEPS", 1)
    monkeypatch.setattr(products, "_SECONDS_PER_TIMING", 0.0)
    ours, peer = Engine(case), TensorFlowLoop(case)
    assert peer.num_parameters == ours.num_parameters
    peer.run(1)
    shares = products.measure(ours, case.batch_size, num_steps=1)
    assert shares["seconds_per_step"] > 0 and {"ours", "plain"} < set(shares)

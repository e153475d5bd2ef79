"""In bfloat16, every recipe computes products in bfloat16, and state, statistics, logits and losses in float32."""

import re
from pathlib import Path

import keras
import pytest
import tensorflow as tf
from conftest import TINY_ARCHITECTURES
from test_golden import BATCH, compiled, config_of

from trainer import networks
from trainer.config import recipes
from trainer.models.step_plan import step_plan
from trainer.models.weighted_penalties import WeightedPenalties
from trainer.training.step import TrainStep

ROOT = Path(__file__).parents[2]
FAST = {"digits", "r1", "vanilla"}
"""Recipes that are also tested in the fast tier."""
CONVOLUTIONS = {"Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter"}
NORMALIZATIONS = ("FusedBatchNormV3", "FusedBatchNormGradV3")
OPTIMIZERS = ("ResourceApplyAdam", "ResourceApplyRMSProp", "ResourceApplyGradientDescent")


def nodes_of(function):
    """All nodes of a graph and of the functions that it calls."""
    definition = function.get_concrete_function().graph.as_graph_def()
    return [*definition.node, *(node for called in definition.library.function for node in called.node_def)]


def discriminators_of(gan):
    return [network for name, network in gan.networks.items() if name.startswith("discriminator")]


def name_heads(gan, name):
    """Names the layers that make logits, so that their nodes can be found."""
    for network in discriminators_of(gan):
        head = network.layers[-1]
        if 1 in (getattr(head, "filters", None), getattr(head, "units", None)):
            head.name = name


@pytest.fixture
def bfloat16():
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(previous)


def test_the_docs_list_the_generators_that_make_images_in_float32(bfloat16):
    (listed,) = re.findall(r"The generators of (.*?) make images in float32", (ROOT / "docs/precision.md").read_text())
    types = {
        name: networks.build(name, (32, 32, 3), 8, 0, "tanh", options)["generator"]().outputs[0].dtype
        for name, options in TINY_ARCHITECTURES.items()
    }
    assert set(types.values()) == {"float32", "bfloat16"}
    assert re.findall("`(.*?)`", listed) == sorted(name for name, dtype in types.items() if dtype == "float32")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in recipes.names()]
)
def test_a_step_has_its_products_in_bfloat16_and_its_sums_in_float32(name, monkeypatch):
    gan, arrays = compiled(name, precision="bfloat16", jit_compile="off")
    name_heads(gan, "head")
    plan, chunk = step_plan(gan, BATCH), gan.make_chunk(*arrays)
    seen = {"loss": [], "logits": [], "penalty": []}

    def forward(*arguments):
        losses, metrics = gan.forward(*arguments)
        seen["loss"] += [*losses.values(), *(value for values in metrics.values() for value in values.values())]
        return losses, metrics

    def terms(penalties, passes, terms=WeightedPenalties._terms):
        seen["logits"] += [passes.real.logits, passes.fake.logits]
        seen["penalty"] += (values := terms(penalties, passes)).values()
        return values

    monkeypatch.setattr(WeightedPenalties, "_terms", terms)
    step = TrainStep(type(plan)(**(vars(plan) | {"forward": forward})), chunk, tf.distribute.get_strategy())
    tensors = chunk.tensors()
    nodes = nodes_of(tf.function(lambda: step(tensors, tf.constant(0, tf.int64)), autograph=False))

    assert seen["loss"] and {value.dtype for values in seen.values() for value in values} == {tf.float32}
    assert bool(seen["penalty"]) == bool(config_of(name).penalties)
    assert {variable.dtype for variable in gan.state.values() if "float" in variable.dtype} == {"float32"}
    has_convolutions = not CONVOLUTIONS.isdisjoint(node.op for node in nodes)
    products = [node for node in nodes if node.op in (CONVOLUTIONS if has_convolutions else {"MatMul"})]
    in_float32 = [node.name for node in products if node.attr["T"].type != tf.bfloat16.as_datatype_enum]
    assert len(in_float32) < len(products)
    assert not [name for name in in_float32 if not re.search(r"/head(_\d+)?/", name)]
    logits = [network.outputs[0] for network in discriminators_of(gan)]
    assert logits and {tensor.dtype for tensor in logits} == {"float32"}
    normalizations = [node for node in nodes if node.op in NORMALIZATIONS]
    assert {node.attr["T"].type for node in normalizations} <= {tf.bfloat16.as_datatype_enum}
    assert {node.attr["U"].type for node in normalizations} <= {tf.float32.as_datatype_enum}
    updates = [node for node in nodes if node.op in OPTIMIZERS]
    assert updates or config_of(name).optimizer == "rmsprop"  # Keras updates it without a kernel
    assert {node.attr["T"].type for node in updates} <= {tf.float32.as_datatype_enum}

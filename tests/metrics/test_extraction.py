"""Functions are applied to blocks of rows on all replicas, with the same bits on any number of them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from trainer import heartbeat
from trainer.metrics import extraction
from trainer.metrics.extraction import (
    BLOCK_SIZE,
    ReplicatedFunction,
    all_agree,
    blocks_of,
    values_of_first_process,
)

NUM_ROWS = (1, BLOCK_SIZE - 1, BLOCK_SIZE, BLOCK_SIZE + 1, 3 * BLOCK_SIZE, 5 * BLOCK_SIZE + 7)


def images_of(num_rows):
    return np.random.Generator(np.random.PCG64(num_rows)).integers(0, 256, (num_rows, 8, 8, 3), np.uint8)


def convolve(images):
    kernel = tf.reshape(tf.linspace(-1.0, 1.0, 3 * 3 * 3 * 7), (3, 3, 3, 7))
    features = tf.nn.relu(tf.nn.conv2d(tf.cast(images, tf.float32) / 127.5 - 1.0, kernel, 2, "SAME"))
    return tf.reduce_mean(features, axis=(1, 2)), tf.cast(tf.argmax(features[:, 0, 0], -1), tf.uint8)


@pytest.fixture(params=["none", "default", "one device", "two replicas"], scope="module")
def strategy(request, two_replicas):
    return {
        "none": None,
        "default": tf.distribute.get_strategy(),
        "one device": tf.distribute.OneDeviceStrategy("CPU:1"),
        "two replicas": two_replicas,
    }[request.param]


def test_rows_are_in_order_with_the_bits_of_one_replica(strategy):
    function, alone = ReplicatedFunction(convolve, strategy), ReplicatedFunction(convolve)
    for num_rows in NUM_ROWS:
        images = images_of(num_rows)
        outputs, expected = function(blocks_of(images)), alone(blocks_of(images))
        for output, same, shape in zip(outputs, expected, ((num_rows, 7), (num_rows,)), strict=True):
            assert (output.shape, output.dtype) == (shape, same.dtype)
            np.testing.assert_array_equal(output, same)
        np.testing.assert_allclose(outputs[0], convolve(images)[0], rtol=1e-5, atol=1e-6)


def test_rows_do_not_depend_on_the_other_rows(strategy):
    images, function = images_of(140), ReplicatedFunction(convolve, strategy)
    few, many = (function(blocks_of(images[:number]))[0] for number in (53, 140))
    np.testing.assert_array_equal(few, many[:53])


def test_blocks_may_be_short_and_have_several_arrays(strategy):
    rows = np.arange(99)
    blocks = [(rows[start:stop], -rows[start:stop, None]) for start, stop in ((0, 1), (1, 51), (51, 60), (60, 99))]
    sums, differences = ReplicatedFunction(lambda a, b: (a + b[:, 0], a - b[:, 0]), strategy)(iter(blocks))
    np.testing.assert_array_equal(sums, 0 * rows)
    np.testing.assert_array_equal(differences, 2 * rows)


def test_a_function_is_traced_once_per_signature(strategy, two_replicas):
    traces = []
    function = ReplicatedFunction(lambda x: (traces.append(x.dtype) or x,), strategy)
    for number in NUM_ROWS:
        function(blocks_of(np.zeros((number, 2), np.float32)))
    assert len(traces) == (2 if strategy is two_replicas else 1)
    function(blocks_of(np.zeros((3, 2), np.int32)))
    assert set(traces) == {tf.float32, tf.int32}


def test_blocks_are_read_as_they_are_needed_and_each_is_a_beat(strategy, monkeypatch):
    beats, read = [], []
    monkeypatch.setattr(heartbeat, "beat", lambda: beats.append(len(read)))

    def blocks():
        for number in range(5):
            read.append(number)
            yield (np.full(BLOCK_SIZE, number),)

    (numbers,) = ReplicatedFunction(lambda x: (x,), strategy)(blocks())
    assert numbers.tolist() == np.repeat(range(5), BLOCK_SIZE).tolist()
    num_replicas = strategy.num_replicas_in_sync if strategy else 1
    assert beats == [min(5, num_replicas * (index + 1)) for index in range(-(-5 // num_replicas))]


def test_a_single_process_agrees_with_itself_and_keeps_its_values(strategy):
    assert [all_agree(strategy, flag) for flag in (True, False)] == [True, False]
    values = {"b": 0.1, "a": float("inf"), "c": -3.0}
    assert list(values_of_first_process(strategy, values).items()) == list(values.items())


_FOUR_DEVICES = """
import hashlib, json, numpy as np, tensorflow as tf
from test_extraction import convolve, images_of
from trainer.config.train_config import TrainConfig
from trainer.metrics.digits import DigitsMetrics
from trainer.metrics.extraction import ReplicatedFunction, blocks_of
from trainer.models import from_config
from trainer.training.distributed.strategy import create_mirrored
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 4)
tf.config.experimental.enable_op_determinism()
SUITE = DigitsMetrics(images_of(40), num_samples=230)
filters = {"generator_filters": [8, 4], "discriminator_filters": [4, 8]}
CONFIG = TrainConfig(model="conditional", architecture="dcgan", architecture_options=filters, latent_dim=8)
for count in (0, 1, 2, 4):
    strategy = create_mirrored([f"CPU:{index}" for index in range(count)]) if count else None
    outputs = ReplicatedFunction(convolve, strategy)(blocks_of(images_of(333)))
    gan = from_config(CONFIG, (28, 28, 1), 10, strategy)
    metrics = SUITE.measure(gan)
    print(json.dumps([[hashlib.sha256(output.tobytes()).hexdigest() for output in outputs], metrics]))
"""


@pytest.mark.slow
def test_one_two_and_four_replicas_give_the_same_bits_and_metrics(request):
    code = f"import sys; sys.path.insert(0, {str(request.path.parent)!r})\n{_FOUR_DEVICES}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(results) == 4 and results == results[:1] * 4
    assert "conditional_accuracy" in results[0][1]


def test_functions_run_without_tf32_and_the_setting_is_restored(strategy):
    used = []

    def enabled(rows):
        used.append(tf.config.experimental.tensor_float_32_execution_enabled())
        return rows

    function = ReplicatedFunction(lambda rows: (tf.numpy_function(enabled, [rows], rows.dtype),), strategy)
    tf.config.experimental.enable_tensor_float_32_execution(True)
    function(blocks_of(np.zeros(120)))
    assert used and not any(used)
    assert tf.config.experimental.tensor_float_32_execution_enabled()


def test_numbers_of_all_processes_are_exchanged_without_a_new_trace(two_replicas, monkeypatch):
    traced, gather = [], extraction._all_gather
    monkeypatch.setattr(extraction, "spans_machines", lambda strategy: True)
    monkeypatch.setattr(extraction, "_all_gather", lambda rows: traced.append(rows.dtype) or gather(rows))
    for number in range(3):
        assert values_of_first_process(two_replicas, {"a": float(number)}) == {"a": number}
        assert all_agree(two_replicas, number > 0) == (number > 0)
    assert traced.count(tf.float64) == traced.count(tf.int32) == 2  # once per replica

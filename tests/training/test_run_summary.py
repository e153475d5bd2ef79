"""Sentences about a run for its log."""

import pytest

from trainer import TrainConfig
from trainer.data.datasets import describe
from trainer.training.run_summary import describe_start, facts


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_the_start_states_each_fact_once(num_replicas):
    config = TrainConfig(recipe="digits", job_dir="runs/a", steps=7, global_batch_size=3)
    words = describe_start(config, describe("digits"), {}, num_replicas).replace(".", "").replace(":", "").split()
    for word in ("digits", "5,000", "7", "3", "runs/a"):
        assert word in words
    assert sum(word in ("device", "devices") for word in words) == 1


def test_the_facts_name_the_classes():
    assert facts(describe("digits"), {}, 1)["class_names"] == [str(digit) for digit in range(10)]


def test_a_cpu_has_no_memory_of_a_gpu():
    assert facts(describe("digits"), {}, 1)["device_memory_gib"] is None

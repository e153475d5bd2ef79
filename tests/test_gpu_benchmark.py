"""The check of accelerators, on the CPU's devices."""

import json

import numpy as np
import pytest
from conftest import tiny_config

from benchmarks import cases, gpu
from trainer.storage import locate

FORMS = [
    gpu.Variant(("CPU:0",), "bfloat16", xla=False),
    gpu.Variant(("CPU:0", "CPU:1"), "float32", xla=False),
]


@pytest.fixture(scope="module")
def case():
    return cases.from_config(tiny_config("mlp"))


def test_every_device_is_checked_in_each_form():
    labels = [variant.label for variant in gpu.variants(["GPU:0", "GPU:1"])]
    assert labels == [
        *("1 GPU, float32", "1 GPU, float32, XLA", "1 GPU, bfloat16", "1 GPU, bfloat16, XLA"),
        *("2 GPU, float32", "2 GPU, bfloat16"),
    ]
    assert len(gpu.variants(["GPU:0"])) == 4
    assert not set(gpu.REFERENCES.values()) & set(gpu.variants(["CPU:0", "CPU:1"]))


def test_every_form_is_equal_to_the_cpu_and_has_a_speed(case):
    rows = list(gpu.check_case("mlp", case, FORMS, 0.01))
    assert [row["is_equal"] for row in rows] == [True] * 4, rows
    assert rows[0]["loss_difference"] == 0 and rows[3]["loss_difference"] < 1e-5
    assert rows[2]["loss_difference"] > 0  # bfloat16 rounds
    assert all(row["images_per_sec"] > 0 and row["memory_mib"] > 0 for row in rows)
    lines = gpu.render(rows)
    assert len(lines) == 6 and "2 CPU, float32" in lines[5] and "equal" in lines[5]


def test_other_losses_and_images_are_different():
    image = np.zeros((2, 4, 4, 1), np.uint8)
    reference = {"losses": {"loss/generator": 1.0, "loss/discriminator": 0.0}, "images": image}
    for changes, is_equal in (
        ({}, True),
        ({"losses": reference["losses"] | {"loss/generator": 1.005}}, True),
        ({"losses": reference["losses"] | {"loss/generator": 1.05}}, False),
        ({"losses": reference["losses"] | {"loss/generator": float("nan")}}, False),
        ({"images": image + 3}, False),
    ):
        assert gpu.compare(reference | changes, reference, gpu.TOLERANCES["float32"])["is_equal"] == is_equal


def test_a_form_that_fails_is_a_row_and_the_exit_code(case, bucket, monkeypatch, capsys):
    def measure(case, variant, seconds):
        if variant.xla and variant.precision == "bfloat16":
            raise ValueError("no XLA here\nand a trace")
        images = np.zeros((2, 4, 4, 1), np.uint8)
        return {"losses": {"loss/generator": 1.0}, "images": images, "images_per_sec": 7.0, "memory_mib": 8.0}

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr(cases, "get", lambda name: case)
    assert gpu.main(["gpu", "--cases=digits", "--nopeers", f"--json={bucket}/gpu.json"]) == 1
    printed = capsys.readouterr()
    assert "no XLA here" in printed.out and "digits (1 CPU, bfloat16, XLA)" in printed.err
    written = json.loads(locate(f"{bucket}/gpu.json").read_bytes())
    assert written["machine"]["tensorflow"] and len(written["rows"]) == 6
    assert [row["variant"] for row in written["rows"] if "error" in row] == ["1 CPU, bfloat16, XLA"]

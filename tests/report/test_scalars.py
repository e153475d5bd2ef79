"""Reading and reduction of scalars for reports."""

import itertools
import json
import os
import random

import numpy as np
import pytest
from report_runs import write_lines

from trainer.report.scalars import MAX_NAMES, Scalars

NAN, INFINITY = float("nan"), float("inf")


def same_hours(times):
    return times / 3600


def tables_of(path, num_points=100):
    scalars = Scalars(path)
    scalars.update()
    return scalars.tables(num_points, same_hours)


def test_reduced_curves_keep_every_extreme_and_the_last_step(tmp_path):
    values = np.random.default_rng(0).normal(size=10_007)
    values[[17, 5000]] = 1000.0, -1000.0
    lines = [{"step": step, "time": float(step), "loss/x": value} for step, value in enumerate(values)]
    write_lines(tmp_path / "m.jsonl", lines)
    (table,) = tables_of(tmp_path / "m.jsonl")
    column = table["columns"]["loss/x"]
    assert max(column["max"]) == 1000 and min(column["min"]) == -1000
    assert len(table["step"]) == len(column["mean"]) == 100 and table["step"][-1] == 10_006
    assert table["step"] == sorted(set(table["step"]))
    assert table["lines_per_point"] == 101
    bounds = [0, *(step + 1 for step in table["step"])]
    for index, (begin, end) in enumerate(itertools.pairwise(bounds)):
        assert column["mean"][index] == pytest.approx(values[begin:end].mean(), rel=1e-4, abs=1e-5)


def test_few_lines_are_kept_as_they_are(tmp_path):
    write_lines(
        tmp_path / "m.jsonl", [{"step": 3, "images_seen": 6, "time": 7200, "a": 0.5, "b": 2}, {"step": 4, "b": 1}]
    )
    tables = {tuple(table["columns"]): table for table in tables_of(tmp_path / "m.jsonl")}
    assert tables["a",]["columns"]["a"] == {"mean": [0.5]} and tables["a",]["hours"] == [2.0]
    assert tables["b",]["step"] == [3, 4] and tables["b",]["images"] == [6.0, None]


@pytest.mark.parametrize(
    ("line", "num_damaged", "expected"),
    [
        ({"step": 2, "x": NAN}, 0, [1.0, None]),
        ({"step": 2, "x": INFINITY}, 0, [1.0, None]),
        ({"step": 2, "x": 10**400}, 0, [1.0, None]),
        ({"step": 2, "x": -(10**400)}, 0, [1.0, None]),
        ({"step": 2, "x": True}, 0, [1.0]),
        ({"step": 2, "x": "2"}, 0, [1.0]),
        ({"step": 2, "x": [2]}, 0, [1.0]),
        ({"step": 2, "time": "now", "images_seen": None, "x": 2}, 0, [1.0, 2.0]),
        ({"step": -1, "x": 2}, 1, [1.0]),
        ({"x": 2}, 1, [1.0]),
        ([], 1, [1.0]),
        ("text", 1, [1.0]),
    ],
)
def test_values_that_are_no_numbers_leave_a_gap(tmp_path, line, num_damaged, expected):
    write_lines(tmp_path / "m.jsonl", [{"step": 1, "x": 1.0}, line])
    scalars = Scalars(tmp_path / "m.jsonl")
    scalars.update()
    (table,) = scalars.tables(100, same_hours)
    assert table["columns"]["x"]["mean"] == expected and scalars.num_damaged == num_damaged
    json.dumps(table, allow_nan=False)


def test_a_reduced_curve_leaves_out_values_that_are_not_finite(tmp_path):
    values = [1.0, NAN, 3.0, NAN, NAN, INFINITY]
    write_lines(tmp_path / "m.jsonl", [{"step": step, "x": value} for step, value in enumerate(values)])
    (table,) = tables_of(tmp_path / "m.jsonl", num_points=2)
    assert table["columns"]["x"] == {"mean": [2.0, None], "min": [1.0, None], "max": [3.0, None]}


def test_reading_a_growing_file_equals_reading_it_at_once(tmp_path):
    """Lines are appended in parts, and the file is replaced, as after a rollback."""
    rng, path = random.Random(0), tmp_path / "m.jsonl"
    growing, content = Scalars(path), b""
    for round_number in range(200):
        if rng.random() < 0.1:
            content = b"".join(content.splitlines(keepends=True)[: rng.randrange(5)])
            (tmp_path / "new").write_bytes(content)
            os.replace(tmp_path / "new", path)
        for step in range(rng.randrange(4)):
            line = {"step": step, "time": round_number + rng.random(), rng.choice("ab"): rng.random()}
            content += json.dumps(line).encode() + b"\n"
        cut = rng.randrange(20) if rng.random() < 0.5 else 0
        path.write_bytes(content[: len(content) - cut])
        growing.update()
        if cut:
            path.write_bytes(content)
            growing.update()
        assert growing.tables(10, same_hours) == tables_of(path, num_points=10)


def test_a_missing_file_has_no_scalars(tmp_path):
    assert tables_of(tmp_path / "m.jsonl") == []


def test_a_file_with_thousands_of_names_is_limited(tmp_path):
    lines = [{"step": step, **{f"n{step}-{index}": 1 for index in range(300)}} for step in range(3)]
    write_lines(tmp_path / "m.jsonl", [*lines, {"step": 4, "x" * 1000: 1}])
    scalars = Scalars(tmp_path / "m.jsonl")
    scalars.update()
    assert len(scalars.names) == MAX_NAMES and scalars.has_more_names


@pytest.mark.parametrize("has_more", [False, True])
def test_events_do_not_count_as_names(has_more, tmp_path):
    events = {f"event/{number}": 1 for number in range(5)}
    names = {f"x{number}": 1 for number in range(MAX_NAMES + has_more)}
    write_lines(tmp_path / "m.jsonl", [{"step": 1, **events, **names}])
    scalars = Scalars(tmp_path / "m.jsonl")
    scalars.update()
    assert len(scalars.names) == MAX_NAMES and scalars.has_more_names == has_more


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_only_regular_files_are_read(tmp_path, make):
    make(tmp_path / "m.jsonl")
    with pytest.raises(OSError):
        tables_of(tmp_path / "m.jsonl")

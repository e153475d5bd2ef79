"""Rows of the recipe benchmark that train on prepared sets for a budget of time, seeds, and the table of devices."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal

from benchmarks import (
    budget,
    device_table,
    devices,
    photograph_table,
    recipe_records,
    recipe_runs,
    recipe_table,
    recipes as benchmark,
)
from benchmarks.recipe_records import Part, Record, Row
from trainer.config import recipes
from trainer.data.tfrecord_writer import write_prepared
from trainer.errors import ConfigError, TrainerError
from trainer.storage import RunDirectory

TINY_FLAGS = (
    '--architecture_options={"generator_units": [16], "discriminator_units": [16]}',
    *("--latent_dim=8", "--global_batch_size=4", "--jit_compile=off", "--strategy=one_device"),
    *("--steps_per_execution=1", "--num_metric_samples=20", "--metrics=photos", "--noexport_model"),
)


def write(folder, size=16, num_images=24):
    images = np.random.default_rng(0).integers(0, 256, (num_images, size, size, 3), np.uint8)
    texts = {"name": "noise", "source": "", "license": "", "attribution": ""}
    write_prepared(folder, images, np.arange(num_images) % 2, list("ab"), num_shards=1, **texts)


@pytest.fixture
def data_dir(tmp_path):
    write(tmp_path / "data/noise")
    return tmp_path / "data"


@pytest.fixture
def row(data_dir):
    return Row("noise", "vanilla", TINY_FLAGS, "Why.", "noise", core_minutes=1.0, data_dir=data_dir)


@pytest.fixture
def results(tmp_path, monkeypatch, row):
    """Temporary result paths, with one row on photographs that has a budget and takes 20 steps."""
    paths = benchmark.ResultPaths(tmp_path / "records", tmp_path / "thumbnails", tmp_path / "recipes.md")
    paths.page.write_text(f"{recipe_table.BEGIN}\n{recipe_table.END}\n")
    monkeypatch.setattr(benchmark, "RESULTS", paths)
    monkeypatch.setattr(benchmark, "PHOTOGRAPHS", [dataclasses.replace(row, data_dir=None)])
    monkeypatch.setattr(budget, "calibrate", lambda *arguments: budget.Cost(10.0, 2.5))
    return paths


def record_of(row, tmp_path, values, **changes):
    """Returns the record of a run with evaluations at 100, 200, ... seconds: (frechet, precision, recall) each."""
    directory = RunDirectory(tmp_path / f"run-{row.name}")
    directory.create()
    names = ("frechet_photos_20", "precision_photos_20", "recall_photos_20")
    lines = [
        {"step": step, "time": 1000.0 + 100 * step, "images_per_sec": 50.0}
        | {f"metric/{name}": value for name, value in zip(names, value, strict=True)}
        for step, value in enumerate(values, 1)
    ]
    directory.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    seconds = 100.0 * len(values)
    parts = [Part(seconds=seconds, exit_code=0, other_cores=0.0, started=1000.0, peak_memory_mib=2048.0)]
    record = recipe_records.make(row.with_steps(10), directory, parts, "finished", core_minutes=row.core_minutes)
    return dataclasses.replace(record, **changes)


def test_rows_on_photographs_come_first_and_name_their_data_and_budget():
    photographs = [row for row in benchmark.rows() if row.prepared is not None]
    assert photographs == benchmark.rows()[: len(photographs)]
    for row in photographs:
        assert row.recipe in recipes.names() and row.why and row.core_minutes
        assert row.name in row.missing and row.prepared in row.missing


def test_a_row_without_its_data_is_omitted_with_a_sentence(results, tmp_path, capsys):
    arguments = ["recipes", "--only=noise", f"--runs={tmp_path / 'runs'}"]
    for more in ([], [f"--data_dir={tmp_path / 'nowhere'}"]):
        assert benchmark.main([*arguments, *more]) == 0
        assert "noise" in capsys.readouterr().out
        assert benchmark.main([*arguments, *more, "--list"]) == 0
        assert "noise" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_row_that_starts_from_another_one_needs_its_run(row, tmp_path):
    second = dataclasses.replace(row, init_from="first", runs=tmp_path / "runs")
    assert "first" in second.missing
    (tmp_path / "runs/first-0123abcd").mkdir(parents=True)
    (tmp_path / "runs/first-0123abcd.log").touch()
    assert second.missing == ""
    assert f"--init_from={tmp_path / 'runs/first-0123abcd'}" in second.all_flags
    assert "--init_from=runs/first" in second.command and str(tmp_path) not in second.command


def test_results_depend_on_the_name_of_a_dataset_and_not_on_its_folder(row, tmp_path):
    write(tmp_path / "other/noise")
    other = dataclasses.replace(row, data_dir=tmp_path / "other").with_steps(10)
    row = row.with_steps(10)
    assert row.key == other.key and row.settings["dataset"] == "noise"
    assert row.image_shape == (16, 16, 3) and str(tmp_path) not in row.command


def test_a_row_with_a_context_is_configured_for_its_data(data_dir):
    row = Row("noise", "photos", ("--model=conditional", "--size=small"), "Why.", "noise", data_dir=data_dir)
    config = row.with_steps(40).config
    assert (config.recipe, config.model, config.steps, config.evaluate_every_steps) == ("photos", "conditional", 40, 4)
    assert config.global_batch_size <= 24 and config.dataset == str(data_dir / "noise")


@pytest.mark.parametrize(
    ("minutes", "steps"), [(1.0, 20), (0.2, 1), (0.1, 1), (10.0, 236)], ids=["fits", "one", "too short", "long"]
)
def test_the_number_of_steps_fits_the_budget_and_is_measured_once(results, row, tmp_path, monkeypatch, minutes, steps):
    run = recipe_runs.Run(dataclasses.replace(row, core_minutes=minutes), tmp_path)
    assert f"--steps={steps}" in run.command()
    other = recipe_runs.Run(dataclasses.replace(row, core_minutes=minutes + 1), tmp_path)
    assert other.directory.root != run.directory.root
    monkeypatch.setattr(budget, "calibrate", None)
    assert f"--evaluate_every_steps={max(1, -(-steps // 10))}" in run.command()


def test_a_record_of_a_budget_stays_valid_for_its_own_number_of_steps(row, tmp_path):
    record = record_of(row, tmp_path, [(3.0, 0.5, 0.4)])
    assert record.steps == 10 and record.core_minutes == 1.0
    assert record.changed(row) == []
    assert record.changed(dataclasses.replace(row, flags=(*row.flags, "--loss=hinge"))) == ["loss"]


@pytest.mark.slow
def test_a_row_on_photographs_leaves_real_images_memory_and_pictures(results, tmp_path, data_dir):
    arguments = ["recipes", "--only=noise", f"--runs={tmp_path / 'runs'}", f"--data_dir={data_dir}"]
    assert benchmark.main(arguments) == 0
    record = Record.load(results.records, "noise")
    assert record is not None and (record.outcome, record.steps, record.core_minutes) == ("finished", 20, 1.0)
    assert len(record.evaluations) == 10 and record.peak_memory_mib > 100
    assert record.parts[0]["processor_seconds"] > 1
    assert record.real_vs_real["frechet_photos_20"] >= 0 and 0 <= record.neighbors["share_close"] <= 1
    assert {path.name for path in results.thumbnails.iterdir()} == {"noise.jpg", "noise-neighbors.jpg"}
    page = results.page.read_text()
    assert "(images/recipes/noise.jpg)" in page and "(images/recipes/noise-neighbors.jpg)" in page
    assert str(tmp_path) not in page
    before = results.page.stat().st_mtime_ns
    assert benchmark.main(arguments) == 0
    assert results.page.stat().st_mtime_ns == before


def test_the_page_shows_photographs_first_with_their_curves(row, tmp_path):
    missing = dataclasses.replace(row, name="missing", data_dir=None)
    digits = Row("digits", "digits", (), "Why.")
    record = record_of(
        row,
        tmp_path,
        [(9.0, 0.5, 0.4), (3.0, 0.6, 0.5), (4.0, 0.6, 0.5)],
        real_vs_real={"frechet_photos_20": 0.25, "precision_photos_20": 0.9},
        neighbors={"share_close": 0.015},
    )
    page = recipe_table.render([(row, record), (missing, None), (digits, None)], {"noise", "noise-neighbors"})
    lines = page.splitlines()
    (line,) = [line for line in lines if line.startswith("| `noise` | noise, 16×16×3")]
    for text in (
        "3 (end 4) `photos_20`",
        "0.25",
        "1.5%",
        "2.0 GiB",
        "1 core-min",
        "images/recipes/noise-neighbors.jpg",
    ):
        assert text in line
    assert f"`{record.command}`" in page and "--steps=10" in record.command and str(tmp_path) not in page
    (curve,) = [line for line in lines if line.startswith("| `noise` | `photos_20` |") and "min)" in line]
    assert "9 (2 min)" in curve and "3 (3 min)" in curve and "4 (5 min)" in curve
    assert page.index("`noise`") < page.index("| `digits`")
    assert "**budget**" in page and "`missing`" not in page
    without_photographs = recipe_table.render([(missing, None), (digits, None)], set())
    assert "not measured" in without_photographs and "**budget**" not in without_photographs


def test_a_row_on_pairs_names_both_sets_and_has_a_table_of_its_own(row, data_dir, tmp_path):
    sets = {"held_out": "others", "prefix": "gray_to_color:"}
    pairs = dataclasses.replace(row, name="pairs", recipe="pix2pix", flags=("--size=small",), **sets).with_steps(10)
    assert "others" in pairs.missing
    write(data_dir / "others")
    assert pairs.missing == ""
    config = pairs.config
    assert config.dataset == f"gray_to_color:{data_dir / 'noise'}"
    assert config.dataset_b == f"gray_to_color:{data_dir / 'others'}"
    assert "--dataset_b=gray_to_color:data/others" in pairs.command and str(tmp_path) not in pairs.command

    directory = RunDirectory(tmp_path / "run-pairs")
    directory.create()
    values = {"metric/paired_l1": 0.125, "metric/paired_psnr": 15.5, "metric/paired_ssim": 0.5}
    directory.metrics.write_text(json.dumps({"step": 10, "time": 1.0, "images_per_sec": 50.0} | values) + "\n")
    record = recipe_records.make(pairs, directory, [Part(seconds=60.0, exit_code=0, other_cores=0.0)], "finished")
    images = (row, record_of(row, tmp_path, [(9.0, 0.5, 0.4)]))
    lines = recipe_table.render([images, (pairs, record)], set()).splitlines()
    (line,) = [line for line in lines if line.startswith("| `pairs` |")]
    assert "0.125 | 15.5 | 0.5 | 50" in line and "gray_to_color:noise" in line
    assert line.count("|") == lines[lines.index(line) - 1].count("|")
    assert sum(line.startswith("| `noise` | noise,") for line in lines) == 1


def test_seeds_of_a_row_have_a_mean_and_a_range_and_no_rows_of_their_own(row, tmp_path):
    seeds = [row, *(dataclasses.replace(row, name=f"noise{n}", flags=(*row.flags, f"--seed={n}")) for n in (1, 2))]
    recorded = [
        (seed, record_of(seed, tmp_path, [(frechet, 0.5, 0.4)]))
        for seed, frechet in zip(seeds, (2.0, 3.0, 4.0), strict=True)
    ]
    line = photograph_table.spread(recorded)[2]
    assert "`noise`" in line and "| 3 |" in line and "3 ± 1 (2 to 4)" in line
    assert photograph_table.spread(recorded[:1]) == []
    other = {"step": 1, "seconds": 1.0, "metrics": {"frechet_photos_1k": 9.0}}
    other_protocol = dataclasses.replace(recorded[0][1], monitor="frechet_photos_1k", evaluations=[other])
    assert photograph_table.spread([*recorded, (seeds[0], other_protocol)])[2] == line
    assert not any("`noise1`" in line for line in photograph_table.render(recorded, set()))


def test_the_table_of_devices_says_what_is_measured_and_what_is_a_formula(row, tmp_path):
    photos = dataclasses.replace(row, name="flowers", recipe="photos", flags=())
    measured = dataclasses.replace(record_of(row, tmp_path, [(3.0, 0.5, 0.4)]), settings={"size": "small"})
    facts = {"device": "GPU", "size": "large", "side": 64, "batch": 64, "images": 360_000, "memory_mib": 2048.0}
    for name, is_measured in (("a", True), ("b", False)):
        content = facts | {"device": f"GPU {name}", "images_per_sec": 100.0, "is_measured": is_measured}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    lines = [line for line in device_table.render([(photos, measured), (row, measured)], tmp_path) if "|" in line][2:]
    assert len(lines) == 3 and "`noise`" in lines[0]
    assert "| 60 min |" in lines[1] and "2.0 GiB" in lines[1] and "measured" in lines[1]
    assert "formula" in lines[2] and "measured" not in lines[2]


def test_an_estimate_follows_the_speed_of_the_device_and_the_size():
    slow, fast = (devices.estimate("small", 32, "bfloat16", "GPU", speed) for speed in (10.0, 20.0))
    assert fast["images_per_sec"] == pytest.approx(2 * slow["images_per_sec"])
    assert fast["memory_mib"] == slow["memory_mib"] and slow["is_measured"] is False
    larger = devices.estimate("small", 64, "float32", "GPU", 10.0)
    assert larger["images_per_sec"] < slow["images_per_sec"]


@pytest.mark.slow
def test_a_device_is_measured_with_a_few_steps(monkeypatch):
    monkeypatch.setattr(devices, "_MIN_SECONDS", 0.1)
    facts = devices.measure("small", 16, "float32")
    assert facts["is_measured"] and facts["images_per_sec"] > 0 and facts["memory_mib"] > 100
    assert "cores" in facts["device"] and facts["side"] == 16


@pytest.mark.parametrize(("name", "width", "num_bytes"), [("small.png", 200, 20_000), ("small.jpg", 320, 60_000)])
def test_a_picture_is_reduced(tmp_path, name, width, num_bytes):
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    path = tmp_path / "out" / name
    recipe_table.reduce(tmp_path / "large.png", path)
    with Image.open(path) as small:
        assert small.width <= width and path.stat().st_size < num_bytes


def test_a_process_is_measured_and_pinned(tmp_path):
    core = budget.available_cores()[0]
    code = (
        "import os, sys, time\nend = time.process_time() + 0.05\nwhile time.process_time() < end: pass\n"
        "print(os.sched_getaffinity(0))\nprint('bad', file=sys.stderr)\nsys.exit(3)"
    )
    with (tmp_path / "log").open("wb") as log:
        usage = budget.run(["python3", "-c", code], log, [core])
    assert usage.exit_code == 3 and usage.seconds("processor") >= 0.05 and usage.peak_memory_mib > 1
    assert usage.seconds("wall") >= 0.05
    assert {"{" + str(core) + "}", "bad"} == set((tmp_path / "log").read_text().split())
    check_refusal(
        lambda: budget.run_checked(["python3", "-c", "exit('error: the disk is full.')"], tmp_path / "log"),
        TrainerError,
        "the disk is full",
        "1",
    )


def test_the_cost_of_a_step_is_the_difference_of_two_runs(tmp_path, monkeypatch):
    def run_checked(command, log_path, cores):
        return budget.Usage(0, 100.0, 7.0 + 0.5 * command[0], 100.0)

    monkeypatch.setattr(budget, "run_checked", run_checked)
    cost = budget.calibrate(lambda steps, folder: [steps], tmp_path / "log", "processor")
    assert (cost.start, cost.step) == (pytest.approx(7.0), pytest.approx(0.5))
    assert cost.num_steps(107.0) == 200


@pytest.mark.parametrize("value", ["x", "9999", "-1", ""])
def test_a_core_that_does_not_exist_is_refused(value):
    check_refusal(lambda: budget.parse_cores([value]), ConfigError, "cores", value)

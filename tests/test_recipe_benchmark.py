"""The recipe benchmark: rows, records, the table, and interrupted runs."""

import dataclasses
import functools
import json
import sys

import numpy as np
import pytest
from broken_updates import break_updates
from conftest import TINY_MLP, tiny_gan
from PIL import Image
from refusals import check_command_refusal, check_refusal

from benchmarks import recipe_records, recipe_runs, recipe_table, recipes as benchmark
from benchmarks.recipe_records import Part, Record, Row
from trainer import task
from trainer.config import recipes
from trainer.environment import Environment
from trainer.errors import ConfigError, DivergenceError, TrainerError
from trainer.storage import RunDirectory
from trainer.training import complete_config

TINY = Row(
    "tiny",
    "mlp_zeros",
    (
        "--steps=4",
        "--metrics=none",
        f"--architecture_options={json.dumps(TINY_MLP)}",
        "--jit_compile=off",
        "--strategy=one_device",
        "--steps_per_execution=1",
    ),
    "A row of the tests",
)
CELLS = [name.strip() for name in recipe_table._HEADER]


@pytest.fixture
def results(tmp_path, monkeypatch):
    """Temporary result paths with an empty page, and `tiny` as the only variant."""
    paths = benchmark.ResultPaths(tmp_path / "records", tmp_path / "thumbnails", tmp_path / "recipes.md")
    paths.page.write_text(f"before\n{recipe_table.BEGIN}\nold\n{recipe_table.END}\nafter\n")
    monkeypatch.setattr(benchmark, "RESULTS", paths)
    monkeypatch.setattr(benchmark, "VARIANTS", [TINY])
    monkeypatch.setattr(benchmark, "PHOTOGRAPHS", [])
    return paths


def record_of(row, tmp_path, lines, outcome="finished", **part):
    """Returns the record of a run with these lines of metrics."""
    directory = RunDirectory(tmp_path / row.name)
    directory.create()
    directory.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    parts = [Part(**({"seconds": 100.0, "exit_code": 0, "other_cores": 0.0} | part))]
    return recipe_records.make(row, directory, parts, outcome)


def evaluation(step, frechet, recall, **more):
    values = {"frechet_digits_5k": frechet, "precision_digits_5k": 0.8, "recall_digits_5k": recall, **more}
    return {"step": step, "time": 1000.0 + step, "images_per_sec": 100.0 * step} | {
        f"metric/{name}": value for name, value in values.items()
    }


def cells(row, record):
    """Returns the cells of a row of the table, by column."""
    rendered = recipe_table.render([(row, record)], set())
    line = next(line for line in rendered.splitlines() if line.startswith(f"| `{row.name}` |"))
    return dict(zip(CELLS, (cell.strip() for cell in line.strip("|").split("|")), strict=True))


@pytest.mark.parametrize(
    ("dataset", "classes"), [("digits", "0, 3"), ("fashion_mnist", "t-shirt, dress")], ids=["numbers", "names"]
)
def test_a_row_selects_classes_as_the_trainer_does(dataset, classes):
    row = dataclasses.replace(TINY, flags=(*TINY.flags, f"--dataset={dataset}", f"--classes={classes}"))
    assert row.config.classes == (0, 3)


def test_every_registered_recipe_has_a_row_without_flags():
    by_name = {row.name: row for row in benchmark.rows()}
    assert len(by_name) == len(benchmark.rows())
    for name in (name for name in recipes.names() if not recipes.takes_context(name)):
        assert (by_name[name].recipe, by_name[name].flags) == (name, ())


@pytest.mark.parametrize("row", [row for row in benchmark.rows() if not row.missing], ids=lambda row: row.name)
def test_a_row_resolves_as_the_trainer_does(row):
    assert complete_config.resolve(row.config, Environment()) == row.config
    assert row.why and row.image_shape[2] in (1, 3)


@pytest.mark.slow
def test_an_interrupted_row_resumes_and_leaves_its_record(results, tmp_path, capsys):
    run = recipe_runs.Run(TINY, tmp_path / "runs")
    first = [flag.replace("--steps=4", "--steps=2") for flag in TINY.flags]
    assert task.main(["task", "--recipe=mlp_zeros", f"--job_dir={run.directory.root}", *first]) == 0
    run.save_parts([Part(seconds=50.0, exit_code=143)])
    arguments = ["recipes", "--only=tiny", f"--runs={tmp_path / 'runs'}"]
    assert benchmark.main([*arguments, "--list"]) == 0
    listed = capsys.readouterr().out
    assert "tiny" in listed and "interrupted" in listed

    assert benchmark.main(arguments) == 0
    record = Record.load(results.records, "tiny")
    assert record is not None and (record.outcome, record.step, record.steps) == ("finished", 4, 4)
    assert '"step": 2' in run.log.read_text()  # the step from which it resumed
    assert [part["exit_code"] for part in record.parts] == [143, 0]
    assert record.seconds == pytest.approx(50.0 + record.parts[1]["seconds"]) and record.seconds > 50.0
    assert record.images_per_sec > 0 and record.best is None and record.monitor is None
    assert record.image_shape == [28, 28, 1] and record.batch == 32
    page = results.page.read_text()
    assert page.startswith("before\n") and page.endswith("\nafter\n") and "\nold\n" not in page
    assert "| `tiny` | digits, classes 0, 28×28×1 | 4 × 32 | " in page
    assert f"`{record.command}`" in page and record.machine["tensorflow"] in page
    assert (results.thumbnails / "tiny.png").exists() and "(images/recipes/tiny.png)" in page

    written = results.page.stat().st_mtime_ns
    capsys.readouterr()
    assert benchmark.main(arguments) == 0
    assert benchmark.main([*arguments, "--list"]) == 0
    assert "finished" in capsys.readouterr().out and benchmark.is_measured(TINY)
    assert results.page.stat().st_mtime_ns == written and len(run.parts()) == 2


STUB = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print("ready", flush=True)
signal.pause()
"""


def test_a_row_is_stopped_by_sigterm_when_its_time_is_over(results, tmp_path, monkeypatch):
    monkeypatch.setattr(recipe_runs, "_POLL_SECS", 0.05)
    monkeypatch.setattr(recipe_runs.Run, "command", lambda run: [sys.executable, "-c", STUB])
    log = recipe_runs.Run(TINY, tmp_path).log
    record = benchmark.measure(TINY, tmp_path, is_over=lambda: "ready" in log.read_text())
    assert (record.outcome, record.parts[0]["exit_code"]) == ("interrupted", 143)
    assert not benchmark.is_measured(TINY)
    assert "interrupted" in results.page.read_text()


@pytest.mark.parametrize(
    ("code", "error", "outcome"),
    [
        (1, "loss/generator became nan; lower the learning rates or choose another loss.", "diverged"),
        (1, "the data cannot be read.", None),
        (2, "steps=0 is too small.", None),
    ],
)
def test_only_divergence_is_an_outcome_and_other_errors_are_raised(
    results, tmp_path, monkeypatch, code, error, outcome
):
    stub = f"import sys; print('error: {error}', file=sys.stderr); sys.exit({code})"
    monkeypatch.setattr(recipe_runs.Run, "command", lambda run: [sys.executable, "-c", stub])
    if outcome is None:
        act = functools.partial(benchmark.measure, TINY, tmp_path, is_over=lambda: False)
        check_refusal(act, TrainerError, "tiny", str(code), error)
        assert Record.load(results.records, "tiny") is None
    else:
        record = benchmark.measure(TINY, tmp_path, is_over=lambda: False)
        assert (record.outcome, record.sentence) == (outcome, error) and benchmark.is_measured(TINY)


def test_the_error_of_a_diverged_run_is_recognized(digits):
    gan = break_updates(tiny_gan(), range(5))
    with pytest.raises(DivergenceError) as raised:
        gan.fit(digits.images[:160], batch_size=16, steps=5, verbose=0)
    assert recipe_runs.is_divergence(str(raised.value))


def test_a_row_that_another_process_runs_is_refused(results, tmp_path):
    run = recipe_runs.Run(TINY, tmp_path)
    with run._locked_log():
        check_refusal(lambda: recipe_runs.Run(TINY, tmp_path).resume(lambda: False), TrainerError, "tiny")


def test_no_row_is_started_when_the_minutes_are_over(results, tmp_path):
    assert benchmark.main(["recipes", "--minutes=0", f"--runs={tmp_path / 'runs'}"]) == 0
    assert not (tmp_path / "runs").exists()


def test_an_unknown_row_is_refused_with_the_nearest_name(results, capsys):
    check_command_refusal(benchmark.main, ["recipes", "--only=digts", "--list"], capsys, 2, "digts", "digits")


DIGITS = Row("digits", "digits", (), "Why")


def test_best_and_final_evaluation_differ_and_exclude_step_0(tmp_path):
    lines = [evaluation(0, 0.1, 1.0), evaluation(1, 2.0, 0.5), evaluation(2, 3.0, 0.48, conditional_accuracy=0.9)]
    record = record_of(DIGITS, tmp_path, lines)
    assert [record.best["step"], record.final["step"], len(record.evaluations)] == [1, 2, 2]
    assert record.images_per_sec == 100.0 and record.outcome == "finished"
    row_cells = cells(DIGITS, record)
    assert row_cells["frechet"] == "2 (end 3) `digits_5k`"
    assert (row_cells["recall"], row_cells["precision"], row_cells["modes / KL"]) == ("0.5", "0.8", "–")
    assert (row_cells["wall time"], row_cells["outcome"], row_cells["samples"]) == ("100 s", "finished", "–")


@pytest.mark.parametrize(
    ("lines", "metric", "value"),
    [
        ([evaluation(1, 2.0, 0.6), evaluation(2, 2.1, 0.29)], "recall_digits_5k", "0.29"),
        ([evaluation(1, 2.0, 0.6), evaluation(2, 4.1, 0.6), evaluation(3, 4.2, 0.6)], "frechet_digits_5k", "4.2"),
        ([evaluation(1, 2.0, 0.6), evaluation(2, 4.1, 0.6)], None, ""),
        ([evaluation(1, 2.0, 0.6), evaluation(2, 4.1, 0.6), evaluation(3, 3.9, 0.6)], None, ""),
        ([evaluation(1, 2.0, 0.6), evaluation(2, 2.1, 0.2), evaluation(3, 2.1, 0.4)], None, ""),
        ([evaluation(1, 2.0, 0.09), evaluation(2, 2.1, 0.001)], None, ""),
        ([evaluation(1, 2.0, 0.6), evaluation(2, 3.9, 0.3)], None, ""),
    ],
)
def test_a_collapse_is_reported_with_metric_and_value(tmp_path, lines, metric, value):
    record = record_of(DIGITS, tmp_path, lines)
    assert record.outcome == ("collapsed" if metric else "finished")
    assert (metric in record.sentence and value in record.sentence) if metric else record.sentence == ""
    assert record.sentence in recipe_table.render([(DIGITS, record)], set())


def test_stacked_and_cycle_metrics_have_columns(tmp_path):
    stacked = Row("stacked", "dcgan", ("--dataset=stacked:digits", "--steps=2"), "Why")
    values = {"num_modes_stacked_26k": 1000.0, "kl_stacked_26k": 0.3, "frechet_stacked_26k": 5.0}
    line = {"step": 2, "time": 1400.0} | {f"metric/{name}": value for name, value in values.items()}
    earlier = line | {"step": 1, "time": 1299.0, "metric/num_modes_stacked_26k": 12.0, "metric/kl_stacked_26k": 3.5}
    record = record_of(stacked, tmp_path, [earlier, line], started=1000.0, seconds=590.0)
    row_cells = cells(stacked, record)
    assert (row_cells["modes / KL"], row_cells["frechet"]) == ("1,000 / 0.3", "5 `stacked_26k`")
    assert [evaluation["seconds"] for evaluation in record.evaluations] == [299.0, 400.0]
    curve = recipe_table.render([(stacked, record)], set()).splitlines()[-1]
    assert curve == "| `stacked` | 12 / 3.5 | 1,000 / 0.3 | – | – | – | – | – | – |"
    cycle = Row("cycle", "cyclegan", (), "Why")
    errors = {"metric/cycle_error_a": 0.1, "metric/cycle_error_b": 0.3, "metric/cycle_error": 0.2}
    row_cells = cells(cycle, record_of(cycle, tmp_path, [{"step": 2, "time": 0.0} | errors]))
    assert (row_cells["cycle error"], row_cells["data"]) == ("0.2", "digits and inverted:digits, 28×28×1")


def test_a_row_without_a_record_has_no_number(tmp_path):
    for record in (None, record_of(DIGITS, tmp_path, [], "interrupted")):
        row_cells = cells(DIGITS, record)
        outcome = row_cells.pop("outcome")
        assert "measured" in outcome if record is None else "interrupted" in outcome and "0" in outcome
        assert {row_cells[name] for name in CELLS[3:] if name in row_cells} == {"–"}


def test_a_row_is_stale_when_its_recipe_has_changed(tmp_path):
    record = record_of(DIGITS, tmp_path, [evaluation(1, 2.0, 0.5)])
    older = dict(record.settings)
    del older["penalty_every_steps"]
    assert dataclasses.replace(record, settings=older).changed(DIGITS) == []
    stale = dataclasses.replace(record, settings=older | {"loss": "hinge", "steps": 7})
    assert sorted(stale.changed(DIGITS)) == ["loss", "steps"]
    for text in (cells(DIGITS, stale)["outcome"], recipe_table.state(DIGITS, stale)):
        assert all(fact in text for fact in ("finished", "stale", "loss", "steps"))


def test_a_precision_chosen_by_the_machine_keeps_a_record_valid(tmp_path, monkeypatch):
    record = record_of(DIGITS, tmp_path, [evaluation(1, 2.0, 0.5)])
    for current, changed in (("auto", []), ("bfloat16", ["precision"])):
        settings = record.settings | {"precision": current}
        monkeypatch.setattr(Row, "settings", property(lambda row, settings=settings: settings))
        assert dataclasses.replace(record, settings=settings | {"precision": "float32"}).changed(DIGITS) == changed


@pytest.mark.parametrize("other_cores", [0.5, None])
def test_wall_time_is_marked_when_other_programs_used_the_machine(tmp_path, other_cores):
    record = record_of(DIGITS, tmp_path, [evaluation(1, 2.0, 0.5)], seconds=900.0, other_cores=other_cores)
    assert cells(DIGITS, record)["wall time"] == "15 min†"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_thumbnail_is_small_and_shows_the_grid_nearest_to_the_step(tmp_path, mode):
    directory = RunDirectory(tmp_path / "run")
    directory.samples.mkdir(parents=True)
    rng = np.random.default_rng(0).integers(0, 256, (662, 662, 3), np.uint8)
    Image.fromarray(np.zeros_like(rng)).convert(mode).save(directory.samples / "step-00000100.png")
    Image.fromarray(rng).convert(mode).save(directory.samples / "step-00000200.png")
    for step, is_noise in ((None, True), (190, True), (110, False)):
        path = tmp_path / "small.png"
        recipe_table.thumbnail(directory, step, path)
        with Image.open(path) as small:
            assert small.width <= 200 and path.stat().st_size < 20_000
            assert (np.ptp(np.asarray(small.convert("L"))) > 0) == is_noise


def test_the_page_is_what_its_generator_writes(tmp_path, monkeypatch):
    paths = benchmark.ResultPaths()
    copy = tmp_path / "recipes.md"
    copy.write_bytes(paths.page.read_bytes())
    monkeypatch.setattr(benchmark, "RESULTS", dataclasses.replace(paths, page=copy))
    benchmark.write_table()
    assert copy.read_text() == paths.page.read_text()


def test_every_recipe_is_listed_with_a_row_or_a_page():
    recorded = [(row, Record.load(benchmark.ResultPaths().records, row.name)) for row in benchmark.rows()]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in recipe_table.recipe_list(recorded)[4:]]
    assert [row[0].strip("`") for row in rows] == recipes.names()
    for name, description, measured, page in rows:
        assert description == recipes.summary(name.strip("`")) and (measured, page) != ("–", "–"), name


def test_a_page_without_markers_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("no markers")
    check_refusal(lambda: recipe_table.rewrite(page, tmp_path, []), ConfigError, "page.md")
    assert page.read_text() == "no markers"


@pytest.mark.parametrize("name", [name for name in recipes.names() if not recipes.takes_context(name)])
def test_a_recipe_is_measured_and_its_docstring_has_the_score(name):
    record = Record.load(benchmark.ResultPaths().records, name)
    assert record is not None, f"measure it: python -m benchmarks.recipes --only={name}"
    score = recipe_table.score(record)
    assert score and score in recipes.docstring(name)

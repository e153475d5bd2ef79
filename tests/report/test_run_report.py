"""The content of report pages, without a browser."""

import base64
import io
import json
import re
import shutil
import weakref
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from refusals import check_refusal
from report_runs import MONITOR, START, content_of, make_run, start_at, write_config, write_lines

from trainer.config import recipes
from trainer.errors import CheckpointError, StorageError
from trainer.report import comparison, page
from trainer.report.pictures import Pictures
from trainer.report.run_report import RunReport
from trainer.report.settings_table import settings_table
from trainer.storage import RunDirectory, locate

HOSTILE = [
    "</script><script>hacked()</script>",
    "<img src=x onerror=hacked()>",
    "]]>--><svg/onload=hacked()>",
    "${title}&lt;",
]
FIXTURES = Path(__file__).parent.parent / "fixtures"


def report_of(folder, price_per_hour=None):
    return RunReport(RunDirectory(folder), price_per_hour)


def run_of(folder, **arguments):
    return report_of(folder, **arguments).content()


def test_the_best_value_its_grid_and_the_value_of_real_images_are_shown(tmp_path):
    real_vs_real = {"event": "real_vs_real", "time": START, "step": 0, "values": {MONITOR: 0.25}}
    run = run_of(make_run(tmp_path / "run", grids=(0, 90, 200), events=[start_at(START), real_vs_real]))
    (row,) = run["metrics"]
    assert (row["first"], row["last"], row["best"], row["best_step"], row["real_vs_real"]) == (500, 30, 20, 100, 0.25)
    assert run["monitor"] == MONITOR and run["best_step"] == 100
    assert run["pictures"]["best_grid"] == 90
    assert [grid["step"] for grid in run["pictures"]["grids"]] == [0, 90, 200]
    earlier = run_of(make_run(tmp_path / "earlier", events=[start_at(START), real_vs_real | {"event": "floor"}]))
    assert earlier["metrics"][0]["real_vs_real"] is None  # the name of the event in earlier runs


@pytest.mark.parametrize(
    ("suite", "name", "goal"),
    [
        ("digits", "frechet_digits_100", "MINIMIZE"),
        ("digits", "recall_digits_100", "MAXIMIZE"),
        ("digits", "conditional_accuracy", "MAXIMIZE"),
        ("digits", "frechet_digits_200", None),
        ("photos", "kid_photos_100", "MINIMIZE"),
        ("photos", "kid_std_photos_100", None),
        ("none", "frechet_digits_100", None),
        ("of another version", "frechet_digits_100", None),
        (None, "frechet_digits_100", None),
        ([], "frechet_digits_100", None),
    ],
)
def test_a_metric_has_the_goal_of_its_suite(tmp_path, suite, name, goal):
    folder = make_run(tmp_path / "run", metrics=suite)
    write_lines(folder / "metrics.jsonl", [{"step": 1, f"metric/{name}": 3.0}, {"step": 2, f"metric/{name}": 2.0}])
    (row,) = run_of(folder)["metrics"]
    assert row["goal"] == goal
    assert row["best_step"] == {"MINIMIZE": 2, "MAXIMIZE": 1, None: None}[goal]


SESSIONS = {
    "killed and resumed": (
        [start_at(START), {"event": "progress", "time": START + 60, "step": 60}, start_at(START + 1000, 40)],
        [("killed or lost", 60 / 3600, 20), ("running, or killed lately", 0, 0)],
    ),
    "preempted and finished": (
        [
            start_at(START),
            {"event": "end", "time": START + 3600, "step": 50, "reason": "preempted", "secs": {}},
            start_at(START + 9000, 50),
            {"event": "end", "time": START + 9360, "step": 60, "reason": "finished", "secs": {}},
        ],
        [("preempted", 1.0, 0), ("finished", 0.1, 0)],
    ),
    "of version 0.1.0": ([], [("unknown", 10 / 3600, 0)]),
    "with times that are no times": (
        [{"event": "start", "time": 10**400}, {"event": "start", "time": float("nan")}, start_at(START)],
        [("running, or killed lately", 10 / 3600, 0)],
    ),
}


@pytest.mark.parametrize("name", SESSIONS)
def test_sessions_are_derived_from_the_events(tmp_path, name):
    events, expected = SESSIONS[name]
    folder = make_run(tmp_path / "run", num_lines=1, evaluations={0: 1.0}, events=events)
    sessions = run_of(folder)["sessions"]
    described = [(session["reason"], session["hours"], session["lost_steps"]) for session in sessions]
    assert described == [(reason, pytest.approx(hours), lost) for reason, hours, lost in expected]


def test_the_cost_counts_devices_and_the_price_counts_hours(tmp_path):
    events = [start_at(START, num_devices=4), {"event": "end", "time": START + 7200, "step": 9, "reason": "finished"}]
    cost = run_of(make_run(tmp_path / "run", events=events), price_per_hour=2.5)["cost"]
    assert cost == {"hours": 2.0, "device_hours": 8.0, "price": 5.0}


def test_hours_of_curves_leave_out_the_time_between_sessions(tmp_path):
    end = {"event": "end", "time": START + 3600, "step": 1, "reason": "preempted"}
    folder = make_run(tmp_path / "run", events=[start_at(START), end, start_at(START + 36_000, 1)])
    lines = [{"step": step, "time": START + hours * 3600, "x": 1} for step, hours in enumerate((0.5, 1, 5, 10, 11))]
    write_lines(folder / "metrics.jsonl", lines)
    (table,) = run_of(folder)["tables"]
    assert table["hours"] == pytest.approx([0.5, 1, 1, 1, 2], abs=1e-5)


WARNINGS = {
    "collapse": ([{"step": 50, "event/collapse": 1.0}], "50"),
    "rollback": ([{"step": 40, "event/rollback": 1.0, "diverged_at_step": 47, "rollbacks": 1}], "47"),
    "rollback without its step": ([{"step": 40, "event/rollback": 1.0}], "40"),
    "skipped updates": ([{"step": 1, "skipped_updates": 2.0}, {"step": 2, "skipped_updates": 1.0}], "3"),
    "damaged lines": (["no object", {"step": 1}], "metrics.jsonl"),
}


@pytest.mark.parametrize("name", WARNINGS)
def test_events_and_damage_become_warnings(tmp_path, name):
    lines, mention = WARNINGS[name]
    folder = make_run(tmp_path / "run")
    write_lines(folder / "metrics.jsonl", [{"step": 0, "x": 1}, *lines])
    (warning,) = run_of(folder)["warnings"]
    assert mention in warning


def test_damaged_events_become_a_warning(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "events.jsonl").write_text('{"event": 1}\nnonsense\n{"event": "start", "time": 5}\n')
    (warning,) = run_of(folder)["warnings"]
    assert "events.jsonl" in warning and "2" in warning


@pytest.mark.parametrize(
    "missing", [["metrics.jsonl"], ["samples"], ["events.jsonl"], ["metrics.jsonl", "samples", "events.jsonl"]]
)
def test_a_run_without_results_has_a_page(tmp_path, missing):
    folder = make_run(tmp_path / "run")
    for name in missing:
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    (run,) = content_of(report_of(folder).render())["runs"]
    assert bool(run["metrics"]) == ("metrics.jsonl" not in missing)
    assert bool(run["pictures"]["grids"]) == ("samples" not in missing)


def test_a_stored_run_of_an_earlier_version_has_a_report(tmp_path):
    shutil.copytree(FIXTURES / "0.1.0/run", tmp_path / "run")
    (run,) = content_of(report_of(tmp_path / "run").render())["runs"]
    assert run["last_step"] and run["pictures"]["grids"] and run["tables"]


def damage(folder, name, content):
    (folder / name).write_bytes(content)


REFUSED = {
    "no run": (lambda run: (run / "config.json").unlink(), CheckpointError, "config.json"),
    "no folder": (lambda run: shutil.rmtree(run), CheckpointError, "job_dir"),
    "an empty config": (lambda run: damage(run, "config.json", b""), CheckpointError, "config.json"),
    "a config that is a list": (lambda run: damage(run, "config.json", b"[]"), CheckpointError, "config.json"),
    "a config that is cut": (lambda run: damage(run, "config.json", b'{"a": '), CheckpointError, "config.json"),
    "a folder of scalars": (
        lambda run: [(run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()],
        StorageError,
        "metrics.jsonl",
    ),
    "a folder of events": (
        lambda run: [(run / "events.jsonl").unlink(), (run / "events.jsonl").mkdir()],
        StorageError,
        "events.jsonl",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_read_is_refused(tmp_path, name):
    act, error, mention = REFUSED[name]
    folder = make_run(tmp_path / "run")
    act(folder)
    check_refusal(report_of(folder).render, error, str(folder), mention)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_of_a_run_cannot_become_part_of_the_page(tmp_path, text):
    """Every text that a run brings is hostile: names, settings, facts, scalars, and metrics."""
    clean = make_run(tmp_path / "clean")
    hostile = make_run(
        tmp_path / text.replace("/", "\u2215"),
        recipe=text,
        dataset=text,
        architecture_options={text: [text]},
        events=[
            start_at(START) | {"device": text, "weights": {text: text}, "version": text},
            {"event": "end", "time": START, "reason": text},
        ],
    )
    line = {"step": 201, f"metric/{text}": 1.0, f"loss/{text}": 2.0, text: 3.0, f"event/{text}": 1.0}
    with (hostile / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    for expected, found in (
        (report_of(clean).render(), report_of(hostile).render()),
        (comparison.render([report_of(clean)] * 2), comparison.render([report_of(clean), report_of(hostile)])),
    ):
        assert len(re.findall("<[!/a-z]", found.decode())) == len(re.findall("<[!/a-z]", expected.decode()))
        assert text in json.dumps(content_of(found), ensure_ascii=False).replace("\\", "")


def test_the_policy_of_the_page_forbids_requests_and_other_scripts(tmp_path):
    text = report_of(make_run(tmp_path / "run")).render().decode()
    policy = re.search('http-equiv="Content-Security-Policy" content="([^"]*)"', text)[1]
    assert "default-src &#x27;none&#x27;" in policy and "unsafe" not in policy
    assert text.index("Content-Security-Policy") < text.index("<script") and text.index("<meta charset") < 100
    assert not re.search(r"(?:src|href)=.?(?:https?:)?//", text)


def test_the_license_of_the_plotting_library_is_in_the_page(tmp_path):
    text = report_of(make_run(tmp_path / "run")).render().decode()
    assert "MIT License" in text and "Leon Sorokin" in text


def test_neighbors_are_shown_if_they_were_written(tmp_path):
    folder = make_run(tmp_path / "run")
    assert run_of(folder)["pictures"]["neighbors"] is None
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(folder / "neighbors.png")
    assert run_of(folder)["pictures"]["neighbors"].startswith("data:image/webp;base64,")


def test_unreadable_grids_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run")
    (folder / "samples/step-00000100.png").write_bytes(b"no picture")
    (folder / "samples/step-00000300.png").mkdir()
    (folder / "neighbors.png").write_bytes(b"")
    pictures = run_of(folder)["pictures"]
    assert [grid["step"] for grid in pictures["grids"]] == [0, 200] and pictures["neighbors"] is None


def test_a_picture_wider_than_webp_allows_is_reduced(tmp_path):
    Image.new("RGB", (20_022, 32)).save(tmp_path / "wide.png")
    content = base64.b64decode(Pictures().url(tmp_path / "wide.png").partition(",")[2])
    assert Image.open(io.BytesIO(content)).width == 16_383


def test_a_picture_is_encoded_once_until_it_changes(tmp_path, monkeypatch):
    path, pictures = tmp_path / "a.png", Pictures()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    first = pictures.url(path)
    with monkeypatch.context() as patch:
        patch.setattr("trainer.report.pictures.read_grid", None)
        assert pictures.url(path) == first
    Image.fromarray(np.full((9, 9, 3), 200, np.uint8)).save(path)
    assert pictures.url(path) != first


def test_of_many_grids_the_best_the_first_and_the_last_are_kept(tmp_path):
    folder = make_run(tmp_path / "run", grids=range(1, 452), evaluations={0: 5.0, 100: 1.0, 200: 2.0})
    steps = [grid["step"] for grid in run_of(folder)["pictures"]["grids"]]
    assert len(steps) <= 202 and {1, 100, 451} <= set(steps)


def test_pictures_that_leave_the_page_leave_memory(tmp_path, monkeypatch):
    encoded, references = [], []

    class Url(str):
        """A text with weak references."""

    def make_url(content):
        encoded.append(1)
        url = Url("data:")
        references.append(weakref.ref(url))
        return url

    monkeypatch.setattr("trainer.report.pictures.MAX_GRIDS", 4)
    monkeypatch.setattr("trainer.report.pictures._data_url", make_url)
    folder = make_run(tmp_path / "run", grids=(1, 2, 3, 4))
    report = report_of(folder)
    report.content()
    report.content()
    assert len(encoded) == 4
    shutil.copy(folder / "samples/step-00000004.png", folder / "samples/step-00000005.png")
    steps = [grid["step"] for grid in report.content()["pictures"]["grids"]]
    assert steps == [1, 3, 5] and len(encoded) == 5
    assert sum(reference() is not None for reference in references) == 3


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    folder = make_run(tmp_path / "run")
    report = report_of(folder)
    report.write()
    old = (folder / "report.html").read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", full)
        with pytest.raises(OSError):
            report.write()
    assert (folder / "report.html").read_bytes() == old
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_a_page_of_a_long_run_stays_under_20_mb(tmp_path):
    folder = make_run(tmp_path / "run", num_lines=100_000, every_steps=1, grids=())
    for step in range(200):
        noise = Image.effect_noise((662, 662), 80).convert("RGB")
        noise.save(folder / f"samples/step-{step:08d}.png", compress_level=0)
    rendered = report_of(folder).render()
    assert len(rendered) < 20e6
    assert len(content_of(rendered)["runs"][0]["pictures"]["grids"]) == 200


def test_a_comparison_shows_the_settings_that_differ(tmp_path):
    folders = [
        make_run(tmp_path / str(seed), seed=seed, loss="hinge", track=trackers)
        for seed, trackers in ((1, []), (2, ["mlflow"]))  # trackers have no effect on results
    ]
    content = content_of(comparison.render([report_of(folder) for folder in folders]))
    assert content["differing"] == ["seed"]
    assert [run["differing"] for run in content["runs"]] == [{"seed": "1"}, {"seed": "2"}]


@pytest.mark.parametrize(
    ("changes", "shape", "mentions"),
    [
        ({"dataset": "data/flowers"}, [28, 28, 1], ("data/flowers",)),
        ({"num_metric_samples": 50}, [28, 28, 1], ("frechet_digits_100", "frechet_digits_50")),
        ({}, [32, 32, 1], ("28×28×1", "32×32×1")),
    ],
    ids=["data", "protocol", "image size"],
)
def test_a_comparison_of_runs_with_different_metrics_says_so(tmp_path, changes, shape, mentions):
    events = [start_at(START) | {"image_shape": shape}]
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", events=events, **changes)]
    content = content_of(comparison.render([report_of(folder) for folder in folders]))
    assert all(mention in content["notice"] for mention in mentions)


def test_a_comparison_of_runs_with_the_same_metrics_has_no_notice(tmp_path):
    folders = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=3)]
    assert content_of(comparison.render([report_of(folder) for folder in folders]))["notice"] is None


def test_settings_of_different_versions_are_compared(tmp_path):
    folders = [make_run(tmp_path / "old"), make_run(tmp_path / "new", later_setting=3)]
    content = content_of(comparison.render([report_of(folder) for folder in folders]))
    assert content["differing"] == ["later_setting"]
    assert [run["differing"]["later_setting"] for run in content["runs"]] == [None, "3"]


SETTINGS = {
    "nothing": ({}, set()),
    "a number": ({"generator_learning_rate": 0.5}, {"generator_learning_rate"}),
    "a list": ({"penalties": ["r1"]}, {"penalties"}),
    "to none": ({"ema_half_life_images": None}, {"ema_half_life_images"}),
    "from none": ({"augment": "affine"}, {"augment"}),
    "open settings": ({"job_dir": "/x", "num_chunks": 3, "num_metric_samples": 77, "metrics": "digits"}, set()),
    "a setting of another version": ({"later_setting": 1}, set()),
    "a custom recipe": ({"recipe": "my.module:recipe", "loss": "hinge"}, set()),
    "an unknown recipe": ({"recipe": "of_another_version", "loss": "hinge"}, set()),
    "no recipe": ({"recipe": None}, set()),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_that_differ_from_the_recipe_are_marked(tmp_path, name):
    changes, expected = SETTINGS[name]
    folder = make_run(tmp_path / "run", steps=None)
    config = json.loads((folder / "config.json").read_text())
    config = {**config, "steps": recipes.get("digits").steps, **changes}
    write_config(folder, config)
    assert {row["name"] for row in settings_table(config, {}) if row["differs"]} == expected
    assert {row["name"] for row in run_of(folder)["settings"]} == config.keys() - {"recipe"}


def test_the_best_value_is_one_of_a_checkpoint(tmp_path):
    """A run that begins with the weights of another run may have its best value at step 0, without a checkpoint."""
    folder = make_run(tmp_path / "run", evaluations={0: 5.0, 100: 30.0, 200: 20.0})
    run = run_of(folder)
    assert (run["best_step"], run["pictures"]["best_grid"]) == (200, 200)
    (row,) = run["metrics"]
    assert (row["first"], row["best"], row["best_step"]) == (5.0, 20.0, 200)


def make_photo_run(folder, facts=None, recipe="photos", size="medium", **changes):
    """Writes a run of a recipe that chooses its settings by the data and the devices, and the event of its start."""
    context = recipes.RecipeContext(
        image_shape=(64, 48, 3), num_images=300, num_devices=2, has_gpu=True, device_memory_gib=15.0, size=size
    )
    config = recipes.get(recipe, context).to_dict() | {"dataset": "data/photos", "job_dir": str(folder)}
    facts = {"image_shape": [64, 48, 3], "device": "GPU", "device_memory_gib": 15.0} | (facts or {})
    start = start_at(START, num_devices=2) | {"num_images": 300} | facts
    return make_run(folder, events=[start], **(config | {"precision": "bfloat16"} | changes))


PHOTO_SETTINGS = {
    "choices only": ({}, set()),
    "another size": ({"size": "small"}, set()),
    "another recipe": ({"recipe": "r3gan"}, set()),
    "a constant setting": ({"loss": "hinge"}, {"loss"}),
    "a chosen setting": ({"global_batch_size": 6}, {"global_batch_size"}),
    "several": ({"steps": 7, "model": "conditional", "augment": None}, {"steps", "model", "augment"}),
}


@pytest.mark.parametrize("name", PHOTO_SETTINGS)
def test_settings_that_differ_from_the_choices_for_the_data_are_marked(tmp_path, name):
    changes, expected = PHOTO_SETTINGS[name]
    settings = run_of(make_photo_run(tmp_path / "run", **changes))["settings"]
    assert {row["name"] for row in settings if row["differs"]} == expected


def test_the_data_of_the_first_start_counts(tmp_path):
    folder = make_photo_run(tmp_path / "run")
    first = json.loads((folder / "events.jsonl").read_text())
    write_lines(folder / "events.jsonl", [first, first | {"step": 9, "num_images": 9, "num_devices": 1}])
    assert not any(row["differs"] for row in run_of(folder)["settings"])


UNKNOWN_FACTS = {
    "no size of the images": {"image_shape": None},
    "two sides": {"image_shape": [64, 48]},
    "a side of text": {"image_shape": ["64", 48, 3]},
    "a side of 0": {"image_shape": [0, 48, 3]},
    "images that no network takes": {"image_shape": [7, 7, 3]},
    "no images": {"num_images": 0},
    "too many images": {"num_images": 10**400},
    "a fraction of a device": {"num_devices": 0.5},
    "true": {"num_devices": True},
}


@pytest.mark.parametrize("name", UNKNOWN_FACTS)
def test_settings_are_unmarked_if_the_facts_are_unknown(tmp_path, name):
    settings = run_of(make_photo_run(tmp_path / "run", UNKNOWN_FACTS[name]))["settings"]
    assert settings and not any(row["differs"] or row["recipe"] for row in settings)


@pytest.mark.parametrize("size", ["huge", None, 3, [], {}])
def test_settings_are_unmarked_if_the_size_is_unknown(tmp_path, size):
    folder = make_photo_run(tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    write_config(folder, config | {"size": size})
    settings = run_of(folder)["settings"]
    assert settings and not any(row["differs"] or row["recipe"] for row in settings)


def test_the_module_of_a_custom_recipe_is_not_imported(tmp_path, monkeypatch):
    (tmp_path / "evil_recipe.py").write_text("raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = make_run(tmp_path / "run", recipe="evil_recipe:make")
    assert run_of(folder)["recipe"] == "evil_recipe:make"


def test_titles_are_escaped():
    text = page.render("<b>&\"'", {"kind": "run", "runs": []}).decode()
    assert "<title>&lt;b&gt;&amp;&quot;&#x27;</title>" in text


def test_a_local_page_is_found_by_its_name(tmp_path):
    report_of(make_run(tmp_path / "run")).write()
    assert (locate(tmp_path) / "run" / "report.html").exists()

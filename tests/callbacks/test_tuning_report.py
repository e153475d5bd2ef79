"""Metrics that a trial reports to its tuning job."""

import json
import types

import numpy as np
import pytest
import tensorflow as tf
from refusals import check_refusal

from trainer import metrics, models
from trainer.callbacks import TuningReport, tuning_report
from trainer.cloud.jobs.config_checks import reported_metrics
from trainer.errors import StorageError
from trainer.metrics.real_statistics import RealImages


def report(path, *evaluations, suite="digits", num_samples=5000):
    callback = TuningReport(path, "3", suite=suite, num_samples=num_samples)
    for step, values in evaluations:
        callback.set_model(types.SimpleNamespace(step=step))
        callback.on_train_batch_end(0, {"loss/generator": 1.0, **values})
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_every_evaluation_is_reported_in_the_format_of_the_service(tmp_path):
    path = tmp_path / "hypertune/output.metrics"
    lines = report(
        path,
        (0, {"metric/frechet_digits_5k": 300.5}),
        (10, {}),
        (20, {"metric/frechet_digits_5k": 12.25, "metric/conditional_accuracy": 0.5}),
    )
    assert [sorted(line) for line in lines[:1]] == [["checkpoint_path", "frechet", "global_step", "timestamp", "trial"]]
    assert [line.get("frechet") for line in lines] == ["300.5", "12.25", None]
    assert lines[2]["conditional_accuracy"] == "0.5" and lines[2]["global_step"] == "20" and lines[2]["trial"] == "3"


def test_nan_is_not_reported_and_a_resumed_trial_appends(tmp_path):
    path = tmp_path / "output.metrics"
    assert report(path, (1, {"metric/frechet_digits_5k": float("nan")})) == []
    report(path, *((step, {"metric/frechet_digits_5k": float(step)}) for step in range(70)))
    lines = report(path, *((step, {"metric/frechet_digits_5k": float(step)}) for step in range(70, 140)))
    assert len(lines) == 100 and [lines[0]["frechet"], lines[-1]["frechet"]] == ["40.0", "139.0"]
    assert "NaN" not in path.read_text()


def test_lines_that_cannot_be_written_are_written_later(tmp_path, trainer_log):
    path = tmp_path / "output.metrics"
    callback = TuningReport(path, "3")
    for step in range(4):
        if step == 1:
            path.unlink()
            path.mkdir()
        if step == 3:
            path.rmdir()
        callback.set_model(types.SimpleNamespace(step=step))
        callback.on_train_batch_end(0, {"metric/frechet_digits_5k": float(step)} if step < 3 else {})
    callback.on_train_end()
    assert [json.loads(line)["global_step"] for line in path.read_text().splitlines()] == ["0", "1", "2"]
    assert len(trainer_log.messages) == 1 and str(path) in trainer_log.text


def test_a_damaged_file_is_continued_and_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\0\n")
    callback = TuningReport(tmp_path / "a", "3", suite="digits", num_samples=5000)
    callback.set_model(types.SimpleNamespace(step=1))
    callback.on_train_batch_end(0, {"metric/frechet_digits_5k": 1.0})
    assert json.loads((tmp_path / "a").read_text().splitlines()[-1])["frechet"] == "1.0"
    (tmp_path / "b").mkdir()
    (tmp_path / "c").symlink_to("/dev/zero")
    for name in "bc":
        check_refusal(lambda name=name: TuningReport(tmp_path / name, "3"), StorageError, str(tmp_path / name))


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    with monkeypatch.context() as forbidden:
        forbidden.setattr(tuning_report.os, "access", lambda *_: False)
        check_refusal(lambda: TuningReport(tmp_path / "output.metrics", "3"), StorageError, str(tmp_path))
    (tmp_path / "file").touch()
    path = tmp_path / "file/hypertune/output.metrics"
    check_refusal(lambda: TuningReport(path, "3"), StorageError, str(path.parent))


@pytest.mark.parametrize(
    ("name", "suite", "num_samples", "expected"),
    [
        ("frechet_digits_5k", "digits", 5000, "frechet"),
        ("frechet_digits_5k", "digits", None, "frechet"),
        ("num_modes_stacked_26k", "stacked", 26_000, "num_modes"),
        ("kid_std_inception_50k", "inception", 50_000, "kid_std"),
        ("frechet_photos_512", "photos", 512, "frechet"),
        ("cycle_error_a", "cycle", None, "cycle_error_a"),
        ("conditional_accuracy", "digits", 5000, "conditional_accuracy"),
        ("error_at_10", "digits", 5000, "error_at_10"),
        ("frechet_of_1k", None, None, "frechet_of_1k"),
    ],
)
def test_a_tag_is_the_name_without_the_protocol(name, suite, num_samples, expected, tmp_path):
    (line,) = report(tmp_path / "metrics", (1, {f"metric/{name}": 1.0}), suite=suite, num_samples=num_samples)
    assert expected in line


def image_metric_names(name, frechet):
    """The names of the metrics of a suite for images of any kind."""

    def extract(images):
        means = tf.reduce_mean(tf.cast(images, tf.float32), axis=(1, 2))
        return means, means

    extract.name, extract.sha256, extract.feature_size, extract.frechet_name = name, "0" * 64, 3, frechet
    images = np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8)
    real = RealImages("fingerprint", 40, lambda: iter([images]))
    suite = metrics.get(name)(extract, real, 40, inception_score=True)
    return set(suite.evaluate_features(*map(np.asarray, extract(images)))) | set(suite.real_vs_real())


def test_a_tuning_job_may_name_exactly_the_reported_metrics(digits):
    images, labels = digits.images[:1000], digits.labels[:1000]
    stacked_suite = metrics.get("stacked")(np.repeat(images, 3, axis=-1), num_samples=1000)
    suite = metrics.get("digits")(images, num_samples=1000)
    outputs = suite.classifier.extract(images)
    digits_names = {
        *suite.evaluate_features(*outputs, labels),
        *suite.evaluate_features(*outputs, labels, labels_are_codes=True),
    }
    stacked_outputs = stacked_suite.extract_block(np.repeat(images, 3, axis=-1))
    stacked_names = {*stacked_suite.evaluate_features(*map(np.asarray, stacked_outputs), labels)}
    cycle_names = {*metrics.get("cycle")(images, images).real_vs_real()}
    paired_names = {*metrics.get("paired")(images, images).real_vs_real()}
    names_of = {"digits": digits_names, "stacked": stacked_names, "cycle": cycle_names, "paired": paired_names}
    for name, frechet in (("inception", "fid"), ("photos", "frechet")):
        names_of[name] = image_metric_names(name, frechet)
        assert "inception_score" not in reported_metrics(name, None)
    counts = {"digits": 1000, "stacked": 1000, "inception": 40, "photos": 40}
    for suite, names in names_of.items():
        count, reported = counts.get(suite), set(reported_metrics(suite, None, inception_score=True))
        assert {metrics.without_protocol(name, suite, count) for name in names} - {"kid_std"} == reported
        assert metrics.without_protocol(metrics.monitor_name(suite, count), suite, count) in reported
    assert names_of.keys() == set(metrics.names()) and reported_metrics("none", None) == ()


@pytest.mark.parametrize("model", models.MODELS.names())
def test_an_accuracy_is_reported_by_models_whose_samples_have_labels(model):
    model_class = models.MODELS[model]
    has_labels = model_class.sample_labels is not models.GAN.sample_labels
    names = set() if not has_labels else {"code_accuracy" if model_class.labels_are_codes else "conditional_accuracy"}
    assert {name for name in reported_metrics("digits", model) if name.endswith("_accuracy")} == names

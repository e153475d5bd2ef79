"""Settings that depend on the machine: a new run chooses them, and a resumed run keeps them."""

import numpy as np
import pytest
import tensorflow as tf

from trainer import metrics
from trainer.config import TrainConfig
from trainer.data.tfrecord_writer import write_prepared
from trainer.environment import Environment
from trainer.metrics import inception_weights
from trainer.training.complete_config import with_machine_settings
from trainer.training.distributed.cluster import parse_cluster
from trainer.training.run_state import shared_fingerprint
from trainer.training.stored_run import monitor_of

TRIAL = Environment(trial_id="1", metric_file="/tmp/output.metrics")
CLUSTER = Environment(
    cluster=parse_cluster(
        '{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "chief", "index": 0}}', None
    )
)


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """Returns a function that sets what the machine has."""

    def change(is_cached=False, num_gpus=0):
        monkeypatch.setattr(inception_weights, "is_cached", lambda: is_cached)
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda _: ["GPU"] * num_gpus)

    change()
    return change


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Folders of datasets, by number of images."""
    folders = {}
    for num_images in (11, 12):
        folders[num_images] = str(tmp_path_factory.mktemp(f"photos{num_images}"))
        images, labels = np.zeros((num_images, 4, 4, 3), np.uint8), np.arange(num_images) % 2
        texts = {"name": "photos", "source": "", "license": "", "attribution": ""}
        write_prepared(folders[num_images], images, labels, list("ab"), **texts)
    return folders


def choose(environment=None, stored=None, **settings):
    config = with_machine_settings(TrainConfig(**settings), environment or Environment(), stored)
    return config.metrics, config.num_metric_samples


@pytest.mark.parametrize(
    ("settings", "has", "expected"),
    [
        ({"dataset": "digits"}, {}, ("digits", 5000)),
        ({"dataset": "digits"}, {"is_cached": True, "num_gpus": 1}, ("digits", 5000)),
        ({"dataset": "stacked:digits"}, {}, ("stacked", 26_000)),
        ({"dataset": "digits", "dataset_b": "digits", "model": "cyclegan"}, {}, ("cycle", None)),
        ({"dataset": "cifar10"}, {}, ("photos", 5000)),
        ({"dataset": "cifar10"}, {"num_gpus": 2}, ("photos", 5000)),
        ({"dataset": "cifar10"}, {"is_cached": True}, ("inception", 5000)),
        ({"dataset": "cifar10"}, {"is_cached": True, "num_gpus": 1}, ("inception", 50_000)),
        ({"dataset": "cifar10", "inception_weights": "download"}, {"num_gpus": 1}, ("inception", 50_000)),
        ({"dataset": "cifar10", "metrics": "photos"}, {"is_cached": True}, ("photos", 5000)),
        ({"dataset": "cifar10", "metrics": "none"}, {"is_cached": True}, ("none", None)),
        ({"dataset": "cifar10", "num_metric_samples": 700}, {}, ("photos", 700)),
        ({"dataset": "digits", "num_metric_samples": 700}, {}, ("digits", 700)),
    ],
)
def test_a_new_run_chooses_by_data_and_machine(machine, settings, has, expected):
    machine(**has)
    assert choose(**settings) == expected


@pytest.mark.parametrize("environment", [TRIAL, CLUSTER])
def test_machines_that_must_choose_alike_do_not_look_in_their_caches(machine, environment):
    machine(is_cached=True)
    assert choose(environment, dataset="cifar10") == ("photos", 5000)
    assert choose(environment, dataset="cifar10", inception_weights="download") == ("inception", 5000)


@pytest.mark.parametrize(
    ("settings", "stored", "expected"),
    [
        ({}, {"metrics": "photos", "num_metric_samples": 5000}, ("photos", 5000)),
        ({}, {"metrics": "inception", "num_metric_samples": 5000}, ("inception", 5000)),
        ({"metrics": "inception"}, {"metrics": "inception", "num_metric_samples": 5000}, ("inception", 5000)),
        ({"num_metric_samples": 99}, {"metrics": "inception", "num_metric_samples": 5000}, ("inception", 99)),
        ({"metrics": "photos"}, {"metrics": "inception", "num_metric_samples": 700}, ("photos", 5000)),
        ({"metrics": "none"}, {"metrics": "inception", "num_metric_samples": 700}, ("none", None)),
        ({}, {"metrics": "none"}, ("none", None)),
        ({}, {"metrics": "photos", "dataset": "digits"}, ("inception", 50_000)),
        ({"dataset": "digits"}, {"metrics": "digits", "dataset": "digits"}, ("digits", 5000)),
    ],
)
def test_a_resumed_run_keeps_its_suite_and_number_on_any_machine(machine, settings, stored, expected):
    machine(is_cached=True, num_gpus=1)
    assert (
        choose(stored=TrainConfig(**{"dataset": "cifar10"} | stored), **{"dataset": "cifar10"} | settings) == expected
    )


@pytest.mark.parametrize(
    ("num_images", "settings", "suite"),
    [
        (12, {}, "photos"),
        (11, {}, "none"),
        (12, {"classes": (1,)}, "none"),
        (12, {"balance_classes": True, "classes": (0,)}, "none"),
        (11, {"inception_weights": "download"}, "none"),
        (11, {"metrics": "photos"}, "photos"),
    ],
)
def test_auto_evaluates_nothing_for_too_few_images(photos, trainer_log, num_images, settings, suite):
    assert choose(dataset=photos[num_images], **settings)[0] == suite
    assert ("12" in trainer_log.text) == (suite == "none")


@pytest.mark.parametrize(
    ("suite", "num_samples", "expected"),
    [
        ("digits", None, "metric/frechet_digits_5k"),
        ("digits", 512, "metric/frechet_digits_512"),
        ("stacked", None, "metric/kl_stacked_26k"),
        ("cycle", None, "metric/cycle_error"),
        ("inception", None, "metric/fid_inception_5k"),
        ("inception", 50_000, "metric/fid_inception_50k"),
        ("photos", 5000, "metric/frechet_photos_5k"),
        ("photos", 1500, "metric/frechet_photos_1500"),
        ("none", None, None),
    ],
)
def test_the_metric_of_the_best_checkpoint_names_the_protocol(suite, num_samples, expected):
    assert monitor_of(TrainConfig(metrics=suite, num_metric_samples=num_samples)) == expected


@pytest.mark.parametrize(
    ("suite", "expected"),
    [
        ("digits", "recall_digits_700"),
        ("photos", "recall_photos_700"),
        ("inception", "recall_inception_700"),
        ("stacked", None),
        ("cycle", None),
    ],
)
def test_suites_with_a_recall_name_it(suite, expected):
    assert metrics.recall_name(suite, 700) == expected


@pytest.mark.parametrize(
    ("changes", "is_shared"),
    [
        ({"metrics": "photos"}, True),
        ({"num_metric_samples": 700}, True),
        ({"inception_score": True, "metrics": "photos"}, True),
        ({"evaluate_every_steps": 7}, True),
        ({"stop_on_collapse": True}, True),
        ({"latent_dim": 7}, True),
        ({"job_dir": "run"}, False),
        ({"cache_mib": 7.0}, False),
        ({"inception_weights": "download"}, False),
        ({"sample_every_steps": 7}, False),
    ],
)
def test_machines_must_share_the_settings_of_steps_and_evaluations(changes, is_shared):
    assert (shared_fingerprint(TrainConfig(**changes)) != shared_fingerprint(TrainConfig())) == is_shared

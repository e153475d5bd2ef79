"""The forms of `init_from`, without TensorFlow."""

import os

import pytest
from refusals import check_refusal

from trainer.config import TrainConfig
from trainer.config.source_run import SourceRun, check_source_run
from trainer.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "resolved"),
    [
        ("runs/a", "runs/a@best"),
        ("runs/a/", "runs/a@best"),
        ("runs/a@best", "runs/a@best"),
        ("runs/a@latest", "runs/a@latest"),
        ("runs/a@0001000", "runs/a@1000"),
        ("runs/a/@0", "runs/a@0"),
        ("best", "best@best"),
        ("runs/me@home", "runs/me@home@best"),
        ("runs/me@home@latest", "runs/me@home@latest"),
        ("runs/a@5/", "runs/a@5@best"),
        ("runs/a@newest", "runs/a@newest@best"),
        ("runs/a@1e3", "runs/a@1e3@best"),
        ("runs/a@" + "9" * 19, "runs/a@" + "9" * 19 + "@best"),
        ("gs://bkt/run", "gs://bkt/run@best"),
        ("gs://bkt/run@7", "gs://bkt/run@7"),
        ("/gcs/bkt/run@7", "gs://bkt/run@7"),
        ("~/run@7", os.path.expanduser("~/run@7")),
    ],
)
def test_a_text_names_a_run_and_a_checkpoint(text, resolved):
    source = SourceRun.parse(text)
    assert str(source) == resolved
    assert SourceRun.parse(resolved) == source


@pytest.mark.parametrize(
    ("config", "mentions"),
    [
        ({"init_from": "runs/a", "job_dir": "runs/a"}, ("init_from=runs/a", "job_dir=runs/a")),
        ({"init_from": "runs/a@4", "job_dir": "./runs/../runs/a/"}, ("init_from=runs/a@4", "job_dir")),
        ({"init_from": "runs/a/checkpoints", "job_dir": os.path.abspath("runs/a")}, ("init_from", "job_dir")),
        ({"init_from": "gs://bkt/a@latest", "job_dir": "gs://bkt//a"}, ("init_from=gs://bkt/a@latest", "job_dir")),
        ({"init_from": "/gcs/bkt/a", "job_dir": "gs://bkt/a"}, ("init_from", "job_dir")),
        ({"init_from": "s3://b/a"}, ("s3://b/a",)),
        ({"freeze_discriminator_layers": 2}, ("freeze_discriminator_layers=2", "init_from")),
    ],
)
def test_settings_that_begin_with_nothing_new_are_refused(config, mentions):
    check_refusal(lambda: check_source_run(TrainConfig(**config)), ConfigError, *mentions)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"init_from": "runs/a", "job_dir": "runs/ab"},
        {"init_from": "runs/a", "job_dir": "runs/a/next"},
        {"init_from": "gs://bkt/a", "job_dir": "gs://bkt-c/a", "freeze_discriminator_layers": 9},
        {"init_from": "gs://bkt/a", "job_dir": "bkt/a"},
    ],
)
def test_a_run_beside_its_source_is_accepted(config):
    check_source_run(TrainConfig(**config))

"""Metrics in the logs have a prefix, which every part of the package reads and writes alike."""

import re
from pathlib import Path

import trainer
from trainer.metrics.log_names import is_metric, log_name, own_name


def test_the_name_in_the_logs_and_the_own_name_are_inverse():
    assert log_name("frechet") == "metric/frechet"  # as in the files of earlier versions
    assert own_name(log_name("frechet")) == own_name("frechet") == "frechet"
    assert is_metric(log_name("frechet")) and not any(map(is_metric, ("frechet", "loss/frechet", 7, None)))


def test_the_prefix_is_spelled_in_one_module():
    files = Path(trainer.__file__).parent.rglob("*.py")
    spelled = [file.name for file in files if re.search(r"""f?["']metric/""", file.read_text(encoding="utf-8"))]
    assert spelled == ["log_names.py"]

"""All benchmarks are commands with the conventions of `trainer.cli.app`."""

import importlib
from pathlib import Path

import pytest

import benchmarks

NAMES = sorted(
    path.stem
    for path in Path(benchmarks.__file__).parent.glob("*.py")
    if "__main__" in path.read_text(encoding="utf-8") and path.stem != "worker"
)


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_has_help_and_refuses_unknown_flags_with_a_sentence(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    assert module.main([name, "--help"]) == 0
    assert module.__doc__.strip() in capsys.readouterr().out
    assert module.main([name, "--no_such_flag=1"]) == 2
    assert "no_such_flag" in capsys.readouterr().err

"""The notebook in examples/ runs from its first cell to its last one, and shows what it promises."""

import os
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parent.parent / "examples/train_and_explore.ipynb"


def test_the_notebook_is_stored_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if "outputs" in cell)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_notebook_runs(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", f"{NOTEBOOK.parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("STEPS", "20")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [[kind for output in cell.outputs for kind in output.get("data", {})] for cell in notebook.cells[1::2]]
    assert all(output.get("name") != "stderr" for output in notebook.cells[1].outputs)  # no log of TensorFlow
    assert (tmp_path / "walk.gif").stat().st_size > 10_000
    pictures = [kinds for kinds in shown if {"image/png", "image/gif"} & set(kinds)]
    assert len(pictures) == 4, shown  # data, training, samples, walk

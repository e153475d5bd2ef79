"""Paths, classes and conditions in tables: every table with the same values has the same reading."""

import io
import subprocess

import numpy as np
import pytest
from PIL import Image

from trainer import __main__ as commands
from trainer.data.datasets import describe
from trainer.data.prepare.sources import open_source
from trainer.data.prepare.sources.conditions import ConditionedSource
from trainer.errors import DataError


def png(number):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(number).integers(0, 256, (4, 4, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("cats/0.png", "cats/1.png", "dogs/2.png")):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(png(number))
    return tmp_path / "set"


def labels_of(source):
    return {item.name.removeprefix("./"): source.class_names[item.label] for item in source.items}


@pytest.mark.parametrize("use", ["source", "metadata", "conditions"])
def test_spaces_and_separators_of_windows_are_read_in_every_table(use, folder):
    table = folder / ("metadata.csv" if use == "metadata" else "table.csv")
    table.write_text("label , file_name\n 1, cats\\0.png\n2 , .\\cats\\1.png \n 1 ,././dogs/2.png\n")
    if use == "conditions":
        with open_source(str(folder)) as source:
            labels = labels_of(ConditionedSource(source, str(table)))
    else:
        with open_source(str(table if use == "source" else folder)) as source:
            labels = labels_of(source)
    assert labels == {"cats/0.png": "1", "cats/1.png": "2", "dogs/2.png": "1"}


COMPOSED, DECOMPOSED = "caf\u00e9/1.png", "cafe\u0301/1.png"


@pytest.mark.parametrize("use", ["source", "metadata", "conditions"])
@pytest.mark.parametrize("in_folder", [(COMPOSED,), (DECOMPOSED,), (COMPOSED, DECOMPOSED)])
def test_names_are_found_in_both_forms_of_unicode(use, in_folder, tmp_path):
    for number, name in enumerate(in_folder):
        (tmp_path / "set" / name).parent.mkdir(parents=True)
        (tmp_path / "set" / name).write_bytes(png(number))
    table = tmp_path / "set" / ("metadata.csv" if use == "metadata" else "table.csv")
    listed = in_folder if len(in_folder) == 2 else [{COMPOSED: DECOMPOSED, DECOMPOSED: COMPOSED}[in_folder[0]]]
    table.write_text("file_name,label\n" + "\n".join(f"{name},{number}" for number, name in enumerate(listed)))
    if use == "conditions":
        with open_source(str(tmp_path / "set")) as source:
            labels = labels_of(ConditionedSource(source, str(table)))
    else:
        with open_source(str(table if use == "source" else tmp_path / "set")) as source:
            labels = labels_of(source)
            assert len({source.read(index) for index in range(len(source.items))}) == len(in_folder)
    assert labels == {name: str(number) for number, name in enumerate(in_folder)}


def test_a_column_of_paths_that_occurs_twice_is_refused(folder):
    (folder / "table.csv").write_text("path,path\ncats/0.png,cats/1.png\n")
    with pytest.raises(DataError, match="path"), open_source(str(folder / "table.csv")):
        pass


@pytest.mark.parametrize("place", [".", "cats"])
def test_labels_are_found_in_a_tar_of_the_current_folder(place, folder, tmp_path):
    if place == "cats":
        (folder / "dogs/2.png").unlink()
        (folder / "cats/metadata.csv").write_text("file_name,label\n0.png,a\n./1.png,b\n")
    else:
        (folder / "metadata.csv").write_text("file_name,label\ncats/0.png,a\ncats/1.png,b\ndogs/2.png,a\n")
    subprocess.run(["tar", "cf", tmp_path / "set.tar", "-C", folder, "."], check=True)
    with open_source(str(tmp_path / "set.tar")) as source:
        assert labels_of(source) == {"cats/0.png": "a", "cats/1.png": "b"} | (
            {"dogs/2.png": "a"} if place == "." else {}
        )


def test_vectors_that_float32_does_not_distinguish_are_one(folder):
    (folder / "table.csv").write_text(
        "file_name,x,y\ncats/0.png,0.1,0\ncats/1.png,0.10000000001,0\ndogs/2.png,0.2,-0\n"
    )
    with open_source(str(folder)) as source:
        conditioned = ConditionedSource(source, str(folder / "table.csv"))
    assert len(set(conditioned.class_names)) == len(conditioned.class_names) == 2
    assert [item.label for item in conditioned.items] == [0, 0, 1]


def test_conditions_need_no_classes(tmp_path):
    (tmp_path / "deep" / "sub").mkdir(parents=True)
    for number, name in enumerate(("r0.png", "sub/s0.png")):
        (tmp_path / "deep" / name).write_bytes(png(number))
    (tmp_path / "deep.csv").write_text("file_name,x\nr0.png,0\nsub/s0.png,1\n")
    out = tmp_path / "out"
    flags = [f"--source={tmp_path}/deep", f"--conditions={tmp_path}/deep.csv", f"--out={out}", "--num_workers=1"]
    assert commands.main(["trainer", "prepare", *flags]) == 0
    assert describe(str(out)).class_names == ("0", "1")

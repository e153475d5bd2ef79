"""The model card says what was trained, and no text of a run acts as Markdown."""

import re
import types

import numpy as np
import pytest
import yaml
from report_runs import MONITOR, START, make_run, start_at

from trainer.config.choices import ModelFormat
from trainer.errors import CheckpointError
from trainer.report.model_card import MODEL_CARD, card_files
from trainer.storage import RunDirectory

GAN = types.SimpleNamespace(num_classes=0, sample_grid=lambda rows, columns: np.zeros((8, 8, 1), np.uint8))
INPUTS = {"latents": (8,)}


def card_of(folder, *, gan=GAN, model_format=ModelFormat.ONNX, step=100, inputs=INPUTS):
    files = card_files(RunDirectory(folder), gan, model_format, step, inputs)
    return files.pop(MODEL_CARD).decode(), files


def rows_of(card, heading):
    """Returns the cells of the table below a heading."""
    section = card.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_a_card_has_the_metrics_of_its_step(tmp_path):
    card, files = card_of(make_run(tmp_path / "run"))
    name = MONITOR.removeprefix("metric/").replace("_", r"\_")
    (row,) = rows_of(card, "Metrics")
    assert row[:4] == [name, "20", "20", "lower"]
    assert "100" in card.partition("## Metrics")[2].partition("|")[0]  # the number of images
    assert rows_of(card_of(tmp_path / "run", step=50)[0], "Metrics")[0][1:3] == ["", "20"]
    assert files["samples.png"].startswith(b"\x89PNG") and "(samples.png)" in card


def test_a_card_separates_the_data_from_the_training(tmp_path):
    card, _ = card_of(make_run(tmp_path / "run"))
    data, training = ({row[0] for row in rows_of(card, heading)} for heading in ("Data", "Training"))
    assert data == {"Dataset", "Images", "Image size"} and "Devices" in training and not data & training


@pytest.mark.parametrize(("classes", "row"), [((0, 1, 2), "0 cat, 1 dog, 2 owl"), ((0, 2), "0 cat, 2 owl")])
def test_a_card_names_the_numbers_of_the_classes(classes, row, tmp_path):
    gan = types.SimpleNamespace(
        num_classes=3,
        classes=np.array(classes),
        labels_are_codes=False,
        conditions=None,
        sample_grid=GAN.sample_grid,
    )
    start = start_at(START) | {"class_names": ["cat", "dog", "owl"]}
    inputs = {"latents": (8,), "labels": ()}
    card, _ = card_of(make_run(tmp_path / "run", events=[start]), gan=gan, inputs=inputs)
    assert dict(rows_of(card, "Data"))["Classes"] == row
    codes = types.SimpleNamespace(**vars(gan) | {"labels_are_codes": True})
    assert "Classes" not in dict(rows_of(card_of(tmp_path / "run", gan=codes, inputs=inputs)[0], "Data"))


def test_a_card_has_the_settings_without_private_ones(tmp_path):
    card, _ = card_of(make_run(tmp_path / "run", seed=7))
    settings = {row[0]: row[1:] for row in rows_of(card, "Settings")}
    assert settings["seed"][0] == "7" and settings["seed"][1] != "" and r"job\_dir" not in settings
    assert str(tmp_path) not in card


@pytest.mark.parametrize("model_format", ModelFormat)
@pytest.mark.parametrize(("model", "task"), [("gan", "unconditional-image-generation"), ("cyclegan", "image-to-image")])
def test_the_front_matter_is_that_of_hugging_face(model_format, model, task, tmp_path):
    card, _ = card_of(make_run(tmp_path / "run", model=model), model_format=model_format)
    values = yaml.safe_load(card.split("---\n")[1])
    assert values["pipeline_tag"] == task and values["license"] == "other" and values["library_name"]


@pytest.mark.parametrize(("size", "has_truncation"), [(8, False), (9, True)])
def test_the_latents_of_an_example_have_no_truncation(size, has_truncation, tmp_path):
    config = {"model": "stylegan2" if has_truncation else "gan", "latent_dim": 8}
    card, _ = card_of(make_run(tmp_path / "run", **config), inputs={"latents": (size,)})
    (line,) = [line for line in card.splitlines() if line.strip().startswith('"latents"')]
    latents = eval(line.strip().rstrip(",").partition(": ")[2], {"np": np})
    assert latents.shape == (16, size) and latents.dtype == np.float32
    assert (latents[:, -1] == 1).all() == has_truncation and latents.std() > 0.5


HOSTILE = [
    "a|b|c",
    "<script>alert(1)</script>",
    "![x](https://example.com/x.png)",
    "[x](javascript:alert(1))",
    "`code` **bold** ~~gone~~ $x$ @user",
    "line\n# heading\n---\n",
    "\x1b[31mred\u202e",
    "&lt;b&gt; https://example.com www.example.com",
    "```python\n```",
]


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", ["dataset", "recipe", "architecture"])
def test_text_of_a_run_is_no_markdown(name, text, tmp_path):
    plain, _ = card_of(make_run(tmp_path / "plain"))
    card, _ = card_of(make_run(tmp_path / "run", **{name: text}))
    assert len(rows_of(card, "Data")) == len(rows_of(plain, "Data"))
    assert {len(row) for row in rows_of(card, "Settings")} == {3}
    assert card.count("\n#") == plain.count("\n#") and card.count("```") == plain.count("```") == 2
    outside = "".join(card.split("```")[::2]).partition("# Generator")[2]
    outside = outside.replace("![Samples of the model](samples.png)", "")
    assert not re.search(r"(?<!\\)[<>`*\[\]~$@&]|https?:|www\.", outside)
    assert all(character.isprintable() or character == "\n" for character in card)


def test_a_translator_without_images_has_no_picture(tmp_path):
    gan = types.SimpleNamespace(num_classes=0, num_grid_images=0)
    card, files = card_of(make_run(tmp_path / "run", model="cyclegan"), gan=gan, inputs={"images": (8, 8, 3)})
    assert files == {} and "samples.png" not in card


def test_a_run_without_evaluations_has_a_card(tmp_path):
    card, _ = card_of(make_run(tmp_path / "run", evaluations={}))
    assert rows_of(card, "Metrics") == []


def test_a_folder_without_a_run_has_no_card(tmp_path):
    with pytest.raises(CheckpointError):
        card_of(tmp_path)

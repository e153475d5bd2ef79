"""The `MODEL_CARD.md` beside an exported model, in Markdown with the front matter of Hugging Face."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from trainer import __version__
from trainer.config.choices import LatentDistribution, ModelFormat
from trainer.errors import escape, shorten
from trainer.image_io import png
from trainer.metrics.log_names import own_name
from trainer.report.run_report import RunReport
from trainer.storage import RunDirectory

if TYPE_CHECKING:
    from trainer.models import GAN

MODEL_CARD = "MODEL_CARD.md"
_SAMPLES = "samples.png"
_GRID_SIDE = 8
_LIBRARIES = {ModelFormat.SAVED_MODEL: "tensorflow", ModelFormat.LITERT: "tflite"}
"""Library in the front matter, where it is not the name of the format."""
_PRIVATE_SETTINGS = ("job_dir", "inception_weights")
_TRANSLATORS, _INFOGAN = ("cyclegan", "pix2pix"), "infogan"
_FACTS_HEADER = ("Property", "Value")
_CLASSES = "Classes"
_DATA_FACTS = ("Images", "Image size", _CLASSES)
"""Names of the facts of a run that describe its data. The others describe its training."""
_GOALS = {"MINIMIZE": "lower", "MAXIMIZE": "higher", None: ""}
_MARKUP = re.compile(r"[\\`*_\[\]<>|~$@&#:]|(?<=[A-Za-z])\.")
"""Characters that have a meaning inside a line of Markdown, HTML or mathematics, or that make a word a link."""


def card_files(
    directory: RunDirectory, gan: "GAN", model_format: ModelFormat, step: int, inputs: Mapping[str, Sequence[int]]
) -> dict[str, bytes]:
    """Returns the card of a model and the picture of samples that it shows, by name.

    Args:
        directory: Open directory of the run.
        gan: Compiled GAN with the weights of the model. An image translator without images gets no picture.
        model_format: Format of the model.
        step: Step of the exported checkpoint.
        inputs: Shape of each input of the model, without the number of images.

    Raises:
        CheckpointError: If the directory has no run.
        StorageError: If a file of the run cannot be read.
    """
    run = RunReport(directory).training_facts(step)
    has_samples = getattr(gan, "num_grid_images", 1) > 0
    label = int(gan.classes[0]) if gan.num_classes else 0
    facts = [*run["facts"], *_classes(gan, run["class_names"])]
    files = {MODEL_CARD: _render(run | {"facts": facts}, model_format, step, inputs, label, has_samples=has_samples)}
    return files | ({_SAMPLES: png(gan.sample_grid(_GRID_SIDE, _GRID_SIDE))} if has_samples else {})


def _classes(gan: "GAN", names: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the fact with the number and the name of each class that the model takes as a label, if it takes any."""
    if not gan.num_classes or gan.labels_are_codes or gan.conditions is not None:
        return []
    named = [f"{number} {names[number]}" for number in gan.classes.tolist() if number < len(names)]
    return [(_CLASSES, ", ".join(named))] if named else []


def _render(
    run: Mapping[str, Any],
    model_format: ModelFormat,
    step: int,
    inputs: Mapping[str, Sequence[int]],
    label: int,
    *,
    has_samples: bool,
) -> bytes:
    config = run["config"]
    is_translator = config.get("model") in _TRANSLATORS
    sections = [
        _front_matter(model_format, is_translator),
        f"# Generator of the recipe {_text(config.get('recipe'))}",
        f"The generator of a generative adversarial network at step {step:,} of its training with gan-trainer "
        f"{_text(__version__)}. It "
        + ("translates images." if is_translator else "generates each image from random numbers, the latents."),
        *([f"![Samples of the model]({_SAMPLES})"] if has_samples else []),
        "## Use",
        *_usage(config, model_format, inputs, label),
        "## Data",
        *_data(config, run["facts"]),
        "## Training",
        _table(_FACTS_HEADER, _escaped(row for row in run["facts"] if row[0] not in _DATA_FACTS)),
        "## Metrics",
        *_metrics(config, run["metrics"], step),
        "## Limits",
        "\n".join(_limits(is_translator, has_labels="labels" in inputs)),
        "## Settings",
        "The last column is the value of the recipe where the run used another one.",
        _settings_table(run["settings"]),
    ]
    return ("\n\n".join(sections) + "\n").encode()


def _front_matter(model_format: ModelFormat, is_translator: bool) -> str:
    task = "image-to-image" if is_translator else "unconditional-image-generation"
    library = _LIBRARIES.get(model_format, model_format)
    return "\n".join(
        [
            "---",
            "license: other  # FILL IN: the license of the model, such as apache-2.0",
            f"library_name: {library}",
            f"pipeline_tag: {task}",
            "tags:",
            "- gan",
            "- gan-trainer",
            "---",
        ]
    )


_SNIPPETS = {
    ModelFormat.SAVED_MODEL: """import numpy as np
import tensorflow as tf

generator = tf.saved_model.load(".").signatures["serving_default"]
inputs = {{
{inputs}
}}
images = generator(**{{name: tf.constant(value) for name, value in inputs.items()}})["images"].numpy()""",
    ModelFormat.KERAS: """import keras
import numpy as np
import trainer  # defines the layers; it is in the package gan-trainer

generator = keras.saving.load_model("generator.keras")
inputs = {{
{inputs}
}}
images = generator.predict(inputs)""",
    ModelFormat.ONNX: """import numpy as np
import onnxruntime

generator = onnxruntime.InferenceSession("generator.onnx")
inputs = {{
{inputs}
}}
images = generator.run(None, inputs)[0]""",
    ModelFormat.LITERT: """import numpy as np
from ai_edge_litert.interpreter import Interpreter

generator = Interpreter("generator.tflite").get_signature_runner("serving_default")
inputs = {{
{inputs}
}}
images = next(iter(generator(**inputs).values()))""",
}
_VALUES = {
    "latents": "np.random.default_rng(0).{distribution}(size={shape}).astype(np.float32)",
    "labels": "np.full({shape}, {label}, np.int32)",
    "conditions": "np.zeros({shape}, np.float32)",
    "images": "np.zeros({shape}, np.uint8)",
}
_NUM_IMAGES = 16
_LATENTS_WITH_TRUNCATION = (
    "np.pad(np.random.default_rng(0).{distribution}(size={shape}), ((0, 0), (0, 1)), constant_values=1)"
    ".astype(np.float32)"
)
"""Latents of StyleGAN2, which have the truncation after them."""


def _usage(
    config: Mapping[str, Any], model_format: ModelFormat, inputs: Mapping[str, Sequence[int]], label: int
) -> Iterator[str]:
    distribution = "uniform" if config.get("latent_distribution") == LatentDistribution.UNIFORM else "normal"
    templates = {name: _VALUES["conditions" if name == "labels" and shape else name] for name, shape in inputs.items()}
    size = config.get("latent_dim")
    takes_truncation = isinstance(size, int) and [*inputs.get("latents", ())] == [size + 1]
    if has_truncation := takes_truncation and config.get("model") != _INFOGAN:
        inputs, templates["latents"] = {**inputs, "latents": (size or 0,)}, _LATENTS_WITH_TRUNCATION
    values = "\n".join(
        f'    "{name}": {templates[name].format(shape=(_NUM_IMAGES, *shape), label=label, distribution=distribution)},'
        for name, shape in inputs.items()
    )
    yield f"```python\n{_SNIPPETS[model_format].format(inputs=values)}\n```"
    if has_truncation:
        yield "The last latent of each image is the truncation psi, from 0 to 1; 1 is without truncation."
    if config.get("model") == _INFOGAN:
        yield "The last latents are the continuous codes, which were uniform in [-1, 1) during training."
    yield "The images are 8-bit, with the axes N, height, width, and channels."


def _data(config: Mapping[str, Any], facts: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield _table(
        _FACTS_HEADER, _escaped([("Dataset", config.get("dataset")), *(row for row in facts if row[0] in _DATA_FACTS)])
    )
    yield "License of the data: FILL IN"


def _escaped(rows: Iterable[tuple[str, Any]]) -> list[tuple[str, str]]:
    """Returns rows of names and values as texts for a table."""
    return [(name, _text(value)) for name, value in rows]


def _metrics(config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], step: int) -> Iterator[str]:
    if not rows:
        yield "The run was not evaluated."
        return
    count = config.get("num_metric_samples")
    yield (
        f"Measured with the suite {_text(config.get('metrics'))}"
        + (f" on {count:,} generated images" if isinstance(count, int) else "")
        + ", without truncation. Compare values only with those of the same suite, the same number of images, and the "
        "same data. The last column shows what real images reach."
    )
    header = ("Metric", f"Step {step:,}", "Best of the run", "Better", "Real images")
    yield _table(
        header,
        [
            (
                _text(own_name(row["name"])),
                *(_number(row[key]) for key in ("value", "best")),
                _GOALS[row["goal"]],
                _number(row["real_vs_real"]),
            )
            for row in rows
        ],
    )


def _limits(is_translator: bool, *, has_labels: bool) -> Iterator[str]:
    yield "- The model has learned the content, the gaps, and the biases of its training data."
    yield "- It may reproduce training images. The command evaluate of gan-trainer shows those nearest to samples."
    yield "- All images have the size of the training images."
    if is_translator:
        yield "- It translates images of the kind that it was trained on, and other images arbitrarily."
    if has_labels:
        yield "- It makes images of the classes of its training data only."


def _settings_table(rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [row for row in rows if row["name"] not in _PRIVATE_SETTINGS]
    return _table(
        ("Setting", "Value", "Recipe"),
        [(_text(row["name"]), _text(row["value"]), _text(row["recipe"]) if row["differs"] else "") for row in shown],
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table of texts that are already escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _text(value: Any) -> str:
    """Returns a value as one line without any Markdown or HTML."""
    text = value if isinstance(value, str) else json.dumps(value)
    return _MARKUP.sub(r"\\\g<0>", " ".join(escape(shorten(text)).split()))

"""The `evaluate` command."""

import itertools
import logging
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from absl import flags as absl_flags

from trainer.cli import app
from trainer.cli.image_flags import check_resize, define_image_size, define_resize, parse_image_size
from trainer.config import TrainConfig, flags as config_flags
from trainer.config.choices import MetricSuite
from trainer.config.compatibility import check_metrics
from trainer.config.dataset_names import split_prefix
from trainer.config.fields import check_choice
from trainer.config.suites import SUITES, MeasuredImages
from trainer.errors import ConfigError, DataError, count_of, escape
from trainer.image_io import png, tile_with_captions
from trainer.logging import install_handler, print_json, print_line, quiet_import
from trainer.storage import Location, parse_path, scratch_folder, without_mount

if TYPE_CHECKING:
    from trainer.data.loading import TrainingData
    from trainer.metrics.extractor import Extractor
    from trainer.metrics.image_metrics import ImageMetrics
    from trainer.metrics.suite import Suite

_logger = logging.getLogger(__name__)

_USAGE = """Measures images against real ones, and prints the metrics: those of a run, or those in files.

  {command} --job_dir=DIRECTORY [--checkpoint=best|latest|STEP] [FLAGS]
  {command} --images=IMAGES --against=IMAGES [--image_size=64,64] [FLAGS]

IMAGES is a dataset, named like --dataset of the train command, or any source of images that the prepare command
accepts: a folder, a .zip, a .npz that the generate command wrote. It is local or gs://BUCKET/NAME.
With --neighbors=16 --out=FILE.png it also writes a picture of samples and their nearest training images.
The output also has the metrics of real images against other real images, for comparison.
"""
_SETTINGS = ("metrics", "num_metric_samples", "inception_weights", "inception_score")
_NUM_NEIGHBORS = 5
_MAX_ROWS = 200
"""Maximum number of samples in a picture, which then has at most 85 megapixels."""
_BLOCK_SIZE = 256
_FLAGS_OF_RUNS = ("checkpoint", "recipe")
_FLAGS_OF_IMAGES = ("against", "image_size", "resize", "max_bad_images")


class _Subject(NamedTuple):
    """Images to measure, and the data to compare them with."""

    config: TrainConfig
    """Dataset of the real images, the metric suite, and the number of images."""
    data: "TrainingData"
    extractor: "Extractor | None"
    model: Any
    """The GAN, or the stored images."""
    facts: dict[str, Any]
    """Names of the measured images, for the output."""
    protocol: dict[str, Any]
    """Methods with which images were resized, for the output."""


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string("job_dir", None, "Run directory.", flag_values=values)
    config_flags.define_checkpoint(values)
    absl_flags.DEFINE_string("images", None, "Images to measure in place of a run.", flag_values=values)
    absl_flags.DEFINE_string("against", None, "Images to compare with --images.", flag_values=values)
    define_image_size(values, "None: all images must have the same size, which is that of the dataset if there is one.")
    define_resize(values, None, "Without the flag: the method of the dataset, or crop.")
    absl_flags.DEFINE_integer(
        "max_bad_images", 0, "Maximum number of unreadable images to skip.", lower_bound=0, flag_values=values
    )
    config_flags.define_config(values, _SETTINGS)
    absl_flags.DEFINE_integer(
        "neighbors",
        None,
        "Number of samples to show in --out, each with its five nearest training images. The output then also has the "
        "share of all samples that are closer to a training image than almost all training images are to each other.",
        lower_bound=1,
        upper_bound=_MAX_ROWS,
        flag_values=values,
    )
    absl_flags.DEFINE_string("out", None, "Picture of --neighbors to write: .png, local or gs://.", flag_values=values)
    absl_flags.DEFINE_enum(
        "format", "json", ["json", "table"], "Format of the output: json, or a table to read.", flag_values=values
    )


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints the metrics."""
    install_handler(uses_stderr=True)
    _check_flags(values)
    picture = app.output_file("out", values.out, {".png": "a .png"}) if values.out is not None else None
    if values.images is None:
        result = _evaluate(_restore_run(values), values.neighbors, picture)
    else:
        with scratch_folder() as scratch:
            result = _evaluate(_read_images(values, scratch), values.neighbors, picture)
    if values.format == "json":
        print_json(result)
    else:
        for line in _table(result):
            print_line(line)


main = app.command(_USAGE, define_flags, run_command)


def _check_flags(values: absl_flags.FlagValues) -> None:
    """Rejects flags that do not go together, before anything is read."""
    if (values.job_dir is None) == (values.images is None):
        both = "both are set" if values.job_dir is not None else "neither is set"
        raise ConfigError(f"evaluate needs either --job_dir or --images, but {both}; pass one of them.")
    if values.images is not None and values.against is None:
        raise ConfigError("--images needs images to compare with; pass --against=DATASET or another source of images.")
    is_run = values.images is None
    for name in _FLAGS_OF_IMAGES if is_run else _FLAGS_OF_RUNS:
        if values[name].present:
            mode, other = ("job_dir", "images") if is_run else ("images", "job_dir")
            raise ConfigError(f"--{name} belongs to --{other} and does not apply to --{mode}; omit it.")
    check_resize(values)
    if (values.neighbors is None) != (values.out is None):
        missing = "--out=FILE.png" if values.out is None else "--neighbors=16"
        raise ConfigError(f"--neighbors and --out belong together; pass {missing} too, or omit both.")


def _parse_name(name: str) -> str:
    """Returns a dataset with a prefix unchanged, and any other source of images as a path."""
    return name if split_prefix(name)[0] is not None else without_mount(parse_path(name))


def _restore_run(values: absl_flags.FlagValues) -> _Subject:
    """Restores the generator of a run, and loads its training data."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.loading import load_training_data
        from trainer.environment import Environment
        from trainer.models import traits
        from trainer.training import restore
        from trainer.training.complete_config import with_machine_settings

    stored = restore.config_of(values.job_dir, values.recipe)
    changes = config_flags.parsed_settings(values)
    if changes.get("metrics", stored.metrics) != stored.metrics:
        changes = {"num_metric_samples": None, "inception_score": False, **changes}
    config = with_machine_settings(stored.override(**changes), Environment(), stored)
    if not config.has_metrics:
        raise ConfigError(
            f"the run in {values['job_dir'].value} has metrics=none; name a metric suite, such as --metrics=photos."
        )
    metrics.find_weights(config.metrics, config.inception_weights)
    _, gan, manifest = restore.restore(values.job_dir, values.checkpoint, values.recipe)
    check_metrics(config, traits(config))
    extractor = metrics.get_extractor(config.metrics, config.inception_weights)
    return _Subject(config, load_training_data(config), extractor, gan, {"step": manifest.step}, {})


def _read_images(values: absl_flags.FlagValues, scratch: Path) -> _Subject:
    """Reads the images of both sources."""
    with quiet_import():
        from trainer import metrics
        from trainer.data.compared_images import read_compared_sets
        from trainer.data.datasets import describe
        from trainer.data.loading import load_training_data
        from trainer.environment import Environment
        from trainer.training.complete_config import with_machine_settings
        from trainer.training.metric_suite import StoredImages

    config = TrainConfig(**config_flags.parsed_settings(values))
    suites = [name for name in SUITES.names() if SUITES[name].measures is MeasuredImages.GENERATED]
    check_choice("metrics", config.metrics, [MetricSuite.AUTO, *suites])
    is_inception = config.metrics == MetricSuite.INCEPTION or config.inception_weights is not None
    metrics.find_weights(MetricSuite.INCEPTION if is_inception else MetricSuite.PHOTOS, config.inception_weights)
    images, against = read_compared_sets(
        _parse_name(values.images),
        _parse_name(values.against),
        scratch,
        image_size=parse_image_size(values.image_size),
        resize=values.resize,
        max_bad_images=values.max_bad_images,
    )
    minimum = SUITES[MetricSuite.PHOTOS].min_images
    for name, compared in ((values.images, images), (values.against, against)):
        count = describe(compared.dataset).num_examples
        if count < minimum:
            raise DataError(f"{name} has {count_of(count, 'image')}, expected at least {minimum}; provide more.")
    num_images = describe(images.dataset).num_examples
    num_samples = config.num_metric_samples or num_images
    if num_samples > num_images:
        raise DataError(
            f"num_metric_samples={num_samples} exceeds the {count_of(num_images, 'image')} of {values.images}; "
            "choose a smaller number, or omit it."
        )
    config = config.override(dataset=against.dataset, num_metric_samples=num_samples)
    config = with_machine_settings(config, Environment())
    check_metrics(config)
    extractor = metrics.get_extractor(config.metrics, config.inception_weights)
    measured = with_machine_settings(TrainConfig(dataset=images.dataset, metrics=MetricSuite.NONE), Environment())
    model, data = StoredImages(load_training_data(measured)), load_training_data(config)
    facts = {"images": values.images, "against": values.against}
    resize = {"resize_of_images": images.resize, "resize_of_against": against.resize}
    known = {name: method for name, method in resize.items() if method is not None}
    return _Subject(config, data, extractor, model, facts, known)


def _evaluate(subject: _Subject, num_rows: int | None, picture: Location | None) -> dict[str, Any]:
    """Returns the content of the output, and writes the picture of nearest training images."""
    from trainer.metrics.image_metrics import ImageMetrics
    from trainer.training.metric_suite import create_suite

    config, model = subject.config, subject.model
    if num_rows is not None and subject.extractor is None:
        raise ConfigError(
            f"--neighbors needs the features of metrics=photos or inception, not {config.metrics}; pass "
            "--metrics=photos, or measure a folder of images with --images."
        )
    suite = create_suite(config, subject.data, subject.extractor)
    neighbors = {}
    if isinstance(suite, ImageMetrics) and num_rows is not None and picture is not None:
        outputs, _ = model.sample_features(suite.num_samples, suite.extractor)
        values = suite.evaluate_features(*outputs)
        neighbors = {"neighbors": _find_neighbors(subject, suite, outputs[0], num_rows, picture)}
    else:
        values = suite.measure(model)
    return {
        **subject.facts,
        "metrics": values,
        "real_vs_real": suite.real_vs_real(),
        "protocol": {**_protocol(subject, suite), **subject.protocol},
        **neighbors,
    }


def _protocol(subject: _Subject, suite: "Suite") -> dict[str, Any]:
    """Returns everything that must be equal for two outputs to be comparable, except the real images."""
    facts = {
        "metrics": subject.config.metrics,
        "num_images": suite.num_samples,
        "num_real_images": suite.num_real_images,
        "weights_sha256": suite.weights_sha256,
        "image_shape": list(subject.data.info.image_shape),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _find_neighbors(
    subject: _Subject, suite: "ImageMetrics", features: np.ndarray, num_rows: int, picture: Location
) -> dict[str, Any]:
    """Writes the picture. Returns the share of copies among all samples, whose features are [M, F]."""
    from trainer.metrics.neighbors import find_copies, nearest

    training = suite.real_statistics.features
    neighbors = nearest(features, training, min(_NUM_NEIGHBORS, len(training)))
    copies = find_copies(neighbors.distances[:, 0], training)
    samples, _ = subject.model.sample(min(num_rows, len(features)))
    indices, distances = neighbors.indices[: len(samples)], neighbors.distances[: len(samples)]
    images = _select(subject.data.image_blocks(len(training), _BLOCK_SIZE), set(indices.flat))
    cells, captions = [], []
    for sample, row, row_distances in zip(samples, indices.tolist(), distances.tolist(), strict=True):
        cells += [sample, *(images[index] for index in row)]
        captions += ["sample", *(f"{distance:.3g}" for distance in row_distances)]
    picture.write_bytes(png(tile_with_captions(cells, captions, 1 + indices.shape[1])))
    if copies.is_high:
        _logger.warning(
            f"{copies.num_close:,} of {copies.num_samples:,} samples are closer to a training image than 99% of the "
            f"training images are to each other; look for copies in {picture}."
        )
    num_examples = subject.data.info.num_examples
    if len(training) < num_examples:
        is_run = "images" not in subject.facts
        advice = (
            f"pass --num_metric_samples={num_examples}"
            if is_run
            else f"measure at least {count_of(num_examples, 'image')}"
        )
        _logger.warning(
            f"Only {len(training):,} of {num_examples:,} training images were searched, as many as there are samples; "
            f"to search all, {advice}."
        )
    return {
        "picture": str(picture),
        "num_training_images": len(training),
        "num_close": copies.num_close,
        "share_close": copies.share,
        "threshold": copies.threshold,
    }


def _select(blocks: Iterator[np.ndarray], indices: Container[int]) -> dict[int, np.ndarray]:
    """Returns some of the images in blocks, by index."""
    images = itertools.chain.from_iterable(blocks)
    return {index: image.copy() for index, image in enumerate(images) if index in indices}


def _table(result: Mapping[str, Any]) -> Iterator[str]:
    """Yields the lines of the output as a table."""
    real = result["real_vs_real"]
    width = max(map(len, [*result["metrics"], *result["protocol"], *result.get("neighbors", ())]))
    yield f"{'metric':{width}}  {'value':>10}  {'real against real':>17}"
    for name, value in result["metrics"].items():
        yield f"{name:{width}}  {value:>10.4g}  {format(real[name], '.4g') if name in real else '':>17}".rstrip()
    for part in ("step", "images", "against", "protocol", "neighbors"):
        if part in result:
            facts = result[part] if isinstance(result[part], Mapping) else {part: result[part]}
            for name, value in facts.items():
                yield f"{name:{width}}  {format(value, '.4g') if isinstance(value, float) else escape(value)}"

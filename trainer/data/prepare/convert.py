"""From a source of pictures to a prepared data set: read, decoded, resized, shuffled, and written as TFRecord shards.

Processes decode, threads read ahead, this process writes; what is written does not depend on how many there are.

Legend: `N` items of a source, `H W C` an image.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from trainer.data.dataset_spec import SPEC_NAME, DatasetSpec
from trainer.data.prepare.decoding import Content, Target, encode_all, shape_of
from trainer.data.prepare.sources import Source
from trainer.data.tfrecord_writer import ShardWriter, left_by_writer
from trainer.errors import ConfigError, DataError
from trainer.storage import Location

_LOOKED_AT = 100
"""Images that tell what was not said of size and channels."""
_CHUNK = 16
_READING_THREADS = 8
_SHUFFLE_SEED = 20_061_511
_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How a source is prepared.

    Attributes:
        image_size: (H, W); None takes all images as they are, which must then be of one size.
        resize: One of `decoding.RESIZES`.
        channels: 1 or 3; None: 1 where the first images are all gray, else 3.
        limit: At most so many images, taken evenly from the whole source; None: all.
        classes: Names of the classes to take; None: all.
        shard_mib: Size from which on a new shard begins, MiB.
        max_bad_images: Images that cannot be used and may be left out; one more ends the preparation.
        num_processes: Processes that decode; None: one a core.
    """

    image_size: tuple[int, int] | None = None
    resize: str = "crop"
    channels: int | None = None
    limit: int | None = None
    classes: tuple[str, ...] | None = None
    shard_mib: float = 64.0
    max_bad_images: int = 0
    num_processes: int | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is to be written, before any of it is.

    Attributes:
        indices: Of the source's items, in the order of the set.
        labels: int64 [len(indices)], of `class_names`.
        class_names: Of the set.
        target: What every image becomes.
    """

    indices: np.ndarray
    labels: np.ndarray
    class_names: tuple[str, ...]
    target: Target


@dataclasses.dataclass
class Tally:
    """How far a preparation is.

    Attributes:
        total: Items that are looked at.
        done: Of them, those that were written or left out.
        bad: Name of each that was left out, and why.
    """

    total: int
    done: int = 0
    bad: list[tuple[str, str]] = dataclasses.field(default_factory=list)


def plan(source: Source, options: Options) -> Plan:
    """Chooses the images and their order: shuffled once, so that every shard is a sample of the whole.

    Raises:
        ConfigError: A class is not in the source.
        DataError: No image of the first ones can be read.
    """
    wanted = options.classes or source.class_names
    unknown = [name for name in wanted if name not in source.class_names]
    if unknown:
        raise ConfigError(f"classes={unknown[0]} is not in the source, which has {', '.join(source.class_names)}.")
    label_of = {source.class_names.index(name): label for label, name in enumerate(wanted)}
    labels = np.array([label_of.get(item.label, -1) for item in source.items])
    chosen = np.flatnonzero(labels >= 0)
    if options.limit is not None and options.limit < len(chosen):
        chosen = chosen[np.arange(options.limit) * len(chosen) // options.limit]
    chosen = chosen[np.argsort(np.random.PCG64(_SHUFFLE_SEED).random_raw(len(chosen)), kind="stable")]
    return Plan(chosen, labels[chosen], wanted, _target(source, chosen, options))


def prepare(
    source: Source, plan: Plan, options: Options, out: Location, about: dict[str, Any], told: Callable[[Tally], None]
) -> tuple[DatasetSpec, Tally]:
    """Writes the set. `dataset.json` comes last: without it there is none.

    Args:
        source: Of the pictures.
        plan: Of `plan`, for this source.
        options: How.
        out: Folder of the set, which must not hold one. What else lies in it stays.
        about: More fields of the manifest: name, source, options, license, attribution.
        told: Called now and then with how far it is.

    Raises:
        ConfigError: `out` holds a data set.
        DataError: More images than allowed cannot be used, or none can.
        StorageError: `out` cannot be written.
    """
    if (out / SPEC_NAME).exists():
        raise ConfigError(f"out={out} holds a prepared data set already; give another folder, or delete that one.")
    out.delete(left_by_writer(out))  # by one that was interrupted; all else in the folder is the user's
    tally = Tally(len(plan.indices))
    counts = np.zeros(len(plan.class_names), np.int64)
    shape: tuple[int, ...] = ()
    with (
        tempfile.TemporaryDirectory(prefix="gan-trainer-") as scratch,
        contextlib.closing(ShardWriter(Path(scratch), out, options.shard_mib)) as shards,
    ):
        for index, (png, shape_or_problem) in zip(plan.indices, _encoded(source, plan, options), strict=True):
            label = plan.labels[tally.done]
            tally.done += 1
            if png is None:
                _note_bad(tally, source.items[index].name, str(shape_or_problem), options)
            else:
                shape = tuple(shape_or_problem)
                shards.add(png, int(label))
                counts[label] += 1
            told(tally)
        if not counts.sum():
            raise DataError(f"none of the {tally.total} images can be used: {tally.bad[0][0]} {tally.bad[0][1]}.")
        written = shards.finish()
    manifest = DatasetSpec(
        image_shape=(shape[0], shape[1], shape[2]),
        num_examples=int(counts.sum()),
        class_names=plan.class_names,
        class_counts=tuple(counts.tolist()),
        shards=written,
        **about,
    )
    (out / SPEC_NAME).write_bytes(manifest.to_json().encode(), only_new=True)
    return manifest, tally


def recorded(options: Options, plan: Plan) -> dict[str, Any]:
    """What a manifest tells of how the set was made: all that its bytes depend on."""
    return {
        "limit": options.limit,
        "classes": None if options.classes is None else list(options.classes),
        "image_size": [plan.target.height, plan.target.width],
        "resize": plan.target.resize,
        "channels": plan.target.channels,
        "shard_mib": options.shard_mib,
    }


def _target(source: Source, chosen: np.ndarray, options: Options) -> Target:
    """What every image becomes: what was asked for, and where nothing was, what the first images are."""
    height, width = options.image_size or (None, None)
    channels = options.channels
    if channels is None or height is None:
        shapes = [shape for shape in (_shape(source, int(index)) for index in chosen[:_LOOKED_AT]) if shape]
        if not shapes:
            raise DataError(f"none of the first {min(len(chosen), _LOOKED_AT)} images can be read; check the source.")
        channels = channels or max(shape[2] for shape in shapes)
        height, width = (height, width) if height else shapes[0][:2]
    resize = options.resize if options.image_size else "none"
    return Target(height, width, channels, resize)


def _shape(source: Source, index: int) -> tuple[int, int, int] | None:
    try:
        content = source.read(index)
        return shape_of(content) if isinstance(content, bytes) else content.shape
    except DataError:
        return None  # said in its turn, with the others


def _note_bad(tally: Tally, name: str, problem: str, options: Options) -> None:
    tally.bad.append((name, problem))
    if len(tally.bad) > options.max_bad_images:
        raise DataError(
            f"{name} {problem}. Leave it out, or allow more than --max_bad_images={options.max_bad_images}."
        )


def _encoded(source: Source, plan: Plan, options: Options) -> Iterator[tuple[bytes | None, Any]]:
    """For every image of the plan, in its order: a PNG and its shape; or None and what is wrong with it."""
    num_processes = options.num_processes or len(os.sched_getaffinity(0))
    encode = functools.partial(encode_all, plan.target)

    def read(index: int) -> Content | DataError:
        try:
            return source.path(int(index)) or source.read(int(index))
        except DataError as error:
            return error

    with concurrent.futures.ThreadPoolExecutor(_READING_THREADS) as threads:
        is_local = len(plan.indices) and source.path(int(plan.indices[0])) is not None
        contents = map(read, plan.indices) if is_local else _ahead(threads, read, plan.indices, _CHUNK * num_processes)
        chunks = iter(lambda: list(itertools.islice(contents, _CHUNK)), [])
        if num_processes == 1:
            yield from itertools.chain.from_iterable(map(encode, chunks))
            return
        spawned = multiprocessing.get_context("spawn")  # a fork of a process with TensorFlow's threads may hang
        with concurrent.futures.ProcessPoolExecutor(num_processes, spawned) as processes:
            yield from itertools.chain.from_iterable(_ahead(processes, encode, chunks, num_processes + 2))


def _ahead(
    executor: concurrent.futures.Executor, act: Callable[[_Given], _Result], given: Iterable[_Given], depth: int
) -> Iterator[_Result]:
    """The results of an act on each of what is given, in its order, while at most `depth` more are under way."""
    running: collections.deque[concurrent.futures.Future[_Result]] = collections.deque()
    try:
        for each in given:
            running.append(executor.submit(act, each))
            if len(running) > depth:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
    finally:
        for future in running:
            future.cancel()

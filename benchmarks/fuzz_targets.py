"""Everything that reads input from outside, with valid inputs, for `benchmarks.fuzz`."""

import dataclasses
import functools
import gzip
import io
import json
import shutil
import tarfile
import types
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_FIXTURE = Path(__file__).parents[1] / "tests/fixtures/0.1.0"


@dataclasses.dataclass(frozen=True)
class Target:
    """Something that reads input from outside.

    Attributes:
        name: Name of the target.
        seeds: Valid inputs, which are damaged in many ways.
        read: Function that reads an input. Only a `TrainerError` may leave it.
    """

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]


def make_targets(folder: Path) -> list[Target]:
    """Returns all targets.

    Args:
        folder: Empty local folder for the files of the targets.
    """
    return [
        *_image_targets(),
        *_source_targets(folder),
        Target(
            "dataset.json", [_fixture("prepared/dataset.json")], _in_folder(folder / "set", "dataset.json", _read_spec)
        ),
        Target("shards", _shards(), _in_folder(folder / "shards", "images-00000.tfrecord", _read_shard)),
        Target("config.json", [_fixture("run/config.json")], _in_folder(folder / "run", "config.json", _read_config)),
        _manifest_target(folder / "checkpoints"),
        Target(
            "metrics.jsonl", [_fixture("run/metrics.jsonl")], _in_folder(folder / "log", "metrics.jsonl", _read_metrics)
        ),
        *_job_targets(folder / "jobs"),
        *_environment_targets(),
    ]


def _fixture(name: str) -> bytes:
    return (_FIXTURE / name).read_bytes()


def _in_folder(folder: Path, name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Returns a function that writes its input to a file in a folder and reads the folder."""
    folder.mkdir(parents=True, exist_ok=True)

    def write_and_read(content: bytes) -> object:
        (folder / name).write_bytes(content)
        return read(folder)

    return write_and_read


def _picture(mode: str, size: tuple[int, int] = (24, 17)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def _encode(picture: Image.Image, name: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def _image_targets() -> Iterator[Target]:
    from trainer.data.prepare import decoding
    from trainer.data.prepare.pixels import Target as Format

    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "camera"
    modes = {
        "PNG": ["RGB", "RGBA", "L", "LA", "P", "1", "I;16"],
        "TIFF": ["RGB", "RGBA", "L", "CMYK", "LAB", "YCbCr", "1", "I;16", "P"],
        "WEBP": ["RGB", "RGBA"],
        "AVIF": ["RGB", "RGBA"],
        "GIF": ["P", "L"],
        "BMP": ["RGB", "L", "1", "P"],
        "PPM": ["RGB", "L", "1"],
        "JPEG": ["RGB", "L", "CMYK"],
    }
    options: dict[str, list[dict[str, Any]]] = {
        "TIFF": [
            {},
            {"compression": "tiff_lzw", "exif": exif},
            {"compression": "tiff_deflate"},
            {"compression": "packbits"},
        ],
        "JPEG": [{"exif": exif}, {"progressive": True}],
        "PNG": [{"exif": exif}, {"save_all": True, "append_images": [_picture("RGB")]}],
        "WEBP": [{"exif": exif}, {"lossless": True, "save_all": True, "append_images": [_picture("RGB")]}],
        "AVIF": [{"exif": exif}],
    }

    def read(content: bytes) -> None:
        for target in (Format(8, 8, 3, "crop"), Format(None, None, 1, "none")):
            result = decoding.encode(target, content)
            if result.image is None and ("\n" in result.problem or not result.problem):
                raise AssertionError(result.problem)
        decoding.read_shape(content)

    for name in decoding.FORMATS:
        seeds = [_encode(_picture(mode), name, **option) for mode in modes[name] for option in options.get(name, [{}])]
        yield Target(f"images {name}", seeds, read)


def _source_targets(folder: Path) -> Iterator[Target]:
    from trainer.data.prepare.sources import open_source
    from trainer.data.record_files import masked_crc, split_records

    picture = _encode(_picture("RGB"), "PNG")
    tar, zips = io.BytesIO(), []
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            archive.writestr("a/1.png", picture)
            archive.writestr("b/2.png", picture * 2)
        zips.append(buffer.getvalue())
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.PAX_FORMAT) as tar_file:
        for name in ("a/1.png", f"b/{'x' * 150}.png"):
            info = tarfile.TarInfo(name)
            info.size = len(picture)
            tar_file.addfile(info, io.BytesIO(picture))
    array, images = io.BytesIO(), io.BytesIO()
    np.savez_compressed(array, x=np.arange(80, dtype=np.uint8).reshape(5, 4, 4), y=np.arange(5))
    np.save(images, np.arange(80, dtype=np.float32).reshape(5, 4, 4) / 79)
    idx = b"\0\0\x08\x03" + b"".join(size.to_bytes(4, "big") for size in (5, 4, 4)) + bytes(range(80))
    seeds = {
        "x.zip": zips,
        "x.tar": [tar.getvalue()],
        "x.tar.gz": [gzip.compress(tar.getvalue())],
        "x.csv": [b'path,label\n1.png,a\n"2.png",b\n', b"filename,class,other\r\n1.png,a,b\r\n"],
        "x.npz": [array.getvalue()],
        "x.npy": [images.getvalue()],
        "x-idx3-ubyte": [idx],
        "x-idx3-ubyte.gz": [gzip.compress(idx)],
    }

    seeds |= _record_files(folder, picture)

    def read(name: str, place: Path) -> None:
        with open_source(str(place / name)) as source:
            for index in range(len(source.items)):
                source.read(index)

    (folder / "sources").mkdir()
    for name in ("1.png", "2.png"):  # the images of the .csv file
        (folder / "sources" / name).write_bytes(picture)
    for name, contents in seeds.items():
        yield Target(f"sources {name}", contents, _in_folder(folder / "sources", name, functools.partial(read, name)))

    def frame(example: bytes) -> bytes:
        length = len(example).to_bytes(8, "little")
        return length + masked_crc(length) + example + masked_crc(example)

    read_records = _in_folder(folder / "sources", "y.tfrecord", functools.partial(read, "y.tfrecord"))
    (record,) = split_records(io.BytesIO(seeds["x.tfrecord"][0]), 2**20)
    yield Target("sources examples", [record], lambda example: read_records(frame(example) * 2))

    labels = {
        "dataset.json": b'{"labels": [["1.png", 0], ["2.png", 1]]}',
        "metadata.csv": b'file_name,label\n1.png,cat\n"2.png",dog\n',
        "metadata.jsonl": b'{"file_name": "1.png", "label": 0}\n{"file_name": "2.png", "label": 1}\n',
    }
    for name, content in labels.items():
        shutil.copytree(folder / "sources", folder / f"labels {name}")
        target = _in_folder(folder / f"labels {name}", name, functools.partial(read, "."))
        yield Target(f"labels {name}", [content], target)


def _record_files(folder: Path, picture: bytes) -> dict[str, list[bytes]]:
    """Returns HDF5, Parquet and TFRecord files by name."""
    import h5py
    import pyarrow as pa
    import pyarrow.parquet as pq
    import tensorflow as tf

    arrays, path = io.BytesIO(), folder / "x.tfrecord"
    with h5py.File(arrays, "w") as file:
        file.create_dataset("a/x", data=np.arange(80, dtype=np.uint8).reshape(5, 4, 4), chunks=(2, 4, 4), compression=4)
        file["a/y"], file["classes"], file["again"] = np.arange(5), ["a", "b", "c", "d", "e"], h5py.SoftLink("/a/x")
    table = pa.table({"image": [{"bytes": picture, "path": "1.png"}] * 3, "label": [0, 1, 1]})
    names = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    tables = []
    for metadata, options in ((names, {}), ({}, {"compression": "zstd", "data_page_version": "2.0"})):
        buffer = io.BytesIO()
        pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps(metadata)}), buffer, **options)
        tables.append(buffer.getvalue())
    values: dict[str, Any] = {
        "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[picture])),
        "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[3])),
        "image/class/text": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"dog"])),
    }
    with tf.io.TFRecordWriter(str(path)) as writer:
        writer.write(tf.train.Example(features=tf.train.Features(feature=values)).SerializeToString())
    records = path.read_bytes()
    path.unlink()
    return {
        "x.h5": [arrays.getvalue()],
        "x.parquet": tables,
        "x.tfrecord": [records],
        "x.tfrecord.gz": [gzip.compress(records)],
    }


def _read_spec(folder: Path) -> None:
    from trainer.data.dataset_spec import read_dataset_spec
    from trainer.storage import locate

    read_dataset_spec(locate(str(folder)))


def _shards() -> list[bytes]:
    from trainer.data.record_files import masked_crc

    shards = [_fixture(f"prepared/images-{index:05d}.tfrecord") for index in range(2)]
    header = (2**40).to_bytes(8, "little")
    return [*shards, header + masked_crc(header) + bytes(100)]


def _read_shard(folder: Path) -> None:
    """Reads a shard of a dataset whose description states the shard's size and SHA-256, as an attacker's would."""
    from trainer.data.shard_cache import ShardCache
    from trainer.data.tfrecord_reader import read_shards
    from trainer.storage import file_crc32c, file_sha256, locate

    shard = folder / "images-00000.tfrecord"
    content = json.loads(_fixture("prepared/dataset.json"))
    first = content["shards"][0]
    hashes = {"sha256": file_sha256(shard), "crc32c": file_crc32c(shard), "num_bytes": shard.stat().st_size}
    content["shards"] = [first | hashes]
    content["num_examples"] = first["num_examples"]
    content["class_counts"] = [first["num_examples"], *[0] * (len(content["class_counts"]) - 1)]
    (folder / "dataset.json").write_text(json.dumps(content))
    files = ShardCache(locate(str(folder)))
    list(read_shards(files, files.spec.shards))


def _read_config(folder: Path) -> None:
    from trainer.storage import RunDirectory
    from trainer.training.stored_run import stored_config

    stored_config(RunDirectory(str(folder)))


def _manifest_target(folder: Path) -> Target:
    from trainer.training.checkpoint.store import CheckpointStore

    name = "step-00000004"
    shutil.copytree(_FIXTURE / "run/checkpoints", folder)
    read = _in_folder(folder / name, "MANIFEST.json", lambda _: CheckpointStore(folder).find())
    return Target("MANIFEST.json", [_fixture(f"run/checkpoints/{name}/MANIFEST.json")], read)


def _read_metrics(folder: Path) -> None:
    from trainer.callbacks import MetricsLog

    log = MetricsLog(folder / "metrics.jsonl")
    log.set_model(types.SimpleNamespace(step=4))
    log.on_train_begin()


_JOB = b"""# A job with two pools
workerPoolSpecs:
- &pool
  replicaCount: 1
  machineSpec: {machineType: n2-standard-4, acceleratorType: NVIDIA_L4, acceleratorCount: 1}
  containerSpec:
    imageUri: us-docker.pkg.dev/project/image
    args: [--recipe=dcgan, "--steps=10", --learning_rate=1.0e-4]
    env: [{name: A, value: "b"}]
baseOutputDirectory: {outputUriPrefix: gs://bucket/run}
scheduling: {timeout: 86400s, restartJobOnWorkerRestart: true}
"""
_STUDY = b"""displayName: study
maxTrialCount: 4
parallelTrialCount: 2
studySpec:
  metrics: [{metricId: fid, goal: MINIMIZE}]
  parameters:
  - parameterId: learning_rate
    doubleValueSpec: {minValue: 1.0e-5, maxValue: 1.0e-2}
    scaleType: UNIT_LOG_SCALE
  - {parameterId: units, integerValueSpec: {minValue: 1, maxValue: 9}}
trialJobSpec:
""" + b"".join(b"  " + line + b"\n" for line in _JOB.splitlines())


def _job_targets(folder: Path) -> Iterator[Target]:
    from trainer.cloud.jobs import job_spec
    from trainer.cloud.tuning import trial_store
    from trainer.storage import locate

    def read(place: Path) -> None:
        job_spec.read(place / "job.yaml", is_local=True)

    yield Target("job files", [_JOB, _STUDY], _in_folder(folder, "job.yaml", read))
    (folder / "study.yaml").write_bytes(_STUDY)
    spec = job_spec.read(folder / "study.yaml", is_local=True)
    assert isinstance(spec, job_spec.TuningSpec)
    record = trial_store.TrialRecord(
        id="1",
        state="SUCCEEDED",
        parameters={"learning_rate": 1e-3, "units": 3},
        measurements=(trial_store.Measurement(step=1, value=2.0),),
        final_measurement=trial_store.Measurement(step=1, value=2.0),
        start_time="2026-01-01T00:00:00Z",
    )
    file = locate(str(folder / trial_store.FILE_NAME))
    trial_store.write(file, spec, [record])
    read_trials = _in_folder(folder, trial_store.FILE_NAME, lambda _: trial_store.read(file, spec))
    yield Target("trials.json", [file.read_bytes()], read_trials)


def _environment_targets() -> Iterator[Target]:
    from trainer.environment import Environment

    pools = {"workerpool0": ["a:1"], "workerpool1": ["b:1", "c:1"]}
    texts = {
        "TF_CONFIG": {"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}},
        "CLUSTER_SPEC": {"cluster": pools, "environment": "cloud", "task": {"type": "workerpool1", "index": 1}},
    }

    def read(names: Sequence[str], content: bytes) -> None:
        Environment.read(dict.fromkeys(names, content.decode("utf-8", "surrogateescape")))

    for name, value in texts.items():
        yield Target(f"environment {name}", [json.dumps(value).encode()], functools.partial(read, [name]))
    names = ["AIP_MODEL_DIR", "AIP_CHECKPOINT_DIR", "AIP_TENSORBOARD_LOG_DIR", "CLOUD_ML_TRIAL_ID"]
    names.append("CLOUD_ML_HP_METRIC_FILE")
    seeds = [b"gs://bucket/model/", b"/gcs/bucket/model", b"7"]
    for name in names:
        yield Target(f"environment {name}", seeds, functools.partial(read, [name]))

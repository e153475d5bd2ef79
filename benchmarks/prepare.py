"""Measures the speed and the memory of `prepare`, and kills its replicas at random.

    python -m benchmarks.prepare                                  all parts, about 15 minutes on two cores
    python -m benchmarks.prepare --parts=speed --images=2000      one part with fewer images

- `speed`: speed of `prepare`, including the start of its processes, over that of a loop of Pillow in one process that
  decodes, resizes and encodes the same files. The ratio is the median over pairs of measurements in turn.
- `kills`: three processes, as three machines of a job, prepare a dataset with two decoding processes each, again and
  again. A random one of them, or of their decoding processes, is killed with SIGKILL at a random time and started
  again. Every result must have the bytes of the dataset that one machine prepares, and a shard that was finished when
  a process was killed must not be written again, so that a kill costs at most the shard that was being written.
- `listing`: peak memory of listing, planning, and dividing into shards for lists of empty names.
"""

import collections
import functools
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags as absl_flags
from PIL import Image, ImageOps

from benchmarks.data_parts import measure_parts, median_ratio, picture, seconds
from trainer.cli import app
from trainer.logging import install_handler

_NUM_REPLICAS, _NUM_SHARDS = 3, 48
_SIZE = 64


def pillow_loop(files: list[Path]) -> None:
    """Decodes, resizes and encodes files as a simple script does."""
    for file in files:
        with Image.open(file) as opened:
            resized = ImageOps.fit(opened.convert("RGB"), (_SIZE, _SIZE), Image.Resampling.LANCZOS)
        resized.save(io.BytesIO(), "PNG")


def measure_speed(folder: Path, num_pictures: int, num_pairs: int) -> None:
    """Measures `prepare` and prints one line per file format. A pair is a measurement of each program."""
    from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
    from trainer.data.prepare.convert import convert
    from trainer.data.prepare.sources import open_source
    from trainer.storage import locate

    options = ConversionOptions(image_size=(_SIZE, _SIZE))
    metadata = dict.fromkeys(("name", "source", "license", "attribution"), "benchmark")

    def ours(pictures: Path) -> None:
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        with open_source(str(pictures)) as source:
            convert(source, plan_conversion(source, options), options, locate(out), metadata, lambda progress: None)

    for ending in ("jpg", "png"):
        pictures = folder / ending
        pictures.mkdir()
        files = [pictures / f"{number}.{ending}" for number in range(num_pictures)]
        for number, file in enumerate(files):
            picture(number, 256).save(file, quality=90)  # PNG ignores the quality
        own, loop = [], []
        for _ in range(num_pairs):
            own.append(seconds(functools.partial(ours, pictures)))
            loop.append(seconds(functools.partial(pillow_loop, files)))
        print(
            f"prepare, {ending} of 256×256 to {_SIZE}×{_SIZE}: {len(files) / statistics.median(own):,.0f} images/s, "
            f"Pillow in one process {len(files) / statistics.median(loop):,.0f}; ratio {median_ratio(own, loop)}",
            flush=True,
        )


def start(source: Path, out: Path, index: int, num_replicas: int, log: Path) -> subprocess.Popen:
    """Starts a machine of a job."""
    command = [
        sys.executable,
        "-m",
        "trainer",
        "prepare",
        f"--source={source}",
        f"--out={out}",
        f"--image_size={_SIZE}",
    ]
    part = [f"--num_shards={_NUM_SHARDS}", f"--replica={index}", f"--num_replicas={num_replicas}", "--num_workers=2"]
    with log.open("ab") as file:
        return subprocess.Popen([*command, *part], stdout=file, stderr=file)


def shard_digests(out: Path) -> list[str]:
    """Returns the SHA-256 of all shards of a dataset."""
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(out.glob("*.tfrecord"))]


def finished_shards(out: Path) -> dict[Path, tuple[int, int]]:
    """Returns the file number and the time of each finished shard."""
    shards = [path.parent / path.name.removeprefix(".").removesuffix(".json") for path in out.glob(".*.tfrecord.json")]
    return {shard: (shard.stat().st_ino, shard.stat().st_mtime_ns) for shard in shards}


def decoders(process: subprocess.Popen) -> list[int]:
    """Returns the decoding processes of a machine."""
    try:
        tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
        children = [int(number) for task in tasks for number in task.read_text().split()]
        return [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    except OSError:  # a process has just ended
        return []


def measure_kills(folder: Path, num_pictures: int, num_kills: int) -> None:
    """Kills random processes and compares the results."""
    source, log = folder / "pictures", folder / "log"
    source.mkdir()
    for number in range(num_pictures):
        picture(number, 256).save(source / f"{number}.jpg", quality=90)
    if start(source, folder / "expected", 0, 1, log).wait():
        raise RuntimeError(log.read_text())
    expected, rng, totals = shard_digests(folder / "expected"), random.Random(0), collections.Counter[str]()
    while totals["replicas"] + totals["decoders"] < num_kills:
        out = folder / f"out-{totals['datasets']}"
        replicas = [start(source, out, index, _NUM_REPLICAS, log) for index in range(_NUM_REPLICAS)]
        finished: dict[Path, tuple[int, int]] = {}
        while totals["replicas"] + totals["decoders"] < num_kills and not (out / "dataset.json").exists():
            time.sleep(rng.uniform(0.5, 4.0))
            victims = [(index, child) for index, replica in enumerate(replicas) for child in decoders(replica)]
            kind = "decoders" if victims and rng.random() < 0.5 else "replicas"
            if kind == "replicas":
                running = (index for index, replica in enumerate(replicas) if replica.poll() is None)
                victims = [(index, replicas[index].pid) for index in running]
            if victims:
                index, victim = rng.choice(victims)
                os.kill(victim, signal.SIGKILL)
                replicas[index].wait()
                totals[kind] += 1
                finished |= finished_shards(out)
                replicas[index] = start(source, out, index, _NUM_REPLICAS, log)
        totals["failures"] += sum(replica.wait() != 0 for replica in replicas)
        totals["datasets"] += 1
        totals["equal datasets"] += shard_digests(out) == expected
        totals["finished shards at kills"] += len(finished)
        totals["of these written again"] += sum(
            (path.stat().st_ino, path.stat().st_mtime_ns) != state for path, state in finished.items()
        )
    print(f"kills: {', '.join(f'{name}: {count}' for name, count in totals.items())}", flush=True)


def measure_listing(counts: Sequence[str]) -> None:
    """Measures the peak memory of lists of different numbers of images, each in a process of its own."""
    for num_images in counts:
        command = [sys.executable, "-m", "benchmarks.prepare", f"--list={num_images}"]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"listing: {int(num_images):,} images in {result['secs']:.1f} s, {result['mib']:,.0f} MiB", flush=True)


def list_images(num_images: int) -> None:
    """Lists images that do not exist, plans their conversion, and prints the time and the peak memory."""
    from trainer.data.prepare.conversion_plan import ConversionOptions, plan_conversion
    from trainer.data.prepare.sharding import digest_of
    from trainer.data.prepare.sources.base import SourceOptions
    from trainer.data.prepare.sources.folders import FolderSource
    from trainer.storage import locate

    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    sizes = {f"photos/{number:09d}.jpg": 100_000 + number for number in range(num_images)}
    source = FolderSource(locate("gs://bucket/photos"), sizes, SourceOptions())
    del sizes
    plan = plan_conversion(
        source, ConversionOptions(image_size=(_SIZE, _SIZE), channels=3, num_shards=num_images // 8000)
    )
    indices = plan.indices.tolist()
    digest_of((source.items[index].name for index in indices), map(source.num_bytes, indices), plan.labels, "")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"secs": time.perf_counter() - started, "mib": (peak - before) / 1024}))


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    integer = functools.partial(absl_flags.DEFINE_integer, flag_values=values)
    absl_flags.DEFINE_list(
        "parts", ["speed", "kills", "listing"], "Parts to measure: speed, kills, listing.", flag_values=values
    )
    integer("images", 6000, "Number of pictures for `speed`.", lower_bound=100)
    integer("pairs", 5, "Number of pairs of measurements in `speed`.", lower_bound=1)
    integer("kills", 30, "Number of kills.", lower_bound=0)
    integer("pictures", 3000, "Number of pictures for `kills`.", lower_bound=100)
    absl_flags.DEFINE_list("listed", ["100000", "1000000"], "Numbers of images for `listing`.", flag_values=values)
    integer("list", None, "Measure a list of this number of images in this process, and exit.")


def run_command(values: absl_flags.FlagValues) -> None:
    """Measures the requested parts."""
    install_handler(uses_stderr=True)
    if values.list is not None:
        return list_images(values.list)
    parts = {
        "speed": lambda folder: measure_speed(folder, values.images, values.pairs),
        "kills": lambda folder: measure_kills(folder, values.pictures, values.kills),
        "listing": lambda _: measure_listing(values.listed),
    }
    measure_parts(parts, values.parts)


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

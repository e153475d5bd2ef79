"""Measures how the Frechet distance of the suite `photos` responds to defects of photographs.

    python -m benchmarks.photos_sensitivity --images=flowers.zip
    python -m benchmarks.photos_sensitivity --images=cifar10_train.zip --max_images=8000

The zip file has one folder of photographs for each class. All are resized to 64x64 pixels and split into two halves at
random. Each defect is applied at five strengths to one half, which is compared with the other half. The distance must
grow with every strength, from that of the unchanged half on. The command prints a table, and exits with code 1 if a
distance does not grow. Strengths:

- `blur`: standard deviation of the Gaussian kernel in pixels
- `noise`: standard deviation of the normal noise, of 255
- `jpeg`: quality of the JPEG file that the image is saved to
- `color`: value that is added to red and subtracted from blue, of 255
- `crop`: side of the central crop that is enlarged to the whole image, as a fraction of the side of the image
- `dropped`: number of classes without images
- `duplicated`: number of times that each image occurs

The numbers of images are equal at all strengths of a defect. `dropped` and `duplicated` are means over 20 random
choices of the images. Every class is among the first to be dropped equally often, because the distance depends on it.
"""

import io
import itertools
import os
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from absl import flags as absl_flags
from PIL import Image, ImageFilter

from benchmarks import markdown
from trainer.cli import app
from trainer.errors import TrainerError
from trainer.metrics.frechet import frechet_distance
from trainer.metrics.photos_network import PhotosNetwork
from trainer.registry import check_known

_SIZE = 64
_BATCH_SIZE = 50
_DRAWS = 20
_SEED = 0

Pictures = list[Image.Image]


def load(path: str, max_images: int | None = None) -> tuple[Pictures, np.ndarray]:
    """Returns RGB photographs of a zip file in random order, `max_images` at most, and the number of each label."""
    with zipfile.ZipFile(path) as archive:
        names = sorted(name for name in archive.namelist() if name.lower().endswith((".jpg", ".jpeg", ".png")))
        names = [names[index] for index in np.random.default_rng(_SEED).permutation(len(names))[:max_images]]
        pictures = [Image.open(io.BytesIO(archive.read(name))).convert("RGB") for name in names]
    _, labels = np.unique([name.split("/")[-2] for name in names], return_inverse=True)
    return pictures, labels


def resize(picture: Image.Image) -> Image.Image:
    """Resizes a photograph to 64x64 pixels with antialiasing."""
    return picture.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR)


def blur(picture: Image.Image, deviation: float) -> Image.Image:
    """Resizes, then applies a Gaussian blur."""
    return resize(picture).filter(ImageFilter.GaussianBlur(deviation))


def noise(picture: Image.Image, deviation: float) -> Image.Image:
    """Resizes, then adds normal noise, the same for the same picture."""
    pixels = np.asarray(resize(picture), np.float32)
    random = np.random.default_rng(zlib.crc32(pixels.tobytes()))
    return _to_picture(pixels + random.normal(0, deviation, pixels.shape))


def jpeg(picture: Image.Image, quality: float) -> Image.Image:
    """Resizes, then saves as JPEG and reads the file."""
    buffer = io.BytesIO()
    resize(picture).save(buffer, "JPEG", quality=int(quality))
    return Image.open(buffer).convert("RGB")


def color(picture: Image.Image, shift: float) -> Image.Image:
    """Resizes, then adds to red and subtracts from blue."""
    return _to_picture(np.asarray(resize(picture), np.float32) + np.array([shift, 0, -shift], np.float32))


def crop(picture: Image.Image, side: float) -> Image.Image:
    """Resizes the center of a photograph instead of the whole."""
    width, height = picture.size
    left, top = width * (1 - side) / 2, height * (1 - side) / 2
    box = (left, top, width - left, height - top)
    return picture.resize((_SIZE, _SIZE), Image.Resampling.BILINEAR, box)


def _to_picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(np.rint(pixels), 0, 255).astype(np.uint8))


DEFECTS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], tuple[float, ...]]] = {
    "blur": (blur, (0.4, 0.6, 1, 1.5, 2.5)),
    "noise": (noise, (4, 8, 16, 32, 64)),
    "jpeg": (jpeg, (90, 70, 50, 30, 10)),
    "color": (color, (4, 8, 16, 32, 64)),
    "crop": (crop, (0.95, 0.9, 0.8, 0.65, 0.5)),
}
DROPPED = (0.5, 1, 2, 3, 4)
DUPLICATED = (2, 4, 8, 16, 32)


def extract(network: Callable[..., tuple[tf.Tensor, tf.Tensor]], pictures: Pictures) -> np.ndarray:
    """Returns the features float32 [N, F] of pictures of 64x64 pixels."""
    images = np.stack([np.asarray(picture) for picture in pictures])
    starts = range(0, len(images), _BATCH_SIZE)
    return np.concatenate([network(images[start : start + _BATCH_SIZE])[0].numpy() for start in starts])


def dropped_distances(real: np.ndarray, fake: np.ndarray, labels: np.ndarray) -> list[float]:
    """Returns the distances without dropped classes and with each number of them; 0.5 is half of the images of one."""
    counts = np.bincount(labels)

    def choose(draw: int, dropped: float) -> np.ndarray:
        order = np.random.default_rng([_SEED, draw // len(counts)]).permutation(len(counts))
        positions = np.roll(order, draw)[labels]
        random = np.random.default_rng([_SEED, draw])
        is_partly_dropped = (positions == np.floor(dropped)) & (random.random(len(labels)) < dropped % 1)
        is_selected = (positions >= dropped) | is_partly_dropped
        return random.choice(np.flatnonzero(is_selected), counts.min(), replace=False)

    return _mean_distances(real, fake, choose, (0, *DROPPED))


def duplicated_distances(real: np.ndarray, fake: np.ndarray) -> list[float]:
    """Returns the distances without duplicates and with each number of copies."""
    size = len(fake) // max(DUPLICATED) * max(DUPLICATED)

    def choose(draw: int, copies: float) -> np.ndarray:
        return np.tile(np.random.default_rng([_SEED, draw]).permutation(len(fake))[: size // int(copies)], int(copies))

    return _mean_distances(real, fake, choose, (1, *DUPLICATED))


def _mean_distances(
    real: np.ndarray,
    fake: np.ndarray,
    choose: Callable[[int, float], np.ndarray],
    strengths: tuple[float, ...],
) -> list[float]:
    """Returns the mean distance of random choices of the fake features, for each strength."""
    return [
        float(np.mean([frechet_distance(real, fake[choose(draw, strength)]) for draw in range(_DRAWS)]))
        for strength in strengths
    ]


def measure(
    path: str, weights: str | None, defects: list[str] | None, max_images: int | None
) -> Iterator[tuple[str, tuple[float, ...], list[float]]]:
    """Yields each defect with its strengths and distances; the first distance is that of the unchanged images."""
    network = tf.function(PhotosNetwork(weights) if weights else PhotosNetwork())
    pictures, labels = load(path, max_images)
    half = len(pictures) // 2
    real = extract(network, [resize(picture) for picture in pictures[:half]])
    pictures, labels = pictures[half:], labels[half:]
    fake = extract(network, [resize(picture) for picture in pictures])
    unchanged = frechet_distance(real, fake)
    for name, (change, strengths) in DEFECTS.items():
        if defects and name not in defects:
            continue
        changed = ([change(picture, strength) for picture in pictures] for strength in strengths)
        yield name, strengths, [unchanged, *(frechet_distance(real, extract(network, fakes)) for fakes in changed)]
    if not defects or "dropped" in defects:
        yield "dropped", DROPPED, dropped_distances(real, fake, labels)
    if not defects or "duplicated" in defects:
        yield "duplicated", DUPLICATED, duplicated_distances(real, fake)


def define_flags(values: absl_flags.FlagValues) -> None:
    """Defines the flags."""
    absl_flags.DEFINE_string(
        "images", None, "Zip file with one folder of photographs for each class.", required=True, flag_values=values
    )
    absl_flags.DEFINE_integer(
        "max_images",
        None,
        "Number of photographs to choose at random; all if not set or more than there are.",
        lower_bound=2,
        flag_values=values,
    )
    absl_flags.DEFINE_list("defects", [], "Defects to measure; empty for all.", flag_values=values)
    absl_flags.DEFINE_string("network", None, "Weights to use instead of those of the package.", flag_values=values)


def run_command(values: absl_flags.FlagValues) -> None:
    """Prints the table. A distance that does not grow is an error."""
    for name in values.defects:
        check_known("defect", name, (*DEFECTS, "dropped", "duplicated"))
    failures = []
    print("\n".join(markdown.table(["defect", "strengths", "unchanged", "1", "2", "3", "4", "5"], [])))
    for name, strengths, distances in measure(values.images, values.network, values.defects, values.max_images):
        cells = (f"{distance:.2f}" for distance in distances)
        print(markdown.line([name, ", ".join(f"{strength:g}" for strength in strengths), *cells]), flush=True)
        if not all(weaker < stronger for weaker, stronger in itertools.pairwise(distances)):
            failures.append(name)
    if failures:
        raise TrainerError(f"the distance does not grow with every strength of: {', '.join(failures)}.")


main = app.command(f"{__doc__}\n", define_flags, run_command)


if __name__ == "__main__":
    sys.exit(main(sys.argv))

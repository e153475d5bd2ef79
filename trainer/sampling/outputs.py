"""Files of generated images: a grid, arrays, and a folder or an archive of single images.

Single files are written completely or not at all. Files of a folder appear after all of them are generated.

Shapes: `N` images, `B` images of a block, `H W C` an image.
"""

import contextlib
import os
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from trainer.errors import ConfigError, DataError, count_of
from trainer.image_io import MAX_PIXELS, png, tile
from trainer.storage import Location, scratch_folder
from trainer.storage.local import LocalLocation

_STAGING = ".partial"
"""Folder in a local output folder that holds its files until all of them are complete."""
_IMAGE_NAME = re.compile(r"seed-\d{8,}(-label-\d+)?\.png")
_ZIP_DATE = (1980, 1, 1, 0, 0, 0)
"""Date of the files in an archive, so that equal images are equal archives."""


def image_names(seeds: np.ndarray, labels: np.ndarray | None) -> list[str]:
    """Returns the names of single images, such as `seed-00000007.png` and `seed-00000007-label-3.png`."""
    if labels is None or labels.ndim == 2:
        return [f"seed-{seed:08d}.png" for seed in seeds.tolist()]
    return [f"seed-{seed:08d}-label-{label}.png" for seed, label in zip(seeds.tolist(), labels.tolist(), strict=True)]


def write_grid(out: Location, blocks: Iterator[np.ndarray], num_images: int, columns: int) -> None:
    """Writes a grid of N images as a PNG.

    Raises:
        DataError: If the grid would be too large to be shown.
    """
    collected: list[np.ndarray] = []
    for block in blocks:
        num_pixels = num_images * block.shape[1] * block.shape[2]
        if num_pixels > MAX_PIXELS:
            raise DataError(
                f"a grid of {count_of(num_images, 'image')} has {num_pixels:,} pixels, more than {MAX_PIXELS:,}; "
                "generate fewer images, or, if the images are single samples, write a folder, a .zip or a .npz."
            )
        collected.append(block)
    out.write_bytes(png(tile(np.concatenate(collected), columns)))


def write_arrays(out: Location, blocks: Iterator[np.ndarray], num_images: int, labels: np.ndarray | None) -> None:
    """Writes a .npy of images uint8 [N, H, W, C]; or a .npz of them as `x`, and of the labels, if there are any.

    The images are written block by block and are never in memory all at once.
    """
    with scratch_folder() as scratch:
        if out.name.lower().endswith(".npy"):
            with (scratch / out.name).open("wb") as file:
                _write_images(file, blocks, num_images)
        else:
            with zipfile.ZipFile(scratch / out.name, "w", zipfile.ZIP_DEFLATED) as archive:
                with archive.open("x.npy", "w", force_zip64=True) as member:
                    _write_images(member, blocks, num_images)
                if labels is not None:
                    with archive.open("y.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, labels, allow_pickle=False)
        out.parent.upload(scratch, [out.name])


def write_archive(out: Location, blocks: Iterator[np.ndarray], names: Sequence[str]) -> None:
    """Writes a .zip of single PNGs. The same images give the same bytes."""
    with scratch_folder() as scratch:
        with zipfile.ZipFile(scratch / out.name, "w", zipfile.ZIP_STORED) as archive:
            for name, image in zip(names, _images(blocks), strict=True):
                archive.writestr(zipfile.ZipInfo(name, _ZIP_DATE), png(image))
        out.parent.upload(scratch, [out.name])


def check_folder(out: Location, names: Sequence[str], *, keeps_images: bool = False) -> None:
    """Rejects a folder that has other files than those that are to be written, except hidden ones.

    Args:
        out: Folder to write.
        names: Names of the files to write.
        keeps_images: Whether the folder may have other files with names from `image_names`.

    Raises:
        ConfigError: If it is a file or has other files.
    """
    if out.exists():
        raise ConfigError(f"out={out} is a file; give another folder.")
    own = set(names)
    others = (entry.name for entry in out.entries() if entry.name not in own and entry.name[0] != ".")
    other = next((name for name in others if not (keeps_images and _IMAGE_NAME.fullmatch(name))), None)
    if other is not None:
        raise ConfigError(f"out={out} already has other files, such as {other}; give another folder.")


def write_folder(out: Location, files: Iterator[tuple[str, bytes]]) -> None:
    """Writes files to a folder. They appear in it once all of them are complete.

    Args:
        out: Folder that `check_folder` has accepted.
        files: Name and content of each file.
    """
    with _staging_folder(out) as staging:
        names = []
        for name, content in files:
            (staging / name).write_bytes(content)
            names.append(name)
        if isinstance(out, LocalLocation):
            for name in names:
                os.replace(staging / name, out.path / name)
        else:
            out.upload(staging, names)


def image_files(blocks: Iterator[np.ndarray], names: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yields the name and the PNG of each image."""
    for name, image in zip(names, _images(blocks), strict=True):
        yield name, png(image)


@contextlib.contextmanager
def _staging_folder(out: Location) -> Iterator[Path]:
    """Creates an empty local folder for files of a folder, on the same disk if possible, and deletes it at the end."""
    if not isinstance(out, LocalLocation):
        with scratch_folder() as scratch:
            yield scratch
        return
    is_new = not out.path.exists()
    staging = out.path / _STAGING
    shutil.rmtree(staging, ignore_errors=True)  # of a killed process
    staging.mkdir(parents=True)
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        if is_new:
            with contextlib.suppress(OSError):  # it has files
                out.path.rmdir()


def _write_images(file: IO[bytes], blocks: Iterator[np.ndarray], num_images: int) -> None:
    """Writes blocks of images uint8 [B, H, W, C] as one array [N, H, W, C] in the format of .npy."""
    first = next(blocks)
    shape, description = (num_images, *first.shape[1:]), np.lib.format.dtype_to_descr(first.dtype)
    header = {"descr": description, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    file.write(first.tobytes())
    for block in blocks:
        file.write(block.tobytes())


def _images(blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    for block in blocks:
        yield from block

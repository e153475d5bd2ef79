"""Writes endless animations: GIF, WebP, and MP4."""

import contextlib
import importlib.util
import io
import itertools
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import numpy as np
from PIL import Image

from trainer.errors import ConfigError, StorageError, quote
from trainer.image_io import over_checkerboard
from trainer.storage import Location, scratch_folder

FRAMES_PER_SEC = 25
_FRAME_MS = 1000 // FRAMES_PER_SEC
_MIN_SIDE = 128
_MAX_PIXELS = 500_000_000
"""Largest number of pixels in all frames of a GIF or WebP, which Pillow keeps in memory until the file is complete."""
_MP4_QUALITY = "16"
"""Constant rate factor of H.264, at which almost no difference can be seen."""


def check_encoder(out: Location) -> None:
    """Rejects a file whose encoder is not installed.

    Raises:
        ConfigError: If it is an MP4 and imageio-ffmpeg is not installed.
    """
    if _extension(out) == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ConfigError(
            f"out={out} needs imageio-ffmpeg, which is not installed; run pip install 'gan-trainer[video]', or write a "
            ".webp or a .gif."
        )


def check_num_pixels(out: Location, num_frames: int, height: int, width: int) -> None:
    """Rejects a GIF or WebP whose frames take too much memory. An MP4 has no limit, because it is streamed.

    Args:
        out: File to write.
        num_frames: Number of frames.
        height: Height of a frame in pixels, before small frames are enlarged.
        width: Width of a frame in pixels, before small frames are enlarged.

    Raises:
        ConfigError: If the frames together have too many pixels.
    """
    num_pixels = num_frames * height * width * _enlargement(height, width) ** 2
    if num_pixels > _MAX_PIXELS and _extension(out) != "mp4":
        raise ConfigError(
            f"out={out} would have {num_pixels:,} pixels in {num_frames:,} frames, more than the {_MAX_PIXELS:,} of a "
            ".gif or a .webp, whose frames are in memory together; write a .mp4, or fewer seconds."
        )


def write_animation(out: Location, blocks: Iterator[np.ndarray]) -> None:
    """Writes frames of 40 ms, completely or not at all. Small frames are enlarged by a whole factor.

    Only the frames of an MP4 are written one after the other; those of a GIF or WebP are in memory together.

    Args:
        out: File whose name ends in `.gif`, `.webp` or `.mp4`.
        blocks: Frames uint8 [B, H, W, 1, 3 or 4], at least one. Frames with alpha are placed on a checkerboard.
    """
    visible = (over_checkerboard(block) if block.shape[-1] == 4 else block for block in blocks)
    frames = (_enlarge(image) for block in visible for image in block)
    if _extension(out) == "mp4":
        with scratch_folder() as scratch:
            _encode_mp4(scratch / out.name, frames)
            out.parent.upload(scratch, [out.name])
    else:
        out.write_bytes(_encode(_extension(out), frames))


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Enlarges an image to at least 128 pixels on its shorter side, without new colors."""
    factor = _enlargement(*image.shape[:2])
    return image.repeat(factor, axis=0).repeat(factor, axis=1)


def _enlargement(height: int, width: int) -> int:
    return max(1, -(-_MIN_SIDE // min(height, width)))


def _extension(out: Location) -> str:
    """Returns the extension of a file in lower case, without its dot."""
    return out.name.lower().rpartition(".")[2]


def _encode(extension: str, frames: Iterator[np.ndarray]) -> bytes:
    """Returns the bytes of a GIF or WebP. Pillow keeps all frames in memory."""
    pictures = (Image.fromarray(frame[..., 0] if frame.shape[-1] == 1 else frame) for frame in frames)
    buffer = io.BytesIO()
    # A lossy WebP jumps at its key frames.
    settings = {"lossless": True} if extension == "webp" else {"disposal": 1}
    next(pictures).save(
        buffer, extension.upper(), save_all=True, append_images=pictures, duration=_FRAME_MS, loop=0, **settings
    )
    return buffer.getvalue()


def _encode_mp4(path: Path, frames: Iterator[np.ndarray]) -> None:
    """Writes an H.264 video that browsers play. Odd sizes are extended by a row or column.

    Raises:
        StorageError: If ffmpeg fails.
    """
    import imageio_ffmpeg

    first = next(frames)
    height, width = first.shape[:2]
    padding = [(0, height % 2), (0, width % 2), (0, 0)]
    size = f"{width + width % 2}x{height + height % 2}"
    pixels = "gray" if first.shape[2] == 1 else "rgb24"
    source = ["-f", "rawvideo", "-pix_fmt", pixels, "-s", size, "-r", str(FRAMES_PER_SEC), "-i", "-"]
    target = ["-c:v", "libx264", "-crf", _MP4_QUALITY, "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(path)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-y", *source, *target]
    with path.with_suffix(".log").open("w+b") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=log)
        with contextlib.suppress(BrokenPipeError), process:  # ffmpeg has ended early, and its exit code is not 0
            for frame in itertools.chain([first], frames):
                cast(IO[bytes], process.stdin).write(np.pad(frame, padding, mode="edge").tobytes())
        if process.returncode:
            log.seek(0)
            reason = log.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise StorageError(f"ffmpeg cannot write the video ({quote(reason)}); free disk space, or write a .webp.")

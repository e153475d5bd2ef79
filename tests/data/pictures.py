"""Bytes of images and arrays for the tests of sources, and checksums of prepared datasets."""

import hashlib
import io

import numpy as np
from PIL import Image


def image(seed, kind="PNG", size=(4, 4)):
    """Returns the bytes of an image file of noise, in color."""
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def idx(array, shape=None):
    """Returns the bytes of an IDX file.

    Args:
        array: Values of the file.
        shape: Shape that the file states. None: the shape of the array.
    """
    shape = array.shape if shape is None else shape
    return bytes([0, 0, 8, len(shape)]) + np.array(shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def digests(folder):
    """Returns the SHA-256 of every file in a folder, by name."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}

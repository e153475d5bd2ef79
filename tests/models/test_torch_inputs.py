"""Tensors, datasets and data loaders of PyTorch are read into memory, or refused by name. Skipped without PyTorch."""

import functools

import numpy as np
import pytest
from refusals import check_refusal

from trainer.data.pipeline.pixel_ranges import IMAGE_RANGES
from trainer.errors import DataError
from trainer.models import in_memory
from trainer.models.arrays import as_classes, read_images
from trainer.models.in_memory import read_pair

torch = pytest.importorskip("torch")

IMAGES = np.linspace(0, 255, 10 * 4 * 5 * 3).round().astype(np.uint8).reshape(10, 4, 5, 3)
LABELS = np.arange(10) % 3


@pytest.fixture
def images():
    return torch.tensor(np.moveaxis(IMAGES, -1, 1).copy())


@pytest.fixture
def labels():
    return torch.tensor(LABELS)


class Stream(torch.utils.data.IterableDataset):
    def __iter__(self):
        yield from torch.tensor(IMAGES)


def loader(*tensors, **settings):
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tensors), **settings)


@pytest.mark.parametrize("batch_size", [4, None])
def test_images_and_labels_of_loaders_are_read(images, labels, batch_size):
    for x in (loader(images, labels, batch_size=batch_size), torch.utils.data.TensorDataset(images, labels)):
        read, read_labels, _ = read_pair(x, None, 3)
        np.testing.assert_array_equal(np.asarray(read), IMAGES)
        np.testing.assert_array_equal(read_labels, LABELS)


def test_images_without_labels_and_parts_of_datasets_are_read(images):
    part = torch.utils.data.Subset(torch.utils.data.TensorDataset(images), range(6))
    for x, num_images in ((loader(images, batch_size=4), 10), (part, 6), (images, 10)):
        read, read_labels, _ = read_pair(x, None, 3)
        np.testing.assert_array_equal(np.asarray(read), IMAGES[:num_images])
        assert read_labels is None


def test_batches_of_a_loader_have_a_size(images):
    assert read_pair(loader(images, batch_size=4), None, 3)[2] == 4
    assert read_pair(loader(images, batch_size=None), None, 3)[2] is None


def test_streams_and_data_larger_than_memory_are_refused(images, monkeypatch):
    for x in (Stream(), torch.utils.data.DataLoader(Stream())):
        check_refusal(functools.partial(read_pair, x, None, 3), DataError, "x", type(x).__name__)
    monkeypatch.setattr(in_memory, "machine_memory_mib", lambda: 4 * 300 / 2**20)
    check_refusal(functools.partial(read_pair, loader(images), None, 3), DataError, "x", "DataLoader", "GiB", "prepare")


@pytest.mark.parametrize(
    "change",
    [torch.Tensor.requires_grad_, torch.Tensor.bfloat16, torch.Tensor.to_sparse],
    ids=["grad", "type", "sparse"],
)
def test_tensors_that_numpy_cannot_read_are_refused(change):
    x = change(torch.ones(4, 2, 2, 1))
    check_refusal(lambda: read_pair(x, None, 3), DataError, "x")


def test_tensors_are_read_as_arrays_are():
    floats = torch.tensor(IMAGES / 127.5 - 1)
    (read,), image_range = read_images({"x": floats}, None, IMAGE_RANGES["-1..1"])
    assert image_range == (-1.0, 1.0)
    np.testing.assert_allclose(read, floats.numpy().astype("f"))
    (read,), _ = read_images({"x": torch.tensor(IMAGES.astype("int64"))}, None, IMAGE_RANGES["-1..1"])
    np.testing.assert_array_equal(read, IMAGES)
    assert as_classes(torch.tensor([2, 0, 1, 2]), 4, 3).tolist() == [2, 0, 1, 2]
    tracked = floats.clone().requires_grad_()
    check_refusal(lambda: read_images({"x": tracked}, None, IMAGE_RANGES["-1..1"]), DataError, "x", "grad")

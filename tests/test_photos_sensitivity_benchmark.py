"""The benchmark of the suite `photos` applies each defect as documented, to equal numbers of images."""

import zipfile

import numpy as np
import pytest
from PIL import Image

from benchmarks import photos_sensitivity as benchmark

LABELS = np.repeat(np.arange(5), (40, 50, 60, 70, 80))


@pytest.fixture
def picture():
    pixels = np.random.default_rng(0).integers(60, 196, (128, 96, 3)).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", benchmark.DEFECTS)
def test_a_stronger_defect_changes_the_pixels_more(picture, name):
    change, strengths = benchmark.DEFECTS[name]
    clean = np.asarray(benchmark.resize(picture), float)
    differences = [np.abs(np.asarray(change(picture, strength), float) - clean).mean() for strength in strengths]
    assert len(strengths) == 5 and change(picture, strengths[0]).size == (64, 64)
    assert differences[-1] > differences[0] > 0
    np.testing.assert_array_equal(change(picture, strengths[1]), change(picture, strengths[1]))


def test_choices_have_equal_numbers_and_the_stated_classes_and_copies(monkeypatch):
    chosen = []
    monkeypatch.setattr(benchmark, "frechet_distance", lambda real, fake: chosen.append(fake[:, 0]) or 0.0)
    rows = np.arange(len(LABELS), dtype=float)[:, np.newaxis]
    benchmark.dropped_distances(rows, rows, LABELS)
    draws = benchmark._DRAWS
    by_strength = [chosen[start : start + draws] for start in range(0, len(chosen), draws)]
    assert {len(choice) for choice in chosen} == {40}
    classes = [[frozenset(LABELS[choice.astype(int)]) for choice in choices] for choices in by_strength]
    for sets, dropped in zip(classes[2:], (1, 2, 3, 4), strict=True):
        assert all(len(kept) <= 5 - dropped for kept in sets)
    last = [next(iter(kept)) for kept in classes[-1]]
    assert np.bincount(last, minlength=5).tolist() == [draws // 5] * 5
    chosen.clear()
    benchmark.duplicated_distances(rows, rows)
    counts = [len(set(choice)) for choice in chosen[::draws]]
    assert {len(choice) for choice in chosen} == {288}
    assert counts == [288 // copies for copies in (1, 2, 4, 8, 16, 32)]


@pytest.mark.parametrize(("max_images", "expected"), [(None, 12), (100, 12), (12, 12), (5, 5), (2, 2)])
def test_limited_images_are_the_first_of_the_same_random_order(tmp_path, picture, max_images, expected):
    path = tmp_path / "photos.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(12):
            with archive.open(f"{'abc'[number % 3]}/{number}.png", "w") as file:
                picture.crop((0, 0, 8 + number, 8)).save(file, "PNG")
    pictures, labels = benchmark.load(str(path), max_images)
    every_picture, _ = benchmark.load(str(path))
    assert len(pictures) == expected and sorted(picture.width for picture in every_picture) == list(range(8, 20))
    assert [picture.width for picture in pictures] == [picture.width for picture in every_picture[:expected]]
    letters = ["abc"[(picture.width - 8) % 3] for picture in pictures]
    np.testing.assert_array_equal(labels, [sorted(set(letters)).index(letter) for letter in letters])

"""Metrics on class labels: the divergence of mode distributions, and the matching of codes."""

import itertools

import numpy as np
import pytest

from trainer.metrics.modes import matched_accuracy, mode_divergence


def test_equal_distributions_do_not_diverge():
    counts = np.array([3000, 1000, 5000])
    assert mode_divergence(counts, 2 * counts) == pytest.approx(0, abs=1e-8)


def test_the_divergence_is_of_the_fake_from_the_real_in_nats():
    fake, real = np.array([50, 0]), np.array([25_000_000, 75_000_000])
    assert mode_divergence(fake, real) == pytest.approx(np.log(4), rel=1e-6)
    quarter = np.array([1, 3])
    assert mode_divergence(quarter, 10**8 * np.array([1, 1])) == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(1.5))


def test_a_mode_without_real_images_shares_one_image_with_all():
    assert mode_divergence(np.array([0, 0, 0, 7]), np.array([5, 5, 5, 0])) == pytest.approx(-np.log(0.25 / 16))


def test_collapse_to_one_of_k_modes_diverges_by_the_logarithm_of_k():
    assert mode_divergence(np.eye(1000)[7] * 26_000, np.full(1000, 128)) == pytest.approx(np.log(1000), rel=1e-4)


def test_a_perfect_generator_diverges_by_what_chance_gives():
    draws = np.random.Generator(np.random.PCG64(1)).integers(0, 1000, 154_000)
    fake, real = (np.bincount(part, minlength=1000) for part in (draws[:26_000], draws[26_000:]))
    assert mode_divergence(fake, real) == pytest.approx(999 / 2 * (1 / 26_000 + 1 / 128_000), rel=0.15)


def by_brute_force(codes, classes, num_classes):
    values = [*np.unique(codes)]
    values += [None] * max(0, num_classes - len(values))
    return max(
        np.mean([values[place] == code for code, place in zip(codes, np.array(order)[classes], strict=True)])
        for order in itertools.permutations(range(len(values)), num_classes)
    )


@pytest.mark.parametrize("num_codes", [1, 3, 4, 6])
def test_the_matching_is_the_best_of_all(num_codes):
    random = np.random.Generator(np.random.PCG64(num_codes))
    for _ in range(8):
        codes, classes = random.integers(0, num_codes, 30), random.integers(0, 4, 30)
        assert matched_accuracy(codes, classes, 4) == pytest.approx(by_brute_force(codes, classes, 4))


def test_the_best_matching_is_not_the_greedy_one():
    pairs = [(0, 0)] * 5 + [(0, 1)] * 4 + [(1, 0)] * 4
    codes, classes = np.array(pairs).T
    assert matched_accuracy(codes, classes, 2) == pytest.approx(8 / 13)


def test_renamed_codes_match_as_well_as_the_classes_themselves():
    classes = np.random.Generator(np.random.PCG64(0)).integers(0, 10, 1000)
    codes = np.array([17, 3, 99, 4, -5, 6, 70, 8, 1, 2])[classes]
    assert matched_accuracy(codes, classes, 10) == 1.0
    codes[:100] = 3
    assert matched_accuracy(codes, classes, 10) == 1.0 - np.mean(classes[:100] != 1) / 10


def test_many_classes_are_matched():
    classes = np.arange(1000) % 100
    assert matched_accuracy((7 * classes + 3) % 100, classes, 100) == 1.0


def test_codes_that_share_a_class_are_not_both_right():
    assert matched_accuracy(np.array([0, 0, 1, 1]), np.array([3, 3, 3, 3]), 10) == 0.5

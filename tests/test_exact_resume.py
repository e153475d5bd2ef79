"""A run that is killed with SIGKILL at random moments ends with the bits of an undisturbed run."""

import pytest

from benchmarks import exact_resume

pytestmark = pytest.mark.slow


def test_kills_change_no_bit_of_the_state():
    tally = exact_resume.count("dcgan", kills=2, seed=1, extra_flags=("--steps=120",))
    assert tally.disturbances == 2 and tally.runs >= 1
    assert tally.mismatches == 0


def test_kills_while_a_bucket_is_written_change_no_bit_of_the_state():
    tally = exact_resume.count("vanilla", kills=1, seed=1, extra_flags=("--steps=80",), in_bucket=True)
    assert tally.disturbances == 1 and tally.runs >= 1
    assert tally.mismatches == 0

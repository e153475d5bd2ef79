"""A run that is killed with SIGKILL at random moments ends with the bits of one that is not."""

import pytest

from benchmarks import exact_resume

STEPS = {"vanilla": "--steps=600", "dcgan": "--steps=120"}


@pytest.mark.parametrize(("recipe", "kills"), [("vanilla", 2), ("dcgan", 1)])
def test_kills_change_no_bit_of_the_state(recipe, kills):
    tally = exact_resume.count(recipe, kills=kills, seed=1, more=(STEPS[recipe],))
    assert tally.kills == kills and tally.runs >= 1
    assert tally.mismatches == 0


def test_kills_while_a_bucket_is_written_change_no_bit_of_the_state():
    tally = exact_resume.count("vanilla", kills=1, seed=1, more=("--steps=80",), in_bucket=True)
    assert tally.kills == 1 and tally.runs >= 1
    assert tally.mismatches == 0

"""Classes by name or number."""

import time

import pytest
from refusals import check_refusal

from trainer.data.class_selection import select_classes
from trainer.data.datasets import DatasetInfo
from trainer.errors import ConfigError

NAMES = ("1", "2", "10", "cat", "dog")


@pytest.mark.parametrize(
    ("classes", "numbers"),
    [
        (("cat", "dog"), (3, 4)),
        ((3, 0), (3, 0)),
        (("4", "0"), (4, 0)),
        (("10",), (2,)),
        ((1, 2), (1, 2)),
        (("01", "02"), (1, 2)),
        ((), ()),
    ],
    ids=["names", "integers", "numbers as text", "a numeric name", "integers that are names", "zeros", "none"],
)
def test_classes_are_selected_by_name_or_number(classes, numbers):
    assert select_classes(classes, NAMES, "pets") == numbers


@pytest.mark.parametrize("selected", ["cta", "5", 5, -1, "-1", "\u00b2"])
def test_an_unknown_class_is_refused(selected):
    check_refusal(lambda: select_classes(("dog", selected), NAMES, "pets"), ConfigError, "classes", "pets", "cat")


def test_the_nearest_class_is_listed_first():
    with pytest.raises(ConfigError) as refused:
        select_classes(("cta",), NAMES, "pets")
    message = str(refused.value)
    assert all(message.index("cat") < message.index(name) for name in ("dog", "10"))


def test_the_classes_of_a_message_have_their_numbers():
    names = ["daisy", "dandelion", "rose"]
    check_refusal(lambda: select_classes(("roses",), names, "data/flowers"), ConfigError, "rose (2), daisy (0)")


def test_a_class_selected_twice_is_refused():
    check_refusal(lambda: select_classes(("cat", 3), NAMES, "pets"), ConfigError, "classes", "cat")


@pytest.mark.parametrize(
    ("names", "selected", "by_name", "by_number"),
    [(NAMES, "1", "0", "01"), (NAMES, "2", "01", "02"), (("1", "2", "01"), "1", "0", "001")],
)
def test_the_name_of_one_class_that_is_the_number_of_another_is_refused(names, selected, by_name, by_number):
    check_refusal(
        lambda: select_classes((selected,), names, "pets"), ConfigError, "classes", repr(selected), by_name, by_number
    )
    numbers = select_classes((by_name, by_number), names, "pets")
    assert numbers == (names.index(selected), int(selected))


def test_a_name_that_is_also_the_number_of_its_class_is_not_ambiguous():
    assert select_classes(("0", "2", 1), ("0", "1", "2"), "digits") == (0, 2, 1)


def test_an_unknown_class_is_quoted():
    check_refusal(lambda: select_classes(("a\nb",), NAMES, "pets"), ConfigError, repr("a\nb"))


def test_many_classes_are_selected_in_one_pass():
    names = tuple(f"class {number}" for number in range(50_000))
    info = DatasetInfo("pets", (4, 4, 3), (1,) * len(names), names)
    start = time.monotonic()
    assert select_classes(names[::-1], names, "pets") == tuple(range(len(names)))[::-1]
    assert info.with_classes(range(1, len(names))).num_examples == len(names) - 1
    assert time.monotonic() - start < 5

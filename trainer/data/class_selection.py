"""Selects classes of a dataset by name or number."""

import difflib
import re
from collections.abc import Mapping, Sequence

from trainer.config import TrainConfig
from trainer.data.datasets import describe
from trainer.errors import ConfigError, count_of, list_some, quote

_MAX_LISTED = 20


def with_class_numbers(config: TrainConfig) -> TrainConfig:
    """Returns the config with a number for each class that it selects by name.

    Raises:
        ConfigError: If a class is unknown, ambiguous or selected twice, or the dataset is unknown.
        DataError: If the description of the dataset cannot be read.
    """
    if config.classes is None:
        return config
    class_names = describe(config.dataset).class_names
    return config.override(classes=select_classes(config.classes, class_names, config.dataset))


def select_classes(classes: Sequence[int | str], class_names: Sequence[str], source: str) -> tuple[int, ...]:
    """Returns the numbers of the selected classes, as `class_number` does.

    Args:
        classes: Names or numbers of classes.
        class_names: Names of all classes; the position of a name is the number of its class.
        source: Name of the dataset or source, for messages.

    Raises:
        ConfigError: If a name or number is unknown or ambiguous, or a class is selected twice.
    """
    by_name = _numbers_by_name(class_names)
    numbers: dict[int, None] = {}
    for selected in classes:
        number = _class_number(selected, by_name, class_names, source, "classes")
        if number in numbers:
            raise ConfigError(
                f"classes={quote(','.join(map(str, classes)))} has class {quote(class_names[number])} twice; give each "
                "class once."
            )
        numbers[number] = None
    return tuple(numbers)


def class_number(selected: int | str, class_names: Sequence[str], source: str, setting: str) -> int:
    """Returns the number of a class.

    An integer is a class number. A string is a class name or a class number in decimal digits. Digits that are the name
    of one class and the number of another are ambiguous; with zeros before them, such as `02`, they are a number.

    Args:
        selected: Name or number of the class.
        class_names: Names of all classes; the position of a name is the number of its class.
        source: Name of the dataset or source, for messages.
        setting: Name of the setting, for messages.

    Raises:
        ConfigError: If the name or number is unknown or ambiguous.
    """
    return _class_number(selected, _numbers_by_name(class_names), class_names, source, setting)


def _numbers_by_name(class_names: Sequence[str]) -> dict[str, int]:
    """Returns the number of each class, of equal names the first one."""
    return {name: number for number, name in reversed(list(enumerate(class_names)))}


def _class_number(
    selected: int | str, numbers: Mapping[str, int], class_names: Sequence[str], source: str, setting: str
) -> int:
    by_name = numbers.get(selected) if isinstance(selected, str) else None
    by_number = int(selected) if isinstance(selected, int) or re.fullmatch("[0-9]{1,18}", selected) else None
    if by_number is not None and not 0 <= by_number < len(class_names):
        by_number = None
    if by_name is not None and by_number is not None and by_name != by_number:
        raise ConfigError(
            f"{setting}={quote(selected)} is ambiguous: it is the name of class {by_name} of {source} and the number "
            f"of class {quote(class_names[by_number])}; pass {_number_text(by_name, numbers)} for the class with "
            f"this name, or {_number_text(by_number, numbers)} for the class with this number."
        )
    number = by_number if by_name is None else by_name
    if number is not None:
        return number
    text = str(selected)
    if len(class_names) == 1:
        raise ConfigError(
            f"{setting}={quote(selected)} is not a class of {source}, which has only {class_names[0]}; omit it."
        )
    nearest = sorted(enumerate(class_names), key=lambda pair: -difflib.SequenceMatcher(None, text, pair[1]).ratio())
    listed = list_some((f"{name} ({number})" for number, name in nearest), _MAX_LISTED)
    raise ConfigError(
        f"{setting}={quote(selected)} is not one of the {count_of(len(class_names), 'class')} of {source}; give a "
        f"name or its number, from 0 to {len(class_names) - 1}: {listed}."
    )


def _number_text(number: int, numbers: Mapping[str, int]) -> str:
    """Returns a class number with as many zeros before it as it takes to differ from all class names."""
    text = str(number)
    while numbers.get(text, number) != number:
        text = f"0{text}"
    return text

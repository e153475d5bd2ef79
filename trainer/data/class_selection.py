"""Selects classes of a data set by name or number."""

import difflib
from collections.abc import Sequence

from trainer.config import TrainConfig
from trainer.data.datasets import describe
from trainer.errors import ConfigError, quote

_MAX_LISTED = 20


def with_class_numbers(config: TrainConfig) -> TrainConfig:
    """Returns the config with a number for each class that it selects by name.

    Raises:
        ConfigError: If a class is unknown or selected twice, or the data set is unknown.
        DataError: If the description of the data set cannot be read.
    """
    if config.classes is None:
        return config
    class_names = describe(config.dataset).class_names
    return config.override(classes=select_classes(config.classes, class_names, config.dataset))


def select_classes(classes: Sequence[int | str], class_names: Sequence[str], source: str) -> tuple[int, ...]:
    """Returns the numbers of the selected classes.

    A string is a class name or, if no class has that name, a class number in decimal digits. An integer is a class
    number.

    Args:
        classes: Names or numbers of classes.
        class_names: Names of all classes; the position of a name is the number of its class.
        source: Name of the data set or source, for messages.

    Raises:
        ConfigError: If a name or number is unknown, or a class is selected twice.
    """
    numbers = tuple(_class_number(selected, class_names, source) for selected in classes)
    for number in numbers:
        if numbers.count(number) > 1:
            raise ConfigError(
                f"classes={quote(','.join(map(str, classes)))} has class {quote(class_names[number])} twice; give each "
                "class once."
            )
    return numbers


def _class_number(selected: int | str, class_names: Sequence[str], source: str) -> int:
    if selected in class_names:
        return class_names.index(str(selected))
    if isinstance(selected, int) or selected.isdecimal():
        number = int(selected)
        if 0 <= number < len(class_names):
            return number
    text = str(selected)
    nearest = sorted(class_names, key=lambda name: -difflib.SequenceMatcher(None, text, name).ratio())
    listed = ", ".join(nearest[:_MAX_LISTED]) + (", …" if len(nearest) > _MAX_LISTED else "")
    raise ConfigError(
        f"classes={text} is not one of the {len(class_names)} classes of {source}; give a name or a number from 0 to "
        f"{len(class_names) - 1}: {listed}."
    )

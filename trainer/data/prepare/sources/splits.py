"""Splits of a source, such as `train` and `test`: recognized by the names of folders, files and arrays."""

import re
from collections.abc import Iterable, Mapping, Sequence

from trainer.errors import ConfigError, count_of, escape, list_some, quote

_SPLIT_WORD = r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?|dev|eval(?:uation)?"
_SPLIT_FOLDER = re.compile(rf"(?:{_SPLIT_WORD})[ _-]?(?:a|b|set|data|images|\d{{4}})?", re.IGNORECASE)
_WORD = re.compile(r"[^A-Za-z0-9]+")
_DEFAULT_SPLITS = ("train", "training")
_MAX_LISTED = 10


def is_split_folder(name: str) -> bool:
    """Returns whether the name of a folder is that of a split, such as `train`, `Test` or `trainA`."""
    return _SPLIT_FOLDER.fullmatch(name) is not None


def without_split(name: str) -> tuple[str, str | None]:
    """Divides the name of an array or a file into the name without the split, and the split.

    Returns:
        The lowercase words of the name joined by `_`, such as `x` for `x_train` and for `train_set_x`; and the split,
        such as `train`, or None.
    """
    words = [word for word in _WORD.split(name.lower()) if word]
    split = next((word for word in words if re.fullmatch(_SPLIT_WORD, word)), None)
    return "_".join(word for word in words if split is None or word not in (split, "set")), split


def choose_splits(sizes: Mapping[str, int], wanted: Sequence[str], unit: str, source: str) -> tuple[list[str], str]:
    """Selects the splits to read: those that the user names, else `train`.

    Args:
        sizes: Number of images or files of each split.
        wanted: Names that the user gives; may be empty.
        unit: Noun for what `sizes` counts, such as `image`.
        source: Name of the source, for messages.

    Returns:
        The names of the selected splits, and a sentence about those that are not read; an empty string if the user
        selects them.

    Raises:
        ConfigError: If a name is unknown, there are no splits, or no name is given and there is no split `train`.
    """
    if not sizes:
        raise ConfigError(f"split={quote(','.join(wanted))} was given for {source}, which has no splits; omit it.")
    listed = describe_counts(sizes, unit)
    unknown = next((name for name in wanted if name not in sizes), None)
    if unknown is not None:
        raise ConfigError(f"split={quote(unknown)} is not a split of {source}, which has {listed}; choose from them.")
    chosen = list(wanted) or [name for name in sizes if name.lower() in _DEFAULT_SPLITS]
    if len(chosen) != 1 and not wanted:
        raise ConfigError(
            f"{source} has the splits {listed}, and none is `train`; name those to read, as "
            f"--split={next(iter(sizes))}."
        )
    left_out = {name: size for name, size in sizes.items() if name not in chosen}
    if wanted or not left_out:
        return chosen, ""
    return chosen, (
        f"Only the split {escape(chosen[0])} is read, without {describe_counts(left_out, unit)}; to read others, pass "
        "their names as --split."
    )


def describe_counts(counts: Mapping[str, int], unit: str) -> str:
    """Returns a list such as `train (60,000 images), test (10,000 images)`."""
    return list_some((f"{escape(name)} ({count_of(count, unit)})" for name, count in counts.items()), _MAX_LISTED)


def select_files(names: Iterable[str], wanted: Sequence[str], source: str) -> tuple[list[str], list[str]]:
    """Selects the files of a source that consists of one or more files per split.

    Args:
        names: Names of the files, such as `data/train-00000-of-00002.parquet`.
        wanted: Names of the splits that the user gives; may be empty.
        source: Name of the source, for messages.

    Returns:
        The selected names in their order, and sentences about those that are not read.

    Raises:
        ConfigError: As `choose_splits`.
    """
    split_of = {name: without_split(name)[1] or name.rpartition("/")[2] for name in names}
    known = {split for name, split in split_of.items() if without_split(name)[1]}
    if not wanted and len(known) < 2 and (not known or len(set(split_of.values())) == 1):
        return list(split_of), []
    sizes: dict[str, int] = {}
    for split in split_of.values():
        sizes[split] = sizes.get(split, 0) + 1
    chosen, note = choose_splits(sizes, wanted, "file", source)
    return [name for name, split in split_of.items() if split in chosen], [note] if note else []

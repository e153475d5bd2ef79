"""Pairs of an input and an image: two folders with equal names, or both side by side in one file."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from trainer.data.prepare.sources.base import Item, SelectedSource, Source
from trainer.data.prepare.sources.tables import composed
from trainer.errors import ConfigError, DataError, count_of, list_some, quote

SIDES = ("left", "right")
"""Halves of a file in which an input and an image are side by side."""
_INPUT_NAMES = ("input", "inputs", "a", "source", "sources", "condition", "conditions", "x")
"""Names of the folder of the inputs, in lower case, by which it is recognized."""
_MAX_LISTED = 10


class PairedSource(SelectedSource):
    """Images of a source, each with an input. `inputs` is a source of the inputs, with the same indices.

    Args:
        images: Source of the images.
        inputs: Source of the inputs.
        image_side: Half of each file that is the image, one of `SIDES`; the other half is the input. None: the files
            are whole images.
        notes: Sentences about the source.
    """

    def __init__(self, images: Source, inputs: Source, image_side: str | None = None, notes: Sequence[str] = ()):
        super().__init__(images, range(len(images.items)))
        self.inputs, self.image_side = inputs, image_side
        self.input_side = None if image_side is None else SIDES[1 - SIDES.index(image_side)]
        self.items, self.class_names, self.notes = images.items, images.class_names, notes


class _Selection(SelectedSource):
    """Some items of another source, in one class."""

    def __init__(self, source: Source, indices: Sequence[int], class_name: str):
        super().__init__(source, indices)
        self.items = [dataclasses.replace(source.items[index], label=0) for index in indices]
        self.class_names = (class_name,)


def pair_halves(source: Source, input_side: str | None = None) -> PairedSource:
    """Returns the pairs of a source whose files have an input and an image side by side.

    Args:
        source: Source of the files. Their classes stay.
        input_side: Half that is the input, one of `SIDES`. None: the left one.

    Raises:
        ConfigError: If the side is unknown.
    """
    side = input_side or SIDES[0]
    if side not in SIDES:
        raise ConfigError(f"input={quote(side)} is no half of an image; give {' or '.join(SIDES)}.")
    return PairedSource(source, source, SIDES[1 - SIDES.index(side)], [*source.notes, *source.class_notes])


def pair_folders(source: Source, name: str, input_folder: str | None = None, max_unpaired: int = 0) -> PairedSource:
    """Returns the pairs of a source with two folders, whose files have equal names apart from their suffixes.

    Args:
        source: Source whose classes are the two folders. Folders in them are parts of the names.
        name: Name of the source, for messages.
        input_folder: Name of the folder of the inputs. None: the one with a usual name such as `input` or `A`, or else
            the first one.
        max_unpaired: Largest number of files without a partner to leave out.

    Raises:
        ConfigError: If there is no such folder.
        DataError: If there are not exactly two folders, a name occurs twice, or too many files have no partner.
    """
    folders = source.class_names
    if len(folders) != 2:
        listed = list_some(map(quote, folders), _MAX_LISTED)
        raise DataError(
            f"{name} has {count_of(len(folders), 'folder')} ({listed}), expected two, such as input and target, with "
            "files of equal names; move the files, or pass --paired=side_by_side for files with both images."
        )
    if input_folder is None:
        input_folder = next((folder for folder in folders if folder.lower() in _INPUT_NAMES), folders[0])
    if input_folder not in folders:
        raise ConfigError(
            f"input={quote(input_folder)} is not a folder of {name}; give {' or '.join(map(quote, folders))}."
        )
    input_label = folders.index(input_folder)
    inputs, images = (_indices_by_key(source, label) for label in (input_label, 1 - input_label))
    keys = [key for key in images if key in inputs]
    unpaired = [
        source.items[index].name
        for side, other in ((inputs, images), (images, inputs))
        for key, index in side.items()
        if key not in other
    ]
    notes = list(source.notes)
    if unpaired:
        text = (
            f"{name} has {count_of(len(unpaired), 'file')} without a partner of the same name in the other folder: "
            f"{list_some(map(quote, unpaired), _MAX_LISTED)}"
        )
        if len(unpaired) > max_unpaired or not keys:
            raise DataError(f"{text}. Add or remove files, or allow more than --max_bad_images={max_unpaired}.")
        notes.append(f"{text}. They are left out.")
    target = folders[1 - input_label]
    return PairedSource(
        _Selection(source, [images[key] for key in keys], target),
        _Selection(source, [inputs[key] for key in keys], input_folder),
        notes=notes,
    )


def _indices_by_key(source: Source, label: int) -> Mapping[str, int]:
    """Returns the index of each item of a folder by its path without the folder and the suffix."""
    folder = source.class_names[label]
    indices: dict[str, int] = {}
    for index, item in enumerate(source.items):
        if item.label != label:
            continue
        key = _key(item, folder)
        if key in indices:
            raise DataError(
                f"{quote(source.items[indices[key]].name)} and {quote(item.name)} have the same name apart from their "
                "suffixes, so that their partner is not known; rename or remove one of them."
            )
        indices[key] = index
    return indices


def _key(item: Item, folder: str) -> str:
    parts = list(PurePosixPath(composed(item.name)).with_suffix("").parts)
    folder = composed(folder)
    if folder in parts[:-1]:
        parts.remove(folder)
    return "/".join(parts)

"""Selects the images among the files of a folder or an archive, and their classes. What is left out is described."""

import collections
import heapq
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from trainer.data.prepare.sources.base import IMAGE_SUFFIXES, NO_LABELS, Item, SourceOptions
from trainer.data.prepare.sources.metadata_files import is_metadata, read_labels
from trainer.data.prepare.sources.splits import choose_splits, is_split_folder
from trainer.data.prepare.sources.tables import find_path, with_composed, without_dot
from trainer.data.prepare.sources.unsupported import PICKLE_ADVICE, is_pickle
from trainer.errors import ConfigError, DataError, count_of, escape, list_some, quote
from trainer.storage.natural_order import natural_sort_key

ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar")
DATA_SUFFIXES = (".npy", ".npz", ".h5", ".hdf5", ".parquet", ".tfrecord", ".csv")
_OTHER_IMAGE_SUFFIXES = (
    *(".heic", ".heif", ".jp2", ".j2k", ".jpx", ".jxl", ".svg", ".psd", ".tga", ".ico", ".dds", ".exr", ".hdr"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raw", ".eps", ".pdf", ".dcm", ".mp4", ".mov", ".avi", ".xcf"),
)
_OTHER_DATA_SUFFIXES = (".arrow", ".feather", ".mat", ".mdb", ".bin", ".rec", ".tfevents", ".lmdb", ".zarr", ".nc")
_PARTS = re.compile(
    r"(?:images?|imgs?|pictures|photos|masks?|labels?|annotations?|segmentations?|inputs?|targets?)", re.I
)
"""Name of a folder with one part of each example, such as the masks of images."""
_HIDDEN = re.compile(r"(?:^|/)(?:\.(?!/|$)|__MACOSX|@eaDir(?:/|$))")
_MAX_LISTED = 8
_MIN_IMAGES_FOR_CLASS_NOTES = 10
_NUM_KEYS = 50_000
"""Number of names that are sorted at a time."""
_Paths = dict[str, tuple[str, ...]]
"""Folders of each image without outer ones, and an empty part for its file, by its name. Images of a folder share a
tuple, so that a list of millions fits into memory."""


@dataclass(frozen=True)
class Listing:
    """Selected images of a folder or an archive.

    Attributes:
        items: Images, sorted by class, then in natural order.
        class_names: Class names by label.
        notes: Sentences about files that are left out.
        class_notes: Sentences about classes that look like a mistake.
    """

    items: list[Item]
    class_names: tuple[str, ...]
    notes: list[str]
    class_notes: list[str]


def is_image(name: str) -> bool:
    """Returns whether a file is an image by its suffix, and neither hidden nor in a hidden folder."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)


def is_needed(name: str) -> bool:
    """Returns whether the content of a file is needed: whether it is an image or may contain labels."""
    return is_image(name) or (is_metadata(name) and not is_hidden(name))


def is_hidden(name: str) -> bool:
    """Returns whether a file or one of its folders is hidden: its name begins with a dot, or a system made it."""
    return _HIDDEN.search(name) is not None


def list_images(
    names: Iterable[str],
    source: str,
    flat_class: str,
    options: SourceOptions,
    read: Callable[[str], bytes],
    subfolders: Callable[[str], Iterable[str]] = lambda prefix: (),
) -> Listing:
    """Selects the images among the files of a source.

    The classes come from a file with labels if there is one, else from folders: `CLASS/…/FILE`. A folder that contains
    all others is not a class, nor is a split such as `train`. Files without a folder form one class.

    Args:
        names: Names relative to the source, with `/` as the separator, and at the end of the name of a folder.
        source: Name of the source, for messages.
        flat_class: Name of the class of files without a folder.
        options: Options of the source.
        read: Function that returns the content of a file.
        subfolders: Function that returns the names of the folders in a folder, if `names` has only files.

    Raises:
        ConfigError: If a split is unknown or must be chosen.
        DataError: If only some of the images have a class, or a file with labels is damaged.
    """
    images: list[str] = []
    others: list[str] = []
    hidden: list[str] = []
    for name in names:
        is_picture = name.lower().endswith(IMAGE_SUFFIXES)
        (hidden if is_hidden(name) else images if is_picture else others).append(name)
    notes = _describe_skipped(others, len(images))
    if num_hidden := sum(name.lower().endswith(IMAGE_SUFFIXES) and not _is_made_by_system(name) for name in hidden):
        notes.append(
            f"Hidden images are left out: {num_hidden:,}. To use them, rename files and folders that begin with a dot."
        )
    if not images:
        return Listing([], (), notes, [])
    paths, more = _remove_outer_folders(_paths_of(images), options.split, source)
    notes += more
    wants_labels = options.label_field != NO_LABELS
    labels, more = (
        read_labels([name for name in others if is_metadata(name)], read, options.label_field)
        if wants_labels
        else ({}, [])
    )
    notes += more
    if labels is None and options.label_field is not None:
        raise ConfigError(
            f"label_field={quote(options.label_field)} needs a metadata.csv or metadata.jsonl with this column, and "
            f"{source} has none; omit it, or pass --label_field={NO_LABELS} for one class."
        )
    class_notes = []
    if labels:
        class_of = _classes_of_metadata(paths, labels, images, source)
    elif labels is not None:
        class_of = dict.fromkeys(paths, flat_class)
    else:
        class_of = _classes_of_folders(paths, flat_class)
        class_notes += _describe_folders(paths, others, subfolders)
    class_names = tuple(sorted(dict.fromkeys(class_of.values()), key=natural_sort_key))
    class_notes += describe_classes(class_names, len(paths))
    numbers = {name: label for label, name in enumerate(class_names)}
    names_of_class: list[list[str]] = [[] for _ in class_names]
    for name in paths:
        names_of_class[numbers[class_of[name]]].append(name)
    items = [Item(name, label) for label, members in enumerate(names_of_class) for name in _sort(members)]
    return Listing(items, class_names, notes, class_notes)


def describe_classes(class_names: Sequence[str], num_images: int) -> list[str]:
    """Returns sentences about class names that look like a mistake."""
    notes = []
    spellings = collections.defaultdict(list)
    for name in class_names:
        spellings[unicodedata.normalize("NFKC", name).casefold().strip()].append(name)
    same = [f"{' and '.join(map(quote, names))}" for names in spellings.values() if len(names) > 1]
    if same:
        notes.append(
            f"These classes differ only in case, spaces or the encoding of letters: {list_some(same, _MAX_LISTED)}; "
            "rename them if they are the same class."
        )
    if num_images >= _MIN_IMAGES_FOR_CLASS_NOTES and 2 * len(class_names) > num_images:
        notes.append(
            f"{count_of(num_images, 'image')} have {count_of(len(class_names), 'class')}; if these are no classes, "
            f"pass --label_field={NO_LABELS}."
        )
    elif len(class_names) > 1 and all(len(name) >= 4 and name.isdecimal() for name in class_names):
        notes.append(
            f"The classes are {class_names[0]} to {class_names[-1]}; if these only number or divide the images, pass "
            f"--label_field={NO_LABELS}."
        )
    return notes


def _sort(names: Sequence[str]) -> Iterator[str]:
    """Yields names in natural order. Few of their sort keys, which are larger than the names, exist at a time."""
    parts = [
        sorted(names[start : start + _NUM_KEYS], key=natural_sort_key) for start in range(0, len(names), _NUM_KEYS)
    ]
    return heapq.merge(*parts, key=natural_sort_key)


def _paths_of(names: Iterable[str]) -> _Paths:
    folders: dict[str, tuple[str, ...]] = {}
    paths: _Paths = {}
    for name in names:
        folder = name[: name.rfind("/") + 1]
        paths[name] = folders.setdefault(folder, (*_split_path(folder)[:-1], ""))
    return paths


def _remove_first_folder(paths: _Paths) -> _Paths:
    shorter = {path: path[1:] for path in set(paths.values())}
    return {name: shorter[path] for name, path in paths.items()}


def _remove_outer_folders(paths: _Paths, wanted: Sequence[str], source: str) -> tuple[_Paths, list[str]]:
    """Removes folders that contain all others, and the folders of splits. Keeps the images of the selected splits."""
    notes = []
    all_folders = collections.Counter(path[0] for path in paths.values() if len(path) > 1)
    has_chosen = False
    while True:
        folders = collections.Counter(path[0] for path in paths.values() if len(path) > 1)
        num_loose = sum(len(path) == 1 for path in paths.values())
        splits = [name for name in folders if is_split_folder(name)]
        if not has_chosen and (any(name in folders for name in wanted) or (not wanted and len(splits) > 1)):
            chosen, note = choose_splits(folders, wanted, "image", source)
            notes += [note] if note else []
            if num_loose:
                notes.append(f"Images beside the folders {', '.join(map(quote, chosen))} are left out: {num_loose:,}.")
            paths = {name: path for name, path in paths.items() if len(path) > 1 and path[0] in chosen}
            paths = _remove_first_folder(paths)
            has_chosen = True
        elif len(folders) == 1 and not num_loose and any(len(path) > 2 for path in paths.values()):
            paths = _remove_first_folder(paths)
        else:
            break
    if wanted and not has_chosen:
        choose_splits(all_folders, wanted, "image", source)
    return paths, notes


def _classes_of_metadata(
    paths: _Paths, labels: Mapping[str, str], images: Sequence[str], source: str
) -> dict[str, str]:
    """Returns the class of each image from a file with labels, whose paths must be those of all images."""
    by_path = with_composed({without_dot(name): name for name in images})
    names = {path: find_path(path, by_path) for path in labels}
    class_of = {name: labels[path] for path, name in names.items() if name is not None}
    missing = [path for path, name in names.items() if name is None]
    unlabeled = [name for name in paths if name not in class_of]
    if unlabeled:
        raise DataError(
            f"{source} has {len(unlabeled):,} of {count_of(len(paths), 'image')} without a label in its files with "
            "labels, such "
            f"as {quote(unlabeled[0])}; add their labels, remove the images, or pass --label_field={NO_LABELS}."
        )
    if missing:
        raise DataError(
            f"{source} has labels of {count_of(len(missing), 'file')} that do not exist or are not images, such as "
            f"{quote(missing[0])}; add the files, or remove the labels."
        )
    return {name: class_of[name] for name in paths}


def _classes_of_folders(paths: _Paths, flat_class: str) -> dict[str, str]:
    flat_file = next((name for name, path in paths.items() if len(path) == 1), None)
    if flat_file is not None and any(len(path) > 1 for path in paths.values()):
        raise DataError(
            f"{flat_file} is beside the subfolders, each of which is a class; move it into one of them, or pass "
            f"--label_field={NO_LABELS}."
        )
    return {name: path[0] if len(path) > 1 else flat_class for name, path in paths.items()}


def _describe_folders(paths: _Paths, others: Sequence[str], subfolders: Callable[[str], Iterable[str]]) -> list[str]:
    """Returns sentences about folders that are not classes: those without images, and those in other folders."""
    notes = []
    classes = {path[0] for path in paths.values() if len(path) > 1}
    prefixes = {tuple(_split_path(name)[: -len(path)]) for name, path in paths.items()}
    folders = {
        parts[len(prefix)]
        for parts in map(_split_path, others)
        for prefix in prefixes
        if len(parts) > len(prefix) + 1 and tuple(parts[: len(prefix)]) == prefix
    }
    for prefix in prefixes:
        folders.update(name for name in subfolders("/".join(prefix)) if not is_hidden(name))
    empty = sorted(folders - classes)
    if empty:
        notes.append(f"These folders have no images and are not classes: {list_some(map(quote, empty), _MAX_LISTED)}.")
    parts = sorted(name for name in classes if _PARTS.fullmatch(name))
    if parts and len(classes) > 1:
        notes.append(
            f"Classes have the names of parts of examples: {list_some(map(quote, parts), _MAX_LISTED)}. If they are "
            f"no classes, pass one of the folders as --source, or --label_field={NO_LABELS}."
        )
    inner = collections.Counter("/".join(path[:2]) for path in paths.values() if len(path) > 2)
    if inner:
        notes.append(
            f"The classes are the folders {list_some(map(quote, sorted(classes)), _MAX_LISTED)}; the "
            f"{count_of(len(inner), 'folder')} in them, such as {quote(next(iter(inner)))}, are not classes. To use "
            "those, pass their parent as --source."
        )
    return notes


def _describe_skipped(names: Sequence[str], num_images: int) -> list[str]:
    """Returns sentences about the files without a suffix of images that have no labels either."""
    skipped = [name for name in names if not name.endswith("/") and not is_metadata(name)]
    if not skipped:
        return []
    counts = collections.Counter(escape(PurePosixPath(name).suffix.lower()) or "without a suffix" for name in skipped)
    listed = list_some((f"{count:,} {suffix}" for suffix, count in counts.most_common()), _MAX_LISTED)
    text = f"Skipped {len(skipped):,} of {count_of(len(skipped) + num_images, 'file')}: {listed}."
    if counts.keys() & set(_OTHER_IMAGE_SUFFIXES):
        text += " To use pictures in these formats, convert them to PNG or JPEG."
    if counts.keys() & set(ARCHIVE_SUFFIXES):
        text += " To use archives, unpack them, or pass each one as --source."
    if counts.keys() & set(_OTHER_DATA_SUFFIXES):
        text += " To use data in these formats, save it as .npz, .h5 or .parquet."
    if counts.keys() & set(DATA_SUFFIXES):
        text += " To use files of arrays or records, pass one as --source."
    if any(map(is_pickle, skipped)):
        text += f" Some are {PICKLE_ADVICE}."
    return [text]


def _split_path(name: str) -> list[str]:
    return [part for part in name.split("/") if part != "."]


def _is_made_by_system(name: str) -> bool:
    """Returns whether a hidden file is a copy without content that macOS makes, or a thumbnail of a Synology NAS."""
    parts = _split_path(name)
    return "__MACOSX" in parts or "@eaDir" in parts or parts[-1].startswith("._")

"""Prefixes in the names of datasets: `inverted:digits` is made from `digits` while it is loaded."""

from trainer.config.choices import Choice


class DatasetPrefix(Choice):
    """Prefix of a dataset that is made from another one."""

    STACKED = "stacked"
    INVERTED = "inverted"
    TINTED = "tinted"
    GRAY_TO_COLOR = "gray_to_color"


def split_prefix(name: str) -> tuple[DatasetPrefix | None, str]:
    """Splits the name of a dataset: `inverted:tinted:digits` into `inverted` and `tinted:digits`.

    Returns:
        prefix: First prefix of the name; None if it has none.
        source: Name of the source, or the name itself.
    """
    prefix, colon, source = name.partition(":")
    return (DatasetPrefix(prefix), source) if colon and prefix in DatasetPrefix.values() else (None, name)

"""The list of all recipes on the documentation page: where each is measured, and which page explains it."""

from collections.abc import Sequence

from benchmarks import photograph_table
from benchmarks.markdown import MISSING, table
from benchmarks.recipe_records import MEASURED, Record, Row
from trainer.config import recipes

_HEADER = ("recipe", "description", "measured in", "page")
_PAGES = {
    "fastgan": "few_images.md",
    "photos": "photos.md",
    "pix2pix": "pix2pix.md",
    "r3gan": "photos.md#comparison-with-published-presets",
    "r3gan_conditional": "photos.md#comparison-with-published-presets",
    "stylegan2": "stylegan2.md",
    "stylegan2_ada": "stylegan2.md",
    "stylegan2_conditional": "stylegan2.md",
}
"""Page that explains a recipe, and that states what was measured if no row of the benchmark does."""


def render(rows: Sequence[tuple[Row, Record | None]]) -> list[str]:
    """Returns the lines of a table of all registered recipes.

    Args:
        rows: Rows of the benchmark with their records.
    """
    names: dict[str, list[str]] = {name: [] for name in recipes.names()}
    for row, record in rows:
        is_shown = record is not None and record.outcome in MEASURED and not photograph_table.has_other_seed(row)
        if is_shown and row.recipe in names:
            names[row.recipe].append(f"`{row.name}`")
    cells = [
        [f"`{name}`", recipes.summary(name), ", ".join(measured) or MISSING, _link(name)]
        for name, measured in names.items()
    ]
    return ["## All recipes", "", *table(_HEADER, cells)]


def _link(name: str) -> str:
    page = _PAGES.get(name)
    return MISSING if page is None else f"[{page.partition('#')[0]}]({page})"

"""Markdown tables of the benchmarks."""

from collections.abc import Iterable, Sequence

MISSING = "–"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table."""
    return [line(header), line(["---"] * len(header)), *map(line, rows)]


def line(cells: Sequence[str]) -> str:
    """Returns a line of a table."""
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def number(value: float) -> str:
    """Formats a value with three digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

"""The documentation page of the recipe benchmark: tables between two markers, commands and thumbnails."""

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks import device_table, photograph_table
from benchmarks.markdown import MISSING, number, table
from benchmarks.recipe_records import MEASURED, Record, Row
from trainer.config import recipes
from trainer.errors import ConfigError, count_of
from trainer.storage import RunDirectory, write_atomically
from trainer.storage.run_directory import sample_grids

BEGIN = "<!-- The part up to the next mark is written by: python -m benchmarks.recipes --table -->"
END = "<!-- The written part ends here. -->"

_LIST_HEADER = ("recipe", "description", "measured in", "page")
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
_HEADER = (
    "row",
    "data",
    "steps × batch",
    "wall time",
    "frechet",
    "precision",
    "recall",
    "labels",
    "modes / KL",
    "cycle error",
    "images/s",
    "computes in",
    "outcome",
    "samples",
)
_CURVE_MINUTES = (5, 10, 15, 20, 30, 40, 50, 60)
_PNG_WIDTH, _PNG_BYTES = 200, 20_000
_JPEG_WIDTH, _JPEG_QUALITY = 320, 80


def rewrite(page: Path, thumbnails: Path, rows: Sequence[tuple[Row, Record | None]]) -> None:
    """Replaces the tables on the page: the list of all recipes, and the results.

    Raises:
        ConfigError: If the page has no markers.
    """
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ConfigError(f"{page} has no markers for the table; add the lines {BEGIN!r} and {END!r}.")
    lines = "\n".join(recipe_list(rows))
    tables = render(rows, {path.stem for path in thumbnails.glob("*.*")})
    write_atomically(page, f"{before}{BEGIN}\n\n{lines}\n\n{tables}\n{END}{after}".encode())


def recipe_list(rows: Sequence[tuple[Row, Record | None]]) -> list[str]:
    """Returns the lines of a table of all registered recipes: where each is measured, and which page explains it.

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
    return ["## All recipes", "", *table(_LIST_HEADER, cells)]


def render(rows: Sequence[tuple[Row, Record | None]], thumbnails: set[str]) -> str:
    """Returns the machines, the tables and the commands as Markdown: photographs first.

    Rows on photographs and rows with other seeds appear when they have a record.

    Args:
        rows: Rows with their records.
        thumbnails: Names of the rows with a thumbnail, and of other pictures.
    """
    measured = [record for _, record in rows if record is not None and record.outcome in MEASURED]
    photographs = [(row, record) for row, record in rows if row.prepared is not None and record is not None]
    has_other_seed = photograph_table.has_other_seed
    others = [(row, record) for row, record in rows if row.prepared is None and (record or not has_other_seed(row))]
    lines = ["## Machines", "", *_machines(measured), ""]
    if photographs:
        lines += ["## Photographs", "", *photograph_table.render(photographs, thumbnails)]
        lines += [*photograph_table.render_pairs(photographs, thumbnails), ""]
        lines += [*(_note(row, record) for row, record in photographs), ""]
    if seeds := photograph_table.spread(rows):
        lines += ["## Spread over seeds", "", *seeds, ""]
    if devices := device_table.render(rows):
        lines += ["## Time and memory by device", "", *devices, ""]
    if photographs:
        lines += ["## Digits", ""]
    shown = [(row, record) for row, record in others if not has_other_seed(row)]
    lines += table(_HEADER, [_cells(row, record, row.name in thumbnails) for row, record in shown])
    lines += ["", *(_note(row, record) for row, record in others if _has_note(row, record))]
    lines += _curves([record for _, record in others if record in measured])
    return "\n".join(lines) + "\n"


def thumbnail(directory: RunDirectory, step: int | None, path: Path) -> None:
    """Writes a small copy of the grid nearest to a step, or of the last grid if `step` is None."""
    if grids := sample_grids(directory.samples):
        nearest = max(grids) if step is None else min(grids, key=lambda grid_step: abs(grid_step - step))
        reduce(grids[nearest], path)


def reduce(source: Path, path: Path) -> None:
    """Writes a small copy of a picture: a `.jpg`, for photographs, or a `.png` of at most 20 kB."""
    with Image.open(source) as opened:
        picture = opened.convert("L" if opened.mode == "L" else "RGB")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _small_jpeg(picture) if path.suffix == ".jpg" else _small_png(picture))


def _small_jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    _resize(picture, _JPEG_WIDTH).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()


def _small_png(picture: Image.Image) -> bytes:
    """Returns a PNG with as many colors, and then as many pixels, as fit into the limit of its size."""
    width = _PNG_WIDTH
    while True:
        small = _resize(picture, width)
        for num_colors in (64, 32, 16):
            buffer = io.BytesIO()
            small.quantize(num_colors, dither=Image.Dither.NONE).save(buffer, "PNG", optimize=True)
            if buffer.tell() < _PNG_BYTES:
                return buffer.getvalue()
        width = small.width * 4 // 5


def _resize(picture: Image.Image, width: int) -> Image.Image:
    """Returns a copy of a picture that is at most `width` pixels wide."""
    width = min(width, picture.width)
    size = (width, max(1, round(picture.height * width / picture.width)))
    return picture.resize(size, Image.Resampling.BOX)


def state(row: Row, record: Record | None) -> str:
    """Describes the state of a row's measurement."""
    if record is None:
        return row.missing or "not run"
    interrupted = f"interrupted at step {record.step:,}"
    word = f"measured: {record.outcome}" if record.outcome in MEASURED else interrupted
    return ", ".join(filter(None, [word, record.stale(row)]))


def score(record: Record) -> str:
    """Returns the sentence on score and cost for the docstring of a recipe; empty without evaluations."""
    if record.best is None:
        return ""
    value = number(record.best["metrics"][record.monitor])
    return f"Scored {record.monitor} {value} in {_duration(record)} on {count_of(record.machine['cores'], 'CPU core')}."


def _link(recipe: str) -> str:
    page = _PAGES.get(recipe)
    return MISSING if page is None else f"[{page.partition('#')[0]}]({page})"


def _machines(measured: list[Record]) -> list[str]:
    """Returns a sentence on the machine of most rows, and one on each other machine with the names of its rows."""
    names_of: dict[str, list[str]] = {}
    for record in measured:
        facts = record.machine
        cores = count_of(facts["cores"], "core")
        words = f"{facts['cpu']}, {cores}, Python {facts['python']}, TensorFlow {facts['tensorflow']}"
        names_of.setdefault(words, []).append(f"`{record.name}`")
    if not names_of:
        return ["No row is measured yet."]
    dates = sorted(record.date for record in measured)
    when = f"from {dates[0]} to {dates[-1]}" if dates[0] != dates[-1] else f"on {dates[0]}"
    usual, *others = sorted(names_of, key=lambda words: -len(names_of[words]))
    return [f"Measured {when} on {usual}.", *(f"On {words}: {', '.join(names_of[words])}." for words in others)]


def _cells(row: Row, record: Record | None, has_thumbnail: bool) -> list[str]:
    shape = "×".join(map(str, row.image_shape))
    start = [f"`{row.name}`", f"{row.data}, {shape}", f"{row.config.steps:,} × {row.config.global_batch_size}"]
    if record is None or record.outcome not in MEASURED:
        word = "not measured" if record is None else f"interrupted at step {record.step:,}"
        return [*start, *[MISSING] * (len(_HEADER) - len(start) - 2), word, MISSING]
    # The record describes the run; the row describes a run with the current settings.
    start[1:] = [f"{record.data}, {'×'.join(map(str, record.image_shape))}", f"{record.steps:,} × {record.batch}"]
    outcome = "; ".join(filter(None, [record.outcome, record.stale(row)]))
    return [
        *start,
        _duration(record) + "†" * record.was_disturbed,
        _frechet(record),
        _value(record, "precision_"),
        _value(record, "recall_"),
        _labels(record),
        _modes(record),
        _value(record, "cycle_error"),
        MISSING if record.images_per_sec is None else f"{record.images_per_sec:,.0f}",
        record.precision or MISSING,
        outcome,
        f"![samples of {row.name}](images/recipes/{row.name}.png)" if has_thumbnail else MISSING,
    ]


def _duration(record: Record) -> str:
    return f"{record.seconds:.0f} s" if record.seconds < 600 else f"{record.seconds / 60:.0f} min"


def _metric(record: Record, prefix: str) -> str | None:
    """Returns the shortest metric name with a prefix (`cycle_error`, not `cycle_error_a`), or None."""
    if record.best is None:
        return None
    return min((name for name in record.best["metrics"] if name.startswith(prefix)), key=len, default=None)


def _value(record: Record, prefix: str) -> str:
    """Formats a metric at the best checkpoint, and at the end if it differs by more than 10%."""
    name = _metric(record, prefix)
    if name is None or record.best is None or record.final is None:
        return MISSING
    best, final = record.best["metrics"][name], record.final["metrics"][name]
    return number(best) + (f" (end {number(final)})" if abs(final - best) > 0.1 * abs(best) else "")


def _frechet(record: Record) -> str:
    name = _metric(record, "frechet_")
    return MISSING if name is None else f"{_value(record, name)} `{name.removeprefix('frechet_')}`"


def _labels(record: Record) -> str:
    for name, word in (("conditional_accuracy", "asked"), ("code_accuracy", "codes")):
        if _metric(record, name):
            return f"{_value(record, name)} {word}"
    return MISSING


def _modes(record: Record) -> str:
    modes = _value(record, "num_modes_")
    return modes if modes == MISSING else f"{modes} / {_value(record, 'kl_')}"


def _curves(measured: list[Record]) -> list[str]:
    """Returns a table of modes and KL divergence over time, for rows that measure them."""
    with_modes = [record for record in measured if _metric(record, "num_modes_")]
    if not with_modes:
        return []
    header = ["modes / KL by", *(f"{minutes} min" for minutes in _CURVE_MINUTES)]
    points = [[_point(record, 60 * minutes) for minutes in _CURVE_MINUTES] for record in with_modes]
    lines = [[f"`{record.name}`", *cells] for record, cells in zip(with_modes, points, strict=True)]
    return ["", *table(header, lines)]


def _point(record: Record, seconds: float) -> str:
    """Formats modes and divergence of the last evaluation until a time."""
    earlier = [e for e in record.evaluations if e["seconds"] is not None and e["seconds"] <= seconds]
    if not earlier or seconds > record.seconds + 60:
        return MISSING
    modes, divergence = (_metric(record, prefix) for prefix in ("num_modes_", "kl_"))
    return " / ".join(number(earlier[-1]["metrics"][name]) for name in (modes, divergence) if name)


def _has_note(row: Row, record: Record | None) -> bool:
    """Returns whether a row is more than its recipe without flags, which the list of all recipes describes."""
    return bool(row.flags) or row.name != row.recipe or bool(record is not None and record.sentence)


def _note(row: Row, record: Record | None) -> str:
    """Returns the purpose of a row and its command: the one that was measured, with its steps, if there is a record."""
    what = row.why or row.recipe
    command = row.command if record is None else record.command
    sentence = f" {record.outcome.capitalize()}: {record.sentence}" if record is not None and record.sentence else ""
    return f"- `{row.name}`: {what}{'' if what.endswith('.') else '.'}{sentence}<br>`{command}`"

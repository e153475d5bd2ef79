"""Estimate of a job's cost per hour from a table of prices that the user maintains.

The package contains no prices, because they change and depend on the region and the contract.
"""

import csv
import datetime
import io
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from trainer.errors import ConfigError, count_of, quote
from trainer.storage import documents, locate, parse_json

PRICE_TABLE_VARIABLE = "GAN_TRAINER_PRICE_TABLE"
"""Environment variable with the file that --price_table names otherwise."""
_COLUMNS = ("region", "name", "strategy", "price_per_hour", "currency", "date")
_STRATEGIES = {"": "STANDARD", "STRATEGY_UNSPECIFIED": "STANDARD", "ON_DEMAND": "STANDARD", "LOW_COST": "SPOT"}
"""Names in the API of the strategies that have other names in a price table."""
_ROW = documents.record(
    {
        "region": documents.text("[a-z]+-[a-z]+[0-9]+", "a region, such as us-central1"),
        "name": documents.text("[A-Za-z0-9_-]+", "a machine type or an accelerator type"),
        "strategy": documents.optional(documents.text("(STANDARD|SPOT|FLEX_START)?", "STANDARD, SPOT or FLEX_START")),
        "price_per_hour": documents.numeric,
        "currency": documents.text("[A-Z]{3}", "a currency, such as USD"),
        "date": documents.text("[0-9]{4}-[0-9]{2}-[0-9]{2}", "a date, such as 2026-01-31"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Price:
    """Price of one machine or accelerator for an hour."""

    amount: float
    currency: str
    date: str
    """Date on which the price was valid: YYYY-MM-DD."""


class PriceTable:
    """Prices by region, machine or accelerator type, and strategy, read from a CSV or JSON file.

    A CSV file has the columns region, name, strategy, price_per_hour, currency and date in any order. A JSON file is a
    list of objects with these keys. An empty strategy is STANDARD.

    Args:
        file: Local path, or `gs://BUCKET/NAME`.

    Raises:
        ConfigError: If the file is not a table of prices.
        StorageError: If the file cannot be read.
    """

    def __init__(self, file: str):
        self._file = file
        self._prices: dict[tuple[str, str, str], Price] = {}
        for row in _read_rows(file):
            key = row["region"], row["name"], row.get("strategy") or "STANDARD"
            if key in self._prices:
                raise ConfigError(f"price_table={file} has two prices of {' '.join(key)}; keep one.")
            amount = float(row["price_per_hour"])
            if not (math.isfinite(amount) and amount >= 0):
                raise ConfigError(f"price_table={file} has the price {amount} of {' '.join(key)}; write 0 or more.")
            self._prices[key] = Price(amount=amount, currency=row["currency"], date=_check_date(row["date"], file))

    def describe_cost(self, body: Mapping[str, Any], region: str) -> str:
        """Returns a sentence with the cost per hour of a job while all of its machines run.

        Args:
            body: The CustomJob or HyperparameterTuningJob as JSON.
            region: Region that runs the job.
        """
        spec = body.get("trialJobSpec") or body.get("jobSpec") or {}
        strategy = spec.get("scheduling", {}).get("strategy", "")
        strategy = _STRATEGIES.get(strategy, strategy)
        num_trials = int(body.get("parallelTrialCount", 1))
        counts = dict[str, int]()
        for name, count in _parts(spec):
            counts[name] = counts.get(name, 0) + count * num_trials
        prices = {name: self._prices.get((region, name, strategy)) for name in counts}
        missing = [name for name, price in prices.items() if price is None]
        known = {name: price for name, price in prices.items() if price is not None}
        if missing:
            names = ", ".join(missing)
            return f"The cost per hour is unknown: {self._file} has no {strategy} price of {names} in {region}."
        currencies = {price.currency for price in known.values()}
        if len(currencies) > 1:
            return f"The cost per hour is unknown: {self._file} has prices in {' and '.join(sorted(currencies))}."
        total = sum(price.amount * counts[name] for name, price in known.items())
        parts = ", ".join(f"{count} x {name}" for name, count in counts.items())
        trials = f"{count_of(num_trials, 'trial')} at once, " if "trialJobSpec" in body else ""
        return (
            f"About {total:.2f} {' '.join(currencies)} per hour in {region} ({trials}{parts}; {strategy} prices of "
            f"{min(price.date for price in known.values())}), without disks, storage and network."
        )


def read_price_table(file: str | None) -> PriceTable | None:
    """Returns the table in a file, or in that of the environment variable if the file is None. None: neither is set."""
    file = file or os.environ.get(PRICE_TABLE_VARIABLE)
    return PriceTable(file) if file else None


def _read_rows(file: str) -> Sequence[Mapping[str, Any]]:
    """Returns the checked rows of a table."""
    location, origin, remedy = locate(file), f"price_table={file}", f"write the columns {', '.join(_COLUMNS)}"
    suffix = PurePosixPath(location.name).suffix.lower()
    if suffix not in (".csv", ".json"):
        raise ConfigError(f"{origin} has an unknown extension; write .csv or .json.")
    content = location.read_bytes(max_bytes=documents.MAX_DOCUMENT_BYTES)
    if suffix == ".json":
        return parse_json(content, origin, documents.list_of(_ROW), remedy=remedy, error=ConfigError)
    try:
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig")), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{origin} is not a CSV file in UTF-8 ({error}); {remedy}.") from error
    if any(None in row for row in rows):
        raise ConfigError(f"{origin} has a row with too many cells; {remedy}, and no commas in numbers.")
    cells = [{name: cell for name, cell in row.items() if cell is not None} for row in rows]
    documents.check_json(cells, origin, documents.list_of(_ROW), remedy=remedy, error=ConfigError)
    return cells


def _check_date(date: str, file: str) -> str:
    try:
        datetime.date.fromisoformat(date)
    except ValueError as error:
        raise ConfigError(
            f"price_table={file} has the date {quote(date)}, which does not exist; correct it."
        ) from error
    return date


def _parts(spec: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Yields the machines and accelerators of a job, with their numbers."""
    for pool in spec.get("workerPoolSpecs", ()):
        machine, num_replicas = pool.get("machineSpec", {}), int(pool.get("replicaCount", 0))
        if num_replicas:
            yield machine.get("machineType", "the default machine"), num_replicas
        if num_replicas and machine.get("acceleratorCount"):
            yield machine["acceleratorType"], num_replicas * int(machine["acceleratorCount"])

"""Estimates of the cost per hour from a table of prices."""

import json

import pytest
from refusals import check_refusal
from specs import JOB, POOL, TUNING, changed

from trainer.cloud.vertex.prices import PRICE_TABLE_VARIABLE, PriceTable, read_price_table
from trainer.errors import ConfigError, StorageError

HEADER = "region,name,strategy,price_per_hour,currency,date\n"
ROWS = """\
us-central1,n1-standard-4,,0.25,USD,2026-01-31
us-central1,n1-standard-4,SPOT,0.05,USD,2026-02-28
us-central1,NVIDIA_L4,,1,USD,2026-01-15
us-central1,g2-standard-24,STANDARD,1e0,USD,2026-01-31
europe-west4,n1-standard-4,,0.3,EUR,2026-01-31
"""
L4 = {"machineType": "g2-standard-24", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 2}
SEVERAL = {"workerPoolSpecs": [POOL, {}, {}, POOL | {"machineSpec": L4, "replicaCount": "3"}]}
SPOT = JOB | {"scheduling": {"strategy": "SPOT"}}


@pytest.fixture
def table(tmp_path):
    (tmp_path / "prices.csv").write_text(HEADER + ROWS)
    return PriceTable(f"{tmp_path}/prices.csv")


@pytest.mark.parametrize(
    ("body", "region", "mentions"),
    [
        ({"jobSpec": JOB}, "us-central1", ("0.25 USD", "1 x n1-standard-4", "STANDARD", "2026-01-31")),
        ({"jobSpec": SPOT}, "us-central1", ("0.05 USD", "SPOT", "2026-02-28")),
        ({"jobSpec": SEVERAL}, "us-central1", ("9.25 USD", "3 x g2-standard-24", "6 x NVIDIA_L4", "2026-01-15")),
        (changed(TUNING, parallelTrialCount=3), "us-central1", ("0.75 USD", "3 x n1-standard-4", "3 trials")),
        ({"jobSpec": JOB}, "europe-west4", ("0.30 EUR",)),
        ({"jobSpec": JOB}, "us-east1", ("unknown", "n1-standard-4", "us-east1")),
        ({"jobSpec": SPOT}, "europe-west4", ("unknown", "SPOT", "n1-standard-4")),
    ],
)
def test_a_job_costs_the_sum_of_its_machines_and_accelerators(table, body, region, mentions):
    cost = table.describe_cost(body, region)
    assert all(mention in cost for mention in mentions), cost


def test_json_and_csv_files_are_the_same(tmp_path, table):
    names, *rows = [line.split(",") for line in (HEADER + ROWS).splitlines()]
    objects = [{name: cell for name, cell in zip(names, row, strict=True) if cell} for row in rows]
    for name in ("prices.json", "PRICES.JSON"):
        (tmp_path / name).write_text(json.dumps(objects))
        assert PriceTable(f"{tmp_path}/{name}")._prices == table._prices


def test_prices_in_two_currencies_are_not_added(tmp_path):
    other = "us-central1,NVIDIA_L4,,1,EUR,2026-01-31\nus-central1,g2-standard-24,,1,USD,2026-01-31\n"
    (tmp_path / "prices.csv").write_text(HEADER + other)
    cost = PriceTable(f"{tmp_path}/prices.csv").describe_cost(
        {"jobSpec": {"workerPoolSpecs": [POOL | {"machineSpec": L4}]}}, "us-central1"
    )
    assert "unknown" in cost and "EUR" in cost and "USD" in cost


def test_the_environment_names_the_table_of_a_team(tmp_path, monkeypatch):
    monkeypatch.delenv(PRICE_TABLE_VARIABLE, raising=False)
    assert read_price_table(None) is None
    (tmp_path / "prices.csv").write_text(HEADER)
    monkeypatch.setenv(PRICE_TABLE_VARIABLE, f"{tmp_path}/prices.csv")
    assert "unknown" in read_price_table(None).describe_cost({"jobSpec": JOB}, "us-central1")


@pytest.mark.parametrize(
    ("name", "text", "mentions"),
    [
        ("p.csv", HEADER + "us-central1,n1-standard-4,,cheap,USD,2026-01-31\n", ("price_per_hour", "cheap")),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,-1,USD,2026-01-31\n", ("-1", "n1-standard-4")),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,nan,USD,2026-01-31\n", ("nan",)),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,1,000.5,USD,2026-01-31\n", ("price_table", "p.csv")),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,1,USD,2026-02-30\n", ("2026-02-30",)),
        ("p.csv", HEADER + "us-central1,n1-standard-4,CHEAP,1,USD,2026-01-31\n", ("CHEAP", "SPOT")),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,1,$,2026-01-31\n", ("currency", "$")),
        ("p.csv", HEADER + "us-central1,n1-standard-4,,1\n", ("currency",)),
        ("p.csv", HEADER + 2 * "us-central1,n1-standard-4,,1,USD,2026-01-31\n", ("n1-standard-4", "two")),
        ("p.csv", "machine,price\nn1-standard-4,1\n", ("region", "price_per_hour")),
        ("p.csv", b"\xff\xfe", ("p.csv",)),
        ("p.csv", HEADER + '"us', ("p.csv",)),
        ("p.json", '{"prices": []}', ("p.json", "list")),
        ("p.json", "[", ("p.json",)),
        ("p.txt", HEADER, ("p.txt", ".csv", ".json")),
    ],
)
def test_a_file_that_is_not_a_table_is_refused(tmp_path, name, text, mentions):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    check_refusal(lambda: PriceTable(f"{tmp_path}/{name}"), ConfigError, *mentions)


def test_a_missing_table_is_refused(tmp_path):
    check_refusal(lambda: PriceTable(f"{tmp_path}/p.csv"), StorageError, "p.csv")

"""The same months in a bucket and in all three warehouses, through the real command: the same numbers everywhere."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline import datasets
from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..real_data import FOLDER, ROWS
from ..servers.bigquery import BigQueryServer, bigquery_server
from ..servers.gcs import GcsServer, gcs_bucket, gcs_server
from ..servers.postgres import PostgresServer, postgres_server
from .conftest import Project

__all__ = ["bigquery_server", "gcs_bucket", "gcs_server", "postgres_server"]

GREEN = datasets.get("green")
RANGE = ("RangeMonthly", "--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')
MONTHS = ("--start", "2020-01", "--stop", "2020-03")


class Warehouses:
    """A project with a lake in a bucket and three warehouses, and the same question put to all three."""

    def __init__(self, project: Project, postgres: PostgresServer, database: str, bigquery: BigQueryServer) -> None:
        self.project = project
        self._connection = postgres.connect(database, admin=False)
        self._bigquery = bigquery

    def close(self) -> None:
        self._connection.close()

    def ask(self, sql: str, *tables: str) -> dict[str, list[tuple[Any, ...]]]:
        """Rows by warehouse; ``sql`` has a ``{}`` for each table."""
        answers = {"duckdb": self.project.query(sql.format(*tables))}
        with self._connection.cursor() as cursor:
            cursor.execute(sql.format(*tables).replace("%", "%%"))
            answers["postgresql"] = cursor.fetchall()
        answers["bigquery"] = self._bigquery.sql(sql.format(*(f'"my-project:trips".{table}' for table in tables)))
        return answers

    def profile(self) -> dict[str, Any]:
        """Counts, nulls, sums, least and greatest values of every column per month; asserted equal in all three."""
        parts = ["file_month", "count(*)"]
        for column in GREEN.columns:
            name = f'"{column.name}"'
            parts += [f"count({name})", f"CAST(min({name}) AS VARCHAR)", f"CAST(max({name}) AS VARCHAR)"]
            if column.type in ("int64", "float64"):
                parts.append(f"round(CAST(sum({name}) AS DECIMAL(30, 6)), 2)")
        sql = f"SELECT {', '.join(parts)} FROM {{}} GROUP BY file_month ORDER BY file_month"
        answers = {name: [_plain(row) for row in rows] for name, rows in self.ask(sql, "green_trips").items()}
        assert answers["duckdb"] == answers["postgresql"] == answers["bigquery"]
        ledger = {
            name: [_plain(row) for row in rows]
            for name, rows in self.ask(
                "SELECT dataset, file_month, row_count, rejected_count, publisher, sha256, rules, replaces FROM {} "
                "ORDER BY file_month, loaded_at",
                "etl_loads",
            ).items()
        }
        assert ledger["duckdb"] == ledger["postgresql"] == ledger["bigquery"]
        return {"rows": answers["duckdb"], "ledger": ledger["duckdb"]}


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """Values as texts that do not depend on how a driver spells numbers and times."""

    def text(value: Any) -> Any:
        if isinstance(value, dt.datetime):
            return value.isoformat(" ")
        try:
            return None if value is None else f"{float(value):.6g}"
        except (TypeError, ValueError):
            return str(value)

    return tuple(text(value) for value in row)


@pytest.fixture
def warehouses(
    folder_project: Project,
    postgres_server: PostgresServer,
    bigquery_server: BigQueryServer,
    gcs_server: GcsServer,
    gcs_bucket: str,
) -> Iterator[Warehouses]:
    bigquery_server.wipe()
    with postgres_server.database() as database:
        urls = ("duckdb:///warehouse.duckdb", postgres_server.url(database), "bigquery://my-project/trips")
        folder_project.environment |= {
            "STORAGE_EMULATOR_HOST": gcs_server.url,
            "BIGQUERY_EMULATOR_HOST": bigquery_server.url,
            "PIPELINE_LAKE_URL": f"gs://{gcs_bucket}/nyc",
            "PIPELINE_WAREHOUSE_URL": ",".join(urls),
            "PIPELINE_CLEAN_RULES": "zero_passengers,pickup_outside_month",
        }
        warehouses = Warehouses(folder_project, postgres_server, database, bigquery_server)
        yield warehouses
        warehouses.close()


def test_all_three_have_the_same_rows_through_a_republication_and_back(warehouses: Warehouses) -> None:
    project = warehouses.project
    first_run = project.luigi(*RANGE, *MONTHS, "--workers", "2")
    assert first_run.returncode == 0, first_run.stdout
    first = warehouses.profile()
    assert len(first["rows"]) == 2
    assert "Nothing to do" in project.luigi(*RANGE, *MONTHS).stdout

    month = project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    original = month.read_bytes()
    generator.make_file(Partition("green", dt.date(2020, 2, 1)), month, rows=320, seed=9, layout="tlc")
    assert project.luigi(*RANGE, *MONTHS).returncode == 0
    second = warehouses.profile()
    assert second["rows"][0] == first["rows"][0], "the other month is untouched"
    assert second["rows"][1] != first["rows"][1]

    month.write_bytes(original)
    assert project.luigi(*RANGE, *MONTHS).returncode == 0
    third = warehouses.profile()
    assert third["rows"] == first["rows"], "back to the first version"
    assert len(third["ledger"]) == len(first["ledger"]) + 2, "the ledger tells all three versions"

    verified = project.pipeline("verify", "--json")
    assert verified.returncode == 0, verified.stdout


def test_bucket_to_bigquery_without_the_publisher(warehouses: Warehouses) -> None:
    """What lies in the lake fills a warehouse that is added later; the publisher's files are not fetched again."""
    project = warehouses.project
    everywhere = project.environment["PIPELINE_WAREHOUSE_URL"]
    project.environment["PIPELINE_WAREHOUSE_URL"] = "duckdb:///warehouse.duckdb"
    assert project.luigi(*RANGE, *MONTHS).returncode == 0
    (project.folder / "published").rename(project.folder / "gone")
    (project.folder / "published" / "trip-data").mkdir(parents=True)
    project.environment["PIPELINE_WAREHOUSE_URL"] = everywhere
    done = project.luigi(*RANGE, *MONTHS)
    assert done.returncode == 0, done.stdout
    assert "Download" not in done.stdout
    warehouses.profile()


def test_synthetic_months_are_refused_by_servers(warehouses: Warehouses) -> None:
    project = warehouses.project
    project.environment |= {
        "PIPELINE_PUBLISHER_NAME": "sample",
        "PIPELINE_PUBLISHER_URL": "sample:?rows=100&seed=1",
    }
    refused = project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
    assert refused.returncode == 2
    assert refused.stdout.count("allow_synthetic") == 1 and refused.stdout.count("\n") == 1
    assert not list(project.folder.glob("workspace/scratch/*")), "before any work"
    told = project.pipeline("doctor").stdout.splitlines()
    assert sum(line.startswith("FAIL  warehouse") and "published months only" in line for line in told) == 2, told
    allowed = project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01", "--publisher-allow-synthetic")
    assert allowed.returncode == 0, allowed.stdout
    assert {
        name: rows[0][0] for name, rows in warehouses.ask("SELECT count(*) > 0 FROM {}", "green_trips").items()
    } == {
        "duckdb": True,
        "postgresql": True,
        "bigquery": True,
    }


def test_real_months(warehouses: Warehouses) -> None:
    project = warehouses.project
    project.environment["PIPELINE_PUBLISHER_URL"] = f"file:{FOLDER}/publishers/tlc"
    project.environment["PIPELINE_CLEAN_RULES"] = "none"
    months = sorted(ROWS["tlc"])
    for month in {months[0], months[-1]}:
        done = project.luigi("MonthlyTrips", "--dataset", "green", "--month", month)
        assert done.returncode == 0, done.stdout
    counts = [int(float(row[1])) for row in warehouses.profile()["rows"]]
    assert counts == [ROWS["tlc"][month] for month in sorted({months[0], months[-1]})]
    status = json.loads(project.pipeline("status", "--dataset", "green", "--start", months[-1], "--json").stdout)
    assert [entry["state"] for entry in status if entry["month"] == months[-1]] == ["complete"]

"""Load of a month into a warehouse: the real task, with swap, indexes and ledger, against bare ways to get rows in.

The lake is filled once for each case by the real stages; every run has a new database.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pipeline.lake import layout

from ..case import OURS, Bench, Case, Results, times_faster_than, times_of_fastest
from ..contest import Command, Contestant, Work, measure
from ..inputs import Published
from ..project import stages_of
from ..servers import Databases, postgres
from .clean import TIMES, course_month

TO_SQL, DLT, PSQL, INSERT = "pandas.to_sql", "dlt", "psql \\copy", "INSERT FROM read_parquet"

#: Rows that the slow peers get in the quick run; they are compared per row.
FEW_ROWS = 200_000

#: The bare table: the month's columns with the types that a person would give them.
BARE_TABLE = """CREATE TABLE yellow_trips (
    VendorID bigint, tpep_pickup_datetime timestamp, tpep_dropoff_datetime timestamp, passenger_count bigint,
    trip_distance double precision, RatecodeID bigint, store_and_fwd_flag text, PULocationID bigint,
    DOLocationID bigint, payment_type bigint, fare_amount double precision, extra double precision,
    mta_tax double precision, tip_amount double precision, tolls_amount double precision,
    improvement_surcharge double precision, total_amount double precision, congestion_surcharge double precision)"""


@contextmanager
def lake_with(bench: Bench, published: Published) -> Iterator[Path]:
    """A folder with a lake that has the first published month."""
    bench.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bench.folder, prefix="lake-") as name:
        measure(stages_of(published, "filling the lake", ["Download", "Clean", "WriteParquet", "Upload"]), Path(name))
        yield Path(name)


def _parquet(base: Path, published: Published) -> str:
    return str(base / "lake" / layout.data(published.partitions[0]))


def _duckdb(bench: Bench) -> Results:
    published = course_month(bench)
    with lake_with(bench, published) as base:
        lake = {"PIPELINE_LAKE_URL": f"file:{base}/lake"}
        ours = stages_of(published, OURS, ["Load"], changes=lambda folder: lake)
        insert = Work(INSERT, "benchmarks.peers:duckdb_insert", {"source": _parquet(base, published)})
        return Results(str(published), bench.contest([ours, insert]))


def _postgresql(bench: Bench) -> Results:
    published = course_month(bench)
    assert published.rows
    rows = published.rows if bench.is_full else FEW_ROWS
    raw = published.files[0]
    with ExitStack() as stack:
        databases = Databases(stack.enter_context(postgres()))
        base = stack.enter_context(lake_with(bench, published))
        lake = {"PIPELINE_LAKE_URL": f"file:{base}/lake"}
        contestants: list[Contestant] = [
            stages_of(
                published, OURS, ["Load"], changes=lambda folder: {**lake, "PIPELINE_WAREHOUSE_URL": databases.fresh()}
            )
        ]
        if shutil.which("psql"):
            contestants.append(_psql(databases, _unpacked(raw, base)))
        contestants += [
            Work(
                TO_SQL,
                "benchmarks.peers:pandas_to_sql",
                {"source": str(raw), "times": TIMES[published.dataset], "rows": rows},
                lambda folder: {"BENCH_POSTGRESQL": databases.fresh()},
                rows,
                is_slow=True,
            ),
            Work(
                DLT,
                "benchmarks.peers:dlt_postgresql",
                {"source": _parquet(base, published), "rows": rows},
                lambda folder: {"BENCH_POSTGRESQL": databases.fresh()},
                rows,
                is_slow=True,
            ),
        ]
        return Results(str(published), bench.contest(contestants), rows=published.rows)


def _unpacked(raw: Path, folder: Path) -> Path:
    target = folder / "month.csv"
    with gzip.open(raw, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)
    return target


def _psql(databases: Databases, csv: Path) -> Command:
    """\\copy of the unpacked CSV into a table without indexes, from psql's start to its end."""
    address = ""

    def make_table(folder: Path) -> None:
        nonlocal address
        address = databases.fresh().replace("+psycopg2", "")
        subprocess.run(["psql", "-q", address, "-c", BARE_TABLE], check=True, capture_output=True)

    def command(folder: Path) -> list[str]:
        return ["psql", "-q", address, "-c", f"\\copy yellow_trips FROM '{csv}' WITH (FORMAT csv, HEADER)"]

    return Command(PSQL, command, before=make_table)


CASES = (
    Case(
        "load-postgresql",
        "Load into PostgreSQL",
        (times_faster_than(TO_SQL, 35), times_faster_than(DLT, 10), times_of_fastest(1.0, PSQL)),
        _postgresql,
    ),
    Case("load-duckdb", "Load into DuckDB", (times_of_fastest(1.3, INSERT),), _duckdb),
)

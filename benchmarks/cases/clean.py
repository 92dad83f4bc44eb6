"""A raw file to typed Parquet: Clean and WriteParquet together, against others that only convert."""

from __future__ import annotations

from pathlib import Path

from ..case import OURS, Bench, Case, Results, times_faster_than, times_of_fastest
from ..contest import Work
from ..inputs import Published
from ..project import stages_of

PANDAS, PYARROW, DUCKDB, POLARS = "pandas (course)", "pyarrow", "DuckDB", "polars"
PYARROW_UNBUFFERED = "pyarrow, pre_buffer=False"

#: What the course parses, by dataset.
TIMES = {
    "yellow": ["tpep_pickup_datetime", "tpep_dropoff_datetime"],
    "green": ["lpep_pickup_datetime", "lpep_dropoff_datetime"],
    "fhv": ["pickup_datetime", "dropOff_datetime"],
    "fhvhv": ["pickup_datetime", "dropoff_datetime"],
}


def course_month(bench: Bench) -> Published:
    """The month that the course begins with, in its size."""
    return bench.inputs.months("yellow", "2021-01", 1_369_765, "dtc")


def ours(published: Published) -> Work:
    """Clean and WriteParquet of the first month, which Download has fetched."""
    return stages_of(published, OURS, ["Clean", "WriteParquet"], before=["Download"])


def _csv(bench: Bench) -> Results:
    published = bench.inputs.own_or(course_month(bench))
    given = {"source": str(published.files[0]), "times": TIMES[published.dataset]}
    peers = {PANDAS: "pandas_csv", PYARROW: "pyarrow_csv", DUCKDB: "duckdb_csv", POLARS: "polars_csv"}
    works = [Work(name, f"benchmarks.peers:{function}", given) for name, function in peers.items()]
    return Results(str(published), bench.contest([ours(published), *works]))


def _parquet(bench: Bench) -> Results:
    published = bench.inputs.own_or(bench.inputs.months("yellow", "2025-01", 3_500_000, "tlc"))
    source: Path = published.files[0]
    peers = {PYARROW: True, PYARROW_UNBUFFERED: False}
    works = [
        Work(name, "benchmarks.peers:pyarrow_parquet", {"source": str(source), "pre_buffer": pre_buffer})
        for name, pre_buffer in peers.items()
    ]
    return Results(str(published), bench.contest([ours(published), *works]))


CASES = (
    Case(
        "clean-csv",
        "Clean + WriteParquet of csv.gz",
        (times_faster_than(PANDAS, 5.5), times_of_fastest(1.5, PYARROW, DUCKDB, POLARS)),
        _csv,
    ),
    Case(
        "clean-parquet",
        "Clean + WriteParquet of TLC Parquet",
        (times_of_fastest(1.5, PYARROW, PYARROW_UNBUFFERED),),
        _parquet,
    ),
)

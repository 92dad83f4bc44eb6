"""Whole runs by the real ``luigi`` command, timed from its start to its end."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from pipeline.partition import format_month

from ..case import OURS, Bench, Case, Results, Skip, figure_at_least, times_faster_than, times_of_fastest
from ..contest import Command, Work
from ..inputs import Published
from ..peers import COURSE_FLOW
from ..project import luigi, luigi_range, settings
from .clean import PANDAS, TIMES, course_month

ONE_WORKER, COPIES = "ours, --workers 1", "DuckDB copies, one after the other"
ROWS_PER_SECOND = "rows per second"


def _run_of(published: Published, name: str, words: Sequence[str]) -> Command:
    def environment(folder: Path) -> dict[str, str]:
        return settings(folder, published.settings)

    def command(folder: Path) -> list[str]:
        return luigi("--module", "pipeline", *words)

    return Command(name, command, environment)


def _month(bench: Bench) -> Results:
    published = course_month(bench)
    name = format_month(published.months[0])
    source, times = str(published.files[0]), TIMES[published.dataset]
    words = ("MonthlyTrips", "--dataset", published.dataset, "--month", name, "--local-scheduler")
    course = Command(PANDAS, lambda folder: [sys.executable, "-c", COURSE_FLOW, source, "out.parquet", *times])
    return Results(str(published), bench.contest([_run_of(published, OURS, words), course]))


def _workers(bench: Bench) -> Results:
    published = bench.inputs.months("yellow", "2024-01", 300_000, "tlc", count=12)
    runs = [
        _run_of(published, name, (*luigi_range(published), "--local-scheduler", "--workers", str(workers)))
        for name, workers in ((OURS, 2), (ONE_WORKER, 1))
    ]
    return Results(str(published), bench.contest(runs))


def _year(bench: Bench) -> Results:
    if not bench.is_full:
        raise Skip("in the full run only")
    published = bench.inputs.months("yellow", "2024-01", 1_500_000, "tlc", count=12)
    assert published.rows
    ours = _run_of(published, OURS, (*luigi_range(published), "--local-scheduler", "--workers", "2"))
    copies = Work(COPIES, "benchmarks.peers:duckdb_parquet", {"sources": [str(file) for file in published.files]})
    measured = bench.contest([ours, copies])
    rows = published.rows * len(published.months)
    return Results(str(published), measured, {ROWS_PER_SECOND: rows / measured[OURS].best})


CASES = (
    Case("month", "a month end to end, from file to DuckDB", (times_faster_than(PANDAS, 3),), _month),
    Case(
        "year",
        "twelve months end to end, two workers",
        (times_of_fastest(2, COPIES), figure_at_least(ROWS_PER_SECOND, 860_000, " rows/s")),
        _year,
    ),
    Case("workers", "two workers against one", (times_faster_than(ONE_WORKER, 1.7),), _workers),
)

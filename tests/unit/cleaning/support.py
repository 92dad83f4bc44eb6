"""Helpers that clean bytes made in a test."""

from __future__ import annotations

import datetime as dt
import io
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import datasets
from pipeline.cleaning.chunks import REJECTS_SCHEMA, Report
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.rules import Rules


@dataclass
class Result:
    rows: pa.Table
    rejects: pa.Table
    report: Report

    def column(self, name: str) -> list[object]:
        return self.rows.column(name).to_pylist()

    @property
    def reasons(self) -> list[tuple[str, str | None, int]]:
        """(reason, column, line) of each reject."""
        return [(row["reason"], row["column"], row["source_line"]) for row in self.rejects.to_pylist()]

    @property
    def originals(self) -> list[str]:
        return self.rejects.column("original").to_pylist()


def run(
    data: bytes,
    dataset: str,
    format: str = "csv",
    rules: str = "none",
    month: dt.date | None = None,
    source_name: str = "the_file",
) -> Result:
    """Clean ``data`` to the end, and check what must hold for every file."""
    declared = datasets.get(dataset)
    report = Report()
    pieces = list(clean(io.BytesIO(data), format, declared, month, Rules.parse(rules), source_name, report))
    result = Result(
        pa.Table.from_batches([piece.rows for piece in pieces], declared.schema),
        pa.Table.from_batches([piece.rejects for piece in pieces], REJECTS_SCHEMA),
        report,
    )
    assert report.rows_read == sum(piece.rows_read for piece in pieces)
    assert report.rows_written == result.rows.num_rows
    assert report.rejected == result.rejects.num_rows
    assert report.rows_read == report.rows_written + report.rejected
    return result


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()

"""Lake files and their ledger rows, for loads into a warehouse."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import hashlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import datasets
from pipeline.datasets.schema import Dataset
from pipeline.warehouse import LedgerRow

GREEN, ZONES = datasets.get("green"), datasets.get("zones")


@dataclasses.dataclass
class LocalFile:
    """A Parquet file as a lake on this machine hands it over."""

    path: Path
    generation: str | None = None
    location: str | None = None

    @property
    def uri(self) -> str:
        return self.path.as_uri()

    def local(self) -> contextlib.AbstractContextManager[Path]:
        return contextlib.nullcontext(self.path)


@dataclasses.dataclass
class BucketFile:
    """The same in the bucket ``lake``, which is the file's folder. The generation is that of the bytes."""

    path: Path
    location: str | None = None

    @property
    def uri(self) -> str:
        return f"gs://lake/{self.path.name}"

    @property
    def generation(self) -> str | None:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:8]

    def local(self) -> contextlib.AbstractContextManager[Path]:
        return contextlib.nullcontext(self.path)


def table_of(version: str, month: dt.date | None, rows: int, dataset: Dataset = GREEN) -> pa.Table:
    """Rows that differ by version, which is in every float column; one text in three is not null."""
    number = float(sum(version.encode()))
    values: dict[str, list] = {
        "int64": list(range(rows)),
        "float64": [number + row / 8 for row in range(rows)],
        "string": [None if row % 3 else f"text {row}" for row in range(rows)],
        "timestamp": [dt.datetime(2021, 1, 1) + dt.timedelta(seconds=5 * row) for row in range(rows)],
        "date": [month] * rows,
    }
    arrays = [pa.array(values[column.type], column.arrow_type) for column in dataset.table_columns]
    return pa.table(arrays, schema=dataset.table_schema)


def file_of(folder: Path, version: str, month: dt.date | None, rows: int, dataset: Dataset = GREEN) -> LocalFile:
    """A file with the rows of ``table_of``."""
    path = folder / f"{dataset.name}_{month}_{version}_{rows}_{dataset.schema_version[:8]}.parquet"
    if not path.exists():
        pq.write_table(table_of(version, month, rows, dataset), path)
    return LocalFile(path)


def ledger_row(version: str, month: dt.date | None, rows: int, dataset: Dataset = GREEN) -> LedgerRow:
    return LedgerRow(
        dataset=dataset.name,
        file_month=month,
        status="loaded",
        row_count=rows,
        rejected_count=3,
        publisher="tlc",
        sha256=version,
        source_url="file:/somewhere",
        source_etag="etag",
        rules="none",
        schema_version=dataset.schema_version,
        parquet_sha256="p" + version,
        is_synthetic=0,
        run_id="run",
    )

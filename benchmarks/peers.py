"""The peers as work for ``benchmarks.contestant``: each in its own fastest documented way, and nothing but the work.

Imports are done before the work begins, as for ours. ``source`` and ``target`` are paths, ``folder`` is empty.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Work = Callable[[], dict[str, Any] | None]

# -- csv.gz to Parquet -----------------------------------------------------------------------------


def pandas_csv(folder: str, source: str, times: list[str]) -> Work:
    """As the data-engineering course does it: read_csv, to_datetime, to_parquet with gzip."""
    import pandas as pd
    import pyarrow.parquet  # noqa: F401

    def work() -> dict[str, Any]:
        frame = pd.read_csv(source)
        for name in times:
            frame[name] = pd.to_datetime(frame[name])
        frame.to_parquet(f"{folder}/out.parquet", compression="gzip")
        return {"rows_read": len(frame)}

    return work


def pyarrow_csv(folder: str, source: str, times: list[str]) -> Work:
    """Streaming CSV reader, python-isal in a thread for gzip, ParquetWriter with zstd."""
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq
    from isal import igzip_threaded

    def work() -> dict[str, Any]:
        rows = 0
        options = pacsv.ConvertOptions(column_types=dict.fromkeys(times, pa.timestamp("s")))
        with (
            igzip_threaded.open(source, "rb") as stream,
            pacsv.open_csv(stream, pacsv.ReadOptions(block_size=4 << 20), convert_options=options) as reader,
            pq.ParquetWriter(f"{folder}/out.parquet", reader.schema, compression="zstd") as writer,
        ):
            for batch in reader:
                writer.write_batch(batch)
                rows += batch.num_rows
        return {"rows_read": rows}

    return work


def duckdb_csv(folder: str, source: str, times: list[str]) -> Work:
    """COPY from read_csv, which finds the times by itself."""
    import duckdb

    connection = duckdb.connect()

    def work() -> dict[str, Any]:
        target = f"{folder}/out.parquet"
        copied = connection.execute(_copy_statement(f"read_csv('{source}')", target)).fetchall()
        return {"rows_read": copied[0][0]}

    return work


def polars_csv(folder: str, source: str, times: list[str]) -> Work:
    """Lazy scan, dates parsed, streamed into the sink."""
    import polars as pl

    def work() -> dict[str, Any]:
        target = f"{folder}/out.parquet"
        pl.scan_csv(source, try_parse_dates=True).sink_parquet(target, compression="zstd")
        return {"rows_read": pl.scan_parquet(target).select(pl.len()).collect().item()}

    return work


# -- Parquet to Parquet ----------------------------------------------------------------------------


def pyarrow_parquet(folder: str, source: str, pre_buffer: bool) -> Work:
    """Batches of the one file into a ParquetWriter with zstd."""
    import pyarrow.parquet as pq

    def work() -> dict[str, Any]:
        rows = 0
        with (
            pq.ParquetFile(source, pre_buffer=pre_buffer) as reader,
            pq.ParquetWriter(f"{folder}/out.parquet", reader.schema_arrow, compression="zstd") as writer,
        ):
            for batch in reader.iter_batches():
                writer.write_batch(batch)
                rows += batch.num_rows
        return {"rows_read": rows}

    return work


def duckdb_parquet(folder: str, sources: list[str]) -> Work:
    """COPY to zstd Parquet, one file after the other."""
    import duckdb

    connection = duckdb.connect()

    def work() -> None:
        for source in sources:
            connection.execute(_copy_statement(f"read_parquet('{source}')", f"{folder}/{Path(source).name}"))

    return work


def _copy_statement(source: str, target: str) -> str:
    return f"COPY (FROM {source}) TO '{target}' (FORMAT parquet, COMPRESSION zstd)"

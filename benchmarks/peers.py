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


#: The same as a program of its own, where its start counts: source, target and the columns with times as arguments.
COURSE_FLOW = """
import sys
import pandas as pd
frame = pd.read_csv(sys.argv[1])
for name in sys.argv[3:]:
    frame[name] = pd.to_datetime(frame[name])
frame.to_parquet(sys.argv[2], compression="gzip")
"""


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


# -- into PostgreSQL: the database is named by the environment's BENCH_POSTGRESQL --------------------


def pandas_to_sql(folder: str, source: str, times: list[str], rows: int) -> Work:
    """As the course does it: to_sql in chunks of 100,000. The chunks are read before."""
    import os

    import pandas as pd
    import sqlalchemy

    engine = sqlalchemy.create_engine(os.environ["BENCH_POSTGRESQL"])
    chunks = list(pd.read_csv(source, nrows=rows, chunksize=100_000, parse_dates=times, low_memory=False))

    def work() -> None:
        for chunk in chunks:
            chunk.to_sql("yellow_trips", engine, if_exists="append", index=False)

    return work


def dlt_postgresql(folder: str, source: str, rows: int) -> Work:
    """Arrow batches through dlt's csv loader, the fastest it has for PostgreSQL."""
    import os

    os.environ.update({"DLT_DATA_DIR": f"{folder}/dlt", "RUNTIME__DLTHUB_TELEMETRY": "false"})
    import dlt
    import pyarrow as pa
    import pyarrow.parquet as pq

    @dlt.resource(name="yellow_trips")
    def batches() -> Any:
        with pq.ParquetFile(source) as file:
            left = rows
            for batch in file.iter_batches(batch_size=100_000):
                yield pa.Table.from_batches([batch.slice(0, left)])
                left -= batch.num_rows
                if left <= 0:
                    return

    pipeline = dlt.pipeline(
        pipeline_name="bench",
        pipelines_dir=f"{folder}/pipelines",
        destination=dlt.destinations.postgres(os.environ["BENCH_POSTGRESQL"].replace("+psycopg2", "")),
        dataset_name="trips",
    )

    def work() -> None:
        pipeline.run(batches(), loader_file_format="csv").raise_on_failed_jobs()

    return work


# -- into DuckDB -----------------------------------------------------------------------------------


def duckdb_insert(folder: str, source: str) -> Work:
    """INSERT from read_parquet into an empty table of a file, until the file is closed."""
    import duckdb

    path = f"{folder}/warehouse.duckdb"
    with duckdb.connect(path) as connection:
        connection.execute(f"CREATE TABLE trips AS FROM read_parquet('{source}') LIMIT 0")

    def work() -> None:
        with duckdb.connect(path) as connection:
            connection.execute(f"INSERT INTO trips SELECT * FROM read_parquet('{source}')")

    return work


# -- to Cloud Storage: the bucket is named by the environment's BENCH_BUCKET -------------------------


def gcs_upload(folder: str, source: str) -> Work:
    """The bare client, with its own defaults."""
    import os

    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    bucket = storage.Client("bench", AnonymousCredentials()).bucket(os.environ["BENCH_BUCKET"])

    def work() -> None:
        bucket.blob("lake/trips.parquet").upload_from_filename(source)

    return work

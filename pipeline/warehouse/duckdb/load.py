"""Load a Parquet file of the lake into DuckDB: replaces the partition, in one transaction with its ledger row."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import duckdb

from ...datasets.schema import FILE_MONTH, Dataset
from ...errors import WarehouseError
from ...storage.base import Progress
from ..base import LedgerRow
from ..tables import literal, quote
from .tables import TYPES, rows_of

#: Seconds between two calls of ``progress``.
_PROGRESS_INTERVAL = 0.5


def replace(
    connection: duckdb.DuckDBPyConnection, dataset: Dataset, path: Path, row: LedgerRow, progress: Progress
) -> None:
    """Put the file's rows in the place of the partition; raises WarehouseError if they are not exactly it."""
    table, total = quote(dataset.table), row.row_count
    # The months are compared with a literal of our own making: it cannot be anything but a date or NULL.
    month = f"DATE '{row.file_month}'" if row.file_month else "NULL"
    in_partition = f"{quote(FILE_MONTH.name)} IS NOT DISTINCT FROM {month}" if dataset.is_monthly else "TRUE"
    source = f"system.main.read_parquet({literal(_as_glob(path))}, hive_partitioning = false)"
    there = _file_columns(connection, dataset, path, source)
    absent = [c.name for c in dataset.table_columns if c.name.lower() not in map(str.lower, there)]
    # A column that the file lacks is null, whatever DEFAULT somebody gave it.
    names = ", ".join([*map(quote, there), *(f"NULL AS {quote(name)}" for name in absent)])
    connection.execute(f"DELETE FROM {table} WHERE {in_partition}")
    _insert(connection, f"INSERT INTO {table} BY NAME SELECT {names} FROM {source}", total, progress)
    count = rows_of(connection, f"SELECT count(*) FROM {table} WHERE {in_partition}")[0][0]
    inserted = rows_of(connection, f"SELECT count(*) FROM {source}")[0][0]
    if not count == inserted == total:
        raise WarehouseError(
            f"{path.name} brings {inserted} rows, {count} of them for {row.dataset} "
            f"{row.file_month or ''}, and its manifest says {total}; write the lake file anew, then run again"
        )


def _insert(connection: duckdb.DuckDBPyConnection, statement: str, total: int, progress: Progress) -> None:
    """Run the statement in a thread and call ``progress`` from this one meanwhile; Ctrl-C stops the statement."""
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    progress(0, total)
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(connection.execute, statement)
        try:
            while not wait([future], timeout=_PROGRESS_INTERVAL).done:
                percent = connection.query_progress()
                if percent > 0:  # -1 while it is not known
                    progress(int(total * percent / 100), total)
        except BaseException:
            connection.interrupt()
            raise
        future.result()
    progress(total, total)


def _file_columns(connection: duckdb.DuckDBPyConnection, dataset: Dataset, path: Path, source: str) -> list[str]:
    """The file's column names, after a look at their types: DuckDB would round a double to fit a BIGINT."""
    declared = {column.name.lower(): TYPES[column.type] for column in dataset.table_columns}
    names = []
    for name, actual, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall():
        expected = declared.get(name.lower(), "absent")
        if actual != expected:
            raise WarehouseError(
                f"{path.name}: column {name} is {actual} and should be {expected} in {dataset.table}; "
                f"write the lake file anew, then run again"
            )
        names.append(name)
    return names


def _as_glob(path: Path) -> str:
    """The path as a pattern that matches only itself."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))

"""From a Parquet file of the lake into a table of PostgreSQL, by COPY.

Rows go in PostgreSQL's binary format, which ``pgpq`` makes of Arrow batches: a yellow month of 1.37 million rows takes
3.4 s, with ``adbc-driver-postgresql`` 4.4 s to 5.3 s and as CSV 8 s (two cores, server included). It is also what lets
the copy be part of our own transaction: ADBC copies on a connection of its own.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType

import psycopg2
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ...datasets.schema import Dataset
from ...errors import WarehouseError
from ...storage.base import Progress
from ..base import LedgerRow
from .session import Session, text_of

try:
    import pgpq
except ImportError:  # it has no wheel for Linux on ARM
    pgpq = None  # type: ignore[assignment]

#: Rows that are encoded at a time: about 7 MB of a yellow month. An eighth of a row group, which has fewer rows where
#: texts are long.
BATCH_ROWS = 32_768


@contextlib.contextmanager
def open_parquet(path: Path, uri: str, dataset: Dataset, row: LedgerRow) -> Iterator[pq.ParquetFile]:
    """The Parquet file, if its footer has the rows and types it should have."""
    try:
        # Read through a small buffer: an official file is one row group, which is not to be held as a whole.
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"{uri} is no readable Parquet file ({text_of(error)}); upload the month again") from error
    with file:
        if file.metadata.num_rows != row.row_count:
            raise WarehouseError(
                f"{uri} has {file.metadata.num_rows} rows, and its manifest says {row.row_count}; upload it again"
            )
        declared = dataset.table_schema
        for field in file.schema_arrow:
            if field.name not in declared.names:
                raise WarehouseError(f"{uri}: column {field.name} is not declared; write the month again")
            if field.type != declared.field(field.name).type:
                raise WarehouseError(
                    f"{uri}: column {field.name} is {field.type} and should be {declared.field(field.name).type}; "
                    f"write the month again"
                )
        yield file


def copy(session: Session, target: str, file: pq.ParquetFile, progress: Progress) -> int:
    """COPY the file into ``target``; the number of rows that arrived."""
    kind, encode = ("csv", _csv) if pgpq is None else ("binary", _binary)
    with _first_error(), session.statement() as statement, session.connection.cursor() as cursor:
        chunks = _Chunks(encode(file.schema_arrow, _batches(file, progress)), statement.goes_on)
        try:
            cursor.copy_expert(f"COPY {target} FROM STDIN (FORMAT {kind})", chunks, size=1 << 18)
        except psycopg2.Error:
            if chunks.error:  # psycopg2 tells of an error on our side, or an interrupt, as a cancelled query
                raise chunks.error from None
            raise
        return cursor.rowcount


class _Printed(threading.local):
    """What psycopg2 printed last in this thread instead of raising it."""

    error: psycopg2.Error | None = None


_printed = _Printed()


@contextlib.contextmanager
def _first_error() -> Iterator[None]:
    """Raise what the server said first.

    When a COPY breaks off, psycopg2 raises the last of several errors, which only says that the connection is gone, and
    prints the first one with a traceback, by way of ``sys.excepthook``.
    """
    _printed.error = None
    if sys.excepthook is not _excepthook:
        _others.append(sys.excepthook)
        sys.excepthook = _excepthook
    try:
        yield
    except psycopg2.Error as error:
        if _printed.error is None or error.pgcode:
            raise
        raise _printed.error from None


_others: list[Callable[[type[BaseException], BaseException, TracebackType | None], object]] = []


def _excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, SystemError) and isinstance(error.__cause__, psycopg2.Error):
        _printed.error = error.__cause__
    else:
        _others[-1](kind, error, trace)


def _batches(file: pq.ParquetFile, progress: Progress) -> Iterator[pa.RecordBatch]:
    done = 0
    groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups - 1)]
    rows = max(min([BATCH_ROWS, *(rows // 8 for rows in groups)]), 1)
    try:
        for batch in file.iter_batches(batch_size=rows, use_threads=False):
            yield batch
            done += batch.num_rows
            progress(done, file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise WarehouseError(f"the Parquet file broke off ({text_of(error)}); upload the month again") from error


def _binary(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    encoder = pgpq.ArrowToPostgresBinaryEncoder(schema)
    yield encoder.write_header()
    for batch in batches:
        try:
            yield encoder.write_batch(batch)
        except ValueError as error:
            raise WarehouseError(f"a value that PostgreSQL cannot hold: {text_of(error)}; reject such rows") from error
    yield encoder.finish()


def _csv(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[bytes]:
    """The same rows at half the speed, where there is no binary encoder; floats have all digits they need."""
    for batch in batches:
        text = io.BytesIO()
        pyarrow.csv.write_csv(batch, text, pyarrow.csv.WriteOptions(include_header=False))
        yield text.getvalue()


class _Chunks:
    """Encoded batches as a file for ``copy_expert``; ``error`` is what reading them raised.

    ``asked`` is called whenever more is asked for: then the server has taken what it was sent before.
    """

    def __init__(self, chunks: Iterator[bytes], asked: Callable[[], None]) -> None:
        self._chunks, self._asked = chunks, asked
        self._rest = memoryview(b"")
        self.error: BaseException | None = None

    def read(self, size: int) -> bytes:
        self._asked()
        try:
            while not self._rest:
                chunk = next(self._chunks, None)
                if chunk is None:
                    return b""
                self._rest = memoryview(chunk)
        except BaseException as error:
            self.error = error
            raise
        piece, self._rest = self._rest[:size], self._rest[size:]
        return bytes(piece)

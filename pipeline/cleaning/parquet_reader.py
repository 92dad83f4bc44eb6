"""Parquet files of all eras, read in batches of rows.

Types change from month to month: a column without a value has the type ``null``, ids are int64, double or int32,
texts string or large_string, times of yellow 2009 and 2010 are texts; a file that pandas saved again has nanoseconds.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..datasets.schema import Dataset
from ..errors import UnreadableFile
from ..signatures import refuse_other_magic
from . import values
from .chunks import Chunk, Reject, Report
from .header import Header

MAGIC = b"PAR1"
#: Text that stands in JSON as it is.
_PLAIN = r"^[ !#-\[\]-~]*$"
BATCH_ROWS = 32_768
#: Official files have one row group whatever their size. With these a group is read in pieces; by default the columns
#: of the whole group are held in memory.
STREAMING = {"pre_buffer": False, "buffer_size": 1024 * 1024}
#: INT96 is how Spark and Hive write times. By default they become nanoseconds, in which the year 3019 becomes 1849.
INT96_UNIT = "us"


def read_parquet(stream: BinaryIO, dataset: Dataset, source_name: str, report: Report) -> Iterator[Chunk]:
    """The rows of a seekable stream; ``UnreadableFile`` for a damaged file or the columns of something else."""
    refuse_other_magic(stream, MAGIC, "Parquet", source_name)
    try:
        yield from _read(stream, dataset, source_name, report)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UnreadableFile(
            f"{source_name}: the Parquet file is damaged or cut off ({reason}). Download it again"
        ) from error


def _read(stream: BinaryIO, dataset: Dataset, source_name: str, report: Report) -> Iterator[Chunk]:
    metadata = pq.read_metadata(stream)
    schema = metadata.schema.to_arrow_schema()
    header = Header.of(schema.names, dataset, source_name)
    report.ignored_columns = [header.names[i] for i in header.ignored]
    report.unknown_columns = dict.fromkeys(header.unknown.values(), 0)
    # Words come as indices into their distinct values: far cheaper than to find these again. No effect on other types.
    words = [
        field.name
        for i, field in enumerate(schema)
        if (column := header.column_at(i)) and values.is_word(column) and values.is_text(field.type)
    ]
    stream.seek(0)
    file = pq.ParquetFile(
        stream, metadata=metadata, read_dictionary=words, coerce_int96_timestamp_unit=INT96_UNIT, **STREAMING
    )
    done = 0
    for batch in map(_without_views, file.iter_batches(batch_size=BATCH_ROWS)):
        yield _chunk(batch, header, done, source_name, report)
        done += batch.num_rows


def _without_views(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with plain texts and bytes in place of views, which Arrow cannot take rows of."""
    for i, field in enumerate(batch.schema):
        if pa.types.is_string_view(field.type) or pa.types.is_binary_view(field.type):
            plain = pa.string() if pa.types.is_string_view(field.type) else pa.binary()
            batch = batch.set_column(i, field.name, batch.column(i).cast(plain))
    return batch


def _chunk(batch: pa.RecordBatch, header: Header, done: int, source_name: str, report: Report) -> Chunk:
    columns: dict[int, pa.Array] = {}
    first_bad = np.full(batch.num_rows, -1)  # position of the first value in each row that does not fit
    for position in range(len(header.names)):
        column = header.column_at(position)
        array = batch.column(position)
        if column is None:
            columns[position] = array
            continue
        try:
            columns[position], bad = values.from_arrow(array, column, report.repaired)
        except TypeError:
            raise UnreadableFile(
                f"{source_name}: column {header.names[position]} has the type {array.type}, "
                f"which cannot be read as {column.type}. Check the file at its publisher"
            ) from None
        if bad is not None:
            first_bad[bad & (first_bad < 0)] = position
    rejects = []
    refused = np.flatnonzero(first_bad >= 0)
    for row, original in zip(refused, _as_json(batch, refused), strict=True):
        column = header.column_at(first_bad[row])
        assert column is not None
        rejects.append(Reject(values.reason(column), column.name, done + int(row) + 1, original))
    indices = np.flatnonzero(first_bad < 0)
    if rejects:
        columns = {position: array.take(pa.array(indices)) for position, array in columns.items()}
    report.count_kept_out(header.kept_out(columns))
    return Chunk(
        rows=header.batch(columns, len(indices)),
        lines=done + indices + 1,
        originals=lambda rows: _as_json(batch, indices[rows]),
        rejects=rejects,
        rows_read=batch.num_rows,
    )


def _as_json(batch: pa.RecordBatch, rows: np.ndarray) -> list[str]:
    """Some rows, each as a JSON object; what JSON has no value for (times, bytes, NaN) stands there as text."""
    if not len(rows):
        return []
    chosen = batch.take(pa.array(rows, pa.int64()))
    pieces: list[pa.Array | str] = []
    for name, column in zip(batch.schema.names, chosen.columns, strict=True):
        pieces += [f"{', ' if pieces else '{'}{json.dumps(name)}: ", _json_texts(column)]
    return list(pc.binary_join_element_wise(*pieces, "}", "").to_pylist())


def _json_texts(array: pa.Array) -> pa.Array:
    """Each value as JSON. All at once for what official files hold; a million rejects would take a minute otherwise."""
    if pa.types.is_dictionary(array.type):
        return _json_texts(array.dictionary).take(array.indices).fill_null("null")
    if pa.types.is_float16(array.type):
        array = array.cast(pa.float32())
    elif values.is_text(array.type):
        array = values.as_string(array, Counter())
    texts = None
    if pa.types.is_integer(array.type) or pa.types.is_boolean(array.type):
        texts = array.cast(pa.string())
    elif pa.types.is_floating(array.type):
        texts = array.cast(pa.string())
        if not values.all_finite(array):
            texts = pc.if_else(pc.is_finite(array), texts, _quoted(texts))
    elif pa.types.is_temporal(array.type) and not pa.types.is_interval(array.type):
        # Years outside of Python's range have a text too, and so has a time in a zone that nobody knows.
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.timestamp(array.type.unit))
        texts = _quoted(array.cast(pa.string()))
    elif pa.types.is_string(array.type) and pc.all(pc.match_substring_regex(array, _PLAIN), min_count=0).as_py():
        texts = _quoted(array)
    if texts is None:
        texts = pa.array([json.dumps(_json_value(value)) for value in array], pa.string())
    return texts.fill_null("null") if texts.null_count else texts


def _quoted(texts: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise('"', texts, '"', "")


def _json_value(scalar: pa.Scalar) -> object:
    try:
        value = scalar.as_py()
    except (ValueError, OverflowError, KeyError):  # such as a time out of Python's range within a list
        return f"({scalar.type})"
    return value if value is None or isinstance(value, str | int | float) else str(value)

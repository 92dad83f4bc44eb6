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

from ..datasets.schema import Column, Dataset
from ..errors import UnreadableFile
from ..format_detection import check_magic
from . import values
from .chunks import Chunk, Reject, Report
from .header import MAX_NAME, Header, beginning
from .parquet_file import MAGIC, damaged, decoding, read_batches, read_footer

#: Text that stands in JSON as it is.
_PLAIN = r"^[ !#-\[\]-~]*$"
#: Bytes of rows, with all their texts, that are worked on at a time. 32,768 rows of official files have some 6 MB.
PIECE_BYTES = 8 * 1024 * 1024
#: Bytes of a text that are looked at, and that the original of a reject keeps.
MAX_TEXT = 4_000


def read_parquet(stream: BinaryIO, dataset: Dataset, report: Report) -> Iterator[Chunk]:
    """The rows of a seekable stream; ``UnreadableFile`` for a damaged file or the columns of something else."""
    check_magic(stream, MAGIC, "Parquet")
    try:
        yield from _read(stream, dataset, report)
    except (pa.ArrowException, OSError, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise damaged(error) from error


def _read(stream: BinaryIO, dataset: Dataset, report: Report) -> Iterator[Chunk]:
    metadata = read_footer(stream)
    with decoding():
        schema = metadata.schema.to_arrow_schema()
    header = Header.of(schema.names, dataset)
    for position, kind in enumerate(schema.types):
        column = header.column_at(position)
        if column is not None and pa.types.is_nested(kind):  # Arrow does not read all of these
            raise _wrong_type(kind, header.names[position], column)
    report.ignored_columns = [header.names[i] for i in header.ignored]
    report.unknown_columns = dict.fromkeys(header.unknown.values(), 0)
    done = 0
    for batch in read_batches(stream, metadata):
        for piece in _pieces(_simplified(batch)):
            yield _chunk(piece, header, done, report)
            done += piece.num_rows


def _pieces(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    """The batch in pieces that have up to ``PIECE_BYTES`` when each row has its own texts."""
    if sum(map(_most_bytes, batch.columns)) <= PIECE_BYTES:
        yield batch
        return
    ends = np.cumsum(sum(map(_row_bytes, batch.columns)))
    start = 0
    while start < batch.num_rows:
        limit = (ends[start - 1] if start else 0) + PIECE_BYTES
        stop = max(int(np.searchsorted(ends, limit, side="right")), start + 1)
        yield _with_own_dictionaries(batch.slice(start, stop - start))
        start = stop


def _most_bytes(array: pa.Array) -> int:
    if not pa.types.is_dictionary(array.type):
        return array.nbytes
    texts = array.dictionary
    longest = pc.max(pc.binary_length(texts)).as_py() if values.is_text(texts.type) else 8
    return len(array) * (4 + (longest or 0))


def _row_bytes(array: pa.Array) -> np.ndarray:
    """The bytes of each row."""
    if pa.types.is_dictionary(array.type) and values.is_text(array.type.value_type):
        if not len(array.dictionary):
            return np.full(len(array), 4)
        lengths = pc.binary_length(array.dictionary).fill_null(0).to_numpy().astype(np.int64)
        return lengths[array.indices.fill_null(0).to_numpy()] + 4
    if values.is_text(array.type):
        return pc.binary_length(array).fill_null(0).to_numpy().astype(np.int64) + 4
    return np.full(len(array), array.nbytes // max(len(array), 1) + 1)


def _with_own_dictionaries(piece: pa.RecordBatch) -> pa.RecordBatch:
    """The piece of a batch with the distinct values that it has itself."""
    columns = [
        column.dictionary_decode().dictionary_encode() if pa.types.is_dictionary(column.type) else column
        for column in piece.columns
    ]
    return pa.record_batch(columns, piece.schema.names)


def _simplified(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch without views, which Arrow cannot take rows of, and without the ends of endless texts."""
    columns = [_short(_without_view(column)) for column in batch.columns]
    return pa.record_batch(columns, batch.schema.names)


def _without_view(array: pa.Array) -> pa.Array:
    if pa.types.is_string_view(array.type) or pa.types.is_binary_view(array.type):
        return array.cast(pa.string() if pa.types.is_string_view(array.type) else pa.binary())
    return array


def _short(array: pa.Array) -> pa.Array:
    """Texts or bytes, of which those longer than ``MAX_TEXT`` end there and with their length. They fit no column."""
    if pa.types.is_dictionary(array.type):
        short = _short(array.dictionary)
        return array if short is array.dictionary else pa.DictionaryArray.from_arrays(array.indices, short)
    if not values.is_text(array.type) or (pc.max(pc.binary_length(array)).as_py() or 0) <= MAX_TEXT:
        return array
    is_text = pa.types.is_string(array.type) or pa.types.is_large_string(array.type)
    texts = array.cast(pa.large_binary())
    is_long = pc.greater(pc.binary_length(texts), MAX_TEXT).fill_null(False)
    texts = pc.replace_with_mask(
        texts, is_long, pa.array([_beginning(text.as_buffer()) for text in texts.filter(is_long)], pa.large_binary())
    )
    # Strings need not be UTF-8, so they are not cast.
    return texts.view(pa.large_string()) if is_text else texts


def _beginning(text: pa.Buffer) -> bytes:
    data = memoryview(text)
    end = MAX_TEXT
    while end > MAX_TEXT - 3 and data[end] & 0xC0 == 0x80:  # not in the middle of a character
        end -= 1
    return bytes(data[:end]) + f"... ({len(data):,} bytes)".encode()


def _wrong_type(kind: pa.DataType, name: str, column: Column) -> UnreadableFile:
    return UnreadableFile(
        f"column {name} has the type {kind}, which cannot be read as {column.type}. Check the file at its publisher"
    )


def _chunk(batch: pa.RecordBatch, header: Header, done: int, report: Report) -> Chunk:
    def convert(position: int, column: Column | None) -> values.Converted:
        array = batch.column(position)
        if column is None:
            return array, None
        try:
            return values.from_arrow(array, column, report.repaired)
        except TypeError:
            raise _wrong_type(array.type, header.names[position], column) from None

    columns, first_bad = header.converted(batch.num_rows, convert)
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
        pieces += [f"{', ' if pieces else '{'}{json.dumps(beginning(name, MAX_NAME))}: ", _json_texts(column)]
    return list(pc.binary_join_element_wise(*pieces, "}", "").to_pylist())


def _json_texts(array: pa.Array) -> pa.Array:
    """Each value as JSON. All at once for what official files hold; a million rejects would take a minute otherwise."""
    if pa.types.is_dictionary(array.type):
        if len(array.dictionary) > len(array):
            return _json_texts(array.dictionary_decode())
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
    if value is None or isinstance(value, int | float):
        return value
    text = str(value)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}... ({len(text):,} characters)"

"""Checks of a Parquet file before Arrow opens it, and how much memory reading it needs.

A few bytes of a Parquet file can stand for gigabytes: a page that unpacks to them, a dictionary that repeats one long
value, a footer with a million columns. Arrow allocates what a file says. So the footer is bounded before it is parsed,
and the headers of all pages, which do tell the truth about what Arrow will allocate, are read before the pages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import UnreadableFile
from . import values
from .header import MAX_COLUMNS, too_many_columns

MAGIC = b"PAR1"
#: Bytes of the footer. 24 million rows in groups of 10,000 have one of 8 MB.
MAX_FOOTER = 8 * 1024 * 1024
#: Elements of a list in the footer, such as row groups.
MAX_FOOTER_LIST = 100_000
#: Parts of the footer: half a dozen for each column of each row group.
MAX_STRUCTS = 400_000
#: Bytes of pages and dictionaries, unpacked, that are held at once: the largest of each column. Tools write pages of
#: 1 MB, some of them one page per column and group.
MAX_PAGES = 128 * 1024 * 1024
#: Data pages of a column in a row group. A group of 24 million rows has some 1,200.
MAX_DATA_PAGES = 100_000
#: Bytes of texts in a row group among which Arrow may look for the distinct ones: it keeps all that it has found.
MAX_DISTINCT = 16 * 1024 * 1024
#: Bytes of the lists of one column in a row group.
MAX_LISTS = 32 * 1024 * 1024
#: Rows of a batch, and the bytes of all its columns together that make it a smaller one.
BATCH_ROWS = 32_768
BATCH_BYTES = 48 * 1024 * 1024
#: More rows than any file can have: the largest month has 24 million.
MAX_ROWS = 1_000_000_000

#: Official files have one row group whatever their size. With these a group is read in pieces; by default the columns
#: of the whole group are held in memory.
_STREAMING = {"pre_buffer": False, "buffer_size": 1024 * 1024}
#: INT96 is how Spark and Hive write times. By default they become nanoseconds, in which the year 3019 becomes 1849.
_INT96_UNIT = "us"
#: A page's header is far shorter, and Arrow gives up at this length.
_HEADERS = (512, 16 * 1024 * 1024)
_DATA, _DICTIONARY, _DATA_V2 = 0, 2, 3
_BY_DICTIONARY = (2, 8)
#: Each value says how much of the one before it begins with, so that few bytes make many long values.
_BY_PREFIX = 7
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8, "BYTE_ARRAY": 4}


class BadFooter(Exception):
    """What is wrong with the footer of a file, as the middle of a sentence."""


@contextmanager
def decoding() -> Iterator[None]:
    """Turn whatever Arrow raises over a stranger's bytes into one line. Only for calls of Arrow that decode a file."""
    try:
        yield
    except Exception as error:  # of many classes, as the reader and its bindings meet what nobody has written before
        raise damaged(error) from error


def damaged(error: BaseException | str) -> UnreadableFile:
    """The error for a file whose bytes Arrow refuses."""
    return UnreadableFile(f"{_damage(error)}. Download it again")


def _damage(error: BaseException | str) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the Parquet file is damaged or cut off ({reason})"


def footer(stream: BinaryIO) -> pq.FileMetaData:
    """The footer of a file; ``BadFooter`` if it cannot be read, or is larger than that of any file of trips."""
    try:
        size = stream.seek(0, 2)
        stream.seek(max(size - 8, 0))
        length, magic = int.from_bytes(stream.read(4), "little"), stream.read(4)
        if MAX_FOOTER < length < size and magic == MAGIC:  # Arrow names what is wrong otherwise
            raise BadFooter(
                f"the footer of the Parquet file has {length:,} bytes, more than the {MAX_FOOTER:,} allowed"
            )
        stream.seek(0)
        limits = {"thrift_string_size_limit": MAX_FOOTER, "thrift_container_size_limit": MAX_FOOTER_LIST}
        metadata = pq.ParquetFile(stream, **_STREAMING, **limits).metadata
        stream.seek(0)
        groups = range(metadata.num_row_groups)
        rows = max(metadata.num_rows, sum(metadata.row_group(i).num_rows for i in groups))
    except BadFooter:
        raise
    except Exception as error:  # see ``decoding``
        raise BadFooter(_damage(error)) from error
    if metadata.num_columns > MAX_COLUMNS:
        raise BadFooter(too_many_columns(metadata.num_columns))
    if rows > MAX_ROWS:
        raise BadFooter(f"the Parquet file claims {rows:,} rows, more than any month has")
    return metadata


def read_footer(stream: BinaryIO) -> pq.FileMetaData:
    """The footer of a file; ``UnreadableFile`` where ``footer`` refuses it."""
    try:
        return footer(stream)
    except BadFooter as error:
        raise UnreadableFile(f"{error}. Check the file at its publisher, or download it again") from error


def read_batches(stream: BinaryIO, metadata: pq.FileMetaData) -> Iterator[pa.RecordBatch]:
    """The rows of a file, in batches of up to ``BATCH_ROWS``. Texts come as indices into their distinct values where
    the file has them so: far cheaper than to find these again, and a long value that is repeated stays one."""
    with decoding():
        plan = _Plan(stream, metadata)
    for groups in plan.groups():
        file, rows = plan.reading(groups)
        with decoding():
            batches = file.iter_batches(rows, row_groups=groups)
        left = sum(metadata.row_group(i).num_rows for i in groups)
        while True:
            with decoding():
                batch = next(batches, None)
            if batch is None:
                break
            left -= batch.num_rows
            yield batch
        if left:  # Arrow just ends where a column has fewer rows than others, or lists of a fixed length
            raise damaged(f"{'fewer' if left > 0 else 'more'} rows than its footer says")


@dataclass
class _Pages:
    """The data pages of a column in one row group: how many values, bytes when unpacked, and their encoding."""

    counts: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    encodings: list[int] = field(default_factory=list)
    dictionary: int = 0  # bytes of the page of distinct values
    packed: int = 0  # bytes of the largest page before it is unpacked

    @property
    def has_distinct(self) -> bool:
        """Whether Arrow can find the distinct values. It keeps all that it has found in a row group."""
        return {0, *_BY_DICTIONARY}.issuperset(self.encodings) and self.most(0).sum() <= MAX_DISTINCT

    def most(self, longest: int, rows: int = MAX_ROWS) -> np.ndarray:
        """The most bytes of texts that so many rows of each page stand for, if no distinct value is longer than
        ``longest``."""
        sizes, counts = np.array(self.sizes, np.int64), np.minimum(np.array(self.counts, np.int64), rows)
        encodings = np.array(self.encodings)
        most = np.where(encodings == _BY_PREFIX, sizes * counts, sizes)
        return np.where(np.isin(encodings, _BY_DICTIONARY), counts * longest, most)

    def most_in_a_row(self, longest: int, rows: int) -> int:
        """The most bytes of texts that so many rows stand for that follow each other."""
        if not self.counts:
            return 0
        ends = np.cumsum(self.counts)
        sums = np.concatenate(([0], np.cumsum(self.most(longest, rows))))
        last = np.searchsorted(ends, ends - 1 + rows)  # they may begin with the last row of a page
        return int((sums[np.minimum(last + 1, len(ends))] - sums[:-1]).max())


class _Plan:
    """Which row groups are read together, which of their columns as indices, and by how many rows."""

    def __init__(self, stream: BinaryIO, metadata: pq.FileMetaData) -> None:
        self._stream, self._metadata = stream, metadata
        self._chunks = _column_chunks(stream)
        texts = {column.name for column in metadata.schema.to_arrow_schema() if values.is_text(column.type)}
        self._leaves = [metadata.schema.column(i) for i in range(metadata.num_columns)]
        times = Counter(leaf.path for leaf in self._leaves)  # of a name that occurs twice, Arrow takes any
        self._texts = {i for i, leaf in enumerate(self._leaves) if leaf.path in texts and times[leaf.path] == 1}
        self._widths = [_WIDTHS.get(leaf.physical_type, leaf.length) for leaf in self._leaves]
        self._files: dict[tuple[str, ...], pq.ParquetFile] = {}

    def groups(self) -> Iterator[list[int]]:
        """Row groups that have a batch's rows together, or are larger."""
        waiting: list[int] = []
        rows = 0
        for i in range(self._metadata.num_row_groups):
            waiting.append(i)
            rows += self._metadata.row_group(i).num_rows
            if rows >= BATCH_ROWS:
                yield waiting
                waiting, rows = [], 0
        if waiting:
            yield waiting

    def reading(self, groups: list[int]) -> tuple[pq.ParquetFile, int]:
        """The file as the groups are to be read, and the rows of a batch. ``UnreadableFile`` if their pages take more
        memory than there shall be."""
        pages = [[self._pages(group, leaf) for group in groups] for leaf in range(len(self._leaves))]
        self._check_pages(pages)
        indices = {leaf for leaf in self._texts if all(chunk.has_distinct for chunk in pages[leaf])}
        texts = [
            (chunk, 0 if leaf in indices else self._longest(group, leaf, chunk))
            for leaf, chunks in enumerate(pages)
            if self._leaves[leaf].physical_type == "BYTE_ARRAY"
            for group, chunk in zip(groups, chunks, strict=True)
        ]
        rows = BATCH_ROWS
        limit = max(BATCH_BYTES, 1.5 * self._needed(texts, 1))  # of large pages one row needs much, and many no more
        while rows > 1 and self._needed(texts, rows) > limit:
            rows //= 2
        return self._opened(indices), rows

    def _opened(self, indices: set[int]) -> pq.ParquetFile:
        names = tuple(self._leaves[leaf].path for leaf in sorted(indices))
        if names not in self._files:
            with decoding():
                self._stream.seek(0)
                self._files[names] = pq.ParquetFile(
                    self._stream,
                    metadata=self._metadata,
                    read_dictionary=list(names),
                    coerce_int96_timestamp_unit=_INT96_UNIT,
                    **_STREAMING,
                )
        return self._files[names]

    def _needed(self, texts: list[tuple[_Pages, int]], rows: int) -> int:
        """The most bytes that so many rows in a row can have."""
        return rows * sum(self._widths) + sum(chunk.most_in_a_row(longest, rows) for chunk, longest in texts)

    def _longest(self, group: int, leaf: int, pages: _Pages) -> int:
        """The most bytes of a distinct value, as its first row tells."""
        if leaf not in self._texts or not pages.encodings or pages.encodings[0] not in _BY_DICTIONARY:
            return pages.dictionary
        file = self._opened({leaf})
        with decoding():
            column = self._leaves[leaf].path
            first = next(file.iter_batches(1, row_groups=[group], columns=[column])).column(0)
            return pc.max(pc.binary_length(first.dictionary)).as_py() or 0

    def _check_pages(self, pages: list[list[_Pages]]) -> None:
        held = 0
        for leaf, chunks in enumerate(pages):
            # Arrow keeps places, lengths and a hash table beside the texts of a dictionary.
            factor = 20 if self._leaves[leaf].physical_type == "BYTE_ARRAY" else 2
            held += max(max(chunk.sizes, default=0) + chunk.packed + chunk.dictionary * factor for chunk in chunks)
            if self._leaves[leaf].max_repetition_level:
                lists = max(
                    chunk.most(chunk.dictionary).sum() + sum(chunk.counts) * self._widths[leaf] for chunk in chunks
                )
                if lists > MAX_LISTS:
                    raise UnreadableFile(
                        f"a column of lists takes {lists:,} bytes, more than the {MAX_LISTS:,} "
                        "that are read. Check the file at its publisher"
                    )
        if held > MAX_PAGES:
            raise UnreadableFile(
                f"the pages of the Parquet file take {held:,} bytes at once, more than the "
                f"{MAX_PAGES:,} that are read. Have it published with pages of 1 MB"
            )

    def _pages(self, group: int, leaf: int) -> _Pages:
        """The headers of all pages of a column, as Arrow finds them."""
        try:
            chunk = self._chunks[group][leaf]
            start, dictionary = _number(chunk, 9), _number(chunk, 11)
            end, left = min(start, dictionary or start) + _number(chunk, 7), _number(chunk, 5)
        except (IndexError, ValueError) as error:
            raise damaged(f"its footer: {error!r}") from None
        if 0 < dictionary < start:
            start = dictionary
        pages = _Pages()
        while left > 0 and 0 <= start < end:
            page, length = _page_header(self._stream, start)
            try:
                kind, size, packed = (_number(page, field) for field in (1, 2, 3))
                data = page.get(5 if kind == _DATA else 8, {})
                count, encoding = _number(data, 1), _number(data, 2 if kind == _DATA else 4)
            except ValueError as error:
                raise damaged(error) from None
            if min(packed, size, count) < 0 or max(packed, size, count) >= 2**31:
                raise damaged("a page of negative length")
            start += length + packed
            pages.packed = max(pages.packed, packed)
            if kind == _DICTIONARY:
                pages.dictionary = max(pages.dictionary, size)
            elif kind in (_DATA, _DATA_V2):
                left -= count
                if len(pages.counts) == MAX_DATA_PAGES:
                    raise UnreadableFile(
                        f"a column of a row group has more than {MAX_DATA_PAGES:,} pages. "
                        "Have it published with pages of 1 MB"
                    )
                pages.counts.append(count)
                pages.sizes.append(size)
                pages.encodings.append(encoding)
        return pages


# -- footers and headers of pages, in Thrift's compact protocol -------------------------------------

#: A struct by the numbers of its fields: integers, structs and lists of structs. All else is passed over.
Struct = dict[int, Any]


class _TooShort(Exception):
    """The struct goes on behind the bytes at hand."""


def _column_chunks(stream: BinaryIO) -> list[list[Struct]]:
    """ColumnMetaData of each column of each row group. Arrow's own objects end the process for some damage to them."""
    size = stream.seek(0, 2)
    stream.seek(size - 8)
    length = int.from_bytes(stream.read(4), "little")
    stream.seek(size - 8 - length)
    try:
        footer, _ = _Reader(stream.read(length)).struct(0)
        return [[column[3] for column in group[1]] for group in footer.get(4, [])]
    except (_TooShort, IndexError, KeyError, TypeError, ValueError) as error:  # parts in the places of others, too
        raise damaged(f"its footer: {error!r}") from None


def _page_header(stream: BinaryIO, start: int) -> tuple[Struct, int]:
    """PageHeader at ``start``, and its length."""
    for length in _HEADERS:
        stream.seek(start)
        try:
            return _Reader(stream.read(length)).struct(0)
        except (_TooShort, IndexError):
            continue
        except ValueError as error:
            raise damaged(error) from None
    raise damaged("a page without a header")


def _number(struct: Any, field: int) -> int:
    """An integer of a struct, 0 if it has none; ``ValueError`` if either is something else."""
    number = struct.get(field, 0) if isinstance(struct, dict) else None
    if not isinstance(number, int):
        raise ValueError(f"field {field} is no number")
    return number


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._structs = 0

    def struct(self, position: int, depth: int = 0) -> tuple[Struct, int]:
        """The struct at a position, and where it ends. ``ValueError`` if it is none, ``IndexError`` if it is cut."""
        self._structs += 1
        if depth > 16 or self._structs > MAX_STRUCTS:
            raise ValueError("more parts than any file has")
        data = self._data
        found: Struct = {}
        number = 0
        while True:
            byte = data[position]
            position += 1
            if byte == 0:
                return found, position
            kind, step = byte & 15, byte >> 4
            if step:
                number += step
            else:
                number, position = _integer(data, position)
            if kind in (4, 5, 6):
                found[number], position = _integer(data, position)
            elif kind == 12:
                found[number], position = self.struct(position, depth + 1)
            elif kind == 9:
                found[number], position = self._list(position, depth + 1)
            elif kind not in (1, 2):  # true and false, which are their own value
                position = self._after(position, kind, depth + 1)

    def _list(self, position: int, depth: int) -> tuple[list[Struct], int]:
        size, kind = self._data[position] >> 4, self._data[position] & 15
        position += 1
        if size == 15:
            size, position = _varint(self._data, position)
        if size > len(self._data) or depth > 16:
            raise _TooShort
        structs = []
        for _ in range(size):
            if kind == 12:
                struct, position = self.struct(position, depth)
                structs.append(struct)
            else:
                position = position + 1 if kind in (1, 2) else self._after(position, kind, depth)
        return structs, position

    def _after(self, position: int, kind: int, depth: int) -> int:
        """Where a value that nobody asked for ends."""
        if kind == 3:
            return position + 1
        if kind in (4, 5, 6):
            return _varint(self._data, position)[1]
        if kind == 7:
            return position + 8
        if kind == 8:
            length, position = _varint(self._data, position)
            if position + length > len(self._data):
                raise _TooShort
            return position + length
        if kind in (9, 10):
            return self._list(position, depth + 1)[1]
        raise ValueError(f"a field of type {kind}")


def _integer(data: bytes, position: int) -> tuple[int, int]:
    number, position = _varint(data, position)
    return (number >> 1) ^ -(number & 1), position


def _varint(data: bytes, position: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, position
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")

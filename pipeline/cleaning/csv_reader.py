"""CSV files of all eras, read in blocks of complete lines.

A physical line is a row: no published file has a line break inside quotes, and a stray line break makes two short
lines that are both refused. A line ends with LF, CR LF, or as tools on Windows and old Macs write it, with CR CR LF or
CR alone; byte order marks at the beginning of lines are left out. Each block goes along one of two paths with the same
result:

* fast: Arrow's CSV reader converts the block to the declared types. Taken only where every line is sure to become one
  row (Arrow lets quotes run over line ends) and nothing in it needs a second look.
* exact: the block is split into texts, converted by ``values``, and every row that does not fit becomes a reject.

What the published files are known to do, by era: a blank second line (yellow and green 2013-08 to 2018); two empty
values more than names in each row (green 2013-08 to 2014, both 2016-07 to 2016-12); rows with more values than names
(yellow 2010-02 and 2010-03); blanks around names (yellow 2014, green to 2015); a stray line break (fhv 2020-01); the
byte 0xA0 of Windows-1252 (fhv); quotes around everything (fhv 2017-07 to 2018-12); integers printed as ``1.0``.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from copy import copy
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ..datasets.schema import Column, Dataset
from ..errors import UnreadableFile
from ..format_detection import identify, mismatch
from ..prefetch import ahead, in_parallel
from . import chunks, values
from .chunks import Chunk, Reject, Report
from .header import Header

#: Bytes read at a time, and the longest line. What is held in memory is a small multiple of it.
BLOCK_SIZE = 4 * 1024 * 1024

#: Bytes above which a stream is no month, whatever it was packed in. The largest month has some 3 GB.
MOST_BYTES = 64 << 30

#: Lines that are worked on at a time. A block of published files has up to 80,000, one of empty rows two million.
MAX_LINES = 80_000
#: Values more than names in a line that Arrow is given: it makes a column of each.
MAX_SURPLUS = 100

#: Blocks that are tried at once. Arrow could use as many threads for one block, but not for all of its work.
THREADS = 2

_LINE_FEED, _RETURN, _SPACE = b"\n\r "
#: A line of nothing but these is blank: blanks and control characters, such as the end sign of DOS, but not NUL.
_BLANKS = bytes(range(1, _SPACE + 1))
_UTF8_BOM = b"\xef\xbb\xbf"
_LEADING_BOM = re.compile(rb"^(?:\xef\xbb\xbf)+", re.MULTILINE)
#: One value: quoted (``""`` stands for a quote; text between the closing quote and the comma belongs to the value, as
#: in Arrow) or plain. The second group is the closing quote.
_VALUE = re.compile(r'"((?:[^"]|"")*+)("?)([^,]*)|([^,]*)', re.DOTALL)
_WORDS = pa.dictionary(pa.int32(), pa.string())


def read_csv(stream: BinaryIO, dataset: Dataset, report: Report, container: str = "") -> Generator[Chunk, None, None]:
    """The rows of an uncompressed CSV stream; ``UnreadableFile`` if its header is not one of the dataset.

    ``container`` is what the stream was unpacked from.
    """
    with closing(ahead(_lines(stream, container))) as pieces:
        for lines in pieces:
            report.blank_lines += lines.blank
            report.repaired.update(lines.repaired)
            if len(lines):
                break
        else:
            raise UnreadableFile("the file is empty. Check the file at its publisher")
        reader = CsvReader(Header.of(split(lines.text(0))[0], dataset), report)
        first = lines.without_first()
        report.blank_lines -= first.blank  # counted again with the others
        with closing(in_parallel(reader.try_fast, chain([first], pieces), THREADS)) as tried:
            for lines, columns in tried:
                report.blank_lines += lines.blank
                report.repaired.update(lines.repaired)
                if len(lines):
                    yield reader.read(lines, columns)


def _lines(stream: BinaryIO, container: str) -> Generator[Lines, None, None]:
    number = 1
    for block in _blocks(stream, container):
        lines = Lines(block, number)
        number += lines.count
        yield from lines.parts()


def split(text: str) -> tuple[list[str], bool]:
    """The values of a line, and whether every quote that opens a value is closed."""
    if '"' not in text:
        return text.split(","), True
    fields = []
    is_closed = True
    position = 0
    while True:
        match = _VALUE.match(text, position)
        assert match is not None  # the pattern matches the empty text too
        quoted, closing, tail, plain = match.groups()
        if quoted is None:
            fields.append(plain)
        else:
            fields.append(quoted.replace('""', '"') + tail)
            is_closed = is_closed and bool(closing)
        position = match.end() + 1
        if position > len(text):
            return fields, is_closed


def _blocks(stream: BinaryIO, container: str) -> Iterator[bytes]:
    """The stream in blocks that end at line ends. An unfinished last line comes as a block of its own."""
    rest = b""
    is_first = True
    length = 0
    while piece := stream.read(BLOCK_SIZE):
        length += len(piece)
        if length > MOST_BYTES:
            raise UnreadableFile(
                f"it unpacks to more than {MOST_BYTES} bytes, which no month has. Check the file at its publisher"
            )
        block = rest + piece
        if is_first and len(block) >= len(_UTF8_BOM):
            head = block[:512]
            if identify(head):
                raise UnreadableFile(
                    f"the file is {mismatch(head, 'CSV', container)}. Have it published as "
                    "CSV in UTF-8, or check whether it is the right file"
                )
            while block.startswith(_UTF8_BOM):
                block = block.removeprefix(_UTF8_BOM)
            is_first = False
        # Without LF the lines end with CR. The last of them stay behind: LF may follow.
        end = block.rfind(b"\n") + 1 or block.rstrip(b"\r").rfind(b"\r") + 1
        rest = block[end:]
        if end:
            yield block[:end]
        if len(rest) > BLOCK_SIZE:
            raise UnreadableFile(
                f"a line is longer than {BLOCK_SIZE:,} bytes, so this is no CSV file. Check the file at its publisher"
            )
    if rest:
        yield rest


class Lines:
    """The lines of a block, without the blank ones (``blank`` of them). ``count`` is the number of all lines.

    ``numbers`` are the physical line numbers of the lines that are not blank; ``first`` is that of the block's first.
    ``repaired`` counts the lines with another line end than LF or CR LF, or with a byte order mark.
    """

    def __init__(self, block: bytes, first: int) -> None:
        self.repaired: Counter[str] = Counter()
        text, ends = _line_feeds(block)
        if np.count_nonzero(text == _RETURN) != np.count_nonzero(text[ends[ends > 0] - 1] == _RETURN):
            block, self.repaired[chunks.LINE_ENDS] = _with_line_feeds(block)
            text, ends = _line_feeds(block)
        if not block.isascii() and _UTF8_BOM in block:
            block, marks = _LEADING_BOM.subn(b"", block)
            if marks:
                self.repaired[chunks.BYTE_ORDER_MARKS] = marks
                text, ends = _line_feeds(block)
        self.block = block
        self.is_terminated = block.endswith(b"\n")
        if not self.is_terminated and block:
            ends = np.append(ends, len(block))
        starts = np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends
        self.count = len(ends)
        # A blank line begins with a blank or its own line end, which few other lines do.
        is_blank = text[starts] <= _SPACE
        for i in np.flatnonzero(is_blank & (text[starts] != _LINE_FEED)):
            is_blank[i] = not block[starts[i] : ends[i]].strip(_BLANKS)
        self.blank = int(is_blank.sum())
        self.numbers = np.arange(first, first + self.count)
        if self.blank:
            starts, ends, self.numbers = starts[~is_blank], ends[~is_blank], self.numbers[~is_blank]
        self._starts, self._ends = starts, ends

    def __len__(self) -> int:
        return len(self.numbers)

    def parts(self) -> Iterator[Lines]:
        """The lines in parts of up to ``MAX_LINES``. What was left out or repaired belongs to the first."""
        yield self._part(0, MAX_LINES) if len(self) > MAX_LINES else self
        for first in range(MAX_LINES, len(self), MAX_LINES):
            part = self._part(first, first + MAX_LINES)
            part.blank, part.repaired = 0, Counter()
            yield part

    def _part(self, first: int, last: int) -> Lines:
        part = copy(self)
        start = int(self._starts[first])
        part.block = self.block[start : int(self._ends[min(last, len(self)) - 1]) + 1]
        part.is_terminated = part.block.endswith(b"\n")
        part.numbers = self.numbers[first:last]
        part._starts, part._ends = self._starts[first:last] - start, self._ends[first:last] - start
        return part

    @property
    def has_hexadecimal(self) -> bool:
        """Whether a number could be hexadecimal. Looking for the rare letter first is many times faster."""
        return any(letter in self.block and b"0" + letter in self.block for letter in (b"x", b"X"))

    def raw(self, i: int) -> bytes:
        """The i-th line without its line end."""
        return self.block[self._starts[i] : self._ends[i]].removesuffix(b"\r")

    def is_cut(self, i: int) -> bool:
        """Whether the file ends before the line does."""
        return int(self._ends[i]) == len(self.block)

    def text(self, i: int) -> str:
        return values.decode(self.raw(i))[0]

    def without_first(self) -> Lines:
        """The lines after the first one that is not blank."""
        return Lines(self.block[self._ends[0] + 1 :], int(self.numbers[0]) + 1)


def _line_feeds(block: bytes) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a block as an array, and the positions of the line feeds."""
    text = np.frombuffer(block, np.uint8)
    return text, np.flatnonzero(text == _LINE_FEED)


def _with_line_feeds(block: bytes) -> tuple[bytes, int]:
    """A block whose lines all end with LF, and how many of them ended with CR or more than one before LF."""
    text = np.frombuffer(block, np.uint8).copy()
    returns = np.flatnonzero(text == _RETURN)
    lasts = np.flatnonzero(np.diff(returns, append=len(block) + 1) != 1)  # of those that follow each other
    lengths = np.diff(lasts, prepend=-1)
    after = np.minimum(returns[lasts] + 1, len(block) - 1)
    before_feed = text[after] == _LINE_FEED
    repaired = int(lengths[~before_feed].sum() + np.count_nonzero(lengths[before_feed] > 1))
    is_dropped = np.repeat(before_feed, lengths)
    text[returns[~is_dropped]] = _LINE_FEED
    return np.delete(text, returns[is_dropped]).tobytes(), repaired


@dataclass(frozen=True)
class Columns:
    """What Arrow read of a block: arrays by position, how many values its rows have, and what was repaired."""

    by_position: dict[int, pa.Array]
    width: int
    repaired: Counter[str] = field(default_factory=Counter)


class CsvReader:
    """Reads the lines that follow a header, and adds what it finds to the report."""

    def __init__(self, header: Header, report: Report) -> None:
        self.header = header
        self.report = report
        self.width: int | None = None  # values in the row that had fewest so far
        report.ignored_columns = [header.names[i] for i in header.ignored]
        report.unknown_columns = dict.fromkeys(header.unknown.values(), 0)

    def read(self, lines: Lines, fast: Columns | None) -> Chunk:
        """The rows of ``lines``, of which there is at least one. ``fast`` is what ``try_fast`` made of them."""
        if fast is None:
            return self._read_exact(lines)
        return self._chunk(lines, np.arange(len(lines)), self._accept(lines, fast), [], len(lines))

    def _is_plain(self, lines: Lines) -> bool:
        """Whether Arrow may split the lines, if it finds as many rows as there are lines.

        It then cannot have joined two lines: each row takes at least one line, none ends within a line, and a value
        with an open quote at the very end is looked for here. What is odd otherwise is left to the exact path.
        """
        block = lines.block
        if not lines.is_terminated or b"\0" in block:
            return False
        if not block.isascii():
            try:
                block.decode()
            except UnicodeDecodeError:
                return False
        return split(lines.text(len(lines) - 1))[1]

    def _arrow(self, lines: Lines, types: dict[int, pa.DataType]) -> Columns | None:
        """The columns as Arrow reads them; None if it refuses, or does not find one row per line."""
        width = len(split(lines.text(0))[0])
        if not self.header.needed <= width <= len(self.header.names) + MAX_SURPLUS:
            return None
        surplus = range(len(self.header.names), width)
        missing = range(width, len(self.header.names))  # a column without a name at the end, of which rows lack a value
        types = types | dict.fromkeys(surplus, pa.string())
        for position in missing:
            del types[position]
        try:
            table = pacsv.read_csv(
                pa.BufferReader(lines.block),
                pacsv.ReadOptions(
                    column_names=[str(i) for i in range(width)], block_size=len(lines.block) + 1, use_threads=False
                ),
                pacsv.ParseOptions(quote_char='"' if b'"' in lines.block else False),
                convert_options=pacsv.ConvertOptions(
                    column_types={str(position): kind for position, kind in types.items()},
                    include_columns=[str(position) for position in types],
                    null_values=[""],
                    strings_can_be_null=True,
                ),
            )
        except (pa.ArrowInvalid, KeyError):
            return None
        if table.num_rows != len(lines):
            return None
        columns = {position: _one_array(table.column(str(position))) for position in types}
        for position in surplus:
            if columns.pop(position).null_count < len(lines):
                return None
        return Columns(columns | {position: pa.nulls(len(lines), pa.string()) for position in missing}, width)

    def _count_values(self, width: int) -> None:
        self.width = min(width, self.width or width)

    def _accept(self, lines: Lines, read: Columns) -> dict[int, pa.Array]:
        self._count_values(read.width)
        self.report.repaired.update(read.repaired)
        if read.width > len(self.header.names):
            self.report.surplus_values += len(lines)
        return read.by_position

    # -- fast path -------------------------------------------------------------------------------

    def try_fast(self, lines: Lines) -> tuple[Lines, Columns | None]:
        """The columns if all rows fit the declared types without exception, else None. Changes nothing here, so that
        several blocks may be tried at once."""
        if not len(lines) or lines.has_hexadecimal or not self._is_plain(lines):  # Arrow reads 0x10 as the integer 16
            return lines, None
        types = {}
        for position in range(len(self.header.names)):
            column = self.header.column_at(position)
            if column is None:
                types[position] = pa.string()
            else:
                types[position] = _WORDS if values.is_word(column) else column.arrow_type
        read = self._arrow(lines, types)
        if read is None:
            return lines, None
        for position, array in read.by_position.items():
            column = self.header.column_at(position)
            if column is None:
                continue
            if values.is_word(column) or column.type == "string":
                read.by_position[position], bad = values.from_text(array, column, read.repaired)
                if bad is not None:
                    return lines, None
            elif not values.in_range(array):
                return lines, None
        return lines, read

    # -- exact path ------------------------------------------------------------------------------

    def _read_exact(self, lines: Lines) -> Chunk:
        """The rows that fit, and a reject for each that does not."""
        rejects: list[Reject] = []
        indices = np.arange(len(lines))
        all_texts = dict.fromkeys(range(len(self.header.names)), pa.string())
        read = self._arrow(lines, all_texts) if self._is_plain(lines) else None
        repeated = 0
        if read is None:
            texts, indices, repeated = self._split(lines, rejects)
        else:
            texts = self._accept(lines, read)

        def convert(position: int, column: Column | None) -> values.Converted:
            return (
                values.from_text(texts[position], column, self.report.repaired) if column else (texts[position], None)
            )

        columns, first_bad = self.header.converted(len(indices), convert)
        for row in np.flatnonzero(first_bad >= 0):
            line = int(indices[row])
            text = lines.text(line)
            column = self.header.column_at(first_bad[row])
            assert column is not None
            if self._is_header(split(text)[0], lines, line):
                repeated += 1
            else:
                reason = chunks.TRUNCATED_LINE if lines.is_cut(line) else values.reason(column)
                rejects.append(Reject(reason, column.name, int(lines.numbers[line]), text))
        if (first_bad >= 0).any():
            is_good = first_bad < 0
            indices = indices[is_good]
            columns = {position: array.filter(pa.array(is_good)) for position, array in columns.items()}
        self.report.repeated_headers += repeated
        return self._chunk(lines, indices, columns, rejects, len(lines) - repeated)

    def _split(self, lines: Lines, rejects: list[Reject]) -> tuple[dict[int, pa.Array], np.ndarray, int]:
        """The texts by position of the lines with the right number of values, which lines these are, and how many
        others repeat the header."""
        names = len(self.header.names)
        texts: list[list[str | None]] = [[] for _ in range(names)]
        indices = []
        repeated = 0
        for i in range(len(lines)):
            text, is_repaired = values.decode(lines.raw(i))
            if is_repaired:
                self.report.repaired[chunks.WINDOWS_1252] += 1
            fields, is_closed = split(text)
            if "\0" in text:
                reason = chunks.NOT_TEXT
            elif lines.is_cut(i) and (len(fields) < (self.width or self.header.needed) or not is_closed):
                reason = chunks.TRUNCATED_LINE
            elif not is_closed:
                reason = chunks.UNCLOSED_QUOTE
            elif len(fields) < self.header.needed:
                reason = chunks.TOO_FEW_VALUES
            elif len(fields) > names and any(field.strip() for field in fields[names:]):
                reason = chunks.TOO_MANY_VALUES
            else:
                indices.append(i)
                self._count_values(len(fields))
                self.report.surplus_values += len(fields) > names
                for column, value in zip_longest(texts, fields[:names]):
                    column.append(value or None)
                continue
            if self._is_header(fields, lines, i):
                repeated += 1
            else:
                rejects.append(Reject(reason, None, int(lines.numbers[i]), text))
        arrays = {position: pa.array(column, pa.string()) for position, column in enumerate(texts)}
        return arrays, np.array(indices, int), repeated

    def _is_header(self, fields: list[str], lines: Lines, i: int) -> bool:
        try:
            return self.header.is_repeated(fields)
        except UnreadableFile as error:
            raise UnreadableFile(f"line {lines.numbers[i]} is {error}") from None

    def _chunk(
        self, lines: Lines, indices: np.ndarray, columns: dict[int, pa.Array], rejects: list[Reject], rows_read: int
    ) -> Chunk:
        self.report.count_kept_out(self.header.kept_out(columns))
        return Chunk(
            rows=self.header.batch(columns, len(indices)),
            lines=lines.numbers[indices],
            originals=lambda rows: [lines.text(int(indices[row])) for row in rows],
            rejects=rejects,
            rows_read=rows_read,
        )


def _one_array(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.unify_dictionaries().chunks)

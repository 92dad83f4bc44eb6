"""Chunks of rows and rejects, which the readers give to ``clean``, and the report on the whole file."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..datasets.schema import Dataset

#: Columns of the rejects. ``column`` is null where the row as a whole was refused. ``source_line`` is the 1-based
#: physical line of a CSV file, its header included, or the 1-based row of a Parquet file. ``original`` is the line as
#: text, or the Parquet row as a JSON object; a text in it that is longer than 4,000 bytes ends there, with its length.
REJECTS_SCHEMA = pa.schema(
    [
        ("reason", pa.string()),
        ("column", pa.string()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
        ("original", pa.string()),
    ]
)

# Reasons of the readers; a rule gives its own name as the reason.
BAD_VALUE = "bad_value"  # a value that its column's type cannot hold
UNKNOWN_CODE = "unknown_code"  # a word that stands for no code of its column
TOO_FEW_VALUES = "too_few_values"
TOO_MANY_VALUES = "too_many_values"  # more values than names, and not just empty ones at the end
TRUNCATED_LINE = "truncated_line"  # the file ends in the middle of its last line
UNCLOSED_QUOTE = "unclosed_quote"  # a quoted value does not end on its line
NOT_TEXT = "not_text"  # a NUL byte
DUPLICATE_KEY = "duplicate_key"  # of a dataset with a key: the same row once more

# What is repaired, and counted. The unit is a line of a CSV file or a value of a Parquet file for the encoding, a line
# for line ends and byte order marks, else a value.
WINDOWS_1252 = "windows_1252"  # bytes that are not UTF-8, read as Windows-1252
LINE_ENDS = "line_ends"  # CR alone, or more than one before LF
BYTE_ORDER_MARKS = "byte_order_marks"  # at the beginning of a line other than the first
NA_VALUES = "na_values"  # a spelling of "no value", read as null
BOOLEANS = "booleans"  # true and false in a flag
CONTROL_CHARACTERS = "control_characters"  # trimmed from the ends of a value, like characters of no width

#: Distinct unknown codes counted by themselves, per column; all further ones are counted together.
MAX_UNKNOWN_CODES = 100
#: Characters of such a code; longer ones are counted with the further ones.
MAX_CODE = 100
FURTHER_CODES = "(others)"


class Reject(NamedTuple):
    """One refused row; see ``REJECTS_SCHEMA``."""

    reason: str
    column: str | None
    line: int
    original: str


@dataclass(frozen=True)
class Chunk:
    """A piece of a file: the readable rows in the canonical schema, and the rejects of the reader.

    ``lines`` holds the line (row) number of each readable row, ``originals`` gives the texts of those asked for.
    ``rows_read`` is counted from the file itself, not from what became of it.
    """

    rows: pa.RecordBatch
    lines: np.ndarray
    originals: Callable[[np.ndarray], list[str]]
    rejects: list[Reject]
    rows_read: int


@dataclass
class Report:
    """What was found in one file; filled while ``clean`` runs, complete when it ends.

    ``rows_read`` are the data lines; ``blank_lines`` and ``repeated_headers`` are counted apart. ``surplus_values``
    are rows with empty values beyond the last name. ``unknown_columns`` maps each column that is kept out to its number
    of non-null values in readable rows: a column that the dataset does not know by its header, one whose name is there
    twice as ``fare_amount (2nd)``. If a column has two spellings, ``this (beside that)`` are the values of ``this``
    that differ from those of ``that``.
    ``unknown_codes`` maps each column to the codes outside its table and how often they occur (the rows are kept).
    ``repaired`` counts what was read as a person would read it, by kind. ``unreadable`` counts the rejects of the
    reader, without those of the rules; ``first_unreadable`` is the first of them, with the beginning of its
    ``original``. ``pickups_in_month`` are the rows picked up in the month of the file; ``other_months`` counts pickups
    by month in pieces of the file where most are of others.
    """

    rows_read: int = 0
    rows_written: int = 0
    rows_rejected: Counter[str] = field(default_factory=Counter)
    unreadable: int = 0
    first_unreadable: Reject | None = None
    blank_lines: int = 0
    repeated_headers: int = 0
    surplus_values: int = 0
    repaired: Counter[str] = field(default_factory=Counter)
    pickups_in_month: int = 0
    other_months: Counter[str] = field(default_factory=Counter)
    ignored_columns: list[str] = field(default_factory=list)
    unknown_columns: dict[str, int] = field(default_factory=dict)
    unknown_codes: dict[str, Counter[str]] = field(default_factory=dict)

    @property
    def rejected(self) -> int:
        """Rows rejected for any reason."""
        return self.rows_rejected.total()

    def check(self) -> None:
        """Raise ``AssertionError`` unless every row read was written or rejected."""
        if self.rows_read != self.rows_written + self.rejected:
            raise AssertionError(
                f"{self.rows_read} rows read are not {self.rows_written} written plus {self.rejected} rejected"
            )

    def count_unreadable(self, rejects: Iterable[Reject]) -> None:
        """Count the rejects of a reader, and remember the first of the file."""
        for reject in rejects:
            self.rows_rejected[reject.reason] += 1
            self.unreadable += 1
            if self.first_unreadable is None:
                self.first_unreadable = reject._replace(original=reject.original[:200])

    def count_kept_out(self, columns: Iterable[tuple[str, int]]) -> None:
        """Add to the values that found no place, by the names of their columns."""
        for name, count in columns:
            self.unknown_columns[name] = self.unknown_columns.get(name, 0) + count

    def count_months(self, pickups: pa.Array, month: dt.date) -> None:
        """Count the pickups in the month of the file; and by month, where most lie in others."""
        first, following = (np.datetime64(month, "M") + i for i in (0, 1))
        times = pickups.to_numpy(zero_copy_only=False)
        inside = int(np.count_nonzero((times >= first) & (times < following)))
        self.pickups_in_month += inside
        outside = len(pickups) - pickups.null_count - inside
        if outside > inside:
            months = times[~np.isnat(times)].astype("datetime64[M]")
            for other, count in zip(*np.unique(months, return_counts=True), strict=True):
                if other != first:
                    self.other_months[str(other)] += int(count)  # not by partition.py: pickups may be of any year

    def count_codes(self, rows: pa.RecordBatch, dataset: Dataset) -> None:
        """Count the codes outside of the code tables."""
        for column in filter(lambda column: column.codes, dataset.columns):
            for entry in rows.column(column.name).value_counts().to_pylist():
                if (code := entry["values"]) is None or code in column.codes:
                    continue
                counts, text = self.unknown_codes.setdefault(column.name, Counter()), str(code)
                is_counted_apart = len(text) <= MAX_CODE and (text in counts or len(counts) < MAX_UNKNOWN_CODES)
                counts[text if is_counted_apart else FURTHER_CODES] += entry["counts"]


def reject_batch(rejects: list[Reject], source_name: str) -> pa.RecordBatch:
    """The rejects as a batch in ``REJECTS_SCHEMA``, in the order of their lines."""
    rejects = sorted(rejects, key=lambda reject: reject.line)
    return pa.record_batch(
        [
            pa.array([reject.reason for reject in rejects], pa.string()),
            pa.array([reject.column for reject in rejects], pa.string()),
            pa.array([source_name] * len(rejects), pa.string()),
            pa.array([reject.line for reject in rejects], pa.int64()),
            pa.array([reject.original for reject in rejects], pa.string()),
        ],
        schema=REJECTS_SCHEMA,
    )

"""What a column and a dataset are. The declarations themselves stand beside this file, one file per dataset.

A declaration is the single source for casts, Parquet schema, DDL of every warehouse, documentation and
checks. Nothing here imports pyarrow until a schema is asked for, so that ``import pipeline`` stays cheap.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

#: The types that a column may have. Each cleaning cast and each warehouse maps exactly these.
TYPES = ("int64", "float64", "string", "timestamp", "date")

#: The meaning of each code of a column.
Codes = Mapping[int | str, str]

#: Headers that tools give to an index or to a column without a name (lower case): pandas (``Unnamed: 0``, saved twice
#: ``Unnamed: 0.1``; ``__index_level_0__``; ``index`` and ``level_0`` of reset_index), Spark (``_c0``), R (``...1``).
_LEFTOVER = re.compile(r"|unnamed: \d+(\.\d+)*|(__)?index_level_\d+(__)?|index|level_\d+|_c\d+|\.\.\.\d+")


def is_leftover(header: str) -> bool:
    """Whether a column may be a leftover of the tool that wrote the file. It is left out; only if it holds more than
    row numbers is it reported like an unknown column."""
    return _LEFTOVER.fullmatch(header.strip().lower()) is not None


@dataclass(frozen=True)
class Column:
    """One column of the canonical schema.

    ``name`` is the name TLC publishes today. ``aliases`` are the other spellings of all eras; matching ignores
    case and surrounding blanks, so an alias is listed only when it differs by more than that. ``codes`` gives
    the meaning of each code of a coded column; numbers and licences outside of it are kept. ``texts`` maps the
    words of old eras (upper case, trimmed) to today's code, or to None for a word that means null; a word that
    is not in it makes the row a reject. ``upper`` marks identifiers that are trimmed and upper-cased. ``since``
    is the first month whose published file has the column, where that is not the dataset's first.
    """

    name: str
    type: str
    meaning: str
    unit: str = ""
    aliases: tuple[str, ...] = ()
    codes: Codes = field(default_factory=dict)
    texts: Mapping[str, int | str | None] = field(default_factory=dict)
    upper: bool = False
    since: dt.date | None = None

    def __post_init__(self) -> None:
        if self.type not in TYPES:
            raise ValueError(f"column {self.name}: unknown type {self.type!r}")

    @property
    def arrow_type(self) -> pa.DataType:
        import pyarrow as pa

        return {
            "int64": pa.int64(),
            "float64": pa.float64(),
            "string": pa.string(),
            "timestamp": pa.timestamp("us"),
            "date": pa.date32(),
        }[self.type]

    @property
    def description(self) -> str:
        """Meaning, unit and codes in one line, as written into comments of tables and into the docs."""
        text = self.meaning
        if self.unit:
            text += f" [{self.unit}]"
        if self.codes:
            text += " (" + ", ".join(f"{code} = {meaning}" for code, meaning in self.codes.items()) + ")"
        return text


#: Months are the partitions of every table: the month of the file, never of a pickup time.
FILE_MONTH = Column("file_month", "date", "First day of the month of the file that the row came from")


@dataclass(frozen=True)
class Dataset:
    """A dataset: its columns in canonical order and the few facts the pipeline needs besides.

    ``columns`` are the published columns (without ``file_month``). ``first_month`` is the first month any
    publisher ever offered; ``None`` for a table without months. ``pickup``/``dropoff`` name the time columns.
    ``required`` are the columns without which a file is not this dataset. ``key`` is the column whose values are
    unique, if there is one: trips have none.
    """

    name: str
    title: str
    table: str
    columns: tuple[Column, ...]
    first_month: dt.date | None = None
    pickup: str | None = None
    dropoff: str | None = None
    required: tuple[str, ...] = ()
    key: str | None = None

    @property
    def is_monthly(self) -> bool:
        return self.first_month is not None

    @property
    def table_columns(self) -> tuple[Column, ...]:
        """The columns as tables and lake files carry them: the published ones, then ``file_month`` if monthly."""
        return (*self.columns, FILE_MONTH) if self.is_monthly else self.columns

    @cached_property
    def schema(self) -> pa.Schema:
        """Arrow schema of the published columns, all nullable."""
        import pyarrow as pa

        return pa.schema([pa.field(column.name, column.arrow_type) for column in self.columns])

    @cached_property
    def table_schema(self) -> pa.Schema:
        """Arrow schema of the lake's Parquet and of the tables (see ``table_columns``)."""
        import pyarrow as pa

        return pa.schema([pa.field(column.name, column.arrow_type) for column in self.table_columns])

    @cached_property
    def schema_version(self) -> str:
        """Short digest of names and types in order; changes exactly when tables have to change."""
        import hashlib

        text = ",".join(f"{column.name}:{column.type}" for column in self.table_columns)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def _by_name(self) -> dict[str, Column]:
        names: dict[str, Column] = {}
        for column in self.columns:
            for name in (column.name, *column.aliases):
                key = name.strip().lower()
                if names.setdefault(key, column) is not column:
                    raise ValueError(f"{self.name}: the name {name!r} stands for two columns")
        return names

    def column_for(self, header: str) -> Column | None:
        """The canonical column for a header of any era, or None for an unknown one."""
        return self._by_name.get(header.strip().lower())

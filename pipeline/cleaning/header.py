"""Maps the columns of a file to the canonical columns, by name and alias; refuses a header that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..datasets.schema import Column, Dataset, is_leftover
from ..errors import UnreadableFile
from .values import not_row_numbers, trimmed

#: What stands between values in files of tools in other languages or with other settings: named, not guessed at.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}

#: Columns of a file, those within others counted one by one. No published file has more than 30.
MAX_COLUMNS = 1_000
#: Columns without a name at the end. No row needs a value for them, and each takes memory for all rows of a block.
MAX_UNNAMED = 100
#: Characters of a name that are shown and kept.
MAX_NAME = 100


def too_many_columns(number: int) -> str:
    """Why a file with so many columns is refused."""
    return f"it has {number:,} columns, more than the {MAX_COLUMNS:,} that are read"


@dataclass(frozen=True)
class Header:
    """The names of a file, mapped to a dataset.

    ``names`` are the names as they stand in the file, trimmed. ``columns`` gives the positions of the file that hold
    each canonical column: none, one, or more where a file carries two spellings of one column; then the first
    position that has a value speaks, and the canonical spelling comes before the others. ``unknown`` are the positions
    that are kept out, each with the name to report: those of no column, and those of a name that has been there
    already, as nothing says what they mean. ``ignored`` are those that a tool left behind, such as an index.
    """

    dataset: Dataset
    names: tuple[str, ...]
    columns: dict[str, tuple[int, ...]]
    unknown: dict[int, str]
    ignored: tuple[int, ...]

    @classmethod
    def of(cls, names: list[str], dataset: Dataset) -> Header:
        """Map ``names``; ``UnreadableFile`` where columns that every file of the dataset has are missing."""
        if len(names) > MAX_COLUMNS:
            raise UnreadableFile(f"{too_many_columns(len(names))}. Check the file at its publisher")
        stripped = tuple(beginning(trimmed(name), MAX_NAME) for name in names)
        unnamed = len(stripped) - _named(stripped)
        if unnamed > MAX_UNNAMED:
            raise UnreadableFile(
                f"it has {unnamed:,} columns without a name at the end, more than the {MAX_UNNAMED:,} "
                "that are read. Check the file at its publisher"
            )
        found: dict[str, list[int]] = {}
        unknown: dict[int, str] = {}
        ignored = []
        times = Counter[str]()
        for position, name in enumerate(stripped):
            column = dataset.column_for(name)
            times[name.lower()] += 1
            if column is not None and times[name.lower()] == 1:
                found.setdefault(column.name, []).append(position)
            elif is_leftover(name):
                ignored.append(position)
            else:  # by a name that no declaration has, or the month would count as one that waits for its column
                unknown[position] = name if column is None else f"{name} ({_ordinal(times[name.lower()])})"
        missing = [name for name in dataset.required if name not in found]
        if missing:
            for sign, title in _SEPARATORS.items():
                if len(names) == 1 and dataset.column_for(names[0].partition(sign)[0]):
                    raise UnreadableFile(
                        f"the values are separated by {title}, not commas; have it published with commas"
                    )
            raise UnreadableFile(
                f"no {dataset.name} file, it lacks {', '.join(missing)}; it begins with "
                f"{beginning(','.join(names), 80)!a}. Check the file at its publisher, or whether "
                "it is another dataset's"
            )

        def canonical_first(name: str) -> tuple[int, ...]:
            return tuple(sorted(found.get(name, []), key=lambda i: stripped[i].lower() != name.lower()))

        columns = {column.name: canonical_first(column.name) for column in dataset.columns}
        return cls(dataset, stripped, columns, unknown, tuple(ignored))

    def column_at(self, position: int) -> Column | None:
        """The canonical column of a position, or None for an unknown or ignored one."""
        return None if position in self.unknown else self.dataset.column_for(self.names[position])

    @cached_property
    def needed(self) -> int:
        """How many values a row must have: all but those of columns without a name at the end."""
        return _named(self.names)

    @cached_property
    def _meanings(self) -> list[str]:
        return self._meanings_of(self.names)

    def _meanings_of(self, names: Iterable[str]) -> list[str]:
        """What each name stands for, whatever its spelling, without those at the end that are empty."""
        meanings = [
            column.name if (column := self.dataset.column_for(name)) else name.lower() for name in map(trimmed, names)
        ]
        while meanings and not meanings[-1]:
            meanings.pop()
        return meanings

    def is_repeated(self, fields: list[str]) -> bool:
        """Whether the values of a row are this header once more, in whatever spelling.

        ``UnreadableFile`` if they are the header of a file of the dataset with other columns: the rows below it would
        be read by the wrong names.
        """
        meanings = self._meanings_of(fields)
        if meanings == self._meanings:
            return True
        if set(self.dataset.required) <= set(meanings):
            raise UnreadableFile("another header with other columns, so these are two files in one; publish them apart")
        return False

    def converted(
        self, rows: int, convert: Callable[[int, Column | None], tuple[pa.Array, np.ndarray | None]]
    ) -> tuple[dict[int, pa.Array], np.ndarray]:
        """The values by position, and for each row the position of the first one that does not fit, -1 for none.

        ``convert`` gives the values of a position and the mask of the bad ones, if there are any.
        """
        values: dict[int, pa.Array] = {}
        first_bad = np.full(rows, -1)
        for position in range(len(self.names)):
            values[position], bad = convert(position, self.column_at(position))
            if bad is not None:
                first_bad[bad & (first_bad < 0)] = position
        return values, first_bad

    def kept_out(self, values: dict[int, pa.Array]) -> Iterator[tuple[str, int]]:
        """How many of the converted ``values`` by position are not in the ``batch`` made of them, by names to report:
        those of unknown columns, and what the later of two spellings says otherwise than the first."""
        for position, name in self.unknown.items():
            yield name, len(values[position]) - values[position].null_count
        for position in self.ignored:
            if count := not_row_numbers(values[position]):
                yield self.names[position] or f"column {position + 1}, without a name", count
        for first, *others in filter(None, self.columns.values()):
            spoken = values[first]
            for other in others:
                if differing := pc.sum(pc.not_equal(values[other], spoken)).as_py():
                    yield f"{self.names[other]} (beside {self.names[first]})", differing
                spoken = pc.coalesce(spoken, values[other])

    def batch(self, values: dict[int, pa.Array], rows: int) -> pa.RecordBatch:
        """The canonical batch of converted ``values`` by position; a column that the file lacks is null."""
        arrays = []
        for column in self.dataset.columns:
            candidates = [values[i] for i in self.columns[column.name]]
            if not candidates:
                arrays.append(pa.nulls(rows, column.arrow_type))
            elif len(candidates) == 1:
                arrays.append(candidates[0])
            else:
                arrays.append(pc.coalesce(*candidates))
        return pa.record_batch(arrays, schema=self.dataset.schema)


def _named(names: tuple[str, ...]) -> int:
    """How many columns there are up to the last one that has a name."""
    return max((i + 1 for i, name in enumerate(names) if name), default=0)


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def beginning(text: str, length: int) -> str:
    """The beginning of a text of unknown origin, as it stands there."""
    return text if len(text) <= length else text[:length] + "..."

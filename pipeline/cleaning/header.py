"""Which column of a file is which canonical column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..datasets.schema import IGNORED_HEADERS, Column, Dataset
from ..errors import UnreadableFile


@dataclass(frozen=True)
class Header:
    """The names of a file, mapped to a dataset.

    ``names`` are the names as they stand in the file, trimmed. ``columns`` gives the positions of the file that hold
    each canonical column: none, one, or more where a file carries two spellings of one column; then the first
    position that has a value speaks, and the canonical spelling comes before the others. ``unknown`` are the positions
    that are kept out, each with the name to report: those of no column, and those of a name that has been there
    already, as nothing says what they mean. ``ignored`` are those of an index left behind by a tool.
    """

    dataset: Dataset
    names: tuple[str, ...]
    columns: dict[str, tuple[int, ...]]
    unknown: dict[int, str]
    ignored: tuple[int, ...]

    @classmethod
    def of(cls, names: list[str], dataset: Dataset, source_name: str) -> Header:
        """Map ``names``; ``UnreadableFile`` where columns that every file of the dataset has are missing."""
        stripped = tuple(name.strip() for name in names)
        found: dict[str, list[int]] = {}
        unknown: dict[int, str] = {}
        ignored = []
        times = Counter[str]()
        for position, name in enumerate(stripped):
            column = dataset.column_for(name)
            times[name.lower()] += 1
            if column is not None and times[name.lower()] == 1:
                found.setdefault(column.name, []).append(position)
            elif name.lower() in IGNORED_HEADERS:
                ignored.append(position)
            else:  # by a name that no declaration has, or the month would count as one that waits for its column
                unknown[position] = name if column is None else f"{name} ({_ordinal(times[name.lower()])})"
        missing = [name for name in dataset.required if name not in found]
        if missing:
            raise UnreadableFile(
                f"{source_name}: no {dataset.name} file, it lacks {', '.join(missing)}; it begins with "
                f"{_excerpt(','.join(names))}. Check the file at its publisher, or whether it is another dataset's"
            )

        def canonical_first(name: str) -> tuple[int, ...]:
            return tuple(sorted(found.get(name, []), key=lambda i: stripped[i].lower() != name.lower()))

        columns = {column.name: canonical_first(column.name) for column in dataset.columns}
        return cls(dataset, stripped, columns, unknown, tuple(ignored))

    def column_at(self, position: int) -> Column | None:
        """The canonical column of a position, or None for an unknown or ignored one."""
        return None if position in self.unknown else self.dataset.column_for(self.names[position])

    def used(self) -> list[int]:
        """The positions that have to be read, in the file's order: known and unknown, not the ignored ones."""
        return [i for i in range(len(self.names)) if i not in self.ignored]

    def kept_out(self, values: dict[int, pa.Array]) -> Iterator[tuple[str, int]]:
        """How many of the converted ``values`` by position are not in the ``batch`` made of them, by names to report:
        those of unknown columns, and what the later of two spellings says otherwise than the first."""
        for position, name in self.unknown.items():
            yield name, len(values[position]) - values[position].null_count
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


def _ordinal(number: int) -> str:
    return {2: "2nd", 3: "3rd"}.get(number, f"{number}th")


def _excerpt(text: str, length: int = 80) -> str:
    """The beginning of a text of unknown origin, safe to show in one line."""
    return ascii(text if len(text) <= length else text[:length] + "...")

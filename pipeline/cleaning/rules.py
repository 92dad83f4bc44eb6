"""The rules that a user can switch on: checks that refuse readable rows, then those that fill in values.

A rule is known by its name and a version, which is raised when the rule comes to mean something else; months cleaned
with another version are then done again. A rule applies to the datasets that have its columns, and is passed over
elsewhere. A row refused by several rules is counted for the first of them, in the order below.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..datasets.schema import Dataset
from ..errors import UsageError
from ..partition import add_months

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

#: ``pyarrow.compute``, handed to the rules, so that reading their names does not load it.
Compute = Any


@dataclass(frozen=True)
class Rule:
    """One rule. ``meaning`` completes "refuses rows ..." or, for one that fills, "replaces ...".

    ``columns`` names the columns that the rule looks at, given the dataset; a dataset without one of them has None
    or a name it does not know in its place. ``refuses`` returns a mask over their arrays, where null is no; ``fills``
    returns the new array of the first column. A rule has one of the two.
    """

    name: str
    meaning: str
    columns: Callable[[Dataset], tuple[str | None, ...]]
    refuses: Callable[[Compute, dt.date | None, list[pa.Array]], pa.Array] | None = None
    fills: Callable[[Compute, dt.date | None, list[pa.Array]], pa.Array] | None = None
    version: int = 1
    needs_month: bool = False

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"

    def columns_in(self, dataset: Dataset) -> list[str] | None:
        """Names of the rule's columns, or None where the rule does not apply to the dataset."""
        known = {column.name for column in dataset.columns}
        names = [name for name in self.columns(dataset) if name in known]
        return names if len(names) == len(self.columns(dataset)) else None

    def column_in(self, dataset: Dataset) -> str | None:
        """The rule's column, if it looks at one only."""
        names = self.columns_in(dataset) or []
        return names[0] if len(names) == 1 else None


def _first_of(*names: str) -> Callable[[Dataset], tuple[str | None, ...]]:
    def choose(dataset: Dataset) -> tuple[str | None, ...]:
        known = {column.name for column in dataset.columns}
        return (next((name for name in names if name in known), None),)

    return choose


def _both_times(dataset: Dataset) -> tuple[str | None, ...]:
    return (dataset.pickup, dataset.dropoff)


def _outside_month(pc: Compute, month: dt.date | None, columns: list[pa.Array]) -> pa.Array:
    import pyarrow as pa

    assert month is not None
    first, following = (pa.scalar(day, pa.date32()).cast(pa.timestamp("us")) for day in (month, add_months(month, 1)))
    (pickups,) = columns
    return pc.or_(pc.less(pickups, first), pc.greater_equal(pickups, following))


#: Every rule, in the order in which they are applied.
RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "zero_passengers",
            "with a passenger count of 0; an unknown count is not 0",
            lambda dataset: ("passenger_count",),
            refuses=lambda pc, month, columns: pc.equal(columns[0], 0),
        ),
        Rule(
            "pickup_outside_month",
            "picked up in another month than the file's; an unknown time is not another month",
            lambda dataset: (dataset.pickup,),
            refuses=_outside_month,
            needs_month=True,
        ),
        Rule(
            "missing_times",
            "without pickup or drop-off time",
            _both_times,
            refuses=lambda pc, month, columns: pc.or_(pc.is_null(columns[0]), pc.is_null(columns[1])),
        ),
        Rule(
            "dropoff_before_pickup",
            "that end before they begin; legal in the hour when clocks go back",
            _both_times,
            refuses=lambda pc, month, columns: pc.less(columns[1], columns[0]),
        ),
        Rule(
            "negative_fare",
            "with a fare below 0; most are reversals of another row",
            _first_of("fare_amount", "base_passenger_fare"),
            refuses=lambda pc, month, columns: pc.less(columns[0], 0.0),
        ),
        Rule(
            "zero_distance",
            "with a distance of 0 or less",
            _first_of("trip_distance", "trip_miles"),
            refuses=lambda pc, month, columns: pc.less_equal(columns[0], 0.0),
        ),
        Rule(
            "missing_passengers_to_zero",
            "an unknown passenger count by 0",
            lambda dataset: ("passenger_count",),
            fills=lambda pc, month, columns: pc.fill_null(columns[0], 0),
        ),
    )
}


@dataclass(frozen=True)
class Rules:
    """The rules switched on, in the order of ``RULES``. ``str()`` is the form that manifests and ledgers keep."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Rules:
        """Rules from comma-separated names, with or without versions; nothing or ``none`` for no rule.

        ``UsageError`` for a name or version that does not exist.
        """
        names = [name.strip() for name in text.split(",") if name.strip()]
        if names == ["none"]:
            names = []
        chosen = set()
        for entry in names:
            name, _, version = entry.partition("@")
            rule = RULES.get(name)
            if rule is None:
                raise UsageError(
                    f"unknown cleaning rule {entry!r}; choose from {', '.join(RULES)}, or none alone for no rule"
                )
            if version not in ("", str(rule.version)):
                raise UsageError(f"cleaning rule {name} has the version {rule.version}, not {version!r}")
            chosen.add(name)
        return cls(tuple(rule for name, rule in RULES.items() if name in chosen))

    def __str__(self) -> str:
        return ",".join(map(str, self.rules)) or "none"

    def apply(self, rows: pa.RecordBatch, dataset: Dataset, month: dt.date | None) -> tuple[pa.RecordBatch, np.ndarray]:
        """The rows that stay; and for each row the position in ``rules`` of the one that refuses it, -1 for none."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        refused_by = np.full(rows.num_rows, -1, np.int8)
        for number, rule in enumerate(self.rules):
            names = rule.columns_in(dataset)
            if names is None or (rule.needs_month and month is None):
                continue
            arrays = [rows.column(name) for name in names]
            if rule.refuses:
                mask = rule.refuses(pc, month, arrays).fill_null(False).to_numpy(zero_copy_only=False)
                refused_by[mask & (refused_by < 0)] = number
            elif rule.fills:
                position = rows.schema.get_field_index(names[0])
                rows = rows.set_column(position, rows.schema.field(position), rule.fills(pc, month, arrays))
        stays = refused_by < 0
        return rows if stays.all() else rows.filter(pa.array(stays)), refused_by

"""docs/columns.md, made from the declarations: ``python -m pipeline.warehouse.document > docs/columns.md``."""

from __future__ import annotations

from collections.abc import Iterable

from ..datasets import DATASETS
from ..datasets.schema import Column, Dataset
from ..partition import format_month
from .base import CURRENT_VIEW, LEDGER_COLUMNS, LEDGER_TABLE
from .views import TRIP_DATASETS, TRIPS_VIEW, trips_columns


def text() -> str:
    """All tables and views of a warehouse with all columns, as Markdown."""
    head = (
        "# The columns\n\n"
        "Made from the declarations by `python -m pipeline.warehouse.document`. Every column may be null:\n"
        "a month's file may not have it. Monthly tables also carry `file_month`, the month of the file.\n"
        "Tables, Parquet files and `pipeline.read` use TLC's names; the view `trips` uses snake_case.\n"
    )
    return head + "".join(map(_dataset, DATASETS.values())) + _trips() + _ledger()


def _dataset(dataset: Dataset) -> str:
    first = f", from {format_month(dataset.first_month)}" if dataset.first_month else ""
    rows = "".join(_row(column) for column in dataset.columns)
    return (
        f"\n## {dataset.title}\n\nTable `{dataset.table}`{first}.\n\n"
        f"| column | type | meaning | other names |\n|---|---|---|---|\n{rows}"
    )


def _row(column: Column) -> str:
    names = ", ".join(f"`{name}`" for name in column.aliases)
    return f"| `{column.name}` | {column.type} | {_meaning(column)} | {names} |\n"


def _meaning(column: Column) -> str:
    since = f" Since {format_month(column.since)}." if column.since else ""
    return f"{column.description.replace('|', '/')}{since}"


def _trips() -> str:
    names = ", ".join(TRIP_DATASETS)
    lines = (
        f"| `{name}` | {kind} | {' | '.join(f'`{own[of]}`' if of in own else '' for of in TRIP_DATASETS)} |\n"
        for name, kind, own in trips_columns(DATASETS.values())
    )
    return (
        f"\n## Trips\n\nView `{TRIPS_VIEW}`: {names} under common names, with borough and zone of both ends.\n\n"
        f"| column | type | {' | '.join(TRIP_DATASETS)} |\n|---|---|{'---|' * len(TRIP_DATASETS)}\n{''.join(lines)}"
    )


def _ledger() -> str:
    return (
        f"\n## Ledger\n\nTable `{LEDGER_TABLE}`: one row per load, append-only.\n"
        f"View `{CURRENT_VIEW}`: the newest load of each month, with the same columns.\n\n"
        f"| column | type | meaning |\n|---|---|---|\n{_plain(LEDGER_COLUMNS)}"
    )


def _plain(columns: Iterable[Column]) -> str:
    return "".join(f"| `{column.name}` | {column.type} | {_meaning(column)} |\n" for column in columns)


if __name__ == "__main__":
    print(text(), end="")

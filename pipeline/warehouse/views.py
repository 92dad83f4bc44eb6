"""The views of every warehouse, written from the declarations: ``etl_current`` and ``trips``.

The SQL is what DuckDB, PostgreSQL and BigQuery have in common; a ``Dialect`` quotes names and spells types. All
tables must exist, empty or not, before a view can be made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from ..datasets.schema import FILE_MONTH, Column, Dataset
from .base import CURRENT_VIEW, LEDGER_COLUMNS, LEDGER_TABLE
from .tables import Dialect

TRIPS_VIEW = "trips"

#: View -> its comment, by which the pipeline knows its own ones.
COMMENTS = {
    CURRENT_VIEW: "What each month of each table holds: its newest load",
    TRIPS_VIEW: "Yellow and green trips under common names, with boroughs and zones",
}

#: The datasets with the same kind of rows, which the view ``trips`` puts under one another.
TRIP_DATASETS = ("yellow", "green")
ZONES_TABLE = "taxi_zones"

#: TLC's names that are not snake_case already; every other column keeps its name in lower case.
_SNAKE_CASE = {
    "vendorid": "vendor_id",
    "ratecodeid": "rate_code_id",
    "pulocationid": "pickup_location_id",
    "dolocationid": "dropoff_location_id",
}


def views(dialect: Dialect, datasets: Iterable[Dataset]) -> dict[str, str]:
    """Name -> SELECT of every view, in an order in which they can be made. ``datasets``: all that are declared."""
    return {CURRENT_VIEW: current(dialect), TRIPS_VIEW: trips(dialect, datasets)}


def comment(name: str, select: str) -> str:
    """The comment of a view. It ends in a digest of the definition, which servers give back in words of their own."""
    return f"{COMMENTS[name]} [{hashlib.sha256(select.encode()).hexdigest()[:12]}]"


def not_made(warehouse: str, name: str) -> str:
    """The warning about a table or view of the user's own that has the name of a view; it stays as it is."""
    return (
        f"{warehouse}: the view {name} is not made, because something else has that name; rename that to get the view"
    )


def current(dialect: Dialect) -> str:
    """SELECT of ``etl_current``: what each partition of each table holds.

    That is its newest ``loaded`` row: a month that was forgotten is asked to be loaded again, and until then the
    table still holds the rows of the load before.
    """
    q = dialect.quote
    names = ", ".join(q(column.name) for column in LEDGER_COLUMNS)
    return (
        f"SELECT {names} FROM (SELECT {names}, ROW_NUMBER() OVER "
        f"(PARTITION BY {q('dataset')}, {q('file_month')} ORDER BY {q('loaded_at')} DESC) AS {q('newest')} "
        f"FROM {dialect.table(LEDGER_TABLE)} WHERE {q('status')} = 'loaded') AS loads WHERE {q('newest')} = 1"
    )


def trips(dialect: Dialect, datasets: Iterable[Dataset]) -> str:
    """SELECT of ``trips``: yellow and green under common names, with borough and zone of both ends.

    A column that only one of the two has is null in the other. A trip to a place that the zone table does not know
    keeps its row, with null borough and zone.
    """
    services = _services(datasets)
    columns = _columns(services)
    return "\nUNION ALL\n".join(_select(dialect, service, columns) for service in services)


def trips_columns(datasets: Iterable[Dataset]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Name, type and origin by dataset of each column of ``trips``: a column, one of the zone table, or a text."""
    services = _services(datasets)
    own = {service.name: _common_names(service) for service in services}
    yield "dataset", "string", {of: f"'{of}'" for of in own}
    yield FILE_MONTH.name, FILE_MONTH.type, dict.fromkeys(own, FILE_MONTH.name)
    for name, column in _columns(services).items():
        yield name, column.type, {of: names[name].name for of, names in own.items() if name in names}
        for attribute, added in _zone_columns(name):
            yield added, "string", dict.fromkeys(own, f"{ZONES_TABLE}.{attribute}")


def _services(datasets: Iterable[Dataset]) -> list[Dataset]:
    by_name = {dataset.name: dataset for dataset in datasets}
    return [by_name[name] for name in TRIP_DATASETS]


def _columns(services: Iterable[Dataset]) -> dict[str, Column]:
    """Common name -> column of the first dataset that has it."""
    columns: dict[str, Column] = {}
    for service in services:
        for name, column in _common_names(service).items():
            columns.setdefault(name, column)
    return columns


def _zone_columns(name: str) -> list[tuple[str, str]]:
    """(column of the zone table, its name in ``trips``) for a column with a place; none for any other."""
    end = _end(name)
    return [(attribute, f"{end}_{attribute.lower()}") for attribute in ("Borough", "Zone")] if end else []


def _end(name: str) -> str:
    """``pickup`` or ``dropoff`` for a column with the place of that end; empty for any other."""
    return name.removesuffix("_location_id") if name.endswith("_location_id") else ""


def _common_names(dataset: Dataset) -> dict[str, Column]:
    """Common snake_case name -> column of the dataset."""
    names = {}
    for column in dataset.columns:
        if column.name == dataset.pickup:
            name = "pickup_datetime"
        elif column.name == dataset.dropoff:
            name = "dropoff_datetime"
        else:
            name = _SNAKE_CASE.get(column.name.lower(), column.name.lower())
        names[name] = column
    return names


def _select(dialect: Dialect, dataset: Dataset, columns: dict[str, Column]) -> str:
    q = dialect.quote
    own = _common_names(dataset)
    items = [f"'{dataset.name}' AS {q('dataset')}", f"t.{q(FILE_MONTH.name)} AS {q(FILE_MONTH.name)}"]
    joins = []
    for name, column in columns.items():
        if name in own:
            items.append(f"t.{q(own[name].name)} AS {q(name)}")
        else:
            items.append(f"CAST(NULL AS {dialect.types[column.type]}) AS {q(name)}")
        if end := _end(name):
            zone = f"{end}_place"
            items += [f"{zone}.{q(attribute)} AS {q(added)}" for attribute, added in _zone_columns(name)]
            joins.append(
                f"LEFT JOIN {dialect.table(ZONES_TABLE)} AS {zone} ON {zone}.{q('LocationID')} = t.{q(own[name].name)}"
            )
    return f"SELECT {', '.join(items)} FROM {dialect.table(dataset.table)} AS t {' '.join(joins)}"

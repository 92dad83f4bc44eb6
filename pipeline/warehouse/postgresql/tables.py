"""Tables, partitions and indexes of PostgreSQL: the statements that create them as declared, and add what they lack."""

from __future__ import annotations

from collections.abc import Sequence

from ...datasets.schema import FILE_MONTH, Column, Dataset
from ...errors import WarehouseError
from ..base import LEDGER_COLUMNS, LEDGER_TABLE
from ..tables import literal, missing_columns, quote
from .session import TYPES, Relation, Session


def changes(session: Session, declared: Sequence[Dataset]) -> list[str]:
    """The statements that bring the tables of the schema to their declarations; [] if they are there."""
    found = session.relations([LEDGER_TABLE, *(dataset.table for dataset in declared)])
    statements = _table_changes(session, found, LEDGER_TABLE, "What was loaded when; append-only", LEDGER_COLUMNS)
    for dataset in declared:
        statements += _table_changes(session, found, dataset.table, dataset.title, dataset.table_columns, dataset)
    return statements


def _table_changes(
    session: Session,
    found: dict[str, Relation],
    name: str,
    title: str,
    columns: Sequence[Column],
    dataset: Dataset | None = None,
) -> list[str]:
    table, existing, monthly = session.table(name), found.get(name), dataset is not None and dataset.is_monthly
    statements = []
    if existing is None:
        definition = ", ".join(
            session.dialect.definition(column) + (" NOT NULL" if column is FILE_MONTH else "") for column in columns
        )
        month = f" PARTITION BY LIST ({quote(FILE_MONTH.name)})" if monthly else ""
        statements.append(f"CREATE TABLE {table} ({definition}){month}")
        if dataset and (index := index_of(dataset, table)):
            statements.append(index)
        existing = Relation("", None)
    else:
        if existing.kind != ("p" if monthly else "r"):
            shape = "a table partitioned by file_month" if monthly else "a plain table"
            raise WarehouseError(f"{name} exists and is not {shape}; rename it or use another schema, then run again")
        # Unlike elsewhere, names that differ by case are two columns here.
        same = {column.name: existing.types[column.name] for column in columns if column.name in existing.types}
        missing = missing_columns(name, columns, same, TYPES)
        for column in columns:
            if kind := existing.computed.get(column.name):
                raise WarehouseError(
                    f"table {name}: column {column.name} is {kind} column, which takes no values of a file; "
                    f"make it a plain one or rename the table, then run again"
                )
        if monthly and (identities := [own for own, kind in existing.computed.items() if kind == "an identity"]):
            raise WarehouseError(
                f"table {name}: column {identities[0]} of your own is an identity column, which a new month cannot "
                f"fill; drop its identity and give it a DEFAULT of a sequence, then run again"
            )
        statements += [f"ALTER TABLE {table} ADD COLUMN {session.dialect.definition(column)}" for column in missing]
    if existing.comment != title:
        statements.append(f"COMMENT ON TABLE {table} IS {literal(title)}")
    for column in columns:
        if existing.comments.get(column.name) != column.description:
            statements.append(f"COMMENT ON COLUMN {table}.{quote(column.name)} IS {literal(column.description)}")
    return statements


def index_of(dataset: Dataset, table: str) -> str | None:
    """Statement of the index on the pickup time; the same on the parent and on each partition."""
    return f"CREATE INDEX ON {table} USING brin ({quote(dataset.pickup)})" if dataset.pickup else None

"""Creates the dataset, tables and views of BigQuery as declared, and adds what they lack."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from google.api_core import exceptions
from google.cloud import bigquery

from ...datasets import DATASETS
from ...datasets.schema import FILE_MONTH, Column, Dataset
from ...errors import WarehouseError
from ...storage.base import StoredFile
from ..base import LEDGER_COLUMNS, LEDGER_TABLE, location_near
from ..tables import Dialect, declared, missing_columns
from ..views import not_made, views
from .errors import text_of
from .session import Session, digest, quote

LOGGER = logging.getLogger("pipeline")

#: Types of the declarations in SQL. Times are New York wall-clock, hence DATETIME and never TIMESTAMP.
TYPES = {"int64": "INT64", "float64": "FLOAT64", "string": "STRING", "timestamp": "DATETIME", "date": "DATE"}

#: The names by which the API calls the same types; it answers with these whatever it was told.
_API_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
_SQL_NAMES = {api: sql for sql, api in _API_NAMES.items()}

MARK_TABLE = "etl_replacing"
MARK_COLUMNS: tuple[Column, ...] = (
    Column("dataset", "string", "Dataset of the load"),
    Column("file_month", "date", "Month of the file; null for a table without months"),
    Column("replaced_at", "timestamp", "loaded_at of the ledger row whose rows are about to be replaced, UTC"),
    Column("sha256", "string", "SHA-256 of the raw file that is about to be loaded"),
    Column("run_id", "string", "Run that does it"),
    Column("marked_at", "timestamp", "When, UTC"),
)


def prepare(session: Session, lake: StoredFile | None = None, dataset: Dataset | None = None) -> None:
    """Make what is missing, the table of ``dataset`` among it, and note where the BigQuery dataset is.

    A dataset is made on the lake's continent, because BigQuery loads from nowhere else.
    """
    client = session.client
    try:
        found = session.call(client.get_dataset, session.reference)
    except exceptions.NotFound:
        bucket = lake.location if lake and not session.wanted_location else None
        found = create_dataset(session, location_near(bucket, session.options.location))
    session.location = found.location or None
    existing = {table.table_id: table.labels for table in session.call(client.list_tables, session.reference)}
    for each in declared(dataset):
        if each.table not in existing:
            _create(session, _declared_table(session, each))
    for name, columns in ((LEDGER_TABLE, LEDGER_COLUMNS), (MARK_TABLE, MARK_COLUMNS)):
        if name not in existing:
            _create(session, bigquery.Table(session.reference_of(name), schema=[*map(_field, columns)]))
    ledger = session.table(LEDGER_TABLE)
    if missing := missing_columns(LEDGER_TABLE, LEDGER_COLUMNS, _types(ledger), TYPES):
        ledger.schema = [*ledger.schema, *map(_field, missing)]
        session.call(client.update_table, ledger, ["schema"])
    _prepare_views(session, existing)


def create_dataset(session: Session, location: str) -> bigquery.Dataset:
    """The dataset, made where the URL says, or else at ``location``."""
    dataset = bigquery.Dataset(session.reference)
    dataset.location = session.wanted_location or location
    dataset.description = "Trip records of the NYC Taxi & Limousine Commission, one table per dataset"
    made: bigquery.Dataset = session.call(session.client.create_dataset, dataset, exists_ok=True)
    return made


def _declared_table(session: Session, dataset: Dataset) -> bigquery.Table:
    table = bigquery.Table(session.reference_of(dataset.table), schema=[*map(_field, dataset.table_columns)])
    table.description = dataset.title
    table.labels = {"dataset": dataset.name}
    if dataset.is_monthly:
        table.time_partitioning = bigquery.TimePartitioning(
            type_=bigquery.TimePartitioningType.MONTH, field=FILE_MONTH.name
        )
        zone = dataset.column_for("PULocationID")
        table.clustering_fields = [name for name in (dataset.pickup, zone.name if zone else None) if name] or None
    return table


def _prepare_views(session: Session, existing: Mapping[str, Mapping[str, str]]) -> None:
    """Make the views, and again when their SQL changed: its digest is a label of the view, seen in the listing."""
    dialect = Dialect(quote=quote, table=session.sql_name, types=TYPES)
    for name, sql in views(dialect, DATASETS.values()).items():
        labels = {"sql": digest(sql)}
        if name in existing and "sql" not in existing[name]:
            LOGGER.warning("%s", not_made(session.label, name))
            continue
        if name in existing and existing[name]["sql"] == labels["sql"]:
            continue
        view = bigquery.Table(session.reference_of(name))
        view.view_query = sql
        view.labels = labels
        try:
            if name in existing:
                session.call(session.client.update_table, view, ["view_query", "labels"])
            else:
                _create(session, view)
        except exceptions.GoogleAPICallError as error:
            # The months are worth more than the view over them.
            LOGGER.warning("%s: the view %s could not be made: %s", session.label, name, text_of(error))


def _create(session: Session, table: bigquery.Table) -> None:
    session.call(session.client.create_table, table, exists_ok=True)


def _field(column: Column) -> bigquery.SchemaField:
    type_ = TYPES[column.type]
    return bigquery.SchemaField(column.name, _API_NAMES.get(type_, type_), description=column.description[:1024])


def _types(table: bigquery.Table) -> dict[str, str]:
    """Column -> type of a table, spelled as in SQL."""
    return {
        field.name: _SQL_NAMES.get(field.field_type.upper(), field.field_type.upper())
        if field.mode != "REPEATED"
        else f"ARRAY<{field.field_type}>"
        for field in table.schema
    }


def schema_of(table: bigquery.Table, dataset: Dataset) -> tuple[list[bigquery.SchemaField], list[Column]]:
    """The explicit schema of a load job (the table's fields, then the new ones) and the new columns.

    Raises WarehouseError if the table is not what the declaration says.
    """
    additions = missing_columns(table.table_id, dataset.table_columns, _types(table), TYPES)
    declared = {column.name.lower() for column in dataset.table_columns}
    for field in table.schema:
        if field.mode == "REQUIRED" and field.name.lower() not in declared and not field.default_value_expression:
            raise WarehouseError(
                f"table {table.table_id}: column {field.name} of your own is REQUIRED, and no file has it; "
                f"ALTER COLUMN {field.name} DROP NOT NULL or give it a default, then run again"
            )
    partitioning = table.time_partitioning
    if dataset.is_monthly and partitioning and (partitioning.type_, partitioning.field) != ("MONTH", FILE_MONTH.name):
        raise WarehouseError(
            f"table {table.table_id} is partitioned by {partitioning.type_} of {partitioning.field or 'arrival'} and "
            f"should be by MONTH of {FILE_MONTH.name}; rename it, then run again"
        )
    return [*table.schema, *map(_field, additions)], additions

"""What all warehouses share: columns to add, and the ledger row."""

from __future__ import annotations

import datetime as dt

import pytest

from pipeline.datasets.schema import Column
from pipeline.errors import WarehouseError
from pipeline.warehouse import LedgerRow
from pipeline.warehouse.tables import literal, missing_columns, next_row

TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "timestamp": "TIMESTAMP", "date": "DATE"}
COLUMNS = (Column("VendorID", "int64", "Vendor"), Column("fee", "float64", "Fee"))
NOON = dt.datetime(2024, 5, 1, 12)


def row(sha256: str = "b", status: str = "loaded", loaded_at: dt.datetime | None = None) -> LedgerRow:
    return LedgerRow(
        dataset="green",
        file_month=dt.date(2020, 4, 1),
        status=status,
        row_count=3,
        rejected_count=0,
        publisher="tlc",
        sha256=sha256,
        source_url="https://example.com/f",
        source_etag="e",
        rules="none",
        schema_version="s",
        parquet_sha256="p",
        is_synthetic=0,
        run_id="r",
        loaded_at=loaded_at,
    )


def test_missing_columns_are_found_whatever_the_case_and_columns_of_the_user_are_left_alone() -> None:
    existing = {"vendorid": "bigint", "my_note": "VARCHAR"}
    assert missing_columns("green_trips", COLUMNS, existing, TYPES) == [COLUMNS[1]]
    assert missing_columns("green_trips", COLUMNS, {**existing, "fee": "DOUBLE"}, TYPES) == []


def test_another_type_is_an_error_that_names_column_and_both_types() -> None:
    with pytest.raises(WarehouseError, match="table green_trips: column fee is INTEGER and should be DOUBLE"):
        missing_columns("green_trips", COLUMNS, {"VendorID": "BIGINT", "fee": "INTEGER"}, TYPES)


def test_first_row_replaces_nothing() -> None:
    stored = next_row(row(), None, NOON)
    assert (stored.replaces, stored.loaded_at) == (None, NOON)


def test_next_row_replaces_the_newest() -> None:
    stored = next_row(row("b"), row("a", loaded_at=NOON), NOON + dt.timedelta(hours=1))
    assert (stored.replaces, stored.loaded_at) == ("a", NOON + dt.timedelta(hours=1))


def test_loaded_at_grows_although_the_clock_was_set_back() -> None:
    stored = next_row(row(), row("a", loaded_at=NOON), NOON - dt.timedelta(days=1))
    assert stored.loaded_at == NOON + dt.timedelta(microseconds=1)


def test_a_forgotten_row_replaces_nothing_and_the_load_after_it_names_what_the_table_held() -> None:
    forgotten = next_row(row("a", status="forgotten"), row("a", loaded_at=NOON), NOON)
    assert forgotten.replaces is None
    assert next_row(row("b"), forgotten, NOON).replaces == "a"


def test_the_clock_is_utc_without_zone() -> None:
    before = dt.datetime.now(dt.UTC)
    stored = next_row(row(), None)
    after = dt.datetime.now(dt.UTC)
    assert stored.loaded_at is not None and stored.loaded_at.tzinfo is None
    assert before <= stored.loaded_at.replace(tzinfo=dt.UTC) <= after


def test_literal_doubles_quotes() -> None:
    assert literal("driver's") == "'driver''s'"

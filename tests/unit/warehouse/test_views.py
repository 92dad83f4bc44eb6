"""The SQL of the views, run where it is cheapest: on empty and tiny tables in DuckDB's memory."""

from __future__ import annotations

import duckdb
import pytest

from pipeline.datasets import DATASETS
from pipeline.warehouse.base import LEDGER_COLUMNS, LEDGER_TABLE
from pipeline.warehouse.duckdb.tables import DIALECT
from pipeline.warehouse.tables import Dialect
from pipeline.warehouse.views import current, trips, trips_columns, views


@pytest.fixture
def connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    tables = {dataset.table: dataset.table_columns for dataset in DATASETS.values()} | {LEDGER_TABLE: LEDGER_COLUMNS}
    for table, columns in tables.items():
        connection.execute(f"CREATE TABLE {table} ({', '.join(DIALECT.definition(column) for column in columns)})")
    for name, query in views(DIALECT, DATASETS.values()).items():
        connection.execute(f"CREATE VIEW {name} AS {query}")
    return connection


def test_trips_has_the_common_names(connection: duckdb.DuckDBPyConnection) -> None:
    names = [row[0] for row in connection.execute("DESCRIBE trips").fetchall()]
    expected = """
        dataset file_month vendor_id pickup_datetime dropoff_datetime passenger_count trip_distance
        rate_code_id store_and_fwd_flag pickup_location_id pickup_borough pickup_zone dropoff_location_id
        dropoff_borough dropoff_zone payment_type fare_amount extra mta_tax tip_amount tolls_amount ehail_fee
        improvement_surcharge congestion_surcharge airport_fee cbd_congestion_fee total_amount trip_type
        pickup_longitude pickup_latitude dropoff_longitude dropoff_latitude
    """
    assert set(expected.split()) <= set(names)
    assert len(set(names)) == len(names)
    assert all(name == name.lower() for name in names)


def test_the_documented_columns_of_trips_are_those_of_the_view(connection: duckdb.DuckDBPyConnection) -> None:
    made = [(row[0], row[1]) for row in connection.execute("DESCRIBE trips").fetchall()]
    assert [(name, DIALECT.types[kind]) for name, kind, _ in trips_columns(DATASETS.values())] == made


def test_no_column_of_yellow_or_green_is_left_out(connection: duckdb.DuckDBPyConnection) -> None:
    query = trips(DIALECT, DATASETS.values())
    for name in ("yellow", "green"):
        for column in DATASETS[name].columns:
            assert f't."{column.name}" AS' in query.split("UNION ALL")[name == "green"]


def test_trips_are_yellow_and_green_with_zones_of_both_ends(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        "INSERT INTO taxi_zones VALUES (7, 'Queens', 'Astoria', 'Boro Zone'), (4, 'Manhattan', 'A', 'Y')"
    )
    connection.execute(
        'INSERT INTO yellow_trips BY NAME SELECT 1 AS "VendorID", 7 AS "PULocationID", 999 AS "DOLocationID"'
    )
    connection.execute(
        'INSERT INTO green_trips BY NAME SELECT 2 AS "VendorID", 4 AS "PULocationID", 7 AS "DOLocationID", '
        "1 AS trip_type"
    )
    rows = connection.execute(
        "SELECT dataset, vendor_id, pickup_borough, pickup_zone, dropoff_borough, dropoff_zone, trip_type "
        "FROM trips ORDER BY dataset"
    ).fetchall()
    assert rows == [
        ("green", 2, "Manhattan", "A", "Queens", "Astoria", 1),
        ("yellow", 1, "Queens", "Astoria", None, None, None),
    ]


def test_trips_without_zones_keep_their_rows(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute('INSERT INTO green_trips BY NAME SELECT 4 AS "PULocationID"')
    assert connection.execute("SELECT pickup_location_id, pickup_zone FROM trips").fetchall() == [(4, None)]


def test_current_is_the_newest_loaded_row_of_each_slice(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"""INSERT INTO {LEDGER_TABLE} BY NAME SELECT * FROM (VALUES
            ('green', DATE '2020-04-01', 'loaded', 'old', TIMESTAMP '2024-01-01'),
            ('green', DATE '2020-04-01', 'loaded', 'new', TIMESTAMP '2024-01-02'),
            ('green', DATE '2020-04-01', 'forgotten', 'new', TIMESTAMP '2024-01-03'),
            ('green', DATE '2020-05-01', 'loaded', 'may', TIMESTAMP '2024-01-01'),
            ('zones', NULL, 'loaded', 'z1', TIMESTAMP '2024-01-01'),
            ('zones', NULL, 'loaded', 'z2', TIMESTAMP '2024-01-02')
        ) AS rows(dataset, file_month, status, sha256, loaded_at)"""
    )
    rows = connection.execute("SELECT sha256 FROM etl_current ORDER BY sha256").fetchall()
    assert rows == [("may",), ("new",), ("z2",)]
    assert [row[0] for row in connection.execute("DESCRIBE etl_current").fetchall()] == [c.name for c in LEDGER_COLUMNS]


def test_the_dialect_quotes_names_and_places_tables() -> None:
    bigquery = Dialect(
        quote=lambda name: f"`{name}`",
        table=lambda name: f"`p.d.{name}`",
        types={"int64": "INT64", "float64": "FLOAT64", "string": "STRING", "timestamp": "DATETIME", "date": "DATE"},
    )
    text = trips(bigquery, DATASETS.values()) + current(bigquery)
    assert "FROM `p.d.yellow_trips` AS t" in text and "`p.d.etl_loads`" in text
    assert "CAST(NULL AS FLOAT64) AS `airport_fee`" in text
    assert '"' not in text

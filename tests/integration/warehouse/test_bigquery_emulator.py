"""The emulator of BigQuery (deploy/emulators) refuses what the service refuses, asked by the real client."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from google.api_core import exceptions
from google.cloud import bigquery

from tests.servers.bigquery import BigQueryServer, bigquery_server

from .test_bigquery import Lake, client, connect, content, lake, table_of, warehouse

__all__ = ["bigquery_server", "client", "lake", "warehouse"]


def load_config(**changes: Any) -> bigquery.LoadJobConfig:
    return bigquery.LoadJobConfig(source_format="PARQUET", write_disposition="WRITE_TRUNCATE", **changes)


def test_server_runs_a_job_id_once(client: bigquery.Client, lake: Lake, bigquery_server: BigQueryServer) -> None:
    sql = "INSERT INTO `my-project.trips.taxi_zones` (Zone) SELECT 'x' FROM (SELECT 1 AS one) AS source WHERE TRUE"
    config = bigquery.QueryJobConfig(maximum_bytes_billed=1)
    client.query(sql, job_id="once", job_config=config, job_retry=None).result(job_retry=None)
    with pytest.raises(exceptions.Conflict):
        client.query(sql, job_id="once", job_config=config, job_retry=None)
    assert bigquery_server.sql('SELECT count(*) FROM "my-project:trips".taxi_zones') == [(1,)]


def test_server_wants_a_limit_and_from_before_where(client: bigquery.Client) -> None:
    for sql, config in (
        ("SELECT 1 AS one", bigquery.QueryJobConfig()),
        ("SELECT 1 AS one WHERE TRUE", bigquery.QueryJobConfig(maximum_bytes_billed=1)),
        ("SELECT 1 AS rows", bigquery.QueryJobConfig(maximum_bytes_billed=1)),
    ):
        with pytest.raises(exceptions.BadRequest):
            client.query(sql, job_config=config, job_retry=None)


def test_server_takes_a_time_for_timestamp_without_an_explicit_schema(client: bigquery.Client, lake: Lake) -> None:
    _, file, _ = lake.month("B")
    job = client.load_table_from_uri(file.uri, "my-project.trips.green_trips$202101", job_config=load_config())
    with pytest.raises(exceptions.BadRequest, match="has changed type from DATETIME to TIMESTAMP"):
        job.result()


def test_server_does_not_take_nanoseconds_for_a_time(client: bigquery.Client, lake: Lake) -> None:
    table = table_of(1)
    place = table.schema.get_field_index("lpep_pickup_datetime")
    times = table.column(place).cast(pa.timestamp("ns"))
    _, file, _ = lake.month("B", rows=1, table=table.set_column(place, "lpep_pickup_datetime", times))
    schema = client.get_table("my-project.trips.green_trips").schema
    target = "my-project.trips.green_trips$202101"
    job = client.load_table_from_uri(file.uri, target, job_config=load_config(schema=schema))
    with pytest.raises(exceptions.BadRequest, match="has type INT64 which does not match the target cpp_type DATETIME"):
        job.result()


def test_server_wants_permission_for_new_columns(client: bigquery.Client, lake: Lake) -> None:
    _, file, _ = lake.month("B")
    table = client.get_table("my-project.trips.green_trips")
    grown = [*table.schema, bigquery.SchemaField("new", "STRING")]
    target = "my-project.trips.green_trips$202101"
    job = client.load_table_from_uri(file.uri, target, job_config=load_config(schema=grown))
    with pytest.raises(exceptions.BadRequest, match="Cannot add fields"):
        job.result()
    config = load_config(schema=grown, schema_update_options=["ALLOW_FIELD_ADDITION"])
    assert client.load_table_from_uri(file.uri, target, job_config=config).result().output_rows == 3
    job = client.load_table_from_uri(file.uri, "my-project.trips.green_trips", job_config=config)
    with pytest.raises(exceptions.BadRequest, match="Schema update options"):
        job.result()


def test_server_matches_columns_by_name(client: bigquery.Client, lake: Lake, bigquery_server: BigQueryServer) -> None:
    table = table_of(2, mark=66.0)
    _, file, _ = lake.month("B", rows=2, table=table.select(table.column_names[::-1]))
    schema = client.get_table("my-project.trips.green_trips").schema
    target = "my-project.trips.green_trips$202101"
    job = client.load_table_from_uri(file.uri, target, job_config=load_config(schema=schema))
    assert job.state == "RUNNING"
    assert job.result().output_rows == 2
    assert content(bigquery_server) == (2, "B")


def test_server_finds_jobs_only_in_their_place(lake: Lake, bigquery_server: BigQueryServer) -> None:
    connect("bigquery://my-project/trips?location=europe-west1").load(*lake.month())
    client = connect().session.client
    ((_, _, job_id), *_) = bigquery_server.jobs
    assert client.get_job(job_id, location="europe-west1").state == "DONE"
    with pytest.raises(exceptions.NotFound):
        client.get_job(job_id)

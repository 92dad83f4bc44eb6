"""Locations of results and the command that queries them, as shown to people."""

from __future__ import annotations

import shlex
from pathlib import Path

import duckdb
import pytest
from luigi.configuration import get_config

from pipeline.reporting import locations
from pipeline.warehouse import label_of


@pytest.fixture(autouse=True)
def configured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("file:{here}/lake", "lake"),
        ("file:{here}/a%20b%20%C3%BC", "a b ü"),
        ("duckdb:///{here}/w%25.duckdb", "w%.duckdb"),
        ("file:/elsewhere/lake", "/elsewhere/lake"),
        ("gs://bucket/lake", "gs://bucket/lake"),
        ("postgresql@host/db", "postgresql@host/db"),
    ],
)
def test_paths_are_shown_as_paths(url: str, shown: str, tmp_path: Path) -> None:
    assert locations.shown(url.format(here=tmp_path)) == shown


@pytest.mark.parametrize(
    ("loaded", "table"),
    [
        ({"yellow", "fhv"}, "FROM trips "),
        ({"green", "zones"}, "FROM trips "),
        ({"fhv", "zones"}, "FROM fhv_trips "),
        ({"fhvhv"}, "FROM fhvhv_trips "),
        ({"zones"}, "FROM taxi_zones "),
    ],
)
def test_the_query_is_about_what_was_loaded(loaded: set[str], table: str) -> None:
    assert table in locations.sql(loaded)


def test_each_warehouse_is_queried_by_its_own_program_without_a_password(tmp_path: Path) -> None:
    config = get_config()
    before = config.get("warehouse", "url", None)
    name = "it's a b.duckdb"
    duckdb.connect(str(tmp_path / name)).close()
    urls = [
        f"duckdb:///{name}",
        "postgresql+psycopg2://etl:hush@host:5433/ny?sslmode=require&password=hush",
        "bigquery://proj-1/d",
    ]
    try:
        config.set("warehouse", "url", ",".join(urls).replace("%", "%%"))
        labels = [label_of(url) for url in urls]
        python, psql, bq = locations.queries(labels, {"fhv"})
    finally:
        config.set("warehouse", "url", before or "duckdb:///warehouse.duckdb")
    assert f'duckdb.connect("{name}", read_only=True)' in shlex.split(python)[-1]
    assert shlex.split(psql)[:2] == ["psql", "postgresql://etl@host:5433/ny?sslmode=require"]
    assert "hush" not in psql
    assert shlex.split(bq)[:2] == ["bq", "query"] and "FROM `proj-1.d`.fhv_trips" in bq

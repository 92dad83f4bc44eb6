"""Passwords and signatures of the settings reach no output, no file and no page, whatever goes well or wrong."""

from __future__ import annotations

import base64
import datetime as dt
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.publishers.sample import generator

from ..servers.http import ALWAYS, Fault, HttpServer
from ..servers.luigid import Luigid
from ..servers.postgres import PostgresServer, postgres_server
from .conftest import Project

__all__ = ["postgres_server"]

#: Signs that are written differently in an address: a grep for either form must come back empty.
PLANTED = {"publisher password": "hush/pub:1", "signature": "sig+na=ture/42", "database password": "data@base%pw"}
MONTH = ("--dataset", "green", "--month", "2020-01")
JANUARY = "/trip-data/green_tripdata_2020-01.parquet"


def spellings(secret: str) -> set[str]:
    return {secret, urllib.parse.quote(secret), urllib.parse.quote(secret, safe=""), urllib.parse.quote_plus(secret)}


def assert_clean(text: str, where: str) -> None:
    for name, secret in PLANTED.items():
        for spelling in spellings(secret):
            assert spelling not in text, f"the {name} is in {where}:\n{text}"


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    with Luigid(tmp_path / "luigid") as server:
        yield server


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "published"
    generator.publish(folder, "green", [dt.date(2020, month, 1) for month in (1, 2)], rows=200, seed=1, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()
    with HttpServer(folder) as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """URL of a fresh database whose owner has the planted password."""
    with postgres_server.database() as name:
        quoted = PLANTED["database password"].replace("'", "''")
        postgres_server.run(f"CREATE ROLE keeper LOGIN PASSWORD '{quoted}'")
        postgres_server.run(f"ALTER DATABASE {name} OWNER TO keeper")
        postgres_server.run("GRANT ALL ON SCHEMA public TO keeper", name)
        try:
            password = urllib.parse.quote(PLANTED["database password"], safe="")
            yield f"postgresql+psycopg2://keeper:{password}@{postgres_server.host}:{postgres_server.port}/{name}"
        finally:
            postgres_server.run("DROP OWNED BY keeper", name)
            postgres_server.run(f"ALTER DATABASE {name} OWNER TO postgres")
            postgres_server.run("DROP ROLE keeper")


@pytest.fixture
def planted(tmp_path: Path, site: HttpServer, database: str) -> Project:
    user = f"user:{urllib.parse.quote(PLANTED['publisher password'], safe='')}@"
    signature = urllib.parse.urlencode({"sig": PLANTED["signature"]})
    folder = tmp_path / "project"
    folder.mkdir()
    return Project(
        folder,
        {
            "PIPELINE_PUBLISHER_NAME": "tlc",
            "PIPELINE_PUBLISHER_URL": f"{site.url.replace('//', '//' + user)}?{signature}",
            "PIPELINE_RETRY_BACKOFF": "0.05",
            "PIPELINE_RETRY_ATTEMPTS": "2",
            "PIPELINE_CLEAN_RULES": "none",
            "PIPELINE_WAREHOUSE_URL": f"duckdb:///warehouse.duckdb,{database}",
            "PIPELINE_PROCESS_LOG_LEVEL": "DEBUG",
        },
    )


def assert_files_are_clean(project: Project) -> list[str]:
    """No planted secret in any file below the project; Parquet files are read. Returns the kinds of files seen."""
    seen = []
    for path in project.folder.rglob("*"):
        if not path.is_file():
            continue
        seen.append(path.suffix)
        assert_clean(path.read_bytes().decode("latin-1"), str(path))
        if path.suffix == ".parquet":
            assert_clean(str(pq.read_table(path).to_pylist()) + str(pq.read_schema(path).metadata), str(path))
    return seen


def test_secrets_stay_where_they_are_set(
    planted: Project, site: HttpServer, luigid: Luigid, postgres_server: PostgresServer, database: str
) -> None:
    outputs: dict[str, str] = {}

    def luigi(title: str, *arguments: str, code: int) -> None:
        done = planted.luigi(*arguments, *luigid.flags)
        outputs[title] = done.stdout
        assert done.returncode == code, done.stdout

    luigi("a run", "MonthlyTrips", *MONTH, "--workers", "2", code=0)
    login = base64.b64encode(f"user:{PLANTED['publisher password']}".encode()).decode()
    assert {request.headers.get("Authorization") for request in site.requests} == {f"Basic {login}"}, "it was used"

    # Flags, as people type them; and every month fails in its own way.
    echo = f"<html>not for {PLANTED['signature']}, {PLANTED['publisher password']}</html>".encode()
    site.program("/trip-data/green_tripdata_2020-02.parquet", Fault(status=200, body=echo, times=ALWAYS))
    february = ("--dataset", "green", "--month", "2020-02")
    flags = [
        f"--{section}-url={planted.environment[f'PIPELINE_{section.upper()}_URL']}"
        for section in ("publisher", "warehouse")
    ]
    luigi("an error page saved as data", "MonthlyTrips", *february, *flags, code=30)
    site.clear()
    site.program("*", Fault(status=403, body=echo, times=ALWAYS))
    luigi("a refusal", "Download", *february, code=35)
    site.clear()
    site.program("*", Fault(cut_after=100, times=ALWAYS))
    luigi("a broken transfer", "Download", *february, code=30)
    site.clear()
    postgres_server.run("ALTER ROLE keeper NOLOGIN")
    luigi("a refused login", "MonthlyTrips", *february, code=35)
    postgres_server.run("ALTER ROLE keeper LOGIN")
    planted.environment["PIPELINE_WAREHOUSE_URL"] = database.replace("127.0.0.1", "localhost.invalid")
    luigi("an unknown host", "MonthlyTrips", *february, code=35)
    planted.environment["PIPELINE_WAREHOUSE_URL"] = f"duckdb:///warehouse.duckdb,{database}"

    site.program(JANUARY, Fault(status=500, times=ALWAYS))
    for verb, *arguments in (
        ("status", "--dataset", "green", "--start", "2020-01", "--stop", "2020-03"),
        ("plan", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03"),
        ("refresh", "--dataset", "green", "--since", "2020-01"),
        ("verify",),
        ("verify", "--json"),
        ("doctor", "--create"),
        ("forget", "--dataset", "green", "--month", "2020-02"),
    ):
        outputs[f"python -m pipeline {verb} {' '.join(arguments)}"] = planted.pipeline(verb, *arguments).stdout
    for name, value in (
        ("PIPELINE_PUBLISHER_URL", planted.environment["PIPELINE_PUBLISHER_URL"].replace("http:", "gopher:")),
        ("PIPELINE_WAREHOUSE_URL", database.replace("postgresql+psycopg2", "oracle")),
        ("PIPELINE_LAKE_URL", database),
    ):
        mistaken = Project(planted.folder, {**planted.environment, name: value})
        for done in (mistaken.luigi("MonthlyTrips", *MONTH), mistaken.pipeline("doctor")):
            outputs[f"a mistake in {name}"] = done.stdout
            assert done.returncode in (1, 2)
    for title, text in outputs.items():
        assert text.strip(), f"{title} says nothing"
        assert_clean(text, title)

    assert {".json", ".jsonl", ".parquet", ".duckdb"} <= set(assert_files_are_clean(planted))
    assert_clean(str(planted.query("FROM etl_loads")), "DuckDB's ledger")
    name = database.rpartition("/")[2]
    assert_clean(str(postgres_server.run("SELECT * FROM etl_loads", name)), "PostgreSQL's ledger")

    tasks = luigid.tasks()
    assert {"DONE", "DISABLED"} <= {task["status"] for task in tasks}
    assert_clean(json.dumps(tasks), "luigid's tasks")
    for task in tasks:
        error = luigid.ask("fetch_error", task_id=task["id"])
        assert_clean(json.dumps(error), f"luigid's error page of {task['id']}")
        assert_clean(json.dumps(luigid.ask("dep_graph", task_id=task["id"])), f"luigid's graph of {task['id']}")
        if task["status"] == "DISABLED":
            assert error["error"], task
    for method in ("worker_list", "resource_list"):
        assert_clean(json.dumps(luigid.ask(method)), method)
    for page in ("/history", "/metrics"):
        assert_clean(luigid.page(page), page)
    assert_clean(luigid.log, "luigid's log")
    for path in luigid.folder.rglob("*"):
        if path.is_file():
            assert_clean(path.read_bytes().decode("latin-1"), str(path))

"""Passwords and signatures of the settings reach no output, no file and no page, whatever goes well or wrong."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import json
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline import sample

from ..servers.http import ALWAYS, Fault, HttpServer
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


@dataclass
class Luigid:
    """A real luigid on a free port of the loopback, with a state file of its own."""

    port: int

    @property
    def flags(self) -> tuple[str, ...]:
        return "--scheduler-host", "127.0.0.1", "--scheduler-port", str(self.port)

    def ask(self, method: str, **arguments: Any) -> str:
        """The JSON that luigid's pages are made of."""
        query = urllib.parse.urlencode({"data": json.dumps(arguments)})
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/{method}?{query}", timeout=10) as answer:
            return str(answer.read().decode())


@pytest.fixture
def luigid(tmp_path: Path) -> Iterator[Luigid]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = tmp_path / "luigid"
    folder.mkdir()
    program = str(Path(sys.executable).parent / "luigid")
    command = [program, "--address", "127.0.0.1", "--port", str(port), "--state-path", str(folder / "state")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            give_up = time.monotonic() + 30
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
                assert time.monotonic() < give_up and process.poll() is None, "luigid does not start"
                time.sleep(0.1)
            yield Luigid(port)
        finally:
            process.terminate()
            process.wait(timeout=30)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "published"
    sample.publish(folder, "green", [dt.date(2020, month, 1) for month in (1, 2)], rows=200, seed=1, layout="tlc")
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
            "PIPELINE_PUBLISHER_BACKOFF": "0.05",
            "PIPELINE_PUBLISHER_ATTEMPTS": "2",
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
    luigi("a refusal", "Download", *february, code=30)
    site.clear()
    site.program("*", Fault(cut_after=100, times=ALWAYS))
    luigi("a broken transfer", "Download", *february, code=30)
    site.clear()
    postgres_server.run("ALTER ROLE keeper NOLOGIN")
    luigi("a refused login", "MonthlyTrips", *february, code=30)
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

    tasks = json.loads(luigid.ask("task_list", status="", upstream_status=""))["response"]
    assert {"DONE", "FAILED"} <= {task["status"] for task in tasks.values()}
    assert_clean(json.dumps(tasks), "luigid's tasks")
    for task, about in tasks.items():
        assert_clean(luigid.ask("fetch_error", task_id=task), f"luigid's error page of {task}")
        assert_clean(luigid.ask("dep_graph", task_id=task), f"luigid's graph of {task}")
        if about["status"] == "FAILED":
            assert json.loads(luigid.ask("fetch_error", task_id=task))["response"]["error"], task
    for method in ("worker_list", "resource_list"):
        assert_clean(luigid.ask(method), method)
    log = (planted.folder.parent / "luigid" / "log").read_text()
    assert_clean(log, "luigid's log")

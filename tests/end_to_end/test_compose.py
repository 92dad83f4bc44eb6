"""The commands of docker-compose.yml, run outside a container with the addresses of this machine."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ..conftest import CHECKOUT
from ..patience import PATIENCE, wait_for
from ..servers.gcs import GcsServer, gcs_server
from ..servers.ports import free_port
from ..servers.postgres import PostgresServer, postgres_server
from ..unit.test_deploy import SERVICES
from .conftest import Project

__all__ = ["gcs_server", "postgres_server"]


def command(service: str, **replaced: str) -> list[str]:
    """The service's command with this environment's programs, and what differs outside a container replaced."""
    words = yaml.safe_dump(SERVICES[service]["command"])
    for old, new in replaced.items():
        words = words.replace(old, new)
    program, *others = yaml.safe_load(words)
    here = Path(sys.executable).parent / program
    return [sys.executable if program == "python" else str(here), *others]


@contextmanager
def running(
    words: list[str], folder: Path, environment: dict[str, str], is_ready: Callable[[], bool]
) -> Iterator[None]:
    with open(folder / "server.log", "w") as log:
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT)
        try:
            wait_for(is_ready, process, (folder / "server.log").read_text)
            yield
        finally:
            process.terminate()
            process.wait(PATIENCE)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def test_luigid_and_four_workers_share_the_range(project: Project) -> None:
    (project.folder / "data").mkdir()
    port = str(free_port())
    project.environment |= {
        "PIPELINE_LAKE_URL": "file:data/lake",
        "PIPELINE_WORKSPACE_URL": "file:data/workspace",
        "PIPELINE_WAREHOUSE_URL": "duckdb:///data/warehouse.duckdb",
    }
    luigid = command("luigid", **{"0.0.0.0": "127.0.0.1", "8082": port})
    with running(luigid, project.folder, project.env, lambda: answers(f"http://127.0.0.1:{port}/")):
        health = SERVICES["luigid"]["healthcheck"]["test"][2:]
        assert SERVICES["luigid"]["healthcheck"]["test"][1] == "python"
        assert project.run(sys.executable, *[word.replace("8082", port) for word in health]).returncode == 0
        place = {"luigid:8082": f"127.0.0.1:{port}"}
        one_task_at_once = {**place, "--workers=2": "--workers=1"}
        workers = [project.start(command("worker", **each)) for each in (place, *[one_task_at_once] * 3)]
        outputs = [worker.communicate(timeout=PATIENCE)[0] for worker in workers]
        assert [worker.returncode for worker in workers] == [0] * 4, outputs
        assert project.query("SELECT count(*) FROM etl_loads", "data/warehouse.duckdb") == [(4,)], "nothing twice"
    assert (project.folder / "data" / "luigid" / "state.pickle").is_file()


def test_postgresql_s_role_is_ordinary_and_owns_its_database(postgres_server: PostgresServer) -> None:
    """The script of the image's first start, with the superuser that the image has made."""
    if shutil.which("psql") is None:
        pytest.skip("no psql on this machine")
    environment = {
        "PATH": os.environ["PATH"],
        **{"PGHOST": postgres_server.host, "PGPORT": str(postgres_server.port)},
        **{"POSTGRES_USER": "boss", "PGPASSWORD": "b"},
        **{"ETL_ROLE": "of_compose", "ETL_PASSWORD": "it's \"p%w", "ETL_DATABASE": "of_compose"},
    }
    postgres_server.run("CREATE ROLE boss SUPERUSER LOGIN PASSWORD 'b'")
    try:
        script = CHECKOUT / "deploy" / "postgres" / "etl.sh"
        done = subprocess.run([str(script)], env=environment, capture_output=True, text=True, timeout=PATIENCE)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        ordinary = postgres_server.run(
            "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles "
            "WHERE rolname = 'of_compose'"
        )
        assert ordinary == [(False,) * 5]
        assert postgres_server.run("SELECT rolpassword FROM pg_authid WHERE rolname = 'boss'") == [(None,)]
        owner = replace(postgres_server, role="of_compose", password=environment["ETL_PASSWORD"])
        owner.run("CREATE SCHEMA works", "of_compose", admin=False)
        assert owner.run("SHOW server_encoding", "of_compose", admin=False) == [("UTF8",)]
    finally:
        postgres_server.run("DROP DATABASE IF EXISTS of_compose WITH (FORCE)")
        postgres_server.run("DROP ROLE IF EXISTS of_compose")
        postgres_server.run("DROP ROLE boss")


def test_local_cloud(project: Project, tmp_path: Path, gcs_server: GcsServer) -> None:
    """Setup, then the job, through the emulators; Cloud Storage's is the one that all tests use."""
    port = str(free_port())
    storage = gcs_server.url
    bigquery = command("bigquery", **{"0.0.0.0": "127.0.0.1", "9050": port, "deploy/": f"{CHECKOUT}/deploy/"})
    environment = {**os.environ, "STORAGE_EMULATOR_HOST": storage}
    project.environment = {
        **SERVICES["cloud"]["environment"],
        "STORAGE_EMULATOR_HOST": storage,
        "BIGQUERY_EMULATOR_HOST": f"http://127.0.0.1:{port}",
        "PIPELINE_PUBLISHER_URL": "sample:?rows=200",
    }
    with running(bigquery, tmp_path, environment, lambda: answers(f"http://127.0.0.1:{port}/")):
        setup = project.run(*command("cloud-setup"))
        assert setup.returncode == 0, setup.stdout
        done = project.run(*command("cloud"))
        assert done.returncode == 0, done.stdout
        assert done.stdout.count("loaded") >= 4
        again = project.run(*command("cloud"))
        assert "Nothing to do: 3 months complete." in again.stdout
        status = project.pipeline("status", "--dataset", "yellow", "--start", "2021-01", "--stop", "2021-04", "--json")
        assert [month["state"] for month in json.loads(status.stdout) if month["month"]] == ["complete"] * 3

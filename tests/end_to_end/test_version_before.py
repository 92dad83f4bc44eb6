"""A lake, a warehouse, journals and a queue that version 0.1 made are complete and readable for the code of today."""

from __future__ import annotations

import hashlib
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ..conftest import CHECKOUT
from ..servers.ports import free_port
from ..servers.postgres import PostgresServer, postgres_server
from .conftest import Project

__all__ = ["postgres_server"]

MADE = CHECKOUT / "tests" / "data" / "version_0_1"

#: Flags that ask for what version 0.1 loaded, and how many months of it.
MONTHS = {
    ("--of", "AllTrips", "--start", "2020-04", "--stop", "2020-05"): "3 months",
    ("--dataset", "green", "--start", "2019-01", "--stop", "2019-02"): "1 month",
    ("--dataset", "fhvhv", "--start", "2021-01", "--stop", "2021-02"): "1 month",
}
TABLES = ("green_trips", "yellow_trips", "fhv_trips", "fhvhv_trips", "taxi_zones")


@pytest.fixture
def made(project: Project) -> Project:
    """The folder as version 0.1 left it. The publisher cannot be reached, so nothing can be done again."""
    with tarfile.open(MADE / "made.tar.xz") as archive:
        archive.extractall(project.folder, filter="data")
    project.environment = {
        "PIPELINE_PUBLISHER_NAME": "dtc",
        "PIPELINE_PUBLISHER_MAX_AGE": "36500",
        "PIPELINE_RANGE_DATASETS": "yellow,green,fhv,fhvhv",  # those of version 0.1
        "PIPELINE_LAKE_URL": "file:lake",
        "PIPELINE_WORKSPACE_URL": "file:workspace",
        "PIPELINE_WAREHOUSE_URL": "duckdb:///warehouse.duckdb",
        "HTTPS_PROXY": f"http://127.0.0.1:{free_port()}",
    }
    return project


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in ("data", "rejects", "manifests")
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }


def expected(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((MADE / f"{name}.json").read_text())
    return found


def answer(project: Project, *arguments: str, code: int = 0) -> list[dict[str, Any]]:
    done = project.pipeline(*arguments, "--json")
    assert done.returncode == code, done.stdout
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def nothing_to_do(project: Project, flags: tuple[str, ...], months: str) -> None:
    done = project.luigi("RangeMonthly", *flags)
    assert done.returncode == 0 and f"Nothing to do: {months} complete." in done.stdout, done.stdout


def test_nothing_is_done_again(made: Project) -> None:
    before = digests(made.folder / "lake"), made.tables(*TABLES)
    for flags, months in MONTHS.items():
        nothing_to_do(made, flags, months)
    assert before == (digests(made.folder / "lake"), made.tables(*TABLES))
    assert made.query("SELECT count(*) FROM etl_loads") == [(7,)]


def test_verbs_tell_the_same(made: Project) -> None:
    status = [entry for entry in answer(made, "status") if entry["state"] == "complete"]
    assert status == expected("status")
    # The published figures are those of the whole files, of which these have the first lines.
    assert answer(made, "verify", "--deep", code=1) == expected("verify")
    runs = {run["id"]: run for run in answer(made, "runs")}
    for run in expected("runs"):
        assert {name: runs[run["id"]][name] for name in run} == run
    assert [queue["waiting"] for queue in answer(made, "queue")] == [1]


def test_month_of_the_lake_is_read(made: Project) -> None:
    done = made.run(sys.executable, "-c", "import pipeline; print(len(pipeline.read('green', '2020-04')))")
    assert done.stdout.split()[-1] == "8", done.stdout


def test_waiting_run_of_another_version_is_refused_with_its_reason(made: Project) -> None:
    done = made.pipeline("agent", "--drain")
    assert "run 20261128T085422-a34dc4 is refused: code is 0.1.0+911f7a734902 there" in done.stdout, done.stdout


def test_month_that_is_done_again_replaces_the_older_one(made: Project) -> None:
    """Rows of both versions end in the same tables; those of other months stay."""
    made.environment |= {"PIPELINE_PUBLISHER_URL": f"file:{CHECKOUT / 'tests/data/publishers/dtc'}"}
    done = made.luigi("RangeMonthly", "--dataset", "green", "--start", "2020-04", "--stop", "2020-05")
    assert done.returncode == 0, done.stdout
    counts = "SELECT file_month::VARCHAR, count(*) FROM green_trips GROUP BY 1 ORDER BY 1"
    (january, seven), (april, rows) = made.query(counts)
    assert (january, seven, april) == ("2019-01-01", 7, "2020-04-01") and rows > 30_000


def test_postgresql_of_the_version_before_is_complete(made: Project, postgres_server: PostgresServer) -> None:
    with postgres_server.database() as name:
        postgres_server.run((made.folder / "postgresql.sql").read_text(), name, admin=False)
        made.environment |= {"PIPELINE_WAREHOUSE_URL": postgres_server.url(name)}
        nothing_to_do(made, *next(iter(MONTHS.items())))
        loads = postgres_server.run("SELECT count(*) FROM public.etl_loads", name)
        assert loads == [(6,)]
        verified = answer(made, "verify", "--dataset", "fhv", "--deep")
        assert [line["agrees"] for line in verified] == [True], verified

"""An unreachable publisher, lake or warehouse: one line and one exit code, in every command."""

from __future__ import annotations

import datetime as dt
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.publishers.sample import generator
from pipeline.warehouse import LedgerRow, open_warehouse

from ..patience import PATIENCE
from ..servers.gcs import Fault as GcsFault
from ..servers.gcs import GcsServer, gcs_bucket, gcs_server
from ..servers.http import ALWAYS, Fault, HttpServer, Request
from ..servers.postgres import PostgresServer, postgres_server
from ..servers.raw import RawServer
from .conftest import Project

__all__ = ["gcs_bucket", "gcs_server", "postgres_server"]

GREEN = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')


def month_path(month: int) -> str:
    return f"/trip-data/green_tripdata_2020-{month:02}.parquet"


@pytest.fixture
def closed() -> Iterator[str]:
    """An address where nothing listens, and which is given to nobody else."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def black_hole() -> Iterator[str]:
    """An address where somebody listens and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dripping() -> Iterator[str]:
    """An address where each byte of an answer comes in time, and the answer never."""

    def drip(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX-Long: ")
        while True:
            connection.sendall(b"a")
            server.pause(0.1)

    with RawServer(drip) as server:
        yield server.url


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpServer]:
    """Green January to April 2020 and the zone table."""
    folder = tmp_path / "published"
    months = [dt.date(2020, month, 1) for month in range(1, 5)]
    generator.publish(folder, "green", months, rows=200, seed=1, layout="tlc")
    (folder / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    with HttpServer(folder) as server:
        yield server


def project_at(folder: Path, url: str, **more: str) -> Project:
    quick = {"PIPELINE_RETRY_BACKOFF": "0", "PIPELINE_RETRY_ATTEMPTS": "2"}
    return Project(folder, {"PIPELINE_PUBLISHER_NAME": "tlc", "PIPELINE_PUBLISHER_URL": url, **quick, **more})


def line(url: str, cause: str) -> str:
    """All that is said of a publisher that does not answer."""
    return (
        f"error: publisher tlc cannot be reached at {url}: {cause}; "
        "check the network and [publisher] url, or try again later\n"
    )


def test_one_line_for_any_number_of_months_and_datasets(tmp_path: Path, closed: str) -> None:
    project = project_at(tmp_path, closed)
    expected = line(closed, "connection failed (Connection refused)")
    for command in (
        ("RangeMonthly", "--of", "AllTrips", "--start", "2019-01", "--stop", "2020-01"),
        ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05", "--workers", "2"),
        ("AllTrips", "--month", "2020-01"),
        ("MonthlyTrips", "--dataset", "green", "--month", "2020-01"),
        ("Upload", "--dataset", "green", "--month", "2020-01"),
        ("Download", "--dataset", "green", "--month", "2020-01"),
        ("TaxiZones",),
        ("Refresh", "--since", "2026-01"),
    ):
        refused = project.luigi(*command)
        assert (refused.returncode, refused.stdout) == (35, expected), command
    for verb in (("refresh", "--since", "2026-01"), ("plan",)):
        refused = project.pipeline(*verb)
        assert (refused.returncode, refused.stdout) == (35, expected), verb
    seen = project.pipeline("doctor").stdout
    assert expected.removeprefix("error: ") in seen, "doctor says what the run says"
    unattended = project.pipeline("cron", "RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert unattended.returncode == 35 and expected.strip().removeprefix("error: ") in unattended.stdout


def test_a_locked_ledger_is_one_line_for_every_verb(
    tmp_path: Path, site: HttpServer, postgres_server: PostgresServer
) -> None:
    """Somebody's open transaction, such as a change of the table, keeps nobody waiting beyond the limit."""
    with postgres_server.database() as name:
        project = project_at(
            tmp_path,
            site.url,
            PIPELINE_WAREHOUSE_URL=postgres_server.url(name),
            PIPELINE_WAREHOUSE_LOCK_TIMEOUT="0.5",
        )
        assert project.pipeline("doctor", "--create").returncode == 0
        open_warehouse(postgres_server.url(name)).append(
            LedgerRow("green", dt.date(2020, 1, 1), "forgotten", 0, 0, "tlc", "a", "", "", "none", "", "", 0, "run")
        )
        holder = postgres_server.connect(name)
        try:
            holder.autocommit = False
            holder.cursor().execute("ALTER TABLE etl_loads ADD COLUMN note text")
            for verb in (
                ("status", "--dataset", "green", "--start", "2020-01", "--stop", "2020-02"),
                ("forget", "--dataset", "green", "--month", "2020-01"),
            ):
                told = project.pipeline(*verb)
                assert told.returncode == 35, verb
                assert re.fullmatch(
                    r"error: .* a table is held by pid \d+ of role postgres .*; run again .*\n", told.stdout
                )
            told = project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
            assert told.returncode == 35 and told.stdout.count("a table is held by pid") == told.stdout.count("\n") == 1
        finally:
            holder.close()


def test_silence_and_trouble_for_everything(tmp_path: Path, black_hole: str, dripping: str, site: HttpServer) -> None:
    site.program("*", Fault(status=503, retry_after="800", times=ALWAYS))
    for url, cause, more in (
        (black_hole, "no answer within 1 s", {"PIPELINE_PUBLISHER_TIMEOUT": "1"}),
        (site.url, "it answers 503 to everything", {}),
    ):
        refused = project_at(tmp_path, url, **more).luigi(
            "RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05"
        )
        assert (refused.returncode, refused.stdout) == (35, line(url, cause))
    planned = project_at(tmp_path, dripping, PIPELINE_PUBLISHER_TIMEOUT="1").pipeline("plan")
    assert (planned.returncode, planned.stdout) == (35, line(dripping, "no answer within 1 s"))


def test_what_is_complete_needs_no_publisher(tmp_path: Path, site: HttpServer) -> None:
    """Not even to ask whether it was republished, nor to go on with what an earlier run has fetched."""
    project = project_at(tmp_path, site.url, PIPELINE_CLEAN_RULES="none")
    span = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert project.luigi(*span).returncode == 0
    assert project.luigi("Download", "--dataset", "green", "--month", "2020-03").returncode == 0
    project.environment["PIPELINE_PUBLISHER_MAX_AGE"] = "0"
    site.program("*", Fault(status=500, times=ALWAYS))
    again = project.luigi(*span)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("WARNING") == again.stdout.count("it answers 500 to everything") == 1
    rest = project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-04")
    assert rest.returncode == 0, rest.stdout
    assert project.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(3,)]


@pytest.mark.parametrize("folder", ["published/trip-data", "nowhere"])
def test_folder_that_is_not_the_publishers_is_a_wrong_setting(folder_project: Project, folder: str) -> None:
    folder_project.environment["PIPELINE_PUBLISHER_URL"] = f"file:{folder}"
    says = {
        "published/trip-data": "has none of the folders trip-data of the publisher tlc; correct the setting",
        "nowhere": "is not there; correct the setting",
    }[folder]
    for command in (
        ("MonthlyTrips", "--dataset", "green", "--month", "2020-01"),
        ("Clean", "--dataset", "green", "--month", "2020-01"),
        ("TaxiZones",),
        ("AllTrips", "--month", "2020-01"),
        ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03"),
        ("Refresh", "--since", "2026-01"),
    ):
        refused = folder_project.luigi(*command)
        assert refused.returncode == 35, refused.stdout
        assert refused.stdout.startswith("error: [publisher] url: ") and says in refused.stdout, command
        assert refused.stdout.count("\n") == 1, command
    for verb in (("refresh", "--since", "2026-01"), ("plan",), ("status",)):
        refused = folder_project.pipeline(*verb)
        assert (refused.returncode, refused.stdout.count("\n")) == (35, 1) and says in refused.stdout, verb
    assert says.partition(";")[0] in folder_project.pipeline("doctor").stdout


def test_address_where_nothing_is_is_a_wrong_setting(tmp_path: Path, site: HttpServer) -> None:
    project = project_at(tmp_path, f"{site.url}/elsewhere")
    for command in (("MonthlyTrips", "--dataset", "green", "--month", "2020-01"), ("TaxiZones",)):
        refused = project.luigi(*command)
        assert refused.returncode == 35, refused.stdout
        assert "nor the zone table are below" in refused.stdout and refused.stdout.count("\n") == 1


def test_old_gap_is_a_gap_whatever_the_lake_holds(tmp_path: Path, site: HttpServer) -> None:
    """April is the last that this publisher has, and no run has asked for it; it was absent when it was new, too."""
    project = project_at(tmp_path, site.url)
    span = ("RangeMonthly", *GREEN, "--start", "2020-05", "--stop", "2020-07")
    for _ in range(2):  # asked, and remembered
        missing = project.luigi(*span)
        assert missing.returncode == 20, missing.stdout
        assert "green 2020-05, green 2020-06: missing at tlc" in missing.stdout
    assert "missing at publisher" in project.pipeline("status", "--dataset", "green", "--start", "2020-05").stdout
    absent = next((tmp_path / "lake").rglob("*observ*/*"))
    absent.write_text(absent.read_text().replace("missing at publisher", "not yet published"))  # by the rule of then
    assert project.luigi(*span).returncode == 20


# -- while a run is under way ----------------------------------------------------------------------


class Dying(HttpServer):
    """Serves until ``path`` is fetched, and then nobody listens any more."""

    def __init__(self, folder: Path, path: str) -> None:
        super().__init__(folder)
        self._path = path

    def record(self, request: Request) -> None:
        super().record(request)
        if (request.method, request.path) == ("GET", self._path):
            self._server.shutdown()
            self._server.server_close()


@pytest.mark.parametrize("workers", ["1", "3"])
def test_publisher_that_dies_is_waited_for_once(tmp_path: Path, site: HttpServer, workers: str) -> None:
    """Its last answer breaks off. The other months do not try in vain, one after the other, and are named."""
    with Dying(site.folder, month_path(2)) as dying:
        dying.program(month_path(2), Fault(cut_after=100, times=ALWAYS, methods=("GET",)))
        project = project_at(tmp_path, dying.url)
        done = project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05", "--workers", workers)
        assert done.returncode == 30, done.stdout
        errors = [line for line in done.stdout.splitlines() if " ERROR " in line]
        assert len(errors) <= int(workers) and all("cannot be reached" in line for line in errors), done.stdout
        assert done.stdout.count("failed: Unreachable") >= 2, "each month that was not fetched is named"
        reasons = [line for line in done.stdout.splitlines() if line.startswith("green 2020-")]
        failed = re.findall(r"green +(2020-\d\d) .*failed: Unreachable", done.stdout)
        named = [line.partition(": ")[0] for line in reasons]  # in one line per error, of each worker at most
        assert len(reasons) <= int(workers) and "2020-02" in failed, done.stdout
        assert all(f"green {month}" in ", ".join(named) for month in failed[:3]), done.stdout
        assert dying.asked("GET").count(month_path(2)) == 1


def test_publisher_that_answers_trouble_to_everything_is_not_asked_for_each_month(
    tmp_path: Path, site: HttpServer
) -> None:
    project = project_at(tmp_path, site.url)
    site.program("/misc/taxi_zone_lookup.csv", Fault(times=2), Fault(status=503, times=ALWAYS))
    site.program("/trip-data/yellow_tripdata_2021-07.parquet", Fault(status=503, times=ALWAYS))
    for month in (2, 3, 4):
        site.program(month_path(month), Fault(status=503, times=ALWAYS, methods=("GET",)))
    done = project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05")
    assert done.returncode == 30, done.stdout
    assert done.stdout.count(" ERROR ") == 1 and "it answers 503 to everything" in done.stdout
    assert site.asked("GET").count(month_path(2)) == 2, "the tries of [publisher] attempts"
    assert month_path(3) not in site.asked("GET")
    assert project.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(1,)]


def test_trouble_with_one_month_is_that_months(tmp_path: Path, site: HttpServer) -> None:
    project = project_at(tmp_path, site.url, PIPELINE_PUBLISHER_TIMEOUT="10")
    site.program(month_path(2), Fault(status=500, times=ALWAYS, methods=("GET",)))
    site.program(month_path(3), Fault(silent_after=0, times=1, methods=("GET",)))
    done = project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05")
    assert done.returncode == 30, done.stdout
    assert "failed: PublisherUnavailable" in done.stdout and "Unreachable" not in done.stdout
    assert site.asked("GET").count(month_path(2)) == 10, "all tries of the stage, as often as the scheduler repeats it"
    assert project.query("SELECT count(DISTINCT file_month) FROM green_trips") == [(3,)]


def test_tasks_of_others_that_need_ours_are_told_in_one_line_too(tmp_path: Path, closed: str) -> None:
    (tmp_path / "theirs.py").write_text(
        "import datetime as dt\n"
        "import luigi, pipeline\n"
        "months = [dt.date(2020, month, 1) for month in range(1, 5)]\n"
        "class Months(luigi.Task):\n"
        "    def requires(self):\n"
        "        return [pipeline.MonthlyTrips(dataset='green', month=month) for month in months]\n"
        "class Report(luigi.Task):\n"
        "    def requires(self):\n"
        "        return pipeline.Upload(dataset='green', month=months[0])\n"
        "class Span(luigi.Task):\n"
        "    def requires(self):\n"
        "        return pipeline.RangeMonthly(of=pipeline.MonthlyTrips, start=months[0], stop=months[-1])\n"
    )
    project = project_at(tmp_path, closed, PYTHONPATH=str(tmp_path))
    text = line(closed, "connection failed (Connection refused)").strip().removeprefix("error: ")
    for name, end in (("Span", f"RangeMonthly: {text}"), ("Months", f"error: {text}"), ("Report", f"error: {text}")):
        command = project.luigi_command(name)
        done = project.run(*(word if word != "pipeline" else "theirs" for word in command))
        assert done.returncode == 35 and "Traceback" not in done.stdout, done.stdout
        said = [line for line in done.stdout.splitlines() if "error" in line.lower()]
        assert len(said) == 1 and said[0].endswith(end), done.stdout
        assert "failed: " not in done.stdout, done.stdout


def test_bucket_that_dies_is_waited_for_once(project: Project, gcs_server: GcsServer, gcs_bucket: str) -> None:
    """Each month that needs it has its line, no task is tried again, and the next run does the rest."""
    bucket = {f"PIPELINE_{place}_URL": f"gs://{gcs_bucket}/{place.lower()}" for place in ("LAKE", "WORKSPACE")}
    project.environment |= {"STORAGE_EMULATOR_HOST": gcs_server.url, **bucket}
    span = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05", "--workers", "2")
    before = dict(project.environment)
    gate = project.gate("Upload", "started", month="2020-02", patience=1.0)
    process = project.start(project.luigi_command(*span))
    gate.wait(process)
    gcs_server.program("*", GcsFault(cut_request=0, times=ALWAYS))
    gate.open()
    told, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 30, told
    rows = re.findall(r"^ +green +(2020-\d\d) .*(loaded|failed: Unreachable) *$", told, re.MULTILINE)
    assert [month for month, _ in rows] == [f"2020-{month:02}" for month in range(1, 5)], told
    assert "StorageUnavailable" not in told and told.count(" ERROR ") <= 2, told
    gcs_server.clear()
    project.environment = before
    again = project.luigi(*span)
    assert again.returncode == 0, again.stdout
    assert project.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(4,)]

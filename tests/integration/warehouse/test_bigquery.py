"""What is BigQuery's own: jobs and their ids, marks, faults of the service, columns, places, errors, doctor.

The promises of every warehouse are in tests/contract.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from google.api_core import exceptions
from google.api_core.retry import retry_base, retry_unary
from google.auth import exceptions as auth
from google.cloud import bigquery

from pipeline import remote
from pipeline.datasets import DATASETS, get
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import PipelineError, UsageError, WarehouseError, WarehouseUnavailable
from pipeline.storage import open_store
from pipeline.storage.base import StoredFile
from pipeline.warehouse import LedgerRow, Options, open_warehouse
from pipeline.warehouse.base import location_near
from pipeline.warehouse.bigquery.errors import translate
from pipeline.warehouse.bigquery.warehouse import BigQuery
from tests.patience import PATIENCE, Clock
from tests.servers.bigquery import BigQueryServer, Fault
from tests.servers.bigquery import bigquery_server as bigquery_server  # a fixture
from tests.servers.gcs import gcs_bucket as gcs_bucket  # a fixture
from tests.servers.gcs import gcs_server as gcs_server  # a fixture
from tests.servers.raw import RawServer

URL = "bigquery://my-project/trips"
GREEN, ZONES = get("green"), get("zones")
JANUARY, FEBRUARY = dt.date(2021, 1, 1), dt.date(2021, 2, 1)
PLANTED = "ya29.PLANTED-secret"
#: All tables and views that the pipeline makes.
TABLES = {*(each.table for each in DATASETS.values()), "etl_loads", "etl_replacing", "etl_current", "trips"}


@dataclass(frozen=True)
class File:
    """A lake file: below ``objects`` as ``gs://``, or local. The generation is that of the bytes."""

    path: Path
    in_bucket: bool = True
    location: str | None = None

    @property
    def uri(self) -> str:
        return f"gs://lake/{self.path.name}" if self.in_bucket else f"file:{self.path}"

    @property
    def generation(self) -> str | None:
        return hashlib.sha256(self.path.read_bytes()).hexdigest()[:8] if self.in_bucket else None

    @contextmanager
    def local(self) -> Iterator[Path]:
        yield self.path


def table_of(rows: int, month: dt.date | None = JANUARY, dataset: Dataset = GREEN, mark: float = 1.5) -> pa.Table:
    """Rows of a dataset, null but for its month, first time and first number (``mark``)."""
    columns = {}
    marked = False
    for field in dataset.table_schema:
        value: object = None
        if field.name == "file_month":
            value = month
        elif field.name == dataset.pickup:
            value = dt.datetime(2021, 1, 1, 2, 3, 4, 500000)
        elif pa.types.is_floating(field.type) and not marked:
            value, marked = mark, True
        columns[field.name] = pa.array([value] * rows, field.type)
    return pa.table(columns, schema=dataset.table_schema)


def ledger_row(path: Path, rows: int, month: dt.date | None, dataset: Dataset, version: str) -> LedgerRow:
    return LedgerRow(
        dataset=dataset.name,
        file_month=month,
        status="loaded",
        row_count=rows,
        rejected_count=2,
        publisher="tlc",
        sha256=version,
        source_url="https://example.com/x.parquet",
        source_etag='"e"',
        rules="none",
        schema_version=dataset.schema_version,
        parquet_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        is_synthetic=0,
        run_id="run",
    )


class Lake:
    """Makes files of the lake and the ledger rows that go with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "lake"
        self.folder.mkdir()

    def month(
        self,
        version: str = "A",
        rows: int = 3,
        month: dt.date | None = JANUARY,
        dataset: Dataset = GREEN,
        table: pa.Table | None = None,
        **file: Any,
    ) -> tuple[Dataset, File, LedgerRow]:
        table = table_of(rows, month, dataset, mark=float(ord(version[0]))) if table is None else table
        path = self.folder / f"{dataset.name}-{month}-{version}.parquet"
        pq.write_table(table, path)
        return dataset, File(path, **file), ledger_row(path, rows, month, dataset, version)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the retries: what is waited between two tries takes no time."""
    clock = Clock()
    monkeypatch.setattr(retry_unary, "time", clock)
    monkeypatch.setattr(retry_base, "time", clock)
    return clock


@pytest.fixture
def client(warehouse: BigQuery, lake: Lake) -> bigquery.Client:
    warehouse.load(*lake.month())
    return warehouse.session.client


@pytest.fixture
def lake(tmp_path: Path, bigquery_server: BigQueryServer) -> Lake:
    bigquery_server.objects = tmp_path
    return Lake(tmp_path)


@pytest.fixture
def warehouse(bigquery_server: BigQueryServer) -> BigQuery:
    return connect()


def connect(url: str = URL, options: Options | None = None) -> BigQuery:
    warehouse = open_warehouse(url, options or Options(patience=PATIENCE))
    assert isinstance(warehouse, BigQuery)
    return warehouse


def effective(server: BigQueryServer, month: dt.date = JANUARY) -> list[str]:
    """sha256 of the ledger rows of a month, oldest first."""
    found = server.sql(
        f"SELECT sha256 FROM \"my-project:trips\".etl_loads WHERE file_month = '{month}' ORDER BY loaded_at"
    )
    return [sha for (sha,) in found]


def content(server: BigQueryServer, month: dt.date = JANUARY) -> tuple[int, str | None]:
    """Rows of the month in the table and the version that they are of."""
    number = next(column.name for column in GREEN.columns if column.type == "float64")
    ((rows, low, high),) = server.sql(
        f'SELECT count(*), min({number}), max({number}) FROM "my-project:trips".green_trips '
        f"WHERE file_month = '{month}'"
    )
    assert low == high
    return rows, chr(int(low)) if low is not None else None


# -- what is made --------------------------------------------------------------------------------


def test_tables_are_made_from_the_declarations(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month())
    table = bigquery_server.tables["my-project:trips", "green_trips"]
    assert table["timePartitioning"] == {"type": "MONTH", "field": "file_month"}
    assert table["clustering"] == {"fields": ["lpep_pickup_datetime", "PULocationID"]}
    assert table["labels"] == {"dataset": "green"}
    fields = {field["name"]: field for field in table["schema"]["fields"]}
    assert list(fields) == [column.name for column in GREEN.table_columns]
    assert all(field["description"] for field in fields.values())
    assert [fields[name]["type"] for name in ("lpep_pickup_datetime", "file_month", "PULocationID", "fare_amount")] == [
        "DATETIME",
        "DATE",
        "INTEGER",
        "FLOAT",
    ]
    assert {name for _, name in bigquery_server.tables} == TABLES


def test_fhv_is_clustered_by_the_columns_that_it_has(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month())
    fields = bigquery_server.tables["my-project:trips", "fhv_trips"]["clustering"]["fields"]
    assert fields[0] == get("fhv").pickup and fields[1].lower() == "pulocationid"


def test_a_view_that_changed_is_made_again(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse.load(*lake.month())
    view = bigquery_server.tables["my-project:trips", "etl_current"]
    right, view["labels"] = view["view"]["query"], {"sql": "of-an-older-version"}
    view["view"]["query"] = "SELECT 1 AS one"
    warehouse.load(*lake.month(month=FEBRUARY))
    assert bigquery_server.tables["my-project:trips", "etl_current"]["view"]["query"] == right


# -- loading -------------------------------------------------------------------------------------


def test_a_month_from_a_bucket(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    done: list[tuple[int, int]] = []
    dataset, file, row = lake.month()
    stored = warehouse.load(dataset, file, row, lambda now, of: done.append((now, of)))
    assert replace(stored, loaded_at=None) == row and stored.loaded_at is not None
    assert warehouse.ledger() == {("green", JANUARY): stored}
    assert warehouse.counts(GREEN) == {JANUARY: 3}
    assert done[-1] == (3, 3)
    assert bigquery_server.asked("jobs.upload") == 0


def test_a_month_from_a_lake_on_cloud_storage(
    gcs_bucket: str, warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    """The lake's own files and both real clients; a new object under the same name has another generation."""
    bigquery_server.objects = None
    store = open_store(f"gs://{gcs_bucket}/nyc")
    for version in "AB":
        dataset, file, row = lake.month(version)
        stored = store.put(file.path, "data/green/green_tripdata_2021-01.parquet")
        warehouse.load(dataset, StoredFile(store, "data/green/green_tripdata_2021-01.parquet"), row)
        assert content(bigquery_server) == (3, version)
        assert warehouse.ledger()["green", JANUARY].sha256 == version
        assert stored


def test_a_month_from_a_local_lake_is_sent(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse.load(*lake.month(in_bucket=False))
    assert content(bigquery_server) == (3, "A")
    assert bigquery_server.asked("jobs.upload.chunk") == 1


def test_a_local_file_with_other_rows_changes_nothing(warehouse: BigQuery, lake: Lake) -> None:
    warehouse.load(*lake.month())
    dataset, file, row = lake.month("B", in_bucket=False)
    with pytest.raises(WarehouseError, match=r"has 3 rows and should have 4"):
        warehouse.load(dataset, file, replace(row, row_count=4))
    assert [row.status for row in warehouse.ledger().values()] == ["loaded"]


def test_the_same_month_twice_changes_nothing(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    first = warehouse.load(*lake.month())
    dataset, file, row = lake.month()
    assert warehouse.load(dataset, file, replace(row, run_id="another")) == first
    assert bigquery_server.count_jobs(prefix="load-") == 1
    assert effective(bigquery_server) == ["A"]


def test_a_forgotten_month_is_loaded_again(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    loaded = warehouse.load(*lake.month())
    forgotten = replace(loaded, status="forgotten", run_id="forget")
    assert warehouse.append(forgotten) == warehouse.append(forgotten)
    assert warehouse.ledger()["green", JANUARY].status == "forgotten"
    warehouse.load(*lake.month())
    assert [row.status for row in warehouse.history()] == ["loaded", "forgotten", "loaded"]
    assert bigquery_server.count_jobs("ok", "load-") == 2


# -- faults --------------------------------------------------------------------------------------

OPERATIONS = [
    "datasets.get",
    "datasets.insert",
    "tables.list",
    "tables.insert",
    "tables.get",
    "tabledata.list",
    "jobs.insert.load",
    "jobs.insert.query",
    "jobs.get",
]


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=500, reason="internalError"),
        Fault(status=429, reason="rateLimitExceeded", retry_after="1"),
        Fault(status=403, reason="rateLimitExceeded"),
        Fault(cut=True),
        Fault(lose_reply=True),
    ],
    ids=lambda fault: f"{fault.status or ''}{fault.reason if fault.status else ('cut' if fault.cut else 'lost')}",
)
def test_passing_faults_change_nothing(
    fault: Fault, warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    for operation in OPERATIONS:
        bigquery_server.program(operation, replace(fault, times=1))
    warehouse.load(*lake.month("A"))
    bigquery_server.program("jobs.insert.query", replace(fault, times=1))
    bigquery_server.program("jobs.insert.load", replace(fault, times=1))
    warehouse.load(*lake.month("B"))
    assert content(bigquery_server) == (3, "B")
    assert effective(bigquery_server) == ["A", "B"]
    loads = [job for job in bigquery_server.executed if job.startswith("load-")]
    assert len(loads) == 2, "each load ran once, however often it was asked for"


@pytest.mark.parametrize("operation", ["jobs.upload.start", "jobs.upload.chunk"])
@pytest.mark.parametrize("fault", [Fault(status=503), Fault(cut=True), Fault(lose_reply=True)])
def test_a_broken_upload_is_sent_again(
    operation: str, fault: Fault, warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    bigquery_server.program(operation, replace(fault))
    warehouse.load(*lake.month(in_bucket=False))
    assert content(bigquery_server) == (3, "A") and effective(bigquery_server) == ["A"]
    assert bigquery_server.count_jobs(prefix="load-") == 1


def test_a_server_that_stays_away_is_trouble(lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse = connect(options=Options(patience=1))
    bigquery_server.program(
        "jobs.insert.load", Fault(status=429, reason="rateLimitExceeded", retry_after="7", times=99)
    )
    with pytest.raises(WarehouseUnavailable) as caught:
        warehouse.load(*lake.month())
    assert caught.value.retry_after == 7.0
    assert warehouse.ledger() == {}
    bigquery_server.clear()
    warehouse.load(*lake.month())
    assert effective(bigquery_server) == ["A"]


def test_no_server_is_trouble_by_its_address(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "http://127.0.0.1:9")
    warehouse = connect(options=Options(patience=0.5))
    with pytest.raises(WarehouseUnavailable, match=r"no answer from http://127\.0\.0\.1:9 .*BIGQUERY_EMULATOR_HOST"):
        warehouse.ledger()
    waits = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert waits and all("BigQuery at http://127.0.0.1:9 " in said and "my-project" not in said for said in waits)


def test_somebody_who_waits_is_told_of_a_silent_server_before_its_time_out(
    monkeypatch: pytest.MonkeyPatch, time_outs: list[float]
) -> None:
    """It takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with remote.interactive(0.5), pytest.raises(WarehouseUnavailable, match="no answer"):
            open_warehouse(URL).ledger()
    assert time_outs and max(time_outs) <= 0.5, "that of a run is a minute"


def test_somebody_who_waits_is_told_of_a_server_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes within any time-out, and the answer never."""

    def drip(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
        while True:
            server.pause(0.02)
            connection.sendall(b"a")

    with RawServer(drip) as server:
        monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", server.url)
        for ask in (lambda: open_warehouse(URL).ledger(), lambda: open_warehouse(URL).counts(GREEN)):
            with remote.interactive(0.3), pytest.raises(WarehouseUnavailable, match="no answer"):
                ask()


def test_an_emulator_may_be_named_without_scheme(
    lake: Lake, bigquery_server: BigQueryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", bigquery_server.url.removeprefix("http://"))
    open_warehouse(URL).load(*lake.month())
    assert content(bigquery_server) == (3, "A")


def test_an_emulator_that_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", "bigquery://project")
    with pytest.raises(UsageError, match=r"BIGQUERY_EMULATOR_HOST is no address; write http://host:port"):
        open_warehouse(URL)


def test_a_job_that_fails_in_passing_gets_another_id(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    bigquery_server.program("jobs.insert.load", Fault(job_error=("backendError", "try again")))
    bigquery_server.program("jobs.insert.query", Fault(job_error=("jobBackendError", "try again")))
    warehouse.load(*lake.month())
    assert content(bigquery_server) == (3, "A") and effective(bigquery_server) == ["A"]
    ids = sorted(job_id for _, _, job_id in bigquery_server.jobs if job_id.startswith("load-"))
    assert [job_id[-2:] for job_id in ids] == ["-0", "-1"] and ids[0][:-2] == ids[1][:-2]


def test_a_job_that_keeps_failing_in_passing_is_trouble(lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse = connect(options=Options(patience=0.1))
    bigquery_server.program("jobs.insert.load", Fault(job_error=("internalError", "no luck"), times=99))
    with pytest.raises(WarehouseUnavailable, match="no luck"):
        warehouse.load(*lake.month())
    assert bigquery_server.count_jobs("failed", "load-") == 3


def test_a_missing_object_fails_the_job_and_the_next_call_tries_again(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer, tmp_path: Path
) -> None:
    dataset, file, row = lake.month()
    bigquery_server.objects = tmp_path / "elsewhere"
    for _ in range(2):
        with pytest.raises(WarehouseError, match=r"loading green 2021-01: not found: Not found: URI gs://lake/green"):
            warehouse.load(dataset, file, row)
    assert warehouse.ledger() == {}
    bigquery_server.objects = tmp_path
    warehouse.load(dataset, file, row)
    assert effective(bigquery_server) == ["A"]
    assert (bigquery_server.count_jobs("failed", "load-"), bigquery_server.count_jobs("ok", "load-")) == (2, 1)


def test_a_slow_job_is_waited_for(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    bigquery_server.program("jobs.insert.load", Fault(job_asks=3))
    warehouse.load(*lake.month())
    assert bigquery_server.asked("jobs.get") > 2 and effective(bigquery_server) == ["A"]


# -- killed, and several at once -----------------------------------------------------------------


class Killed(BaseException):
    """What ``kill -9`` is to the code: nothing follows. tests/contract kills real processes."""


@contextmanager
def dying(at: Callable[[requests.PreparedRequest], bool], is_done: bool = True) -> Iterator[list[str]]:
    """End a call at the first request that ``at`` chooses: after the server has done it, or before it is sent.

    Gives a list that has an entry once that has happened. The jobs that were begun go on.
    """
    died: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        send = requests.Session.send

        def send_or_die(self: requests.Session, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            dies = at(request)
            answer = send(self, request, **options) if is_done or not dies else None
            if dies:
                died.append(str(request.url))
                raise Killed
            assert answer is not None
            return answer

        patch.setattr(requests.Session, "send", send_or_die)
        with suppress(Killed):
            yield died


def nth(number: int, only: Callable[[requests.PreparedRequest], bool] = bool) -> Callable[[Any], bool]:
    """Chooses the request with this number, from 0, among those that ``only`` takes."""
    count = itertools.count()
    return lambda request: only(request) and next(count) == number


def changes(request: requests.PreparedRequest) -> bool:
    return request.method != "GET"


def begins_a_query(request: requests.PreparedRequest) -> bool:
    return str(request.url).split("?")[0].endswith("/jobs") and '"query"' in str(request.body)


def test_killed_while_a_new_project_is_filled(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    """After the n-th request that changes something nothing follows; the same call again makes up for it."""
    first = lake.month("B", rows=5)
    for stop in range(100):
        bigquery_server.settle()
        bigquery_server.wipe()
        bigquery_server.job_seconds = 0.05 * (stop % 2)  # the second call meets jobs that run and jobs that are done
        with dying(nth(stop, changes)) as died:
            connect().load(*first)
        bigquery_server.job_seconds = 0.0
        stored = warehouse.load(*first)
        assert content(bigquery_server) == (5, "B"), f"killed after change {stop}"
        assert effective(bigquery_server) == ["B"], f"killed after change {stop}"
        assert warehouse.ledger() == {("green", JANUARY): stored}
        assert sum(job.startswith("load-") for job in bigquery_server.executed) == 1
        assert {name for _, name in bigquery_server.tables} == TABLES
        if not died:
            break
    assert stop > 10


@pytest.mark.parametrize("is_over", [True, False], ids=["its jobs are done", "its jobs run"])
def test_killed_after_any_request_of_a_replacement(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer, is_over: bool
) -> None:
    first, second = lake.month("A"), lake.month("B", rows=5)
    warehouse.load(*first)
    for stop in range(100):
        bigquery_server.job_seconds = 0.0 if is_over else 0.05
        loads = bigquery_server.count_jobs("ok", "load-")
        with dying(nth(stop)) as died:
            connect().load(*second)
        bigquery_server.job_seconds = 0.0
        if is_over:
            bigquery_server.settle()
            if content(bigquery_server) != (3, "A") and effective(bigquery_server)[-1] == "A":
                status = warehouse.ledger()["green", JANUARY].status
                assert status != "loaded", "the ledger speaks for rows that are gone"
        stored = warehouse.load(*second)
        assert content(bigquery_server) == (5, "B"), f"killed after request {stop}"
        assert effective(bigquery_server) == ["A", "B"] * (stop + 1), f"killed after request {stop}"
        assert warehouse.ledger() == {("green", JANUARY): stored} and stored.replaces == "A"
        assert bigquery_server.count_jobs("ok", "load-") == loads + 1
        if not died:
            break
        warehouse.load(*first)
    assert stop > 9


def test_an_interrupted_replacement_is_not_taken_for_the_old_load(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    """A is loaded, a load of B dies before its ledger row, and then A is wanted again after all."""
    first = lake.month("A")
    warehouse.load(*first)
    with dying(nth(1, begins_a_query), is_done=False) as died:  # the first query is the mark
        connect().load(*lake.month("B", rows=5))
    bigquery_server.settle()
    assert died and content(bigquery_server) == (5, "B")
    assert warehouse.ledger()["green", JANUARY].status == "interrupted"
    warehouse.load(*first)
    assert content(bigquery_server) == (3, "A")
    assert warehouse.ledger()["green", JANUARY].status == "loaded"
    assert effective(bigquery_server) == ["A", "A"]


def test_workers_with_the_same_file_run_one_job(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month("X"))
    month = lake.month("B", rows=5)
    bigquery_server.job_seconds = 0.1
    start = threading.Barrier(3)

    def load(_: int) -> LedgerRow:
        start.wait()
        return connect().load(*month)

    with ThreadPoolExecutor(3) as pool:
        assert len(set(pool.map(load, range(3)))) == 1
    assert content(bigquery_server) == (5, "B") and effective(bigquery_server) == ["X", "B"]
    assert sum(job.startswith("load-") for job in bigquery_server.executed) == 2


def test_overtaken_between_job_and_ledger(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    """Another worker loads C after our job with B and before our ledger row: B is loaded once more on top."""
    other = connect()
    warehouse.load(*lake.month("X", month=FEBRUARY))
    newest = warehouse.ledger_table.append

    def overtaken(*arguments: Any) -> LedgerRow | None:
        warehouse.ledger_table.append = newest  # type: ignore[method-assign]
        other.load(*lake.month("C"))
        return newest(*arguments)

    warehouse.ledger_table.append = overtaken  # type: ignore[method-assign]
    warehouse.load(*lake.month("B"))
    assert effective(bigquery_server) == ["C", "B"] and content(bigquery_server) == (3, "B")


def test_a_forked_child_makes_a_client_of_its_own(warehouse: BigQuery, lake: Lake) -> None:
    warehouse.load(*lake.month())
    client = warehouse.session.client
    assert warehouse.session.client is client
    process, _ = warehouse.session._client or (0, client)
    warehouse.session._client = process + 1, client
    assert warehouse.session.client is not client


# -- what must not be marked as loaded -----------------------------------------------------------


def test_a_server_that_does_not_tell_the_rows(warehouse: BigQuery, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery.LoadJob, "output_rows", None)
    warehouse.load(*lake.month("B", month=FEBRUARY))
    assert warehouse.ledger()["green", FEBRUARY].row_count == 3
    dataset, file, row = lake.month()
    with pytest.raises(WarehouseError, match="brought 3 rows"):
        warehouse.load(dataset, file, replace(row, row_count=4))


def test_an_object_that_changed_meanwhile(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    dataset, file, row = lake.month("A")

    class Changing(File):
        asked = 0

        @property
        def generation(self) -> str | None:
            type(self).asked += 1
            return "1" if self.asked == 1 else "2"

    with pytest.raises(WarehouseUnavailable, match="was replaced while green 2021-01 was loaded"):
        warehouse.load(dataset, Changing(file.path), row)
    assert warehouse.ledger() == {}
    warehouse.load(dataset, Changing(file.path), row)
    assert bigquery_server.count_jobs("ok", "load-") == 2, "what the first job read is not known"
    assert effective(bigquery_server) == ["A"]


@pytest.mark.parametrize("how", ["DELETE FROM `my-project.trips.green_trips` WHERE TRUE", "drop"])
def test_a_table_that_was_emptied_is_filled_again(
    how: str, warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month())
    if how == "drop":
        bigquery_server.delete_table("my-project", "trips", "green_trips")
    else:
        warehouse.session.query(how)
    warehouse.load(*lake.month())
    assert content(bigquery_server) == (3, "A")


def test_a_ledger_that_was_emptied(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    """The ids of the first load are taken, and what their jobs wrote is gone."""
    warehouse.load(*lake.month())
    warehouse.session.query("DELETE FROM `my-project.trips.etl_loads` WHERE TRUE")
    warehouse.session.query("DELETE FROM `my-project.trips.green_trips` WHERE TRUE")
    warehouse.load(*lake.month())
    assert content(bigquery_server) == (3, "A") and effective(bigquery_server) == ["A"]


# -- columns -------------------------------------------------------------------------------------


def test_a_new_column_is_added(warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse.load(*lake.month("A"))
    assert "ALLOW_FIELD_ADDITION" not in json.dumps(list(bigquery_server.jobs.values()))
    grown = replace(GREEN, columns=(*GREEN.columns[:3], Column("toll_zone", "string", "New"), *GREEN.columns[3:]))
    warehouse.load(*lake.month("B", month=FEBRUARY, dataset=grown))
    fields = [field["name"] for field in bigquery_server.tables["my-project:trips", "green_trips"]["schema"]["fields"]]
    assert fields == [*(column.name for column in GREEN.table_columns), "toll_zone"]
    assert warehouse.counts(GREEN) == {JANUARY: 3, FEBRUARY: 3}
    warehouse.load(*lake.month("C"))  # an older version of the pipeline, which does not know the column


def test_a_table_that_is_partitioned_otherwise_is_refused(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month("A"))
    bigquery_server.tables["my-project:trips", "green_trips"]["timePartitioning"]["type"] = "DAY"
    with pytest.raises(WarehouseError, match="partitioned by DAY of file_month and should be by MONTH"):
        warehouse.load(*lake.month("B"))


def test_a_table_whose_owner_demands_a_filter_is_counted(
    warehouse: BigQuery, lake: Lake, client: bigquery.Client, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month("A"))
    bigquery_server.tables["my-project:trips", "green_trips"]["requirePartitionFilter"] = True
    with pytest.raises(exceptions.BadRequest, match="without a filter"):
        client.query(
            "SELECT count(*) FROM `my-project.trips.green_trips`",
            job_config=bigquery.QueryJobConfig(maximum_bytes_billed=10**9),
        ).result()
    warehouse.load(*lake.month("B"))
    assert warehouse.counts(GREEN) == {JANUARY: 3}


def test_a_column_of_the_owner_that_no_file_has_is_refused_if_it_is_required(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse.load(*lake.month("A"))
    fields = bigquery_server.tables["my-project:trips", "green_trips"]["schema"]["fields"]
    fields.append({"name": "note", "type": "STRING", "mode": "REQUIRED"})
    with pytest.raises(WarehouseError, match="column note of your own is REQUIRED, and no file has it"):
        warehouse.load(*lake.month("B"))
    assert [row.sha256 for row in warehouse.history()] == ["A"]


# -- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bucket", "preferred", "place"),
    [
        (None, "US", "US"),
        ("US-CENTRAL1", "US", "US"),
        ("NAM4", "us-east1", "us-east1"),
        ("EUROPE-WEST1", "US", "europe-west1"),
        ("EUROPE-WEST1", "EU", "EU"),
        ("EU", "US", "EU"),
    ],
)
def test_the_place_of_a_new_dataset(bucket: str | None, preferred: str, place: str) -> None:
    assert location_near(bucket, preferred) == place


def test_a_load_from_another_place_is_refused_in_the_words_of_the_service_with_the_remedy(
    warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    words = "Cannot read and write in different locations: source: EU, destination: US"
    bigquery_server.program("jobs.insert.load", Fault(job_error=("invalid", words)))
    with pytest.raises(WarehouseError, match=f"{words}; use a bucket and a dataset in the same place"):
        warehouse.load(*lake.month())
    assert warehouse.ledger() == {}


def test_the_place_of_the_lake_is_asked_for_only_where_a_dataset_is_made(
    warehouse: BigQuery, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    warehouse.load(*lake.month("A"))
    monkeypatch.delattr(File, "location")
    dataset, file, row = lake.month("B")
    vars(file).pop("location", None)
    warehouse.load(dataset, file, row)


@pytest.mark.parametrize(
    ("url", "bucket", "place"), [(URL, "EUROPE-WEST1", "europe-west1"), (f"{URL}?location=EU", "EUROPE-WEST1", "EU")]
)
def test_a_new_dataset_is_made_near_the_lake(
    url: str, bucket: str, place: str, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    warehouse = connect(url)
    # The job whose reply is lost has to be looked for in its own place: outside US and EU it is found nowhere else.
    bigquery_server.program("jobs.insert.load", Fault(lose_reply=True))
    bigquery_server.program("jobs.insert.query", Fault(lose_reply=True))
    warehouse.load(*lake.month("A", location=bucket))
    warehouse.load(*lake.month("B", location=bucket))
    assert bigquery_server.datasets["my-project:trips"]["location"] == place
    assert content(bigquery_server) == (3, "B")


# -- errors and secrets --------------------------------------------------------------------------


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_permission_that_is_missing_names_the_roles(
    operation: str, warehouse: BigQuery, lake: Lake, bigquery_server: BigQueryServer
) -> None:
    message = f"Access Denied: Project my-project: no permission (token={PLANTED})"
    bigquery_server.program(operation, Fault(status=403, reason="accessDenied", message=message, times=999))
    with pytest.raises(WarehouseError) as caught:
        warehouse.load(*lake.month())
    text = str(caught.value)
    assert "roles/bigquery.dataEditor" in text and "roles/bigquery.jobUser" in text and "no permission" in text
    assert PLANTED not in text and "\n" not in text
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (
            exceptions.Forbidden("x", errors=[{"reason": "quotaExceeded", "message": "Quota"}]),
            WarehouseUnavailable,
            "Quota",
        ),
        (
            exceptions.Forbidden("x", errors=[{"reason": "billingNotEnabled", "message": "B"}]),
            WarehouseError,
            "refuses",
        ),
        (
            exceptions.NotFound("GET https://x/y: Not found: Project p"),
            WarehouseError,
            "not found: Not found: Project p",
        ),
        (exceptions.BadGateway("<html>\n<body>" + PLANTED), WarehouseUnavailable, "<html>"),
        (exceptions.Unauthorized("no"), WarehouseError, "credentials"),
        (
            exceptions.BadRequest("x", errors=[{"reason": "bytesBilledLimitExceeded", "message": "Too much"}]),
            WarehouseError,
            "maximum_bytes_billed",
        ),
        (exceptions.RetryError("x", exceptions.ServiceUnavailable("away")), WarehouseUnavailable, "away"),
        (auth.RefreshError(f"invalid_grant {PLANTED}", {"access_token": PLANTED}), WarehouseError, "RefreshError"),
        (auth.TransportError(PLANTED), WarehouseUnavailable, "no answer"),
        (ConnectionResetError(104, f"https://x/?upload_id={PLANTED}"), WarehouseUnavailable, "ConnectionResetError"),
        (TimeoutError(PLANTED), WarehouseUnavailable, "TimeoutError"),
        (exceptions.BadRequest(f"bad\nheader: Bearer {PLANTED}"), WarehouseError, "bad"),
        (
            exceptions.BadRequest(f"POST https://h/p?key={PLANTED}: see https://h/?sig={PLANTED}"),
            WarehouseError,
            "https",
        ),
    ],
    ids=lambda value: value.__class__.__name__ if isinstance(value, Exception) else None,
)
def test_every_error_is_one_line_of_ours(error: Exception, kind: type[PipelineError], words: str) -> None:
    translated = translate(error, "bigquery://p/d: loading")
    assert type(translated) is kind
    assert words in str(translated) and PLANTED not in str(translated) and "\n" not in str(translated)


def test_a_fault_of_ours_is_not_disguised() -> None:
    assert translate(KeyError("x"), "here") is None


def test_unusable_credentials_are_named_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("BIGQUERY_EMULATOR_HOST", raising=False)
    key = tmp_path / "key.json"
    for text in (PLANTED, json.dumps({"type": "service_account", "private_key": PLANTED}), '{"type": "other"}'):
        key.write_text(text)
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))
        with pytest.raises(WarehouseError, match="no usable Google credentials") as caught:
            connect().ledger()
        assert PLANTED not in str(caught.value)
        assert [check.ok for check in connect().check()] == [False]


def test_queries_carry_a_limit(lake: Lake, bigquery_server: BigQueryServer) -> None:
    warehouse = connect(options=Options(maximum_bytes_billed=123_456_789))
    warehouse.load(*lake.month("A"))
    warehouse.load(*lake.month("B"))
    warehouse.counts(GREEN)
    queries = [job for job in bigquery_server.jobs.values() if "query" in job["configuration"]]
    assert len(queries) >= 4
    assert {job["configuration"]["query"]["maximumBytesBilled"] for job in queries} == {"123456789"}


def test_the_label_and_synthetic_months() -> None:
    warehouse = connect(f"{URL}?location=EU")
    assert warehouse.label == URL and not warehouse.takes_synthetic


# -- doctor --------------------------------------------------------------------------------------


def test_doctor(bigquery_server: BigQueryServer) -> None:
    warehouse = connect(options=Options(location="EU"))
    missing = list(warehouse.check())
    assert [check.ok for check in missing] == [True, False] and "--create" in missing[-1].remedy
    assert bigquery_server.datasets == {}
    assert [check.ok for check in warehouse.check(create=True)] == [True, True, True]
    assert bigquery_server.datasets["my-project:trips"]["location"] == "EU"
    bigquery_server.program("jobs.insert.query", Fault(status=403, reason="accessDenied", message="no jobs for you"))
    denied = list(warehouse.check())[-1]
    assert not denied.ok and "no jobs for you" in denied.detail and "jobUser" in denied.remedy

"""What is PostgreSQL's own: how tables are made, encodings, who waits for whom, what breaks, connections and errors.

The promises of every warehouse are in tests/contract.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
import logging
import os
import re
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets, waiting
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import PipelineError, WarehouseBusy, WarehouseError, WarehouseUnavailable
from pipeline.warehouse import LedgerRow, Options, Warehouse, open_warehouse
from pipeline.warehouse.postgresql import connection as postgresql_connection
from pipeline.warehouse.postgresql import copy as postgresql_copy
from tests.contract.loads import GREEN, ZONES, LocalFile, file_of, ledger_row
from tests.contract.warehouses import database_with_tables
from tests.patience import PATIENCE, wait_for
from tests.servers.postgres import PostgresServer, postgres_server  # noqa: F401 (a fixture)

JANUARY, FEBRUARY, MARCH = (dt.date(2021, month, 1) for month in (1, 2, 3))


@dataclasses.dataclass
class Place:
    """A fresh database of the ordinary role, with a folder for Parquet files."""

    server: PostgresServer
    name: str
    folder: Path

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def warehouse(self, url: str | None = None, **options: float) -> Warehouse:
        return open_warehouse(url or self.url, Options(**{"lock_timeout": PATIENCE, **options}))  # type: ignore[arg-type]

    def run(self, statement: str, admin: bool = False) -> list[tuple]:
        return self.server.run(statement, self.name, admin=admin)

    def file(
        self, version: str, month: dt.date | None = JANUARY, rows: int = 500, dataset: Dataset = GREEN
    ) -> LocalFile:
        return file_of(self.folder, version, month, rows, dataset)

    def load(
        self,
        version: str,
        month: dt.date | None = JANUARY,
        rows: int = 500,
        dataset: Dataset = GREEN,
        warehouse: Warehouse | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> LedgerRow:
        row = ledger_row(version, month, rows, dataset)
        file = self.file(version, month, rows, dataset)
        return (warehouse or self.warehouse()).load(dataset, file, row, progress)

    def content(self) -> dict[str, list[tuple]]:
        """Every row of every table but the ledger, which only grows."""
        return {
            dataset.table: self.run(f"SELECT * FROM {dataset.table} ORDER BY 1, 2")
            for dataset in datasets.DATASETS.values()
            if self.run(f"SELECT to_regclass('{dataset.table}')") != [(None,)]
        }

    def wait_for_silence(self) -> None:
        """Until the server has noticed that a killed loader is gone."""
        wait_for(lambda: not self.run("SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'pipeline%'"))

    def leftovers(self) -> list[tuple]:
        """Tables that are neither declared nor a partition of a declared one."""
        return self.run(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND NOT "
            "relispartition AND relname NOT IN ('taxi_zones', 'etl_loads')"
        )


@pytest.fixture
def place(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Place]:  # noqa: F811
    """With empty tables."""
    with postgres_server.database(template=database_with_tables(postgres_server)) as name:
        yield Place(postgres_server, name, tmp_path)


@pytest.fixture
def new_place(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[Place]:  # noqa: F811
    with postgres_server.database() as name:
        yield Place(postgres_server, name, tmp_path)


# -- tables and values ------------------------------------------------------------------------------


def test_the_ledger_is_read_by_two_statements(place: Place) -> None:
    """Scheduling asks nothing else; what an engine would ask of each new connection is left out."""
    place.load("a")
    place.run(f"ALTER DATABASE {place.name} SET log_statement = 'all'", admin=True)
    before = place.server.log.stat().st_size
    place.warehouse().ledger()
    log = place.server.log.read_bytes()[before:].decode()
    statements = [text for text in re.findall(r"statement: (\w+)", log) if text not in ("BEGIN", "COMMIT")]
    assert statements == ["SELECT", "SELECT"], log


@pytest.mark.parametrize("encoder", ["binary", "csv"])
def test_every_value_arrives_as_it_is(place: Place, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if encoder == "binary":
        pytest.importorskip("pgpq")
    else:
        monkeypatch.setattr(postgresql_copy, "pgpq", None)
    texts = ["two\nlines", "back\\slash \\N", 'a "quote", a comma', "", None, "\r\n", " ü € 😀 ", "\\."]
    floats = [0.1, 1e-300, float("inf"), float("-inf"), 5e-324, None, 1 / 3, -0.0]
    times = [
        dt.datetime(2001, 1, 1),
        dt.datetime(3019, 2, 3, 4, 5, 6, 789012),
        dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
        None,
        dt.datetime(2021, 3, 14, 2, 30),  # does not exist in New York: times are never converted
        dt.datetime(1, 1, 1),
        dt.datetime(9999, 12, 31, 23, 59, 59),
        dt.datetime(2098, 1, 1),
    ]
    numbers = [0, 2**63 - 1, -(2**63), None, 1, 2, 3, 4]
    values: dict[str, list] = {
        "int64": numbers,
        "float64": floats,
        "string": texts,
        "timestamp": times,
        "date": [JANUARY] * 8,
    }
    path = place.folder / "values.parquet"
    arrays = [pa.array(values[column.type], column.arrow_type) for column in GREEN.table_columns]
    pq.write_table(pa.table(arrays, schema=GREEN.table_schema), path)
    place.warehouse().load(GREEN, LocalFile(path), ledger_row("A", JANUARY, 8))
    names = ", ".join(f'"{column.name}"' for column in GREEN.table_columns)
    rows = place.run(f"SELECT {names} FROM green_trips ORDER BY ctid")
    for column, arrived in zip(GREEN.table_columns, zip(*rows, strict=True), strict=True):
        assert repr(list(arrived)) == repr(values[column.type]), column.name


def test_nan_is_kept(place: Place) -> None:
    path = place.folder / "nan.parquet"
    schema = GREEN.table_schema
    columns = [pa.array([JANUARY]) if f.name == "file_month" else pa.nulls(1, f.type) for f in schema]
    columns[schema.get_field_index("fare_amount")] = pa.array([float("nan")])
    pq.write_table(pa.table(columns, schema=schema), path)
    place.warehouse().load(GREEN, LocalFile(path), ledger_row("A", JANUARY, 1))
    assert place.run("SELECT fare_amount = 'NaN' FROM green_trips") == [(True,)]


def test_tables_are_partitioned_and_indexed(place: Place) -> None:
    place.load("A")
    assert place.run("SELECT partrelid::regclass::text, partstrat FROM pg_partitioned_table ORDER BY 1") == [
        (name, "l") for name in sorted(datasets.get(name).table for name in datasets.MONTHLY)
    ]
    assert place.run("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'green_trips'::regclass") == [
        ("green_trips_2021_01",)
    ]
    (index,) = place.run("SELECT indexdef FROM pg_indexes WHERE tablename = 'green_trips_2021_01'")
    assert "USING brin (lpep_pickup_datetime)" in index[0]
    # The index of the partition is part of the parent's, not a second one.
    parent = "green_trips_lpep_pickup_datetime_idx"
    assert place.run(f"SELECT count(*) FROM pg_inherits WHERE inhparent = '{parent}'::regclass") == [(1,)]
    assert place.run("SELECT obj_description('green_trips'::regclass)") == [(GREEN.title,)]


def test_attaching_does_not_read_the_table_again(place: Place) -> None:
    place.run(f"ALTER DATABASE {place.name} SET log_min_messages = debug1", admin=True)
    place.load("A")
    log = place.server.log.read_text()
    assert 'partition constraint for table "green_trips_2021_01" is implied by existing constraints' in log


# -- declarations that change -----------------------------------------------------------------------


def test_a_column_that_only_the_table_has_stays(place: Place) -> None:
    place.load("A", JANUARY)
    place.run("ALTER TABLE green_trips ADD COLUMN note text NOT NULL DEFAULT 'mine'")
    place.run("ALTER TABLE green_trips ALTER COLUMN note DROP DEFAULT")
    with pytest.raises(WarehouseError, match="note"):
        place.load("A", FEBRUARY)  # a rule of the table's owner that no file can satisfy
    place.run("ALTER TABLE green_trips ALTER COLUMN note DROP NOT NULL")
    place.load("A", FEBRUARY)
    place.load("B", JANUARY)
    assert place.warehouse().counts(GREEN) == {JANUARY: 500, FEBRUARY: 500}


def test_a_view_that_others_rest_on_fails_no_load(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    place.load("A")
    place.run("CREATE VIEW mine AS SELECT * FROM trips")
    learned = dataclasses.replace(GREEN, columns=(Column("cargo", "string", "What was carried"), *GREEN.columns))
    with caplog.at_level(logging.WARNING):
        place.load("A", FEBRUARY, dataset=learned)
    assert "view trips is not renewed" in caplog.text
    assert place.run("SELECT count(*) FROM mine") == [(1000,)]


def test_a_table_of_the_users_under_the_name_of_a_view_stays(
    new_place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    new_place.run("CREATE TABLE trips (a int)")
    with caplog.at_level(logging.WARNING):
        new_place.load("A")
    assert "the view trips is not made, because something else has that name" in caplog.text
    assert new_place.run("SELECT a FROM trips") == []
    assert new_place.run("SELECT row_count FROM etl_current") == [(500,)]


# -- encodings -------------------------------------------------------------------------------------


def zones_file(place: Place, *names: str) -> LocalFile:
    """A zone table whose zones have these names."""
    path = place.folder / "zones.parquet"
    columns = {"LocationID": list(range(len(names))), "Zone": list(names)}
    arrays = [
        pa.array(columns.get(column.name, [None] * len(names)), column.arrow_type) for column in ZONES.table_columns
    ]
    pq.write_table(pa.table(arrays, schema=ZONES.table_schema), path)
    return LocalFile(path)


def load_zones(warehouse: Warehouse, place: Place, *names: str) -> None:
    warehouse.load(ZONES, zones_file(place, *names), ledger_row("A", None, len(names), ZONES))


@pytest.mark.parametrize("binary", [True, False], ids=["binary", "csv"])
@pytest.mark.parametrize("where", ["environment", "url", "options", "role"])
def test_text_arrives_as_it_is_whatever_the_encoding_of_the_client(
    place: Place, where: str, binary: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not binary:
        monkeypatch.setattr(postgresql_copy, "pgpq", None)
    url = place.url
    if where == "environment":
        monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    elif where == "url":
        url += "?client_encoding=latin1"
    elif where == "options":
        url += "?options=-cclient_encoding%3Dlatin1"
    else:
        place.run(f"ALTER ROLE {place.server.role} IN DATABASE {place.name} SET client_encoding = 'LATIN1'", admin=True)
    load_zones(place.warehouse(url), place, "Café Square", "Łódź")
    monkeypatch.setenv("PGCLIENTENCODING", "UTF8")
    found = place.run('SELECT "Zone", length("Zone"), convert_to("Zone", \'UTF8\') FROM taxi_zones ORDER BY 1')
    assert [(zone, length) for zone, length, _ in found] == [("Café Square", 11), ("Łódź", 4)]
    assert [bytes(data).decode() for *_, data in found] == ["Café Square", "Łódź"]


def test_a_database_of_a_smaller_encoding_takes_what_it_can_hold_and_refuses_the_rest(
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    with postgres_server.database("LATIN1") as name:
        place = Place(postgres_server, name, tmp_path)
        load_zones(place.warehouse(), place, "Café")
        assert place.run('SELECT length("Zone"), convert_to("Zone", \'LATIN1\')::text FROM taxi_zones') == [
            (4, "\\x436166e9")
        ]
        with pytest.raises(WarehouseError, match="encoding of the database cannot hold it: use a database made with"):
            load_zones(place.warehouse(), place, "Łódź")
        doubts = [check for check in place.warehouse().check() if not check.ok]
        assert [check.is_warning for check in doubts] == [True] and "LATIN1" in doubts[0].detail


def test_a_database_without_an_encoding_is_refused(
    postgres_server: PostgresServer,  # noqa: F811
    tmp_path: Path,
) -> None:
    with postgres_server.database("SQL_ASCII") as name:
        place = Place(postgres_server, name, tmp_path)
        with pytest.raises(WarehouseError, match=r"has the encoding SQL_ASCII.*; use a database made with"):
            load_zones(place.warehouse(), place, "Café")
        (check,) = place.warehouse().check()
        assert not check.ok and not check.is_warning and "SQL_ASCII" in check.detail


# -- input that cannot be right ---------------------------------------------------------------------


def test_a_nul_is_refused_by_its_column_and_no_row_vanishes(place: Place) -> None:
    path = place.folder / "nul.parquet"
    table = pq.read_table(place.file("A").path)
    index = table.schema.get_field_index("store_and_fwd_flag")
    pq.write_table(table.set_column(index, table.schema.field(index), pa.array(["a\0b"] * 500)), path)
    with pytest.raises(WarehouseError, match=r"column store_and_fwd_flag.*cannot hold"):
        place.warehouse().load(GREEN, LocalFile(path), ledger_row("A", JANUARY, 500))
    assert place.warehouse().counts(GREEN) == {}


# -- readers and other workers ----------------------------------------------------------------------


class Readers:
    """Counts a table again and again, each time on a new connection; notes how often it would have had to wait."""

    def __init__(self, place: Place) -> None:
        self.place, self.waits, self.seen = place, 0, set[int]()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def _read(self) -> None:
        count = "LOCK TABLE green_trips IN ACCESS SHARE MODE NOWAIT; SELECT count(*) FROM green_trips"
        while not self._stop.is_set():
            try:
                self.seen.add(self.place.run(count)[0][0])
            except psycopg2.errors.LockNotAvailable:
                self.waits += 1

    def __enter__(self) -> Readers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextlib.contextmanager
def long_reader(place: Place) -> Iterator[psycopg2.extensions.cursor]:
    """A transaction that has read the parent and stays open."""
    with contextlib.closing(place.server.connect(place.name, admin=False)) as connection:
        connection.autocommit = False
        connection.set_session(isolation_level="REPEATABLE READ")
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM green_trips")
            yield cursor


@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
def test_no_reader_waits_while_a_long_reader_is_open(place: Place, month: dt.date) -> None:
    place.load("A", JANUARY, rows=5000)
    with long_reader(place) as cursor, Readers(place) as readers:
        place.load("B", month, rows=8000)
        # Loaded, although the reader is still open, and it still sees what it saw.
        total = 8000 if month == JANUARY else 13_000
        assert place.run("SELECT count(*) FROM green_trips") == [(total,)]
        cursor.execute("SELECT count(*), count(DISTINCT file_month) FROM green_trips")
        assert cursor.fetchall() == [(5000, 1)]
    assert readers.waits == 0
    assert readers.seen <= {5000, total}


LEARNED = dataclasses.replace(GREEN, columns=(*GREEN.columns, Column("cargo", "string", "What was carried")))


def test_readers_pass_while_a_new_column_waits_for_a_long_reader(place: Place) -> None:
    """Whoever waits for the table to itself makes new readers wait too, so that is given up again and again."""
    place.load("A")
    waiting_for_all = "SELECT 1 FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"
    with ThreadPoolExecutor(1) as pool:
        with long_reader(place):
            load = pool.submit(place.load, "B", dataset=LEARNED)
            for _ in range(3):
                wait_for(lambda: place.run(waiting_for_all) or load.done())
                assert place.run("SELECT count(*) FROM green_trips") == [(500,)]
                assert not load.done(), "it still waits for the long reader, and a new one has passed"
        load.result(PATIENCE)
    assert place.warehouse().ledger()["green", JANUARY].sha256 == "B"


def test_a_new_column_that_waits_too_long_for_a_long_reader_names_it(place: Place) -> None:
    place.load("A")
    with long_reader(place) as cursor, pytest.raises(WarehouseBusy) as caught:
        reader = cursor.connection.info.backend_pid
        place.load("B", dataset=LEARNED, warehouse=place.warehouse(lock_timeout=0.3))
    assert f"held by pid {reader} of role etl" in str(caught.value)
    place.load("B", dataset=LEARNED)


def test_who_waits_too_long_is_told_who_holds_the_month(place: Place) -> None:
    place.load("A")
    seen: list[WarehouseBusy] = []

    def another_worker(done: int, total: int) -> None:
        with pytest.raises(WarehouseBusy) as caught:
            place.load("C", warehouse=place.warehouse(lock_timeout=0.3))
        seen.append(caught.value)

    place.load("B", progress=another_worker)
    assert re.search(rf"green 2021-01 is held by pid \d+ of role etl \(pipeline .* {os.getpid()}\)", str(seen[0]))
    assert place.warehouse().ledger()["green", JANUARY].sha256 == "B"


class Heard(waiting.Listener):
    """Keeps what is said of waits."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def waiting(self, text: str) -> None:
        self.texts.append(text)


@contextlib.contextmanager
def locked_table(place: Place, table: str) -> Iterator[int]:
    """Somebody's open transaction that nobody can pass; gives the PID of its server process."""
    with contextlib.closing(place.server.connect(place.name, admin=False)) as connection:
        connection.autocommit = False
        connection.cursor().execute(f"LOCK TABLE {table}")
        yield connection.info.backend_pid


@pytest.mark.parametrize("table", ["etl_loads", "green_trips", "green_trips_2021_01"])
def test_whom_a_statement_waits_for_is_said_and_it_goes_on_afterwards(
    place: Place, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load("A")
    monkeypatch.setattr(waiting, "SAID_AFTER", 0.1)
    monkeypatch.setattr(postgresql_connection, "SAID_AFTER", 0.1)
    heard = Heard()
    with waiting.reported_to(heard), ThreadPoolExecutor(1) as pool:
        with locked_table(place, table) as pid:
            load = pool.submit(place.load, "B", warehouse=place.warehouse(lock_timeout=600))
            expected = f"waits for pid {pid} of role etl (no name), which holds {place.warehouse().label}"
            wait_for(lambda: any(expected in text for text in heard.texts) or load.done())
            assert any(expected in text for text in heard.texts), heard.texts
        load.result(PATIENCE)
    assert place.warehouse().ledger()["green", JANUARY].sha256 == "B"


# -- what breaks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
def test_a_connection_that_is_cut_in_the_middle_changes_nothing(
    place: Place, month: dt.date, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_copy, "BATCH_ROWS", 1000)
    place.load("A", JANUARY)
    before, history = place.content(), place.warehouse().history()

    def cut(done: int, total: int) -> None:
        place.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY%'", admin=True)

    with pytest.raises(WarehouseUnavailable, match="terminating connection due to administrator command"):
        place.load("B", month, rows=5000, progress=cut)
    assert capfd.readouterr().err == "", "psycopg2 prints tracebacks of its own"
    assert (place.content(), place.warehouse().history()) == (before, history)
    assert place.leftovers() == []
    place.load("B", month)
    assert place.warehouse().counts(GREEN)[month] == 500


@pytest.mark.parametrize("state, error", [("53100", WarehouseError), ("40P01", WarehouseUnavailable)])
@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
def test_an_error_of_the_last_statement_changes_nothing(
    place: Place, month: dt.date, state: str, error: type[PipelineError]
) -> None:
    place.load("A", JANUARY)
    before = place.content()
    place.run(
        f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE 'no room' USING ERRCODE = '{state}'; END $$;"
        f"CREATE TRIGGER fail BEFORE INSERT ON etl_loads EXECUTE FUNCTION fail()"
    )
    with pytest.raises(error, match="no room"):
        place.load("B", month)
    assert place.content() == before
    assert place.leftovers() == []


@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
def test_a_month_that_cannot_be_put_in_place_is_not_in_the_ledger(place: Place, month: dt.date) -> None:
    place.load("A", JANUARY)
    before, history = place.content(), place.warehouse().history()
    place.run(
        "CREATE TABLE mine PARTITION OF green_trips FOR VALUES IN ('2021-02-01', '2021-03-01');"
        "ALTER TABLE green_trips_2021_01 ADD CHECK (fare_amount < 100) NOT VALID"
    )
    with pytest.raises(WarehouseError, match=r"overlap|violates check constraint"):
        place.load("B", month)
    assert (place.content(), place.warehouse().history()) == (before, history)


def test_an_interrupt_comes_through_and_changes_nothing(place: Place) -> None:
    place.load("A")
    before = place.content()

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        place.load("B", progress=interrupt)
    assert place.content() == before


# -- ways in, and errors that say what to do --------------------------------------------------------


def test_the_schema_of_the_url_is_made_and_used(new_place: Place) -> None:
    warehouse = new_place.warehouse(new_place.url + "?options=-csearch_path%3Detl")
    assert warehouse.label != new_place.warehouse().label
    assert warehouse.ledger() == {}
    new_place.load("A", warehouse=warehouse)
    assert new_place.run("SELECT count(*) FROM etl.green_trips") == [(500,)]
    assert new_place.run("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace") == [(0,)]
    assert warehouse.counts(GREEN) == {JANUARY: 500}


def test_the_password_may_come_from_a_password_file(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    server = place.server
    file = place.folder / "pgpass"
    file.write_text(f"{server.host}:{server.port}:*:{server.role}:{server.password}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    url = f"postgresql+psycopg2://{server.role}@{server.host}:{server.port}/{place.name}"
    assert place.warehouse(url).ledger() == {}
    monkeypatch.delenv("PGPASSFILE")
    monkeypatch.setenv("PGPASSWORD", server.password)
    assert place.warehouse(url).ledger() == {}


@pytest.mark.parametrize(
    "url, error, text",
    [
        ("etl:{wrong}@{place}", WarehouseError, "password authentication failed.*PGPASSWORD"),
        ("nobody_here:{wrong}@{place}", WarehouseError, "check user and password"),
        ("etl:{right}@{server}/missing", WarehouseError, 'database "missing" does not exist; .*doctor --create'),
        ("etl:{right}@{place}?schema=etl", WarehouseError, "correct the part after"),
        ("etl:{wrong}@127.0.0.1:1/trips", WarehouseUnavailable, "check that the server runs"),
    ],
    ids=["password", "role", "database", "option", "port"],
)
def test_a_refused_connection_says_what_to_do_and_no_password(
    place: Place, url: str, error: type[PipelineError], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "planted-secret"
    server = f"{place.server.host}:{place.server.port}"
    rest = url.format(wrong=secret, right=place.server.password, server=server, place=f"{server}/{place.name}")
    url = f"postgresql+psycopg2://{rest}"
    warehouse = place.warehouse(url)
    with caplog.at_level(logging.DEBUG), pytest.raises(error, match=text) as caught:
        warehouse.ledger()
    checks = list(warehouse.check())
    assert not checks[-1].ok and checks[-1].remedy
    shown = f"{''.join(traceback.format_exception(caught.value))} {warehouse.label} {checks} {caplog.text}"
    assert "\n" not in str(caught.value)
    assert secret not in shown and place.server.password not in shown


def test_a_role_that_may_not_create_tables_is_told_which_grant_it_needs(place: Place) -> None:
    place.run("ALTER SCHEMA public OWNER TO postgres; REVOKE ALL ON SCHEMA public FROM PUBLIC", admin=True)
    place.run("GRANT USAGE ON SCHEMA public TO PUBLIC", admin=True)
    with pytest.raises(WarehouseError, match="permission denied for schema public; grant the role CREATE"):
        place.load("A")
    checks = {check.subject.removeprefix(place.warehouse().label).strip(): check for check in place.warehouse().check()}
    assert checks[""].ok and checks["connections"].ok
    assert not checks["schema public"].ok and "CREATE" in checks["schema public"].remedy


def test_doctor_makes_a_missing_database_and_schema(postgres_server: PostgresServer) -> None:  # noqa: F811
    url = postgres_server.url("made_by_doctor") + "?options=-csearch_path%3Detl"
    warehouse = open_warehouse(url)
    assert [check.ok for check in warehouse.check(create=True)] == [False]  # the role may not create databases
    postgres_server.run(f"ALTER ROLE {postgres_server.role} CREATEDB")
    try:
        assert [check.ok for check in warehouse.check(create=True)] == [True] * 3
        assert postgres_server.run("SELECT 1 FROM pg_namespace WHERE nspname = 'etl'", "made_by_doctor") == [(1,)]
    finally:
        postgres_server.run(f"ALTER ROLE {postgres_server.role} NOCREATEDB")
        postgres_server.run("DROP DATABASE IF EXISTS made_by_doctor")

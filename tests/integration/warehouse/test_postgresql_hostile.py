"""PostgreSQL with an owner's triggers, policies, columns and settings, and servers that stop answering."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from urllib.parse import quote

import psycopg2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import remote
from pipeline.errors import WarehouseBusy, WarehouseError, WarehouseUnavailable
from pipeline.warehouse import Warehouse
from pipeline.warehouse.postgresql import connection as postgresql_connection
from pipeline.warehouse.postgresql import copy as postgresql_copy
from pipeline.warehouse.postgresql import load as postgresql_load
from pipeline.warehouse.postgresql import session as postgresql_session
from pipeline.warehouse.postgresql import warehouse as postgresql
from tests.contract.loads import GREEN, ZONES, LocalFile, ledger_row
from tests.patience import PATIENCE, wait_for
from tests.servers.postgres import postgres_server

from .test_postgresql import FEBRUARY, JANUARY, Place, locked_table, new_place, place

__all__ = ["new_place", "place", "postgres_server"]


def state(place: Place) -> tuple[object, object]:
    return place.content(), place.warehouse().history()


# -- what the owner adds to our tables -------------------------------------------------------------


NOTHING = "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;"


def test_what_would_change_or_skip_rows_is_refused_by_name(place: Place) -> None:
    place.load("A")
    before = state(place)
    place.run(NOTHING)
    each_row = "FOR EACH ROW EXECUTE FUNCTION mine()"
    always = "ALTER TABLE green_trips_2021_01 ENABLE ALWAYS {} t"
    for own, table in (
        (f"TRIGGER t BEFORE INSERT ON green_trips {each_row}", "green_trips"),
        (f"TRIGGER t BEFORE INSERT ON green_trips_2021_01 {each_row}", "green_trips_2021_01"),
        (f"TRIGGER t BEFORE DELETE ON green_trips_2021_01 {each_row}", "green_trips_2021_01"),
        ("TRIGGER t AFTER INSERT ON green_trips EXECUTE FUNCTION mine()", "green_trips"),
        (
            f"TRIGGER t BEFORE INSERT ON green_trips_2021_01 {each_row}; {always.format('TRIGGER')}",
            "green_trips_2021_01",
        ),
        ("RULE t AS ON INSERT TO green_trips_2021_01 DO INSTEAD NOTHING", "green_trips_2021_01"),
        (f"RULE t AS ON INSERT TO green_trips_2021_01 DO NOTHING; {always.format('RULE')}", "green_trips_2021_01"),
        ("RULE t AS ON DELETE TO green_trips_2021_01 DO INSTEAD NOTHING", "green_trips_2021_01"),
    ):
        place.run(f"CREATE {own}")
        kind = own.split()[0]
        with pytest.raises(
            WarehouseError, match=rf"green_trips\S* has the {kind.lower()} t of your own.*; drop or disable"
        ):
            place.load("B")
        place.run(f"DROP {kind} t ON {table}")
    assert state(place) == before
    assert place.leftovers() == []


def test_a_trigger_that_is_off_or_of_other_events_is_harmless(place: Place) -> None:
    place.load("A")
    place.run(
        f"{NOTHING} CREATE TRIGGER off BEFORE INSERT ON green_trips_2021_01 FOR EACH ROW EXECUTE FUNCTION mine();"
        "ALTER TABLE green_trips_2021_01 DISABLE TRIGGER off;"
        "CREATE TRIGGER other BEFORE UPDATE ON green_trips FOR EACH ROW EXECUTE FUNCTION mine()"
    )
    place.load("B", rows=300)
    assert place.warehouse().counts(GREEN) == {JANUARY: 300}


def test_rows_that_do_not_arrive_are_missed_whatever_keeps_them_away(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load("A")
    before = state(place)
    honest = postgresql_load.copy
    with monkeypatch.context() as patch:
        patch.setattr(postgresql_load, "copy", lambda *args: honest(*args) - 1)
        for month in (JANUARY, FEBRUARY):
            with pytest.raises(WarehouseError, match="499 rows of 500 arrived; load the month again"):
                place.load("B", month)
    each_row = "FOR EACH ROW EXECUTE FUNCTION mine()"
    place.run(f"{NOTHING} CREATE TRIGGER t BEFORE INSERT ON green_trips_2021_01 {each_row}")
    monkeypatch.setattr(postgresql_session.Session, "rules_on", lambda session, tables: [])
    with pytest.raises(WarehouseError, match=r"\b0 rows of 500 arrived; load the month again"):
        place.load("B")
    assert state(place) == before
    assert place.leftovers() == []


def test_a_ledger_that_does_not_keep_what_it_is_given_is_an_error(place: Place) -> None:
    place.load("A")
    before = state(place)
    place.run(
        f"{NOTHING} CREATE FUNCTION other() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.row_count = 7; RETURN NEW; END $$"
    )
    for own in (
        "TRIGGER t BEFORE INSERT ON etl_loads FOR EACH ROW EXECUTE FUNCTION mine()",
        "TRIGGER t BEFORE INSERT ON etl_loads FOR EACH ROW EXECUTE FUNCTION other()",
        "RULE t AS ON INSERT TO etl_loads DO INSTEAD NOTHING",
    ):
        place.run(f"CREATE {own}")
        for month in (JANUARY, FEBRUARY):
            with pytest.raises(WarehouseError, match="in place of the one that was put there; drop the triggers and"):
                place.load("B", month)
        with pytest.raises(WarehouseError, match=r"^postgresql@\S+: etl_loads has .* in place of the one"):
            place.warehouse().append(ledger_row("A", JANUARY, 500))
        place.run(f"DROP {own.split()[0]} t ON etl_loads")
    assert state(place) == before


def test_a_trigger_on_the_ledger_sees_every_load(place: Place) -> None:
    place.load("A")
    place.run(
        "CREATE TABLE seen (month date); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.seen VALUES (NEW.file_month); RETURN NULL; END $$;"
        "CREATE TRIGGER tell AFTER INSERT ON etl_loads FOR EACH ROW EXECUTE FUNCTION tell()"
    )
    place.load("A", FEBRUARY)
    place.load("B")
    assert place.run("SELECT month FROM seen") == [(FEBRUARY,), (JANUARY,)]


@pytest.mark.parametrize("rls", ["ENABLE", "FORCE"])
def test_rows_that_a_policy_would_hide_are_an_error_and_not_missing(place: Place, rls: str) -> None:
    place.load("A")
    table = "green_trips_2021_01" if rls == "FORCE" else "etl_loads"
    place.run(
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; ALTER TABLE {table} FORCE ROW LEVEL SECURITY;"
        f"CREATE POLICY p ON {table} USING (false)"
    )
    with pytest.raises(WarehouseError, match=r"row-level security policy.*; drop the policy"):
        place.load("B")


def test_values_that_the_owner_adds_are_the_same_in_new_and_in_replaced_months(place: Place) -> None:
    place.load("A", JANUARY, rows=300)
    place.run(
        "CREATE SEQUENCE numbers;"
        "ALTER TABLE green_trips ADD COLUMN note text NOT NULL DEFAULT 'mine' CHECK (note <> ''),"
        " ADD COLUMN number bigint DEFAULT nextval('numbers'), ADD COLUMN kind text COLLATE \"C\" DEFAULT 'k',"
        " ADD COLUMN tip_share double precision GENERATED ALWAYS AS (tip_amount / 2) STORED,"
        " ADD CONSTRAINT sound CHECK (fare_amount > -1e9) NOT VALID;"
        "ALTER TABLE green_trips ALTER COLUMN congestion_surcharge SET DEFAULT 7"
    )
    place.load("B", JANUARY, rows=200)
    place.load("A", FEBRUARY, rows=100)
    assert place.run(
        "SELECT file_month, count(*), min(note), max(note), count(DISTINCT number), min(kind), "
        "count(*) FILTER (WHERE tip_share = tip_amount / 2) FROM green_trips GROUP BY 1 ORDER BY 1"
    ) == [(JANUARY, 200, "mine", "mine", 200, "k", 200), (FEBRUARY, 100, "mine", "mine", 100, "k", 100)]
    place.load("B", FEBRUARY, rows=50)
    assert place.warehouse().counts(GREEN) == {JANUARY: 200, FEBRUARY: 50}


def test_a_default_of_a_column_of_ours_fills_nothing(place: Place) -> None:
    """What a file does not have is null, in a new month and in a replaced one."""
    place.load("A", JANUARY)
    place.run("ALTER TABLE green_trips ALTER COLUMN congestion_surcharge SET DEFAULT 7")
    for month in (JANUARY, FEBRUARY):
        table = pq.read_table(place.file("C", month).path).drop_columns(["congestion_surcharge"])
        pq.write_table(table, place.folder / f"without_{month}.parquet")
        file = LocalFile(place.folder / f"without_{month}.parquet")
        place.warehouse().load(GREEN, file, ledger_row("C", month, 500))
    assert place.run("SELECT count(*), count(congestion_surcharge) FROM green_trips") == [(1000, 0)]


@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
@pytest.mark.parametrize(
    "own, text",
    [
        (
            "ADD CONSTRAINT cheap CHECK (fare_amount < 70) NOT VALID",
            '"cheap".*; drop the constraint, or reject such rows',
        ),
        ("ALTER COLUMN store_and_fwd_flag SET NOT NULL", "store_and_fwd_flag.*give the column a DEFAULT, or drop"),
        ("ADD CONSTRAINT one UNIQUE (file_month, trip_type)", "drop the unique index or constraint"),
        (
            "DROP COLUMN tip_amount CASCADE, ADD COLUMN tip_amount float8 GENERATED ALWAYS AS (fare_amount) STORED",
            "column tip_amount is a generated column, which takes no values of a file; make it a plain one",
        ),
    ],
    ids=["check", "not null", "unique", "generated"],
)
def test_rules_that_published_rows_break_are_one_line(place: Place, own: str, text: str, month: object) -> None:
    place.load("A")
    if "SET NOT NULL" in own:
        place.run("UPDATE green_trips SET store_and_fwd_flag = 'N'")
    if "UNIQUE" in own:
        place.run("DELETE FROM green_trips WHERE trip_type > 0")
    place.run(f"ALTER TABLE green_trips {own}")
    before = state(place)
    if "UNIQUE" in own:
        place.load("A0", month, rows=10)  # rows that differ are welcome
        before = state(place)
        table = pq.read_table(place.file("B", month, rows=10).path)  # type: ignore[arg-type]
        pq.write_table(pa.concat_tables([table, table]), place.folder / "twice.parquet")
        with pytest.raises(WarehouseError, match=text) as caught:
            row = ledger_row("B", month, 20)  # type: ignore[arg-type]
            place.warehouse().load(GREEN, LocalFile(place.folder / "twice.parquet"), row)
    else:
        with pytest.raises(WarehouseError, match=text) as caught:
            place.load("B", month)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert state(place) == before
    assert place.leftovers() == []


def test_an_identity_column_which_a_new_month_could_not_fill_is_refused(place: Place) -> None:
    place.warehouse().append(ledger_row("A", JANUARY, 500))
    place.run("ALTER TABLE green_trips ADD COLUMN number bigint GENERATED ALWAYS AS IDENTITY")
    with pytest.raises(WarehouseError, match=r"column number of your own is an identity column.*of a sequence"):
        place.load("B")


def test_foreign_keys_to_the_zones(place: Place) -> None:
    """Emptying and filling the table again neither deletes rows of others nor needs their consent."""
    place.load("A", None, rows=20, dataset=ZONES)
    place.run('ALTER TABLE taxi_zones ADD UNIQUE ("LocationID"); CREATE TABLE favourites (zone bigint)')
    key = 'ALTER TABLE favourites ADD CONSTRAINT f FOREIGN KEY (zone) REFERENCES taxi_zones ("LocationID")'
    place.run("INSERT INTO favourites VALUES (3)")
    for action in ("CASCADE", "SET NULL", "SET DEFAULT"):
        place.run(f"{key} ON DELETE {action} DEFERRABLE INITIALLY DEFERRED")
        with pytest.raises(WarehouseError, match="favourites has the foreign key f of your own"):
            place.load("B", None, rows=20, dataset=ZONES)
        place.run("ALTER TABLE favourites DROP CONSTRAINT f")
    place.run(key)
    with pytest.raises(WarehouseError, match="make the foreign key DEFERRABLE INITIALLY DEFERRED"):
        place.load("B", None, rows=20, dataset=ZONES)
    place.run(f"ALTER TABLE favourites DROP CONSTRAINT f; {key} DEFERRABLE INITIALLY DEFERRED")
    place.load("B", None, rows=20, dataset=ZONES)
    with pytest.raises(WarehouseError, match="make the foreign key DEFERRABLE"):  # and the commit is checked too
        place.load("C", None, rows=2, dataset=ZONES)
    assert place.run("SELECT count(*), (SELECT count(*) FROM taxi_zones) FROM favourites") == [(1, 20)]


@pytest.mark.parametrize(
    "own, text",
    [
        ("CREATE TABLE etl_loads (a int)", "a table of that name with other columns is in the way; rename it"),
        ("CREATE VIEW etl_loads AS SELECT 1 AS a", "other columns is in the way|is not a plain table; rename it"),
        ("CREATE TABLE taxi_zones (a int) PARTITION BY LIST (a)", "taxi_zones exists and is not a plain table"),
        ("CREATE TABLE green_trips (a int)", "green_trips exists and is not a table partitioned"),
        ("CREATE VIEW green_trips AS SELECT 1 AS a", "green_trips exists and is not a table partitioned"),
        ("CREATE TABLE green_trips_2021_01 (a int)", "a table of that name is in the way; rename it"),
        ("CREATE TYPE green_trips AS (a int)", "green_trips exists and is not a table partitioned"),
        ("CREATE DOMAIN taxi_zones AS int", "already exists.*; a type of that name is in the way; rename it"),
    ],
)
def test_other_things_under_our_names_are_one_line(new_place: Place, own: str, text: str) -> None:
    new_place.run(own)
    with pytest.raises(WarehouseError, match=text) as caught:
        new_place.warehouse().ledger()
        new_place.load("A")
    assert "\n" not in str(caught.value)


def test_a_ledger_of_other_types_is_one_line_for_who_asks(place: Place) -> None:
    place.load("A")
    place.run("DROP VIEW etl_current; ALTER TABLE etl_loads ALTER COLUMN loaded_at TYPE text")
    for ask in (place.warehouse().ledger, place.warehouse().history, lambda: place.load("B")):
        with pytest.raises(WarehouseError, match="etl_loads: column loaded_at is"):
            ask()


def test_a_load_at_the_end_of_time_is_one_line(place: Place) -> None:
    place.load("A")
    place.run("UPDATE etl_loads SET loaded_at = 'infinity'")
    with pytest.raises(WarehouseError, match="its loaded_at is the last moment there is; correct that row"):
        place.load("B")


@pytest.mark.parametrize("schema", ["a%b;%s", """My "own" schema's, 1""", "ü" * 40])
def test_names_of_schemas_with_anything_in_them(new_place: Place, schema: str) -> None:
    """As libpq takes them: in quotes, with a backslash before a blank."""
    name = schema.replace('"', '""').replace("\\", "\\\\").replace(" ", "\\ ")
    options = quote(f'-csearch_path="{name}"')
    warehouse = new_place.warehouse(f"{new_place.url}?options={options}")
    new_place.load("A", warehouse=warehouse)
    new_place.load("B", warehouse=warehouse)
    new_place.load("A", None, rows=10, dataset=ZONES, warehouse=warehouse)
    assert warehouse.counts(GREEN) == {JANUARY: 500}
    assert [row.sha256 for row in warehouse.history()] == ["A", "B", "A"]
    found = new_place.run("SELECT DISTINCT relnamespace::regnamespace::oid FROM pg_class WHERE relname = 'etl_loads'")
    assert len(found) == 1
    ((stored,),) = new_place.run(f"SELECT nspname FROM pg_namespace WHERE oid = {found[0][0]}")
    assert schema.startswith(stored) and stored
    assert all(check.ok for check in warehouse.check())


@pytest.mark.parametrize(
    "own, text",
    [
        ("CREATE TABLE rest PARTITION OF green_trips DEFAULT; INSERT INTO rest (file_month) VALUES ('2021-02-01')",
         "move the rows of that month out of the default partition"),
        ("CREATE TABLE mine PARTITION OF green_trips FOR VALUES IN ('2021-02-01', '2021-03-01')",
         "detach or drop the partition that holds several months"),
        ("CREATE TABLE green_trips_2021_02 (a int)", "a table of that name is in the way; rename it"),
    ],
)  # fmt: skip
def test_partitions_in_the_way_of_a_month_are_one_line(place: Place, own: str, text: str) -> None:
    place.load("A")
    place.run(own)
    before = state(place)
    with pytest.raises(WarehouseError, match=text):
        place.load("A", FEBRUARY)
    assert state(place) == before


# -- what the owner sets for our sessions ----------------------------------------------------------


SEEN = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "row_security",
    "search_path",
    "client_encoding",
    "standard_conforming_strings",
    "transaction_isolation",
    "tcp_keepalives_idle",
    "tcp_keepalives_interval",
    "tcp_keepalives_count",
    "tcp_user_timeout",
    "client_connection_check_interval",  # of newer servers only
)


@pytest.mark.parametrize("where", ["role", "environment", "url"])
def test_the_settings_of_a_session_are_ours_whatever_others_say(
    place: Place, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load("A")
    place.run(
        "CREATE TABLE seen (name text, value text); CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN INSERT INTO public.seen SELECT name, current_setting(name) FROM pg_settings "
        f"WHERE name IN ({', '.join(map(repr, SEEN))}); RETURN NULL; END $$;"
        "CREATE TRIGGER tell AFTER INSERT ON etl_loads EXECUTE FUNCTION tell()"
    )
    theirs = {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "row_security": "on",
        "client_encoding": "LATIN1",
        "standard_conforming_strings": "off",
        "default_transaction_isolation": "serializable",
        "tcp_keepalives_idle": "7000",
        "tcp_user_timeout": "0",
        "DateStyle": "German",
    }
    url = place.url
    options = " ".join(f"-c {name}={value}" for name, value in theirs.items())
    if where == "role":
        for name, value in theirs.items():
            place.run(f"ALTER ROLE etl IN DATABASE {place.name} SET {name} = '{value}'", admin=True)
    elif where == "environment":
        monkeypatch.setenv("PGOPTIONS", options)
    else:
        url += "?options=" + options.replace(" ", "%20").replace("=", "%3D")
    place.load("B", warehouse=place.warehouse(url, lock_timeout=50, statement_timeout=200))
    seen = dict(place.run("SELECT name, value FROM seen"))
    assert int(re.sub(r"\D", "", seen.pop("statement_timeout"))) >= 200
    assert seen.pop("client_connection_check_interval", "5s") == "5s"
    assert seen == {
        "lock_timeout": "50s",
        "idle_in_transaction_session_timeout": "200s",
        "row_security": "off",
        "search_path": "pg_catalog, pg_temp",
        "client_encoding": "UTF8",
        "standard_conforming_strings": "on",
        "transaction_isolation": "read committed",
        "tcp_keepalives_idle": "60",
        "tcp_keepalives_interval": "10",
        "tcp_keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }


def test_functions_and_operators_of_others_are_not_called(place: Place) -> None:
    """As anybody may put there who can create something in a schema of the search_path."""
    place.load("A")
    trap = "LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$"
    place.run(
        f"CREATE SCHEMA evil; CREATE FUNCTION evil.trap(name, text) RETURNS boolean {trap};"
        f"CREATE OPERATOR evil.= (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.trap);"
        f"CREATE FUNCTION evil.obj_description(oid, text) RETURNS text {trap};"
        f"CREATE FUNCTION evil.set_config(text, text, boolean) RETURNS text {trap};"
        f"CREATE FUNCTION evil.current_schema() RETURNS name {trap};"
        f"CREATE FUNCTION evil.count(bigint) RETURNS bigint {trap};"
        f"CREATE FUNCTION evil.to_regnamespace(text) RETURNS regnamespace {trap};"
        f"CREATE FUNCTION evil.format_type(oid, integer) RETURNS text {trap};"
    )
    place.run(f"ALTER ROLE etl IN DATABASE {place.name} SET search_path = public, evil, pg_catalog", admin=True)
    warehouse = place.warehouse()
    place.load("B", warehouse=warehouse)
    place.load("A", FEBRUARY, warehouse=warehouse)
    assert warehouse.counts(GREEN) == {JANUARY: 500, FEBRUARY: 500}
    assert all(check.ok for check in warehouse.check())


def test_an_event_trigger_that_refuses_is_one_line(place: Place) -> None:
    place.load("A")
    before = state(place)
    place.run(
        "CREATE FUNCTION no() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'frozen\nzone'; END $$;"
        "CREATE EVENT TRIGGER no ON ddl_command_end EXECUTE FUNCTION no()",
        admin=True,
    )
    with pytest.raises(WarehouseError, match="frozen zone") as caught:
        place.load("A", FEBRUARY)
    assert "\n" not in str(caught.value)
    place.run("DROP EVENT TRIGGER no", admin=True)
    assert state(place) == before


# -- what takes too long ---------------------------------------------------------------------------


READERS: list[Callable[[Warehouse], object]] = [
    lambda it: it.ledger(),
    lambda it: it.history(),
    lambda it: it.counts(GREEN),
    lambda it: it.texts(GREEN),
]


def test_a_locked_table_is_waited_for_up_to_the_limit_by_who_asks(place: Place) -> None:
    place.load("A")
    with locked_table(place, "etl_loads, green_trips") as pid:
        for ask in READERS:
            with pytest.raises(WarehouseBusy, match=f"is held by pid {pid}"):
                ask(place.warehouse(lock_timeout=0.2))


@pytest.mark.parametrize("use", ["ask", "load"])
def test_ctrl_c_comes_through_while_a_lock_is_waited_for(place: Place, use: str) -> None:
    place.load("A")
    before = state(place)
    file = place.file("B")

    def interrupt() -> None:
        wait_for(lambda: place.run("SELECT 1 FROM pg_locks WHERE NOT granted"))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    with locked_table(place, "etl_loads"):
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            if use == "ask":
                place.warehouse().ledger()
            else:
                place.warehouse().load(GREEN, file, ledger_row("B", JANUARY, 500))
        thread.join()
    place.wait_for_silence()
    assert state(place) == before
    assert place.leftovers() == []


def test_a_statement_that_takes_too_long_is_ended_by_the_server(place: Place) -> None:
    place.load("A")
    place.run(
        "ALTER TABLE etl_loads RENAME TO loads;CREATE VIEW etl_loads AS SELECT * FROM loads WHERE pg_sleep(600) IS NULL"
    )
    with pytest.raises(WarehouseUnavailable, match=r"statement timeout; .*raise \[warehouse\] statement_timeout"):
        place.warehouse(lock_timeout=0, statement_timeout=0.5).ledger()


def patience(session: postgresql_session.Session) -> float:
    """Seconds after which we give up a statement that the server has not ended by itself."""
    with session.statement() as statement:
        return statement.limit


def test_whoever_waits_is_answered_sooner(place: Place) -> None:
    place.load("A")
    warehouse = place.warehouse(lock_timeout=60, statement_timeout=300)
    assert isinstance(warehouse, postgresql.PostgreSQL)
    with remote.interactive(), warehouse.server.session() as session:
        assert session.run("SHOW lock_timeout") == [("15s",)]
        assert session.run("SHOW statement_timeout") == [("17s",)]
        with session.transaction(rows=10_000):  # to count a table takes as long as it takes, if the server is there
            assert session.run("SHOW statement_timeout") == [("302s",)]
            assert patience(session) == 304
        assert session.run("SHOW statement_timeout") == [("17s",)] and patience(session) == 19
        assert session.rows_of(GREEN.table) >= 500
        session.call(session.connection.commit)
        session.begin_alone(10_000)
        assert session.run("SHOW statement_timeout") == [("302s",)] and patience(session) == 304
        assert session.run("SHOW lock_timeout") == [("15s",)]
    with remote.planning(), warehouse.server.session() as session:
        assert session.run("SHOW statement_timeout") == [("62s",)]


def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


class Impatience:
    """Makes statements of a warehouse be given up at once, from a moment on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.began = threading.Event()
        monkeypatch.setattr(postgresql_connection, "SAID_AFTER", 0.05)
        # 0.1 until it begins: the watch looks again soon, and gives nothing up.
        monkeypatch.setattr(postgresql_session.Statement, "left", lambda statement: -1 if self.began.is_set() else 0.1)


@pytest.mark.parametrize("month", [JANUARY, FEBRUARY], ids=["replaced", "new"])
def test_a_server_process_that_stops_in_the_middle_of_a_copy(
    place: Place, month: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql_copy, "BATCH_ROWS", 1000)
    place.load("A", JANUARY)
    before = state(place)
    impatience = Impatience(monkeypatch)
    with contextlib.ExitStack() as stack:

        def stop(done: int, total: int) -> None:
            if not impatience.began.is_set():
                (pid,) = place.run("SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY%'", admin=True)[0]
                stack.enter_context(contextlib.contextmanager(frozen)(pid))
                impatience.began.set()

        with pytest.raises(WarehouseUnavailable, match=r"no answer within .* check that the server runs"):
            place.load("B", month, rows=5000, progress=stop)  # type: ignore[arg-type]
    impatience.began.clear()
    place.wait_for_silence()
    assert state(place) == before
    assert place.leftovers() == []


def test_a_copy_may_take_as_long_as_it_takes_while_it_goes_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit counts from the last piece that the server has taken."""
    taken: list[float] = []
    goes_on = postgresql_session.Statement.goes_on

    def note(statement: postgresql_session.Statement) -> None:
        goes_on(statement)
        taken.append(statement.heard)

    monkeypatch.setattr(postgresql_session.Statement, "goes_on", note)
    monkeypatch.setattr(postgresql_copy, "BATCH_ROWS", 8192)
    so_far: list[int] = []
    place.load("A", rows=40_000, progress=lambda done, total: so_far.append(len(taken)))
    assert len(set(so_far)) > 2 and taken == sorted(taken)


def test_a_server_process_that_stops_before_the_commit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it was done nobody knows then; the same call again makes it good."""
    place.load("A", JANUARY)
    impatience = Impatience(monkeypatch)
    warehouse = place.warehouse()
    assert isinstance(warehouse, postgresql.PostgreSQL)
    with warehouse.server.session() as session:
        with pytest.raises(WarehouseUnavailable, match="no answer within"), session.transaction():
            session.run("CREATE TABLE public.half (a int)")
            with contextlib.ExitStack() as stack:
                stack.enter_context(contextlib.contextmanager(frozen)(session.connection.info.backend_pid))
                impatience.began.set()
                session.run("SELECT 1")
        impatience.began.clear()
    place.wait_for_silence()
    assert place.leftovers() == []


@contextlib.contextmanager
def gone() -> Iterator[str]:
    """An address that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


def test_an_address_that_never_answers_is_one_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with gone() as address, remote.interactive(1.0):
        for more in ("", "?connect_timeout=0"):
            warehouse = place.warehouse(f"postgresql+psycopg2://etl:pw@{address}/trips{more}")
            with pytest.raises(WarehouseUnavailable, match="check that the server runs and may be reached"):
                warehouse.ledger()
            (check,) = warehouse.check()
            assert not check.ok and check.remedy


def test_who_asks_in_vain_for_the_blockers_gives_up_the_statement(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server from which nothing is heard on new connections either has stopped as a whole."""
    place.load("A")
    monkeypatch.setattr(postgresql_connection, "SAID_AFTER", 0.05)
    warehouse = place.warehouse(statement_timeout=PATIENCE)
    assert isinstance(warehouse, postgresql.PostgreSQL)
    with warehouse.server.session() as session:

        def timeout(url: object) -> None:
            raise psycopg2.OperationalError("timeout expired")

        monkeypatch.setattr(postgresql_connection, "SILENCE", 0.1)
        monkeypatch.setattr(warehouse.server, "_open", timeout)
        with pytest.raises(WarehouseUnavailable, match="no answer within"):
            session.run(f"SELECT pg_sleep({PATIENCE})")
    wait_for(
        lambda: (
            not place.run("SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep%' AND pid <> pg_backend_pid()")
        )
    )

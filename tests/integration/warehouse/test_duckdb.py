"""What is DuckDB's own: the file and who holds it, links, damage, a full disk, what its owner adds to our tables.

The promises of every warehouse are in tests/contract.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import DATASETS
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import UsageError, WarehouseBusy, WarehouseError
from pipeline.warehouse import LedgerRow, Options, open_warehouse
from pipeline.warehouse.duckdb.warehouse import DuckDB
from tests.patience import PATIENCE, wait_for

APRIL, MAY, JUNE = (dt.date(2020, month, 1) for month in (4, 5, 6))

TOY = Dataset(
    name="toy",
    title="Toy trips",
    table="toy_trips",
    first_month=APRIL,
    columns=(Column("VendorID", "int64", "Who made the toy's record"), Column("fare", "float64", "Fare", unit="USD")),
)


class Local:
    """A Parquet file as the lake hands it over."""

    generation: str | None = None
    location: str | None = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = path.as_uri()

    @contextlib.contextmanager
    def local(self) -> Iterator[Path]:
        yield self.path


def toy_file(path: Path, month: dt.date, fares: list[float], **more: pa.Array) -> Local:
    columns = {
        "VendorID": pa.array(range(len(fares)), pa.int64()),
        "fare": pa.array(fares, pa.float64()),
        "file_month": pa.array([month] * len(fares), pa.date32()),
    }
    pq.write_table(pa.table(columns | more), path)
    return Local(path)


def ledger_row(dataset: str, month: dt.date | None, rows: int, sha256: str = "a", **more: object) -> LedgerRow:
    row = LedgerRow(
        dataset=dataset,
        file_month=month,
        status="loaded",
        row_count=rows,
        rejected_count=1,
        publisher="tlc",
        sha256=sha256,
        source_url="https://example.com/f",
        source_etag='"e"',
        rules="none",
        schema_version="s",
        parquet_sha256="p",
        is_synthetic=0,
        run_id="r",
    )
    return replace(row, **more)  # type: ignore[arg-type]


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDB:
    opened = open_warehouse(f"duckdb:///{tmp_path}/w.duckdb", Options(lock_timeout=PATIENCE))
    assert isinstance(opened, DuckDB)
    return opened


def load(warehouse: DuckDB, month: dt.date, fares: list[float], sha256: str = "a") -> LedgerRow:
    file = toy_file(warehouse.path.parent / f"{month}.parquet", month, fares)
    return warehouse.load(TOY, file, ledger_row("toy", month, len(fares), sha256))


def query(warehouse: DuckDB, sql: str) -> list[tuple]:
    with contextlib.closing(duckdb.connect(str(warehouse.path), read_only=True)) as connection:
        return connection.execute(sql).fetchall()


def fares(warehouse: DuckDB, month: dt.date) -> list[float]:
    return [row[0] for row in query(warehouse, f"SELECT fare FROM toy_trips WHERE file_month = '{month}' ORDER BY 1")]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """Another Python process that runs ``code``; ``sys.argv[1:]`` are the arguments."""
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True)


def test_the_name_of_a_file_is_no_pattern(warehouse: DuckDB, tmp_path: Path) -> None:
    pq.write_table(pa.table({"other": [1]}), tmp_path / "it1.parquet")  # what the name would match
    warehouse.load(TOY, toy_file(tmp_path / "it[1]*.parquet", APRIL, [1.0]), ledger_row("toy", APRIL, 1))
    assert fares(warehouse, APRIL) == [1.0]


# -- what the user has there -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "own",
    ["TABLE trips(a int)", "VIEW Trips AS SELECT 1 AS a", "TABLE etl_current(a int)"],
)
def test_what_the_user_has_under_the_name_of_a_view_stays(
    own: str, warehouse: DuckDB, caplog: pytest.LogCaptureFixture
) -> None:
    name = own.split()[1].partition("(")[0].lower()
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute(f"CREATE {own}")
    with caplog.at_level(logging.WARNING):
        load(warehouse, APRIL, [1.0])
        load(warehouse, APRIL, [2.0], "b")
    assert caplog.text.count(f"the view {name} is not made, because something else has that name") == 2
    assert fares(warehouse, APRIL) == [2.0]
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        assert [row[0] for row in connection.execute(f"DESCRIBE {name}").fetchall()] == ["a"]
        other = "trips" if name == "etl_current" else "etl_current"
        assert len(connection.execute(f"DESCRIBE {other}").fetchall()) > 10


def test_views_of_an_older_version_without_a_comment_are_renewed(
    warehouse: DuckDB, caplog: pytest.LogCaptureFixture
) -> None:
    load(warehouse, APRIL, [1.0])
    with duckdb.connect(str(warehouse.path)) as connection:
        for name in ("trips", "etl_current"):
            connection.execute(f"COMMENT ON VIEW {name} IS NULL")
    with caplog.at_level(logging.WARNING):
        load(warehouse, APRIL, [2.0], "b")
    assert not caplog.text
    with duckdb.connect(str(warehouse.path), read_only=True) as connection:
        found = connection.execute("SELECT comment FROM duckdb_views() WHERE NOT internal").fetchall()
    assert len(found) == 2 and all(comment for (comment,) in found)


def test_a_view_in_the_place_of_a_table_is_refused_with_a_remedy(warehouse: DuckDB) -> None:
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("CREATE VIEW green_trips AS SELECT 1 AS a")
    with pytest.raises(WarehouseError, match="rename what has the name of one of the pipeline's tables"):
        load(warehouse, APRIL, [1.0])


def test_the_log_of_a_database_that_is_gone_is_named(warehouse: DuckDB) -> None:
    load(warehouse, APRIL, [1.0])
    code = """
        import duckdb, os, signal, sys
        connection = duckdb.connect(sys.argv[1])
        connection.execute("INSERT INTO toy_trips SELECT * FROM toy_trips")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    start(code, warehouse.path).communicate(timeout=PATIENCE)
    log = Path(f"{warehouse.path}.wal")
    assert log.exists()
    saved = warehouse.path.read_bytes()
    warehouse.path.unlink()
    with pytest.raises(WarehouseError, match=r"w\.duckdb\.wal, which holds its last changes.*; put the database back"):
        load(warehouse, APRIL, [2.0], "b")
    with pytest.raises(WarehouseError, match="the database is gone"):  # before a run does a month for it
        warehouse.ledger()
    assert log.exists() and not warehouse.path.exists()
    warehouse.path.write_bytes(saved)
    assert fares(warehouse, APRIL) == [1.0, 1.0]


def test_a_link_is_no_place_for_the_log_of_a_new_database(warehouse: DuckDB, tmp_path: Path) -> None:
    log, elsewhere = Path(f"{warehouse.path}.wal"), tmp_path / "elsewhere"
    log.symlink_to(elsewhere)
    with pytest.raises(WarehouseError, match="the database is gone"):
        load(warehouse, APRIL, [1.0])
    assert not elsewhere.exists()


def test_a_folder_where_a_new_database_is_made_is_named(warehouse: DuckDB) -> None:
    Path(f"{warehouse.path}.new").mkdir()
    with pytest.raises(WarehouseError, match=r"w\.duckdb\.new cannot be made: .*; remove what is in its place"):
        load(warehouse, APRIL, [1.0])


def test_a_place_where_no_file_can_be_made_is_no_lock() -> None:
    with pytest.raises(WarehouseError, match="make the folder /proc writable"):
        DuckDB("duckdb:////proc/x.duckdb", Options(lock_timeout=600)).append(ledger_row("toy", APRIL, 1))


# -- other processes -------------------------------------------------------------------------------

HOLD = """
    import duckdb, sys
    connection = duckdb.connect(sys.argv[1], read_only=sys.argv[2] == "True")
    print("held", flush=True)
    sys.stdin.read()
"""

LOAD = """
    import datetime as dt, sys
    from pathlib import Path
    from tests.integration.warehouse.test_duckdb import TOY, Local, ledger_row
    from pipeline.warehouse import Options, open_warehouse
    folder, month, rows, times, sha = sys.argv[1:]
    warehouse = open_warehouse(f"duckdb:///{folder}/w.duckdb", Options(lock_timeout=600))
    for i in range(int(times)):
        row = ledger_row("toy", dt.date.fromisoformat(month), int(rows), sha)
        print("load", flush=True)
        warehouse.load(TOY, Local(Path(folder) / f"{sha}.parquet"), row, lambda *now: print(now, flush=True))
"""


@contextlib.contextmanager
def held(warehouse: DuckDB, read_only: bool) -> Iterator[subprocess.Popen[str]]:
    """Someone else's process that holds the file until its input is closed."""
    with start(HOLD, warehouse.path, read_only) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("read_only", [False, True])
def test_an_open_shell_is_named_after_a_bounded_wait(read_only: bool, warehouse: DuckDB) -> None:
    load(warehouse, APRIL, [1.0])
    impatient = DuckDB(warehouse.url, Options(lock_timeout=0.5))
    with held(warehouse, read_only) as shell:
        with pytest.raises(WarehouseBusy) as caught:
            load(impatient, APRIL, [2.0], "b")
        text = str(caught.value)
        assert f"(PID {shell.pid})" in text and "python" in text and "\n" not in text and warehouse.label in text
        if read_only:
            assert impatient.counts(TOY) == {APRIL: 1}
        else:
            with pytest.raises(WarehouseBusy, match=f"PID {shell.pid}"):
                impatient.ledger()
    assert fares(warehouse, APRIL) == [1.0]


def test_a_shell_that_closes_in_time_is_waited_for(warehouse: DuckDB, monkeypatch: pytest.MonkeyPatch) -> None:
    load(warehouse, APRIL, [1.0])
    connect, met = warehouse.file._try_to_connect, []
    with held(warehouse, False) as shell:

        def meet(read_only: bool) -> object:
            found = connect(read_only)
            if isinstance(found, str) and not met:
                met.append(found)
                shell.stdin.close()  # type: ignore[union-attr]
            return found

        monkeypatch.setattr(warehouse.file, "_try_to_connect", meet)
        load(warehouse, APRIL, [2.0], "b")
    assert met and fares(warehouse, APRIL) == [2.0]


def test_another_connection_of_this_process_is_named(warehouse: DuckDB) -> None:
    load(warehouse, APRIL, [1.0])
    with contextlib.closing(duckdb.connect(str(warehouse.path))), pytest.raises(WarehouseBusy, match="of this process"):
        DuckDB(warehouse.url, Options(lock_timeout=0.2)).ledger()


def test_who_holds_the_queue_is_named(warehouse: DuckDB) -> None:
    with warehouse.file.open(read_only=False):
        code = """
            import sys
            from pipeline.warehouse import Options, open_warehouse
            try:
                open_warehouse(sys.argv[1], Options(lock_timeout=0.3)).append(None)
            except Exception as error:
                print(type(error).__name__, error)
        """
        output, _ = start(code, warehouse.url).communicate(timeout=PATIENCE)
    assert output.startswith("WarehouseBusy") and f"(PID {os.getpid()}" in output  # and maybe its run


def test_two_processes_and_readers_at_once(warehouse: DuckDB, tmp_path: Path) -> None:
    toy_file(tmp_path / "a.parquet", APRIL, [1.0] * 1000)
    toy_file(tmp_path / "b.parquet", MAY, [2.0] * 500)
    processes = [start(LOAD, tmp_path, APRIL, 1000, 3, "a"), start(LOAD, tmp_path, MAY, 500, 3, "b")]
    partial = []
    while any(process.poll() is None for process in processes):
        for (_, month), row in warehouse.ledger().items():
            count = warehouse.counts(TOY)[month]
            partial += [(month, count)] if count != row.row_count else []
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert partial == []
    assert warehouse.counts(TOY) == {APRIL: 1000, MAY: 500}
    assert len(warehouse.history()) == 6


# -- the file --------------------------------------------------------------------------------------


def test_the_file_stays_bounded_when_partitions_are_replaced_again_and_again(warehouse: DuckDB, tmp_path: Path) -> None:
    chance = random.Random(1)
    files = {m: toy_file(tmp_path / f"{m}.parquet", m, [chance.random() for _ in range(30_000)]) for m in (APRIL, MAY)}
    sizes = []
    for _ in range(8):
        for month, file in files.items():
            warehouse.load(TOY, file, ledger_row("toy", month, 30_000))
        sizes.append(warehouse.path.stat().st_size)
    assert max(sizes) <= 3 * sizes[0], sizes
    assert max(sizes[4:]) <= max(sizes[:4]) * 1.1, sizes


@pytest.mark.parametrize("content", [b"", b"not a database, but a text\n" * 1000])
def test_a_file_that_is_no_database_is_one_line(content: bytes, warehouse: DuckDB) -> None:
    warehouse.path.write_bytes(content)
    for call in (warehouse.ledger, lambda: load(warehouse, APRIL, [1.0])):
        with pytest.raises(WarehouseError, match="not a valid DuckDB database") as caught:
            call()
        assert "\n" not in str(caught.value) and "[warehouse] url" in str(caught.value)
    assert warehouse.path.read_bytes() == content


def test_a_corrupt_database_is_one_line(warehouse: DuckDB) -> None:
    load(warehouse, APRIL, [1.0])
    content = bytearray(warehouse.path.read_bytes())
    content[4096:12288] = random.Random(3).randbytes(8192)
    warehouse.path.write_bytes(content)
    with pytest.raises(WarehouseError, match="Corrupt") as caught:
        warehouse.ledger()
    assert "\n" not in str(caught.value)


def test_a_missing_folder_is_made_by_who_writes_and_not_by_who_asks(tmp_path: Path) -> None:
    warehouse = DuckDB(f"duckdb:///{tmp_path}/brand/new/w.duckdb")
    assert warehouse.ledger() == {} and warehouse.history() == []
    assert all(check.ok for check in warehouse.check())
    assert list(tmp_path.iterdir()) == []
    warehouse.append(ledger_row("toy", APRIL, 1))
    assert len(warehouse.ledger()) == 1


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    warehouse = DuckDB(f"duckdb:///{tmp_path}/file/w.duckdb")
    with pytest.raises(WarehouseError, match=f"{tmp_path}/file writable, or correct the URL"):
        warehouse.append(ledger_row("toy", APRIL, 1))
    assert not all(check.ok for check in warehouse.check())


def test_ctrl_c_while_a_statement_runs_is_no_failure_of_the_warehouse(warehouse: DuckDB) -> None:
    endless = "SELECT sum(hash(a.i * b.i)) FROM range(1_000_000) a(i), range(1_000_000) b(i)"
    main = threading.get_ident()

    def is_in_statement() -> bool:
        frame = sys._current_frames()[main]
        return frame.f_code.co_name == "run_endlessly"

    def interrupt() -> None:
        wait_for(is_in_statement)
        os.kill(os.getpid(), signal.SIGINT)

    def run_endlessly(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(endless).fetchall()

    thread = threading.Thread(target=interrupt)
    with pytest.raises(KeyboardInterrupt), warehouse.file.transaction() as connection:
        connection.execute("SET threads = 1")  # with more, DuckDB looks for signals after a share of the work
        thread.start()
        run_endlessly(connection)
    thread.join()


def test_a_full_disk_is_one_line_and_changes_nothing(warehouse: DuckDB, tmp_path: Path) -> None:
    load(warehouse, APRIL, [1.0])
    chance = random.Random(5)
    toy_file(tmp_path / "big.parquet", APRIL, [chance.random() for _ in range(400_000)])
    code = """
        import datetime as dt, resource, sys
        from pathlib import Path
        from pipeline.warehouse import open_warehouse
        from tests.integration.warehouse.test_duckdb import TOY, Local, ledger_row
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
        try:
            row = ledger_row("toy", dt.date(2020, 4, 1), 400_000, "b")
            open_warehouse(sys.argv[1]).load(TOY, Local(Path(sys.argv[2])), row)
        except Exception as error:
            print(f"{type(error).__name__}: {error}")
    """
    output, errors = start(code, warehouse.url, tmp_path / "big.parquet").communicate(timeout=PATIENCE)
    assert output.startswith("WarehouseError: ") and output.count("\n") == 1 and "make room" in output, output + errors
    assert fares(warehouse, APRIL) == [1.0] and len(warehouse.history()) == 1
    load(warehouse, APRIL, [2.0], "b")
    assert fares(warehouse, APRIL) == [2.0]


# -- doctor ----------------------------------------------------------------------------------------


def test_check_before_after_and_with_create(tmp_path: Path) -> None:
    warehouse = DuckDB(f"duckdb:///{tmp_path}/new/w.duckdb")
    missing = list(warehouse.check())
    assert [check.ok for check in missing] == [True] and "makes it and its folder" in missing[0].detail
    assert not list(tmp_path.iterdir()), "looking makes nothing"
    assert all(check.ok for check in warehouse.check(create=True))
    assert all(check.ok for check in warehouse.check())
    assert set(dict(query(warehouse, "SELECT table_name, 1 FROM duckdb_tables()"))) == {
        "etl_loads",
        *(dataset.table for dataset in DATASETS.values()),
    }


def test_check_says_that_nothing_is_there_yet_and_makes_nothing(warehouse: DuckDB) -> None:
    assert "first load makes it" in next(iter(warehouse.check())).detail
    assert not warehouse.path.exists()


# -- links, and what is no file ---------------------------------------------------------------------


def every_use(warehouse: DuckDB) -> list[Callable[[], object]]:
    return [
        warehouse.ledger,
        warehouse.history,
        warehouse.ensure,
        lambda: warehouse.counts(TOY),
        lambda: warehouse.texts(TOY),
        lambda: warehouse.append(ledger_row("toy", APRIL, 1)),
    ]


def opened(path: Path) -> DuckDB:
    warehouse = open_warehouse(f"duckdb:///{path}", Options(lock_timeout=PATIENCE))
    assert isinstance(warehouse, DuckDB)
    return warehouse


@pytest.mark.parametrize("kind", ["file", "folder", "loop"])
def test_a_link_to_what_is_not_there_is_refused_and_stays(kind: str, tmp_path: Path) -> None:
    """A disk that is not mounted just now: a new database in its place would hide the one that is full."""
    link, disk = tmp_path / "link", tmp_path / "disk"
    link.symlink_to(link if kind == "loop" else disk / "w.duckdb" if kind == "file" else disk)
    warehouse = opened(link / "w.duckdb" if kind == "folder" else link)
    file = toy_file(tmp_path / "april.parquet", APRIL, [1.0])
    for use in (*every_use(warehouse), lambda: warehouse.load(TOY, file, ledger_row("toy", APRIL, 1))):
        with pytest.raises(UsageError, match=r"link is a link to .*, which is not there; mount the disk"):
            use()
    for create in (False, True):
        (check,) = warehouse.check(create)
        assert not check.ok and "which is not there" in check.detail and "mount the disk" in check.remedy
    assert set(tmp_path.iterdir()) == {link, file.path} and link.is_symlink()


@pytest.mark.parametrize("what", ["a link", "a folder"])
def test_what_stands_in_place_of_the_lock_is_named(what: str, tmp_path: Path) -> None:
    place = tmp_path / "w.duckdb.lock"
    if what == "a link":
        place.symlink_to(tmp_path / "another")
    else:
        place.mkdir()
    with pytest.raises(WarehouseError, match=rf"w\.duckdb\.lock is {what}, not the pipeline's file; remove it"):
        opened(tmp_path / "w.duckdb").append(ledger_row("toy", APRIL, 1))
    assert list(tmp_path.iterdir()) == [place], "nothing is made behind the link"


@pytest.mark.parametrize("links", ["file", "folder", "both"])
def test_a_link_is_followed_and_all_lies_beside_the_file(links: str, tmp_path: Path) -> None:
    disk, here = tmp_path / "disk", tmp_path / "here"
    disk.mkdir()
    if links == "file":
        here.mkdir()
    else:
        here.symlink_to(disk, target_is_directory=True)
    load(opened(disk / "real.duckdb"), APRIL, [1.0])
    name = here / ("real.duckdb" if links == "folder" else "w.duckdb")
    if links != "folder":
        name.symlink_to(disk / "real.duckdb")
    linked = opened(name)
    assert linked.counts(TOY) == {APRIL: 1}
    load(linked, MAY, [1.0, 2.0], "b")
    assert opened(disk / "real.duckdb").counts(TOY) == {APRIL: 1, MAY: 2}
    assert links == "folder" or name.is_symlink()
    assert links != "file" or list(here.iterdir()) == [name]
    assert str(name) in linked.label


def test_what_a_killed_shell_did_by_a_link_is_there(tmp_path: Path) -> None:
    """DuckDB itself keeps the log beside the file, not beside the link."""
    (tmp_path / "disk").mkdir()
    real, link = tmp_path / "disk" / "w.duckdb", tmp_path / "w.duckdb"
    load(opened(real), APRIL, [1.0])
    link.symlink_to(real)
    code = """
        import duckdb, os, signal, sys
        duckdb.connect(sys.argv[1]).execute("INSERT INTO toy_trips SELECT * FROM toy_trips")
        os.kill(os.getpid(), signal.SIGKILL)
    """
    start(code, link).communicate(timeout=PATIENCE)
    assert opened(link).counts(TOY) == {APRIL: 2}


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "below a file"])
def test_what_is_no_file_is_one_line_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/null")
    elif kind == "below a file":
        path.write_text("text")
        path /= "w.duckdb"
    warehouse = opened(path)
    for use in (warehouse.ensure, lambda: warehouse.append(ledger_row("toy", APRIL, 1))):
        with pytest.raises((UsageError, WarehouseError)) as caught:
            use()
        assert str(path) in str(caught.value) and "; " in str(caught.value) and "\n" not in str(caught.value)
    if kind != "below a file":
        with pytest.raises(UsageError):
            warehouse.ledger()
    assert not [check.ok for check in warehouse.check() if check.ok and not check.is_warning]


# -- what the owner adds to our tables -------------------------------------------------------------


def own(warehouse: DuckDB, *statements: str) -> None:
    with contextlib.closing(duckdb.connect(str(warehouse.path))) as connection:
        for statement in statements:
            connection.execute(statement)


def test_defaults_and_types_and_functions_of_the_owner_are_harmless(warehouse: DuckDB, tmp_path: Path) -> None:
    load(warehouse, APRIL, [1.0])
    own(
        warehouse,
        "ALTER TABLE toy_trips ADD COLUMN note VARCHAR DEFAULT 'mine'",
        "ALTER TABLE toy_trips ALTER COLUMN fare SET DEFAULT 7",
        "CREATE TYPE green_trips AS ENUM ('a')",
        "CREATE SCHEMA toy_trips",
        "CREATE INDEX mine ON toy_trips (fare)",
        "CREATE MACRO read_parquet(x, hive_partitioning := 1) AS TABLE SELECT 1 AS evil",
        "CREATE MACRO count(x) AS 7",
        "CREATE MACRO coalesce(x, y) AS 'evil'",
    )
    load(warehouse, APRIL, [2.0, 3.0], "b")
    load(warehouse, MAY, [4.0], "b")
    pq.write_table(pa.table({"VendorID": [1], "file_month": pa.array([JUNE])}), tmp_path / "june.parquet")
    warehouse.load(TOY, Local(tmp_path / "june.parquet"), ledger_row("toy", JUNE, 1))
    assert query(warehouse, "SELECT file_month, fare, note FROM main.toy_trips ORDER BY ALL") == [
        (APRIL, 2.0, "mine"),
        (APRIL, 3.0, "mine"),
        (MAY, 4.0, "mine"),
        (JUNE, None, "mine"),
    ]


@pytest.mark.parametrize(
    "rule",
    [
        "CREATE UNIQUE INDEX mine ON toy_trips (fare)",
        "ALTER TABLE toy_trips ALTER COLUMN fare SET NOT NULL",
        "CREATE TABLE copy AS FROM toy_trips; DROP TABLE toy_trips; CREATE TABLE toy_trips("
        '"VendorID" BIGINT, fare DOUBLE CHECK (fare < 5), file_month DATE); INSERT INTO toy_trips FROM copy',
        "CREATE TABLE copy AS FROM toy_trips; DROP TABLE toy_trips; CREATE TABLE toy_trips("
        '"VendorID" BIGINT, file_month DATE, fare DOUBLE GENERATED ALWAYS AS ("VendorID" / 2))',
    ],
    ids=["unique", "not null", "check", "generated"],
)
def test_rules_that_published_rows_break_are_one_line(warehouse: DuckDB, rule: str, tmp_path: Path) -> None:
    load(warehouse, APRIL, [1.0])
    own(warehouse, rule)
    before = query(warehouse, "SELECT * FROM toy_trips"), warehouse.history()
    values = {"VendorID": [1, 2], "fare": [9.0, None if "NULL" in rule else 9.0], "file_month": pa.array([APRIL] * 2)}
    pq.write_table(pa.table(values), tmp_path / "rows.parquet")
    with pytest.raises(WarehouseError, match=r"drop what you added to the table|make it a plain one") as caught:
        warehouse.load(TOY, Local(tmp_path / "rows.parquet"), ledger_row("toy", APRIL, 2, "b"))
    assert "\n" not in str(caught.value)
    assert (query(warehouse, "SELECT * FROM toy_trips"), warehouse.history()) == before

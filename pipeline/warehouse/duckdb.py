"""DuckDB: one file on this machine, which one process at a time may write.

Every method opens the file, uses it and closes it. DuckDB lets either one writer or several readers in, across
processes, and refuses everybody else at once instead of queueing them. So our writers queue at a lock file beside
the database first (``<database>.lock``), and whoever meets a stranger there, such as an open shell, tries again with
growing delays. Both waits are one, which ends after ``Options.lock_timeout``.

A load is one transaction, which DuckDB makes atomic against ``kill -9`` by its write-ahead log.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import duckdb

from ..checks import cannot_be_made
from ..datasets import DATASETS
from ..datasets.schema import FILE_MONTH, Column, Dataset
from ..errors import PipelineError, UsageError, WarehouseBusy, WarehouseError
from ..files import PLANTED, lost_link
from ..lock_files import Held, lock_file
from ..partition import Partition
from ..remote import capped
from ..waiting import Wait, gave_up
from . import duckdb_path, label_of
from .base import (
    LEDGER_COLUMNS,
    LEDGER_TABLE,
    Check,
    LedgerRow,
    Options,
    ParquetFile,
    Progress,
    Warehouse,
    no_progress,
)
from .tables import Dialect, ensure_month, literal, missing_columns, next_row, texts_found, texts_query
from .views import COMMENTS, comment, not_made, views

LOGGER = logging.getLogger("pipeline")

TYPES = {"int64": "BIGINT", "float64": "DOUBLE", "string": "VARCHAR", "timestamp": "TIMESTAMP", "date": "DATE"}

#: Seconds between two tries to open the file: the first, and the longest.
_FIRST_DELAY, _LONGEST_DELAY = 0.01, 0.25

#: Seconds between two calls of ``progress``.
_PROGRESS_INTERVAL = 0.5

#: Bytes of free disk below which ``check`` warns: the largest months (24 million rows) take 1.1 GB each, and the space
#: of replaced rows is free only after the load.
_ROOM = 3 * 1024**3


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


DIALECT = Dialect(quote=_quote, table=_quote, types=TYPES)

#: How an SQLite file begins. DuckDB would open it with an extension that it downloads.
_SQLITE = b"SQLite format 3\0"


#: What DuckDB raises, and says, where the file is damaged.
_CORRUPT = (duckdb.InternalException, duckdb.SerializationException, duckdb.FatalException)
_SIGNS_OF_DAMAGE = ("not a valid DuckDB database", "Corrupt", "enough bytes", "deserialize")


class DuckDB(Warehouse):
    """The warehouse in the DuckDB file that the URL names."""

    def __init__(self, url: str, options: Options | None = None) -> None:
        super().__init__(url, options)
        self._named = Path(duckdb_path(url))

    @property
    def path(self) -> Path:
        """The file itself, behind any links: beside it are its log, its lock and what is renamed to it."""
        return Path(os.path.realpath(self._named))

    @property
    def label(self) -> str:
        """The URL with the absolute path."""
        return label_of(self.url)

    @property
    def takes_synthetic(self) -> bool:
        return True

    def ledger(self) -> dict[Partition, LedgerRow]:
        newest: dict[Partition, LedgerRow] = {}
        for row in self.history():
            newest[row.partition] = row
        return newest

    def history(self) -> list[LedgerRow]:
        if not self._exists():
            return []
        with self._open(read_only=True) as connection:
            return _ledger_rows(connection) if _columns(connection, LEDGER_TABLE) else []

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        if not self._exists():
            return {}
        month = _quote(FILE_MONTH.name) if dataset.is_monthly else "CAST(NULL AS DATE)"
        with self._open(read_only=True) as connection:
            if not _columns(connection, dataset.table):
                return {}
            query = f"SELECT {month}, count(*) FROM {_quote(dataset.table)} GROUP BY ALL ORDER BY ALL"
            return dict(connection.execute(query).fetchall())

    def texts(self, dataset: Dataset) -> dict[dt.date | None, dict[str, int]]:
        if not self._exists():
            return {}
        with self._open(read_only=True) as connection:
            there = _columns(connection, dataset.table)
            columns, query = texts_query(DIALECT, dataset, there)
            return texts_found(columns, connection.execute(query).fetchall() if there else [])

    def load(
        self, dataset: Dataset, parquet: ParquetFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        ensure_month(dataset, row)
        self.ensure()
        # The file first: a copy of a remote one may take minutes, in which nobody else should have to wait.
        with parquet.local() as path, self._transaction() as connection:
            self._set_up(connection, dataset)
            stored = _append(connection, row)
            self._replace(connection, dataset, path.absolute(), row, progress)
        return stored

    def append(self, row: LedgerRow) -> LedgerRow:
        self.ensure()
        with self._transaction() as connection:
            self._set_up(connection)
            return _append(connection, row)

    def _exists(self) -> bool:
        """Whether there is a database.

        Raises UsageError for what DuckDB would wait for, take over or misread, WarehouseError for what is left of one.
        """
        try:
            if lost := lost_link(self._named):
                raise UsageError(f"[warehouse] url: {lost}")
            mode = os.stat(self.path).st_mode
            what = "" if stat.S_ISREG(mode) else "a folder" if stat.S_ISDIR(mode) else "no regular file"
            if stat.S_ISREG(mode):
                with suppress(OSError), self.path.open("rb") as file:
                    what = "an SQLite database" if file.read(len(_SQLITE)) == _SQLITE else ""
        except (FileNotFoundError, NotADirectoryError):
            self._refuse_remains()
            return False
        except OSError as error:
            raise UsageError(
                f"[warehouse] url: {self._named}: {error.strerror}; correct the URL, or the permissions of its folders"
            ) from None
        if what:
            raise UsageError(
                f"[warehouse] url: {self._named} is {what}; name a DuckDB file, or one that is not there yet"
            )
        return True

    def _refuse_remains(self) -> None:
        """Raise WarehouseError for the write-ahead log of a database that is gone: a new one would not get its rows."""
        log = f"{self.path}.wal"
        if os.path.lexists(log) and not self.path.exists():  # which another run may have made meanwhile
            raise WarehouseError(
                f"{self.label}: the database is gone, but {log}, which holds its last changes, is there; "
                f"put the database back, or remove that file, then run again"
            )

    def ensure(self) -> None:
        self._exists()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path.parent):
                pass
        except OSError as error:
            why = f"{self.label}: {error.strerror}; make the folder {self.path.parent} writable, or correct the URL"
            raise WarehouseError(why) from None

    def check(self, create: bool = False) -> Iterable[Check]:
        folder = self.path.parent
        try:
            is_there = self._exists()
            if create:
                folder.mkdir(parents=True, exist_ok=True)
                with self._transaction() as connection:
                    self._set_up(connection)
            if is_there or create:
                with self._open(read_only=False) as connection:
                    count = len(connection.execute("SELECT table_name FROM duckdb_tables()").fetchall())
                yield Check(self.label, True, f"DuckDB {duckdb.__version__} can write it; {count} tables")
            elif folder.exists():
                with tempfile.TemporaryFile(dir=folder):
                    yield Check(self.label, True, "not there yet; the first load makes it")
            else:
                if error := cannot_be_made(folder):
                    raise error
                yield Check(self.label, True, "not there yet; the first load makes it and its folder")
                return
            free = shutil.disk_usage(folder).free
            yield Check(
                f"{self.label} disk",
                free >= _ROOM,
                f"{free / 1024**3:.1f} GiB free",
                "" if free >= _ROOM else "make room: the largest months need 3 GiB while they are loaded",
                is_warning=True,
            )
        except PipelineError as error:
            detail, _, remedy = str(error).removeprefix(f"{self.label}: ").partition("; ")
            yield Check(self.label, False, detail, remedy)
        except OSError as error:
            remedy = f"make the folder {folder} and give yourself write permission, or run doctor --create"
            yield Check(self.label, False, error.strerror or str(error), remedy)

    def _set_up(self, connection: duckdb.DuckDBPyConnection, *more: Dataset) -> None:
        """Make what is missing: the tables of all declarations and of ``more``, new columns, comments, views."""
        _set_up_table(connection, LEDGER_TABLE, "Loads of the pipeline, append-only", LEDGER_COLUMNS)
        for dataset in {d.table: d for d in (*DATASETS.values(), *more)}.values():
            _set_up_table(connection, dataset.table, dataset.title, dataset.table_columns)
        found = connection.execute("SELECT lower(view_name), comment FROM duckdb_views() WHERE NOT internal").fetchall()
        comments = dict(found)
        for name, query in views(DIALECT, DATASETS.values()).items():
            text, there = comment(name, query), _columns(connection, name)
            if there and not _is_ours(connection, name, query, there, comments):
                LOGGER.warning("%s", not_made(self.label, name))
            elif comments.get(name) != text:
                connection.execute(f"CREATE OR REPLACE VIEW {_quote(name)} AS {query}")
                connection.execute(f"COMMENT ON VIEW {_quote(name)} IS {literal(text)}")

    # -- opening -------------------------------------------------------------------------------

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction, which is committed at the end and rolled back by any exception."""
        with self._open(read_only=False) as connection:
            connection.begin()
            yield connection
            connection.commit()

    @contextmanager
    def _open(self, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection, closed at the end. What DuckDB raises inside becomes a WarehouseError.

        Raises WarehouseBusy if others hold the file for longer than ``Options.lock_timeout``. Readers share the file,
        so they queue only if a writer is in their way, and do not write a lock file where all is quiet.
        """
        self._exists()
        try:
            with ExitStack() as stack:
                connection = self._try_to_connect(read_only) if read_only else None
                if not isinstance(connection, duckdb.DuckDBPyConnection):
                    with Wait(self.options.lock_timeout, self.label) as wait:
                        self._queue(stack, wait, required=not read_only)
                        connection = self._connect(read_only, wait)
                yield stack.enter_context(closing(connection))
        except duckdb.Error as error:
            raise self._error(error) from error
        except WarehouseError as error:
            raise self.named(error) from error.__cause__
        except RuntimeError as error:
            if str(error) == "Query interrupted":  # what DuckDB makes of Ctrl-C while a statement runs
                raise KeyboardInterrupt from None
            raise

    def _queue(self, stack: ExitStack, wait: Wait, required: bool) -> None:
        """Wait for our turn among the pipeline's own processes; the end of ``stack`` lets the next one in."""
        if not self.path.parent.is_dir():  # which filelock would make, after a misspelt URL too
            raise WarehouseError(f"{self.label}: there is no folder {self.path.parent}; make it, or correct the URL")
        try:
            stack.enter_context(lock_file(Path(f"{self.path}.lock"), wait))
        except Held as error:
            raise self._busy(str(error)) from None
        except OSError as error:
            if error.errno in PLANTED:
                why = f"{self.label}: {self.path}.lock is {PLANTED[error.errno]}, not the pipeline's file; remove it"
                raise WarehouseError(why) from error
            if required:
                raise WarehouseError(
                    f"{self.label}: {error.strerror or error}; make the folder {self.path.parent} writable"
                ) from error

    def _connect(self, read_only: bool, wait: Wait) -> duckdb.DuckDBPyConnection:
        """Open the file, waiting for strangers."""
        delay = _FIRST_DELAY
        while True:
            if not read_only and not self.path.exists():
                self._create()
            found = self._try_to_connect(read_only)
            if isinstance(found, duckdb.DuckDBPyConnection):
                return found
            left = wait.left(found)
            if not left:
                raise self._busy(found)
            time.sleep(min(delay, left))
            delay = min(delay * 1.5, _LONGEST_DELAY)

    def _create(self) -> None:
        """Make an empty database under another name and rename it: a killed process leaves no half of a header."""
        self._refuse_remains()
        name = f"{self.path}.new"
        try:
            Path(name).unlink(missing_ok=True)
            duckdb.connect(name).close()
            os.replace(name, self.path)
        except OSError as error:
            raise WarehouseError(
                f"{self.label}: {name} cannot be made: {error.strerror}; remove what is in its place"
            ) from error

    def _try_to_connect(self, read_only: bool) -> duckdb.DuckDBPyConnection | str:
        """A connection, or the name of who holds the file now. Any other trouble is raised."""
        config: dict[str, str | bool | int | float | list[str]] = {
            "memory_limit": self.options.memory_limit,
            "threads": self.options.threads,
            # Rows have no order in a table. Keeping that of the file would hold back whole batches in memory.
            "preserve_insertion_order": False,
        }
        try:
            return duckdb.connect(str(self.path), read_only=read_only, config=config)
        except duckdb.Error as error:
            holder = _holder(error)
            if holder is None:
                raise
            return holder

    # -- errors --------------------------------------------------------------------------------

    def _busy(self, holder: str) -> WarehouseBusy:
        return WarehouseBusy(
            f"{self.label}: held by {holder} for more than {capped(self.options.lock_timeout):g} s; "
            f"close it there, or wait for it, then run again",
            is_repeated=gave_up(self.label, holder),
        )

    def _error(self, error: duckdb.Error) -> WarehouseError:
        """DuckDB's error as one line with a remedy."""
        text = " ".join(str(error).split("\n\n")[0].split()).rstrip(".!")
        if isinstance(error, duckdb.OutOfMemoryException) and "disk" not in text.lower():
            remedy = f"raise [warehouse] memory_limit, which is {self.options.memory_limit}"
        elif isinstance(error, _CORRUPT) or any(sign in text for sign in _SIGNS_OF_DAMAGE):
            remedy = "name another file in [warehouse] url, or move this one away and load again from the lake"
        elif "version number" in text:
            remedy = f"DuckDB {duckdb.__version__} is older than the file: install a newer one, or name another file"
        elif isinstance(error, duckdb.ConstraintException | duckdb.DependencyException):
            remedy = "drop what you added to the table (a constraint, an index, a view), then run again"
        elif "generated column" in text:
            remedy = "the pipeline fills the columns that it declares: make it a plain one"
        elif "replaying WAL" in text:
            remedy = f"{self.path}.wal belongs to another database: put that one back, or remove the file"
        elif isinstance(error, duckdb.CatalogException):
            remedy = "rename what has the name of one of the pipeline's tables, or name another file in [warehouse] url"
        elif "No space left" in text or "File too large" in text or "Could not write" in text:
            remedy = "make room on its disk; nothing was changed, so run again afterwards"
        else:
            remedy = "look at the place and permissions of the file; nothing was changed"
        return WarehouseError(f"{self.label}: {text}; {remedy}")

    # -- loading -------------------------------------------------------------------------------

    def _replace(
        self, connection: duckdb.DuckDBPyConnection, dataset: Dataset, path: Path, row: LedgerRow, progress: Progress
    ) -> None:
        """Put the file's rows in the place of the partition; raises WarehouseError if they are not exactly it."""
        table, total = _quote(dataset.table), row.row_count
        # The months are compared with a literal of our own making: it cannot be anything but a date or NULL.
        month = f"DATE '{row.file_month}'" if row.file_month else "NULL"
        in_partition = f"{_quote(FILE_MONTH.name)} IS NOT DISTINCT FROM {month}" if dataset.is_monthly else "TRUE"
        source = f"system.main.read_parquet({literal(_as_glob(path))}, hive_partitioning = false)"
        there = _file_columns(connection, dataset, path, source)
        absent = [c.name for c in dataset.table_columns if c.name.lower() not in map(str.lower, there)]
        # A column that the file lacks is null, whatever DEFAULT somebody gave it.
        names = ", ".join([*map(_quote, there), *(f"NULL AS {_quote(name)}" for name in absent)])
        connection.execute(f"DELETE FROM {table} WHERE {in_partition}")
        _insert(connection, f"INSERT INTO {table} BY NAME SELECT {names} FROM {source}", total, progress)
        count = _value(connection, f"SELECT count(*) FROM {table} WHERE {in_partition}")
        inserted = _value(connection, f"SELECT count(*) FROM {source}")
        if not count == inserted == total:
            raise WarehouseError(
                f"{self.label}: {path.name} brings {inserted} rows, {count} of them for {row.dataset} "
                f"{row.file_month or ''}, and its manifest says {total}; write the lake file anew, then run again"
            )


def _insert(connection: duckdb.DuckDBPyConnection, statement: str, total: int, progress: Progress) -> None:
    """Run the statement in a thread and call ``progress`` from this one meanwhile; Ctrl-C stops the statement."""
    connection.execute("SET enable_progress_bar = true; SET enable_progress_bar_print = false")
    progress(0, total)
    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(connection.execute, statement)
        try:
            while not wait([future], timeout=_PROGRESS_INTERVAL).done:
                percent = connection.query_progress()
                if percent > 0:  # -1 while it is not known
                    progress(int(total * percent / 100), total)
        except BaseException:
            connection.interrupt()
            raise
        future.result()
    progress(total, total)


def _file_columns(connection: duckdb.DuckDBPyConnection, dataset: Dataset, path: Path, source: str) -> list[str]:
    """The file's column names, after a look at their types: DuckDB would round a double to fit a BIGINT."""
    declared = {column.name.lower(): TYPES[column.type] for column in dataset.table_columns}
    names = []
    for name, actual, *_ in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall():
        expected = declared.get(name.lower(), "absent")
        if actual != expected:
            raise WarehouseError(
                f"{path.name}: column {name} is {actual} and should be {expected} in {dataset.table}; "
                f"write the lake file anew, then run again"
            )
        names.append(name)
    return names


def _as_glob(path: Path) -> str:
    """The path as a pattern that matches only itself."""
    return re.sub(r"([\[*?])", r"[\1]", str(path))


def _is_ours(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    query: str,
    columns: Iterable[str],
    comments: Mapping[str, str | None],
) -> bool:
    """Whether what has the name of a view is one that the pipeline made; it made some without a comment once."""
    if comments.get(name) is None:
        described = connection.execute(f"DESCRIBE {query}").fetchall()
        return name in comments and list(columns) == [row[0] for row in described]
    return str(comments[name]).startswith(COMMENTS[name])


def _set_up_table(connection: duckdb.DuckDBPyConnection, table: str, title: str, columns: Iterable[Column]) -> None:
    columns = tuple(columns)
    existing = _columns(connection, table)
    if not existing:
        definitions = ", ".join(DIALECT.definition(column) for column in columns)
        connection.execute(f"CREATE TABLE {_quote(table)} ({definitions})")
        connection.execute(f"COMMENT ON TABLE {_quote(table)} IS {literal(title)}")
        added = list(columns)
    else:
        added = missing_columns(table, columns, existing, TYPES)
        for column in added:
            connection.execute(f"ALTER TABLE {_quote(table)} ADD COLUMN {DIALECT.definition(column)}")
    for column in added:
        name = f"{_quote(table)}.{_quote(column.name)}"
        connection.execute(f"COMMENT ON COLUMN {name} IS {literal(column.description)}")


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column -> type of a table as it was committed, in order; {} if there is none.

    ``duckdb_columns()`` would make DuckDB's own hundred views first, which takes as long as to open the file. The error
    of a table that is not there would end the connection's transaction; so a cursor of its own asks.
    """
    with connection.cursor() as cursor:
        try:
            return {row[1]: row[2] for row in cursor.execute(f"PRAGMA table_info({literal(table)})").fetchall()}
        except duckdb.CatalogException:
            return {}


def _ledger_rows(connection: duckdb.DuckDBPyConnection) -> list[LedgerRow]:
    """All rows, oldest first. A column that an older version of the table lacks is None."""
    cursor = connection.execute(f"SELECT * FROM {_quote(LEDGER_TABLE)} ORDER BY {_quote('loaded_at')} NULLS FIRST")
    names = [item[0] for item in cursor.description or ()]
    nothing = dict.fromkeys(column.name for column in LEDGER_COLUMNS)
    return [LedgerRow.from_mapping(nothing | dict(zip(names, row, strict=True))) for row in cursor.fetchall()]


def _append(connection: duckdb.DuckDBPyConnection, row: LedgerRow) -> LedgerRow:
    newest = {old.partition: old for old in _ledger_rows(connection)}
    stored = next_row(row, newest.get(row.partition))
    names = ", ".join(_quote(column.name) for column in LEDGER_COLUMNS)
    marks = ", ".join("?" for _ in LEDGER_COLUMNS)
    connection.execute(f"INSERT INTO {_quote(LEDGER_TABLE)} ({names}) VALUES ({marks})", stored.values())
    return stored


def _value(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    assert row is not None  # an aggregate without groups has exactly one row
    return int(row[0])


def _holder(error: duckdb.Error) -> str | None:
    """Who holds the file, if that is what the error says. DuckDB has no class of error for it, only texts."""
    text = str(error)
    if "Could not set lock" in text:
        match = re.search(r"lock is held in (?P<program>.+?) \(PID (?P<pid>\d+)\)", text)
        return f"{os.path.basename(match['program'])} (PID {match['pid']})" if match else "another process"
    if "with a different configuration" in text or "Unique file handle conflict" in text:
        return f"another connection of this process (PID {os.getpid()})"
    return None

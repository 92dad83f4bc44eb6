"""Opening the file of a DuckDB database: one writer or several readers at a time, who queue at its lock file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import duckdb

from ...errors import UsageError, WarehouseBusy, WarehouseError
from ...local_paths import broken_link
from ...lock_files import Held, lock_file
from ...remote import capped
from ...safe_files import NOT_REGULAR
from ...waiting import Wait, gave_up
from ..base import Options, named
from .errors import holder_of, translate

#: How an SQLite file begins. DuckDB would open it with an extension that it downloads.
_SQLITE = b"SQLite format 3\0"


class DatabaseFile:
    """The file that a URL names. Nothing is kept open."""

    def __init__(self, path: str, label: str, options: Options) -> None:
        self._named, self.label, self.options = Path(path), label, options

    @property
    def path(self) -> Path:
        """The file itself, behind any links: beside it are its log, its lock and what is renamed to it."""
        return Path(os.path.realpath(self._named))

    def exists(self) -> bool:
        """Whether there is a database.

        Raises UsageError for what DuckDB would wait for, take over or misread, WarehouseError for what is left of one.
        """
        try:
            if lost := broken_link(self._named):
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

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction, which is committed at the end and rolled back by any exception."""
        with self.open(read_only=False) as connection:
            connection.begin()
            yield connection
            connection.commit()

    @contextmanager
    def open(self, read_only: bool) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection, closed at the end. What DuckDB raises inside becomes a WarehouseError.

        Raises WarehouseBusy if others hold the file for longer than ``Options.lock_timeout``. Readers share the file,
        so they queue only if a writer is in their way, and do not write a lock file where all is quiet.
        """
        self.exists()
        try:
            with ExitStack() as stack:
                connection = self._try_to_connect(read_only) if read_only else None
                if not isinstance(connection, duckdb.DuckDBPyConnection):
                    with Wait(self.options.lock_timeout, self.label) as wait:
                        self._queue(stack, wait, required=not read_only)
                        connection = self._connect(read_only, wait)
                yield stack.enter_context(closing(connection))
        except duckdb.Error as error:
            raise translate(error, self.label, self.path, self.options.memory_limit) from error
        except WarehouseError as error:
            raise named(error, self.label) from error.__cause__
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
            if error.errno in NOT_REGULAR:
                why = (
                    f"{self.label}: {self.path}.lock is {NOT_REGULAR[error.errno]}, not the pipeline's file; remove it"
                )
                raise WarehouseError(why) from error
            if required:
                raise WarehouseError(
                    f"{self.label}: {error.strerror or error}; make the folder {self.path.parent} writable"
                ) from error

    def _connect(self, read_only: bool, wait: Wait) -> duckdb.DuckDBPyConnection:
        """Open the file, waiting for strangers."""
        while True:
            if not read_only and not self.path.exists():
                self._create()
            found = self._try_to_connect(read_only)
            if isinstance(found, duckdb.DuckDBPyConnection):
                return found
            if not wait.again(found, 0.1):
                raise self._busy(found)

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
            holder = holder_of(error)
            if holder is None:
                raise
            return holder

    def _busy(self, holder: str) -> WarehouseBusy:
        return WarehouseBusy(
            f"{self.label}: held by {holder} for more than {capped(self.options.lock_timeout):g} s; "
            f"close it there, or wait for it, then run again",
            is_repeated=gave_up(self.label, holder),
        )

"""DuckDB: one file on this machine, which one process at a time may write.

Every method opens the file, uses it and closes it. DuckDB lets either one writer or several readers in, across
processes, and refuses everybody else at once instead of queueing them. So our writers queue at a lock file beside
the database first (``<database>.lock``), and whoever meets a stranger there, such as an open shell, tries again and
again. Both waits are one, which ends after ``Options.lock_timeout``.

A load is one transaction, which DuckDB makes atomic against ``kill -9`` by its write-ahead log.
"""

from __future__ import annotations

import datetime as dt
import shutil
import tempfile
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import duckdb

from ...datasets.schema import Dataset
from ...doctor_check import Check
from ...errors import PipelineError, WarehouseError
from ...safe_files import why_not_creatable
from ...storage.base import Progress, StoredFile, no_progress
from ..base import LedgerRow, Options, Warehouse
from ..tables import counts, ensure_month, texts
from ..urls import duckdb_path
from .load import replace
from .session import DatabaseFile
from .tables import DIALECT, append, columns_of, ledger_rows, rows_of, set_up

#: Bytes of free disk below which ``check`` warns: the largest months (24 million rows) take 1.1 GB each, and the space
#: of replaced rows is free only after the load.
_ROOM = 3 * 1024**3


class DuckDB(Warehouse):
    """The warehouse in the DuckDB file that the URL names."""

    def __init__(self, url: str, options: Options | None = None) -> None:
        super().__init__(url, options)
        self.file = DatabaseFile(duckdb_path(url), self.label, self.options)

    @property
    def path(self) -> Path:
        return self.file.path

    @property
    def takes_synthetic(self) -> bool:
        return True

    def history(self) -> list[LedgerRow]:
        if not self.file.exists():
            return []
        with self.file.open(read_only=True) as connection:
            return ledger_rows(connection)

    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        if not self.file.exists():
            return {}
        with self.file.open(read_only=True) as connection:
            run = partial(rows_of, connection)
            return counts(DIALECT, dataset, run) if columns_of(connection, dataset.table) else {}

    def texts(self, dataset: Dataset) -> dict[dt.date | None, dict[str, int]]:
        if not self.file.exists():
            return {}
        with self.file.open(read_only=True) as connection:
            there = columns_of(connection, dataset.table)
            return texts(DIALECT, dataset, there, partial(rows_of, connection)) if there else {}

    def load(
        self, dataset: Dataset, parquet: StoredFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        ensure_month(dataset, row)
        self.ensure()
        # The file first: a copy of a remote one may take minutes, in which nobody else should have to wait.
        with parquet.local() as path, self.file.transaction() as connection:
            set_up(connection, self.label, dataset)
            stored = append(connection, row)
            replace(connection, dataset, path.absolute(), row, progress)
        return stored

    def append(self, row: LedgerRow) -> LedgerRow:
        self.ensure()
        with self.file.transaction() as connection:
            set_up(connection, self.label)
            return append(connection, row)

    def ensure(self) -> None:
        self.file.exists()
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
            is_there = self.file.exists()
            if create:
                folder.mkdir(parents=True, exist_ok=True)
                with self.file.transaction() as connection:
                    set_up(connection, self.label)
            if is_there or create:
                with self.file.open(read_only=False) as connection:
                    count = len(connection.execute("SELECT table_name FROM duckdb_tables()").fetchall())
                yield Check(self.label, True, f"DuckDB {duckdb.__version__} can write it; {count} tables")
            elif folder.exists():
                with tempfile.TemporaryFile(dir=folder):
                    yield Check(self.label, True, "not there yet; the first load makes it")
            else:
                if error := why_not_creatable(folder):
                    raise error
                yield Check(self.label, True, "not there yet; the first load makes it and its folder")
                return
            free = shutil.disk_usage(folder).free
            remedy = "make room: the largest months need 3 GiB while they are loaded"
            yield Check(f"{self.label} disk", free >= _ROOM, f"{free / 1024**3:.1f} GiB free", remedy, is_warning=True)
        except PipelineError as error:
            yield Check.failed(self.label, error)
        except OSError as error:
            remedy = f"make the folder {folder} and give yourself write permission, or run doctor --create"
            yield Check(self.label, False, error.strerror or str(error), remedy)

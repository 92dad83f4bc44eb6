"""Child processes that load a file, stop at every call of ``progress``, and may be killed there."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from multiprocessing.connection import Connection

from pipeline.datasets.schema import Dataset
from pipeline.storage.base import StoredFile
from pipeline.warehouse import LedgerRow, Options, open_warehouse
from tests.patience import PATIENCE

#: Started once per test process. What it has imported, its children need not import again.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "tests.contract.warehouses",
        "pipeline.storage.gcs",
        "pipeline.warehouse.bigquery.warehouse",
        "pipeline.warehouse.duckdb.warehouse",
        "pipeline.warehouse.postgresql.warehouse",
    ]
)


class Loader:
    """A process that loads one file."""

    def __init__(
        self, url: str, environment: Mapping[str, str], dataset: Dataset, file: StoredFile, row: LedgerRow
    ) -> None:
        self._ours, theirs = PROCESSES.Pipe()
        arguments = (theirs, url, dict(environment), dataset, file, row)
        self.process = PROCESSES.Process(target=_load, args=arguments)
        self.process.start()
        theirs.close()

    def stops(self) -> bool:
        """Wait until it calls ``progress`` the next time; False if it has ended instead."""
        try:
            return bool(self._ours.recv())
        except EOFError:
            return False

    def go_on(self) -> bool:
        with contextlib.suppress(BrokenPipeError):
            self._ours.send(True)
        return True

    def join(self) -> None:
        """Let it come to its end, which has to be a good one."""
        while self.stops():
            self.go_on()
        self.process.join(PATIENCE)
        assert self.process.exitcode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.join(PATIENCE)
        self._ours.close()


@contextlib.contextmanager
def loader(
    url: str, environment: Mapping[str, str], dataset: Dataset, file: StoredFile, row: LedgerRow
) -> Iterator[Loader]:
    started = Loader(url, environment, dataset, file, row)
    try:
        yield started
    finally:
        started.kill()


def _load(
    pipe: Connection, url: str, environment: dict[str, str], dataset: Dataset, file: StoredFile, row: LedgerRow
) -> None:
    def stop(done: int, total: int) -> None:
        pipe.send(True)
        pipe.recv()

    os.environ.update(environment)
    warehouse = open_warehouse(url, Options(lock_timeout=PATIENCE, patience=PATIENCE))
    stop(0, row.row_count)
    warehouse.load(dataset, file, row, stop)

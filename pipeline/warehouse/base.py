"""Interface and guarantees of every warehouse backend, and the ledger row that each of them keeps.

How to add a backend: docs/development.md, "a warehouse".

What every warehouse promises:

* ``load`` replaces exactly one partition of one table (the whole table for a dataset without months) and appends the
  ledger row. Both happen in one transaction where the warehouse has one; elsewhere the ledger does not call the
  partition loaded while the two disagree. Loading the same file twice changes no row.
* A process killed at any moment leaves a state from which the same call again gives the same table.
* ``etl_loads`` is append-only; ``loaded_at`` grows strictly per partition, whatever the hosts' clocks say.
* New columns of the declaration are added to an existing table; a column whose type differs is an error.
* What the owner adds, such as columns and views, stays; what would change rows or keep them out is an error.
* Errors are ``WarehouseError`` (terminal) and ``WarehouseUnavailable`` (may work later), each one line that begins with
  the label and ends with the remedy, and without secrets.
"""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields

from ..datasets.schema import Column, Dataset
from ..doctor_check import Check
from ..errors import WarehouseError
from ..partition import Partition
from ..storage.base import Progress, StoredFile, no_progress
from .urls import label_of

LEDGER_TABLE = "etl_loads"
CURRENT_VIEW = "etl_current"

#: Columns of ``etl_loads`` in order. Declared like any dataset, so that DDL and comments come from one place.
LEDGER_COLUMNS: tuple[Column, ...] = (
    Column("dataset", "string", "Dataset of the load"),
    Column("file_month", "date", "Month of the file; null for a table without months"),
    Column("status", "string", "loaded, or forgotten: asked to be loaded again by `python -m pipeline forget`"),
    Column("row_count", "int64", "Rows put into the table"),
    Column("rejected_count", "int64", "Rows refused, kept in the lake's rejects file"),
    Column("publisher", "string", "Publisher, with its address where that is not the usual one"),
    Column("sha256", "string", "SHA-256 of the raw file"),
    Column("source_url", "string", "Address of the raw file"),
    Column("source_etag", "string", "ETag of the raw file, or size and time of a local one"),
    Column("rules", "string", "Cleaning rules with their versions, or none"),
    Column("schema_version", "string", "Digest of the canonical schema"),
    Column("parquet_sha256", "string", "SHA-256 of the lake's Parquet file that was loaded"),
    Column("replaces", "string", "sha256 of the load that this one replaced; null for the first"),
    Column("is_synthetic", "int64", "1 if the rows were made on this machine and are not TLC's, else 0"),
    Column("run_id", "string", "Run that did the load; the same id stands in log and manifest"),
    Column("loaded_at", "timestamp", "When, UTC"),
)


@dataclass(frozen=True)
class LedgerRow:
    """One row of ``etl_loads``; the field names are the column names."""

    dataset: str
    file_month: dt.date | None
    status: str
    row_count: int
    rejected_count: int
    publisher: str
    sha256: str
    source_url: str
    source_etag: str
    rules: str
    schema_version: str
    parquet_sha256: str
    is_synthetic: int
    run_id: str
    replaces: str | None = None
    loaded_at: dt.datetime | None = None

    @property
    def partition(self) -> Partition:
        return Partition(self.dataset, self.file_month)

    def values(self) -> list[object]:
        """Values in the order of ``LEDGER_COLUMNS``."""
        return [getattr(self, column.name) for column in LEDGER_COLUMNS]

    @classmethod
    def from_mapping(cls, row: Mapping[str, object]) -> LedgerRow:
        """The row; a column that the ledger of an older version lacks is None."""
        for name in ("file_month", "loaded_at"):
            if not isinstance(row.get(name), dt.date | None):  # as DuckDB gives one before Christ
                raise WarehouseError(f"{LEDGER_TABLE} has a {name} that no run wrote: {row[name]}; correct that row")
        return cls(**{f.name: row.get(f.name) for f in fields(cls)})  # type: ignore[arg-type]


def is_near(first: str, second: str) -> bool:
    """Whether two locations of Google Cloud are on the same continent, such as ``US`` and ``us-east1``, by their names.

    BigQuery decides what it loads from where, and says so. This is only what can be seen before.
    """
    return _continent(first) == _continent(second)


def location_near(bucket: str | None, preferred: str) -> str:
    """The location of a new dataset for a lake in ``bucket``: the preferred one, if it is on the same continent."""
    if bucket is None or is_near(bucket, preferred):
        return preferred
    return bucket.lower() if "-" in bucket else bucket.upper()


def _continent(location: str) -> str:
    return "us" if location.lower() == "nam4" else location.lower()[:2]


@dataclass(frozen=True)
class Options:
    """What a warehouse needs from the settings; passed in, because a warehouse does not know the settings.

    ``lock_timeout``: seconds to wait for someone else's lock. ``statement_timeout``: seconds that PostgreSQL may take
    for a statement; more for one that goes through many rows. ``memory_limit`` and ``threads``: of an embedded engine
    (160MB: 24 million rows load within 370 MB for the whole process).
    ``maximum_bytes_billed``: per BigQuery query. ``location``: of a BigQuery dataset to create. ``patience``: seconds
    for which a request to BigQuery that fails in passing is repeated; fewer while somebody waits.
    """

    lock_timeout: float = 60.0
    statement_timeout: float = 300.0
    memory_limit: str = "160MB"
    maximum_bytes_billed: int = 10 * 1024**3
    location: str = "US"
    threads: int = 2
    patience: float = 120.0


def named(error: WarehouseError, label: str) -> WarehouseError:
    """The error with the label in front: the one line of a verb names the warehouse nowhere else."""
    return error if str(error).startswith(label) else WarehouseError(f"{label}: {error}")


class Warehouse(abc.ABC):
    """One warehouse. Constructing opens nothing; every method opens, uses and closes, so it survives a fork."""

    #: Whether it can load only from a lake near it, so that ``location`` matters.
    has_location = False

    def __init__(self, url: str, options: Options | None = None) -> None:
        self.url = url
        self.options = options or Options()
        #: Called with the web page of each load job that a server runs for us; embedded warehouses have none.
        self.on_job: Callable[[str], None] = lambda page: None

    @property
    def label(self) -> str:
        """The name without secrets that task parameters, logs and errors use (``postgresql@host/db``)."""
        return label_of(self.url)

    @property
    def takes_synthetic(self) -> bool:
        """Whether synthetic months may be loaded without an explicit setting. True for embedded warehouses only."""
        return False

    def ensure(self) -> None:  # noqa: B027  a server has nothing to make
        """Make the folder of a file if it is not there. Raises UsageError if that cannot be; asks no server."""

    def ledger(self) -> dict[Partition, LedgerRow]:
        """The newest ledger row of each partition, of any status. One query; {} where there is no warehouse yet."""
        return {row.partition: row for row in self.history()}

    @abc.abstractmethod
    def history(self) -> list[LedgerRow]:
        """All ledger rows, oldest first."""

    @abc.abstractmethod
    def load(
        self, dataset: Dataset, parquet: StoredFile, row: LedgerRow, progress: Progress = no_progress
    ) -> LedgerRow:
        """Replace ``row.partition`` with the file and append ``row``; create what does not exist yet.

        ``row.row_count`` is the number of rows the file must bring. A load that fails leaves all as it was; without
        transactions it may leave other rows, and then the partition does not count as loaded.
        Returns the row as stored, with ``replaces`` and ``loaded_at`` filled in.
        """

    @abc.abstractmethod
    def append(self, row: LedgerRow) -> LedgerRow:
        """Append a ledger row without touching a table (``forget``)."""

    @abc.abstractmethod
    def counts(self, dataset: Dataset) -> dict[dt.date | None, int]:
        """Rows in the table per partition, counted in the table itself; {} where there is no table."""

    def texts(self, dataset: Dataset) -> dict[dt.date | None, dict[str, int]]:
        """Characters in each text column of the table, per partition; {} where text cannot come to harm on its way."""
        return {}

    def location(self) -> str | None:
        """Location of the data, such as ``US`` or ``europe-west1``; None where that of the lake does not matter."""
        return None

    @abc.abstractmethod
    def check(self, create: bool = False) -> Iterable[Check]:
        """Try what the pipeline will do here; with ``create`` make what is missing. Never raises."""

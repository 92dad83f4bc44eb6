"""The scratch of one job's month in the workspace: files between two stages, and a record beside each.

A record is a small JSON object written after the file it speaks for. It says what the file was made from, so that a
stage can tell whether its output is still the one that is asked for. What other code made, or other rules, lies in
another folder, and is never read.

Upload removes the scratch of its month when the month is in the lake. The rest is for ``sweep``.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import code_version
from ..errors import DamagedScratch, TakenAway
from ..partition import Partition, parse_month
from ..strict_json import json_object

if TYPE_CHECKING:
    from ..job import Job
    from ..storage.base import Store

ROOT = "scratch"

#: What a record says of who wrote it: the job, the run and its host. Nobody but ``sweep`` asks.
ABOUT = "about"

#: Seconds to wait for another process that works on the same month; it may be cleaning the largest of all.
LOCK_TIMEOUT = 3600

#: Bytes of the longest record.
RECORD = 4 << 20

#: The files: as the publisher has it, its rows, what was rejected of it, and what goes into the lake.
RAW, ROWS, REJECTS, PARQUET = "raw", "rows.arrow", "rejects.parquet", "trips.parquet"

#: What the record of each has at least. One without, or with another type, is none of ours.
_FIELDS: dict[str, dict[str, type]] = {
    RAW: {
        "url": str,
        "sha256": str,
        "version": dict,
        "length": int,
        "format": str,
        "fetched_at": str,
        "last_look": str,
    },
    ROWS: {"sha256": str, "report": dict},
    REJECTS: {"sha256": str},
    PARQUET: {"sha256": str, "parquet_sha256": str, "rows_written": int},
}

#: What is in the version of a raw file, if it is known.
_VERSION: dict[str, type] = {"etag": str, "length": int, "last_modified": str}


#: The months of folders; any other may have been made by anybody.
_MONTH = r"[1-9][0-9]{3}-(?:0[1-9]|1[0-2])"

#: The folder of a dataset that has no months.
_NO_MONTHS = "all"


def months_of(job: Job, dataset: str) -> set[dt.date]:
    """The months of a dataset of which there is scratch, of whatever publisher, rules and lake."""
    names = {path.split("/")[2] for path in store_of(job.workspace_url).list(f"{ROOT}/{dataset}")}
    return {parse_month(name) for name in names if re.fullmatch(_MONTH, name)}


def store_of(workspace: str) -> Store:
    """The workspace as scratch is kept in it.

    What lives for seconds is mostly removed before it would be on a disk. After a power cut a file that did not get
    there whole has not the size of its record, and is made again.
    """
    from ..storage import StoreOptions, open_store

    return open_store(workspace, StoreOptions(survives_power_cut=False, follows_links=False))


class Scratch:
    """Files and records of one month, kept apart by what they depend on, so that two jobs never share one.

    A folder is named by the job and by the code. Its locks are named by the job alone: two versions of the code do not
    work on one month at the same time.
    """

    def __init__(self, job: Job, partition: Partition, run_id: Callable[[], str] = str) -> None:
        """``run_id`` gives the id of the run that keeps files here; who only reads needs none."""
        self.job = {"publisher": job.publisher_label, "rules": job.rules, "lake": job.lake_url}
        self.store = store_of(job.workspace_url)
        self.folder = f"{ROOT}/{partition.dataset}/{partition.month_text or _NO_MONTHS}"
        key = hashlib.sha256("\n".join(self.job.values()).encode()).hexdigest()[:12]
        self.prefix = f"{self.folder}/{key}-{code_version.digest()}"
        self.title = str(partition)
        self._run_id = run_id

    def path(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    def record(self, name: str) -> dict[str, Any] | None:
        """The record of a file, if both are there and the file has the size that the record names."""
        try:
            record = json_object(self.store.read_small(self.path(f"{name}.json"), RECORD))
        except (FileNotFoundError, ValueError):
            return None
        if not _is_ours(name, record):
            return None
        found = self.store.stat(self.path(name))
        return record if found is not None and found.size == record.get("bytes") else None

    def need(self, name: str, sha256: str | None = None) -> dict[str, Any]:
        """The record of a file that an earlier stage made, of the source with this SHA-256.

        TakenAway if there is no record, or one of another version of the source: another run has replaced or removed
        the scratch since the earlier stage was done. In a folder, where a stage has its month for itself, a file that
        is not as its record says is DamagedScratch.
        """
        record = self.record(name)
        if record is None and self._is_folder and self.store.stat(self.path(f"{name}.json")):
            raise self.damaged(name, "is not there as it was written")
        if record is None or sha256 not in (None, record.get("sha256")):
            raise self.taken_away(name)
        return record

    def taken_away(self, name: str) -> TakenAway:
        """The error of a file that another run has replaced or removed; in a bucket it may be about to put it there."""
        where = self.store.uri(self.path(name))
        return TakenAway(f"{where} was replaced or removed by another run; run again", may_return=not self._is_folder)

    @property
    def _is_folder(self) -> bool:
        return self.store.has_locks

    def damaged(self, name: str, how: str) -> DamagedScratch:
        """The error of a file that a stage of this month wrote, and that cannot be used."""
        return DamagedScratch(f"{self.store.uri(self.path(name))} {how}; run again, and the month is fetched anew")

    @contextmanager
    def checking(self, name: str) -> Iterator[None]:
        """While a file of ours is read, errors of Arrow and of the disk are raised as ``DamagedScratch``."""
        import pyarrow as pa

        try:
            yield
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self.damaged(name, f"cannot be read ({' '.join(str(error).split())[:100]})") from error

    def keep(self, file: Path, name: str, record: dict[str, Any]) -> None:
        """Put the file in place, then its record."""
        size = file.stat().st_size
        about = {"job": self.job, "run": self._run_id(), "host": socket.gethostname()}
        metadata = {ABOUT: json.dumps(about)}  # so that one listing of a bucket tells it of all
        self.store.delete(self.path(f"{name}.json"))
        self.store.put(file, self.path(name), metadata=metadata)
        self.store.write(
            self.path(f"{name}.json"),
            json.dumps({**record, "bytes": size, ABOUT: about}).encode(),
            metadata=metadata,
        )

    def staging(self, name: str) -> AbstractContextManager[Path]:
        return self.store.staging(self.path(name))

    def writer(self, file: Path, name: str, opened: Callable[[Path], AbstractContextManager[Any]]) -> Writer:
        """What writes batches or tables to a file of ``staging``, by the Arrow writer that ``opened`` makes."""
        # What is on its way to a bucket waits on this machine, whose disk it is that refuses.
        return Writer(opened, file, self.store.uri(self.path(name)) if self._is_folder else str(file))

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """A file of the scratch to read; TakenAway as in ``need``."""
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self.store.local(self.path(name)))
            except FileNotFoundError as error:
                raise self.taken_away(name) from error
            yield path

    def resumable(self, name: str) -> AbstractContextManager[Path]:
        """Like ``staging``, but what a killed process left there is found again by the next one."""
        return self.store.staging(self.path(name), key=self.path(name))

    def lock(self, purpose: str = "scratch") -> AbstractContextManager[Any]:
        """Held while a stage works on the month, so that another process waits and then finds it done."""
        return self.store.lock(lock_of(self.prefix, purpose), timeout=LOCK_TIMEOUT, title=self.title)

    @contextmanager
    def forgetting(self) -> Iterator[bool]:
        """Keep others from this month, and then remove its scratch, of whatever publisher, rules and lake.

        Gives whether there is any. StorageUnavailable names who is at work on the month.
        """
        found = self.store.list(self.folder)
        locks = {lock_of(prefix) for path in found if (prefix := prefix_of(path)) is not None}
        with ExitStack() as stack:
            for lock in sorted({lock_of(self.prefix), *locks}):
                stack.enter_context(self.store.lock(lock, timeout=LOCK_TIMEOUT, title=self.title))
            yield bool(found)
            self.store.delete_tree(self.folder)

    def prune(self) -> None:
        """Remove everything of this month; what can be made again is not kept once it is loaded."""
        with self.lock():
            self.discard()

    def discard(self) -> None:
        """Remove everything of this month. The caller holds its lock."""
        self.store.delete_tree(self.prefix)


class Writer:
    """An open file, as a context that gives the function which writes to it.

    What the disk refuses is LakeError or StorageUnavailable in its words, about ``where``. What else goes wrong while
    the file is open, such as another file that cannot be read, stays as it is.
    """

    def __init__(self, opened: Callable[[Path], AbstractContextManager[Any]], file: Path, where: str) -> None:
        self._opened = opened
        self._file = file
        self._where = where
        self._stack = ExitStack()

    def __enter__(self) -> Callable[..., None]:
        with self._explained():
            self._writer = self._stack.enter_context(self._opened(self._file))
        return self.write

    def write(self, rows: Any, **options: Any) -> None:
        with self._explained():
            self._writer.write(rows, **options)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        # After an error the file is worth nothing, and that it cannot be ended either is no news.
        with self._explained() if error is None else suppress(OSError):
            self._stack.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from ..storage.base import explained

        try:
            yield
        except OSError as error:
            raise explained(error, self._where) from error


#: A folder of scratch below the folder of its month: the job, and the code; versions before had no code there.
_PREFIX = re.compile(rf"{ROOT}/[a-z]+/(?:{_MONTH}|{_NO_MONTHS})/[0-9a-f]{{12}}(?:-[0-9a-f]{{12}})?(?=/|$)")


def prefix_of(path: str) -> str | None:
    """The folder of scratch that a file of the workspace lies in; None for what is none of ours."""
    match = _PREFIX.match(path)
    return match[0] if match else None


def partition_of(prefix: str) -> Partition:
    """What a folder of scratch is of."""
    _, dataset, name, _ = prefix.split("/")
    return Partition.parse(dataset, None if name == _NO_MONTHS else name)


def lock_of(prefix: str, purpose: str = "scratch") -> str:
    """The path of the lock of a folder of scratch."""
    folder, _, name = prefix.rpartition("/")
    digest = hashlib.sha256(purpose.encode()).hexdigest()[:8]  # a label of a warehouse is no file name
    return f"{folder}/{name.partition('-')[0]}.{digest}"


def _is_ours(name: str, record: dict[str, Any]) -> bool:
    """Whether a stage can have written the record: anybody may have put a file of that name there."""
    if not all(isinstance(record.get(field), kind) for field, kind in _FIELDS[name].items()):
        return False
    if name == RAW:
        with suppress(ValueError):
            has_zone = dt.datetime.fromisoformat(record["fetched_at"]).tzinfo is not None
            return has_zone and all(
                isinstance(record["version"].get(field), kind | None) for field, kind in _VERSION.items()
            )
        return False
    return name != ROWS or _is_report(record["report"])


def _is_report(report: dict[str, Any]) -> bool:
    from ..cleaning.chunks import Report

    def is_counts(value: object) -> bool:
        return isinstance(value, int) or (isinstance(value, dict) and all(map(is_counts, value.values())))

    counts = {field: value for field, value in vars(Report()).items() if isinstance(value, int | dict)}
    return all(
        field in report and isinstance(report[field], dict) == isinstance(value, dict) and is_counts(report[field])
        for field, value in counts.items()
    ) and isinstance(report.get("ignored_columns"), list)

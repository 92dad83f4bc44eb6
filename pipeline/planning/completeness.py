"""Is a month complete, and if not, why: the one place that decides, asked by tasks, plan and status alike.

A month is complete in the lake when its manifest names the bytes that lie there and records what is asked for now:
publisher, current source version, rules, and no column kept out that the declaration knows today. It is complete in a
warehouse when it is complete in the lake and the newest ledger row records the same file.

While Luigi schedules, thousands of tasks are asked; ``scheduling`` then answers all of them from one look at
the lake and one query per warehouse. When a task begins to run, ``running`` forgets that and looks afresh.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .. import datasets, remote, settings, waiting
from ..errors import PipelineError, SyntheticData, UsageError
from ..job import Job, open_warehouse
from ..partition import Partition
from ..publishers import publishers

if TYPE_CHECKING:
    from ..lake import Listing
    from ..lake.manifest import Manifest
    from ..publishers.publishers import Version
    from ..warehouse import LedgerRow

Month = dt.date | None

#: The reason of a month that the lake does not have.
ABSENT = "not in the lake"

#: The reason of a month whose file at the publisher is another one now.
REPUBLISHED = "republished"


class Look:
    """Answers for one task: every question is one small request, made when it is first asked."""

    def __init__(self) -> None:
        self._manifests: dict[tuple[str, str, Month], Manifest | None] = {}
        self._observations: dict[tuple[str, str], dict[str, dict[Month, dict[str, Any]]]] = {}
        self._ledgers: dict[str, dict[Partition, LedgerRow]] = {}

    def manifest(self, job: Job, dataset: str, month: Month) -> Manifest | None:
        key = job.lake, dataset, month
        if key not in self._manifests:
            self._manifests[key] = job.lake_object.manifest(Partition(dataset, month))
        return self._manifests[key]

    def observation(self, job: Job, dataset: str, month: Month) -> dict[str, Any] | None:
        return self.observations(job, dataset).get(month)

    def observations(self, job: Job, dataset: str) -> dict[Month, dict[str, Any]]:
        key = job.lake, job.publisher
        if key not in self._observations:
            self._observations[key] = self._read_observations(job)
        return self._observations[key].setdefault(dataset, {})

    def _read_observations(self, job: Job) -> dict[str, dict[Month, dict[str, Any]]]:
        return job.lake_object.observations(job.publisher)

    def ledger(self, warehouse: str) -> dict[Partition, LedgerRow]:
        if warehouse not in self._ledgers:
            self._ledgers[warehouse] = open_warehouse(warehouse).ledger()
        return self._ledgers[warehouse]


class Snapshot(Look):
    """Answers for thousands of tasks: one look at each lake, one query per warehouse, made when first asked.

    ``publishers`` holds those that were asked whether they answer at all, by label, with the error of those that do
    not; ``workspaces`` those that do. ``spent`` is what the plan has waited for publishers so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.publishers: dict[str, PipelineError | None] = {}
        self.workspaces: set[str] = set()
        self.spent = remote.Spent()
        self._listings: dict[str, Listing] = {}
        self._months: dict[tuple[str, str], dict[Month, Manifest]] = {}

    def _listing(self, job: Job) -> Listing:
        if job.lake not in self._listings:
            with waiting.for_answer(job.lake):
                self._listings[job.lake] = job.lake_object.listing()
        return self._listings[job.lake]

    def manifests(self, job: Job, dataset: str) -> dict[Month, Manifest]:
        key = job.lake, dataset
        if key not in self._months:
            self._months[key] = job.lake_object.manifests(dataset, self._listing(job))
        return self._months[key]

    def manifest(self, job: Job, dataset: str, month: Month) -> Manifest | None:
        return self.manifests(job, dataset).get(month)

    def _read_observations(self, job: Job) -> dict[str, dict[Month, dict[str, Any]]]:
        return job.lake_object.observations(job.publisher, self._listing(job))


_look: Look | None = None


@contextmanager
def scheduling() -> Iterator[Snapshot]:
    """Answer from one snapshot inside this context; the outermost one makes it."""
    snapshot = _look if isinstance(_look, Snapshot) else Snapshot()
    with _looking(snapshot):
        yield snapshot


@contextmanager
def running() -> Iterator[None]:
    """Look afresh inside this context: a task runs, and what others did since matters."""
    with _looking(Look()):
        yield


@contextmanager
def _looking(look: Look) -> Iterator[None]:
    global _look
    before, _look = _look, look
    try:
        yield
    finally:
        _look = before


def look() -> Look:
    """What answers now; outside of both contexts each question is a request of its own."""
    return _look or Look()


def name_of(observed: dict[str, Any] | None) -> str:
    """Tells one look at a publisher from all others, whatever the clock said; empty where no version was seen."""
    if not observed or not observed.get("version"):
        return ""
    seen = f"{observed.get('checked_at')} {publishers.Version.from_dict(observed['version']).fingerprint}"
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def last_look_at(job: Job, dataset: str, month: Month) -> str:
    """The name of the last look at the publisher; empty where nobody looks because the files are at hand."""
    return "" if job.publisher_object.is_local else name_of(look().observation(job, dataset, month))


def is_recent(time: dt.datetime, seconds: float) -> bool:
    """Whether a time is less than so many seconds ago. One to come was noted by a wrong clock, and tells nothing."""
    return 0 <= (dt.datetime.now(dt.UTC) - time).total_seconds() <= seconds


def seen_since(job: Job, dataset: str, month: Month, last_look: str | None, fetched_at: dt.datetime) -> Version | None:
    """The version last observed at the publisher, if that was after a file was fetched; None if nothing newer was seen.

    ``last_look`` is the name of the look that was the last one before the file was fetched. Where nobody has noted it,
    the clocks decide: the one that ``fetched_at`` was read from, and that of the look.

    What is made or lies on this machine is looked at itself, which costs nothing.
    """
    publisher = job.publisher_object
    if publisher.is_local:
        try:
            return publishers.look(publisher, dataset, month)
        except PipelineError:
            return None  # a check that fails changes nothing
    observed = look().observation(job, dataset, month)
    if not observed or not observed.get("version"):
        return None
    if name_of(observed) == last_look:
        return None
    if last_look is None:
        checked_at, now = dt.datetime.fromisoformat(observed["checked_at"]), dt.datetime.now(dt.UTC)
        if checked_at <= fetched_at <= now:  # otherwise one of the clocks was wrong
            return None
    return publishers.Version.from_dict(observed["version"])


def is_same(job: Job, manifest: Manifest, current: Version) -> bool:
    """Whether the manifest's source is the current version. A local file that was only touched is still the same."""
    source = manifest.source
    recorded = publishers.Version(etag=source.etag or None, length=source.length, last_modified=source.last_modified)
    if recorded.same_as(current):
        return True
    publisher = job.publisher_object
    if publisher.scheme == "file" and current.length == source.length:
        try:
            return publishers.sha256_of(publisher, manifest.dataset, manifest.month) == source.sha256
        except OSError:
            return True  # taken away since it was looked at; a check that fails changes nothing
    return False


def _made_otherwise(job: Job, manifest: Manifest) -> str | None:
    """What besides the source's version is not as asked for; None if all is."""
    if manifest.publisher != job.publisher:
        return f"publisher changed from {manifest.publisher}"
    if manifest.rules != job.rules:
        return f"rules changed from {manifest.rules}"
    declared = datasets.get(manifest.dataset)
    learned = sorted(name for name in manifest.unknown_columns if declared.column_for(name))
    if learned:
        return f"column {', '.join(learned)} was unknown and is declared now"
    return None


def is_made_of(job: Job, dataset: str, month: Month, sha256: str) -> bool:
    """Whether the lake's month was made as asked for from a raw file of these bytes, whatever its ETag was then."""
    manifest = look().manifest(job, dataset, month)
    return manifest is not None and _made_otherwise(job, manifest) is None and manifest.source.sha256 == sha256


def lake_reason(job: Job, dataset: str, month: Month) -> str | None:
    """Why the lake does not have the month as asked for; None if it does."""
    return _reason_of(job, dataset, month, look().manifest(job, dataset, month))


def _reason_of(job: Job, dataset: str, month: Month, manifest: Manifest | None) -> str | None:
    if manifest is None:
        return ABSENT
    otherwise = _made_otherwise(job, manifest)
    if otherwise is not None:
        return otherwise
    current = seen_since(job, dataset, month, manifest.source.last_look, manifest.source.fetched_at)
    return REPUBLISHED if current is not None and not is_same(job, manifest, current) else None


def warehouse_reason(job: Job, dataset: str, month: Month, warehouse: str) -> str | None:
    """Why the warehouse does not have the month as the lake has it; None if it does."""
    manifest = look().manifest(job, dataset, month)
    reason = _reason_of(job, dataset, month, manifest)
    if manifest is None or reason is not None:
        return reason
    row = look().ledger(warehouse).get(Partition(dataset, month))
    where = warehouse.partition(":")[0].partition("@")[0]
    if row is None:
        return f"not in {where}"
    if row.status != "loaded":
        return f"{row.status} in {where}"
    if (row.publisher, row.rules, row.sha256) != (manifest.publisher, manifest.rules, manifest.source.sha256):
        return f"{where} has another version"
    if row.parquet_sha256 != manifest.parquet.sha256:
        return f"{where} has an older shape"
    return None


def reason(job: Job, dataset: str, month: Month, warehouses: list[str]) -> str | None:
    """The first reason why the month is not complete everywhere; None if it is."""
    found = lake_reason(job, dataset, month)
    for warehouse in warehouses:
        found = found or warehouse_reason(job, dataset, month, warehouse)
    return found


def refuse_mixture(is_synthetic: bool, others: list[bool], where: str) -> None:
    """Raise SyntheticData if synthetic months would lie beside published ones, unless the setting allows it."""
    if settings.PublisherSettings().allow_synthetic or all(other == is_synthetic for other in others):
        return
    raise SyntheticData(
        f"{where} takes published months only; choose another, or set [publisher] allow_synthetic"
        if is_synthetic
        else f"{where} holds synthetic months; choose another, or set [publisher] allow_synthetic"
    )


def refuse_upload(job: Job, dataset: str) -> None:
    """Raise SyntheticData if a month of the job's publisher would lie in the lake beside months of another kind."""
    now = look()
    found = [
        manifest.is_synthetic
        for name in (dataset, "zones")
        for manifest in (
            now.manifests(job, name) if isinstance(now, Snapshot) else job.lake_object.manifests(name)
        ).values()
    ]
    refuse_mixture(job.publisher_object.is_synthetic, found, f"lake {job.lake}")


def refuse_load(is_synthetic: bool, warehouse: str) -> None:
    """Raise SyntheticData if the warehouse takes published months only, or holds months of another kind."""
    if is_synthetic and not open_warehouse(warehouse).takes_synthetic:
        refuse_mixture(True, [False], warehouse)
    refuse_mixture(is_synthetic, [bool(row.is_synthetic) for row in look().ledger(warehouse).values()], warehouse)


def check_kind(job: Job, dataset: str, month: Month, warehouses: list[str]) -> None:
    """Raise UsageError if what is to be done for a month would be refused when it is uploaded or loaded."""
    manifest = look().manifest(job, dataset, month)
    try:
        if manifest is None or lake_reason(job, dataset, month) is not None:
            refuse_upload(job, dataset)
            is_synthetic = job.publisher_object.is_synthetic
        else:
            is_synthetic = manifest.is_synthetic
        for warehouse in warehouses:
            if warehouse_reason(job, dataset, month, warehouse) is not None:
                refuse_load(is_synthetic, warehouse)
    except SyntheticData as error:
        raise UsageError(str(error)) from None

"""Which months have to be worked on, and why: decided before anything runs, for a whole range at once.

One look at the lake, one ledger query per warehouse, and as few questions to the publisher as possible.
``RangeMonthly`` runs what the plan says; ``python -m pipeline plan`` shows it, and ``status`` shows what is known
without asking a publisher.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import remote, settings, waiting
from ..errors import MissingAtPublisher, NeverOffered, PipelineError, TransientError, Unreachable, text_after
from ..job import Job, retry_policy
from ..partition import ZONES, Partition, format_month
from ..publishers.availability import can_still_appear
from .completeness import ABSENT, REPUBLISHED, Completeness, is_recent
from .state import State
from .synthetic import ensure_allowed

if TYPE_CHECKING:
    from ..lake.manifest import Manifest
    from ..publishers.version import Version

LOGGER = logging.getLogger("pipeline")

#: The states of a month in a plan.
COMPLETE = "complete"
TO_DO = "to do"
NOT_YET = "not yet published"
MISSING = "missing at publisher"
UNASKED = "could not be asked"

#: The reason of a month that was forgotten, and so the status of its row in the ledger.
FORGOTTEN = "forgotten"

#: The reason of a month that has become available at the publisher.
NEW = "new"

#: The reason of a loaded month that the publisher does not have any more.
WITHDRAWN = "withdrawn; what was loaded stays"

#: How tasks and ledger write that no rule is applied.
NO_RULES = "none"

#: A folder of a workspace that nobody makes: to list it costs nothing and tells whether the workspace is there.
EMPTY = "none"

#: Requests under way at once when loaded months are asked about again.
CONCURRENT = 8


@dataclass(frozen=True)
class Entry:
    """One month of the plan. ``reason`` says why it is to be done, or why it is left as it is; mostly it is empty."""

    partition: Partition
    state: str
    reason: str = ""


@dataclass
class Plan:
    """All asked months of one job, each with its state."""

    entries: list[Entry] = field(default_factory=list)

    def months(self, state: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.state == state]

    def counts(self) -> dict[str, int]:
        """Number of months by state, without the states that do not occur."""
        states = (COMPLETE, TO_DO, NOT_YET, MISSING, UNASKED)
        return {state: len(found) for state in states if (found := self.months(state))}


def plan_range(
    state: State, job: Job, names: Iterable[str], months: Sequence[dt.date], warehouses: list[str], ask: bool = True
) -> Plan:
    """Plan the zone table, and of each dataset those months that were ever offered; ``ask`` as in ``plan_months``."""
    plan = plan_zones(state, job, warehouses, ask)
    for name in names:
        plan.entries += plan_months(state, job, offered(job, name, months), warehouses, ask).entries
    return plan


def offered(job: Job, dataset: str, months: Iterable[dt.date]) -> list[Partition]:
    """Those of the months that the publisher can have, as far as its beginning and its end tell."""

    def is_offered(partition: Partition) -> bool:
        try:
            job.publisher_object.check_offered(partition)
        except NeverOffered:
            return False
        return True

    return [partition for month in months if is_offered(partition := Partition(dataset, month))]


def check_any_offered(job: Job, names: Sequence[str], months: Sequence[dt.date]) -> None:
    """Raise NeverOffered if the publisher cannot have any of the datasets in any of the months."""
    if not any(offered(job, name, months) for name in names):
        span = format_month(months[0]) + (f" to {format_month(months[-1])}" if len(months) > 1 else "")
        raise NeverOffered(
            f"{span}: none of {', '.join(names)} was ever offered by {job.publisher}; ask for other months"
        )


def plan_months(
    state: State, job: Job, partitions: Sequence[Partition], warehouses: list[str], ask: bool = True
) -> Plan:
    """Plan months of one dataset.

    With ``ask`` the publisher is asked about months that are not loaded and about loaded ones whose last look is
    older than ``[publisher] max_age``; what it answers is kept with the lake. Without, only what is known counts.
    Raises ``Unreachable`` if something has to be fetched and the publisher does not answer.
    """
    with remote.planning(state.spent):
        # A warehouse that does not answer is found out now, not after hours of work.
        ledgers = [state.ledger(warehouse) for warehouse in warehouses]
        if ask:
            _look_again(state, job, partitions)
        asked = {partition: Completeness(state, job, partition) for partition in partitions}
        reasons = {partition: completeness.reason(warehouses) for partition, completeness in asked.items()}
        for partition, reason in reasons.items():
            found = [ledger.get(partition) for ledger in ledgers]
            if reason == ABSENT and any(row and row.status == FORGOTTEN for row in found):
                reasons[partition] = FORGOTTEN
        incomplete = [partition for partition, reason in reasons.items() if reason is not None]
        needed = [partition for partition in incomplete if asked[partition].lake_reason() is not None]
        absent = _absent(state, job, needed, ask)
        if ask and any(partition not in absent for partition in needed):
            check_workspace(state, job)
        if ask:
            for partition in incomplete:
                if partition not in absent:
                    ensure_allowed(asked[partition], warehouses)
    return Plan(
        [
            Entry(partition, COMPLETE) if reason is None else Entry(partition, absent.get(partition, TO_DO), reason)
            for partition, reason in reasons.items()
        ]
    )


def plan_zones(state: State, job: Job, warehouses: list[str], ask: bool = True) -> Plan:
    """Plan the zone table. Where the publisher has none it is left out with a warning: it never fails a month."""
    job = zones_job(job)
    completeness = Completeness(state, job, ZONES)
    with remote.planning(state.spent):
        reason = completeness.reason(warehouses)
        if reason is None:
            return Plan([Entry(ZONES, COMPLETE)])
        if ask:
            ensure_allowed(completeness, warehouses)
        if ask and completeness.lake_reason() is not None:
            if not _can_be_fetched(state, job, [ZONES]):
                return Plan([Entry(ZONES, TO_DO, reason)])
            try:
                job.publisher_object.version(ZONES, retry_policy())
            except MissingAtPublisher as error:
                LOGGER.warning("zones are left out: %s", text_after("zones", error))
                return Plan([Entry(ZONES, MISSING, reason)])
            except PipelineError as error:
                LOGGER.warning("zones: %s", text_after("zones", error))  # trouble may pass until their turn comes
        return Plan([Entry(ZONES, TO_DO, reason)])


def check_source(completeness: Completeness) -> None:
    """Raise what a plan would, if the month has to be fetched, and its publisher is not there or has nothing at all."""
    state, job, partition = completeness.state, completeness.job, completeness.partition
    with remote.planning(state.spent):
        if completeness.lake_reason() is None:
            return
        check_workspace(state, job)
        if partition.month is not None:
            _absent(state, job, [partition], ask=True, believe=False)
        elif _can_be_fetched(state, job, [partition]):
            job.publisher_object.check_has_files(retry_policy())


def zones_job(job: Job) -> Job:
    """The job of the zone table, which no rule applies to: changed rules leave it alone."""
    return replace(job, rules=NO_RULES)


def plan_refresh(state: State, job: Job, partitions: Sequence[Partition], warehouses: list[str]) -> Plan:
    """Ask the publisher now about months of a dataset, however fresh the last look is; plan what the answers change.

    To do are months that have another ETag or length than the loaded ones, months that have become available, and
    months that an earlier run left half done. Those that differ from what is asked for in other ways, such as rules,
    are left as they are: that is for a range. A month that cannot be asked about is ``UNASKED`` and left too. Raises
    ``Unreachable`` if the publisher does not answer.
    """
    with remote.planning(state.spent):
        manifests = {partition: state.manifest(job, partition) for partition in partitions}
        loaded = [partition for partition, found in manifests.items() if found and found.publisher == job.publisher]
        failed = observe(state, job, loaded)
        new = [partition for partition, found in manifests.items() if found is None and partition.month is not None]
        absent = _absent(state, job, new, ask=True, believe=False)
        failed |= {partition: MissingAtPublisher("a gap") for partition in absent if absent[partition] == MISSING}
        failed |= observe(state, job, [partition for partition in new if partition not in absent])
        return Plan(
            [
                Entry(partition, NOT_YET)
                if absent.get(partition) == NOT_YET
                else _refreshed(Completeness(state, job, partition), warehouses, failed.get(partition))
                for partition in partitions
            ]
        )


def _refreshed(completeness: Completeness, warehouses: list[str], error: PipelineError | None) -> Entry:
    """What to do about a month that the publisher was just asked about; ``error`` is what came instead of a version."""
    job, manifest, partition = completeness.job, completeness.manifest, completeness.partition
    if isinstance(error, MissingAtPublisher):
        return Entry(partition, MISSING, WITHDRAWN if manifest else str(error))
    if error is not None:
        return Entry(partition, UNASKED, str(error))
    if manifest is None:
        return Entry(partition, TO_DO, NEW)
    if manifest.publisher == job.publisher:
        current = completeness.version_since(manifest.source.last_look, manifest.source.fetched_at)
        if current is not None and not completeness.is_same(manifest, current):
            return Entry(partition, TO_DO, REPUBLISHED)
        if current is not None and job.publisher_object.is_local and current.etag != manifest.source.etag:
            _remember_touch(job, manifest, current)
    reason = completeness.reason(warehouses)
    half_done = reason is not None and completeness.lake_reason() is None
    return Entry(partition, TO_DO if half_done else COMPLETE, reason or "")


def _remember_touch(job: Job, manifest: Manifest, seen: Version) -> None:
    """Write down the new time of a local file that was only touched, so that nobody has to read it again to know."""
    whole = job.lake_object.manifest(manifest.partition)
    if whole is not None and whole.source == manifest.source:
        source = replace(whole.source, etag=seen.etag or "", last_modified=seen.last_modified)
        job.lake_object.restate(replace(whole, source=source))


def _look_again(state: State, job: Job, partitions: Iterable[Partition]) -> None:
    """Ask a web publisher about loaded months whose last look is too old. A look that fails changes nothing."""
    publisher = job.publisher_object
    if publisher.is_local:
        return  # looked at whenever the question comes up
    max_age = settings.PublisherSettings().max_age * settings.DAY
    due = []
    for partition in partitions:
        manifest = state.manifest(job, partition)
        if manifest is None or manifest.publisher != job.publisher:
            continue
        observed = state.observation(job, partition)
        seen = [manifest.source.fetched_at, *([dt.datetime.fromisoformat(observed["checked_at"])] if observed else [])]
        if not any(is_recent(each, max_age) for each in seen):
            due.append(partition)
    is_news = job.publisher not in state.publishers
    try:
        failed = observe(state, job, due)
    except PipelineError as error:
        if is_news:
            LOGGER.warning("loaded months are not asked about again: %s", error)
        return
    if failed:
        entries = [Entry(partition, UNASKED, str(error)) for partition, error in failed.items()]
        LOGGER.warning("%s %s: %s", titles(entries), UNASKED, entries[0].reason)


def titles(entries: Sequence[Entry], most: int = 5) -> str:
    """``green 2020-03, green 2020-04 and 7 more``."""
    named = [str(entry.partition) for entry in entries[:most]]
    return ", ".join(named) + (f" and {len(entries) - most:,} more" if len(entries) > most else "")


def check_publisher(state: State, job: Job) -> None:
    """Raise ``Unreachable`` or ``RefusedByPublisher`` if nothing can be asked of the publisher; it is tried once."""
    found = state.publishers
    if job.publisher not in found:
        found[job.publisher] = None
        try:
            job.publisher_object.check_reachable(retry_policy())
        except PipelineError as error:
            found[job.publisher] = error
    if (trouble := found[job.publisher]) is not None:
        raise trouble


def check_workspace(state: State, job: Job) -> None:
    """Raise what a workspace says that is not there or does not answer. One on this machine is made when needed."""
    if not job.workspace.startswith("file:") and job.workspace not in state.workspaces:
        from ..storage import open_store

        with waiting.for_answer(job.workspace):
            open_store(job.workspace).list(f"scratch/{EMPTY}")
        state.workspaces.add(job.workspace)


def _can_be_fetched(state: State, job: Job, partitions: Sequence[Partition]) -> bool:
    """Whether the publisher answers. False if it does not and need not, because an earlier run fetched all of them."""
    from ..tasks.scratch import RAW, Scratch

    try:
        check_publisher(state, job)
        return True
    except Unreachable:
        if all(Scratch(job, partition).record(RAW) for partition in partitions):
            return False
        raise


def observe(state: State, job: Job, partitions: Sequence[Partition]) -> dict[Partition, PipelineError]:
    """Ask the publisher about months now and keep the answers with the lake. Returns what failed.

    After the first month that took all tries in vain, the others get one try each, as long as the plan has patience
    left. Raises ``Unreachable`` if the publisher does not answer at all.
    """
    if not partitions:
        return {}
    check_publisher(state, job)
    failed: dict[Partition, PipelineError] = {}
    patience = retry_policy()

    def one(partition: Partition) -> Version | None:
        nonlocal patience
        try:
            return job.publisher_object.version(partition, patience)
        except PipelineError as error:
            failed[partition] = error
            if isinstance(error, TransientError):
                patience = replace(patience, attempts=1)
            return None

    with ThreadPoolExecutor(CONCURRENT) as pool:
        answers = dict(zip(partitions, pool.map(one, partitions), strict=True))
    now = dt.datetime.now(dt.UTC).isoformat()
    updates = {
        partition: {"version": version.to_dict(), "checked_at": now}
        for partition, version in answers.items()
        if version is not None
    }
    if not job.publisher_object.is_local:
        _keep(state, job, updates)
    return failed


def _absent(
    state: State, job: Job, partitions: Sequence[Partition], ask: bool, believe: bool = True
) -> dict[Partition, str]:
    """Of months of one dataset that would have to be downloaded, those that are absent: NOT_YET or MISSING.

    With ``believe`` a recent "not there" is not asked about again.
    """
    if not partitions:
        return {}
    if not ask and not job.publisher_object.is_local:
        return {each: absence for each in partitions if (absence := _known_absence(state, job, each))}
    found = _believed(state, job, partitions) if believe else {}
    unknown = [partition for partition in partitions if partition not in found]
    if unknown and _can_be_fetched(state, job, unknown):
        found |= _ask_for(state, job, unknown)
    return found


def _ask_for(state: State, job: Job, partitions: Sequence[Partition]) -> dict[Partition, str]:
    """Those of the months that the publisher does not have, NOT_YET or MISSING, which is kept with the lake."""
    publisher, dataset = job.publisher_object, partitions[0].dataset
    loaded = [
        partition.first_day
        for partition, manifest in state.manifests(job, dataset).items()
        if manifest.publisher == job.publisher
    ]
    availability = publisher.check_availability(
        dataset,
        [partition.first_day for partition in partitions],
        retry_policy(),
        known_month=max(loaded, default=None),
    )
    absent = dict.fromkeys(availability.not_yet, NOT_YET) | dict.fromkeys(availability.missing, MISSING)
    found = {Partition(dataset, month): absence for month, absence in absent.items()}
    now = dt.datetime.now(dt.UTC).isoformat()
    if not publisher.is_local:
        _keep(state, job, {each: {"absent": absence, "checked_at": now} for each, absence in found.items()})
    return found


def _known_absence(state: State, job: Job, partition: Partition) -> str | None:
    """NOT_YET or MISSING for a month that was absent when the publisher was asked last, by its age today."""
    absence = (state.observation(job, partition) or {}).get("absent")
    if absence == NOT_YET and not can_still_appear(partition.first_day):
        return MISSING
    return absence if absence in (NOT_YET, MISSING) else None


def _believed(state: State, job: Job, partitions: Iterable[Partition]) -> dict[Partition, str]:
    """Months that were found absent so recently that the publisher is not asked again."""
    if job.publisher_object.is_local:
        return {}
    max_age = settings.PublisherSettings().absent_max_age * 3600
    believed = {}
    for partition in partitions:
        absence = _known_absence(state, job, partition)
        observed = state.observation(job, partition)
        if absence and observed and is_recent(dt.datetime.fromisoformat(observed["checked_at"]), max_age):
            believed[partition] = absence
    return believed


def _keep(state: State, job: Job, updates: Mapping[Partition, dict[str, Any]]) -> None:
    """Keep with the lake, and in the state, what was seen."""
    job.lake_object.observe(job.publisher, updates)
    state.observations(job).update(updates)

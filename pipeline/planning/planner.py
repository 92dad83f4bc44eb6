"""Makes the plan of a whole range before anything runs: which months have to be worked on, and why.

One listing of the lake, one ledger query per warehouse, and as few questions to the publisher as possible.
``RangeMonthly`` runs what the plan says; ``python -m pipeline plan`` shows it, and ``status`` shows what is known
without asking a publisher.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import remote
from ..errors import MissingAtPublisher, NeverOffered, PipelineError, text_after
from ..job import Job, retry_policy
from ..partition import ZONES, Partition, format_month
from .completeness import ABSENT, REPUBLISHED, Completeness
from .plan import COMPLETE, FORGOTTEN, MISSING, NEW, NOT_YET, TO_DO, UNASKED, WITHDRAWN, Entry, Plan
from .publisher_questions import ask_again, can_be_fetched, check_workspace, find_absent, observe
from .state import State
from .synthetic import ensure_allowed

if TYPE_CHECKING:
    from ..lake.manifest import Manifest
    from ..publishers.version import Version

LOGGER = logging.getLogger("pipeline")


def plan_range(
    state: State, job: Job, names: Iterable[str], months: Sequence[dt.date], warehouses: list[str], ask: bool = True
) -> Plan:
    """Plan the zone table, and of each dataset those months that were ever offered; ``ask`` as in ``plan_months``."""
    plan = plan_zones(state, job, warehouses, ask)
    for name in names:
        plan += plan_months(state, job, offered(job, name, months), warehouses, ask)
    return plan


def offered(job: Job, dataset: str, months: Iterable[dt.date]) -> list[Partition]:
    """Those of the months that the publisher can have, as far as its beginning and its end tell."""

    def is_offered(partition: Partition) -> bool:
        try:
            job.publisher.check_offered(partition)
        except NeverOffered:
            return False
        return True

    return [partition for month in months if is_offered(partition := Partition(dataset, month))]


def check_any_offered(job: Job, names: Sequence[str], months: Sequence[dt.date]) -> None:
    """Raise NeverOffered if the publisher cannot have any of the datasets in any of the months."""
    if not any(offered(job, name, months) for name in names):
        span = format_month(months[0]) + (f" to {format_month(months[-1])}" if len(months) > 1 else "")
        raise NeverOffered(
            f"{span}: none of {', '.join(names)} was ever offered by {job.publisher_label}; ask for other months"
        )


def plan_months(
    state: State, job: Job, partitions: Sequence[Partition], warehouses: list[str], ask: bool = True
) -> Plan:
    """Plan months of one dataset.

    With ``ask`` the publisher is asked about months that are not loaded and about loaded ones whose last answer is
    older than ``[publisher] max_age``; what it answers is kept with the lake. Without, only what is known counts.
    Raises ``Unreachable`` if something has to be fetched and the publisher does not answer.
    """
    with remote.planning(state.spent):
        # A warehouse that does not answer is found out now, not after hours of work.
        ledgers = [state.ledger(warehouse) for warehouse in warehouses]
        if ask:
            ask_again(state, job, partitions)
        asked = {partition: Completeness(state, job, partition) for partition in partitions}
        reasons = {partition: completeness.why_incomplete(warehouses) for partition, completeness in asked.items()}
        for partition, reason in reasons.items():
            found = [ledger.get(partition) for ledger in ledgers]
            if reason == ABSENT and any(row and row.status == FORGOTTEN for row in found):
                reasons[partition] = FORGOTTEN
        incomplete = [partition for partition, reason in reasons.items() if reason is not None]
        needed = [partition for partition in incomplete if asked[partition].why_not_in_lake() is not None]
        absent = find_absent(state, job, needed, ask)
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
    job = job.for_zones()
    completeness = Completeness(state, job, ZONES)
    with remote.planning(state.spent):
        reason = completeness.why_incomplete(warehouses)
        if reason is None:
            return Plan([Entry(ZONES, COMPLETE)])
        if ask:
            ensure_allowed(completeness, warehouses)
        if ask and completeness.why_not_in_lake() is not None:
            if not can_be_fetched(state, job, [ZONES]):
                return Plan([Entry(ZONES, TO_DO, reason)])
            try:
                job.publisher.version(ZONES, retry_policy())
            except MissingAtPublisher as error:
                LOGGER.warning("zones are left out: %s", text_after("zones", error))
                return Plan([Entry(ZONES, MISSING, reason)])
            except PipelineError as error:
                LOGGER.warning("zones: %s", text_after("zones", error))  # trouble may pass until their turn comes
        return Plan([Entry(ZONES, TO_DO, reason)])


def check_fetchable(completeness: Completeness) -> None:
    """Raise the error of a plan if the month has to be fetched and its publisher does not answer or has nothing."""
    state, job, partition = completeness.state, completeness.job, completeness.partition
    with remote.planning(state.spent):
        if completeness.why_not_in_lake() is None:
            return
        check_workspace(state, job)
        if partition.month is not None:
            find_absent(state, job, [partition], ask=True, use_cache=False)
        elif can_be_fetched(state, job, [partition]):
            job.publisher.check_has_files(retry_policy())


def plan_refresh(state: State, job: Job, partitions: Sequence[Partition], warehouses: list[str]) -> Plan:
    """Ask the publisher now about months of a dataset, however fresh its last answers are, and plan what changed.

    Months to do are those that have another ETag or length than the loaded ones, months that have become available, and
    months that an earlier run left half done. Those that differ from what is asked for in other ways, such as rules,
    are left as they are: that is for a range. A month that cannot be asked about is ``UNASKED`` and left too. Raises
    ``Unreachable`` if the publisher does not answer.
    """
    with remote.planning(state.spent):
        manifests = {partition: state.manifest(job, partition) for partition in partitions}
        loaded = [
            partition for partition, found in manifests.items() if found and found.publisher == job.publisher_label
        ]
        failed = observe(state, job, loaded)
        new = [partition for partition, found in manifests.items() if found is None and partition.month is not None]
        absent = find_absent(state, job, new, ask=True, use_cache=False)
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
    if manifest.publisher == job.publisher_label:
        current = completeness.version_since(manifest.source.last_look, manifest.source.fetched_at)
        if current is not None and not completeness.has_version(manifest, current):
            return Entry(partition, TO_DO, REPUBLISHED)
        if current is not None and job.publisher.is_local and current.etag != manifest.source.etag:
            _remember_touch(job, manifest, current)
    reason = completeness.why_incomplete(warehouses)
    half_done = reason is not None and completeness.why_not_in_lake() is None
    return Entry(partition, TO_DO if half_done else COMPLETE, reason or "")


def _remember_touch(job: Job, manifest: Manifest, seen: Version) -> None:
    """Write down the new time of a local file that was only touched, so that nobody has to read it again to know."""
    whole = job.lake.manifest(manifest.partition)
    if whole is not None and whole.source == manifest.source:
        source = replace(whole.source, etag=seen.etag or "", last_modified=seen.last_modified)
        job.lake.restate(replace(whole, source=source))

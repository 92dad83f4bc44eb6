"""Asks the publisher about months while a run is planned, and says how long an earlier answer is cached.

The questions are which versions it has now, and which months it does not have. They are as few as possible: answers are
kept with the lake and used again for ``[publisher] max_age`` and ``absent_max_age``.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .. import settings, time_limits
from ..errors import PipelineError, TransientError, Unreachable
from ..job import Job, retry_policy
from ..partition import Partition
from ..publishers.availability import can_still_appear
from .completeness import is_recent
from .plan import MISSING, NOT_YET, UNASKED, Entry, titles
from .scratch import RAW, Scratch
from .state import State

if TYPE_CHECKING:
    from ..publishers.version import Version

LOGGER = logging.getLogger("pipeline")

#: Requests under way at once when loaded months are asked about again.
CONCURRENT = 8


def ask_again(state: State, job: Job, partitions: Iterable[Partition]) -> None:
    """Ask a web publisher about loaded months whose last answer is too old. A question that fails changes nothing."""
    publisher = job.publisher
    if publisher.is_local:
        return  # asked by ``Completeness.version_since``, each time
    max_age = settings.PublisherSettings().max_age * settings.DAY
    due = []
    for partition in partitions:
        manifest = state.manifest(job, partition)
        if manifest is None or manifest.publisher != job.publisher_label:
            continue
        observed = state.observation(job, partition)
        seen = [manifest.source.fetched_at, *([dt.datetime.fromisoformat(observed["checked_at"])] if observed else [])]
        if not any(is_recent(each, max_age) for each in seen):
            due.append(partition)
    is_news = job.publisher_label not in state.publishers
    try:
        failed = observe(state, job, due)
    except PipelineError as error:
        if is_news:
            LOGGER.warning("loaded months are not asked about again: %s", error)
        return
    if failed:
        entries = [Entry(partition, UNASKED, str(error)) for partition, error in failed.items()]
        LOGGER.warning("%s %s: %s", titles(entries), UNASKED, entries[0].reason)


def check_publisher(state: State, job: Job) -> None:
    """Raise ``Unreachable`` or ``RefusedByPublisher`` if nothing can be asked of the publisher; it is tried once."""
    found = state.publishers
    if job.publisher_label not in found:
        found[job.publisher_label] = None
        try:
            job.publisher.check_reachable(retry_policy())
        except PipelineError as error:
            found[job.publisher_label] = error
    if (trouble := found[job.publisher_label]) is not None:
        raise trouble


def check_workspace(state: State, job: Job) -> None:
    """Raise the error of a workspace that is missing or does not answer. A local one is made when needed."""
    from ..storage import is_local, open_store

    if not is_local(job.workspace_url) and job.workspace_url not in state.workspaces:
        with time_limits.for_answer(job.workspace_url):
            open_store(job.workspace_url).list("scratch/none")  # which nobody makes, so that to list it costs nothing
        state.workspaces.add(job.workspace_url)


def can_be_fetched(state: State, job: Job, partitions: Sequence[Partition]) -> bool:
    """Whether the publisher answers. False if it does not and need not, because an earlier run fetched all of them."""
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
            return job.publisher.version(partition, patience)
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
    if not job.publisher.is_local:
        _keep(state, job, updates)
    return failed


def find_absent(
    state: State, job: Job, partitions: Sequence[Partition], ask: bool, use_cache: bool = True
) -> dict[Partition, str]:
    """Of months of one dataset that would have to be downloaded, those that are absent: NOT_YET or MISSING.

    With ``use_cache`` a recent "not there" is not asked about again.
    """
    found: dict[Partition, str] = {}
    if not job.publisher.is_local and (use_cache or not ask):
        max_age = settings.PublisherSettings().absent_max_age * 3600 if ask else float("inf")
        known = {partition: _known_absence(state, job, partition, max_age) for partition in partitions}
        found = {partition: absence for partition, absence in known.items() if absence}
        if not ask:
            return found
    unknown = [partition for partition in partitions if partition not in found]
    if unknown and can_be_fetched(state, job, unknown):
        found |= _ask_for(state, job, unknown)
    return found


def _ask_for(state: State, job: Job, partitions: Sequence[Partition]) -> dict[Partition, str]:
    """Those of the months that the publisher does not have, NOT_YET or MISSING, which is kept with the lake."""
    publisher, dataset = job.publisher, partitions[0].dataset
    loaded = [
        partition.first_day
        for partition, manifest in state.manifests(job, dataset).items()
        if manifest.publisher == job.publisher_label
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


def _known_absence(state: State, job: Job, partition: Partition, max_age: float) -> str | None:
    """NOT_YET or MISSING, by its age today, for a month that was absent when the publisher was asked last.

    None if that was more than ``max_age`` seconds ago.
    """
    observed = state.observation(job, partition) or {}
    absence = observed.get("absent")
    if max_age < float("inf") and not (
        absence and is_recent(dt.datetime.fromisoformat(observed["checked_at"]), max_age)
    ):
        return None
    if absence == NOT_YET and not can_still_appear(partition.first_day):
        return MISSING
    return absence if absence in (NOT_YET, MISSING) else None


def _keep(state: State, job: Job, updates: Mapping[Partition, dict[str, Any]]) -> None:
    """Keep with the lake, and in the state, what was seen."""
    job.lake.observe(job.publisher_label, updates)
    state.observations(job).update(updates)

"""Removal of scratch and temporary files of killed or overtaken runs, at the end of every later run.

Temporary files go when nobody has written to them for a day. Scratch goes

* when the month is in the lake as its job or the run that ends now wants it, or newer than it, whoever made it;
* when other code made it, or nothing says what it was made for;
* in any case when nobody has written to it for a week.

Scratch of a month that is still to be done stays, for the run that goes on with it. So does all that another run may be
using: in a folder while any other run is alive in the workspace; in a bucket, where only the runs of this host can be
asked, while the run that wrote it last is alive or on another host; in both for a day at most. A run that needs it all
the same makes it again.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping
from typing import Any

from .. import code_version, remote
from ..errors import LakeError, StorageUnavailable
from ..job import Job
from ..local_paths import path_of
from ..partition import ZONES
from ..planning.completeness import Completeness
from ..planning.scratch import ABOUT, RECORD, ROOT, lock_of, partition_of, prefix_of, store_of
from ..planning.state import CachedState, State
from ..reporting import journal, journal_reader
from ..storage import Store, StoredObject, is_local, open_store
from ..strict_json import json_object

LOGGER = logging.getLogger("pipeline")

#: Seconds without a change after which nobody is at work on scratch, and after which nobody comes back to it.
DAY, WEEK = 24 * 3600.0, 7 * 24 * 3600.0


def sweep(jobs: set[Job], has_worked: bool) -> None:
    """Sweep the workspaces and lakes of a run's jobs. What cannot be swept now is left to the next run.

    A server is asked only after a run that had something to do, and waited for half a minute. One listing of each place
    is made, and one more of a lake where something was left behind.
    """
    jobs = {job for job in jobs if has_worked or all(is_local(url) for url in (job.workspace_url, job.lake_url))}
    try:
        with remote.planning():
            for url in sorted({url for job in jobs for url in (job.workspace_url, job.lake_url)}):
                open_store(url).sweep()
            state = CachedState()  # not what was true when the run was planned
            for workspace in sorted({job.workspace_url for job in jobs}):
                sweep_scratch(state, workspace, {job for job in jobs if job.workspace_url == workspace})
    except Exception as error:  # whatever it is, the run has done its work
        LOGGER.warning("files of earlier runs are not removed now: %s", error)


def sweep_scratch(state: State, workspace: str, jobs: set[Job]) -> list[str]:
    """Remove the scratch that is of no use any more, now that ``jobs`` were run. Returns the folders that are gone."""
    store = store_of(workspace)
    found: dict[str, list[StoredObject]] = {}
    for path, stored in store.list(ROOT).items():
        if (prefix := prefix_of(path)) is not None:
            found.setdefault(prefix, []).append(stored)
    is_alone = bool(found) and store.has_locks and not _others_run(workspace)
    swept = []
    for prefix, files in found.items():
        written = max(file.modified for file in files)
        about = _about(store, files)
        is_free = is_alone or time.time() - written > DAY or (not store.has_locks and _is_of_ended_run(about))
        if is_free and _is_useless(state, prefix, written, about, workspace, jobs):
            try:
                with store.lock(lock_of(prefix), timeout=0):
                    store.delete_tree(prefix)
            except StorageUnavailable:
                continue  # somebody is at work on the month
            swept.append(prefix)
    return swept


def _others_run(workspace: str) -> bool:
    """Whether another run is alive that has its journal in this workspace, or where ours is."""
    folders = {journal.folder(), path_of(workspace) / journal.folder().name}
    files = {file for folder in folders for file in folder.glob("*.jsonl") if file.is_file()}
    return any(journal_reader.is_held(file) for file in files - {journal.path()})


def _is_of_ended_run(about: Mapping[str, Any]) -> bool:
    """Whether a run of this host wrote the scratch that has ended since."""
    run = str(about.get("run", ""))
    is_here = journal.is_run_id(run) and about.get("host") == socket.gethostname()
    return is_here and not journal_reader.is_held(journal.folder() / f"{run}.jsonl")


def _is_useless(
    state: State, prefix: str, written: float, about: Mapping[str, Any], workspace: str, jobs: set[Job]
) -> bool:
    if time.time() - written > WEEK or not prefix.endswith(f"-{code_version.digest()}"):
        return True
    try:
        publisher, rules, lake = (str(about["job"][name]) for name in ("publisher", "rules", "lake"))
    except (LookupError, TypeError):
        return True  # without a record nobody trusts it
    jobs = {job for job in jobs if job.lake_url == lake}
    if not jobs:
        return False  # the runs of that lake know
    job = Job(publisher, rules, lake, workspace)
    partition = partition_of(prefix)
    manifest = state.manifest(job, partition)
    if manifest is None:
        return False
    made = manifest.created_at.timestamp()  # in whole seconds
    if written < made or (written <= made + 1 and about.get("run") == manifest.run_id):
        return True
    if partition == ZONES:
        jobs = {job.for_zones() for job in jobs}
    return any(Completeness(state, each, partition).why_not_in_lake() is None for each in (job, *jobs))


def _about(store: Store, files: list[StoredObject]) -> Mapping[str, Any]:
    """Who wrote to the scratch last, as far as anything says so; empty if nothing does."""
    for file in sorted(files, key=lambda file: file.modified, reverse=True):
        try:
            if ABOUT in file.metadata:
                found = json_object(file.metadata[ABOUT].encode())
            elif store.has_locks and file.path.endswith(".json"):  # in a folder, where reading costs nothing
                found = json_object(store.read_small(file.path, RECORD))[ABOUT]
            else:
                continue
        except (FileNotFoundError, ValueError, LookupError, LakeError):
            continue
        if isinstance(found, dict):
            return found
    return {}

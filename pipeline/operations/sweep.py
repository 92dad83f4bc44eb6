"""What runs leave behind when they are killed, given up or overtaken: removed at the end of every later run.

Temporary files go when nobody has written to them for a day. Scratch goes

* when the month is in the lake as its job wants it, or the lake has a newer version of the month, whoever made it;
* when other code made it, or nothing says what it was made for;
* in any case when nobody has written to it for a week.

Scratch of a month that is still to be done stays, for the run that goes on with it. So does all that another run may be
using: in a folder while any other run is alive in the workspace, in a bucket, where nobody can tell, for a day.
"""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Iterable
from typing import Any

from .. import completeness, own_code
from ..completeness import Job
from ..errors import LakeError, LakeTrouble, PipelineError
from ..lake import Store, StoredObject, open_store
from ..stages.scratch import RECORD, ROOT, lock_of, prefix_of, store_of
from ..strict_json import json_object
from . import journal

LOGGER = logging.getLogger("pipeline")

#: Seconds without a change after which nobody is at work on scratch, and after which nobody comes back to it.
DAY, WEEK = 24 * 3600.0, 7 * 24 * 3600.0


def sweep(tasks: Iterable[Any], has_worked: bool) -> None:
    """Sweep the workspaces and lakes of a run's tasks. What cannot be swept now is left to the next run.

    A server is asked only after a run that had something to do: it is known to answer then. There is one listing, and
    one look at a lake where something was left behind.
    """
    places = {(task.workspace, task.lake) for task in tasks if hasattr(task, "workspace") and hasattr(task, "lake")}
    places = {pair for pair in places if has_worked or all(url.startswith("file:") for url in pair)}
    try:
        for url in sorted({url for pair in places for url in pair}):
            open_store(url).sweep()
        with completeness.running(), completeness.scheduling():  # not what was true when the run was planned
            for workspace in sorted({workspace for workspace, _ in places}):
                sweep_scratch(workspace, {lake for where, lake in places if where == workspace})
    except (PipelineError, OSError) as error:
        LOGGER.warning("what earlier runs left behind is not removed now: %s", error)


def sweep_scratch(workspace: str, lakes: set[str]) -> list[str]:
    """Remove the scratch that is of no use any more. Returns the folders that are gone."""
    store = store_of(workspace)
    found: dict[str, list[StoredObject]] = {}
    for path, stored in store.list(ROOT).items():
        if (prefix := prefix_of(path)) is not None:
            found.setdefault(prefix, []).append(stored)
    is_alone = bool(found) and store.has_locks and not _others_run()
    swept = []
    for prefix, files in found.items():
        written = max(file.modified for file in files)
        if (is_alone or time.time() - written > DAY) and _is_useless(store, prefix, written, workspace, lakes):
            try:
                with store.lock(lock_of(prefix), timeout=0):
                    store.delete_tree(prefix)
            except LakeTrouble:
                continue  # somebody is at work on the month
            swept.append(prefix)
    return swept


def _others_run() -> bool:
    """Whether another run is alive in the workspace, where its journal is too."""
    return any(journal.is_held(file) for file in journal.files() if file != journal.path())


def _is_useless(store: Store, prefix: str, written: float, workspace: str, lakes: set[str]) -> bool:
    if time.time() - written > WEEK or not prefix.endswith(f"-{own_code.digest()}"):
        return True
    job = _job_of(store, prefix, workspace)
    if job is None:
        return True
    if job.lake not in lakes:
        return False  # its owner knows
    _, dataset, name, _ = prefix.split("/")
    month = None if name == "all" else dt.date.fromisoformat(f"{name}-01")
    manifest = completeness.look().manifest(job, dataset, month)
    if manifest is None:
        return False
    is_overtaken = manifest.created_at.timestamp() + 1 >= written  # a manifest has whole seconds
    return is_overtaken or completeness.lake_reason(job, dataset, month) is None


def _job_of(store: Store, prefix: str, workspace: str) -> Job | None:
    """Whose scratch it is, by one of its records; None if there is none, and so nothing that anybody trusts."""
    for name in sorted(store.list(prefix)):
        if not name.endswith(".json"):
            continue
        try:
            job = json_object(store.read_small(name, RECORD))["job"]
            return Job(str(job["publisher"]), str(job["rules"]), str(job["lake"]), workspace)
        except (FileNotFoundError, ValueError, LookupError, TypeError, LakeError):
            continue
    return None

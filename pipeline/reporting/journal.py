"""The journal of a run: one JSON line per event, in a file per run that all its processes append to.

The run's id is made once and passed to child processes through the environment; it also stands in log, manifest and
ledger. Progress bars, the table at the end and everything else that reports a run read this file; so can a person.
"""

from __future__ import annotations

import datetime as dt
import errno
import json
import os
import re
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import job
from ..errors import UsageError
from ..local_paths import broken_link, path_of
from ..lock_files import lock_within
from ..partition import Partition
from ..safe_files import NOT_REGULAR, make_folder, open_regular, permissions, private_folder
from ..sanitize import URL_WITHOUT_SECRET
from ..storage import is_local

RUN_ID = "PIPELINE_RUN_ID"

#: In the environment of a run's processes: the run that has begun. Its first process alone begins and ends it.
BEGUN = "PIPELINE_RUN_BEGUN"

#: In the environment of a run that an agent has started: the agent. The queue sees to it that no two run at once.
AGENT = "PIPELINE_AGENT"

#: Seconds to wait for a journal that another process holds: it may only look whether that run was killed.
HELD_WAIT = 2.0

#: What the system says of a place where this user can never write, unlike a full disk.
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)

#: Stands in a command for an address that may hold a secret.
ELLIPSIS = "…"

#: Flags, also of somebody else's programs, whose values may be secrets whatever they look like.
_SECRET = re.compile(r"--notify-urls|pass(word|wd|phrase)|secret|token|credential|api.?key", re.IGNORECASE)

#: Days for which journals are kept.
KEEP = 90


#: The descriptor, if any, that holds the journal of the run that this process has begun; None if it has begun none. It
#: is the only state of this module outside of files and the environment: Luigi forks worker processes at will, and they
#: find the run's id and journal in the environment.
_begun: tuple[int, ...] | None = None


def is_run_id(text: str) -> bool:
    """Whether a text can be the id of a run: it names files, queue objects and rows of the ledger."""
    return re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", text) is not None


def run_id() -> str:
    """Id of the run this process belongs to, such as ``20210401T050000-3fa2c1``; made when first asked for.

    Raises UsageError if the environment has one that cannot name files in every store.
    """
    check_run_id()
    if not os.environ.get(RUN_ID):
        os.environ[RUN_ID] = f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
    return os.environ[RUN_ID]


def check_run_id() -> None:
    """Refuse an id in the environment that cannot name files in every store."""
    given = os.environ.get(RUN_ID)
    if given and not is_run_id(given):
        shown = given if len(given) <= 40 else f"{given[:40]}..."
        raise UsageError(
            f"environment variable {RUN_ID}: {shown!r} cannot be the id of a run; use at most 100 letters, digits, "
            "dots, dashes and underscores, no dot first, or unset it"
        )


def folder() -> Path:
    """Where the journals are: beside the scratch files, or in the system's temporary folder if those are in a cloud."""
    url = job.workspace_url()
    if is_local(url):
        return path_of(url) / "runs"
    return private_folder("nyc-trips-runs")


def ensure_folder() -> Path:
    """The folder of the journals, made if it is not there. Raises OSError."""
    found = folder()
    make_folder(found, permissions(found.parent)[1])
    return found


def open_file(path: Path, flags: int) -> int:
    """Open a file of that folder, new ones for their owner or for the group that shares the workspace.

    Raises OSError for a link or a pipe in its place.
    """
    return open_regular(path, flags, permissions(path.parent.parent)[0])


def path() -> Path:
    return folder() / f"{run_id()}.jsonl"


def record(event: str, **details: Any) -> None:
    """Append one event to the journal of this run. A journal that cannot be written never harms the run."""
    with suppress(UsageError):  # said when the run began
        append(path(), event, **details)


def append(target: Path, event: str, **details: Any) -> None:
    """Append one event to a journal, as far as it can be written."""
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid(), **details}, default=str) + "\n"
    try:
        make_folder(target.parent, permissions(target.parent.parent)[1])
        descriptor = open_file(target, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, line.encode())  # one write of one line: lines of several processes never mix
        finally:
            os.close(descriptor)
    except OSError:
        pass


def record_all_loaded(task: str, partition: Partition, warehouses: list[str]) -> None:
    """Note that a MonthlyTrips is complete, whoever has loaded it. ``task`` is its id."""
    record("all loaded", task=task, dataset=partition.dataset, month=partition.month_text, warehouses=warehouses)


def begin(command: Sequence[str], again: str = "") -> bool:
    """Write this run's first event, and hold its journal for as long as this process lives.

    False if this process belongs to a run that another process has begun. An id may be used again after its run ended:
    the journal goes on. Raises UsageError while another process runs under the same id, or if this user may not write
    into the workspace. ``again`` is what a person types to repeat the run, if that is more than the command.
    """
    global _begun
    if os.environ.get(BEGUN) == run_id():
        return False
    locks: tuple[int, ...] = ()
    try:
        ensure_folder()
        locks = (_hold(path()),)  # before the event: what has begun and is not held is dead
    except OSError as error:
        if error.errno in NOT_REGULAR or (error.errno in REFUSED and is_local(job.workspace_url())):
            raise not_writable(error) from None
    os.environ[BEGUN] = run_id()
    _begun = locks
    agent = os.environ.get(AGENT, "")
    shown = without_addresses(command)
    record("begun", run=run_id(), command=shown, again=again, host=socket.gethostname(), agent=agent)
    _remove_old()
    return True


def _remove_old() -> None:
    """Remove journals and logs of runs that ended ``KEEP`` days ago; none behind a symbolic link to another folder."""
    if folder().is_symlink():
        return
    oldest = time.time() - KEEP * 86400
    for file in files():
        with suppress(OSError):  # another run removes them too
            if file.stat().st_mtime < oldest:
                file.with_suffix(".log").unlink(missing_ok=True)
                file.unlink()


def _hold(journal: Path) -> int:
    """Open and lock a journal. Raises UsageError if another process has it."""
    descriptor = open_file(journal, os.O_RDWR | os.O_CREAT)
    with suppress(OSError):  # a file system without locks
        if not lock_within(descriptor, HELD_WAIT) and not os.environ.get(AGENT):
            os.close(descriptor)
            raise UsageError(
                f"run {run_id()} is under way; {RUN_ID} must be another one for each run at the same time, or unset"
            )
    return descriptor


def without_addresses(command: Sequence[str]) -> list[str]:
    """The words of a command, with an ellipsis for an address that may hold a secret: a password, a token, a query."""
    found: list[str] = []
    for word in command:
        flag, is_flag, value = word.partition("=") if word.startswith("--") else ("", "", word)
        named = flag or (found[-1] if found and found[-1].startswith("-") else "")
        is_secret = _SECRET.search(named) or ("//" in value and not URL_WITHOUT_SECRET.fullmatch(value))
        found.append(f"{flag}{is_flag}{ELLIPSIS}" if is_secret and value and not value.startswith("-") else word)
    return found


def not_writable(error: OSError) -> UsageError:
    """The error of a folder of journals that cannot be used, as one line."""
    if error.errno in NOT_REGULAR:
        return UsageError(f"{error.filename} is {NOT_REGULAR[error.errno]}, not a file of a run; remove it")
    if lost := broken_link(folder()):
        return UsageError(f"[workspace] url: {lost}")
    return UsageError(
        f"[workspace] url: {folder()} cannot be written to: {error.strerror}; give your user the right to, "
        "or name another folder"
    )


def is_mine() -> bool:
    """Whether this process has begun the run, and has not ended it yet."""
    return _begun is not None


def held() -> tuple[int, ...]:
    """The descriptor that keeps the journal held, for a child process that shall keep it held too."""
    return _begun or ()


def end() -> None:
    """Write this run's last event and let go of the journal."""
    global _begun
    record("ended")
    os.environ.pop(BEGUN, None)
    for lock in held():
        os.close(lock)
    _begun = None


def files() -> list[Path]:
    """The journals that lie here, each named by the id of its run. Nothing else is looked at, and no link followed."""
    found = (path for path in folder().glob("*.jsonl") if is_run_id(path.stem))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())

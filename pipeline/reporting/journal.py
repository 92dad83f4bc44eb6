"""The journal of a run: one JSON line per event, in a file per run that all its processes append to.

The run's id is made once and passed to child processes through the environment; it also stands in log, manifest and
ledger. Progress bars, the table at the end and everything else that reports a run read this file; so can a person.
"""

from __future__ import annotations

import datetime as dt
import errno
import fcntl
import json
import mmap
import os
import re
import secrets
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from .. import job, names
from ..errors import UsageError
from ..files import PLANTED, lost_link, make_folder, modes, open_plain, private_folder
from ..partition import Partition
from ..plain import HARMLESS

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

#: Days after which a run that was killed is not reported any more.
RECENT = 40

#: Bytes at the end of a journal in which its last event is looked for.
_TAIL = 1 << 16

#: How the line begins with which a run begins.
_FIRST = b'{"event": "begun"'

#: Bytes of the longest line that is looked at, and of the largest journal. A run of months stays far below.
_LINE, LARGEST = 1 << 22, 1 << 30

#: Most events of a killed run that are looked at.
_MOST = 10_000_000

#: The latest time of an event, in seconds since 1970: some year that every calendar has.
_LATEST = 1e11


@dataclass(frozen=True)
class _Begun:
    """A run that this process has begun and not ended; ``lock`` is the descriptor that holds its journal."""

    lock: int | None


#: The run of this process, if this process has begun it. It is the only state of this module outside of files and the
#: environment: Luigi forks worker processes at will, and they find the run's id and journal in the environment.
_begun: _Begun | None = None


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
    if given and not names.is_run_id(given):
        shown = given if len(given) <= 40 else f"{given[:40]}..."
        raise UsageError(
            f"environment variable {RUN_ID}: {shown!r} cannot be the id of a run; use at most 100 letters, digits, "
            "dots, dashes and underscores, no dot first, or unset it"
        )


def folder() -> Path:
    """Where the journals are: beside the scratch files, or in the system's temporary folder if those are in a cloud."""
    url = job.workspace_url()
    if url.startswith("file:"):
        from ..storage.local import path_of

        return path_of(url) / "runs"
    return private_folder("nyc-trips-runs")


def ensure_folder() -> Path:
    """The folder of the journals, made if it is not there. Raises OSError."""
    found = folder()
    make_folder(found, modes(found.parent)[1])
    return found


def open_file(path: Path, flags: int) -> int:
    """Open a file of that folder, new ones for their owner or for the group that shares the workspace.

    Raises OSError for a link or a pipe in its place.
    """
    return open_plain(path, flags, modes(path.parent.parent)[0])


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
        make_folder(target.parent, modes(target.parent.parent)[1])
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
    lock = None
    try:
        ensure_folder()
        lock = _hold(path())  # before the event: what has begun and is not held is dead
    except OSError as error:
        if error.errno in PLANTED or (error.errno in REFUSED and job.workspace_url().startswith("file:")):
            raise not_writable(error) from None
    os.environ[BEGUN] = run_id()
    _begun = _Begun(lock)
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
    give_up = time.monotonic() + HELD_WAIT
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() < give_up:
                time.sleep(0.05)
            elif os.environ.get(AGENT):
                return descriptor
            else:
                os.close(descriptor)
                raise UsageError(
                    f"run {run_id()} is under way; {RUN_ID} must be another one for each run at the same time, or unset"
                ) from None
        except OSError:
            return descriptor  # a file system without locks


def without_addresses(command: Sequence[str]) -> list[str]:
    """The words of a command, with an ellipsis for an address that may hold a secret: a password, a token, a query."""
    found: list[str] = []
    for word in command:
        flag, is_flag, value = word.partition("=") if word.startswith("--") else ("", "", word)
        named = flag or (found[-1] if found and found[-1].startswith("-") else "")
        is_secret = _SECRET.search(named) or ("//" in value and not HARMLESS.fullmatch(value))
        found.append(f"{flag}{is_flag}{ELLIPSIS}" if is_secret and value and not value.startswith("-") else word)
    return found


def not_writable(error: OSError) -> UsageError:
    """The error of a folder of journals that cannot be used, as one line."""
    if error.errno in PLANTED:
        return UsageError(f"{error.filename} is {PLANTED[error.errno]}, not a file of a run; remove it")
    if lost := lost_link(folder()):
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
    return () if _begun is None or _begun.lock is None else (_begun.lock,)


def end() -> None:
    """Write this run's last event and let go of the journal."""
    global _begun
    record("ended")
    os.environ.pop(BEGUN, None)
    for lock in held():
        os.close(lock)
    _begun = None


@dataclass
class Killed:
    """The events of a run that was killed, or whose host went down."""

    events: list[dict[str, Any]]
    _journal: IO[bytes]

    def reported(self) -> None:
        """Note that it was reported: it is not found again."""
        self._journal.write(b'\n{"event": "reported"}\n')  # what was being written may lack its end


def killed() -> Iterator[Killed]:
    """Recent runs that began, did not end, and are nobody's any more.

    A run is held while the caller looks at it, so that no two report it. Where the file system has no locks nothing
    is found.
    """
    oldest = time.time() - RECENT * 86400
    for file in files():
        try:
            if file.stat().st_mtime < oldest or file == path():
                continue
            with _opened(file, os.O_RDWR) as journal:
                _check_size(journal)
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
                journal.seek(max(0, os.fstat(journal.fileno()).st_size - _TAIL))
                tail = last_attempt(list(parsed(journal.read())))
                if any(event["event"] in ("ended", "reported", "cancelled") for event in tail):
                    continue
                found = _newest(islice(_events_of(journal, is_whole=True), _MOST))
                if found and found[0]["event"] == "begun":
                    journal.seek(0, os.SEEK_END)
                    yield Killed(found, journal)
        except OSError:
            continue  # held by a living run, removed by another, or on a file system without locks


def events(position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Events written since byte ``position``, and the position after them."""
    try:
        with _opened(path()) as file:
            file.seek(position)
            data = file.read()
    except OSError:
        return [], position
    whole = data[: data.rfind(b"\n") + 1]
    return last_attempt(list(parsed(whole))), position + len(whole)


def contents() -> bytes:
    """The journal of this run so far. Raises OSError, also for what is no file."""
    with _opened(path()) as file:
        return file.read()


# -- journals of all runs --------------------------------------------------------------------------


def files() -> list[Path]:
    """The journals that lie here, each named by the id of its run. Nothing else is looked at, and no link followed."""
    found = (path for path in folder().glob("*.jsonl") if names.is_run_id(path.stem))
    return sorted(path for path in found if path.is_file() and not path.is_symlink())


def is_held(journal: Path) -> bool:
    """Whether a process is at work on the run; also if nobody can tell, on a file system without locks."""
    try:
        with _opened(journal) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in PLANTED


def begun(journal: Path) -> dict[str, Any]:
    """The event with which a run was last begun; empty if there is none that makes sense. Raises OSError."""
    with _opened(journal) as file:
        _check_size(file)
        file.seek(_last_begun(file))
        event = next(parsed(file.readline(_LINE)), {})
    is_right = event.get("event") == "begun" and event.get("at") is not None and event.get("command") is not None
    return event if is_right else {}


def read(journal: Path) -> Iterator[dict[str, Any]]:
    """The events since the run was last begun, line by line, without those that only say how far a stage is."""
    with _opened(journal) as file:
        yield from _events_of(file)


def _opened(journal: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a journal that is there. Raises OSError for a link or a pipe."""
    return os.fdopen(open_plain(journal, flags), "rb" if flags == os.O_RDONLY else "r+b")


def _check_size(journal: BinaryIO) -> None:
    """Raise OSError for a file that is no journal of a run that is over: nobody wants to wait for it."""
    if os.fstat(journal.fileno()).st_size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _newest(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events, and of those that only say how far a stage is the newest of each stage."""
    found: list[dict[str, Any]] = []
    running: dict[str, int] = {}  # where in the list, by task
    for event in events:
        task = event.get("task") or ""
        if event.get("state") != "running":
            running.pop(task, None)
        elif task in running:
            found[running[task]] = event
            continue
        else:
            running[task] = len(found)
        found.append(event)
    return found


def _events_of(file: BinaryIO, is_whole: bool = False) -> Iterator[dict[str, Any]]:
    file.seek(_last_begun(file))
    while line := file.readline(_LINE):
        if len(line) == _LINE and not line.endswith(b"\n"):  # none of ours
            while (rest := file.readline(_LINE)) and not rest.endswith(b"\n"):
                pass
        elif is_whole or (not line.startswith(b'{"event": "log"') and b'"state": "running"' not in line):
            yield from parsed(line)


def _last_begun(file: BinaryIO) -> int:
    """Position of the last line that begins a run; 0 if there is none. Fast with journals of any size."""
    if not os.fstat(file.fileno()).st_size:
        return 0
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return max(0, content.rfind(_FIRST))


def last_attempt(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The events since the run was last begun: a run may be started again under the same id."""
    begun = [number for number, event in enumerate(events) if event["event"] == "begun"]
    return events[begun[-1] :] if begun else events


def parsed(data: bytes) -> Iterator[dict[str, Any]]:
    """The events among the lines of a journal."""
    for line in data.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # torn by a full disk
        if isinstance(event, dict) and isinstance(event.get("event"), str) and _is_right(event):
            yield event


#: Types of what events have, by name. Others are not looked at.
_TEXTS = {
    *("run", "again", "host", "agent", "by", "task", "stage", "family", "goal", "state", "error", "message", "note"),
    *("unit", "text", "what", "whom", "label", "outcome", "result", "failure", "dataset", "month", "warehouse"),
}
_NUMBERS = {"at", "since", "seconds", "done", "total", "rows", "rows_read", "code"}
_LISTS = {"command", "months", "warehouses", "unknown_columns"}


def _is_right(event: dict[str, Any]) -> bool:
    """Whether the fields of an event that we know have the right types. Anybody may have written it."""
    return all(value is None or _is_of_type(name, value) for name, value in event.items())


def _is_of_type(name: str, value: Any) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if name in _NUMBERS:
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LATEST
        return is_number and (name != "code" or isinstance(value, int)) and (name != "at" or value >= 0)
    if name in _LISTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if name == "rows_rejected":
        return isinstance(value, dict) and all(isinstance(number, int) for number in value.values())
    if name == "entries":
        return isinstance(value, list) and all(_is_entry(one) for one in value)
    return True


def _is_entry(entry: Any) -> bool:
    """Whether it is the plan of one month: dataset, month, state, reason."""
    is_right = isinstance(entry, list) and len(entry) == 4 and all(isinstance(one, str) for one in entry[::2])
    return is_right and all(one is None or isinstance(one, str) for one in entry[1::2])

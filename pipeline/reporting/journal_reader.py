"""Read journals: of this run, of the runs that left one here, and of those that were killed.

Anybody who may write into the workspace may have written a journal: what makes no sense in it is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO

from ..safe_files import NOT_REGULAR, open_regular
from . import journal

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


@dataclass
class Killed:
    """A run that was killed, or whose host went down: its events as ``read`` has them, and when it last wrote one."""

    events: list[dict[str, Any]]
    heard: float
    _journal: IO[bytes]

    def reported(self) -> None:
        """Note that it was reported: it is not found again."""
        self._journal.write(b'\n{"event": "reported"}\n')  # what was being written may lack its end


def killed() -> Iterator[Killed]:
    """Recent runs that began and did not end, and that no process holds.

    A run is held while the caller looks at it, so that no two report it. Where the file system has no locks nothing
    is found.
    """
    oldest = time.time() - RECENT * 86400
    for file in journal.files():
        try:
            heard = file.stat().st_mtime
            if heard < oldest or file == journal.path():
                continue
            with _opened(file, os.O_RDWR) as opened:
                _check_size(opened)
                fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
                opened.seek(max(0, os.fstat(opened.fileno()).st_size - _TAIL))
                tail = last_attempt(list(parsed(opened.read())))
                if any(event["event"] in ("ended", "reported", "cancelled") for event in tail):
                    continue
                found = list(islice(_events_of(opened), _MOST))
                if found and found[0]["event"] == "begun":
                    opened.seek(0, os.SEEK_END)
                    yield Killed(found, heard, opened)
        except OSError:
            continue  # held by a living run, removed by another, or on a file system without locks


def events(position: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Events written since byte ``position``, and the position after them."""
    try:
        with _opened(journal.path()) as file:
            file.seek(position)
            data = file.read()
    except OSError:
        return [], position
    whole = data[: data.rfind(b"\n") + 1]
    return last_attempt(list(parsed(whole))), position + len(whole)


def contents() -> bytes:
    """The journal of this run so far. Raises OSError, also for what is no file."""
    with _opened(journal.path()) as file:
        return file.read()


def is_held(file: Path) -> bool:
    """Whether a process is at work on the run; also if nobody can tell, on a file system without locks."""
    try:
        with _opened(file) as opened:
            fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in NOT_REGULAR


def begun(file: Path) -> dict[str, Any]:
    """The event with which a run was last begun; empty if there is none that makes sense. Raises OSError."""
    with _opened(file) as opened:
        _check_size(opened)
        opened.seek(_last_begun(opened))
        event = next(parsed(opened.readline(_LINE)), {})
    is_right = event.get("event") == "begun" and event.get("at") is not None and event.get("command") is not None
    return event if is_right else {}


def read(file: Path) -> Iterator[dict[str, Any]]:
    """The events since the run was last begun, line by line, without those that only say how far a stage is."""
    with _opened(file) as opened:
        yield from _events_of(opened)


def _opened(file: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a journal that is there. Raises OSError for a link or a pipe."""
    return os.fdopen(open_regular(file, flags), "rb" if flags == os.O_RDONLY else "r+b")


def _check_size(file: BinaryIO) -> None:
    """Raise OSError for a file that is no journal of a run that is over: nobody wants to wait for it."""
    if os.fstat(file.fileno()).st_size > LARGEST:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))


def _events_of(file: BinaryIO) -> Iterator[dict[str, Any]]:
    file.seek(_last_begun(file))
    while line := file.readline(_LINE):
        if len(line) == _LINE and not line.endswith(b"\n"):  # none of ours
            while (rest := file.readline(_LINE)) and not rest.endswith(b"\n"):
                pass
        elif not line.startswith(b'{"event": "log"') and b'"state": "running"' not in line:
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

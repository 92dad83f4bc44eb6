"""File locks between processes, and who holds one, as messages name it."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .safe_files import open_regular
from .strict_json import json_object
from .waiting import Wait

#: Bytes of a lock file that are read.
_MAX_BYTES = 10_000


class Held(Exception):
    """A lock file is held by somebody else, named by the text, for longer than we wait."""


@contextmanager
def lock_file(path: Path, wait: Wait, mode: int = 0o644) -> Iterator[None]:
    """Hold a lock file, which names its holder to those who wait for it. Raises ``Held`` or OSError."""
    import filelock

    lock = filelock.FileLock(path, thread_local=False, mode=mode)
    while True:
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            if not path.exists():  # where no file can be made, as in /proc, filelock waits for one to appear
                raise FileNotFoundError(errno.ENOENT, "no file can be made there", str(path)) from None
            whom = read_holder(path)
            if not wait.again(whom):
                raise Held(whom) from None
    try:
        write_holder(path)
        yield
    finally:
        lock.release()


def lock_within(descriptor: int, seconds: float, interval: float = 0.05) -> bool:
    """Lock an open file for this process and for those that inherit it. False if others hold it for so long."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() >= give_up:
                return False
            time.sleep(interval)


def write_holder(path: Path) -> None:
    """Write into the lock file who holds it. Where the file system has no locks, filelock keeps its own text there."""
    # Not through a link that was put there since it was locked.
    with suppress(OSError, ValueError), os.fdopen(open_regular(path, os.O_RDWR), "r+b") as file:
        text = file.read(_MAX_BYTES)
        if not text or "pid" in json_object(text):
            mine = {"pid": os.getpid(), "host": socket.gethostname(), "run": os.environ.get("PIPELINE_RUN_ID")}
            file.seek(0)
            file.truncate()
            file.write(json.dumps(mine).encode())


def read_holder(path: Path) -> str:
    """The holder of a lock file, as messages name it."""
    try:
        with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
            found = json_object(file.read(_MAX_BYTES))
        where = "" if found["host"] == socket.gethostname() else f" on {found['host']}"
        run = f", run {found['run']}" if found["run"] else ""
        return f"another run of the pipeline (PID {found['pid']}{where}{run})"
    except (OSError, ValueError, LookupError, TypeError):
        return "another run of the pipeline"

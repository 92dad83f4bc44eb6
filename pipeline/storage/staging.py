"""Temporary files of a store: those of living processes are told from those of killed ones.

Every entry is a folder of its own with a lock file. The lock is held for as long as the entry is in use, and the kernel
lets go of it when the process ends, however it ends; so an entry whose lock can be taken belongs to nobody.

What somebody else put there is no entry: it is neither used nor removed, least of all what a symbolic link leads to.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import LakeError, StorageUnavailable
from ..lock_files import read_holder, write_holder
from ..safe_files import open_regular
from ..waiting import Wait

#: The names of entries.
_ENTRY = re.compile(r"(k-)?[0-9a-f]{32}")


def refuse_link(folder: Path) -> None:
    """Raise LakeError if a folder of ours, in which files are made and removed, is a symbolic link."""
    if folder.is_symlink():
        raise LakeError(f"{folder} is a symbolic link, and it must be a folder of the pipeline's own; remove the link")


class Staging:
    """Temporary files below ``folder``, which is made when it is needed."""

    def __init__(self, folder: Path, lock_timeout: float = 60.0) -> None:
        self.folder = folder
        self.lock_timeout = lock_timeout

    @contextmanager
    def open(self, name: str, key: str | None = None) -> Iterator[Path]:
        """A path called ``name`` for this process alone; see ``Store.staging``."""
        entry = self.folder / (f"k-{hashlib.sha256(key.encode()).hexdigest()[:32]}" if key else uuid.uuid4().hex)
        lock = self._lock(entry, key or name)
        keep = key is not None
        try:
            yield entry / name
            keep = False
        finally:
            if not keep:
                shutil.rmtree(entry, ignore_errors=True)
            os.close(lock)

    def owns(self, path: Path) -> bool:
        return path.is_relative_to(self.folder)

    def sweep(self, older_than: float) -> int:
        """Remove the entries that no process holds and nobody wrote to for ``older_than`` seconds; returns how many."""
        refuse_link(self.folder)
        swept = 0
        for entry in self.folder.iterdir() if self.folder.is_dir() else ():
            if not _ENTRY.fullmatch(entry.name) or entry.is_symlink():
                continue
            with suppress(OSError):  # removed meanwhile, or another user's, or with a pipe in place of its lock
                newest = max(path.lstat().st_mtime for path in (entry, *entry.iterdir()))
                if time.time() - newest < older_than:
                    continue
                lock = _try_lock(entry)
                if lock is not None:
                    shutil.rmtree(entry, ignore_errors=True)
                    os.close(lock)
                    swept += 1
        return swept

    def _lock(self, entry: Path, what: str) -> int:
        refuse_link(self.folder)
        with Wait(self.lock_timeout, what) as wait:
            while True:
                entry.mkdir(parents=True, exist_ok=True)
                refuse_link(entry)
                with suppress(FileNotFoundError):  # swept between mkdir and lock
                    lock = _try_lock(entry)
                    if lock is not None:
                        write_holder(entry / "lock")
                        return lock
                whom = read_holder(entry / "lock")
                if not wait.again(whom):
                    raise StorageUnavailable(
                        f"{whom} is still writing to {entry} after {self.lock_timeout:g} s; try again later"
                    )


def _try_lock(entry: Path) -> int | None:
    """The open lock file of an entry, locked; None if another process holds it or the entry went away meanwhile."""
    lock = open_regular(entry / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), os.stat(entry / "lock")):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None

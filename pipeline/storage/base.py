"""Interface and guarantees of every storage backend, for the lake as well as for the workspace.

A new backend is one new file with a subclass of ``Store``, one line in ``pipeline/storage/__init__.py`` and one adapter
in ``tests/contract/storages.py``.

What every store promises:

* An object appears whole or not at all. A process killed at any moment leaves the old object, or the new one.
* Temporary files are never listed. What a killed process leaves is removed by ``sweep``; what a living one uses is not.
* Errors are ``LakeError`` (refused, full, missing) and ``StorageUnavailable`` (may work later), each one line with the
  URL and the remedy, and without secrets. An object that is not there is ``FileNotFoundError``.

Paths are relative to the store's root, with ``/`` between the parts.
"""

from __future__ import annotations

import abc
import errno
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from ..doctor_check import Check
from ..errors import LakeError, PipelineError, StorageUnavailable, UsageError

#: Called with (done, in all) from time to time, in bytes or rows; cheap.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class StoreOptions:
    """What a store may be told besides its URL; passed in, because a store does not know the settings.

    ``lock_timeout``: seconds to wait for someone else's lock. ``patience``: seconds without any progress after which a
    server that fails or does not answer is given up; fewer while somebody waits. ``chunk_size``: bytes of the first
    request of an upload, a multiple of 256 KiB; the next ones grow to ``largest_chunk`` while the line is fast.
    ``location``: of a bucket to create. ``survives_power_cut``: a folder waits until the disk has what
    is put into it. ``follows_links``: whether a file may be put behind a symbolic link to a folder; nothing is ever
    deleted behind one. ``is_private``: files and folders that are made here can be read by their owner only, or by the
    group that shares the folder (``chmod g+ws``); a bucket has its own rules.
    """

    lock_timeout: float = 60.0
    patience: float = 300.0
    chunk_size: int = 4 * 1024**2
    largest_chunk: int = 64 * 1024**2
    location: str = "US"
    survives_power_cut: bool = True
    follows_links: bool = True
    is_private: bool = False


@dataclass(frozen=True)
class StoredObject:
    """An object of a store. ``version`` changes whenever the object is replaced. ``metadata`` is {} in a folder.

    ``modified``: when it was put there, in seconds since 1970, by the clock of whoever keeps it.
    """

    path: str
    size: int
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    modified: float = 0.0


class Store(abc.ABC):
    """A folder or a bucket prefix. Constructing opens nothing and asks nothing, so a store survives a fork."""

    #: Absolute and normalised, without credentials: fit for task parameters, logs and errors.
    url: str

    #: Whether ``lock`` excludes other processes. A bucket has no lock that ends with the process that holds it.
    has_locks = True

    @abc.abstractmethod
    def uri(self, path: str) -> str:
        """The address of one object, as errors and warehouses name it."""

    def _absent(self, path: str) -> FileNotFoundError:
        return FileNotFoundError(f"{self.uri(path)} does not exist")

    def generation(self, path: str) -> str | None:
        """Generation of a bucket's object now, asked for each time; None in a folder."""
        return None

    def location(self) -> str | None:
        """Location of a bucket, such as ``US`` or ``EUROPE-WEST1``; None for a folder."""
        return None

    @abc.abstractmethod
    def stat(self, path: str) -> StoredObject | None:
        """The object, or None where there is none."""

    @abc.abstractmethod
    def list(self, prefix: str = "") -> dict[str, StoredObject]:
        """All objects below the folder ``prefix``, at any depth, by path in order; one paged listing."""

    @abc.abstractmethod
    def read(self, path: str) -> bytes:
        """The bytes of a small object. ``FileNotFoundError`` where there is none."""

    @abc.abstractmethod
    def files(self, folder: str) -> dict[str, StoredObject]:
        """Whatever lies directly in a folder that strangers may write to, by name in order, folders and links too.

        No link is followed: LakeError if the folder is one. Names may be any; those that begin with a dot are left out.
        """

    @abc.abstractmethod
    def folders(self, prefix: str) -> tuple[str, ...]:
        """The names of the folders directly in ``prefix`` that have a file or folder in them; no link is followed."""

    @abc.abstractmethod
    def read_small(self, path: str, limit: int) -> bytes:
        """The bytes of an object of a stranger. ValueError for one of more than ``limit`` bytes, a link, a pipe."""

    @abc.abstractmethod
    def move(self, path: str, to: str) -> None:
        """Move what ``files`` has found, whatever it is, unread. Nothing happens where there is nothing any more."""

    @abc.abstractmethod
    def write(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None = None, if_version: str | None = None
    ) -> StoredObject:
        """Put a small object in place, atomically.

        ``if_version``: None replaces whatever is there, "" wants nothing to be there, else the version that must be
        there; ``ConflictError`` if it is otherwise.
        """

    @abc.abstractmethod
    def put(
        self,
        local: Path,
        path: str,
        metadata: Mapping[str, str] | None = None,
        progress: Progress = no_progress,
        if_version: str | None = None,
        last_check: Callable[[], object] | None = None,
    ) -> StoredObject:
        """Publish a local file, atomically; ``if_version`` as in ``write``. A file of ``staging`` may be moved away.

        ``last_check`` is called when only the last step is left, once or more often: what it raises is raised, and
        the object stays as it was. So a check of the file can go on while its bytes travel.
        """

    @abc.abstractmethod
    def has_bytes(self, path: str, local: Path) -> bool:
        """Whether the object is there with exactly the bytes of a local file, found out without a transfer."""

    @abc.abstractmethod
    def copy(self, path: str, to: str) -> StoredObject:
        """Copy an object within the store, atomically, metadata included. ``FileNotFoundError`` where there is none."""

    @abc.abstractmethod
    def staging(self, path: str, key: str | None = None) -> AbstractContextManager[Path]:
        """A unique local path to write to, on its way to ``path``; the file is not made. Removed at the end.

        With a ``key`` the same key gives the same path again, in a folder of its own, to one process at a time
        (``StorageUnavailable`` after the lock time). If the block fails or the process is killed, all of that folder
        is kept, so that a broken download can be resumed; ``sweep`` removes it some day.
        """

    @abc.abstractmethod
    def local(self, path: str) -> AbstractContextManager[Path]:
        """The object as a readable local file while the context lasts. ``FileNotFoundError`` where there is none."""

    @abc.abstractmethod
    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """The object for reading parts of it, such as a footer. ``FileNotFoundError`` where there is none."""

    @abc.abstractmethod
    def delete(self, path: str) -> None:
        """Remove an object; nothing happens where there is none."""

    @abc.abstractmethod
    def delete_tree(self, prefix: str) -> None:
        """Remove all objects below the folder ``prefix``."""

    @abc.abstractmethod
    def sweep(self, older_than: float = 24 * 3600) -> int:
        """Remove what killed processes left behind ``older_than`` seconds ago or earlier; returns how many."""

    @abc.abstractmethod
    def lock(self, path: str, timeout: float | None = None, title: str = "") -> AbstractContextManager[object]:
        """Exclude other processes from ``path`` if the store has locks, else nobody; see ``has_locks``.

        ``StorageUnavailable`` after ``timeout`` seconds of waiting. A lock saves work; what must not be lost is
        protected by ``if_version``, which tells two writers apart in every store. ``title`` is what messages call the
        thing instead of its address.
        """

    def ensure(self) -> None:  # noqa: B027  a server has nothing to make
        """Make the place if it is not there. Raises UsageError if it cannot be written to; asks no server."""

    @abc.abstractmethod
    def check(self, create: bool = False) -> Iterable[Check]:
        """Try what the pipeline will do here; with ``create`` make what is missing. Never raises."""


@dataclass(frozen=True)
class StoredFile:
    """One file of a store, as a warehouse loads it."""

    store: Store
    path: str

    @property
    def uri(self) -> str:
        """``gs://bucket/name`` or ``file:/absolute/path``."""
        return self.store.uri(self.path)

    @property
    def generation(self) -> str | None:
        """Generation of the GCS object now (a new request each time); None for a local file."""
        return self.store.generation(self.path)

    @property
    def location(self) -> str | None:
        """Location of the GCS bucket, such as ``US`` or ``EUROPE-WEST1``; None for a local file."""
        return self.store.location()

    def local(self) -> AbstractContextManager[Path]:
        """The file on a local disk; a copy of a GCS object is removed at the end of the context."""
        return self.store.local(self.path)


#: What a disk says that is full.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def explained(error: OSError, where: str) -> PipelineError:
    """What a disk says that does not take ``where``, as one line with the remedy."""
    says = os.strerror(error.errno) if error.errno else str(error)  # Arrow wraps it in words of its own
    match error.errno:
        case code if code in NO_ROOM:
            return LakeError(f"{where} cannot be written: no room left ({says}); make room on that disk and run again")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return LakeError(f"{where}: {says}; give your user the right to read and write there")
        case _:
            return StorageUnavailable(f"{where}: {says}; try again, and check the disk if the error persists")


def checked(path: str) -> str:
    """``path`` if it is a plain relative path. ``UsageError`` for one that would leave the store or hide in it."""
    parts = path.split("/")
    if path and any(not part or part.startswith(".") or "\\" in part or "\0" in part for part in parts):
        raise UsageError(f"{path!r} cannot be a path in a lake or workspace; write plain names with / between them")
    return path


def without_secrets(url: str) -> str:
    """A URL as it may be printed: user name, password, query and fragment taken out."""
    return re.sub(r"^([a-zA-Z][\w+.-]*://)[^/]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])

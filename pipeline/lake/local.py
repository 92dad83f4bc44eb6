"""A store in a folder.

A file is written under a temporary name in the hidden folder ``.store``, flushed to the disk and renamed. The hidden
folder lies in the store itself, because a rename is atomic only within one filesystem. Permissions follow the umask, as
those of any file a user makes.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

from ..checks import Check, cannot_be_made
from ..errors import ConflictError, LakeError, LakeTrouble, PipelineError, UsageError
from ..waiting import Held, Wait, gave_up, lock_file
from .staging import Staging
from .store import NO_ROOM, Progress, Store, StoredObject, StoreOptions, checked, explained, without_secrets

HIDDEN = ".store"

#: Free space below which ``doctor`` warns: a month of fhvhv needs about this much in the workspace and in the lake.
ROOM = 5 * 1024**3


class LocalStore(Store):
    """The folder that a ``file:`` URL names. It is made when the first file is written."""

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self.folder = path_of(url)
        self.url = "file:" + quote(str(self.folder))
        self._staging = Staging(self.folder / HIDDEN / "staging", self.options.lock_timeout)

    def uri(self, path: str) -> str:
        return "file:" + quote(str(self._place(path)))

    def stat(self, path: str) -> StoredObject | None:
        try:
            status = self._place(path).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._explain(error, path) from error
        return _object(path, status)

    def list(self, prefix: str = "") -> dict[str, StoredObject]:
        found: dict[str, StoredObject] = {}

        def walk(folder: Path, path: str) -> None:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    inner = f"{path}/{entry.name}" if path else entry.name
                    if entry.is_dir():
                        walk(folder / entry.name, inner)
                    else:
                        with suppress(FileNotFoundError):  # removed while we look, or a link to nowhere
                            found[inner] = _object(inner, entry.stat())

        try:
            walk(self._place(prefix), prefix)
        except OSError as error:
            raise self._explain(error, prefix) from error
        return found

    def read(self, path: str) -> bytes:
        try:
            return self._place(path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f"{self.uri(path)} does not exist") from None
        except OSError as error:
            raise self._explain(error, path) from error

    def write(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None = None, if_version: str | None = None
    ) -> StoredObject:
        with self.staging(path) as temporary:
            try:
                temporary.write_bytes(data)
            except OSError as error:
                raise self._explain(error, path) from error
            return self._publish(temporary, path, if_version)

    def put(
        self,
        local: Path,
        path: str,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
        if_version: str | None = None,
        last_check: Callable[[], object] | None = None,
    ) -> StoredObject:
        if self._staging.owns(local):
            if last_check:
                last_check()
            stored = self._publish(local, path, if_version)
        else:
            with self.staging(path) as temporary:
                try:
                    shutil.copyfile(local, temporary)
                except OSError as error:
                    raise self._explain(error, path) from error
                if last_check:
                    last_check()
                stored = self._publish(temporary, path, if_version)
        if progress:
            progress(stored.size, stored.size)
        return stored

    def has_bytes(self, path: str, local: Path) -> bool:
        try:
            return filecmp.cmp(self._place(path), local, shallow=False)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._explain(error, path) from error

    def copy(self, path: str, to: str) -> StoredObject:
        with self.staging(to) as temporary, self.local(path) as source:
            try:
                try:
                    os.link(source, temporary)  # at once and without room; files of a store are replaced, never changed
                except OSError:
                    shutil.copyfile(source, temporary)
            except OSError as error:
                raise self._explain(error, to) from error
            return self._publish(temporary, to, None, touch=False)

    @contextmanager
    def staging(self, path: str, key: str | None = None) -> Iterator[Path]:
        with ExitStack() as stack:
            try:
                temporary = stack.enter_context(self._staging.open(checked(path).rsplit("/", 1)[-1], key))
            except OSError as error:
                raise self._explain(error, path) from error
            yield temporary

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        place = self._place(path)
        if not place.is_file():
            raise FileNotFoundError(f"{self.uri(path)} does not exist")
        yield place

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with self.local(path) as place:
            try:
                file = place.open("rb")
            except OSError as error:
                raise self._explain(error, path) from error
            with file:
                yield file

    def delete(self, path: str) -> None:
        try:
            self._place(path).unlink(missing_ok=True)
        except NotADirectoryError:
            pass
        except OSError as error:
            raise self._explain(error, path) from error

    def delete_tree(self, prefix: str) -> None:
        for path in self.list(prefix):
            self.delete(path)
        for folder, _, _ in os.walk(self._place(prefix), topdown=False):
            with suppress(OSError):  # holds something new, or hidden files such as staging
                if Path(folder) != self.folder:
                    os.rmdir(folder)

    def sweep(self, older_than: float = 24 * 3600) -> int:
        try:
            return self._staging.sweep(older_than)
        except OSError as error:
            raise self._explain(error, "") from error

    @contextmanager
    def lock(self, path: str, timeout: float | None = None, title: str = "") -> Iterator[None]:
        limit, what = self.options.lock_timeout if timeout is None else timeout, title or self.uri(path)
        digest = hashlib.sha256(checked(path).encode()).hexdigest()[:16]
        file = self.folder / HIDDEN / "locks" / f"{path.rsplit('/', 1)[-1][:100]}.{digest}"
        with ExitStack() as stack:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                with Wait(limit, what) as wait:
                    stack.enter_context(lock_file(file, wait, mode=0o666))
            except Held as error:
                gave_up(what, str(error))
                raise LakeTrouble(f"{error} is still working on {what} after {limit:g} s; try again later") from None
            except OSError as error:
                raise self._explain(error, path) from error
            yield

    def ensure(self) -> None:
        try:
            with self.staging("probe") as temporary:
                temporary.touch()
        except PipelineError as error:
            if getattr(error.__cause__, "errno", None) in NO_ROOM:
                raise
            raise UsageError(str(error)) from None

    def check(self, create: bool = False) -> Iterable[Check]:
        if not os.path.exists(self.folder) and not create:
            error = cannot_be_made(self.folder)
            if error is None:
                yield Check(self.url, True, "does not exist yet; it is made with the first file")
            else:
                yield Check(
                    self.url,
                    False,
                    f"does not exist and cannot be made: {error.strerror}",
                    "give your user the right to make it, or choose another folder",
                )
            return
        try:
            with self.staging("doctor") as temporary:
                temporary.write_bytes(b"doctor")
        except (PipelineError, OSError) as error:
            yield Check(self.url, False, str(error), "make the folder writable, or choose another one")
            return
        yield Check(self.url, True, "writable")
        free = shutil.disk_usage(self.folder).free
        remedy = f"a large month needs up to {ROOM / 1024**3:.0f} GiB; make room or choose another disk"
        yield Check(
            f"{self.url} room", free >= ROOM, f"{free / 1024**3:.1f} GiB free", remedy if free < ROOM else "", True
        )

    def _place(self, path: str) -> Path:
        return self.folder / checked(path) if path else self.folder

    def _publish(self, temporary: Path, path: str, if_version: str | None, touch: bool = True) -> StoredObject:
        """Rename a finished temporary file to its place; under a lock, so that versions can be compared."""
        place = self._place(path)
        try:
            if self.options.survives_power_cut:
                _fsync(temporary)
            _make_folders(place.parent)
            with self._publishing():
                old = self.stat(path)
                if if_version is not None and (old.version if old else "") != if_version:
                    raise ConflictError(f"{self.uri(path)} was changed by another process meanwhile; try again")
                if touch:
                    # The kernel's clock may tick more slowly than files are replaced: a version must never come back.
                    moment = max(time.time_ns(), int(old.version) + 1 if old else 0)
                    os.utime(temporary, ns=(moment, moment))
                os.replace(temporary, place)
                stored = _object(path, place.stat())
            if self.options.survives_power_cut:
                _fsync(place.parent)
        except OSError as error:
            raise self._explain(error, path) from error
        return stored

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """Held for the length of a rename, so waiting needs no bound; the kernel releases it when a process dies."""
        with open(self.folder / HIDDEN / "publishing", "a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _explain(self, error: OSError, path: str) -> PipelineError:
        where = self.uri(path) if path else self.url
        match error.errno:
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return LakeError(f"{where}: {error.strerror}; give your user the right to read and write {self.folder}")
            case errno.EXDEV:
                return LakeError(f"{where} lies on another filesystem than {self.folder}; a store must lie on one")
            case errno.ENOENT if error.filename and not self._staging.owns(Path(os.fsdecode(error.filename))):
                return LakeError(f"{where} cannot be written: {os.fsdecode(error.filename)} does not exist")
            case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENAMETOOLONG:
                return LakeError(f"{where} cannot be used: {error.strerror}; remove or rename what is in the way")
            case _:
                return explained(error, where)


def path_of(url: str) -> Path:
    """The absolute path of a ``file:`` URL (``file:relative``, ``file:/absolute``, ``file:///absolute``), decoded."""
    rest = url.removeprefix("file:")
    if rest.startswith("//"):
        host, slash, tail = rest[2:].partition("/")
        if host not in ("", "localhost") or not slash:
            raise UsageError(
                f"{without_secrets(url)} names a host, not a folder; write file:relative or file:///absolute/folder"
            )
        rest = slash + tail
    if not rest or "\0" in unquote(rest):
        raise UsageError("file: names no folder; write file:relative or file:///absolute/folder")
    return Path(os.path.abspath(unquote(rest)))


def _object(path: str, status: os.stat_result) -> StoredObject:
    return StoredObject(path, status.st_size, str(status.st_mtime_ns))


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _make_folders(folder: Path) -> None:
    """``mkdir -p`` whose new entries survive a power cut."""
    if not folder.is_dir():
        _make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        _fsync(folder.parent)

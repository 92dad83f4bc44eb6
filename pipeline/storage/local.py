"""A lake or workspace in a local folder (``file:``): atomic files, and what happens at symbolic links.

A file is written under a temporary name in the hidden folder ``.store``, flushed to the disk and renamed. The hidden
folder lies in the store itself, because a rename is atomic only within one filesystem. Permissions follow the umask, as
those of any file a user makes.

The folder itself may be a symbolic link, to another disk for example. Below it a link is followed by who reads. Nothing
is ever deleted through one: a link is removed instead of what it leads to, and a folder reached through one is refused.
Folders are opened one inside the other for that, so that a folder which somebody replaces by a link meanwhile changes
nothing. Writing follows links to folders, which a user may have made in a lake; not where ``follows_links`` is False.
"""

from __future__ import annotations

import errno
import fcntl
import filecmp
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import BinaryIO

from ..doctor_check import Check
from ..errors import ConflictError, LakeError, PipelineError, StorageUnavailable, UsageError
from ..local_paths import FORMS, broken_link, path_of, url_of
from ..lock_files import Held, lock_file
from ..safe_files import NOT_REGULAR, open_regular, permissions, why_not_creatable
from ..waiting import Wait, gave_up
from .base import NO_ROOM, Progress, Store, StoredObject, StoreOptions, checked, explained, no_progress
from .staging import Staging, refuse_link

HIDDEN = ".store"

#: Most folders inside each other that ``delete_tree`` removes. The pipeline makes five.
DEEPEST = 50

#: Bytes that are copied between two reports of progress.
BLOCK = 4 * 1024**2

#: How often a file's folders are made again that somebody else removes, because they are empty, at the same time.
RACES = 10

#: Free space below which ``doctor`` warns: a month of fhvhv needs about this much in the workspace and in the lake.
ROOM = 5 * 1024**3


def _copy(file: Path, to: Path, progress: Progress) -> None:
    """Copy a file, and tell after each block how much of it is there."""
    with file.open("rb") as source, to.open("wb") as target:
        size = os.fstat(source.fileno()).st_size
        while block := source.read(BLOCK):
            target.write(block)
            progress(source.tell(), size)


class LocalStore(Store):
    """The folder that a ``file:`` URL names. It is made when the first file is written."""

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        self.options = options or StoreOptions()
        self.folder = path_of(url)
        if self.folder == Path("/"):
            raise UsageError(f"{url} is the root of this machine; {FORMS}")
        self.url = url_of(self.folder)
        self._staging = Staging(self.folder / HIDDEN / "staging", self.options.lock_timeout)

    def uri(self, path: str) -> str:
        return url_of(self.folder / path)  # of any name, also of one that could not be ours

    def stat(self, path: str) -> StoredObject | None:
        with self._explained(path), suppress(FileNotFoundError, NotADirectoryError):
            return _object(path, self._place(path).stat())
        return None

    def list(self, prefix: str = "") -> dict[str, StoredObject]:
        found: dict[str, StoredObject] = {}
        follows = self.options.follows_links
        if prefix and not follows and self._is_behind_link(prefix):
            return {}

        def walk(folder: Path, path: str, above: frozenset[tuple[int, int]]) -> None:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
                status = os.stat(folder)
                here = above | {(status.st_dev, status.st_ino)}
                if here == above:
                    return  # a link that leads back to a folder above it
                for entry in sorted(entries, key=lambda entry: entry.name):
                    if entry.name.startswith("."):
                        continue
                    inner = f"{path}/{entry.name}" if path else entry.name
                    with suppress(FileNotFoundError):  # removed while we look, or a link to nowhere
                        if entry.is_dir(follow_symlinks=follows):
                            walk(folder / entry.name, inner, here)
                        else:
                            found[inner] = _object(inner, entry.stat(follow_symlinks=follows))

        with self._explained(prefix):
            walk(self._place(prefix), prefix, frozenset())
        return found

    def read(self, path: str) -> bytes:
        with (
            self._explained(path, must_exist=True),
            os.fdopen(open_regular(self._place(path), os.O_RDONLY, follows=True), "rb") as file,
        ):
            return file.read()

    def files(self, folder: str) -> dict[str, StoredObject]:
        found = {}
        with (
            self._explained(folder),
            suppress(FileNotFoundError, NotADirectoryError),
            self._folder_of(f"{folder}/any") as (opened, _),
            os.scandir(opened) as entries,
        ):
            for name in sorted(entry.name for entry in entries if not entry.name.startswith(".")):
                with suppress(FileNotFoundError):  # removed while we look
                    found[name] = _object(f"{folder}/{name}", os.stat(name, dir_fd=opened, follow_symlinks=False))
        return found

    def folders(self, prefix: str) -> tuple[str, ...]:
        found = []
        for name in self.files(prefix):
            with suppress(UsageError, LakeError):  # a link, or no name of ours
                if self.files(f"{prefix}/{name}"):
                    found.append(name)
        return tuple(found)

    def read_small(self, path: str, limit: int) -> bytes:
        with self._explained(path, must_exist=True), self._folder_of(path) as (folder, name):
            try:
                with os.fdopen(open_regular(name, os.O_RDONLY, dir_fd=folder), "rb") as file:
                    data = file.read(limit + 1)
            except OSError as error:
                if error.errno in NOT_REGULAR:
                    raise ValueError(f"it is {NOT_REGULAR[error.errno]}") from None
                raise
        if len(data) > limit:
            raise ValueError(f"it has more than {limit:,} bytes")
        return data

    def move(self, path: str, to: str) -> None:
        folder, _, name = path.rpartition("/")
        with (
            self._explained(to),
            suppress(FileNotFoundError),
            self._folder_of(f"{folder}/any") as (source, _),
            self._folder_of(to, make=True) as (target, new),
        ):
            os.rename(name, new, src_dir_fd=source, dst_dir_fd=target)

    def write(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None = None, if_version: str | None = None
    ) -> StoredObject:
        with self.staging(path) as temporary:
            with self._explained(path):
                if self.options.is_private:
                    os.close(open_regular(temporary, os.O_WRONLY | os.O_CREAT, permissions(self.folder)[0]))
                temporary.write_bytes(data)
            return self._publish(temporary, path, if_version)

    def put(
        self,
        local: Path,
        path: str,
        metadata: Mapping[str, str] | None = None,
        progress: Progress = no_progress,
        if_version: str | None = None,
        last_check: Callable[[], object] | None = None,
    ) -> StoredObject:
        with nullcontext(local) if self._staging.owns(local) else self.staging(path) as temporary:
            if temporary != local:
                with self._explained(path):
                    _copy(local, temporary, progress)
            if last_check:
                last_check()
            stored = self._publish(temporary, path, if_version)
        progress(stored.size, stored.size)
        return stored

    def has_bytes(self, path: str, local: Path) -> bool:
        with self._explained(path), suppress(FileNotFoundError):
            return filecmp.cmp(self._place(path), local, shallow=False)
        return False

    def copy(self, path: str, to: str) -> StoredObject:
        with self.staging(to) as temporary, self.local(path) as source:
            with self._explained(to):
                try:
                    os.link(source, temporary)  # at once and without room; files of a store are replaced, never changed
                except OSError:
                    shutil.copyfile(source, temporary)
            return self._publish(temporary, to, None, touch=False)

    @contextmanager
    def staging(self, path: str, key: str | None = None) -> Iterator[Path]:
        with ExitStack() as stack:
            with self._explained(path):
                refuse_link(self.folder / HIDDEN)
                temporary = stack.enter_context(self._staging.open(checked(path).rsplit("/", 1)[-1], key))
            yield temporary

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        place = self._place(path)
        if not place.is_file():
            raise self._absent(path)
        yield place

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        with self.local(path) as place:
            with self._explained(path):
                file = place.open("rb")
            with file:
                yield file

    def delete(self, path: str) -> None:
        with (
            self._explained(path),
            suppress(FileNotFoundError, NotADirectoryError),
            self._folder_of(path) as (folder, name),
        ):
            os.unlink(name, dir_fd=folder)

    def delete_tree(self, prefix: str) -> None:
        with self._explained(prefix), suppress(FileNotFoundError, NotADirectoryError):
            if prefix:
                with self._folder_of(prefix) as (folder, name):
                    self._remove(folder, name, prefix)
                self._remove_empty(prefix)
            else:
                with self._opened_root() as root:
                    self._empty(root, "", 0)

    def _remove_empty(self, path: str) -> None:
        """Remove the folders above a path that are empty now, but the uppermost. ``_publish`` makes them again."""
        with suppress(OSError):  # holds something else
            while "/" in (path := path.rpartition("/")[0]):
                with self._folder_of(path) as (folder, name):
                    os.rmdir(name, dir_fd=folder)

    def _remove(self, folder: int, name: str, path: str, depth: int = 0) -> None:
        """Remove an entry of an open folder: a folder with all that is in it, anything else by itself."""
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return
        except OSError:  # no folder, but a file or a link; or a folder that we may not open
            if _has_kind(folder, name, stat.S_ISDIR):
                raise
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            return
        try:
            self._empty(inner, path, depth)
        finally:
            os.close(inner)
        with suppress(OSError):  # holds something new
            os.rmdir(name, dir_fd=folder)

    def _empty(self, folder: int, path: str, depth: int) -> None:
        if depth > DEEPEST:
            raise LakeError(f"{self.uri(path)} has more than {DEEPEST} folders inside each other; remove it yourself")
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
        for name in names:
            if path or name != HIDDEN:
                self._remove(folder, name, f"{path}/{name}" if path else name, depth + 1)

    def sweep(self, older_than: float = 24 * 3600) -> int:
        with self._explained(""):
            refuse_link(self.folder / HIDDEN)
            return self._staging.sweep(older_than)

    @contextmanager
    def lock(self, path: str, timeout: float | None = None, title: str = "") -> Iterator[None]:
        limit, what = self.options.lock_timeout if timeout is None else timeout, title or self.uri(path)
        digest = hashlib.sha256(checked(path).encode()).hexdigest()[:16]
        file = self.folder / HIDDEN / "locks" / f"{path.rsplit('/', 1)[-1][:100]}.{digest}"
        with ExitStack() as stack:
            try:
                with self._explained(path):
                    for folder in (file.parent.parent, file.parent):
                        refuse_link(folder)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with Wait(limit, what) as wait:
                        stack.enter_context(lock_file(file, wait, mode=0o666))
            except Held as error:
                if limit:
                    gave_up(what, str(error))
                raise StorageUnavailable(
                    f"{error} is still working on {what} after {limit:g} s; try again later"
                ) from None
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
            error = why_not_creatable(self.folder)
            if error is None:
                yield Check(self.url, True, "does not exist yet; it is made with the first file")
            else:
                detail = f"does not exist and cannot be made: {error.strerror}"
                yield Check(self.url, False, detail, "give your user the right to make it, or choose another folder")
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
        yield Check(f"{self.url} room", free >= ROOM, f"{free / 1024**3:.1f} GiB free", remedy, is_warning=True)

    def _place(self, path: str) -> Path:
        return self.folder / checked(path) if path else self.folder

    def _is_behind_link(self, path: str) -> bool:
        parts = checked(path).split("/")
        return any(self.folder.joinpath(*parts[:depth]).is_symlink() for depth in range(1, len(parts) + 1))

    @contextmanager
    def _opened_root(self) -> Iterator[int]:
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield descriptor
        finally:
            os.close(descriptor)

    @contextmanager
    def _folder_of(self, path: str, make: bool = False, follow: bool = False) -> Iterator[tuple[int, str]]:
        """The folder of a file, open, and the file's name in it. LakeError for a link on the way, unless we follow."""
        *folders, name = checked(path).split("/")
        flags = os.O_RDONLY | os.O_DIRECTORY | (0 if follow else os.O_NOFOLLOW)
        with ExitStack() as stack:
            descriptor = stack.enter_context(self._opened_root())
            for depth, folder in enumerate(folders, 1):
                try:
                    inner = (
                        self._make_folder(descriptor, folder, flags)
                        if make
                        else os.open(folder, flags, dir_fd=descriptor)
                    )
                except OSError as error:
                    if not follow and _has_kind(descriptor, folder, stat.S_ISLNK):
                        link = self.folder.joinpath(*folders[:depth])
                        raise LakeError(
                            f"{link} is a symbolic link, and nothing is deleted or replaced behind one; put a folder "
                            f"in its place. {self.folder} itself may be a link"
                        ) from error
                    error.filename = str(self.folder.joinpath(*folders[:depth]))
                    raise
                stack.callback(os.close, inner)
                descriptor = inner
            yield descriptor, name

    def _make_folder(self, above: int, name: str, flags: int) -> int:
        """Open a folder, which is made if it is not there; a new one survives a power cut."""
        for _ in range(RACES):  # somebody may remove it again, because it is empty
            with suppress(FileNotFoundError):
                return os.open(name, flags, dir_fd=above)
            with suppress(FileExistsError):
                os.mkdir(name, 0o700 if self.options.is_private else 0o777, dir_fd=above)
                if self.options.is_private and (mode := permissions(self.folder)[1]) != 0o700:
                    os.chmod(name, mode, dir_fd=above)
                if self.options.survives_power_cut:
                    os.fsync(above)
        return os.open(name, flags, dir_fd=above)

    def _publish(self, temporary: Path, path: str, if_version: str | None, touch: bool = True) -> StoredObject:
        """Rename a finished temporary file to its place; under a lock, so that versions can be compared."""
        with self._explained(path):
            if self.options.survives_power_cut:
                _fsync(temporary)
            for _ in range(RACES - 1):
                try:
                    return self._rename(temporary, path, if_version, touch)
                except FileNotFoundError:  # somebody has removed the folder again, because it was empty
                    if not temporary.exists():
                        raise
            return self._rename(temporary, path, if_version, touch)

    def _rename(self, temporary: Path, path: str, if_version: str | None, touch: bool) -> StoredObject:
        with self._folder_of(path, make=True, follow=self.options.follows_links) as (folder, name):
            with self._publishing():
                old = self.stat(path)
                if if_version is not None and (old.version if old else "") != if_version:
                    raise ConflictError(f"{self.uri(path)} was changed by another process meanwhile; try again")
                if touch:
                    # The kernel's clock may tick more slowly than files are replaced: a version must never return.
                    moment = max(time.time_ns(), int(old.version) + 1 if old else 0)
                    os.utime(temporary, ns=(moment, moment))
                os.replace(temporary, name, dst_dir_fd=folder)
                stored = _object(path, os.stat(name, dir_fd=folder, follow_symlinks=False))
            if self.options.survives_power_cut:
                os.fsync(folder)
        return stored

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """Held for the length of a rename, so waiting needs no bound; the kernel releases it when a process dies."""
        lock = open_regular(self.folder / HIDDEN / "publishing", os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _explained(self, path: str, must_exist: bool = False) -> Iterator[None]:
        """Turn what the system raises into one line; ``FileNotFoundError`` for an absent file that ``must_exist``."""
        try:
            yield
        except OSError as error:
            if must_exist and isinstance(error, FileNotFoundError | NotADirectoryError):
                raise self._absent(path) from None
            raise self._explain(error, path) from error

    def _explain(self, error: OSError, path: str) -> PipelineError:
        where = self.uri(path) if path else self.url
        if error.errno in (errno.ENOENT, errno.EEXIST, errno.ELOOP) and (lost := broken_link(self.folder / path)):
            return LakeError(f"{where}: {lost}")
        match error.errno:
            case errno.EACCES | errno.EPERM | errno.EROFS:
                return LakeError(f"{where}: {error.strerror}; give your user the right to read and write {self.folder}")
            case errno.EXDEV:
                return LakeError(f"{where} lies on another filesystem than {self.folder}; a store must lie on one")
            case errno.ENOENT if error.filename and not self._staging.owns(Path(os.fsdecode(error.filename))):
                return LakeError(f"{where} cannot be written: {os.fsdecode(error.filename)} does not exist")
            case errno.ENOTDIR | errno.EISDIR | errno.EEXIST | errno.ENAMETOOLONG | errno.ELOOP | errno.ENXIO:
                return LakeError(f"{where} cannot be used: {error.strerror}; remove or rename what is in the way")
            case _:
                return explained(error, where)


def _object(path: str, status: os.stat_result) -> StoredObject:
    return StoredObject(path, status.st_size, str(status.st_mtime_ns), modified=status.st_mtime)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _has_kind(folder: int, name: str, is_kind: Callable[[int], bool]) -> bool:
    try:
        return is_kind(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False

"""Safe access to files in folders that others may write to: refuses links, pipes and foreign folders; permissions."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from .errors import UsageError

#: What stands in place of a file of ours, by what the system says when it is opened.
NOT_REGULAR = {errno.ELOOP: "a link", errno.ENXIO: "a pipe or a device", errno.EISDIR: "a folder"}

#: Permissions of a file that a group shares.
GROUP_SHARED = 0o660


def open_regular(
    path: str | os.PathLike[str], flags: int, mode: int = 0o600, dir_fd: int | None = None, follows: bool = False
) -> int:
    """Open a regular file, as ``os.open`` does. Raises OSError for a link (``ELOOP``) unless ``follows``, and for a
    pipe, a device (``ENXIO``) or a folder, without waiting.

    A file that is made here can be read by its owner only, unless ``mode`` says otherwise; see ``permissions``.
    """
    try:
        link = 0 if follows else os.O_NOFOLLOW
        descriptor = os.open(path, flags | link | os.O_NONBLOCK, mode, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.EMLINK:  # what FreeBSD says of a link
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from None
        raise
    if not stat.S_ISREG(kind := os.fstat(descriptor).st_mode):
        os.close(descriptor)
        code = errno.EISDIR if stat.S_ISDIR(kind) else errno.ENXIO
        raise OSError(code, os.strerror(code), str(path))
    if flags & os.O_CREAT and mode == GROUP_SHARED and os.fstat(descriptor).st_uid == os.getuid():
        os.fchmod(descriptor, mode)  # whatever the umask
    return descriptor


def permissions(root: Path) -> tuple[int, int]:
    """Permissions of new files and folders below ``root`` that are nobody else's business: its owner's alone.

    A root that is writable for its group and has the set-group-ID bit (``chmod g+ws``) is shared by that group.
    """
    try:
        found = root.stat().st_mode
    except OSError:
        found = 0
    return (GROUP_SHARED, 0o2770) if found & stat.S_ISGID and found & stat.S_IWGRP else (0o600, 0o700)


def make_folder(folder: Path, mode: int) -> None:
    """``mkdir -p``; the folder itself, if it is made here, has the permissions of ``permissions``."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700)
    except FileExistsError:
        if not folder.is_dir():
            raise
    else:
        if mode != 0o700:
            folder.chmod(mode)


def why_not_creatable(folder: Path) -> OSError | None:
    """Why a folder that does not exist cannot be made; None if it can. Nothing is left of the trial."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error
    finally:
        for each in missing:
            with suppress(OSError):
                each.rmdir()
    return None


def private_folder(name: str) -> Path:
    """A folder of this user, and of nobody else, among the temporary files of this machine; made if it is not there.

    Its path is predictable, and anybody may have made it first. Raises UsageError if somebody else can write to it.
    """
    folder = Path(tempfile.gettempdir()) / f"{name}-{os.getuid()}"
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
    except OSError as error:
        raise UsageError(f"{folder} cannot be made: {error.strerror}; set TMPDIR to a folder of your own") from None
    if not stat.S_ISDIR(found.st_mode):
        what = "is a link" if stat.S_ISLNK(found.st_mode) else "is no folder"
    elif found.st_uid != os.getuid():
        what = "belongs to another user"
    elif found.st_mode & 0o022:
        what = "can be written to by other users"
    else:
        return folder
    raise UsageError(f"{folder} {what}; remove it, or set TMPDIR to a folder of your own")

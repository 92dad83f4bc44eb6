"""Receives one file of a publisher: a hidden partial file, hashed and checked as it grows, then renamed.

The whole file appears under its name, or nothing does. Every publisher fetches by an ``IncomingFile``, in a folder that
belongs to one process at a time.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import LakeError, PipelineError, TruncatedFile, WrongFormat
from ..partition import Partition
from ..storage.base import NO_ROOM
from .download_checks import HEAD, Damage, check_end, check_head
from .version import Version

#: Called with the bytes that have arrived and, if known, the bytes in all.
Progress = Callable[[int, int | None], None]

#: Bytes read at once.
CHUNK = 1 << 20
#: Bytes above which a file is none of the publisher's, by its format. The largest month has 611 MB, the zones 12 KB.
MOST_BYTES = {"parquet": 8 << 30, "csv.gz": 8 << 30, "csv": 4 << 20}


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched. ``url`` holds no credentials; ``length`` in bytes."""

    path: Path
    url: str
    sha256: str
    version: Version
    length: int


class IncomingFile:
    """A file on its way to ``target``. The publisher sets ``version`` before the first byte arrives.

    ``redact`` removes credentials from a text.
    """

    def __init__(
        self,
        partition: Partition,
        url: str,
        target: Path,
        file_format: str,
        progress: Progress | None,
        redact: Callable[[str], str],
    ) -> None:
        self.partition = partition
        self.url = url
        self.target = target
        self.file_format = file_format
        self.progress = progress
        self._redact = redact
        self.version = Version()
        #: Begins messages.
        self.title = f"{partition}: {url}"

    @property
    def part(self) -> Path:
        """The partial file of the version that is being fetched."""
        key = hashlib.sha256((self.version.etag or "").encode()).hexdigest()[:16]
        return self.target.with_name(f".{self.target.name}.{key}.part")

    def receive(
        self, read: Callable[[], bytes], offset: int = 0, *, verify: Callable[[str], None] | None = None
    ) -> Fetched:
        """Append what ``read`` returns to the first ``offset`` bytes, check the whole, and give it its name.

        ``verify`` is called with the SHA-256 of the complete file, and raises if that is not to be trusted.
        """
        self.remove_parts(keep=self.part.name)
        total = self.version.length
        self.check_size(total or 0)
        self._check_room((total or 0) - offset)
        try:
            arrived = self._append(read, offset)
            if total is not None and arrived.length != total:
                if arrived.length > total:
                    self.discard()
                raise TruncatedFile(f"{self.title}: {arrived.length} of {total} bytes arrived; try again later")
            sha256 = arrived.finish()
            check_end(self.part, self.file_format)
            if verify:
                verify(sha256)
        except Damage as damage:
            self.discard()
            raise self._meaning(damage, offset) from None
        with writing(self.target.parent):
            os.replace(self.part, self.target)
        return Fetched(self.target, self.url, sha256, self.version, arrived.length)

    def _append(self, read: Callable[[], bytes], offset: int) -> _Arrived:
        arrived, total = _Arrived(self.file_format), self.version.length
        with writing(self.target.parent):
            file = self.part.open("r+b" if offset else "wb")
        try:
            with writing(self.target.parent):
                while arrived.length < offset and (data := file.read(CHUNK)):
                    arrived.add(data)
            while data := read():
                arrived.add(data)
                with writing(self.target.parent):
                    file.write(data)
                if total is None:
                    self.check_size(arrived.length)
                elif arrived.length > total:
                    break
                if self.progress:
                    self.progress(arrived.length, total)
        finally:
            with writing(self.target.parent):
                file.close()
        return arrived

    def _meaning(self, damage: Damage, offset: int) -> PipelineError:
        """What damage in a file means, which had all the bytes announced or was refused before its end."""
        if damage.quote is not None:
            words = self._redact(damage.quote)
            return WrongFormat(f"{self.title}: {damage}, it begins with {words!r}; check [publisher] url, or try later")
        if offset:
            return TruncatedFile(f"{self.title}: {damage}, after a broken transfer was resumed; starting over")
        if damage.is_cut and self.version.length is None:
            return TruncatedFile(f"{self.title}: {damage}: the transfer broke off; try again later")
        return WrongFormat(f"{self.title}: {damage}; it is damaged at the publisher: leave it out until it is mended")

    def check_size(self, length: int) -> None:
        """Raise WrongFormat for more bytes than a file of this kind can have: a body without an end is none."""
        most = MOST_BYTES[self.file_format]
        if length > most:
            self.discard()
            raise WrongFormat(
                f"{self.title}: it has more than {most} bytes, which no file of this kind has; check [publisher] url"
            )

    def _check_room(self, needed: int) -> None:
        with writing(self.target.parent):
            free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise _no_room(self.target.parent, f"{needed} bytes are needed and {free} are free")

    def remove_parts(self, keep: str = "") -> None:
        """Remove the parts of all versions but ``keep``."""
        name = re.escape(self.target.name)
        # The second form is what a killed process leaves of a sample that it was making.
        pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.part|\.\.{name}\.[0-9a-f]{{16}}\.part\.\d+\.tmp")
        with writing(self.target.parent):
            for entry in list(os.scandir(self.target.parent)):
                if pattern.fullmatch(entry.name) and entry.name != keep:
                    os.unlink(entry.path)

    def discard(self) -> None:
        """Remove the part of the version that is being fetched."""
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


class _Arrived:
    """What has arrived of a file: its length, digest and first bytes. Raises ``Damage``."""

    def __init__(self, file_format: str) -> None:
        self.length = 0
        self._format = file_format
        self._digest = hashlib.sha256()
        self._head = b""

    def add(self, data: bytes) -> None:
        self.length += len(data)
        self._digest.update(data)
        if len(self._head) < HEAD:
            self._head += data[: HEAD - len(self._head)]
            if len(self._head) == HEAD:
                check_head(self._head, self._format)

    def finish(self) -> str:
        """The SHA-256 in hexadecimal."""
        if not self.length:
            raise Damage("the file is empty", is_cut=True)
        if len(self._head) < HEAD:
            check_head(self._head, self._format)
        return self._digest.hexdigest()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about files of ours into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise _no_room(folder, error.strerror or "full") from None
        raise LakeError(f"{folder} cannot be written: {error.strerror or error}; check [workspace] url") from None


def _no_room(folder: Path, why: str) -> LakeError:
    return LakeError(f"no room in {folder}: {why}; free some space, or set [workspace] url to a place that has more")

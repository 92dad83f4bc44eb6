"""Fetches one file from a publisher: the whole file, checked, under its name, or nothing under that name.

Bytes arrive in a hidden partial file beside the target. On their way they are hashed and checked, gzip down to its
CRC; a Parquet file must have a readable footer. The zone table, which has nothing of the kind, must hold all zones that
are known and come twice the same. Only then is the file synced and renamed. A transfer from the web that
broke off, in this process or in one that was killed, goes on where it stopped, as long as the publisher's ETag promises
the same bytes. One process at a time works on a name; see ``alone``.
"""

from __future__ import annotations

import csv
import errno
import hashlib
import os
import re
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO

from ..datasets.zones import KNOWN_IDS
from ..errors import (
    LakeError,
    NoAnswer,
    PipelineError,
    PublisherUnavailable,
    RefusedByPublisher,
    TransientError,
    TruncatedFile,
    WrongFormat,
)
from ..file_types import mismatch
from ..partition import Partition
from ..retry import Policy, retrying
from .publishers import Publisher, Version, ask, describe, look, refusal, refused_or_absent

if TYPE_CHECKING:
    from ..web import Answer

Progress = Callable[[int, int | None], None]

#: Bytes read at once; as much again is the most that is unpacked at once.
CHUNK = 1 << 20
#: Chunks that may wait for the thread that hashes and checks.
BEHIND = 8
#: A broken transfer that brought at least so many bytes goes on at once and does not count as a failed try.
PROGRESS = 8 << 20
#: Bytes at the beginning of a file that are looked at, and quoted from, to tell its format.
HEAD = 512
#: Bytes above which a file is none of the publisher's, by its format. The largest month has 611 MB, the zones 12 KB.
MOST_BYTES = {"parquet": 8 << 30, "csv.gz": 8 << 30, "csv": 4 << 20}
#: Bytes above which what a csv.gz unpacks to is no month. The largest has some 3 GB.
MOST_UNPACKED = 64 << 30
#: Seconds to wait for another process that fetches the same file.
LOCK_WAIT = 3600.0


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched. ``url`` holds no credentials; ``length`` and ``resumed_from`` in bytes."""

    path: Path
    url: str
    sha256: str
    version: Version
    length: int
    resumed_from: int = 0


def fetch(
    publisher: Publisher,
    dataset: str,
    month: date | None,
    folder: Path,
    *,
    name: str,
    policy: Policy,
    expected: Version | None = None,
    probe: date | None = None,
    progress: Progress | None = None,
    on_silence: Callable[[NoAnswer], None] | None = None,
) -> Fetched:
    """Fetch the file of a month (None: the zone table) to ``folder / name``, replacing what is there.

    ``expected`` is the version the caller saw last, and only a hint: what the publisher has now is fetched, and its
    version returned. ``probe`` is a month that the publisher must have, as for ``look``. ``progress`` is called with
    the bytes done and, if known, in all; ``on_silence`` before another try where the publisher gave no answer, and may
    raise what ends the tries.

    Raises, after the tries of ``policy``: ``PublisherUnavailable`` or ``TruncatedFile`` when the transfer did not come
    to its end (what arrived stays only if it can be resumed); at once: ``MissingAtPublisher``, ``RefusedByPublisher``,
    ``WrongFormat`` for another format or a file that is damaged at the publisher, ``LakeError`` when the folder
    cannot be written. None of the latter leaves anything behind.
    """
    with alone(folder, name):
        transfer = _Transfer(
            publisher, dataset, month, folder / name, policy, expected or Version(), probe, progress or _silent
        )
        steps = {"sample": transfer.make, "file": transfer.copy}
        step = steps.get(publisher.scheme, transfer.download)

        def once() -> Fetched:
            try:
                return step()
            except NoAnswer as error:
                if on_silence is not None:
                    on_silence(error)
                raise

        return retrying(once, policy)


@contextmanager
def alone(folder: Path, name: str, wait: float = LOCK_WAIT) -> Iterator[None]:
    """Hold the lock on ``folder / name``; ``TransientError`` if another process keeps it for ``wait`` seconds.

    ``fetch`` takes it by itself. Reentrant: who holds it around "is it there already? if not, fetch" never fetches what
    another process just did. The lock ends with the process, however that ends.
    """
    from filelock import FileLock, Timeout

    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{name}.lock", is_singleton=True)
        try:
            lock.acquire(timeout=wait)
        except Timeout:
            raise TransientError(
                f"{folder / name}: another process has been fetching it for {wait:.0f} s; wait for it, or stop it"
            ) from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            # Removed while it is held: a process that waits notices that its file has no name and makes a new one.
            with suppress(OSError):
                os.unlink(lock.lock_file)
        lock.release()


def _silent(done: int, total: int | None) -> None:
    pass


# -- the three ways --------------------------------------------------------------------------------


@dataclass
class _Transfer:
    """One file on its way. ``download``, ``copy`` and ``make`` are one try each."""

    publisher: Publisher
    dataset: str
    month: date | None
    target: Path
    policy: Policy
    expected: Version
    probe: date | None
    progress: Progress

    def __post_init__(self) -> None:
        self.version = self.expected
        self.place = f"{describe(self.dataset, self.month)}: {self.publisher.address(self.dataset, self.month)}"

    @property
    def part(self) -> Path:
        """The partial file of the version that is being fetched."""
        key = hashlib.sha256((self.version.etag or "").encode()).hexdigest()[:16]
        return self.target.with_name(f".{self.target.name}.{key}.part")

    def download(self) -> Fetched:
        """One try from the web; it goes on by itself as long as it gets ahead."""
        while True:
            before = self._there_already()
            try:
                return self._request()
            except (PublisherUnavailable, TruncatedFile):
                if not self.version.is_strong:
                    self._discard()
                if self._there_already() - before < PROGRESS:
                    raise
            except PipelineError:
                self._remove_parts()
                raise

    def copy(self) -> Fetched:
        """One try from a folder of this machine."""
        source = self.publisher.path(self.dataset, self.month)
        self.version = look(self.publisher, self.dataset, self.month)
        try:
            with source.open("rb") as file:
                return self._receive(lambda: file.read(CHUNK), 0, check=lambda: self._check_unchanged(source))
        except WrongFormat:
            self._check_unchanged(source)
            raise
        except OSError as error:
            raise RefusedByPublisher(f"{self.place} cannot be read: {error.strerror or error}") from None
        finally:
            self._discard()

    def make(self) -> Fetched:
        """Make the sample."""
        from .sample.generator import make_file

        self.version = look(self.publisher, self.dataset, self.month)
        self._remove_parts(keep=self.part.name)
        try:
            with _writing(self.target.parent):
                make_file(Partition(self.dataset, self.month), self.part, **self.publisher.sample_options)
                made = self.part.stat().st_size
            return self._receive(lambda: b"", made)
        finally:
            self._discard()

    def _check_unchanged(self, source: Path) -> None:
        try:
            unchanged = Version.from_stat(source.stat()) == self.version
        except OSError:
            unchanged = False
        if not unchanged:
            raise TruncatedFile(f"{self.place} changed while it was copied; try again when it is complete")

    # -- the web -----------------------------------------------------------------------------------

    def _request(self) -> Fetched:
        offset = self._there_already()
        headers = {"Range": f"bytes={offset}-", "If-Range": self.version.etag or ""} if offset else {}
        with ask("GET", self.publisher, self.dataset, self.month, self.policy, headers) as answer:
            if answer.status_code == 416:
                if answer.headers.get("Content-Range") == f"bytes */{offset}":
                    return self._receive(lambda: b"", offset)  # all is there: it ended just before the renaming
                self._discard()
                raise TruncatedFile(f"{self.place}: it is shorter than what was fetched before; starting over")
            self._check_status(answer)
            version = Version.from_headers(answer.headers)
            if answer.status_code == 206:
                if not self._is_rest(version, answer, offset):
                    self._discard()
                    raise TruncatedFile(f"{self.place}: not the part that was asked for; starting over")
                self.version = version
                return self._receive(lambda: self._read(answer), offset)
            self.version = version
            if headers or not self._there_already():
                self._check_expected()
                return self._receive(lambda: self._read(answer), 0)
        # The answer told which version is there now, and an earlier process left a part of just that.
        return self._request()

    def _is_rest(self, version: Version, answer: Answer, offset: int) -> bool:
        """Whether a 206 is what follows our first ``offset`` bytes, of the same version."""
        return (
            version.etag == self.version.etag
            and version.length is not None
            and version.length == (self.version.length or version.length)
            and answer.headers.get("Content-Range", "").startswith(f"bytes {offset}-")
        )

    def _there_already(self) -> int:
        """Bytes of this version in the partial file; 0 where they must not be used."""
        if self.version.is_strong and self.part.exists():
            return self.part.stat().st_size
        return 0

    def _check_status(self, answer: Answer) -> None:
        error = refusal(self.publisher, self.dataset, self.month, answer.status_code, answer.headers)
        if answer.status_code == 403 and self.publisher.hides_absence:
            error = refused_or_absent(self.publisher, self.dataset, self.month, self.probe, self.policy)
        if error is not None:
            raise error

    def _check_expected(self) -> None:
        before, now = self.expected, self.version
        if before.is_strong and before.etag == now.etag and not before.same_as(now):
            raise TruncatedFile(f"{self.place}: under this ETag it had {before.length} bytes before; try again later")

    def _read(self, answer: Answer) -> bytes:
        import urllib3

        from .. import web

        try:
            return answer.read(CHUNK, self.policy.min_rate)
        except web.Silent:
            raise NoAnswer(f"{self.place}: silent for {self.policy.timeout:g} s; try again later") from None
        except web.TooSlow as error:
            raise PublisherUnavailable(
                f"{self.place}: it comes at {error.rate:.0f} bytes per second, less than the {self.policy.min_rate:g} "
                "of [publisher] min_rate; try again later, or set that lower"
            ) from None
        except (urllib3.exceptions.HTTPError, OSError, ValueError):
            raise TruncatedFile(f"{self.place}: the connection broke before the end; try again later") from None

    # -- the file ----------------------------------------------------------------------------------

    def _receive(self, read: Callable[[], bytes], offset: int, check: Callable[[], None] | None = None) -> Fetched:
        """Bring the rest of the file behind the first ``offset`` bytes, check the whole, and give it its name."""
        self._remove_parts(keep=self.part.name)
        total = self.version.length
        csv_check = _CsvCheck if self.publisher.is_local else _ZonesCheck
        self._check_size(total or 0)
        self._check_room((total or 0) - offset)
        try:
            with _Intake(self.part, self.publisher.file_format(self.dataset), offset, csv_check) as intake:
                while data := read():
                    intake.write(data)
                    if total is None:
                        self._check_size(intake.length)
                    elif intake.length > total:
                        break
                    self.progress(intake.length, total)
                if check:
                    check()
                if total is not None and intake.length != total:
                    raise self._wrong_length(intake.length, total)
                sha256 = intake.finish()
            if self._is_unproven:
                self._ask_twice(sha256)
        except _Damage as damage:
            self._discard()
            raise self._meaning(damage, offset) from None
        with _writing(self.target.parent):
            os.replace(self.part, self.target)
            _sync_folder(self.target.parent)
        url = self.publisher.address(self.dataset, self.month)
        resumed_from = 0 if self.publisher.is_local else offset
        return Fetched(self.target, url, sha256, self.version, intake.length, resumed_from)

    def _meaning(self, damage: _Damage, offset: int) -> PipelineError:
        """What damage in a file means, which had all the bytes announced or was refused before its end."""
        if damage.quote is not None:
            words = self.publisher.redact(damage.quote)
            return WrongFormat(f"{self.place}: {damage}, it begins with {words!r}; check [publisher] url, or try later")
        if offset and not self.publisher.is_local:
            return TruncatedFile(f"{self.place}: {damage}, after a broken transfer was resumed; starting over")
        if damage.is_cut and self.version.length is None:
            return TruncatedFile(f"{self.place}: {damage}: the transfer broke off; try again later")
        return WrongFormat(f"{self.place}: {damage}; it is damaged at the publisher: leave it out until it is mended")

    @property
    def _is_unproven(self) -> bool:
        """Whether neither the format nor the disk it lies on tells that the bytes are the publisher's."""
        return not self.publisher.is_local and self.publisher.file_format(self.dataset) == "csv"

    def _ask_twice(self, sha256: str) -> None:
        """Raise TruncatedFile unless a second transfer brings the same bytes."""
        again = hashlib.sha256()
        with ask("GET", self.publisher, self.dataset, self.month, self.policy) as answer:
            self._check_status(answer)
            length = 0
            while data := self._read(answer):
                length += len(data)
                self._check_size(length)
                again.update(data)
        if again.hexdigest() != sha256:
            self._discard()
            raise TruncatedFile(f"{self.place}: two transfers brought different bytes; try again later")

    def _wrong_length(self, arrived: int, total: int) -> TruncatedFile:
        if arrived > total:
            self._discard()
        return TruncatedFile(f"{self.place}: {arrived} of {total} bytes arrived; try again later")

    def _check_size(self, length: int) -> None:
        """Raise WrongFormat for more bytes than a file of this kind can have: a body without an end is none."""
        most = MOST_BYTES[self.publisher.file_format(self.dataset)]
        if length > most:
            self._discard()
            raise WrongFormat(
                f"{self.place}: it has more than {most} bytes, which no file of this kind has; check [publisher] url"
            )

    def _check_room(self, needed: int) -> None:
        with _writing(self.target.parent):
            free = shutil.disk_usage(self.target.parent).free
        if needed > free:
            raise _no_room(self.target.parent, f"{needed} bytes are needed and {free} are free")

    def _remove_parts(self, keep: str = "") -> None:
        """Remove the parts of all versions but ``keep``: under the lock nobody else uses them."""
        name = re.escape(self.target.name)
        # The second form is what a killed process leaves of a sample that it was making.
        pattern = re.compile(rf"\.{name}\.[0-9a-f]{{16}}\.part|\.\.{name}\.[0-9a-f]{{16}}\.part\.\d+\.tmp")
        with _writing(self.target.parent):
            for entry in list(os.scandir(self.target.parent)):
                if pattern.fullmatch(entry.name) and entry.name != keep:
                    os.unlink(entry.path)

    def _discard(self) -> None:
        with suppress(OSError):
            self.part.unlink(missing_ok=True)


# -- intake ----------------------------------------------------------------------------------------


class _Intake:
    """Writes a file while one thread behind it hashes and checks the same bytes, at most ``BEHIND`` chunks later.

    What is in the file already, up to ``offset``, is hashed and checked first. Raises ``_Damage`` and ``LakeError``.
    """

    def __init__(self, path: Path, file_format: str, offset: int, csv_check: type[_CsvCheck]) -> None:
        self.path = path
        self.length = offset
        self._digest = hashlib.sha256()
        checks: dict[str, type[_Check]] = {"parquet": _ParquetCheck, "csv.gz": _GzipCheck, "csv": csv_check}
        self._check = checks[file_format]()
        self._pending: deque[Future[None]] = deque()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="intake")
        self._file: BinaryIO | None = None

    def __enter__(self) -> _Intake:
        try:
            with _writing(self.path.parent):
                if self.length:
                    with self.path.open("rb") as before:
                        while data := before.read(CHUNK):
                            self._follow(data)
                self._file = self.path.open("ab" if self.length else "wb")
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)
        if self._file is not None:
            with _writing(self.path.parent):
                self._file.close()

    def write(self, data: bytes) -> None:
        assert self._file is not None
        self._follow(data)
        with _writing(self.path.parent):
            self._file.write(data)
        self.length += len(data)

    def finish(self) -> str:
        """Sync the file and do the checks that need its end; its SHA-256 in hexadecimal."""
        assert self._file is not None
        with _writing(self.path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
        while self._pending:
            self._pending.popleft().result()
        self._check.finish(self.path)
        return self._digest.hexdigest()

    def _follow(self, data: bytes) -> None:
        if len(self._pending) >= BEHIND:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._look_at, data))

    def _look_at(self, data: bytes) -> None:
        self._digest.update(data)
        self._check.feed(data)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn what the operating system says about files of ours into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise _no_room(folder, error.strerror or "full") from None
        raise LakeError(f"{folder} cannot be written: {error.strerror or error}; check [workspace] url") from None


def _no_room(folder: Path, why: str) -> LakeError:
    return LakeError(f"no room in {folder}: {why}; free some space, or set [workspace] url to a place that has more")


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- checks ----------------------------------------------------------------------------------------


class _Damage(Exception):
    """A file is not what it should be.

    ``quote`` are its first words, if it is of another format. ``is_cut``: it is right as far as it goes.
    """

    def __init__(self, message: str, *, quote: str | None = None, is_cut: bool = False) -> None:
        super().__init__(message)
        self.quote = quote
        self.is_cut = is_cut


class _Check:
    """Looks at the bytes of a file in order, in chunks of any size, and at the end once more at the file."""

    title: str

    def __init__(self) -> None:
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> None:
        if self._head is None:
            self.go_on(data)
            return
        self._head += data
        if len(self._head) >= HEAD:
            self._begin()

    def finish(self, path: Path) -> None:
        if self._head == b"":
            raise _Damage("the file is empty", is_cut=True)
        self._begin()
        self.end(path)

    def _begin(self) -> None:
        if self._head is None:
            return
        if not self.begins_right(self._head):
            raise _Damage(f"this is {mismatch(self._head, self.title)}", quote=_first_words(self._head))
        head, self._head = self._head, None
        self.go_on(head)

    def begins_right(self, head: bytes) -> bool:
        raise NotImplementedError

    def go_on(self, data: bytes) -> None:
        """Look at the next bytes, the first ones included."""

    def end(self, path: Path) -> None:
        """Look at the complete file."""


class _ParquetCheck(_Check):
    title = "a Parquet file"

    def begins_right(self, head: bytes) -> bool:
        return head[:4] == b"PAR1"

    def end(self, path: Path) -> None:
        from ..cleaning.parquet_file import BadFooter, footer

        with path.open("rb") as file:
            file.seek(-4, os.SEEK_END)
            if file.read() != b"PAR1":
                raise _Damage("the Parquet file has no footer, its end is cut off", is_cut=True)
            try:
                footer(file)
            except BadFooter as error:
                raise _Damage(str(error)) from None


class _GzipCheck(_Check):
    """Unpacks all members to nowhere, which proves their CRCs and lengths."""

    title = "a gzip file"

    def __init__(self) -> None:
        super().__init__()
        self._member: Any = None  # the decompressor of the member we are in
        self._rest = b""  # of the last chunk, too short to tell what follows a member
        self._unpacked = 0  # bytes

    def begins_right(self, head: bytes) -> bool:
        return head[:3] == b"\x1f\x8b\x08"

    def go_on(self, data: bytes) -> None:
        from isal import isal_zlib

        data = self._rest + data
        self._rest = b""
        while data:
            if self._member is None:
                data = data.lstrip(b"\0")  # gzip lets zeros follow a member, as the last block of a tape has them
                if len(data) < 3:
                    self._rest = data
                    return
                if data[:3] != b"\x1f\x8b\x08":
                    raise _Damage("bytes that are no gzip follow the end of the gzip data")
                self._member = isal_zlib.decompressobj(wbits=31)
            try:
                data = self._unpack(data)
            except isal_zlib.IsalError as error:  # type: ignore[misc]  # the stub says it is an instance
                raise _Damage(f"the gzip data is damaged ({str(error).split(maxsplit=2)[-1].lower()})") from None

    def _unpack(self, data: bytes) -> bytes:
        """Feed the member; what lies behind its end, if that was reached."""
        member = self._member
        unpacked = member.decompress(data, CHUNK)
        self._count(unpacked)
        while not member.eof and (member.unconsumed_tail or len(unpacked) == CHUNK):
            unpacked = member.decompress(member.unconsumed_tail, CHUNK)
            self._count(unpacked)
        if not member.eof:
            return b""
        self._member = None
        return member.unused_data

    def _count(self, unpacked: bytes) -> None:
        self._unpacked += len(unpacked)
        if self._unpacked > MOST_UNPACKED:
            raise _Damage(f"it unpacks to more than {MOST_UNPACKED} bytes, which no month has")

    def end(self, path: Path) -> None:
        if self._rest:
            raise _Damage("bytes that are no gzip follow the end of the gzip data")
        if self._member is not None:
            raise _Damage("the gzip data ends in the middle, its end is cut off", is_cut=True)


class _CsvCheck(_Check):
    title = "a CSV file"

    def begins_right(self, head: bytes) -> bool:
        """Text whose first line has a comma. Pages and messages begin with a bracket."""
        text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
        return b"\0" not in head and text[:1] not in (b"<", b"{", b"[") and b"," in text.split(b"\n", 1)[0]


class _ZonesCheck(_CsvCheck):
    """The zone table as it comes from the web, where its end proves nothing: it must have all zones that are known."""

    title = "the zone table"

    def end(self, path: Path) -> None:
        text = path.read_bytes().decode("utf-8-sig", "replace")
        try:
            header, *rows = csv.reader(line for line in re.split(r"[\r\n]+", text) if line.strip())
        except csv.Error as error:
            raise _Damage(f"the zone table cannot be read ({error})") from None
        names = [name.strip().lower() for name in header]
        if "locationid" not in names:
            raise _Damage("this is text, not the zone table", quote=_first_words(text[:HEAD].encode()))
        column = names.index("locationid")
        width = len(header) - (not names[-1])  # a comma at its end is no column
        ids: set[int] = set()
        for row in rows:
            is_whole = len(row) >= width and not any(row[width:])
            if not is_whole or not re.fullmatch(r"[0-9]{1,9}", row[column].strip()):
                raise _Damage(f"the line behind zone {max(ids, default=0)} is no zone", is_cut=row is rows[-1])
            ids.add(int(row[column]))
        lacking = sorted(KNOWN_IDS - ids)
        if lacking:
            raise _Damage(
                f"of {len(KNOWN_IDS)} zones it lacks {len(lacking)}, from {lacking[0]} to {lacking[-1]}", is_cut=True
            )
        if text[-1] not in "\r\n":
            raise _Damage("its last line has no end", is_cut=True)


def _first_words(head: bytes) -> str:
    """The beginning of a file as a person would quote it: ``<html>… Access Denied``, or the first bytes as numbers."""
    text = head.decode("utf-8", "replace")
    if sum(not (char.isprintable() or char.isspace()) or char == "\ufffd" for char in text) > len(text) // 20:
        return head[:8].hex(" ")
    tag = re.match(r"\s*<[!?]?(\w+)", text)
    plain = " ".join(re.sub(r"(?s)<(script|style)\b.*?</\1>|<[^>]*>?", " ", text).split())
    return (f"<{tag[1]}>… " if tag else "") + (plain if len(plain) <= 80 else plain[:80].rstrip() + "…")

"""A lake or workspace in a Google Cloud Storage bucket (``gs://``): uploads, downloads, listings.

* An upload carries its CRC32C, so the service refuses bytes that were damaged on the way, and a generation
  precondition, so that a repeated request never overwrites what someone else wrote meanwhile. When the reply to an
  upload is lost, the repetition meets its own object and is answered 412: if the object's CRC32C is ours, it is ours.
* A download is pinned to one generation, resumed where it broke off, and checked against the CRC32C of that generation.
* ``STORAGE_EMULATOR_HOST`` is honoured, with anonymous credentials; else the application default credentials are used.
"""

from __future__ import annotations

import base64
import io
import logging
import mimetypes
import os
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

import google_crc32c
from google.api_core.exceptions import Conflict, Forbidden, NotFound, PreconditionFailed
from google.auth.exceptions import GoogleAuthError
from google.cloud import storage  # type: ignore[attr-defined]
from google.cloud.storage.exceptions import DataCorruption

from ..doctor_check import Check
from ..errors import LakeError, PipelineError, StorageUnavailable, UsageError
from ..remote import emulator, for_server
from ..retry import RACES, pause
from ..safe_files import private_folder
from .base import Progress, Store, StoredObject, StoreOptions, checked, no_progress, without_secrets
from .gcs_client import (
    CLIENT_ERRORS,
    EMULATOR,
    client_of,
    explained,
    is_bucket_missing,
    is_transient,
    patient,
    status_of,
    what,
)
from .staging import Staging

LOGGER = logging.getLogger("pipeline")

#: Seconds to connect, and to wait for the next byte of an answer.
TIMEOUT = (20.0, 60.0)

#: While a request body is sent, its first figure bounds the sending of a whole chunk: 4 MiB take 34 s on a line of
#: 1 Mbit/s, and several uploads may share it.
UPLOAD_TIMEOUT = (180.0, 180.0)

#: Seconds within which an answer must be there whole, however slowly it drips, unless it brings a large object.
WHOLE = 300.0

#: Bytes of an object that come and go in one request for which a person waits, even on a slow line.
SMALL = 64 * 1024

#: Seconds within which a request must be through for the next to be twice as large.
FAST = 2.0

#: How often an upload or download is begun anew: lost upload sessions, objects replaced while they are read.
_ATTEMPTS = 4

#: Looks at an object until one is read before somebody replaces it.
_RACES = 30

#: Bytes of one request where parts of an object are read; the footer of a month's Parquet file is shorter.
READ_AHEAD = 256 * 1024

#: Objects per page of a listing; the most that the service gives.
PAGE = 1000

# Nobody collects traces here; for their labels the client would ask each process anew about the bucket itself.
os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")

_BUCKET_URL = re.compile(r"gs://(?P<bucket>[a-z0-9][a-z0-9._-]{1,220}[a-z0-9])(?:/(?P<prefix>[^?#]*))?$")


class GcsStore(Store):
    """The part of a bucket that a ``gs://bucket/prefix`` URL names."""

    has_locks = False

    def __init__(self, url: str, options: StoreOptions | None = None) -> None:
        match = _BUCKET_URL.match(url)
        if not match:
            bucket = without_secrets(url).removeprefix("gs://").partition("/")[0]
            if bucket != bucket.lower():
                raise UsageError(f"bucket {without_secrets(bucket)!r}: the name of a bucket has no capitals")
            raise UsageError(f"{without_secrets(url)!r} is not a bucket; write gs://bucket or gs://bucket/prefix")
        emulator(EMULATOR)  # refused here, not in the middle of a run
        self.options = options or StoreOptions()
        self.bucket_name = match["bucket"]
        self.prefix = checked((match["prefix"] or "").strip("/"))
        self.url = f"gs://{self.bucket_name}/{self.prefix}".rstrip("/")
        self._location: str | None = None

    def uri(self, path: str) -> str:
        return f"gs://{self.bucket_name}/{self._name(path)}"

    def generation(self, path: str) -> str | None:
        stored = self.stat(path)
        return stored.version if stored else None

    def location(self) -> str | None:
        """Location of the bucket; None where the account may not see it (``storage.buckets.get``)."""
        if self._location is None:
            with self._explained("", "storage.buckets.get"):
                try:
                    bucket = self._client.get_bucket(self.bucket_name, **self._asking)
                except Forbidden:
                    LOGGER.info(
                        "the location of gs://%s is unknown: storage.buckets.get is not granted", self.bucket_name
                    )
                    return None
                self._location = str(bucket.location).upper()
        return self._location

    def stat(self, path: str) -> StoredObject | None:
        blob = self._find(path)
        return self._object(blob) if blob else None

    def list(self, prefix: str = "") -> dict[str, StoredObject]:
        name = self._name(checked(prefix))
        with self._explained(prefix, "storage.objects.list"):
            blobs = self._client.list_blobs(
                self.bucket_name,
                prefix=f"{name}/" if name else None,
                fields="items(name,size,generation,metadata,updated),nextPageToken",
                page_size=PAGE,
                **self._asking,
            )
            # Names that end in a slash are the empty "folders" that the web console makes.
            stored = [self._object(blob) for blob in blobs if not blob.name.endswith("/")]
        return {one.path: one for one in stored}

    def read(self, path: str) -> bytes:
        return self.read_small(path)

    def files(self, folder: str) -> dict[str, StoredObject]:
        inner = ((stored.path.removeprefix(f"{folder}/"), stored) for stored in self.list(folder).values())
        return {name: stored for name, stored in sorted(inner) if "/" not in name and not name.startswith(".")}

    def folders(self, prefix: str) -> tuple[str, ...]:
        inner = (path.removeprefix(f"{prefix}/").split("/") for path in self.list(prefix))
        return tuple(sorted({parts[0] for parts in inner if len(parts) > 1}))

    def read_small(self, path: str, limit: int | None = None) -> bytes:
        buffer = io.BytesIO()
        self._download(path, buffer, limit)
        return buffer.getvalue()

    def move(self, path: str, to: str) -> None:
        with self._explained(to, "storage.objects.create"), _may_be_absent():
            source = self._bucket.blob(self._name(path))  # of any name
            self._bucket.copy_blob(source, self._bucket, self._name(checked(to)), **self._sending)
            source.delete(**self._asking)

    def write(
        self, path: str, data: bytes, metadata: Mapping[str, str] | None = None, if_version: str | None = None
    ) -> StoredObject:
        return self._upload(path, lambda: io.BytesIO(data), len(data), metadata, if_version)

    def put(
        self,
        local: Path,
        path: str,
        metadata: Mapping[str, str] | None = None,
        progress: Progress = no_progress,
        if_version: str | None = None,
        last_check: Callable[[], object] | None = None,
    ) -> StoredObject:
        size = local.stat().st_size
        return self._upload(path, lambda: _Watched(local, size, progress, last_check), size, metadata, if_version)

    def has_bytes(self, path: str, local: Path) -> bool:
        found = self._find(path)
        if found is None or found.size != local.stat().st_size:
            return False
        with open(local, "rb") as file:
            return bool(found.crc32c == _sum_of(file))

    def copy(self, path: str, to: str) -> StoredObject:
        source = self._find(path)
        if source is None:
            raise self._absent(path)
        with self._explained(to, "storage.objects.create"):
            copied = self._bucket.copy_blob(
                source,
                self._bucket,
                self._name(checked(to)),
                if_source_generation_match=source.generation,
                **self._sending,
            )
        if copied.crc32c != source.crc32c:
            raise StorageUnavailable(f"{self.uri(to)} is not the copy of {self.uri(path)} that it should be; run again")
        return self._object(copied)

    def staging(self, path: str, key: str | None = None) -> AbstractContextManager[Path]:
        return self._staging.open(checked(path).rsplit("/", 1)[-1], f"{self.uri(path)} {key}" if key else None)

    @contextmanager
    def local(self, path: str) -> Iterator[Path]:
        with self.staging(path) as temporary:
            try:
                with open(temporary, "wb") as file:
                    self._download(path, file)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise LakeError(
                    f"{self.uri(path)} cannot be kept in {self._staging.folder}: {error.strerror}; "
                    "make room there, or set TMPDIR to a folder that has it"
                ) from error
            yield temporary

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        found = self._find(path)
        if found is None:
            raise self._absent(path)
        pinned = {"if_generation_match": found.generation, "timeout": _waited(TIMEOUT), "retry": self._retry_of_bytes}
        with self._explained(path, "storage.objects.get"), found.open("rb", chunk_size=READ_AHEAD, **pinned) as file:
            yield file

    def delete(self, path: str) -> None:
        with self._explained(path, "storage.objects.delete"), _may_be_absent():
            self._bucket.blob(self._name(checked(path))).delete(**self._asking)

    def delete_tree(self, prefix: str) -> None:
        for path in self.list(prefix):
            self.delete(path)

    def sweep(self, older_than: float = 24 * 3600) -> int:
        """Removes temporary files of this machine; an upload that was never finished leaves nothing in the bucket."""
        return self._staging.sweep(older_than)

    def lock(self, path: str, timeout: float | None = None, title: str = "") -> AbstractContextManager[object]:
        """No lock: a bucket has none that a killed process would let go of. Two writers are told apart by their
        generation preconditions instead, and the later one fails with ``ConflictError``."""
        return nullcontext()

    def check(self, create: bool = False) -> Iterable[Check]:
        try:
            bucket = f"gs://{self.bucket_name}"
            if create:
                yield from self._create()
            unknown = "location unknown; grant roles/storage.bucketViewer so that it is checked"
            yield Check(bucket, True, f"lies in {location}" if (location := self.location()) else unknown)
            probe = f"doctor/{uuid.uuid4().hex}.txt"
            self.write(probe, b"doctor", metadata={"sha256": "0"})
            found = self.list("doctor").get(probe)
            if found is None or self.read(probe) != b"doctor":
                yield Check(self.url, False, "an object just written is not there", "check the bucket's rules")
                return
            self.delete(probe)
            yield Check(self.url, True, "objects can be created, listed, read and deleted")
        except PipelineError as error:
            yield Check.failed("", error)  # its text begins with the address
        except FileNotFoundError as error:
            yield Check(self.url, False, str(error), "check the bucket's rules")

    def _create(self) -> Iterator[Check]:
        with self._explained("", "storage.buckets.create"):
            bucket = self._client.bucket(self.bucket_name)
            bucket.iam_configuration.uniform_bucket_level_access_enabled = True
            try:
                self._client.create_bucket(bucket, location=self.options.location, **self._asking)
            except Conflict:
                return  # it exists; whether we may use it is seen next
        yield Check(f"gs://{self.bucket_name}", True, f"created in {self.options.location}")

    # -- the wire ------------------------------------------------------------------------------------------------

    @property
    def _client(self) -> storage.Client:
        return client_of(os.getpid(), emulator(EMULATOR))

    @property
    def _bucket(self) -> storage.Bucket:
        return self._client.bucket(self.bucket_name)

    @property
    def _staging(self) -> Staging:
        return Staging(private_folder("nyc-trips"), self.options.lock_timeout)

    @property
    def _retry(self) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return patient(for_server(self.options.patience), for_server(WHOLE))

    @property
    def _retry_of_bytes(self) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """For requests that bring or send as many bytes as an object has: nobody knows how long that takes."""
        return patient(for_server(self.options.patience))

    @property
    def _asking(self) -> dict[str, Any]:
        """Time-outs and retries of a request that brings or sends little."""
        return {"timeout": _waited(TIMEOUT), "retry": self._retry}

    @property
    def _sending(self) -> dict[str, Any]:
        return {"timeout": _waited(UPLOAD_TIMEOUT), "retry": self._retry_of_bytes}

    def _name(self, path: str) -> str:
        return "/".join(part for part in (self.prefix, path) if part)

    def _object(self, blob: storage.Blob) -> StoredObject:
        path = blob.name.removeprefix(f"{self.prefix}/") if self.prefix else blob.name
        modified = blob.updated.timestamp() if blob.updated else 0.0
        return StoredObject(path, int(blob.size or 0), str(blob.generation), dict(blob.metadata or {}), modified)

    def _find(self, path: str) -> storage.Blob | None:
        with self._explained(path, "storage.objects.get"), _may_be_absent():
            blob = self._bucket.blob(self._name(checked(path)))
            blob.reload(**self._asking)
            return blob
        return None

    def _upload(
        self,
        path: str,
        open_stream: Callable[[], BinaryIO],
        size: int,
        metadata: Mapping[str, str] | None,
        if_version: str | None,
    ) -> StoredObject:
        for attempt in range(1, _ATTEMPTS + 1):
            # Without a wish of the caller the precondition still names what is there now, so that a request that is
            # repeated after its reply was lost cannot undo a later write of someone else.
            version = if_version if if_version is not None else ((self.stat(path) or _NOTHING).version)
            with self._explained(path, "storage.objects.create"), open_stream() as stream:
                blob = _Blob(self._name(checked(path)), self._bucket, chunk_size=self.options.chunk_size)
                blob.largest_chunk = self.options.largest_chunk
                blob.metadata = dict(metadata or {})
                try:
                    blob.upload_from_file(
                        stream,
                        size=size,
                        content_type=mimetypes.guess_type(path)[0] or "application/octet-stream",
                        if_generation_match=int(version or 0),
                        checksum="crc32c",
                        timeout=_waited(UPLOAD_TIMEOUT),
                        retry=self._retry if size <= SMALL else self._retry_of_bytes,
                    )
                    return self._object(blob)
                except (*CLIENT_ERRORS, ValueError) as error:
                    if isinstance(error, GoogleAuthError | Forbidden) or is_bucket_missing(error):
                        raise
                    stored = self._find(path)
                    stream.seek(0)
                    if stored and stored.size == size and stored.crc32c == _sum_of(stream):
                        return self._object(stored)  # our own write, whose reply was lost, or the very same bytes
                    if isinstance(error, PreconditionFailed) and if_version is not None:
                        raise
                    if attempt == _ATTEMPTS or not _is_worth_a_new_upload(error):
                        raise
                    LOGGER.warning("%s: the upload is begun again (%s)", self.uri(path), what(error))
        raise AssertionError("the last attempt returns or raises")

    def _download(self, path: str, stream: Any, limit: int | None = None) -> None:
        """Write the bytes of one generation to ``stream``, from its beginning; they match their CRC32C afterwards.

        ValueError if there are more than ``limit``.
        """
        damaged, races = 0, 0
        while damaged < _ATTEMPTS:
            found = self._find(path)
            if found is None:
                raise self._absent(path)
            if limit is not None and found.size > limit:
                raise ValueError(f"it has more than {limit:,} bytes")
            stream.seek(0)
            stream.truncate()
            summed = _Summed(stream)
            with self._explained(path, "storage.objects.get"), _may_be_absent():
                self._fetch(found, summed)
                if _text(summed.crc32c) == found.crc32c:
                    return
                damaged += 1
                LOGGER.warning("%s: the bytes received are not those of the object, read again", self.uri(path))
                continue
            races += 1  # somebody has replaced it
            if races == _RACES:
                raise StorageUnavailable(f"{self.uri(path)} is replaced all the time by other runs; run again")
            pause(RACES, races)
        raise StorageUnavailable(
            f"{self.uri(path)} arrives damaged each time (CRC32C differs); run again, over another line"
        )

    def _fetch(self, found: storage.Blob, summed: _Summed) -> None:
        """Read one generation. The client's retries count their time from the beginning of the whole object; a line
        that breaks after an hour is worth another try as well, as long as each try brings something."""
        blob = self._bucket.blob(found.name, generation=found.generation)
        retry = self._retry if found.size <= SMALL else self._retry_of_bytes
        while summed.size < found.size:
            begun = summed.size
            try:
                blob.download_to_file(
                    summed, start=begun, raw_download=True, checksum=None, timeout=_waited(TIMEOUT), retry=retry
                )
                return
            except CLIENT_ERRORS as error:
                if summed.size == begun or not is_transient(error):
                    raise

    @contextmanager
    def _explained(self, path: str, permission: str) -> Iterator[None]:
        """Turn what the client raises into one line; ``permission`` is what the call needs."""
        try:
            yield
        except CLIENT_ERRORS as error:
            where = self.uri(path) if path else self.url
            raise explained(error, where, f"gs://{self.bucket_name}", permission) from error


_NOTHING = StoredObject("", 0, "")


@contextmanager
def _may_be_absent() -> Iterator[None]:
    """End the block where the object is not there. A bucket that is not there is an error."""
    try:
        yield
    except NotFound as error:
        if is_bucket_missing(error):
            raise


class _Blob(storage.Blob):
    """An object whose upload sends more per request for as long as the line is fast: each request costs a round trip.

    A slow line keeps the first size, so that a request is through before its time is up, and a broken one costs little.
    The client has one size for the whole upload, and no public way to change it.
    """

    largest_chunk = 0

    def _initiate_resumable_upload(self, *args: Any, **kwargs: Any) -> Any:
        upload, transport = super()._initiate_resumable_upload(*args, **kwargs)
        transmit = upload.transmit_next_chunk

        def transmit_and_grow(*args: Any, **kwargs: Any) -> Any:
            begun = time.monotonic()
            response = transmit(*args, **kwargs)
            if time.monotonic() - begun < FAST and upload._chunk_size < self.largest_chunk:
                upload._chunk_size *= 2
            return response

        upload.transmit_next_chunk = transmit_and_grow
        return upload, transport


class _Watched(io.FileIO):
    """A local file that tells how much of it was read, and keeps its end back until the last check is passed."""

    def __init__(self, path: Path, size: int, progress: Progress, last_check: Callable[[], object] | None) -> None:
        super().__init__(path, "rb")
        self._size = size
        self._progress = progress
        self._last_check = last_check

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(-1 if size is None else size) or b""
        if self._last_check and self.tell() >= self._size:
            self._last_check()
        self._progress(self.tell(), self._size)
        return data


class _Summed:
    """A stream to write to that sums up what it got."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.crc32c = google_crc32c.Checksum()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.crc32c.update(data)
        self.size += len(data)
        return int(self._stream.write(data))


def _waited(seconds: tuple[float, float]) -> tuple[float, float]:
    """Time-outs of a request to connect and to answer."""
    return for_server(seconds[0]), for_server(seconds[1])


def _sum_of(stream: BinaryIO) -> str:
    """CRC32C of what is left of a stream."""
    crc32c = google_crc32c.Checksum()
    while chunk := stream.read(1024 * 1024):
        crc32c.update(chunk)
    return _text(crc32c)


def _text(crc32c: google_crc32c.Checksum) -> str:
    """A CRC32C as the service writes it: base64 of the big-endian bytes."""
    return base64.b64encode(crc32c.digest()).decode()


def _is_worth_a_new_upload(error: Exception) -> bool:
    """A session that the service forgot (404, 410), moved back in (ValueError of the client), or that brought other
    bytes (400 for a wrong CRC32C); or a lost race while any version may be replaced."""
    return isinstance(error, ValueError | PreconditionFailed | DataCorruption) or status_of(error) in (400, 404, 410)

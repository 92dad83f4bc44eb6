"""A publisher's web server for tests: serves a folder over real HTTP on 127.0.0.1, and misbehaves on request.

    with HttpServer(folder) as server:
        server.program("/trip-data/x.parquet", Fault(cut_after=1000), Fault(status=503, retry_after="1"))
        publisher = publishers.get("tlc", server.url)
        ...
        assert server.asked("GET") == ["/trip-data/x.parquet"] * 3

Faults of a path are used up in the order they were given, one request each; afterwards the path is served as it should
be. It knows HEAD, GET, strong ETags, Last-Modified, Range and If-Range.
"""

from __future__ import annotations

import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

#: As ``Fault.times``: until ``clear``.
ALWAYS = 1 << 31


@dataclass(frozen=True)
class Fault:
    """How a path misbehaves. What is not set is as it should be; several may be set together.

    status           answer this status with ``body`` instead of the file
    body             bytes to serve instead of the file's (with status 200: an error page saved as data)
    content_type     its type
    retry_after      value of the header: seconds or an HTTP date
    etag             this ETag instead of the file's own; empty for none
    cut_after        close the connection after so many bytes of the body
    announced        this Content-Length instead of the right one; -1 for none (the end of the connection ends the body)
    no_range         ignore Range, serve the whole file with 200
    no_if_range      ignore If-Range: send the part that was asked for, of whatever version
    range_limit      answer a Range with at most so many bytes
    silent_after     say nothing more after so many bytes of the body, until ``release``; 0: not a word
    pause            seconds before each ``chunk`` bytes of the body
    times            for how many requests
    methods          which of them count and are hit
    """

    status: int | None = None
    body: bytes | None = None
    content_type: str = "application/octet-stream"
    retry_after: str | None = None
    etag: str | None = None
    cut_after: int | None = None
    announced: int | None = None
    no_range: bool = False
    no_if_range: bool = False
    range_limit: int | None = None
    silent_after: int | None = None
    pause: float = 0.0
    chunk: int = 1 << 16
    times: int = 1
    methods: tuple[str, ...] = ("GET", "HEAD")


#: What an error page looks like that is saved as data.
ERROR_PAGE = b"<html><head><title>Access Denied</title></head><body><p>Request blocked.</p></body></html>"


def error_page(**changes: object) -> Fault:
    """An HTML page with status 200 in place of the file."""
    return Fault(status=200, body=ERROR_PAGE, content_type="text/html", **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    """A request as it came in, and the status of the answer."""

    method: str
    path: str
    headers: dict[str, str] = field(repr=False)
    status: int


class HttpServer:
    """Serves ``folder`` until the ``with`` block ends.

    ``absent`` is the status for files that are not there: 404, or 403 as the store behind tlc answers.
    """

    def __init__(self, folder: Path, absent: int = 404) -> None:
        self.folder = folder
        self.absent = absent
        self.requests: list[Request] = []
        self._faults: dict[str, list[tuple[Fault, int]]] = defaultdict(list)
        self._lock = threading.Lock()
        self.released = threading.Event()
        handler = type("Handler", (_Handler,), {"site": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> HttpServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        """Base address, without a slash at its end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def program(self, path: str, *faults: Fault) -> None:
        """Let the next requests of ``path`` (with its slash; ``*`` for every path) meet these faults, in this order."""
        with self._lock:
            self.released.clear()
            self._faults[path].extend((fault, fault.times) for fault in faults)

    def release(self) -> None:
        """Let those requests go on that are silent."""
        self.released.set()

    def clear(self) -> None:
        """Forget all faults and the requests so far."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()

    def asked(self, *methods: str) -> list[str]:
        """Paths of the requests so far, in order; of the given methods only, if any are given."""
        return [request.path for request in self.requests if not methods or request.method in methods]

    def next_fault(self, path: str, method: str) -> Fault:
        with self._lock:
            for key in (path, "*"):
                for index, (fault, left) in enumerate(self._faults[key]):
                    if method in fault.methods:
                        self._faults[key][index : index + 1] = [(fault, left - 1)] if left > 1 else []
                        return fault
        return Fault()

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)


class _Handler(BaseHTTPRequestHandler):
    site: HttpServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def handle(self) -> None:
        # A client that gives up resets the connection, in the middle of an answer or while the next request is awaited.
        with suppress(BrokenPipeError, ConnectionResetError):
            super().handle()

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: object) -> None:
        """Silent: tests look at ``HttpServer.requests``."""

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        fault = self.site.next_fault(path, self.command)
        if fault.silent_after == 0:
            self.site.released.wait()
        file = self.site.folder / path.lstrip("/")
        self._serve(path, file, fault)

    def _serve(self, path: str, file: Path, fault: Fault) -> None:
        headers = {"Content-Type": fault.content_type}
        if fault.status is not None or fault.body is not None or not file.is_file():
            status = fault.status or (200 if fault.body is not None else self.site.absent)
            body, first, length = fault.body or b"", 0, len(fault.body or b"")
            if fault.etag:
                headers["ETag"] = fault.etag
        else:
            stat = file.stat()
            etag = fault.etag if fault.etag is not None else f'"{stat.st_size:x}-{stat.st_mtime_ns:x}"'
            headers |= {"ETag": etag} if etag else {}
            headers |= {"Last-Modified": formatdate(stat.st_mtime, usegmt=True)}
            status, first, length, body = 200, 0, stat.st_size, None
            if not fault.no_range:
                headers["Accept-Ranges"] = "bytes"
                wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
                if wanted and (fault.no_if_range or self.headers.get("If-Range", etag) == etag):
                    first = int(wanted[1])
                    end = min(length, first + (fault.range_limit or length))
                    status = 206 if first < length else 416
                    bounds = f"{first}-{end - 1}" if status == 206 else "*"
                    headers["Content-Range"] = f"bytes {bounds}/{length}"
                    first, length = (first, end - first) if status == 206 else (0, 0)
        if fault.retry_after is not None:
            headers["Retry-After"] = fault.retry_after
        if fault.announced != -1:
            headers["Content-Length"] = str(length if fault.announced is None else fault.announced)
        if fault.announced is not None or fault.cut_after is not None:
            headers["Connection"] = "close"
            self.close_connection = True
        self.site.record(Request(self.command, path, dict(self.headers.items()), status))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD" or not length:
            return
        if fault.cut_after is not None:
            length = min(length, fault.cut_after)
        if body is not None:
            self.wfile.write(body[:length])
        else:
            self._send(file, first, length, fault)

    def _send(self, file: Path, first: int, length: int, fault: Fault) -> None:
        with file.open("rb") as source:
            self.wfile.flush()
            if fault.silent_after:
                told = min(length, fault.silent_after)
                self.connection.sendfile(source, first, told)
                self.site.released.wait()
                first, length = first + told, length - told
            if not fault.pause:
                self.connection.sendfile(source, first, length)
                return
            source.seek(first)
            for piece in _pieces(length, fault.chunk):
                time.sleep(fault.pause)
                self.wfile.write(source.read(piece))


def _pieces(length: int, size: int) -> Iterable[int]:
    return (min(size, length - start) for start in range(0, length, size))

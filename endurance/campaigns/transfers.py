"""A publisher's server misbehaves in every known way: what is accepted is a version of the file, or it is an error."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import os
import random
import re
import socket
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq
from isal import igzip_threaded, isal_zlib

from pipeline.errors import PipelineError
from pipeline.partition import Partition
from pipeline.publishers import fetching, open_publisher
from pipeline.retry import Policy
from tests.servers.raw import RawServer

from ..campaign import Campaign, Difference

#: Seconds of a silence that counts. A machine so slow that a good answer takes longer gives one more error.
TIMEOUT = 0.4
MONTH = dt.date(2020, 3, 1)
SECRET = "s3cret-in-url"


@dataclass
class Reply:
    """What is sent for one request: right in all respects until a fault changes it."""

    data: bytes  # of the whole file
    other: bytes  # of another version of it
    chance: random.Random
    start: int  # what the Range asks for
    etag: str | None = '"one"'
    status: str = "200 OK"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    length: str | None = "right"
    chunked: bool = False
    raw: bytes | None = None  # instead of all that
    cut: int | None = None
    reset: bool = False
    pause_at: int | None = None
    drips: bool = False
    endless: bytes = b""
    version: str = "HTTP/1.1"

    def __post_init__(self) -> None:
        self.body = self.data[self.start :]
        if self.start:
            self.status = "206 Partial Content"
            self.headers["Content-Range"] = f"bytes {self.start}-{len(self.data) - 1}/{len(self.data)}"

    def somewhere(self, first: int = 0) -> int:
        return self.chance.randrange(first, max(first + 1, len(self.body)))

    def instead(self, body: bytes, status: str = "200 OK") -> None:
        self.body, self.status = body, status
        self.headers.pop("Content-Range", None)

    def head(self) -> bytes:
        lines = [f"{self.version} {self.status}", *(f"{name}: {value}" for name, value in self.headers.items())]
        if self.etag is not None:
            lines.append(f"ETag: {self.etag}")
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        elif self.length is not None:
            lines.append(f"Content-Length: {len(self.body) if self.length == 'right' else self.length}")
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")

    def all_bytes(self) -> bytes:
        body = self.body
        if self.chunked:
            pieces = [body[at : at + 7000] for at in range(0, len(body), 7000)]
            body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
            body += b"" if self.endless else b"0\r\n\r\n"
        return self.raw if self.raw is not None else self.head() + body


Fault = Callable[[Reply], None]
FAULTS: dict[str, Fault] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__.strip("_").replace("_", " ")] = function
    return function


# -- where it ends -----------------------------------------------------------------------------------


@fault
def cut(reply: Reply) -> None:
    reply.cut = reply.somewhere()


@fault
def cut_with_a_reset(reply: Reply) -> None:
    reply.cut, reply.reset = reply.somewhere(), True


@fault
def cut_in_the_head(reply: Reply) -> None:
    reply.raw = reply.head()[: reply.chance.randrange(60)]


@fault
def cut_without_length(reply: Reply) -> None:
    reply.length, reply.body = None, reply.body[: reply.somewhere()]


@fault
def cut_without_length_and_etag_as_http_1_0(reply: Reply) -> None:
    reply.version, reply.length, reply.etag = "HTTP/1.0", None, None
    reply.body = reply.body[: reply.somewhere()]


@fault
def cut_at_the_end_of_a_line(reply: Reply) -> None:
    reply.length = None
    reply.body = reply.body[: reply.body.find(b"\n", reply.somewhere()) + 1]


@fault
def cut_in_the_last_bytes(reply: Reply) -> None:
    reply.length, reply.body = None, reply.body[: -reply.chance.randrange(1, 30)]


@fault
def no_length(reply: Reply) -> None:
    reply.length = None


@fault
def more_announced(reply: Reply) -> None:
    reply.length = str(len(reply.body) + reply.chance.randrange(1, 5000))


@fault
def less_announced(reply: Reply) -> None:
    reply.length = str(reply.somewhere())


@fault
def odd_length(reply: Reply) -> None:
    reply.length = reply.chance.choice(["-1", "ten", "0x10", "9" * 30, "9" * 5000, "", "1e3", "1, 2", "\xb2"])


@fault
def two_lengths(reply: Reply) -> None:
    reply.headers["Content-Length"] = str(reply.somewhere())


@fault
def huge_length(reply: Reply) -> None:
    reply.length = str(10 ** reply.chance.randrange(8, 18))


@fault
def empty(reply: Reply) -> None:
    reply.body = b""


@fault
def endless(reply: Reply) -> None:
    reply.length, reply.endless = None, reply.chance.choice([b"\0", b"1,EWR,a,b\r\n", reply.data[:500]]) * 100


@fault
def endless_chunks(reply: Reply) -> None:
    piece = bytes(20_000)
    reply.chunked, reply.endless = True, b"%x\r\n%s\r\n" % (len(piece), piece)


@fault
def cut_then_padded(reply: Reply) -> None:
    at = reply.somewhere()
    reply.body = reply.body[:at] + reply.chance.choice([b"\0", b" ", b"\n", b"\r\n"]) * (len(reply.body) - at)
    reply.body = reply.body[: len(reply.data) - reply.start]


# -- chunks --------------------------------------------------------------------------------------


@fault
def chunks(reply: Reply) -> None:
    reply.chunked = True


@fault
def chunks_cut(reply: Reply) -> None:
    reply.chunked, reply.cut = True, reply.somewhere()


@fault
def chunks_without_the_last(reply: Reply) -> None:
    reply.chunked = True
    reply.raw = reply.all_bytes()[:-5]


@fault
def chunks_of_no_size(reply: Reply) -> None:
    size = reply.chance.choice([b"zz", b"-5", b"", b"1" * 40, b"9" * 70_000, b"5;" + b"x" * 70_000])
    reply.chunked = True
    reply.raw = reply.head() + size + b"\r\n" + reply.body


@fault
def chunks_with_endless_trailers(reply: Reply) -> None:
    reply.chunked = True
    reply.raw = reply.all_bytes()[:-2]
    reply.endless = b"X-More: and more\r\n" * 100


@fault
def chunks_and_a_length(reply: Reply) -> None:
    reply.chunked = True
    reply.headers["Content-Length"] = str(reply.somewhere())


# -- silence -------------------------------------------------------------------------------------


@fault
def silence(reply: Reply) -> None:
    reply.pause_at = 0


@fault
def silence_in_the_body(reply: Reply) -> None:
    reply.pause_at = len(reply.head()) + reply.somewhere()


@fault
def a_head_that_drips(reply: Reply) -> None:
    reply.raw, reply.drips = reply.head()[:20] + b"a" * 100_000, True


@fault
def a_body_that_drips(reply: Reply) -> None:
    reply.pause_at, reply.drips = len(reply.head()) + reply.somewhere(), True


@fault
def a_chunk_size_that_drips(reply: Reply) -> None:
    reply.chunked, reply.drips, reply.raw = True, True, reply.head() + b"0" * 100_000
    reply.pause_at = len(reply.head())


# -- other bytes ---------------------------------------------------------------------------------


@fault
def flipped_bit(reply: Reply) -> None:
    if reply.body:
        at = reply.somewhere()
        flipped = bytes([reply.body[at] ^ 1 << reply.chance.randrange(8)])
        reply.body = reply.body[:at] + flipped + reply.body[at + 1 :]


@fault
def swapped_blocks(reply: Reply) -> None:
    if len(reply.body) > 4000:
        at = reply.chance.randrange(len(reply.body) - 2000)
        a, b = reply.body[at : at + 1000], reply.body[at + 1000 : at + 2000]
        reply.body = reply.body[:at] + b + a + reply.body[at + 2000 :]


@fault
def a_block_is_missing(reply: Reply) -> None:
    at = reply.somewhere()
    reply.body = reply.body[:at] + reply.body[at + reply.chance.randrange(1, 3000) :]


@fault
def a_block_comes_twice(reply: Reply) -> None:
    at = reply.somewhere()
    reply.body = reply.body[: at + 1000] + reply.body[at:]


@fault
def junk_at_the_end(reply: Reply) -> None:
    reply.body += reply.chance.choice([b"junk", b"\n", b"<html>", b"266,Queens,Junk,Boro Zone\r\n", os.urandom(20)])


@fault
def junk_behind_the_length(reply: Reply) -> None:
    reply.length = str(len(reply.body))
    reply.body += b"HTTP/1.1 200 OK\r\n\r\n"


@fault
def junk_at_the_beginning(reply: Reply) -> None:
    reply.body = reply.chance.choice([b"\n", b"\xef\xbb\xbf", b" ", b"0\r\n", b"\0"]) + reply.body


@fault
def zeros_at_the_end(reply: Reply) -> None:
    reply.body += bytes(reply.chance.randrange(1, 2000))


@fault
def packed_on_the_way(reply: Reply) -> None:
    reply.body = gzip.compress(reply.body)
    reply.headers["Content-Encoding"] = "gzip"


@fault
def packed_without_a_word(reply: Reply) -> None:
    reply.body = gzip.compress(reply.body)


@fault
def packed_it_says(reply: Reply) -> None:
    reply.headers["Content-Encoding"] = reply.chance.choice(["gzip", "deflate", "br", "x-odd", "gzip, gzip"])


@fault
def other_line_ends(reply: Reply) -> None:
    reply.body = reply.body.replace(b"\r\n", b"\n")


# -- pages ---------------------------------------------------------------------------------------


@fault
def a_page(reply: Reply) -> None:
    reply.instead(b"<html><title>Log in, please</title>" + f"{SECRET}</html>".encode() * reply.chance.randrange(1, 900))


@fault
def an_error_as_json(reply: Reply) -> None:
    reply.instead(b'{"error": "quota", "code": 17}')


@fault
def text_with_a_comma(reply: Reply) -> None:
    reply.instead(b"Dear customer, log in\r\n" * reply.chance.randrange(1, 400))


@fault
def a_table_of_something_else(reply: Reply) -> None:
    reply.instead(b"a,b,c,d\r\n" + b"1,2,3,4\r\n" * reply.chance.randrange(400))


@fault
def another_format(reply: Reply) -> None:
    magic = reply.chance.choice([b"PK\x03\x04", b"PAR1", b"\x1f\x8b\x08\0", b"ARROW1", b"%PDF-", b"BZh9"])
    reply.instead(magic + reply.chance.randbytes(3000))


# -- statuses ------------------------------------------------------------------------------------


@fault
def a_status(reply: Reply) -> None:
    code = reply.chance.choice([100, 204, 205, 226, 300, 304, 400, 401, 403, 404, 408, 410, 416, 418, 425, 429])
    reply.instead(b"sorry", f"{reply.chance.choice([code, 500, 501, 502, 503, 504, 511, 599, 999])} So")


@fault
def patience_is_asked_for(reply: Reply) -> None:
    reply.instead(b"", reply.chance.choice(["503 Busy", "429 Slow", "403 No", "500 Oh"]))
    reply.headers["Retry-After"] = reply.chance.choice(
        [
            "800",
            "9" * 400,
            "-1",
            "NaN",
            "1e99",
            "\xb2",
            "Fri, 31 Dec 9999 23:59:59 GMT",
            "Mon, 01 Jan 0001 00:00:00 +2359",
        ]
    )


@fault
def no_status_line(reply: Reply) -> None:
    junk = [b"", b"\r\n\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/9.9 200 OK\r\n\r\n", b"HTTP/1.1 2x0 OK\r\n\r\n", reply.data]
    reply.raw = reply.chance.choice([*junk, b"\x15\x03\x01\0\x02\x02\x46", reply.chance.randbytes(70_000)])


@fault
def statuses_without_end(reply: Reply) -> None:
    reply.raw, reply.endless = b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100


@fault
def odd_headers(reply: Reply) -> None:
    odd = ["no colon", "X: \xff\xfe", "X: " + "y" * 70_000, "\r\n".join(["X: y"] * 200), ": empty", "X:\0", " X: y"]
    reply.raw = reply.all_bytes().replace(b"\r\n", f"\r\n{reply.chance.choice(odd)}\r\n".encode("latin-1"), 1)


@fault
def headers_without_end(reply: Reply) -> None:
    reply.raw, reply.endless = b"HTTP/1.1 200 OK\r\n", b"X: y\r\n" * 100


@fault
def redirects(reply: Reply) -> None:
    to = ["/again", "file:///etc/passwd", "ftp://x/y", "http://a..b/", "http://[::1", f"http://{'a' * 64}/", "", "//"]
    reply.instead(b"a" * 5000, f"{reply.chance.choice([301, 302, 303, 307, 308])} Elsewhere")
    reply.headers["Location"] = reply.chance.choice([*to, "\xff", "http://127.0.0.1:0/", f"http://u:{SECRET}@/"])
    if reply.chance.random() < 0.3:
        reply.length, reply.endless = None, b"x" * 10_000


# -- parts and versions --------------------------------------------------------------------------


@fault
def another_part(reply: Reply) -> None:
    first = reply.somewhere()
    reply.status = "206 Partial Content"
    reply.headers["Content-Range"] = f"bytes {first}-{len(reply.data) - 1}/{len(reply.data)}"
    reply.body = reply.data[first:]


@fault
def a_part_of_another_length(reply: Reply) -> None:
    reply.status = "206 Partial Content"
    total = reply.chance.choice(["*", len(reply.data) + 1, len(reply.data) - 1, 0, "x", "9" * 5000])
    reply.headers["Content-Range"] = f"bytes {reply.start}-{len(reply.data) - 1}/{total}"


@fault
def a_part_with_more(reply: Reply) -> None:
    reply.status, reply.body = "206 Partial Content", reply.data
    reply.headers["Content-Range"] = f"bytes {reply.start}-{len(reply.data) - 1}/{len(reply.data)}"
    reply.chunked = reply.chance.random() < 0.5


@fault
def a_part_without_a_range(reply: Reply) -> None:
    reply.status = "206 Partial Content"
    reply.headers.pop("Content-Range", None)


@fault
def the_whole_instead_of_a_part(reply: Reply) -> None:
    reply.instead(reply.data)


@fault
def nothing_more_to_send(reply: Reply) -> None:
    reply.instead(b"", "416 Not satisfiable")
    reply.headers["Content-Range"] = reply.chance.choice([f"bytes */{reply.start}", f"bytes */{len(reply.data)}", "x"])


@fault
def the_other_version(reply: Reply) -> None:
    reply.instead(reply.other)
    reply.etag = '"two"'


@fault
def the_end_of_the_other_version(reply: Reply) -> None:
    reply.body = reply.other[reply.start :]
    reply.etag = reply.chance.choice(['"one"', '"two"'])
    if reply.start:
        reply.headers["Content-Range"] = f"bytes {reply.start}-{len(reply.other) - 1}/{len(reply.other)}"


@fault
def odd_etag(reply: Reply) -> None:
    reply.etag = reply.chance.choice([None, "", 'W/"one"', "one", '"', '"' + "x" * 60_000 + '"', '"\xff"', '"../../x"'])
    if reply.chance.random() < 0.5:
        reply.cut = reply.somewhere()


@fault
def an_etag_that_changes(reply: Reply) -> None:
    reply.etag = f'"{reply.chance.random()}"'
    reply.cut = reply.somewhere()


#: What a file may be besides a version, because nothing in it or with it tells: by format, the faults that make it so.
_CHANGED = {
    "flipped bit",
    "swapped blocks",
    "a block is missing",
    "a block comes twice",
    "cut then padded",
    "the end of the other version",
    "other line ends",
    "junk at the beginning",
}
UNPROVABLE = {
    "parquet": _CHANGED,
    "csv.gz": {"zeros at the end", "packed on the way", "packed without a word", "cut then padded"},
    # Only where the same wrong bytes come twice.
    "csv": {*_CHANGED, "junk at the end", "zeros at the end", "a part with more"},
}


class Transfers(Campaign):
    name = "transfers"
    what = f"{len(FAULTS)} kinds of faulty transfers; accepted is a version of the file, or damage that Clean finds"
    slice = 25
    patience = 120

    def __enter__(self) -> Self:
        noise = random.Random(1)
        self.files = {
            "csv.gz": tuple(gzip.compress(noise.randbytes(size), mtime=0) for size in (60_000, 45_000)),
            "parquet": tuple(self._parquet(noise, rows) for rows in (9000, 7000)),
            "csv": tuple(self._zones(name) for name in ("Zone", "New zone")),
        }
        self._most = fetching.MOST_BYTES
        fetching.MOST_BYTES = dict.fromkeys(self._most, 2_000_000)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        fetching.MOST_BYTES = self._most

    @staticmethod
    def _parquet(noise: random.Random, rows: int) -> bytes:
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"fare_amount": [noise.random() for _ in range(rows)]}), buffer, compression=None)
        return buffer.getvalue().to_pybytes()

    @staticmethod
    def _zones(name: str) -> bytes:
        rows = [f'{zone},"Queens","{name} {zone}, North","Boro Zone"' for zone in range(1, 266)]
        return "\r\n".join(['"LocationID","Borough","Zone","service_zone"', *rows, ""]).encode()

    def attempt(self, chance: random.Random, folder: Path) -> str:
        file_format = chance.choice(list(self.files))
        data, other = self.files[file_format]
        kinds = [chance.choice(list(FAULTS)) for _ in range(chance.choice([1, 1, 2, 3, 5]))]
        for_ever = chance.random() < 0.3
        seeds = [chance.random() for _ in kinds]
        used: list[str] = []

        def behave(request: bytes, connection: socket.socket) -> None:
            number = len(used) % len(kinds) if for_ever else len(used)
            asked = re.search(rb"Range: bytes=(\d+)-", request)
            start = int(asked[1]) if asked and b'If-Range: "one"' in request else 0
            seed = seeds[number] if number < len(kinds) else 0
            reply = Reply(data, other, random.Random(seed), start if start < len(data) else 0)
            if number < len(kinds):
                used.append(kinds[number])
                FAULTS[kinds[number]](reply)
            send(reply, request, connection, server)

        tries = chance.randrange(1, 5)
        policy = Policy(timeout=TIMEOUT, attempts=tries, backoff=0.001, max_backoff=0.002, min_rate=1e5)
        with RawServer(behave) as server:
            end = self._fetch(server, file_format, policy, folder, used)
            asked = len(server.requests)
            if asked > (tries + 1) * 25:  # each try: two questions, two for a 403, and redirects
                raise Difference(f"{asked} requests for {tries} tries of {file_format}: {used}")
            server.behaviour = lambda request, connection: send(
                Reply(data, other, chance, 0, etag='"last"'), request, connection, server
            )
            kinds_before = list(used)
            again = self._fetch(server, file_format, Policy(backoff=0.01), folder, [])
        if again != "a version":
            raise Difference(f"{file_format} after {kinds_before}: {again} from a server without a fault")
        return end

    def _fetch(self, server: RawServer, file_format: str, policy: Policy, folder: Path, used: list[str]) -> str:
        name = "tlc" if file_format == "parquet" else "dtc"
        publisher = open_publisher(name, f"{server.url}/x?key={SECRET}".replace("//", f"//ann:{SECRET}@", 1))
        partition = Partition("zones", None) if file_format == "csv" else Partition("green", MONTH)
        inbox = folder / "inbox"
        inbox.mkdir(exist_ok=True)
        (inbox / "raw").unlink(missing_ok=True)
        try:
            got = publisher.fetch(partition, inbox / "raw", policy).path.read_bytes()
        except PipelineError as error:
            text = str(error)
            if "\n" in text or len(text) > 500 or SECRET in text:
                raise Difference(f"not one line without secrets: {text!r} after {used}") from None
            if (inbox / "raw").exists():
                raise Difference(f"an error and a file: {text} after {used}") from None
            return f"one line: {type(error).__name__}"
        if got in self.files[file_format]:
            return "a version"
        if file_format == "csv.gz" and is_damaged(got):
            return "damage that Clean finds"
        reasons = sorted(UNPROVABLE[file_format] & set(used))
        if not reasons:
            raise Difference(f"{len(got)} other bytes of {file_format} were accepted after {used}")
        return f"nothing tells: {file_format}, {reasons[0]}"


def is_damaged(data: bytes) -> bool:
    """Whether a csv.gz cannot be unpacked, so that Clean refuses it."""
    try:
        with igzip_threaded.open(io.BytesIO(data), "rb") as unpacked:
            while unpacked.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error, isal_zlib.IsalError):
        return True
    return False


def send(reply: Reply, request: bytes, connection: socket.socket, server: RawServer) -> None:
    """Send a reply with its faults of transport."""
    data = reply.all_bytes()
    if request.startswith(b"HEAD"):
        data = reply.head()
    if reply.cut is not None:
        data = data[: len(reply.head()) + reply.cut]
    if reply.pause_at is not None or reply.drips:
        connection.sendall(data[: reply.pause_at or 0])
        for at in range(reply.pause_at or 0, len(data)):
            server.pause(0.02 if reply.drips else 3600)
            connection.sendall(data[at : at + 1])
        return
    connection.sendall(data)
    while reply.endless:
        connection.sendall(reply.endless)
    if reply.reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

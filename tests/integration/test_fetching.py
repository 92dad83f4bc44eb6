"""Downloads from a web server that misbehaves, and copies of files that change meanwhile."""

from __future__ import annotations

import datetime as dt
import errno
import gzip
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import http_client, waiting
from pipeline.errors import (
    LakeError,
    MissingAtPublisher,
    PublisherUnavailable,
    RefusedByPublisher,
    Throttled,
    TruncatedFile,
    WrongFormat,
)
from pipeline.partition import Partition
from pipeline.publishers import fetching, folder, open_publisher, web_download
from pipeline.publishers.fetching import Fetched
from pipeline.retry import Policy, retrying
from tests.patience import PATIENCE, Clock, wait_for
from tests.servers.http import ALWAYS, Fault, HttpServer, error_page
from tests.servers.raw import Behaviour, RawServer

MONTH = dt.date(2020, 3, 1)
CSV = "/green/green_tripdata_2020-03.csv.gz"
PARQUET = "/trip-data/green_tripdata_2020-03.parquet"
ZONES = "/misc/taxi_zone_lookup.csv"
QUICK = Policy(timeout=PATIENCE, attempts=4, backoff=0.01, max_backoff=0.02)
ONCE = Policy(timeout=PATIENCE, attempts=1)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder in the layouts of both publishers, with files of some 300 KB."""
    folder = tmp_path / "site"
    noise = random.Random(1).randbytes(300_000)
    table = pa.table({"VendorID": list(noise[:60_000]), "fare_amount": [byte / 7 for byte in noise[:60_000]]})
    for name in (CSV, PARQUET, ZONES):
        (folder / name[1:]).parent.mkdir(parents=True)
    (folder / CSV[1:]).write_bytes(gzip.compress(noise, mtime=0))
    pq.write_table(table, folder / PARQUET[1:], compression=None, use_dictionary=False)
    rows = [f'{zone},"Queens","Zone {zone}, North","Boro Zone"' for zone in range(1, 266)]
    (folder / ZONES[1:]).write_text(
        "\r\n".join(['"LocationID","Borough","Zone","service_zone"', *rows, ""]), newline=""
    )
    return folder


@pytest.fixture
def server(site: Path) -> Iterator[HttpServer]:
    with HttpServer(site) as running:
        yield running


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder


def fetch(base: str, path: str, inbox: Path, policy: Policy = QUICK, **more: Any) -> Fetched:
    name = "dtc" if path.endswith(".gz") else "tlc"
    partition = Partition("zones", None) if path == ZONES else Partition("green", MONTH)
    return open_publisher(name, base).fetch(partition, inbox / "raw", policy, **more)


def parts(inbox: Path) -> list[Path]:
    return sorted(inbox.glob(".raw.*.part"))


def resumed_from(server: HttpServer | RawServer) -> list[int]:
    """The first byte that each GET asked for."""
    ranges = [request.headers.get("Range", "bytes=0-") for request in server.requests if request.method == "GET"]
    return [int(each.removeprefix("bytes=").removesuffix("-")) for each in ranges]


def is_whole(fetched: Fetched, source: Path, inbox: Path) -> bool:
    """The file is there under its name, byte for byte, described correctly, and alone."""
    data = source.read_bytes()
    assert fetched.path == inbox / "raw" and fetched.path.read_bytes() == data
    assert (fetched.sha256, fetched.length) == (hashlib.sha256(data).hexdigest(), len(data))
    assert os.listdir(inbox) == ["raw"]
    return True


# -- the good case ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CSV, PARQUET, ZONES])
def test_fetch(server: HttpServer, site: Path, inbox: Path, path: str) -> None:
    steps: list[tuple[int, int | None]] = []
    fetched = fetch(server.url, path, inbox, progress=lambda done, total: steps.append((done, total)))
    assert is_whole(fetched, site / path[1:], inbox)
    assert fetched.url == server.url + path
    assert fetched.version.is_strong and fetched.version.length == fetched.length
    assert steps[-1] == (fetched.length, fetched.length)
    assert server.asked() == [path] * (2 if path == ZONES else 1), "what nothing proves is asked for twice"
    assert server.requests[0].headers["User-Agent"].startswith("nyc-trips-pipeline")


def test_what_was_there_is_replaced(server: HttpServer, site: Path, inbox: Path) -> None:
    (inbox / "raw").write_text("old")
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)


def test_gzip_in_several_members_and_with_padding(server: HttpServer, site: Path, inbox: Path) -> None:
    members = [gzip.compress(bytes([n]) * n) + b"\0" * (n % 5) for n in range(200)]
    (site / CSV[1:]).write_bytes(b"".join(members) + b"\0" * 700)
    server.program(CSV, Fault(pause=0.001, chunk=97))  # members end anywhere in a chunk
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)


def test_an_answer_without_length(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(announced=-1))
    fetched = fetch(server.url, CSV, inbox)
    assert is_whole(fetched, site / CSV[1:], inbox) and fetched.version.length is None


def test_real_files(server: HttpServer, real_data: Path, inbox: Path) -> None:
    for name, dataset, month in (
        ("dtc", "green", dt.date(2020, 4, 1)),
        ("tlc", "green", dt.date(2020, 4, 1)),
        ("tlc", "zones", None),
    ):
        server.folder = real_data / "publishers" / name
        publisher = open_publisher(name, server.url)
        partition = Partition(dataset, month)
        fetched = publisher.fetch(partition, inbox / "raw", ONCE)
        assert is_whole(fetched, server.folder / publisher.layout.path(partition), inbox)


# -- broken transfers ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CSV, PARQUET])
def test_a_broken_transfer_goes_on(server: HttpServer, site: Path, inbox: Path, path: str) -> None:
    server.program(path, Fault(cut_after=100_000), Fault(cut_after=50_000))
    fetched = fetch(server.url, path, inbox)
    assert is_whole(fetched, site / path[1:], inbox)
    first, second, third = server.requests
    assert "Range" not in first.headers
    assert second.headers["Range"] == "bytes=100000-" and second.headers["If-Range"] == fetched.version.etag
    assert third.headers["Range"] == "bytes=150000-"
    assert [request.status for request in server.requests] == [200, 206, 206]


def test_a_transfer_that_never_ends_well_stays_to_be_resumed(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, *[Fault(cut_after=1000)] * 4)
    with pytest.raises(TruncatedFile, match="green 2020-03"):
        fetch(server.url, CSV, inbox)
    assert [part.stat().st_size for part in parts(inbox)] == [4000]
    assert not (inbox / "raw").exists()
    server.clear()
    fetched = fetch(server.url, CSV, inbox)  # another process, which knows nothing: the answer tells the version
    assert is_whole(fetched, site / CSV[1:], inbox) and resumed_from(server) == [0, 4000]
    assert [request.status for request in server.requests] == [200, 206]


def test_a_transfer_that_only_lacked_its_name(server: HttpServer, site: Path, inbox: Path) -> None:
    data = (site / CSV[1:]).read_bytes()
    server.program(CSV, Fault(cut_after=len(data) - 1))
    with pytest.raises(TruncatedFile):
        fetch(server.url, CSV, inbox, ONCE)
    with parts(inbox)[0].open("ab") as part:
        part.write(data[-1:])
    server.clear()
    assert is_whole(fetch(server.url, CSV, inbox, ONCE), site / CSV[1:], inbox)
    assert resumed_from(server) == [0, len(data)]


def test_a_part_longer_than_the_file_is_thrown_away(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=1000))
    with pytest.raises(TruncatedFile):
        fetch(server.url, CSV, inbox, ONCE)
    parts(inbox)[0].write_bytes(b"x" * 1_000_000)
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)


@pytest.mark.parametrize("path", [CSV, PARQUET])
def test_a_part_of_another_format_is_not_kept(server: HttpServer, site: Path, inbox: Path, path: str) -> None:
    server.program(path, Fault(cut_after=(site / path[1:]).stat().st_size - 100))
    with pytest.raises(TruncatedFile):
        fetch(server.url, path, inbox, ONCE)
    parts(inbox)[0].write_bytes(b"PAR2" + parts(inbox)[0].read_bytes()[4:])
    with pytest.raises(WrongFormat):
        fetch(server.url, path, inbox)
    assert os.listdir(inbox) == []


def test_a_part_with_a_damaged_end_is_fetched_anew(server: HttpServer, site: Path, inbox: Path) -> None:
    data = (site / PARQUET[1:]).read_bytes()
    server.program(PARQUET, Fault(cut_after=len(data) - 10))
    with pytest.raises(TruncatedFile):
        fetch(server.url, PARQUET, inbox, ONCE)
    parts(inbox)[0].write_bytes(data[:-100] + bytes(90))
    server.clear()
    assert is_whole(fetch(server.url, PARQUET, inbox), site / PARQUET[1:], inbox)
    assert resumed_from(server)[1:] == [len(data) - 10, 0]


def test_another_version_starts_over(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=100_000, etag='"old"'))
    fetched = fetch(server.url, CSV, inbox)
    assert is_whole(fetched, site / CSV[1:], inbox)
    assert fetched.version.etag != '"old"'
    assert [request.status for request in server.requests] == [200, 200]


def test_an_etag_that_changes_every_time(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, *[Fault(cut_after=100_000, etag=f'"{n}"') for n in range(3)])
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    server.program(CSV, *[Fault(cut_after=100_000, etag=f'"{n}"') for n in range(4)])
    with pytest.raises(TruncatedFile):
        fetch(server.url, CSV, inbox)
    assert len(parts(inbox)) == 1  # those of the other versions are gone


def test_a_server_that_ignores_if_range(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=100_000, etag='"old"'), Fault(no_if_range=True))
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    assert [request.status for request in server.requests] == [200, 206, 200]


def test_a_server_that_sends_less_than_the_rest(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=100_000), Fault(range_limit=50_000))
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    assert resumed_from(server) == [0, 100_000, 150_000]


def test_a_server_without_ranges(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=100_000, no_range=True), Fault(no_range=True))
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    assert [request.status for request in server.requests] == [200, 200]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_nothing_is_resumed_without_a_strong_etag(server: HttpServer, site: Path, inbox: Path, etag: str) -> None:
    server.program(CSV, Fault(cut_after=100_000, etag=etag), Fault(etag=etag))
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    assert [request.headers.get("Range") for request in server.requests] == [None, None]
    server.program(CSV, Fault(cut_after=100_000, etag=etag))
    with pytest.raises(TruncatedFile):
        fetch(server.url, CSV, inbox, ONCE)
    assert parts(inbox) == []


def test_getting_ahead_does_not_use_up_the_tries(
    server: HttpServer, site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_download, "ADVANCE", 30_000)
    server.program(CSV, *[Fault(cut_after=40_000)] * 7)
    assert is_whole(fetch(server.url, CSV, inbox, ONCE), site / CSV[1:], inbox)


def test_a_line_that_falls_silent(server: HttpServer, inbox: Path) -> None:
    server.program(CSV, Fault(silent_after=1000))
    with pytest.raises(PublisherUnavailable, match=r"silent for 0\.2 s|no answer within 0\.2 s"):
        fetch(server.url, CSV, inbox, Policy(timeout=0.2, attempts=1))


def test_a_slow_line_is_fine(server: HttpServer, site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than the time-out in all, with a silence that is shorter before each piece: the clock runs meanwhile."""
    clock = Clock()
    for name in ("monotonic", "time"):
        monkeypatch.setattr(time, name, clock.monotonic)
    server.program(CSV, Fault(pause=0.001, chunk=20_000))
    fetched = fetch(server.url, CSV, inbox, ONCE, progress=lambda done, total: clock.sleep(PATIENCE))
    assert is_whole(fetched, site / CSV[1:], inbox) and len(clock.slept) > 1


def drip(data: bytes, piece: int, pause: float, chunked: bool = False) -> Behaviour:
    """Send the body piece by piece, none of them later than a time-out of a single read."""

    def behave(request: bytes, connection: socket.socket) -> None:
        start = int(found[1]) if (found := re.search(rb"Range: bytes=(\d+)-", request)) else 0
        status = f"206 Part\r\nContent-Range: bytes {start}-{len(data) - 1}/{len(data)}" if start else "200 OK"
        size = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(data) - start}"
        connection.sendall(f'HTTP/1.1 {status}\r\nETag: "1"\r\n{size}\r\n\r\n'.encode())
        for at in range(start, len(data), piece):
            threading.Event().wait(pause)
            connection.sendall(b"0" if chunked else data[at : at + piece])

    return behave


@pytest.fixture
def racing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read takes a third of the longest silence by the clock, and no time: a drip, however fast the machine is."""

    class Racing(Clock):
        def monotonic(self) -> float:
            self.now += PATIENCE / 3
            return self.now

    monkeypatch.setattr(http_client, "time", Racing())
    monkeypatch.setattr(http_client, "WATCH_INTERVAL", PATIENCE)  # so that nothing but the reads looks at the clock


def test_a_drip_is_broken_off_and_goes_on_from_there(site: Path, inbox: Path, racing: None) -> None:
    data = (site / CSV[1:]).read_bytes()
    slow = Policy(timeout=PATIENCE, attempts=3, backoff=0.01, max_backoff=0.02, min_rate=1e6)
    with RawServer(drip(data, 10, 0.01)) as server:
        with pytest.raises(PublisherUnavailable, match=r"less than the 1e\+06 of \[publisher\] min_rate") as caught:
            fetch(server.url, CSV, inbox, slow)
        assert "\n" not in str(caught.value) and len(server.requests) == 3
        assert b"Range: bytes=" in server.requests[-1]
        arrived = parts(inbox)[0].read_bytes()
        assert arrived and data.startswith(arrived)
        server.behaviour = drip(data, 30_000, 0.01)
        anyhow = Policy(timeout=PATIENCE, attempts=1, min_rate=0)
        assert is_whole(fetch(server.url, CSV, inbox, anyhow), site / CSV[1:], inbox)


def test_a_body_that_does_not_come_on_is_said_once_and_so_is_its_end(
    site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, said, heard = (site / CSV[1:]).read_bytes(), list[str](), list[str]()
    monkeypatch.setattr(http_client, "WATCH_INTERVAL", 0.01)
    monkeypatch.setattr(waiting, "SAID_AFTER", 0.05)
    monkeypatch.setattr(waiting, "say", lambda text: not said.append(text))

    def behave(request: bytes, connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:1000])
        wait_for(lambda: any("to go on" in text for text in said))
        connection.sendall(data[1000:])

    with RawServer(behave) as server:
        fetched = fetch(server.url, CSV, inbox, progress=lambda done, total: done > 1000 and heard.extend(said[-1:]))
        assert is_whole(fetched, site / CSV[1:], inbox)
        assert "" in heard, "the wait is over as soon as more bytes come"
        says = f"waits for publisher dtc at {server.url} to go on, for at most {PATIENCE:g} s"
        assert says in said and said[-1] == ""


def test_a_chunk_whose_length_drips_is_silence(site: Path, inbox: Path) -> None:
    """No byte of the body ever comes, though bytes come all the time."""
    with (
        RawServer(drip(bytes(100_000), 1, 0.01, chunked=True)) as server,
        pytest.raises(PublisherUnavailable, match=r"silent for 0\.3 s|no answer within 0\.3 s"),
    ):
        fetch(server.url, CSV, inbox, Policy(timeout=0.3, attempts=1))


@pytest.mark.parametrize("size", ["Transfer-Encoding: chunked", "Connection: close", "Content-Length: 99999999999999"])
@pytest.mark.parametrize("path", [CSV, PARQUET, ZONES])
def test_a_body_without_an_end_is_refused(inbox: Path, path: str, size: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", dict.fromkeys(fetching.MOST_BYTES, 3_000_000))
    heads = {CSV: gzip.compress(b"x", mtime=0), PARQUET: b"PAR1", ZONES: b"LocationID,Borough,Zone,service_zone\r\n"}

    def behave(request: bytes, connection: socket.socket) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\n{size}\r\n\r\n".encode())
        more = b"1,EWR,Newark Airport,EWR\r\n" * 4000 if path == ZONES else bytes(100_000)
        piece = heads[path] + more
        while True:
            connection.sendall(b"%x\r\n%s\r\n" % (len(piece), piece) if "chunked" in size else piece)
            piece = more

    with RawServer(behave) as server:
        with pytest.raises(WrongFormat, match="more than 3000000 bytes, which no file of this kind has"):
            fetch(server.url, path, inbox)
        assert len(server.requests) == 1 and os.listdir(inbox) == []


@pytest.mark.parametrize(
    "part", ["bytes {0}-{2}/{1}", "bytes 0-{2}/{1}", "bytes {0}-{2}/*", "bytes {0}-5/{3}", "", "x"]
)
@pytest.mark.parametrize("more", [0, 50])
def test_a_part_that_is_not_the_rest_is_never_put_behind_the_rest(
    site: Path, inbox: Path, part: str, more: int
) -> None:
    """Content-Range of another part or of another length, or more bytes than it says."""
    data = (site / PARQUET[1:]).read_bytes()
    seen: list[bytes] = []

    def behave(request: bytes, connection: socket.socket) -> None:
        seen.append(request)
        if b"Range: " in request:
            span = part.format(1000, len(data), len(data) - 1, len(data) + 9)
            head = f"206 Part\r\nContent-Range: {span}\r\nTransfer-Encoding: chunked"
            body = data[: 1000 if more else 0] + data[1000:]
            body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        else:
            head, body = f"200 OK\r\nContent-Length: {len(data)}", data if len(seen) > 2 else data[:1000]
        connection.sendall(f'HTTP/1.1 {head}\r\nETag: "1"\r\nConnection: close\r\n\r\n'.encode() + body)

    with RawServer(behave) as server:
        assert is_whole(fetch(server.url, PARQUET, inbox), site / PARQUET[1:], inbox)


@pytest.mark.parametrize("path", [CSV, PARQUET])
def test_more_announced_than_sent(server: HttpServer, site: Path, inbox: Path, path: str) -> None:
    size = (site / path[1:]).stat().st_size
    server.program(path, Fault(announced=size + 10))
    with pytest.raises(TruncatedFile, match=f"{path}"):
        fetch(server.url, path, inbox, ONCE)
    assert is_whole(fetch(server.url, path, inbox), site / path[1:], inbox)


def test_less_announced_than_the_file_has(server: HttpServer, inbox: Path) -> None:
    server.program(PARQUET, Fault(announced=100_000))
    with pytest.raises(WrongFormat, match="cut off"):
        fetch(server.url, PARQUET, inbox, ONCE)
    assert os.listdir(inbox) == []


def test_cut_where_no_length_was_announced(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(PARQUET, Fault(announced=-1, cut_after=100_000, etag=""))
    assert is_whole(fetch(server.url, PARQUET, inbox), site / PARQUET[1:], inbox)
    assert len(server.requests) == 2


# -- the zone table, which has no checksum ---------------------------------------------------------


def zones(site: Path) -> bytes:
    return (site / ZONES[1:]).read_bytes()


@pytest.mark.parametrize("length", [True, False])
@pytest.mark.parametrize(
    "how",
    [
        lambda data: data[:5000],
        lambda data: data[: data.index(b"\n", 5000) + 1],
        lambda data: data[: data.index(b"\n") + 1],
        lambda data: data[: data.rindex(b"265")],
        lambda data: data[: data.rindex(b",") + 1],
        lambda data: data[:-3],
        lambda data: data.rstrip(),
        lambda data: b"Hello, dear customer, the portal wants you to log in\n",
        lambda data: b"LocationID,Borough\n" + b"\0" * 4000,
        lambda data: b'LocationID,"' + b"x" * 200_000,
        lambda data: data.replace(b"LocationID", b"locationid, "),
        lambda data: data + b"junk\r\n",
        lambda data: data + b"one,Queens,Junk,Boro Zone\r\n",
        lambda data: data + bytes(100) + b"\n",
        lambda data: data.replace(b"\r\n77,", b"\r\n,"),
        lambda data: data.replace(b"\r\n77,", b",77,"),
        lambda data: data.replace(b',"Boro Zone"\r\n77,', b"\r\n77,"),
        lambda data: data.replace(b"\r\n77,", b",junk\r\n77,"),
    ],
)
def test_a_zone_table_that_is_not_whole_is_refused_however_often_it_comes(
    server: HttpServer, site: Path, inbox: Path, how: Callable[[bytes], bytes], length: bool
) -> None:
    server.program(ZONES, Fault(body=how(zones(site)), announced=None if length else -1, times=ALWAYS))
    with pytest.raises((WrongFormat, TruncatedFile)) as caught:
        fetch(server.url, ZONES, inbox)
    assert "\n" not in str(caught.value) and len(server.requests) <= QUICK.attempts
    assert os.listdir(inbox) == []


def test_damage_that_nothing_shows_is_seen_when_it_does_not_come_again(
    server: HttpServer, site: Path, inbox: Path
) -> None:
    data = zones(site)
    for body in (data.replace(b"Zone 7,", b"Zone 6,"), data + b"266,Queens,Junk,Boro Zone\r\n"):
        server.clear()
        server.program(ZONES, Fault(body=body))
        assert is_whole(fetch(server.url, ZONES, inbox), site / ZONES[1:], inbox)
        assert len(server.requests) == 4
    server.program(ZONES, *[Fault(body=data.replace(b"Zone 7,", b"Zone %d," % each)) for each in range(100)])
    with pytest.raises(TruncatedFile, match="two transfers brought different bytes"):
        fetch(server.url, ZONES, inbox)
    assert parts(inbox) == []


def test_a_second_transfer_without_an_end_is_refused(site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MOST_BYTES", dict.fromkeys(fetching.MOST_BYTES, 100_000))

    def behave(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + zones(site) * len(server.requests) ** 8)

    with RawServer(behave) as server:
        with pytest.raises(WrongFormat, match="more than 100000 bytes, which no file of this kind has"):
            fetch(server.url, ZONES, inbox)
        assert len(server.requests) == 2 and os.listdir(inbox) == []


@pytest.mark.parametrize(
    "how",
    [
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.replace(b"\r\n", b"\n"),
        lambda data: data.replace(b"\r\n", b"\r"),
        lambda data: data.replace(b"\r\n", b",\r\n"),
        lambda data: data.replace(b"Zone 7,", "Zoné 7,".encode("cp1252")),
        lambda data: data + b"266,Queens,Zone 266,Boro Zone\r\n",
    ],
    ids=["byte order mark", "LF", "CR", "commas at the end", "Windows-1252", "a zone more"],
)
def test_a_zone_table_of_another_tool_is_whole(
    server: HttpServer, site: Path, inbox: Path, how: Callable[[bytes], bytes]
) -> None:
    (site / ZONES[1:]).write_bytes(how(zones(site)))
    assert is_whole(fetch(server.url, ZONES, inbox, ONCE), site / ZONES[1:], inbox)


def test_a_folder_may_have_some_zones_only(site: Path, inbox: Path) -> None:
    (site / ZONES[1:]).write_bytes(b"LocationID,Borough,Zone,service_zone\n41,Manhattan,Central Harlem,Boro Zone\n")
    assert is_whole(fetch(f"file:{site}", ZONES, inbox), site / ZONES[1:], inbox)


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "kind", "requests"),
    [
        (CSV, 404, MissingAtPublisher, 1),
        (CSV, 403, RefusedByPublisher, 1),
        (PARQUET, 403, MissingAtPublisher, 2),  # the zone table is served
        (CSV, 410, RefusedByPublisher, 1),
        (CSV, 401, RefusedByPublisher, 1),
        (CSV, 500, PublisherUnavailable, 4),
        (CSV, 429, Throttled, 4),
    ],
)
def test_refusals(
    server: HttpServer, inbox: Path, path: str, status: int, kind: type[Exception], requests: int
) -> None:
    server.program(path, Fault(status=status, body=b"sorry", times=ALWAYS))
    with pytest.raises(kind, match=f"green 2020-03.*{status}"):
        fetch(server.url, path, inbox)
    assert len(server.requests) == requests
    assert os.listdir(inbox) == []


def test_throttling_at_tlc(server: HttpServer, inbox: Path) -> None:
    server.program("*", Fault(status=403, times=ALWAYS))
    with pytest.raises(Throttled):
        fetch(server.url, PARQUET, inbox, ONCE, known_month=dt.date(2020, 1, 1))
    assert len(server.requests) == 3


def test_passing_trouble(server: HttpServer, site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("pipeline.publishers.base.retrying", partial(retrying, sleep=slept.append))
    server.program(CSV, Fault(status=500), Fault(status=429, retry_after="800"), Fault(status=503))
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox)
    first, asked_for, last = slept
    assert max(first, last) < 1 and asked_for == QUICK.max_backoff, "no wait is longer, whatever the server asks for"


def test_a_part_survives_trouble(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(cut_after=1000), *[Fault(status=503)] * 3)
    with pytest.raises(Throttled):
        fetch(server.url, CSV, inbox)
    server.clear()
    assert is_whole(fetch(server.url, CSV, inbox), site / CSV[1:], inbox) and resumed_from(server) == [0, 1000]


# -- what is not what it should be -----------------------------------------------------------------


@pytest.mark.parametrize("path", [CSV, PARQUET, ZONES])
def test_an_error_page_is_quoted_and_not_kept(server: HttpServer, inbox: Path, path: str) -> None:
    server.program(path, error_page())
    with pytest.raises(WrongFormat, match="<html>… Access Denied Request blocked"):
        fetch(server.url, path, inbox)
    assert len(server.requests) == 1 and os.listdir(inbox) == []


def test_an_error_page_does_not_spoil_the_file_before(server: HttpServer, inbox: Path) -> None:
    fetch(server.url, CSV, inbox)
    server.program(CSV, error_page())
    with pytest.raises(WrongFormat):
        fetch(server.url, CSV, inbox)
    assert os.listdir(inbox) == ["raw"]


def test_a_page_that_repeats_the_secret(server: HttpServer, inbox: Path) -> None:
    server.program(CSV, Fault(body=b"<html>no entry with s1gnature</html>"))
    with pytest.raises(WrongFormat, match=r"no entry with \*\*\*") as error:
        fetch(f"{server.url}?sig=s1gnature", CSV, inbox)
    assert "s1gnature" not in str(error.value)


def damaged(path: str, how: Callable[[bytes], bytes]) -> Any:
    return pytest.param(path, how, id=f"{path[-7:]}-{how.__name__}")


def cut(data: bytes) -> bytes:
    return data[:-1000]


def trailing(data: bytes) -> bytes:
    return data + b"garbage"


def bad_footer(data: bytes) -> bytes:
    return data[:-100] + b"\xff" * 92 + data[-8:]


def short(data: bytes) -> bytes:
    return data[:4]


def empty(data: bytes) -> bytes:
    return b""


def swapped(data: bytes) -> bytes:
    return b"PK\x03\x04" + data[4:]


#: Clean finds whatever else is wrong with a csv.gz: see tests/unit/cleaning and tests/end_to_end/test_heal.py.
DAMAGED = [
    *(damaged(CSV, how) for how in (empty, swapped)),
    *(damaged(PARQUET, how) for how in (cut, trailing, bad_footer, short, empty, swapped)),
    *(damaged(ZONES, how) for how in (empty, swapped)),
]


@pytest.mark.parametrize(("path", "how"), DAMAGED)
@pytest.mark.parametrize("scheme", ["http", "file"])
def test_damage_at_the_publisher(
    server: HttpServer, site: Path, inbox: Path, path: str, how: Callable[[bytes], bytes], scheme: str
) -> None:
    source = site / path[1:]
    source.write_bytes(how(source.read_bytes()) if path != ZONES or how is empty else b"PK\x03\x04\0\0,")
    with pytest.raises(WrongFormat) as error:
        fetch(server.url if scheme == "http" else f"file:{site}", path, inbox)
    assert source.name in str(error.value) and "\n" not in str(error.value)
    assert len(server.requests) <= 1  # the same bytes would come again
    assert os.listdir(inbox) == []


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_real_truncated_month(server: HttpServer, site: Path, real_data: Path, inbox: Path, scheme: str) -> None:
    shutil.copy(real_data / "damaged" / "green_tripdata_2025-02.truncated.parquet", site / PARQUET[1:])
    with pytest.raises(WrongFormat, match=r"no footer.*damaged at the publisher"):
        fetch(server.url if scheme == "http" else f"file:{site}", PARQUET, inbox)
    assert os.listdir(inbox) == []


# -- folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, ALWAYS])
def test_a_source_that_changes_meanwhile(site: Path, inbox: Path, times: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "CHUNK", 100_000)
    source, changes = site / CSV[1:], iter(range(times))

    def change(done: int, total: int | None) -> None:
        if done == 100_000 and next(changes, None) is not None:
            with source.open("ab") as file:
                file.write(gzip.compress(b"more"))

    if times == 1:
        assert is_whole(fetch(f"file:{site}", CSV, inbox, progress=change), source, inbox)
    else:
        with pytest.raises(TruncatedFile, match="changed while it was copied"):
            fetch(f"file:{site}", CSV, inbox, progress=change)
        assert os.listdir(inbox) == []


def test_a_source_that_is_rewritten_meanwhile(site: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of each version looks like a damaged file, and is none."""
    monkeypatch.setattr(folder, "CHUNK", 10_000)
    source, other = site / CSV[1:], gzip.compress(random.Random(2).randbytes(300_000), mtime=0)

    def rewrite(done: int, total: int | None) -> None:
        if done == 100_000 and source.read_bytes() != other:
            source.write_bytes(other)

    assert is_whole(fetch(f"file:{site}", CSV, inbox, progress=rewrite), source, inbox)


# -- the disk --------------------------------------------------------------------------------------


def test_no_room_is_noticed_before_the_transfer(
    server: HttpServer, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = type(shutil.disk_usage("/"))(10_000, 9_990, 10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(LakeError, match=r"no room in .*\[workspace\] url"):
        fetch(server.url, CSV, inbox)
    assert os.listdir(inbox) == []


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_a_file_system_that_takes_no_more(server: HttpServer, site: Path, inbox: Path, scheme: str) -> None:
    """A limit on the size of files stands for the full disk: both come from the kernel, in the middle of writing."""
    code = (
        "import resource, sys; from pathlib import Path; from datetime import date\n"
        "from pipeline.partition import Partition; from pipeline.errors import LakeError\n"
        "from pipeline.publishers import open_publisher\n"
        "from pipeline.retry import Policy\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    publisher, target = open_publisher('dtc', sys.argv[1]), Path(sys.argv[2]) / 'raw'\n"
        "    publisher.fetch(Partition('green', date(2020, 3, 1)), target, Policy())\n"
        "except LakeError as error: print(error)\n"
    )
    base = server.url if scheme == "http" else f"file:{site}"
    result = subprocess.run([sys.executable, "-c", code, base, str(inbox)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith(f"no room in {inbox}") and result.stdout.count("\n") == 1
    assert os.listdir(inbox) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_room_at_the_last_moment(
    server: HttpServer, inbox: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def replace(source: Path, target: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(LakeError, match="no room in"):
        fetch(server.url, CSV, inbox)
    assert os.listdir(inbox) == []


def test_a_folder_that_is_none(server: HttpServer, inbox: Path) -> None:
    inbox.rmdir()
    inbox.write_text("a file")
    with pytest.raises(LakeError, match="cannot be written"):
        fetch(server.url, CSV, inbox)


# -- several processes -----------------------------------------------------------------------------


def start_fetching(base: str, inbox: Path) -> subprocess.Popen[str]:
    """A process that fetches into the staging of a store, as Download does: one process at a time."""
    code = (
        "import sys; from datetime import date\n"
        "from pipeline.partition import Partition\n"
        "from pipeline.publishers import open_publisher\n"
        "from pipeline.retry import Policy\n"
        "from pipeline.storage import open_store\n"
        "store, publisher = open_store(f'file:{sys.argv[2]}'), open_publisher('dtc', sys.argv[1])\n"
        "with store.staging('raw', key='raw') as target:\n"
        "    publisher.fetch(Partition('green', date(2020, 3, 1)), target, Policy())\n"
        "    store.put(target, 'raw')\n"
    )
    return subprocess.Popen([sys.executable, "-c", code, base, str(inbox)], text=True)


def test_a_killed_process_is_continued(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(silent_after=20_000))
    with start_fetching(server.url, inbox) as process:
        wait_for(lambda: any(part.stat().st_size for part in inbox.rglob("*.part")), process)
        process.send_signal(signal.SIGKILL)
    size = next(inbox.rglob("*.part")).stat().st_size
    assert 0 < size < (site / CSV[1:]).stat().st_size and not (inbox / "raw").exists()
    server.clear()
    with start_fetching(server.url, inbox) as process:
        assert process.wait() == 0
    assert (inbox / "raw").read_bytes() == (site / CSV[1:]).read_bytes() and resumed_from(server) == [0, size]


def test_two_processes_take_turns(server: HttpServer, site: Path, inbox: Path) -> None:
    server.program(CSV, Fault(pause=0.01, chunk=20_000, times=2))
    with start_fetching(server.url, inbox) as one, start_fetching(server.url, inbox) as two:
        assert (one.wait(), two.wait()) == (0, 0)
    assert (inbox / "raw").read_bytes() == (site / CSV[1:]).read_bytes() and resumed_from(server) == [0, 0]
    assert not list(inbox.rglob("*.part"))

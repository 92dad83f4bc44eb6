"""Versions, reachability and availability of files at a real web server."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.datasets import row_counts
from pipeline.errors import MissingAtPublisher, PublisherUnavailable, RefusedByPublisher, Throttled, Unreachable
from pipeline.partition import Partition
from pipeline.publishers import open_publisher
from pipeline.publishers.availability import Availability
from pipeline.publishers.web import KNOWN_FILES
from pipeline.retry import Policy
from tests.patience import PATIENCE, wait_for
from tests.servers.http import ALWAYS, Fault, HttpServer
from tests.servers.raw import Behaviour, RawServer

ONCE = Policy(timeout=PATIENCE, attempts=1)
QUICK = Policy(timeout=PATIENCE, attempts=4, backoff=0.01, max_backoff=0.02)
TODAY = dt.date(2026, 11, 21)


def month(text: str) -> dt.date:
    return dt.date.fromisoformat(f"{text}-01")


def year(number: int, first: int = 1, last: int = 12) -> list[dt.date]:
    return [dt.date(number, each, 1) for each in range(first, last + 1)]


@pytest.fixture
def tlc(tmp_path: Path) -> Iterator[HttpServer]:
    """Has green 2026-01..06 and 2026-08 and the zone table; answers 403 for what is not there, as the real one."""
    put(
        tmp_path,
        "misc/taxi_zone_lookup.csv",
        *(f"trip-data/green_tripdata_2026-0{n}.parquet" for n in (*range(1, 7), 8)),
    )
    with HttpServer(tmp_path, absent=403) as server:
        yield server


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode())


def path(text: str) -> str:
    return f"/trip-data/green_tripdata_{text}.parquet"


ZONES = "/misc/taxi_zone_lookup.csv"


def available(
    url: str, months: Iterable[dt.date], known_month: dt.date | None = None, today: dt.date = TODAY
) -> Availability:
    return open_publisher("tlc", url).check_availability("green", months, QUICK, known_month=known_month, today=today)


def published(found: Availability, months: Iterable[dt.date]) -> list[dt.date]:
    return [month for month in months if month not in {*found.not_yet, *found.missing}]


def test_version(tlc: HttpServer) -> None:
    publisher = open_publisher("tlc", tlc.url)
    version = publisher.version(Partition("green", month("2026-01")), ONCE)
    assert version.is_strong and version.length == len(path("2026-01")) - 1 and version.last_modified
    assert tlc.asked() == tlc.asked("HEAD") == [path("2026-01")]
    assert tlc.requests[0].headers["User-Agent"].startswith("nyc-trips-pipeline")
    assert tlc.requests[0].headers["Accept-Encoding"] == "identity"


def test_403_is_absence_where_the_known_month_is_served(tlc: HttpServer) -> None:
    publisher = open_publisher("tlc", tlc.url)
    with pytest.raises(MissingAtPublisher, match="green 2026-07"):
        publisher.version(Partition("green", month("2026-07")), ONCE, known_month=month("2026-05"))
    assert tlc.asked() == [path("2026-07"), path("2026-05")]


def test_403_is_absence_where_only_the_zone_table_is_served(tlc: HttpServer) -> None:
    publisher = open_publisher("tlc", tlc.url)
    with pytest.raises(MissingAtPublisher):
        publisher.version(Partition("green", month("2026-07")), ONCE, known_month=month("2025-05"))
    assert tlc.asked() == [path("2026-07"), path("2025-05"), ZONES]


def test_403_for_everything_is_throttling_and_passes(tlc: HttpServer) -> None:
    publisher = open_publisher("tlc", tlc.url)
    tlc.program("*", Fault(status=403, times=6))
    assert publisher.version(Partition("green", month("2026-01")), QUICK, known_month=month("2026-05")).length
    assert tlc.asked() == [path("2026-01"), path("2026-05"), ZONES] * 2 + [path("2026-01")]
    tlc.program("*", Fault(status=403, times=ALWAYS))
    with pytest.raises(Throttled, match="too many requests"):
        publisher.version(Partition("green", month("2026-01")), ONCE)


def test_403_is_meant_where_absence_answers_404(tlc: HttpServer) -> None:
    tlc.absent = 404
    tlc.program(path("2026-01"), Fault(status=403, times=ALWAYS))
    (tlc.folder / ZONES[1:]).unlink()
    with pytest.raises(RefusedByPublisher, match="not allowed"):
        open_publisher("tlc", tlc.url).version(Partition("green", month("2026-01")), QUICK)


def test_trouble_with_the_known_file_is_trouble(tlc: HttpServer) -> None:
    tlc.program(ZONES, Fault(status=500, times=ALWAYS))
    with pytest.raises(PublisherUnavailable, match="500"):
        open_publisher("tlc", tlc.url).version(Partition("green", month("2026-07")), ONCE)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, RefusedByPublisher), (403, RefusedByPublisher), (404, MissingAtPublisher), (410, RefusedByPublisher)],
)
def test_final_answers_are_not_asked_again(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    with HttpServer(tmp_path) as server:
        server.program("*", Fault(status=status, times=ALWAYS))
        with pytest.raises(kind):
            open_publisher("dtc", server.url).version(Partition("green", month("2020-03")), QUICK)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_trouble_passes(tlc: HttpServer, status: int) -> None:
    tlc.program(path("2026-01"), Fault(status=status, times=3))
    assert open_publisher("tlc", tlc.url).version(Partition("green", month("2026-01")), QUICK).length
    assert len(tlc.requests) == 4


def test_retry_after_reaches_the_error(tlc: HttpServer) -> None:
    tlc.program(path("2026-01"), Fault(status=429, retry_after="17"))
    with pytest.raises(Throttled, match="in 17 s") as error:
        open_publisher("tlc", tlc.url).version(Partition("green", month("2026-01")), ONCE)
    assert error.value.retry_after == 17


def test_silence_is_trouble(tlc: HttpServer) -> None:
    tlc.program(path("2026-01"), Fault(silent_after=0))
    with pytest.raises(PublisherUnavailable, match=r"no answer within 0\.2 s"):
        open_publisher("tlc", tlc.url).version(Partition("green", month("2026-01")), Policy(timeout=0.2, attempts=1))


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_connection_is_trouble_and_names_no_secret(host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://ann:pa55word@{host}:{unused.getsockname()[1]}/x?sig=s1gnature"
        with pytest.raises(PublisherUnavailable) as error:
            open_publisher("tlc", url).version(Partition("green", month("2026-01")), ONCE)
    assert "pa55word" not in str(error.value) and "s1gnature" not in str(error.value)
    assert f"http://{host}" in str(error.value) and "\n" not in str(error.value)
    assert error.value.__suppress_context__


@pytest.mark.parametrize("status", [405, 501])
def test_a_server_without_head(tlc: HttpServer, status: int) -> None:
    publisher = open_publisher("tlc", tlc.url)
    known_files = [f"/{publisher.layout.path(file)}" for file in KNOWN_FILES]
    for place in (path("2026-01"), *known_files):
        tlc.program(place, Fault(status=status, times=ALWAYS, methods=("HEAD",)))
    publisher.check_reachable(ONCE)
    version = open_publisher("tlc", tlc.url).version(Partition("green", month("2026-01")), ONCE)
    assert version.length == len(path("2026-01")) - 1
    assert tlc.asked("GET") == [path("2026-01")]


def test_credentials_are_sent(tlc: HttpServer) -> None:
    url = tlc.url.replace("http://", "http://ann:pa55word@")
    open_publisher("tlc", url).version(Partition("green", month("2026-01")), ONCE)
    assert tlc.requests[0].headers["Authorization"].startswith("Basic ")


# -- whether it answers at all ---------------------------------------------------------------------


def test_one_question_where_a_publisher_answers_whatever_it_says(tlc: HttpServer) -> None:
    for status in (200, 403, 404, 401):
        tlc.clear()
        tlc.program("*", Fault(status=status, times=ALWAYS))
        open_publisher("tlc", tlc.url).check_reachable(QUICK)
        assert tlc.asked() == [ZONES]


def test_trouble_with_one_file_is_not_the_publishers(tlc: HttpServer) -> None:
    tlc.program(ZONES, Fault(status=503, retry_after="800", times=ALWAYS))
    open_publisher("tlc", tlc.url).check_reachable(QUICK)
    assert len(tlc.requests) == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_trouble_with_everything_is_the_publishers(tlc: HttpServer, status: int) -> None:
    tlc.program("*", Fault(status=status, times=ALWAYS))
    host = tlc.url.removeprefix("http://")
    with pytest.raises(Unreachable) as caught:
        open_publisher("tlc", f"http://user:planted@{host}/x?key=planted").check_reachable(QUICK)
    assert str(caught.value) == (
        f"publisher tlc cannot be reached at {tlc.url}/x: it answers {status} to everything; "
        "check the network and [publisher] url, or try again later"
    )
    assert len(tlc.requests) == 2 * QUICK.attempts


def test_a_long_wait_that_is_asked_for_is_not_waited_for_while_a_run_is_planned(tlc: HttpServer) -> None:
    tlc.program("*", Fault(status=503, retry_after="800", times=ALWAYS))
    with pytest.raises(Unreachable, match="answers 503"):
        open_publisher("tlc", tlc.url).check_reachable(Policy(attempts=5, patience=40))
    assert len(tlc.requests) == 2


@pytest.mark.parametrize("kind", ["refused", "silent", "full", "no name", "no TLS"])
def test_no_answer_is_one_error_by_the_publishers_address(tlc: HttpServer, kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as stack:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        if kind == "refused":
            bound = stack.enter_context(socket.socket())
            bound.bind(("127.0.0.1", 0))  # and not listening
            url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        if kind == "full":
            for _ in range(4):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listener.getsockname())
        if kind == "no name":
            url = "http://no-such-host.invalid"
        if kind == "no TLS":
            url = tlc.url.replace("http:", "https:")
        with pytest.raises(Unreachable) as caught:
            open_publisher("dtc", url).check_reachable(Policy(timeout=0.2, attempts=1))
    assert str(caught.value).startswith(f"publisher dtc cannot be reached at {url}: ")
    assert ".csv" not in str(caught.value)


def test_patience_ends_even_where_a_request_does_not(tlc: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name may take minutes to look up, and has as many time-outs as addresses."""
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **more: never.wait(600))
    try:
        with pytest.raises(Unreachable, match=r"no answer within 0\.\d+ s"):
            open_publisher("tlc", tlc.url).check_reachable(Policy(patience=0.1))
    finally:
        never.set()


def drip(head: bytes) -> Behaviour:
    """Send the bytes one by one, each within any time-out of a single read."""

    def behave(request: bytes, connection: socket.socket) -> None:
        while True:
            for number in range(len(head)):
                connection.sendall(head[number : number + 1])
                threading.Event().wait(0.001)

    return behave


def flood(head: bytes, body: bytes) -> Behaviour:
    """Send ``head`` and then ``body`` without an end."""

    def behave(request: bytes, connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(body)

    return behave


CIRCLE = b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"


@pytest.mark.parametrize(
    "behaviour",
    [
        drip(b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 4000),
        drip(b"HTTP/1.1 100 Continue\r\n\r\n"),
        flood(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["a header that drips", "statuses that drip", "statuses without an end"],
)
def test_one_limit_counts_for_a_whole_question(behaviour: Behaviour) -> None:
    """And what asked is ended, in whichever thread it was."""
    with RawServer(behaviour) as server:
        with pytest.raises(PublisherUnavailable, match=r"no answer within 0\.3 s"):
            open_publisher("tlc", server.url).version(Partition("green", month("2026-01")), SHORT)
        wait_for(lambda: not any(thread.name.startswith("ask ") for thread in threading.enumerate()))


SHORT = Policy(timeout=0.3, attempts=1)


def redirect(to: str) -> Behaviour:
    """With a body that nobody may read: it has no end."""
    return flood(f"HTTP/1.1 302 Found\r\nLocation: {to}\r\n\r\n".encode("latin-1"), b"a" * 100_000)


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("/again", "redirects in a circle"),
        ("//127.0.0.1:{port}/again", "redirects in a circle"),
        ("file:///etc/passwd", "redirects to what is no web address"),
        ("ftp://u:s3cret@host/x", "redirects to what is no web address"),
        ("data:text/csv,a", "redirects to what is no web address"),
        ("http://" + "a" * 64 + ".x/s3cret", "redirects to what is no address"),
        ("http://a..b/?s3cret", "redirects to what is no address"),
        ("http://[::1/s3cret", "redirects to what is no address"),
        ("http://127.0.0.1:s3cret/", "redirects to what is no address"),
        ("http://u:s3cret@/x", "redirects to what is no address"),
        ("http://\xff\xfe/s3cret", "redirects to what is no address"),
    ],
)
def test_a_redirect_that_leads_nowhere_is_one_line_without_its_address(to: str, says: str) -> None:
    with RawServer(
        lambda request, connection: redirect(to.format(port=server.url[17:]))(request, connection)
    ) as server:
        with pytest.raises(RefusedByPublisher) as caught:
            open_publisher("tlc", server.url).version(Partition("green", month("2026-01")), ONCE)
        assert str(caught.value) == f"{server.url}{path('2026-01')} {says}; check [publisher] url"
        assert len(server.requests) <= 11


def test_a_redirect_to_another_server_gets_no_login_and_one_to_the_same_does(tlc: HttpServer) -> None:
    with RawServer(lambda request, connection: redirect(tlc.url + path("2026-01"))(request, connection)) as first:
        url = first.url.replace("http://", "http://ann:pa55word@")
        assert open_publisher("tlc", url).version(Partition("green", month("2026-01")), ONCE).length
    assert b"Authorization: Basic" in first.requests[0] and "Authorization" not in tlc.requests[0].headers


def test_a_redirect_within_one_server_keeps_the_login() -> None:
    def behave(request: bytes, connection: socket.socket) -> None:
        if b"/there" in request:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n")
        else:
            there = f"{server.url}/there" if len(server.requests) == 1 else "/there"
            redirect(there)(request, connection)

    with RawServer(behave) as server:
        publisher = open_publisher("tlc", server.url.replace("http://", "http://ann:pa55word@"))
        for _ in range(2):
            assert publisher.version(Partition("green", month("2026-01")), ONCE).length == 7
            server.requests.append(b"")
    assert all(b"Authorization: Basic" in request for request in server.requests if request)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: " + b"9" * 6000,
        b"Content-Length: -5",
        b"Content-Length: 5\r\nContent-Length: 7",
        b"Retry-After: " + b"9" * 6000,
        b"Set-Cookie: " + b"a=b; " * 900,
        b"ETag: \xff\xfe\x00",
        b"Last-Modified: \xb2",
        b"no colon here",
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"503 Busy"])
def test_odd_headers_are_an_answer_or_one_line(head: bytes, status: bytes) -> None:
    def behave(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\nConnection: close\r\n\r\n")

    with RawServer(behave) as server:
        publisher = open_publisher("tlc", server.url)
        try:
            version = publisher.version(Partition("green", month("2026-01")), ONCE)
            assert status == b"200 OK" and (version.length or 0) >= 0
        except PublisherUnavailable as error:
            assert "\n" not in str(error) and len(str(error)) < 300


# -- availability ----------------------------------------------------------------------------------


def test_one_request_where_the_newest_asked_month_is_there(tlc: HttpServer) -> None:
    assert available(tlc.url, year(2026, 1, 6)) == Availability((), (), newest=month("2026-06"))
    assert tlc.asked() == [path("2026-06")]


def test_later_than_the_newest_is_not_yet_and_earlier_is_a_gap(tlc: HttpServer) -> None:
    found = available(tlc.url, year(2026))
    assert found.not_yet == tuple(year(2026, 9, 12))
    assert found.newest == month("2026-08")
    assert found.missing == (month("2026-07"),)  # asked together with 08
    assert published(found, year(2026)) == [*year(2026, 1, 6), month("2026-08")]


def test_a_gap_at_the_end_of_what_was_asked(tlc: HttpServer) -> None:
    found = available(tlc.url, year(2026, 5, 7))
    assert found.missing == (month("2026-07"),) and found.not_yet == ()
    assert published(found, year(2026, 5, 7)) == year(2026, 5, 6) and found.newest == month("2026-08")
    assert max(tlc.asked()) == path("2026-11")  # never later than today


def test_an_old_absence_is_a_gap_though_no_later_month_is_known(tlc: HttpServer) -> None:
    found = available(tlc.url, year(2026, 9, 12), today=dt.date(2028, 1, 1))
    assert found.missing == tuple(year(2026, 9, 12)) and found.not_yet == ()


def test_trouble_with_one_month_is_left_to_its_download(tlc: HttpServer) -> None:
    tlc.program(path("2026-08"), Fault(status=500, times=ALWAYS))
    found = available(tlc.url, year(2026, 5, 8))
    assert published(found, year(2026, 5, 8)) == year(2026, 5, 8) and not found.missing
    assert tlc.asked() == [path("2026-08")] * QUICK.attempts, "all tries, and then no more questions"


def test_nothing_there_yet_but_the_address_is_right(tlc: HttpServer) -> None:
    found = available(tlc.url, year(2026, 10, 11))
    assert found.not_yet == tuple(year(2026, 10, 11)) and not found.missing


def test_the_last_loaded_month_is_presumed_published(tlc: HttpServer) -> None:
    found = available(tlc.url, year(2026, 1, 6), known_month=month("2026-06"))
    assert not found.not_yet and not found.missing and tlc.asked() == []


def test_counts_of_the_official_files_do_not_count_at_a_mirror(
    tlc: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_counts, "newest_month", lambda publisher, dataset: month("2026-11"))
    found = available(tlc.url, [month("2026-11")])
    assert found.not_yet == (month("2026-11"),)


def test_throttling_is_not_taken_for_absence(tlc: HttpServer) -> None:
    tlc.program("*", Fault(status=403, times=ALWAYS))
    with pytest.raises(Unreachable, match="too many requests"):
        available(tlc.url, year(2026, 1, 6))


def test_a_long_absence_takes_few_rounds(tlc: HttpServer) -> None:
    found = available(tlc.url, [*year(2026, 1, 6), *year(2027), *year(2028)])
    assert found.not_yet == (*year(2027), *year(2028)) and found.newest == month("2026-06")
    assert tlc.asked().count(ZONES) <= 5  # one check for all the 403s of a round


def test_a_wrong_address_is_not_taken_for_not_yet(tlc: HttpServer) -> None:
    tlc.absent = 404
    with pytest.raises(RefusedByPublisher, match=r"\[publisher\] url.*/wrong"):
        available(f"{tlc.url}/wrong", year(2026, 9, 10))


def test_a_mirror_without_the_zone_table(tlc: HttpServer) -> None:
    tlc.absent = 404
    (tlc.folder / ZONES[1:]).unlink()
    found = available(tlc.url, year(2026, 9, 10))
    assert found.not_yet == tuple(year(2026, 9, 10)) and found.newest == month("2026-08")


def test_the_mirror_of_the_archive(tmp_path: Path) -> None:
    put(tmp_path, *(f"green/green_tripdata_2020-{n}.csv.gz" for n in ("03", "04", "05", "08", "10")))
    with HttpServer(tmp_path) as server:
        mirror = open_publisher("dtc", server.url)
        found = mirror.check_availability("green", year(2020, 3, 11), QUICK, today=TODAY)
    assert month("2020-11") in found.missing and not found.not_yet, "an archive gets no new months"
    assert month("2020-10") not in found.missing and found.newest == month("2020-10")

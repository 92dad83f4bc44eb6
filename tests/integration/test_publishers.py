"""Looking and surveying at a real web server."""

from __future__ import annotations

import datetime as dt
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from pipeline import publishers
from pipeline.errors import MissingAtPublisher, PublisherTrouble, RefusedByPublisher, Throttled
from pipeline.publishers import Policy, Publisher, Survey, Version
from tests.patience import PATIENCE
from tests.servers.http import ALWAYS, Fault, HttpServer

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


def survey(publisher: Publisher, asked: Iterable[dt.date], probe: dt.date | None = None) -> Survey:
    return publishers.survey(publisher, "green", asked, probe=probe, today=TODAY, policy=QUICK)


def test_look(tlc: HttpServer) -> None:
    publisher = publishers.get("tlc", tlc.url)
    version = publishers.look(publisher, "green", month("2026-01"), policy=ONCE)
    assert version.is_strong and version.length == len(path("2026-01")) - 1 and version.last_modified
    assert tlc.asked() == tlc.asked("HEAD") == [path("2026-01")]
    assert tlc.requests[0].headers["User-Agent"].startswith("nyc-trips-pipeline")
    assert tlc.requests[0].headers["Accept-Encoding"] == "identity"


def test_403_is_absence_where_the_probe_is_served(tlc: HttpServer) -> None:
    publisher = publishers.get("tlc", tlc.url)
    with pytest.raises(MissingAtPublisher, match="green 2026-07"):
        publishers.look(publisher, "green", month("2026-07"), probe=month("2026-05"), policy=ONCE)
    assert tlc.asked() == [path("2026-07"), path("2026-05")]


def test_403_is_absence_where_only_the_zone_table_is_served(tlc: HttpServer) -> None:
    publisher = publishers.get("tlc", tlc.url)
    with pytest.raises(MissingAtPublisher):
        publishers.look(publisher, "green", month("2026-07"), probe=month("2025-05"), policy=ONCE)
    assert tlc.asked() == [path("2026-07"), path("2025-05"), ZONES]


def test_403_for_everything_is_throttling_and_passes(tlc: HttpServer) -> None:
    publisher = publishers.get("tlc", tlc.url)
    tlc.program("*", Fault(status=403, times=6))
    assert publishers.look(publisher, "green", month("2026-01"), probe=month("2026-05"), policy=QUICK).length
    assert tlc.asked() == [path("2026-01"), path("2026-05"), ZONES] * 2 + [path("2026-01")]
    tlc.program("*", Fault(status=403, times=ALWAYS))
    with pytest.raises(Throttled, match="too many requests"):
        publishers.look(publisher, "green", month("2026-01"), policy=ONCE)


def test_403_is_meant_where_absence_answers_404(tlc: HttpServer) -> None:
    tlc.absent = 404
    tlc.program(path("2026-01"), Fault(status=403, times=ALWAYS))
    (tlc.folder / ZONES[1:]).unlink()
    with pytest.raises(RefusedByPublisher, match="not allowed"):
        publishers.look(publishers.get("tlc", tlc.url), "green", month("2026-01"), policy=QUICK)


def test_trouble_at_the_probe_is_trouble(tlc: HttpServer) -> None:
    tlc.program(ZONES, Fault(status=500, times=ALWAYS))
    with pytest.raises(PublisherTrouble, match="500"):
        publishers.look(publishers.get("tlc", tlc.url), "green", month("2026-07"), policy=ONCE)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, RefusedByPublisher), (403, RefusedByPublisher), (404, MissingAtPublisher), (410, RefusedByPublisher)],
)
def test_final_answers_are_not_asked_again(tmp_path: Path, status: int, kind: type[Exception]) -> None:
    with HttpServer(tmp_path) as server:
        server.program("*", Fault(status=status, times=ALWAYS))
        with pytest.raises(kind):
            publishers.look(publishers.get("dtc", server.url), "green", month("2020-03"), policy=QUICK)
        assert len(server.requests) == 1


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_passing_trouble_passes(tlc: HttpServer, status: int) -> None:
    tlc.program(path("2026-01"), Fault(status=status, times=3))
    assert publishers.look(publishers.get("tlc", tlc.url), "green", month("2026-01"), policy=QUICK).length
    assert len(tlc.requests) == 4


def test_retry_after_reaches_the_error(tlc: HttpServer) -> None:
    tlc.program(path("2026-01"), Fault(status=429, retry_after="17"))
    with pytest.raises(Throttled, match="in 17 s") as error:
        publishers.look(publishers.get("tlc", tlc.url), "green", month("2026-01"), policy=ONCE)
    assert error.value.retry_after == 17


def test_silence_is_trouble(tlc: HttpServer) -> None:
    tlc.program(path("2026-01"), Fault(silent_after=0))
    with pytest.raises(PublisherTrouble, match=r"no answer within 0\.2 s"):
        publishers.look(
            publishers.get("tlc", tlc.url), "green", month("2026-01"), policy=Policy(timeout=0.2, attempts=1)
        )


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_connection_is_trouble_and_names_no_secret(host: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound, and not listening
        url = f"http://ann:pa55word@{host}:{unused.getsockname()[1]}/x?sig=s1gnature"
        with pytest.raises(PublisherTrouble) as error:
            publishers.look(publishers.get("tlc", url), "green", month("2026-01"), policy=ONCE)
    assert "pa55word" not in str(error.value) and "s1gnature" not in str(error.value)
    assert f"http://{host}" in str(error.value) and "\n" not in str(error.value)
    assert error.value.__suppress_context__


def test_a_server_without_head(tlc: HttpServer) -> None:
    tlc.program(path("2026-01"), Fault(status=405, times=ALWAYS, methods=("HEAD",)))
    version = publishers.look(publishers.get("tlc", tlc.url), "green", month("2026-01"), policy=ONCE)
    assert version.length == len(path("2026-01")) - 1
    assert tlc.asked("GET") == [path("2026-01")]


def test_credentials_are_sent(tlc: HttpServer) -> None:
    url = tlc.url.replace("http://", "http://ann:pa55word@")
    publishers.look(publishers.get("tlc", url), "green", month("2026-01"), policy=ONCE)
    assert tlc.requests[0].headers["Authorization"].startswith("Basic ")


# -- surveys ---------------------------------------------------------------------------------------


def test_one_request_where_the_newest_asked_month_is_there(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), year(2026, 1, 6))
    assert found.published == tuple(year(2026, 1, 6)) and not found.missing and not found.not_yet
    assert tlc.asked() == [path("2026-06")]
    assert found.versions.keys() == {month("2026-06")} and isinstance(found.versions[month("2026-06")], Version)


def test_later_than_the_newest_is_not_yet_and_earlier_is_a_gap(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), year(2026))
    assert found.not_yet == tuple(year(2026, 9, 12))
    assert found.newest == month("2026-08")
    assert found.missing == (month("2026-07"),)  # asked together with 08
    assert found.published == (*year(2026, 1, 6), month("2026-08"))


def test_a_gap_at_the_end_of_what_was_asked(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), year(2026, 5, 7))
    assert found.missing == (month("2026-07"),) and found.not_yet == ()
    assert found.published == tuple(year(2026, 5, 6)) and found.newest == month("2026-08")
    assert max(tlc.asked()) == path("2026-11")  # never later than today


def test_nothing_there_yet_but_the_address_is_right(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), year(2026, 10, 11))
    assert found.not_yet == tuple(year(2026, 10, 11)) and found.published == ()


def test_the_last_loaded_month_is_presumed_published(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), year(2026, 1, 6), probe=month("2026-06"))
    assert found.published == tuple(year(2026, 1, 6)) and tlc.asked() == []


def test_figures_of_the_official_files_do_not_count_at_a_mirror(tlc: HttpServer) -> None:
    publisher = publishers.get("tlc", tlc.url)
    found = publishers.survey(publisher, "green", [month("2026-11")], month("2026-11"), today=TODAY, policy=QUICK)
    assert found.not_yet == (month("2026-11"),)


def test_throttling_is_not_taken_for_absence(tlc: HttpServer) -> None:
    tlc.program("*", Fault(status=403, times=ALWAYS))
    with pytest.raises(Throttled):
        survey(publishers.get("tlc", tlc.url), year(2026, 1, 6))


def test_a_long_absence_takes_few_rounds(tlc: HttpServer) -> None:
    found = survey(publishers.get("tlc", tlc.url), [*year(2026, 1, 6), *year(2027), *year(2028)])
    assert found.not_yet == (*year(2027), *year(2028)) and found.newest == month("2026-06")
    assert tlc.asked().count(ZONES) <= 5  # one probe for all the 403s of a round


def test_a_wrong_address_is_not_taken_for_not_yet(tlc: HttpServer) -> None:
    tlc.absent = 404
    with pytest.raises(RefusedByPublisher, match=r"\[publisher\] url.*/wrong"):
        survey(publishers.get("tlc", f"{tlc.url}/wrong"), year(2026, 9, 10))


def test_a_mirror_without_the_zone_table(tlc: HttpServer) -> None:
    tlc.absent = 404
    (tlc.folder / ZONES[1:]).unlink()
    found = survey(publishers.get("tlc", tlc.url), year(2026, 9, 10))
    assert found.not_yet == tuple(year(2026, 9, 10)) and found.newest == month("2026-08")


def test_the_mirror_of_the_archive(tmp_path: Path) -> None:
    put(tmp_path, *(f"green/green_tripdata_2020-{n}.csv.gz" for n in ("03", "04", "05", "08", "10")))
    with HttpServer(tmp_path) as server:
        found = survey(publishers.get("dtc", server.url), year(2020, 3, 11))
    assert found.not_yet == (month("2020-11"),)
    assert month("2020-10") in found.published and found.newest == month("2020-10")

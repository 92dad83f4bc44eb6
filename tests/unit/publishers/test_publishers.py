"""Addresses, labels and months of publishers; versions; what HTTP statuses mean; folders and samples."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from pipeline import http_client, remote
from pipeline.datasets import row_counts
from pipeline.errors import (
    MissingAtPublisher,
    NeverOffered,
    PublisherUnavailable,
    RefusedByPublisher,
    Throttled,
    TransientError,
    UsageError,
)
from pipeline.partition import Partition
from pipeline.publishers import Version, from_label, open_publisher, web_request
from pipeline.publishers.availability import Availability
from pipeline.publishers.catalog import CATALOGS
from pipeline.publishers.folder import FolderPublisher
from pipeline.publishers.web import WebPublisher
from pipeline.retry import Policy
from tests.patience import Clock

SECRET = "https://ann:pa55word@mirror.example/nyc?sig=s1gnature"


def month(text: str) -> dt.date:
    return dt.date.fromisoformat(f"{text}-01")


GREEN = Partition("green", month("2020-03"))
ZONE_TABLE = Partition("zones", None)


def web_publisher(name: str, url: str = "") -> WebPublisher:
    found = open_publisher(name, url)
    assert isinstance(found, WebPublisher)
    return found


def months(first: str, last: str) -> list[dt.date]:
    found, here = [], month(first)
    while here <= month(last):
        found.append(here)
        here = (here + dt.timedelta(days=31)).replace(day=1)
    return found


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "dataset", "when", "url"),
    [
        ("tlc", "yellow", "2021-01", "https://d37ci6vzurychx.cloudfront.net/trip-data/yellow_tripdata_2021-01.parquet"),
        ("tlc", "zones", None, "https://d37ci6vzurychx.cloudfront.net/misc/taxi_zone_lookup.csv"),
        (
            "dtc",
            "green",
            "2020-03",
            "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/green/green_tripdata_2020-03.csv.gz",
        ),
        (
            "dtc",
            "zones",
            None,
            "https://github.com/DataTalksClub/nyc-tlc-data/releases/download/misc/taxi_zone_lookup.csv",
        ),
    ],
)
def test_own_addresses(name: str, dataset: str, when: str | None, url: str) -> None:
    publisher = open_publisher(name)
    assert publisher.address(Partition(dataset, month(when) if when else None)) == url
    assert publisher.label == name
    assert publisher.is_own_address


def test_formats() -> None:
    tlc, dtc = open_publisher("tlc"), open_publisher("dtc")
    assert [tlc.layout.format_of(name) for name in ("fhv", "zones")] == ["parquet", "csv"]
    assert [dtc.layout.format_of(name) for name in ("fhv", "zones")] == ["csv.gz", "csv"]
    assert open_publisher("sample", "sample:?layout=dtc").layout.format_of("green") == "csv.gz"


@pytest.mark.parametrize("base", ["file:mirror/a b", "file:mirror/a%20b", "file:./mirror/../mirror/a b/"])
def test_relative_folders_become_absolute(base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publisher = open_publisher("dtc", base)
    assert isinstance(publisher, FolderPublisher) and publisher.folder == tmp_path / "mirror" / "a b"
    assert publisher.path(GREEN) == tmp_path / "mirror/a b/green/green_tripdata_2020-03.csv.gz"
    assert publisher.label == f"dtc=file:{tmp_path}/mirror/a%20b"
    assert publisher.address(ZONE_TABLE) == f"file:{tmp_path}/mirror/a%20b/misc/taxi_zone_lookup.csv"


@pytest.mark.parametrize("base", ["file:/data/x", "file:///data/x", "file://localhost/data/x/", "FILE:/data/x"])
def test_absolute_folders(base: str) -> None:
    assert open_publisher("tlc", base).label == "tlc=file:/data/x"


def test_credentials_are_used_and_not_shown() -> None:
    publisher = web_publisher("tlc", SECRET)
    full = "https://ann:pa55word@mirror.example/nyc/trip-data/fhv_tripdata_2019-01.parquet?sig=s1gnature"
    assert publisher.url(Partition("fhv", month("2019-01"))) == full
    assert publisher.address(Partition("fhv", month("2019-01"))) == (
        "https://mirror.example/nyc/trip-data/fhv_tripdata_2019-01.parquet"
    )
    assert publisher.label == "tlc=https://mirror.example/nyc"
    assert "pa55word" not in repr(publisher) and "s1gnature" not in repr(publisher)
    assert publisher.redact("no entry for ann with s1gnature, pa55word") == "no entry for ann with ***, ***"


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("tlc", ""),
        ("dtc", "file:/data/a%20b"),
        ("tlc", "http://127.0.0.1:8080/x/"),
        ("sample", ""),
        ("sample", "sample:?seed=7&rows=10"),
        ("sample", "file:/data/x"),
    ],
)
def test_label_and_back(name: str, url: str) -> None:
    publisher = open_publisher(name, url)
    assert from_label(publisher.label) == publisher


def test_a_label_has_no_credentials() -> None:
    assert from_label(open_publisher("tlc", SECRET).label).base_url == "https://mirror.example/nyc"


@pytest.mark.parametrize(
    ("name", "url", "words"),
    [
        ("tcl", "", ", ".join(CATALOGS)),
        ("tlc", "ftp://x/y", "https:, http: or file:"),
        ("tlc", "/data/x", "file:/data/x"),
        ("tlc", "https://", "no host"),
        ("tlc", "https://h:notaport/", "no host"),
        ("tlc", "https://[::1", "no host"),
        ("tlc", "file:", "no folder"),
        ("tlc", "file://server/share", "'server'"),
        ("dtc", "sample:?rows=1", "name sample"),
        ("sample", "sample:?rows=many", "whole numbers"),
        ("sample", "sample:?rows=-1", "whole numbers"),
        ("sample", "sample:?colour=red", "sample:?rows=20000&seed=1"),
        ("sample", "sample:?rows=1&rows=2", "sample:?rows=20000&seed=1"),
        ("sample", "sample:?layout=csv", "layout=dtc"),
    ],
)
def test_wrong_settings_are_named(name: str, url: str, words: str) -> None:
    with pytest.raises(UsageError) as error:
        open_publisher(name, url)
    assert words in str(error.value) and "[publisher]" in str(error.value)
    assert "\n" not in str(error.value)


def test_wrong_address_does_not_show_its_password() -> None:
    for url in ("ftp://ann:pa55word@x/y?sig=s1gnature", "https://ann:pa55word@/x", "https://ann:pa55word@h:port/"):
        with pytest.raises(UsageError) as error:
            open_publisher("tlc", url)
        assert "pa55word" not in str(error.value) and "s1gnature" not in str(error.value)


def test_importing_is_light() -> None:
    heavy = "pyarrow pandas numpy duckdb sqlalchemy google.cloud.storage isal"
    code = f"import sys, pipeline.publishers; print([m for m in {heavy.split()} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# -- months offered --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "url", "dataset", "first", "last"),
    [
        ("tlc", "", "yellow", "2009-01", None),
        ("tlc", "", "green", "2014-01", None),
        ("tlc", "", "fhv", "2015-01", None),
        ("tlc", "", "fhvhv", "2019-02", None),
        ("tlc", "file:/x", "green", "2013-08", None),
        ("dtc", "", "yellow", "2019-01", "2021-07"),
        ("dtc", "", "fhvhv", "2021-01", "2021-07"),
        ("dtc", "file:/x", "yellow", "2009-01", "2021-07"),
        ("dtc", "file:/x", "green", "2013-08", "2021-07"),
        ("sample", "", "green", "2014-01", None),
        ("sample", "sample:?layout=dtc", "green", "2013-08", "2021-07"),
    ],
)
def test_months_offered(name: str, url: str, dataset: str, first: str, last: str | None) -> None:
    publisher = open_publisher(name, url)
    assert publisher.months_offered(dataset) == (month(first), month(last) if last else None)
    publisher.check_offered(Partition(dataset, month(first)))
    too_early = (month(first) - dt.timedelta(days=1)).replace(day=1)
    with pytest.raises(NeverOffered, match=first):
        publisher.check_offered(Partition(dataset, too_early))
    if last:
        publisher.check_offered(Partition(dataset, month(last)))
        with pytest.raises(NeverOffered, match=f"{first} to {last}"):
            publisher.check_offered(Partition(dataset, month("2021-08")))


def test_the_zone_table_has_no_months() -> None:
    publisher = open_publisher("tlc")
    publisher.check_offered(Partition("zones", None))
    with pytest.raises(UsageError):
        publisher.check_offered(Partition("zones", month("2020-01")))
    with pytest.raises(UsageError):
        publisher.check_offered(Partition("green", None))


# -- versions --------------------------------------------------------------------------------------

etags = st.none() | st.sampled_from(['"a"', 'W/"a"', '"b"', 'W/"b"', "12-345"])
versions = st.builds(
    Version, etag=etags, length=st.none() | st.integers(0, 3), last_modified=st.none() | st.sampled_from(["x", "y"])
)


@given(versions)
def test_version_survives_json(version: Version) -> None:
    assert Version.from_dict(json.loads(json.dumps(version.to_dict()))) == version


@given(versions, versions)
def test_same_as_is_symmetric_and_needs_evidence(one: Version, two: Version) -> None:
    assert one.same_as(two) == two.same_as(one)
    if one.same_as(two):
        assert (one.etag and two.etag) or (one.length is not None and two.length is not None)


def test_signs() -> None:
    base = Version('"a"', 10, "Mon")
    assert base.fingerprint == Version('"a"', 10, "Tue").fingerprint == Version('W/"a"', 10).fingerprint
    assert base.fingerprint != Version('"a"', 11).fingerprint
    assert base.fingerprint != Version('"b"', 10).fingerprint
    assert Version(length=10).fingerprint != Version(length=11).fingerprint
    assert Version(last_modified="Mon").fingerprint == ""
    assert Version("10-99", 10).fingerprint == Version("10-99").fingerprint


def test_what_only_one_knows_does_not_count() -> None:
    assert Version('"a"', 10).same_as(Version('"a"'))
    assert Version('"a"', 10).same_as(Version(None, 10))
    assert not Version('"a"', 10).same_as(Version('"a"', 11))
    assert not Version(last_modified="Mon").same_as(Version(last_modified="Mon"))


def test_strength() -> None:
    assert Version('"a"').is_strong
    assert not any(Version(tag).is_strong for tag in (None, 'W/"a"', "10-99"))


def test_headers() -> None:
    assert Version.from_headers({"ETag": '"a"', "Content-Length": "7"}) == Version('"a"', 7)
    part = {"ETag": '"a"', "Content-Length": "7", "Content-Range": "bytes 3-9/10"}
    assert Version.from_headers(part).length == 10
    assert Version.from_headers({"Content-Length": "7", "Content-Encoding": "gzip"}).length is None
    assert Version.from_headers({"Content-Length": "many", "ETag": ""}) == Version()
    for odd in ('"a\0b"', '"a\x1b[2Jb"', '"a\r\nX: y"', "x" * 100_000):  # no warehouse or request takes them
        assert Version.from_headers({"ETag": odd, "Last-Modified": odd, "Content-Length": "7"}) == Version(None, 7)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("HTTP_PROXY", "http://[::1", "[publisher] url, and the proxy that the environment names"),
        ("HTTP_PROXY", "ftp://u:s3cret@proxy:1", "[publisher] url, and the proxy that the environment names"),
        ("REQUESTS_CA_BUNDLE", "/nowhere", "variable REQUESTS_CA_BUNDLE: there is no file /nowhere"),
    ],
)
def test_what_the_environment_says_of_the_web_is_a_mistake_to_name(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in (name, name.lower()):
        monkeypatch.setenv(variable, value)
    scheme = "http" if "PROXY" in name else "https"
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        open_publisher("tlc", f"{scheme}://no-such-host.invalid/x").version(ZONE_TABLE, Policy(attempts=1))
    assert "s3cret" not in str(caught.value) and "\n" not in str(caught.value)


def test_an_address_that_no_server_takes_is_not_repeated() -> None:
    with pytest.raises(UsageError, match=r"\[publisher\] url: the address has 70,014 characters") as caught:
        open_publisher("tlc", "http://host/x?" + "a" * 70_000)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize(
    ("url", "to", "there", "login"),
    [
        ("https://a:b@host/x", "/y", "https://a:b@host/y", ("a", "b")),
        ("https://a:b@host/x", "https://host/y", "https://host/y", ("a", "b")),
        ("https://a:b@host/x", "https://other/y", "https://other/y", None),
        ("http://a:b@host/x", "https://host/y", "https://host/y", ("a", "b")),
        ("http://host/x", "https://other/y?sig=1", "https://other/y?sig=1", None),
        ("https://host/x", "http://host/y", "from https: to http:", None),
        ("https://host/x", "gopher://host/y", "to what is no web address", None),
    ],
)
def test_where_a_redirect_leads(url: str, to: str, there: str, login: tuple[str, str] | None) -> None:
    response = requests.Response()
    response.status_code, response.headers["Location"] = 302, to
    if "://" not in there:
        with pytest.raises(http_client.WrongRedirect, match=there):
            http_client._redirected(http_client._Session(), url, response)
    else:
        assert http_client._redirected(http_client._Session(), url, response) == (there, login)


# -- requests --------------------------------------------------------------------------------------


def test_a_request_that_has_no_patience_left_is_not_made() -> None:
    policy = Policy(patience=70)
    policy.spent.add(0, 75)
    with pytest.raises(PublisherUnavailable, match="no answer within 70 s"):
        web_publisher("tlc", "http://no-such-host.invalid/x").request("HEAD", ZONE_TABLE, policy)


def test_what_counts_against_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of a wait in vain, and of one with an answer what goes beyond a usual one."""
    clock, policy = Clock(), Policy(patience=100)
    policy.spent.add(0, 30)
    monkeypatch.setattr(web_request, "time", clock)
    seconds = iter([web_request.SLOW, web_request.SLOW + 10, 15])

    def answer(*args: object) -> object:
        clock.sleep(next(seconds))
        if clock.slept[-1] == 15:
            raise TimeoutError
        return object()

    monkeypatch.setattr(http_client, "send", answer)
    publisher = web_publisher("tlc", "http://host/x")
    for left in (70, 60):
        publisher.request("HEAD", ZONE_TABLE, policy)
        assert policy.left() == left
    with pytest.raises(PublisherUnavailable, match="no answer within 60 s"):
        publisher.request("HEAD", ZONE_TABLE, policy)
    assert policy.left() == 45


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120),
        ("Sat, 21 Nov 2026 10:00:30 GMT", 30),
        ("Sat, 21 Nov 2026 09:00:00 GMT", 0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("NaN", None),
        ("1e9", None),
        ("²", None),
        ("9" * 6000, remote.LONGEST_ASKED),
        ("Fri, 31 Dec 9999 23:59:59 GMT", remote.LONGEST_ASKED),
        ("Fri, 31 Dec 9999 23:59:59 -2359", remote.LONGEST_ASKED),
        ("Fri, 31 Dec 99999 23:59:59 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0),
        ("Sat, 21 Nov 2026 10:00:30 +99999999999999", None),
        ("Sat, 99 Nov 2026 10:00:30 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    now = dt.datetime(2026, 11, 21, 10, tzinfo=dt.UTC)
    assert remote.seconds_asked_for({"Retry-After": value}, now) == seconds


# -- answers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "status", "kind"),
    [
        ("dtc", 404, MissingAtPublisher),
        ("tlc", 404, MissingAtPublisher),
        ("tlc", 403, Throttled),  # until a known file tells more
        ("dtc", 403, RefusedByPublisher),
        ("tlc", 401, RefusedByPublisher),
        ("tlc", 410, RefusedByPublisher),
        ("tlc", 451, RefusedByPublisher),
        ("tlc", 304, RefusedByPublisher),
        ("tlc", 408, PublisherUnavailable),
        ("tlc", 429, Throttled),
        ("tlc", 500, PublisherUnavailable),
        ("tlc", 503, Throttled),
    ],
)
def test_meaning_of_a_status(name: str, status: int, kind: type[Exception]) -> None:
    error = web_publisher(name, SECRET).error_of(GREEN, status, {"Retry-After": "7"})
    assert type(error) is kind
    assert "https://mirror.example/nyc/" in str(error) and str(status) in str(error)
    assert "pa55word" not in str(error) and "s1gnature" not in str(error)
    if isinstance(error, TransientError):
        assert error.retry_after == 7


@pytest.mark.parametrize("status", [200, 206])
def test_success_is_no_refusal(status: int) -> None:
    assert web_publisher("tlc").error_of(GREEN, status, {}) is None


# -- folders and samples ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Green 2020-03, 04, 05, 08 and yellow 2020-12 in the layout of dtc, and things that are no months."""
    for name in ("2020-03", "2020-04", "2020-05", "2020-08"):
        (tmp_path / "green").mkdir(exist_ok=True)
        (tmp_path / "green" / f"green_tripdata_{name}.csv.gz").write_bytes(name.encode())
    (tmp_path / "yellow").mkdir()
    (tmp_path / "yellow" / "yellow_tripdata_2020-12.csv.gz").touch()
    for name in ("green_tripdata_2020-13.csv.gz", "green_tripdata_2020-09.parquet", ".green_tripdata_2020-10.csv.gz"):
        (tmp_path / "green" / name).touch()
    (tmp_path / "green" / "green_tripdata_2020-11.csv.gz").mkdir()
    return tmp_path


def test_a_folder_is_listed_once(folder: Path) -> None:
    publisher = open_publisher("dtc", f"file:{folder}")
    found = publisher.check_availability("green", months("2020-03", "2020-11"))
    missing = tuple(map(month, ("2020-06", "2020-07", "2020-09", "2020-10", "2020-11")))
    assert found == Availability((), missing, newest=month("2020-08"))


def test_a_gap_is_seen_though_the_newest_was_not_asked_for(folder: Path) -> None:
    found = open_publisher("dtc", f"file:{folder}").check_availability("green", [month("2020-06")])
    assert (found.missing, found.not_yet, found.newest) == ((month("2020-06"),), (), month("2020-08"))


def test_only_a_month_that_can_still_appear_is_not_published_yet(folder: Path) -> None:
    """Whatever the folder holds: nothing of the dataset, or later months, or nothing since a year."""
    publisher = open_publisher("dtc", f"file:{folder}")
    for dataset, asked, today, is_gap in (
        ("fhv", "2020-06", dt.date(2020, 7, 1), False),
        ("fhv", "2020-06", dt.date(2020, 12, 31), False),
        ("fhv", "2020-06", dt.date(2021, 1, 1), True),
        ("green", "2020-09", dt.date(2020, 10, 5), False),
        ("green", "2020-09", dt.date(2026, 11, 5), True),
        ("green", "2020-06", dt.date(2020, 9, 1), True),
    ):
        found = publisher.check_availability(dataset, [month(asked)], today=today)
        expected = ((month(asked),), ()) if is_gap else ((), (month(asked),))
        assert (found.missing, found.not_yet) == expected, (dataset, asked, today)


def test_the_wrong_folder_is_refused(folder: Path) -> None:
    for publisher in (open_publisher("tlc", f"file:{folder}"), open_publisher("dtc", f"file:{folder}/nowhere")):
        for ask in (
            lambda publisher: publisher.check_availability("green", [month("2020-03")]),
            lambda publisher: publisher.version(GREEN),
            lambda publisher: publisher.version(ZONE_TABLE),
            lambda publisher: publisher.check_reachable(Policy()),
        ):
            with pytest.raises(RefusedByPublisher, match=r"\[publisher\] url.*correct the setting"):
                ask(publisher)


def test_looking_at_files(folder: Path) -> None:
    publisher = open_publisher("dtc", f"file:{folder}")
    path = folder / publisher.layout.path(GREEN)
    before = publisher.version(GREEN)
    assert before.etag == f"{path.stat().st_size}-{path.stat().st_mtime_ns}" and before.length == 7
    path.write_bytes(b"other")
    assert publisher.version(GREEN).fingerprint != before.fingerprint
    with pytest.raises(MissingAtPublisher, match=r"green 2020-06.*green_tripdata_2020-06\.csv\.gz"):
        publisher.version(Partition("green", month("2020-06")))
    with pytest.raises(RefusedByPublisher, match="not a file"):
        publisher.version(Partition("green", month("2020-11")))


def test_a_file_that_was_only_touched_is_unchanged(folder: Path) -> None:
    publisher = open_publisher("dtc", f"file:{folder}")
    path, digest = folder / publisher.layout.path(GREEN), hashlib.sha256(b"2020-03").hexdigest()
    before = publisher.version(GREEN)
    os.utime(path, (0, 0))
    after = publisher.version(GREEN)
    assert after != before and publisher.is_unchanged(GREEN, before, digest, after)
    path.write_bytes(b"2020-30")
    assert not publisher.is_unchanged(GREEN, before, digest, publisher.version(GREEN))
    path.unlink()
    assert publisher.is_unchanged(GREEN, before, digest, after), "a check that fails changes nothing"


def test_sample_has_the_months_that_are_over() -> None:
    found = open_publisher("sample").check_availability(
        "yellow", months("2026-08", "2026-12"), today=dt.date(2026, 11, 21)
    )
    assert found == Availability(tuple(months("2026-11", "2026-12")), (), newest=month("2026-10"))


def test_the_sample_version_depends_on_what_it_is_made_from() -> None:
    signs = {
        open_publisher("sample", url).version(Partition("green", when)).fingerprint
        for url in ("", "sample:?rows=5", "sample:?seed=5", "sample:?layout=dtc")
        for when in (month("2020-01"), month("2020-02"))
    }
    assert len(signs) == 8
    again = open_publisher("sample", "sample:?seed=1").version(Partition("green", month("2020-01")))
    assert again == open_publisher("sample").version(Partition("green", month("2020-01")))


def test_synthetic_is_known(tmp_path: Path) -> None:
    from pipeline.publishers.sample.generator import README

    publisher = open_publisher("tlc", f"file:{tmp_path}")
    assert open_publisher("sample").is_synthetic and not publisher.is_synthetic
    (tmp_path / README).touch()
    assert publisher.is_synthetic


def test_the_archive_is_closed() -> None:
    """No request is needed, which this test could not make anyway."""
    found = open_publisher("dtc").check_availability("fhv", months("2019-01", "2021-07"))
    assert found == Availability((), (), newest=month("2021-07"))


def test_known_months_of_tlc_need_no_request() -> None:
    newest = row_counts.newest_month("tlc", "fhv")
    assert newest is not None and newest > month("2025-12")
    found = open_publisher("tlc").check_availability("fhv", months("2015-01", f"{newest:%Y-%m}"))
    assert found == Availability((), (), newest=newest)

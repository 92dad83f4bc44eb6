"""Refresh: what a publisher republished or added is noticed and loaded, and nothing else is."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..servers.http import ALWAYS, Fault, HttpServer
from .conftest import Project

SINCE = ("--dataset", "green", "--since", "2020-01")
RANGE = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")

#: What the table says of a month that the publisher lacks.
GAP = "not there           a gap"


class Site(HttpServer):
    """A publisher of small green months over HTTP; each version of a month is made from a seed."""

    def publish(self, month: int, seed: int) -> None:
        path = self.folder / self.path(month)[1:]
        generator.make_file(Partition("green", dt.date(2020, month, 1)), path, rows=200 + seed, seed=seed, layout="tlc")

    @staticmethod
    def path(month: int) -> str:
        return f"/trip-data/green_tripdata_2020-{month:02}.parquet"


@dataclass
class Loaded:
    """A site, what it publishes at first, and a project that has loaded January and February from it."""

    site: Site
    published: Path
    project: Project


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loaded]:
    folder, published = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("first") / "published"
    months = [dt.date(2020, month, 1) for month in (1, 2)]
    generator.publish(published, "green", months, rows=201, seed=1, layout="tlc")
    (published / "SYNTHETIC.txt").unlink()  # stands for TLC's own files here
    shutil.copytree(published, folder, dirs_exist_ok=True)
    with Site(folder) as server:
        project = Project(
            tmp_path_factory.mktemp("loaded") / "project",
            {
                "PIPELINE_PUBLISHER_NAME": "tlc",
                "PIPELINE_PUBLISHER_URL": server.url,
                "PIPELINE_RETRY_BACKOFF": "0.05",
                "PIPELINE_RETRY_ATTEMPTS": "2",
                "PIPELINE_CLEAN_RULES": "none",
            },
        )
        project.folder.mkdir()
        done = project.luigi("RangeMonthly", *RANGE)
        assert done.returncode == 0, done.stdout
        yield Loaded(server, published, project)


@pytest.fixture
def site(loaded_once: Loaded) -> Site:
    """The site as it was when the project loaded from it."""
    site = loaded_once.site
    site.release()
    site.clear()
    shutil.rmtree(site.folder)
    shutil.copytree(loaded_once.published, site.folder)
    return site


@pytest.fixture
def web(loaded_once: Loaded, site: Site, tmp_path: Path) -> Project:
    """A copy of the project that has loaded from the site."""
    shutil.copytree(loaded_once.project.folder, tmp_path / "project")
    return Project(tmp_path / "project", dict(loaded_once.project.environment))


def found(output: str) -> dict[str, str]:
    """What the table says of each green month of 2020."""
    rows = (line.split(maxsplit=2) for line in output.splitlines() if line.startswith("green "))
    return {month: rest for _, month, rest in rows if month < "2020-07"}


def loads(project: Project) -> list[tuple[object, ...]]:
    return project.query(
        "SELECT strftime(file_month, '%Y-%m'), row_count, replaces FROM etl_loads WHERE dataset = 'green' "
        "ORDER BY loaded_at"
    )


def manifest(project: Project, month: str) -> dict[str, dict[str, object]]:
    path = project.folder / "lake" / "manifests" / "green" / f"green_tripdata_{month}.json"
    content: dict[str, dict[str, object]] = json.loads(path.read_text())
    return content


def test_nothing_changed(web: Project, site: Site) -> None:
    before = web.tables()
    asked = web.pipeline("refresh", *SINCE)
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"] == "unchanged" and found(asked.stdout)["2020-03"] == GAP
    assert site.path(1) in site.asked("HEAD") and site.path(2) in site.asked("HEAD"), "in spite of max_age"
    assert not site.asked("GET")
    assert web.tables() == before


def test_absence_is_asked_about_again_and_a_new_month_is_loaded(web: Project, site: Site) -> None:
    assert found(web.pipeline("refresh", *SINCE).stdout)["2020-03"] == GAP
    site.publish(3, seed=1)
    site.clear()
    asked = web.pipeline("refresh", *SINCE)
    log = re.search(r"^Run .*; log (\S+)$", asked.stdout, re.MULTILINE)
    assert log and " INFO Load green 2020-03" in (web.folder / log[1]).read_text(), asked.stdout
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout) | {"2020-04": ""} == {
        "2020-01": "unchanged",
        "2020-02": "unchanged",
        "2020-03": "new                 loaded",
        "2020-04": "",
        "2020-05": GAP,
        "2020-06": GAP,
    }
    assert site.asked("GET") == [site.path(3)]
    assert [month for month, *_ in loads(web)] == ["2020-01", "2020-02", "2020-03"]


def test_republished_twice_and_back_to_the_first_version(web: Project, site: Site) -> None:
    """A, then B, then A again: the same tables as at first, three loads in the ledger, B kept aside in the lake."""
    web.environment["PIPELINE_LAKE_KEEP_VERSIONS"] = "true"
    first = web.tables()
    original = (site.folder / site.path(1)[1:]).read_bytes()
    a = str(manifest(web, "2020-01")["source"]["sha256"])

    site.publish(1, seed=2)
    asked = web.pipeline("refresh", *SINCE)
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"].split() == ["republished", "loaded"]
    assert found(asked.stdout)["2020-02"] == "unchanged"
    assert site.asked("GET") == [site.path(1)]
    b = str(manifest(web, "2020-01")["source"]["sha256"])
    assert web.query("SELECT count(*) FROM green_trips WHERE file_month = '2020-01-01'") == [(202,)]

    (site.folder / site.path(1)[1:]).write_bytes(original)
    again = web.luigi("Refresh", *SINCE)
    assert again.returncode == 0, again.stdout
    assert web.tables() == first
    assert [row for row in loads(web) if row[0] == "2020-01"] == [
        ("2020-01", 201, None),
        ("2020-01", 202, a),
        ("2020-01", 201, b),
    ]
    kept = sorted(path.suffix for path in (web.folder / "lake" / "versions" / "green").iterdir())
    assert kept == [".json", ".json", ".parquet", ".parquet"], "A, which B replaced, and B, which A replaced"


def test_another_etag_over_the_same_bytes_is_remembered_and_loads_nothing(web: Project, site: Site) -> None:
    before, history = web.tables(), loads(web)
    parquet = web.folder / "lake" / "data" / "green" / "green_tripdata_2020-01.parquet"
    written = parquet.stat().st_mtime_ns
    (site.folder / site.path(1)[1:]).touch()
    asked = web.pipeline("refresh", *SINCE)
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"] == "unchanged           another ETag, same bytes as before"
    assert site.asked("GET") == [site.path(1)]
    assert (web.tables(), loads(web), parquet.stat().st_mtime_ns) == (before, history, written)
    assert not list((web.folder / "workspace" / "scratch").rglob("raw")), "what was fetched is not kept"
    site.clear()
    again = web.pipeline("refresh", *SINCE)
    assert found(again.stdout)["2020-01"] == "unchanged"
    assert not site.asked("GET"), "the new sign is known"
    assert web.luigi("RangeMonthly", *RANGE).stdout.startswith("Nothing to do")


def test_last_modified_alone_is_no_change(web: Project, site: Site) -> None:
    for month in (1, 2):
        etag = str(manifest(web, f"2020-{month:02}")["source"]["etag"])
        (site.folder / site.path(month)[1:]).touch()
        site.program(site.path(month), Fault(etag=etag, times=ALWAYS))
    asked = web.pipeline("refresh", *SINCE)
    assert found(asked.stdout)["2020-01"] == found(asked.stdout)["2020-02"] == "unchanged"
    assert not site.asked("GET")


def test_a_question_that_fails_changes_nothing_and_the_others_go_on(web: Project, site: Site) -> None:
    before = web.tables()
    site.publish(2, seed=2)
    site.program(site.path(1), Fault(status=500, times=ALWAYS))
    asked = web.pipeline("refresh", *SINCE)
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"].startswith("could not be asked  green 2020-01: http://127.0.0.1")
    assert found(asked.stdout)["2020-02"].split() == ["republished", "loaded"]
    months = "SELECT file_month, sha256 FROM etl_current WHERE file_month = '2020-01-01'"
    assert web.query(months)[0][1] == next(row[4] for row in before["ledger"] if row[1] == dt.date(2020, 1, 1))


def test_exit_code_tells_that_nothing_could_be_asked(web: Project, site: Site) -> None:
    before = web.tables()
    site.program("*", Fault(status=503, times=ALWAYS))
    for asked in (web.pipeline("refresh", *SINCE), web.luigi("Refresh", *SINCE)):
        assert asked.returncode == 35, asked.stdout
        assert asked.stdout == (
            f"error: publisher tlc cannot be reached at {site.url}: it answers 503 to everything; "
            "check the network and [publisher] url, or try again later\n"
        )
    assert web.tables() == before


def test_trouble_with_each_month_is_told_once(web: Project, site: Site) -> None:
    """The publisher answers otherwise. What all months have in common is not said for each."""
    before = web.tables()
    for month in range(1, 13):
        site.program(site.path(month), Fault(status=500, times=ALWAYS))
    asked = web.pipeline("refresh", "--dataset", "green", "--since", "2020-01")
    assert asked.returncode == 0, asked.stdout
    assert asked.stdout.count("answered 500") == 2, "a line of the log, and one of the table"
    assert found(asked.stdout)["2020-02"] == "could not be asked  as above"
    assert web.tables() == before


def test_gaps_are_told_and_no_failure(web: Project) -> None:
    for _ in range(2):
        asked = web.luigi("Refresh", *SINCE)
        assert asked.returncode == 0, asked.stdout
        assert asked.stdout.count(f"missing at tlc={web.environment['PIPELINE_PUBLISHER_URL']}: green 2020-03, ") == 1


def test_withdrawn_month_stays_loaded(web: Project, site: Site) -> None:
    before = web.tables()
    (site.folder / site.path(1)[1:]).unlink()
    asked = web.pipeline("refresh", *SINCE)
    assert asked.returncode == 0
    assert found(asked.stdout)["2020-01"] == "not there           withdrawn; what was loaded stays"
    assert web.tables() == before


def test_other_differences_are_left_to_a_range(web: Project, site: Site) -> None:
    site.publish(2, seed=2)
    asked = web.pipeline("refresh", *SINCE, "--clean-rules", "zero_passengers")
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"] == "left alone          rules changed from none"
    assert found(asked.stdout)["2020-02"].split() == ["republished", "loaded"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dataset", "purple", "--since", "2020-01"), "purple"),
        (("--dataset", "green"), "--since"),
        (("--since", "2999-01"), "later than this month"),
        (("--since", "January"), "is not a month"),
    ],
)
def test_mistakes_are_one_line(project: Project, arguments: tuple[str, ...], says: str) -> None:
    for refused in (project.pipeline("refresh", *arguments), project.luigi("Refresh", *arguments)):
        assert refused.returncode == 2, refused.stdout
        assert refused.stdout.startswith("error: ") and refused.stdout.count("\n") == 1 and says in refused.stdout


def test_touched_file_of_a_folder_is_read_once(folder_project: Project) -> None:
    assert folder_project.luigi("RangeMonthly", *RANGE).returncode == 0
    before = manifest(folder_project, "2020-01")
    (folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-01.parquet").touch()
    asked = folder_project.pipeline("refresh", *SINCE)
    assert asked.returncode == 0, asked.stdout
    assert found(asked.stdout)["2020-01"] == "unchanged"
    assert found(asked.stdout)["2020-03"] == GAP
    assert found(asked.stdout)["2020-04"].split() == ["new", "loaded"]
    after = manifest(folder_project, "2020-01")
    assert after["source"]["etag"] != before["source"]["etag"], "the new time is written down"
    assert after["source"]["sha256"] == before["source"]["sha256"]
    assert after["parquet"] == before["parquet"]

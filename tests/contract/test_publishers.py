"""Contract of every publisher: a web server, a folder and the synthetic sample pass the same tests."""

from __future__ import annotations

import datetime as dt
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.errors import MissingAtPublisher, NeverOffered, UsageError
from pipeline.partition import ZONES, Partition, add_months
from pipeline.publishers import Publisher, from_label, open_publisher
from pipeline.publishers.sample import generator
from pipeline.retry import Policy
from tests.patience import PATIENCE

from ..servers.http import HttpServer

ONCE = Policy(timeout=PATIENCE, attempts=1)
ROWS, SEED = 50, 1
TODAY = dt.date(2021, 3, 15)
FIRST, LAST = dt.date(2020, 10, 1), dt.date(2021, 1, 1)
#: Months that a folder and a web server have; the sample has every month that is over, so the next one too.
MONTHS = [add_months(FIRST, step) for step in range(4)]
GREEN = Partition("green", LAST)


@pytest.fixture(params=["tlc", "dtc"])
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each layout; no test changes what is published there."""
    found = {layout: tmp_path_factory.mktemp(layout) / "published files" for layout in ("tlc", "dtc")}
    for layout, folder in found.items():
        generator.publish(folder, "green", MONTHS, rows=ROWS, seed=SEED, layout=layout)
    return found


@pytest.fixture(params=["web", "folder", "sample"])
def publisher(request: pytest.FixtureRequest, layout: str, folders: dict[str, Path]) -> Iterator[Publisher]:
    """Publishes green ``MONTHS`` and the zone table, the same bytes wherever they come from."""
    if request.param == "sample":
        yield open_publisher("sample", f"sample:?rows={ROWS}&seed={SEED}&layout={layout}")
    elif request.param == "folder":
        yield open_publisher(layout, f"file:{folders[layout]}")
    else:
        with HttpServer(folders[layout]) as server:
            yield open_publisher(layout, server.url)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "inbox"
    folder.mkdir()
    return folder / "raw"


def test_the_label_opens_the_same_publisher(publisher: Publisher) -> None:
    assert from_label(publisher.label) == publisher
    assert publisher.label.startswith(f"{publisher.name}=")


def test_a_label_without_an_address_is_the_publishers_own() -> None:
    for name in ("tlc", "dtc", "sample"):
        publisher = open_publisher(name)
        assert (publisher.label, publisher.is_own_address, from_label(name)) == (name, True, publisher)


def test_an_address_names_the_file_as_the_layout_does(publisher: Publisher, layout: str) -> None:
    assert publisher.layout.name == layout
    for partition in (GREEN, ZONES):
        assert publisher.layout.path(partition) in publisher.address(partition)


@pytest.mark.parametrize("partition", [GREEN, ZONES], ids=str)
def test_what_is_fetched_is_whole_and_alone(publisher: Publisher, partition: Partition, target: Path) -> None:
    expected = target.with_name("expected")
    generator.make_file(partition, expected, rows=ROWS, seed=SEED, layout=publisher.layout.name)
    data = expected.read_bytes()
    expected.unlink()
    target.write_text("old")

    fetched = publisher.fetch(partition, target, ONCE)

    assert fetched.path == target and target.read_bytes() == data
    assert (fetched.sha256, fetched.length) == (hashlib.sha256(data).hexdigest(), len(data))
    assert fetched.url == publisher.address(partition)
    assert os.listdir(target.parent) == [target.name]
    assert publisher.fetch(partition, target, ONCE) == fetched, "and so is what is fetched again"


@pytest.mark.parametrize("partition", [GREEN, ZONES], ids=str)
def test_the_version_of_a_question_is_that_of_the_file_fetched(
    publisher: Publisher, partition: Partition, target: Path
) -> None:
    version = publisher.version(partition, ONCE)
    fetched = publisher.fetch(partition, target, ONCE)
    assert version.fingerprint and version == fetched.version
    assert publisher.is_unchanged(partition, fetched.version, fetched.sha256, publisher.version(partition, ONCE))


def test_versions_of_two_months_differ(publisher: Publisher) -> None:
    one, two = (publisher.version(Partition("green", month), ONCE) for month in MONTHS[:2])
    assert not publisher.is_unchanged(GREEN, one, "0" * 64, two)


def test_progress_ends_with_the_whole_file(publisher: Publisher, target: Path) -> None:
    steps: list[tuple[int, int | None]] = []
    fetched = publisher.fetch(GREEN, target, ONCE, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1:] in ([], [(fetched.length, fetched.length)])  # what is made has no steps


def test_published_months_are_available(publisher: Publisher) -> None:
    found = publisher.check_availability("green", MONTHS, ONCE, today=TODAY)
    assert (found.not_yet, found.missing) == ((), ()) and found.newest is not None and found.newest >= LAST


def test_months_that_are_not_over_are_not_published_yet(publisher: Publisher) -> None:
    future = add_months(TODAY, 1)
    found = publisher.check_availability("green", [*MONTHS, future], ONCE, today=TODAY)
    assert (found.not_yet, found.missing) == ((future,), ())


def test_months_outside_of_what_is_offered_are_refused(publisher: Publisher) -> None:
    first, last = publisher.months_offered("green")
    publisher.check_offered(Partition("green", first))
    publisher.check_offered(ZONES)
    with pytest.raises(NeverOffered, match="green"):
        publisher.check_offered(Partition("green", add_months(first, -1)))
    if last:
        with pytest.raises(NeverOffered, match="green"):
            publisher.check_offered(Partition("green", add_months(last, 1)))
    with pytest.raises(UsageError, match="comes in months"):
        publisher.check_offered(Partition("green", None))


def test_a_file_that_is_not_there_is_missing_and_leaves_nothing(publisher: Publisher, target: Path) -> None:
    if publisher.is_synthetic and publisher.label.startswith("sample"):
        pytest.skip("makes every month")
    absent = Partition("green", add_months(LAST, 1))
    with pytest.raises(MissingAtPublisher, match=r"green 2021-02.*is not there"):
        publisher.version(absent, ONCE)
    with pytest.raises(MissingAtPublisher, match=r"green 2021-02.*is not there"):
        publisher.fetch(absent, target, ONCE)
    assert os.listdir(target.parent) == []


def test_doctor_finds_nothing_wrong(publisher: Publisher) -> None:
    publisher.check_reachable(ONCE)
    publisher.check_has_files(ONCE)
    checks = list(publisher.check(["green"], ONCE))
    assert checks and all(check.subject == publisher.label for check in checks)
    assert checks[0].ok

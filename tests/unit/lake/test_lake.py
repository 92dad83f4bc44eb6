"""Publishing months: order, completeness, versions, observations."""

from __future__ import annotations

import datetime as dt
import json
import multiprocessing
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ConflictError, LakeError
from pipeline.lake import Lake, Manifest, layout
from pipeline.lake.lake import digest_of
from pipeline.partition import ZONES, Partition
from pipeline.storage import open_store
from pipeline.storage.base import Store, StoredFile

from .conftest import MakeMonth

APRIL = dt.date(2020, 4, 1)
GREEN_APRIL = Partition("green", APRIL)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(open_store(f"file:{tmp_path}/lake"))


def test_nothing_in_an_empty_lake(lake: Lake) -> None:
    assert lake.manifests("green") == {}
    assert lake.manifest(GREEN_APRIL) is None
    assert lake.observations("tlc") == {}
    assert not (lake.store.folder).exists()  # type: ignore[attr-defined]


def test_published_month_is_complete(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    lake.publish(parquet, rejects, manifest)
    assert lake.manifest(GREEN_APRIL) == manifest
    assert lake.manifests("green") == {GREEN_APRIL: manifest}
    assert set(lake.store.list()) == {
        "data/green/green_tripdata_2020-04.parquet",
        "rejects/green/green_tripdata_2020-04.parquet",
        "manifests/green/green_tripdata_2020-04.json",
    }
    with lake.file(manifest).local() as local:
        assert local.read_bytes() == b"first"
    file: StoredFile = lake.file(manifest)
    assert file.uri == f"{lake.url}/data/green/green_tripdata_2020-04.parquet"
    assert file.generation is None
    assert file.location is None


def test_zone_table_has_no_month(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month(month=None, dataset="zones")
    lake.publish(parquet, rejects, manifest)
    assert lake.manifests("zones") == {ZONES: manifest}
    assert "data/zones/taxi_zone_lookup.parquet" in lake.store.list()


def test_restated_month_keeps_its_files_and_a_replaced_one_is_not_restated(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, first = make_month(content=b"first")
    lake.publish(parquet, rejects, first)
    before = lake.store.stat(first.parquet.path)
    restated = replace(first, source=replace(first.source, etag='"another"'))
    lake.restate(restated)
    assert lake.manifest(first.partition) == restated
    assert lake.store.stat(first.parquet.path) == before
    parquet, rejects, second = make_month(content=b"second")
    lake.publish(parquet, rejects, second)
    with pytest.raises(ConflictError):
        lake.restate(restated)
    assert lake.manifest(first.partition) == second


def test_forgotten_month_keeps_its_data(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    lake.publish(parquet, rejects, manifest)
    lake.forget(GREEN_APRIL)
    assert lake.manifests("green") == {}
    assert lake.store.stat(layout.data(GREEN_APRIL))


def test_incomplete_when_the_file_is_gone_or_has_another_size(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    lake.publish(parquet, rejects, manifest)
    lake.store.write(layout.data(GREEN_APRIL), b"other size")
    assert lake.manifest(GREEN_APRIL) is None
    assert lake.manifests("green") == {}
    lake.store.delete(layout.data(GREEN_APRIL))
    assert lake.manifest(GREEN_APRIL) is None


def test_unreadable_manifest_counts_as_missing(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    lake.publish(parquet, rejects, manifest)
    lake.store.write(layout.manifest(GREEN_APRIL), b"{ half")
    lake.store.write("manifests/green/notes.json", b"{}")
    assert lake.manifests("green") == {}
    lake.publish(parquet, rejects, manifest)
    assert lake.manifests("green") == {GREEN_APRIL: manifest}


def test_local_file_must_be_the_one_of_the_manifest(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    parquet.write_bytes(b"FIRST")
    with pytest.raises(LakeError, match="not the file of its manifest"):
        lake.publish(parquet, rejects, manifest)
    assert lake.listing().data == lake.listing().manifests == {}


@pytest.mark.parametrize("which", ["parquet", "rejects"])
def test_a_month_is_not_taken_away_for_a_file_that_is_not_the_one_of_the_manifest(
    lake: Lake, make_month: MakeMonth, which: str
) -> None:
    lake.publish(*(first := make_month(content=b"first")))
    before = {path: lake.store.read(path) for path in lake.store.list()}
    parquet, rejects, manifest = make_month(content=b"other")
    (parquet if which == "parquet" else rejects).write_bytes(b"OTHER")
    with pytest.raises(LakeError, match="not the file of its manifest"):
        lake.publish(parquet, rejects, manifest)
    assert {path: lake.store.read(path) for path in lake.store.list()} == before
    assert lake.manifest(GREEN_APRIL) == first[2]


def test_a_file_that_lies_there_already_is_checked_as_well(lake: Lake, make_month: MakeMonth) -> None:
    """A damaged file and its damaged object are equal, which makes neither of them right."""
    parquet, rejects, manifest = make_month()
    lake.store.write(layout.data(GREEN_APRIL), b"x" * manifest.parquet.bytes)
    parquet.write_bytes(b"x" * manifest.parquet.bytes)
    with pytest.raises(LakeError, match="not the file of its manifest"):
        lake.publish(parquet, rejects, manifest)
    assert lake.listing().manifests == {}


class Interrupted(Exception):
    pass


@pytest.mark.parametrize("step", range(4))
def test_interrupted_replacement_is_never_complete_with_other_bytes(
    lake: Lake, make_month: MakeMonth, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Old and new Parquet have the same size, so only the order of the steps can tell."""
    first = make_month(content=b"first")
    lake.publish(*first)
    second = make_month(content=b"other")

    steps = iter(range(10))

    def interrupt(name: str) -> None:
        original = getattr(Store if name == "none" else type(lake.store), name)

        def wrapped(self: Store, *args: object, **kwargs: object) -> object:
            if next(steps) == step:
                raise Interrupted
            return original(self, *args, **kwargs)

        monkeypatch.setattr(type(lake.store), name, wrapped)

    for name in ("delete", "put", "write"):
        interrupt(name)
    with pytest.raises(Interrupted):
        lake.publish(*second)
    monkeypatch.undo()

    found = lake.manifest(GREEN_APRIL)
    if found:
        with lake.file(found).local() as local:
            assert local.read_bytes() == b"first"
        assert step == 0
    lake.publish(*second)
    assert lake.manifests("green") == {GREEN_APRIL: second[2]}
    assert lake.store.read(layout.data(GREEN_APRIL)) == b"other"


def test_same_bytes_are_not_sent_again(lake: Lake, make_month: MakeMonth) -> None:
    parquet, rejects, manifest = make_month()
    lake.publish(parquet, rejects, manifest)
    before = lake.store.stat(manifest.parquet.path)
    _, _, again = make_month(run_id="another")
    lake.publish(parquet, rejects, again)
    assert lake.store.stat(manifest.parquet.path) == before
    assert lake.manifests("green") == {GREEN_APRIL: again}


@pytest.mark.parametrize("keep", [True, False])
def test_replaced_month_may_stay_under_versions(lake: Lake, make_month: MakeMonth, keep: bool) -> None:
    first = make_month(content=b"first")
    lake.publish(*first)
    second = make_month(content=b"second")
    lake.publish(*second, keep_versions=keep)
    kept = f"versions/green/green_tripdata_2020-04.{first[2].parquet.sha256[:12]}"
    if keep:
        assert lake.store.read(f"{kept}.parquet") == b"first"
        assert Manifest.from_json(lake.store.read(f"{kept}.json")) == first[2]
    else:
        assert lake.store.list("versions") == {}
    assert lake.store.read(layout.data(GREEN_APRIL)) == b"second"


def publish_often(url: str, month: tuple[Path, Path, Manifest]) -> None:
    lake = Lake(open_store(url))
    for _ in range(10):
        lake.publish(*month)


def test_parallel_publishers_of_one_month_leave_one_of_theirs(lake: Lake, make_month: MakeMonth) -> None:
    months = [make_month(content=content) for content in (b"first", b"other", b"third")]
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=publish_often, args=(lake.url, month)) for month in months]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    found = lake.manifest(GREEN_APRIL)
    assert found
    for digest in (found.parquet, found.rejects):
        with lake.store.local(digest.path) as local:
            assert digest_of(local, digest.path) == digest


def test_observations_are_merged_by_month(lake: Lake) -> None:
    may, yellow = (Partition(name, dt.date(2020, 5, 1)) for name in ("green", "yellow"))
    lake.observe("tlc", {GREEN_APRIL: {"etag": "a"}, may: {"absent": True}})
    lake.observe("tlc", {may: None, ZONES: {"etag": "z"}})
    lake.observe("tlc", {yellow: {"etag": "y"}})
    assert lake.observations("tlc") == {ZONES: {"etag": "z"}, GREEN_APRIL: {"etag": "a"}, yellow: {"etag": "y"}}
    assert json.loads(lake.store.read("observations/tlc.json")) == {
        "green": {"2020-04": {"etag": "a"}},
        "yellow": {"2020-05": {"etag": "y"}},
        "zones": {"": {"etag": "z"}},
    }
    assert lake.observations("dtc") == {}
    lake.observe("tlc", {})


def test_unreadable_observations_are_named(lake: Lake) -> None:
    lake.store.write(layout.observations("tlc"), b"[]")
    with pytest.raises(LakeError, match=r"observations/tlc\.json is not readable"):
        lake.observations("tlc")


def observe_months(url: str, year: int) -> None:
    lake = Lake(open_store(url))
    for month in range(1, 13):
        lake.observe("tlc", {Partition("green", dt.date(year, month, 1)): {"year": year}})


def test_parallel_observers_lose_nothing(lake: Lake) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=observe_months, args=(lake.url, year)) for year in range(2020, 2024)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert len(lake.observations("tlc")) == 48
    json.loads(lake.store.read("observations/tlc.json"))

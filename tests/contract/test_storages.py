"""Contract of every store (pipeline/storage/base.py): all backends pass the same tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import ConflictError, LakeError, PipelineError, StorageUnavailable, UsageError
from pipeline.storage import Store, open_store
from tests.patience import wait_for

from .children import PROCESSES
from .storages import Storage

SIZE = 300_000


@pytest.fixture
def store(storage: Storage) -> Store:
    return storage.open()


# -- objects ---------------------------------------------------------------------------------------


def test_nothing_is_there_and_nothing_is_missed(store: Store, tmp_path: Path) -> None:
    assert store.stat("a/b") is None and store.list() == {} and store.files("a") == {} and store.folders("a") == ()
    assert not store.has_bytes("a/b", Path(__file__)) and store.sweep(0) == 0
    store.delete("a/b")
    store.delete_tree("a")
    store.move("a/b", "c")
    uses: list[Callable[[], object]] = [
        lambda: store.read("a/b"),
        lambda: store.read_small("a/b", 5),
        lambda: store.copy("a/b", "c"),
        lambda: store.local("a/b").__enter__(),
        lambda: store.open("a/b").__enter__(),
    ]
    for use in uses:
        with pytest.raises(FileNotFoundError, match=r"(lake|store)/a/b"):
            use()
    assert store.list() == {}


def test_objects_come_and_go(store: Store, storage: Storage) -> None:
    written = store.write("a/b.json", b"{}", metadata={"rows_read": "10"})
    assert written.path == "a/b.json" and written.size == 2 and written.modified > 0
    assert written.metadata == ({"rows_read": "10"} if storage.has_metadata else {})
    store.write("ab/c.json", b"not below a")
    store.write("a/d/e", b"")
    assert store.stat("a/b.json") == written == store.list("a")["a/b.json"]
    assert list(store.list()) == ["a/b.json", "a/d/e", "ab/c.json"] and list(store.list("a")) == ["a/b.json", "a/d/e"]
    assert (store.read("a/b.json"), store.read("a/d/e")) == (b"{}", b"")
    store.delete("a/b.json")
    store.delete("a/b.json")
    assert list(store.list()) == ["a/d/e", "ab/c.json"]
    store.delete_tree("a")
    assert list(store.list()) == ["ab/c.json"]
    store.delete_tree("")
    assert store.list() == {}


def test_a_copy_is_no_second_name(store: Store, storage: Storage) -> None:
    written = store.write("a", b"x", metadata={"k": "v"})
    copied = store.copy("a", "b/c")
    store.write("a", b"new")
    assert store.read("b/c") == b"x" and copied == store.stat("b/c") and copied.metadata == written.metadata


@pytest.mark.parametrize("name", ["a b/100% ü?#.txt", "x" * 200, "%41"])
def test_names_with_blanks_and_signs_come_back(store: Store, name: str) -> None:
    store.write(name, b"x")
    assert list(store.list()) == [name] and store.read(name) == b"x"
    assert open_store(store.url).read(name) == b"x"


@pytest.mark.parametrize("path", ["../x", "a/../b", "/etc/passwd", "a//b", ".store/x", "a/.hidden", "a\\b", "a/"])
def test_paths_stay_in_the_store(store: Store, path: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for use in (
        lambda: store.write(path, b"x"),
        lambda: store.put(tmp_path / "file", path),
        lambda: store.read(path),
        lambda: store.stat(path),
        lambda: store.delete(path),
        lambda: store.staging(path).__enter__(),
    ):
        with pytest.raises(UsageError, match="cannot be a path"):
            use()


def test_the_url_names_the_store_again_and_begins_the_address_of_an_object(store: Store) -> None:
    assert open_store(store.url).url == store.url
    assert store.uri("a/b") == f"{store.url}/a/b"


def test_a_generation_is_that_of_the_object_now(store: Store) -> None:
    first = store.write("a", b"x")
    assert store.generation("a") in (first.version, None)
    second = store.write("a", b"x")
    assert store.generation("a") in (second.version, None)
    assert store.location() in ("US", None)


# -- versions --------------------------------------------------------------------------------------


def test_a_version_changes_with_every_write_and_is_what_a_writer_may_demand(store: Store) -> None:
    versions = [store.write("a", b"x").version for _ in range(5)]
    assert len(set(versions)) == 5
    for stale in (versions[0], ""):
        with pytest.raises(ConflictError, match="/a was changed by another process"):
            store.write("a", b"y", if_version=stale)
    with pytest.raises(ConflictError):
        store.write("b", b"y", if_version=versions[-1])
    assert store.read("a") == b"x" and store.stat("b") is None
    store.write("a", b"z", if_version=versions[-1])
    store.write("b", b"z", if_version="")
    assert store.read("a") == store.read("b") == b"z"


def test_a_version_may_be_demanded_of_a_file_too(store: Store, tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.write_bytes(b"ours")
    theirs.write_bytes(b"theirs")
    first = store.put(theirs, "a", if_version="")
    with pytest.raises(ConflictError):
        store.put(ours, "a", if_version="")
    assert store.stat("a") == first
    assert store.put(ours, "a", if_version=first.version).version != first.version
    assert store.read("a") == b"ours"


def test_one_of_several_racing_writers_wins(store: Store) -> None:
    start, won = threading.Barrier(6), []

    def write(number: int) -> None:
        start.wait()
        try:
            store.write("a", str(number).encode() * 1000, if_version="")
            won.append(number)
        except ConflictError:
            pass

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(won) == 1 and store.read("a") == str(won[0]).encode() * 1000


# -- files -----------------------------------------------------------------------------------------


def test_a_file_is_published_and_read_as_a_whole_and_in_parts(store: Store, tmp_path: Path) -> None:
    data = os.urandom(SIZE)
    file, other = tmp_path / "file", tmp_path / "other"
    file.write_bytes(data)
    other.write_bytes(data[::-1])
    told: list[tuple[int, int]] = []
    stored = store.put(file, "a/b", metadata={"sha256": "x"}, progress=lambda *now: told.append(now))
    assert stored == store.stat("a/b") and stored.size == SIZE and told[-1] == (SIZE, SIZE)
    assert file.read_bytes() == data, "a file from elsewhere stays"
    assert store.has_bytes("a/b", file) and not store.has_bytes("a/b", other)
    with store.local("a/b") as local:
        assert local.read_bytes() == data
    with store.open("a/b") as opened:
        opened.seek(-8, os.SEEK_END)
        assert opened.read() == data[-8:]
        opened.seek(100)
        assert opened.read(10) == data[100:110]


@pytest.mark.parametrize("is_staged", [True, False])
@pytest.mark.parametrize("is_new", [True, False])
def test_a_file_that_fails_its_last_check_is_not_published(
    store: Store, tmp_path: Path, is_staged: bool, is_new: bool
) -> None:
    def refuse() -> None:
        raise LakeError("not this one")

    before = None if is_new else store.write("a", b"what was there")
    with store.staging("a") as temporary:
        file = temporary if is_staged else tmp_path / "elsewhere"
        file.write_bytes(b"new")
        with pytest.raises(LakeError, match="not this one"):
            store.put(file, "a", last_check=refuse)
    assert store.stat("a") == before
    (tmp_path / "good").write_bytes(b"good")
    checked: list[bool] = []
    store.put(tmp_path / "good", "a", last_check=lambda: checked.append(True))
    assert checked and store.read("a") == b"good"


# -- staging ---------------------------------------------------------------------------------------


def test_a_staged_file_is_listed_nowhere_and_gone_afterwards(store: Store) -> None:
    with store.staging("a/b.parquet") as first, store.staging("a/b.parquet") as second:
        assert first != second and first.name == second.name == "b.parquet" and not first.exists()
        first.write_bytes(b"x")
        assert store.list() == {} and store.sweep(0) == 0, "what is in use is not swept"
        store.put(first, "a/b.parquet")
    assert not first.exists() and store.read("a/b.parquet") == b"x"
    with pytest.raises(KeyError), store.staging("a") as temporary:
        temporary.write_bytes(b"half")
        raise KeyError
    assert not temporary.parent.exists()


def test_keyed_staging_is_kept_after_a_failure_never_shared_and_swept_some_day(store: Store) -> None:
    with pytest.raises(KeyError), store.staging("a", key="etag") as first:
        first.with_suffix(".part").write_bytes(b"half")
        with pytest.raises(StorageUnavailable, match="is still writing"), store.staging("a", key="etag"):
            pass
        raise KeyError
    with store.staging("a", key="etag") as second:
        assert second == first and second.with_suffix(".part").read_bytes() == b"half"
        second.write_bytes(b"whole")
        store.put(second, "a")
    assert not second.parent.exists()
    with pytest.raises(KeyError), store.staging("a", key="etag") as third:
        third.write_bytes(b"half")
        raise KeyError
    assert store.sweep(3600) == 0 and third.exists(), "too young"
    assert store.sweep(0) >= 1 and not third.exists()


def test_a_store_that_is_emptied_keeps_what_somebody_is_about_to_put_there(store: Store) -> None:
    store.write("a/b", b"x")
    with store.staging("c") as file:
        file.write_bytes(b"new")
        store.delete_tree("")
        store.put(file, "c")
    assert list(store.list()) == ["c"] and store.read("c") == b"new"


# -- locks -----------------------------------------------------------------------------------------


def test_a_lock_keeps_others_out_where_there_are_locks(store: Store, storage: Storage) -> None:
    other = storage.open()
    with store.lock("green/2020-04"):
        with other.lock("green/2020-05"):
            pass
        if store.has_locks:
            with (
                pytest.raises(StorageUnavailable, match=r"still working on \S+green/2020-04 after 0.05 s"),
                other.lock("green/2020-04", timeout=0.05),
            ):
                pass
            with pytest.raises(StorageUnavailable, match="on April after"), other.lock("green/2020-04", 0.05, "April"):
                pass
        else:
            with other.lock("green/2020-04", timeout=0.05):
                pass
    with other.lock("green/2020-04"):
        assert store.list() == {}


# -- what strangers put there ----------------------------------------------------------------------


def test_what_strangers_put_into_a_folder_is_told_and_moved_as_it_is(store: Store, storage: Storage) -> None:
    for name in ("open/b", "open/a", "open/.hidden", "open/a\\b", "sub/c/d", "openness"):
        storage.plant(f"q/{name}", b"12345")
    assert list(store.files("q/open")) == ["a", "a\\b", "b"] and store.folders("q") == ("open", "sub")
    assert store.read_small("q/open/b", 5) == b"12345"
    with pytest.raises(ValueError, match="more than 4 bytes"):
        store.read_small("q/open/b", 4)
    for name in ("a\\b", ".hidden", "gone"):
        store.move(f"q/open/{name}", "q/aside/it")
    assert set(store.list("q")) == {"q/open/a", "q/open/b", "q/sub/c/d", "q/openness", "q/aside/it"}
    assert store.folders("q") == ("aside", "open", "sub") and store.read("q/aside/it") == b"12345"


# -- killed processes ------------------------------------------------------------------------------


def write_for_ever(url: str, environment: dict[str, str]) -> None:
    os.environ.update(environment)
    store, number = open_store(url), 0
    while True:
        number += 1
        store.write("a/file", bytes([number % 256]) * SIZE)


@pytest.mark.parametrize("published", [0, 1, 2])
def test_a_killed_writer_leaves_a_whole_object_or_none(store: Store, storage: Storage, published: int) -> None:
    process = PROCESSES.Process(target=write_for_ever, args=(storage.url, storage.environment))
    process.start()
    seen: set[str] = set()

    def has_published() -> bool:
        seen.update(one.version for one in store.list().values())
        return len(seen) >= published

    wait_for(has_published)
    process.kill()
    process.join()
    objects = store.list()
    assert set(objects) <= {"a/file"}
    if objects:
        data = store.read("a/file")
        assert len(data) == SIZE and len(set(data)) == 1
    store.write("a/file", b"next")
    assert store.read("a/file") == b"next"
    store.sweep(0)
    assert store.sweep(0) == 0


# -- doctor and errors -----------------------------------------------------------------------------


def test_doctor_leaves_nothing(store: Store, storage: Storage) -> None:
    store.ensure()
    for create in (False, True, False):
        checks = list(store.check(create))
        assert checks and all(check.ok for check in checks), checks
    assert store.list() == {}


def test_a_store_that_cannot_be_used_is_one_line_with_its_url_and_the_remedy(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    storage.url = storage.unusable()
    store = storage.open()
    for use in (lambda: store.write("x", b""), lambda: store.put(tmp_path / "file", "x")):
        with pytest.raises(PipelineError) as caught:
            use()
        text = str(caught.value)
        assert isinstance(caught.value, LakeError) and text.startswith(store.url) and "; " in text and "\n" not in text
    failed = [check for check in store.check() if not check.ok]
    assert failed and failed[0].remedy

"""What is a folder's own: URLs, names, permissions, flushing, symbolic links, and what the disk refuses.

The promises of every store are in tests/contract.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConflictError, LakeError, StorageUnavailable, UsageError
from pipeline.storage import Store, StoreOptions, local, open_store
from tests.patience import PATIENCE


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(f"file:{tmp_path}/store", StoreOptions(lock_timeout=0.2))


# -- URLs and paths --------------------------------------------------------------------------------------------------


def test_urls_name_absolute_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for url in ("file:my%20lake", f"file:{tmp_path}/my%20lake", f"file://{tmp_path}/my%20lake/", "file:./x/../my lake"):
        assert open_store(url).url == f"file:{tmp_path}/my%20lake"
    assert open_store(f"file:{tmp_path}/100%25").uri("a b") == f"file:{tmp_path}/100%25/a%20b"
    again = open_store(open_store("file:100%25").url)
    assert again.url == f"file:{tmp_path}/100%25"


@pytest.mark.parametrize(
    "url",
    [
        "file:",
        "file:/",
        "file:///x/..",
        "file://host/x",
        "file://host",
        "lake",
        "",
        "s3://key:secret@bucket/x?sig=secret",
    ],
)
def test_other_urls_are_refused_without_secrets(url: str) -> None:
    with pytest.raises(UsageError, match="write file:") as caught:
        open_store(url)
    assert "secret" not in str(caught.value)


NAMES = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\"), min_size=1, max_size=20
).filter(lambda name: not name.startswith("."))


@settings(max_examples=30)
@given(folder=NAMES, name=NAMES, data=st.binary(max_size=100))
def test_any_name_comes_back(tmp_path: Path, folder: str, name: str, data: bytes) -> None:
    store = open_store(f"file:{quote(str(tmp_path / folder))}")
    store.write(name, data)
    assert store.read(name) == data
    assert open_store(store.url).list()[name].size == len(data)
    shutil.rmtree(tmp_path / folder)


# -- files and versions -------------------------------------------------------------------------------------------


def test_published_file_is_moved_from_staging_and_copied_from_elsewhere(store: Store, tmp_path: Path) -> None:
    with store.staging("a/b.parquet") as temporary:
        temporary.write_bytes(b"x")
        inode = temporary.stat().st_ino
        assert temporary.name == "b.parquet" and store.list() == {}
        store.put(temporary, "a/b.parquet")
        assert not temporary.exists()
    with store.local("a/b.parquet") as there:
        assert there.stat().st_ino == inode
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"y")
    seen: list[tuple[int, int]] = []
    store.put(elsewhere, "c", progress=lambda done, total: seen.append((done, total)))
    assert elsewhere.read_bytes() == store.read("c") == b"y"
    assert seen[-1] == (1, 1)


@pytest.mark.parametrize("survives", [True, False])
def test_only_what_shall_survive_a_power_cut_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survives: bool
) -> None:
    store = open_store(f"file:{tmp_path}", StoreOptions(survives_power_cut=survives))
    store.write("a/first", b"makes the folder")
    synced: list[int] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        synced.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    store.write("a/b", b"x")
    assert store.read("a/b") == b"x"
    the_file_then_its_name = [os.stat(tmp_path / "a" / "b").st_ino, os.stat(tmp_path / "a").st_ino]
    assert synced == (the_file_then_its_name if survives else [])


def test_permissions_follow_the_umask(store: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"x")
    secret.chmod(0o600)
    before = os.umask(0o027)
    try:
        store.write("a/b", b"x")
        store.put(secret, "a/c")
    finally:
        os.umask(before)
    folder = store.folder  # type: ignore[attr-defined]
    assert [(folder / path).stat().st_mode & 0o777 for path in ("a/b", "a/c", "a")] == [0o640, 0o640, 0o750]


def test_versions_tell_writes_apart_however_slow_the_clock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_600_000_000_000_000_000)
    assert len({store.write("a", b"x").version for _ in range(20)}) == 20


def test_one_of_two_racing_writers_wins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    won: list[int] = []
    stat = store.stat

    def slow_stat(path: str) -> object:
        try:
            return stat(path)
        finally:
            time.sleep(0.01)  # noqa: TID251 (between looking and renaming, where the other one would come in)

    monkeypatch.setattr(store, "stat", slow_stat)

    def write(number: int) -> None:
        try:
            store.write("a", str(number).encode() * 1000, if_version="")
            won.append(number)
        except ConflictError:
            pass

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    assert store.read("a") == str(won[0]).encode() * 1000


# -- killed processes ------------------------------------------------------------------------------------------------


def stage_and_wait(url: str, ready: object) -> None:
    with open_store(url).staging("a") as temporary:
        temporary.write_bytes(b"half")
        ready.set()  # type: ignore[attr-defined]
        signal.pause()


def test_sweep_spares_the_living_and_the_young(store: Store) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=stage_and_wait, args=(store.url, ready))
    process.start()
    assert ready.wait(PATIENCE)
    with store.staging("a"):
        assert store.sweep(0) == 0, "both are in use"
    process.kill()
    process.join()
    assert store.sweep(3600) == 0, "too young"
    assert store.sweep(0) == 1
    assert store.sweep(0) == 0


# -- symbolic links --------------------------------------------------------------------------------------------------


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A folder outside of the store, which has to stay as it is."""
    (tmp_path / "victim" / "docs").mkdir(parents=True)
    (tmp_path / "victim" / "docs" / "thesis.txt").write_text("precious")
    (tmp_path / "victim" / "raw").write_text("precious")
    return tmp_path / "victim"


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


BEFORE = {"docs/thesis.txt": "precious", "raw": "precious"}


@pytest.fixture
def strict(store: Store) -> Store:
    """The store as scratch has it."""
    return open_store(store.url, StoreOptions(lock_timeout=0.2, follows_links=False))


@pytest.mark.parametrize("place", ["a/b", "a/b/c", "a/b/c/.hidden", "a"])
@pytest.mark.parametrize("target", ["victim", "victim/raw", "nowhere"])
def test_a_link_in_a_tree_is_removed_and_not_what_it_leads_to(
    store: Store, victim: Path, place: str, target: str
) -> None:
    link = store.folder / place  # type: ignore[attr-defined]
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(victim.parent / target)
    store.delete_tree("a")
    assert content(victim) == BEFORE
    assert not os.path.lexists(store.folder / "a")  # type: ignore[attr-defined]


def test_folders_that_become_empty_go_and_are_made_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("a/b/c/x", "a/d/x"):
        store.write(path, b"")
    store.delete_tree("a/b/c")
    assert os.listdir(store.folder / "a") == ["d"]  # type: ignore[attr-defined]
    store.delete_tree("a/d")
    assert os.listdir(store.folder / "a") == []  # type: ignore[attr-defined]
    replace = os.replace

    def race(source: object, target: object, **folders: object) -> None:
        monkeypatch.setattr(os, "replace", replace)
        (store.folder / "e" / "f").rmdir()  # type: ignore[attr-defined]
        replace(source, target, **folders)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "replace", race)
    store.write("e/f/x", b"there")
    assert store.read("e/f/x") == b"there"


def test_a_folder_that_becomes_a_link_meanwhile_is_not_followed(
    store: Store, victim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write("a/b/thesis.txt", b"ours")
    inner, scandir = store.folder / "a" / "b", os.scandir  # type: ignore[attr-defined]

    def swap_after(folder: int | Path) -> object:
        entries = scandir(folder)
        if (
            isinstance(folder, int)
            and not inner.is_symlink()
            and os.path.samestat(os.fstat(folder), inner.parent.stat())
        ):
            inner.rename(inner.with_name("moved"))
            inner.symlink_to(victim / "docs")
        return entries

    monkeypatch.setattr(local.os, "scandir", swap_after)
    store.delete_tree("a")
    assert content(victim) == BEFORE and not inner.is_symlink()


def test_nothing_is_deleted_behind_a_link(store: Store, victim: Path) -> None:
    store.write("data/x", b"")
    (store.folder / "data" / "green").symlink_to(victim)  # type: ignore[attr-defined]
    for call in (store.delete, store.delete_tree):
        for path in ("data/green/raw", "data/green/docs/thesis.txt", "data/green/docs"):
            with pytest.raises(LakeError, match="data/green is a symbolic link, and nothing is deleted"):
                call(path)
    store.delete_tree("")
    assert content(victim) == BEFORE and store.list() == {}


def test_a_lake_is_read_and_written_through_a_link_that_its_owner_made(store: Store, victim: Path) -> None:
    store.write("data/x", b"")
    (store.folder / "data" / "green").symlink_to(victim)  # type: ignore[attr-defined]
    assert store.read("data/green/raw") == b"precious"
    assert set(store.list("data")) == {"data/x", "data/green/raw", "data/green/docs/thesis.txt"}
    store.write("data/green/new", b"month")
    assert (victim / "new").read_text() == "month"


def test_scratch_is_not_written_through_a_link(strict: Store, victim: Path) -> None:
    strict.write("scratch/x", b"")
    (strict.folder / "scratch" / "green").symlink_to(victim)  # type: ignore[attr-defined]
    for path in ("scratch/green/raw", "scratch/green/new/raw"):
        with pytest.raises(LakeError, match="scratch/green is a symbolic link"):
            strict.write(path, b"replaced")
    assert content(victim) == BEFORE
    assert list(strict.list("scratch")) == ["scratch/green", "scratch/x"], "the link itself, and not what is behind it"
    assert strict.list("scratch/green") == strict.list("scratch/green/docs") == {}


def test_a_link_in_place_of_a_file_is_replaced(store: Store, victim: Path) -> None:
    store.write("a/x", b"")
    (store.folder / "a" / "raw").symlink_to(victim / "raw")  # type: ignore[attr-defined]
    store.write("a/raw", b"new")
    assert store.read("a/raw") == b"new" and content(victim) == BEFORE


def test_the_store_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "lake").symlink_to(tmp_path / "disk")
    linked = open_store(f"file:{tmp_path}/lake", StoreOptions(follows_links=False))
    linked.write("a/b", b"x")
    linked.write("c/d", b"x")
    linked.delete("a/b")
    linked.delete_tree("c")
    with linked.lock("a"), linked.staging("a", key="a"):
        pass
    assert linked.list() == {} and linked.sweep(0) == 0 and (tmp_path / "lake").is_symlink()


def test_links_that_lead_in_circles_end(store: Store) -> None:
    store.write("a/b/c", b"x")
    for name in ("one", "two", "three"):
        (store.folder / "a" / name).symlink_to(store.folder / "a")  # type: ignore[attr-defined]
    assert "a/b/c" in store.list()


@pytest.mark.parametrize(
    "hidden, uses",
    [(".store", ["lock", "staging", "sweep"]), (".store/staging", ["staging", "sweep"]), (".store/locks", ["lock"])],
)
def test_the_folders_of_temporary_files_are_no_links(store: Store, victim: Path, hidden: str, uses: list[str]) -> None:
    link = store.folder / hidden  # type: ignore[attr-defined]
    link.parent.mkdir(parents=True)
    entry = victim / ("staging" if hidden == ".store" else "") / ("0" * 32)
    entry.mkdir(parents=True)
    before = sorted(victim.rglob("*"))
    link.symlink_to(victim)
    for use in uses:
        with pytest.raises(LakeError, match=f"{hidden} is a symbolic link"), contextlib.ExitStack() as stack:
            if use == "sweep":
                store.sweep(0)
            else:
                stack.enter_context(getattr(store, use)("a"))
        assert sorted(victim.rglob("*")) == before and content(victim) == BEFORE


def test_sweep_touches_nothing_but_entries(store: Store, victim: Path) -> None:
    with store.staging("a"):
        pass
    staging = store.folder / ".store" / "staging"  # type: ignore[attr-defined]
    (staging / ("0" * 32)).symlink_to(victim / "docs")
    (staging / f"k-{'0' * 32}").symlink_to(victim)
    (staging / "file").write_text("")
    (staging / "folder").mkdir()
    assert store.sweep(0) == 0
    assert content(victim) == BEFORE and len(list(staging.iterdir())) == 4


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_stands_in_place_of_the_lock_of_an_entry_is_not_followed(store: Store, victim: Path, kind: str) -> None:
    with store.staging("a", key="a") as path:
        entry = path.parent
    entry.mkdir()
    lock = entry / "lock"
    if kind == "link":
        lock.symlink_to(victim / "new")
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(LakeError, match="remove or rename what is in the way"), store.staging("a", key="a"):
        pass
    old = entry.with_name("0" * 32)
    old.mkdir()
    (old / "file").symlink_to(victim / "nowhere")
    assert store.sweep(0) == 1 and not old.exists() and entry.exists(), "one does not keep the others from being swept"
    assert content(victim) == BEFORE


def test_a_resumed_file_is_not_written_behind_a_link(store: Store, victim: Path) -> None:
    with store.staging("a", key="a") as path:
        entry = path.parent
    entry.symlink_to(victim)
    with pytest.raises(LakeError, match="is a symbolic link"), store.staging("a", key="a"):
        pass
    assert content(victim) == BEFORE


def test_what_strangers_put_into_a_folder_is_told_and_moved_as_it_is(store: Store, victim: Path) -> None:
    folder = store.folder / "q" / "open"  # type: ignore[attr-defined]
    store.write("q/open/b", b"12345")
    for name in (".hidden", "a\\b"):
        (folder / name).touch()
    (folder / "sub").mkdir()
    (folder / "link").symlink_to(victim / "raw")
    assert list(store.files("q/open")) == ["a\\b", "b", "link", "sub"] and store.files("q/none") == {}
    assert store.read_small("q/open/b", 5) == b"12345"
    for path, limit, says in (
        ("b", 4, "more than 4 bytes"),
        ("link", 99, "it is a link"),
        ("sub", 99, "it is a folder"),
    ):
        with pytest.raises(ValueError, match=says):
            store.read_small(f"q/open/{path}", limit)
    for name in ("a\\b", "link", "gone"):
        store.move(f"q/open/{name}", "q/aside/it")
    assert not (folder / "a\\b").exists() and os.readlink(folder.parent / "aside" / "it") == str(victim / "raw")
    (folder.parent / "empty").mkdir()
    (folder.parent / "planted").symlink_to(victim)
    assert store.folders("q") == ("aside", "open")
    for call in (
        lambda: store.files("q/planted"),
        lambda: store.read_small("q/planted/raw", 99),
        lambda: store.move("q/planted/raw", "q/aside/raw"),
        lambda: store.move("q/open/b", "q/planted/b"),
    ):
        with pytest.raises(LakeError, match="planted is a symbolic link"):
            call()
    assert content(victim) == BEFORE


def test_a_tree_too_deep_to_be_ours_is_left_to_its_owner(store: Store) -> None:
    store.write("/".join("a" * 60), b"x")
    with pytest.raises(LakeError, match="remove it yourself"):
        store.delete_tree("a")


# -- what the disk refuses -------------------------------------------------------------------------------------------


def test_full_disk_is_one_line_and_leaves_nothing(store: Store, tmp_path: Path) -> None:
    """A limit on the size of files fails in the middle of a write, as a full disk does."""
    store.write("a", b"old")
    big = tmp_path / "big"
    big.write_bytes(bytes(200_000))
    program = f"""
import resource
from pathlib import Path
from pipeline.errors import LakeError
from pipeline.storage import open_store
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
store = open_store({store.url!r})
for call in (lambda: store.write("a", bytes(200_000)), lambda: store.put(Path({str(big)!r}), "a")):
    try:
        call()
    except LakeError as error:
        print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.count("store/a cannot be written: no room left") == 2, ran
    assert store.read("a") == b"old"
    assert store.sweep(0) == 0


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, LakeError, "no room left"),
        (errno.EACCES, LakeError, "give your user the right"),
        (errno.EROFS, LakeError, "give your user the right"),
        (errno.EXDEV, LakeError, "another filesystem"),
        (errno.EIO, StorageUnavailable, "try again"),
    ],
)
def test_what_the_disk_says_becomes_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception], says: str
) -> None:
    def refuse(source: object, target: object, **folders: object) -> None:
        raise OSError(code, os.strerror(code), str(source), None, str(target))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(kind, match=says) as caught:
        store.write("a/b", b"x")
    assert "store/a/b" in str(caught.value) and "\n" not in str(caught.value)
    assert store.list() == {}


@pytest.mark.parametrize("link", ["data", "data/green", "data/green/a"])
def test_a_link_to_what_is_not_there_is_named_with_its_target(link: str, tmp_path: Path) -> None:
    root = tmp_path / "lake"
    (root / link).parent.mkdir(parents=True)
    (root / link).symlink_to(tmp_path / "disk")
    lake = open_store(f"file:{root}", StoreOptions(follows_links=True))
    says = rf"{link} is a link to .*/disk, which is not there; mount the disk that has it, or remove the link"
    with pytest.raises(LakeError, match=says):
        lake.write("data/green/a/b", b"x")
    assert not (tmp_path / "disk").exists() and (root / link).is_symlink()


def test_a_file_in_the_way(store: Store, tmp_path: Path) -> None:
    store.write("a", b"x")
    with pytest.raises(LakeError, match="remove or rename what is in the way"):
        store.write("a/b", b"x")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(LakeError, match="remove or rename what is in the way"):
        open_store(f"file:{tmp_path}/file").write("b", b"x")
    with pytest.raises(LakeError, match="nowhere does not exist"):
        store.put(tmp_path / "nowhere", "b")
    store.delete("a/b")
    assert store.read("a") == b"x"


def test_doctor(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [check.ok for check in store.check()] == [True]
    assert not store.folder.exists(), "looking makes nothing"  # type: ignore[attr-defined]
    assert all(check.ok for check in store.check(create=True))
    assert store.folder.exists()  # type: ignore[attr-defined]
    monkeypatch.setattr(local, "ROOM", 1 << 62)
    (room,) = [check for check in store.check() if not check.ok]
    assert "GiB free" in room.detail and "make room" in room.remedy


def test_lock_is_not_made_behind_a_link(store: Store, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    hidden = tmp_path / "store" / ".store"
    for folder in (hidden, hidden / "locks"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.symlink_to(tmp_path / "home")
        with pytest.raises(LakeError, match="is a symbolic link"), store.lock("a"):
            pass
        folder.unlink()
    with store.lock("a"):
        (lock,) = (hidden / "locks").iterdir()
    lock.unlink(missing_ok=True)
    lock.symlink_to(tmp_path / "home" / "new")
    with pytest.raises(LakeError, match="remove or rename what is in the way"), store.lock("a"):
        pass
    assert list((tmp_path / "home").iterdir()) == []


def test_pipe_in_place_of_a_lock_is_refused_and_not_waited_for(store: Store, tmp_path: Path) -> None:
    (tmp_path / "store" / ".store").mkdir(parents=True)
    os.mkfifo(tmp_path / "store" / ".store" / "publishing")
    with pytest.raises(LakeError, match="remove or rename what is in the way"):
        store.write("a", b"")


def test_pipe_in_place_of_an_object_is_refused_and_not_waited_for(store: Store, tmp_path: Path) -> None:
    store.write("a/x", b"x")
    os.mkfifo(tmp_path / "store" / "a" / "pipe")
    with pytest.raises(LakeError, match="remove or rename what is in the way"):
        store.read("a/pipe")
    (tmp_path / "store" / "a" / "link").symlink_to(tmp_path / "store" / "a" / "x")
    assert store.read("a/link") == b"x", "a user's own"

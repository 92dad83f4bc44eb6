"""Scratch after any sequence of events: the table is that of an undisturbed run, and no useless scratch stays.

Stages, kills, ``forget``, republications, other code, other rules and another limit follow one another on the same
folders. After each step the lake has either what it had before, or what an undisturbed run would have put there; after
a last run that nobody disturbs the table has that too, and the workspace is empty.
"""

from __future__ import annotations

import csv
import datetime as dt
import gzip
import io
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import duckdb
import luigi
import pyarrow.compute as pc
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from luigi.task_register import Register

from pipeline import code_version, datasets
from pipeline import settings as our_settings
from pipeline.cleaning import cleaner
from pipeline.commands import forget
from pipeline.errors import LakeError, StorageUnavailable, TooManyUnreadable
from pipeline.job import Job
from pipeline.partition import Partition
from pipeline.planning.scratch import RAW, Scratch, lock_of, months_of
from pipeline.planning.state import CachedState
from pipeline.reporting import journal
from pipeline.runner import sweep
from pipeline.storage.local import LocalStore
from pipeline.tasks.base import Stage
from pipeline.tasks.clean import Clean
from pipeline.tasks.download import Download
from pipeline.tasks.load import Load
from pipeline.tasks.upload import Upload
from pipeline.tasks.wrappers import MonthlyTrips
from pipeline.tasks.write_parquet import WriteParquet

from ..servers.gcs import gcs_bucket, gcs_server

__all__ = ["gcs_bucket", "gcs_server"]

MONTH = dt.date(2020, 4, 1)
RULES = ("none", "zero_passengers,pickup_outside_month")
CODES = ("0" * 12, "1" * 12)
LIMITS = (1.0, 50.0)
STAGES: tuple[type[Stage], ...] = (Download, Clean, WriteParquet, Upload, Load)
#: More store operations than a month takes: the last kills come after all of them.
OPERATIONS = 40


class Killed(BaseException):
    """Nothing that happens after it leaves a trace in a store."""


def source(number: int) -> bytes:
    """A month as it is published for the first, second or third time; the third has rows that cannot be read."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(datasets.get("green").required)
    for row in range(20):
        day = row % 28 + 1
        passengers = "x" if number == 2 and row % 10 == 0 else str(row % 3)
        times = [f"2020-04-{day:02} 00:00:00", f"2020-04-{day:02} 00:10:00"]
        rows.writerow(
            ["2", *times, passengers, "1.5", "1", str(8.5 + number), "9"][: len(datasets.get("green").required)]
        )
    return gzip.compress(text.getvalue().encode(), mtime=0)


@dataclass(frozen=True)
class Situation:
    """What the result depends on, by number; the limit decides only whether there is a result."""

    source: int = 0
    rules: int = 0
    code: int = 0
    limit: int = 1

    @property
    def fails(self) -> bool:
        return self.source == 2 and self.limit == 0


@dataclass
class World:
    """Folders of a publisher, a workspace, a lake and a warehouse, and what there has to be in them."""

    folder: Path
    now: Situation = field(default_factory=Situation)
    #: How the month came about that is in the lake.
    made: Situation | None = None

    def task(self, kind: Callable[..., Any] = MonthlyTrips) -> Any:
        Register.clear_instance_cache()
        warehouse = {"warehouse": f"duckdb:///{self.folder}/w.duckdb"} if kind in (MonthlyTrips, Load) else {}
        return kind(
            dataset="green",
            month=MONTH,
            publisher=f"dtc=file:{self.folder.parent}/published",
            rules=RULES[self.now.rules],
            lake=f"file:{self.folder}/lake",
            workspace=f"file:{self.folder}/workspace",
            **warehouse,
        )

    def set(self, **changes: int) -> None:
        self.now = replace(self.now, **changes)
        place = self.folder.parent / "published" / "green" / "green_tripdata_2020-04.csv.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        if "source" in changes:
            before = place.stat().st_mtime_ns if place.exists() else 0
            place.write_bytes(source(self.now.source))
            os.utime(place, ns=(before + 10**9, before + 10**9))
        os.environ[code_version.CODE] = CODES[self.now.code]
        limit(LIMITS[self.now.limit])

    def run(self, kind: type[luigi.Task], dies_after: int | None = None) -> bool:
        """As luigi's command does it. Returns whether it came to its end."""
        task, is_done = self.task(kind), False
        try:
            with killed_after(dies_after):
                do(task)
            is_done = True
        except (Killed, TooManyUnreadable) as error:
            assert isinstance(error, Killed) or self.now.fails
        if dies_after is None:
            sweep.sweep({task.job}, has_worked=True)
        manifest = task.job.lake.manifest(Partition("green", MONTH))
        if manifest is not None:
            found = manifest.parquet.sha256, manifest.rejects.sha256
            if self.made is None or undisturbed(self.folder.parent, self.made)[:2] != found:
                self.made = self.now
            assert undisturbed(self.folder.parent, self.made)[:2] == found
        return is_done

    def forget(self) -> None:
        forgetting = forget._Forgetting.__new__(forget._Forgetting)
        forgetting._job, forgetting._only_warehouse, forgetting._warehouses = self.task().job, False, []
        forgetting.forget(Partition("green", MONTH))
        assert not self.scratch()

    def scratch(self) -> list[str]:
        folder = self.folder / "workspace" / "scratch"
        return [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]

    def table(self) -> str:
        with duckdb.connect(str(self.folder / "w.duckdb"), read_only=True) as connection:
            return str(
                connection.sql("SELECT count(*), bit_xor(hash(t)), sum(fare_amount) FROM green_trips t").fetchall()
            )


def limit(percent: float) -> None:
    os.environ["PIPELINE_CLEAN_MAX_UNREADABLE"] = str(percent)
    our_settings.apply_environment()
    Register.clear_instance_cache()


def do(task: Any) -> None:
    """Run what a task needs, and then the task, as Luigi does: what is complete is left alone."""
    if not task.complete():
        for needed in luigi.task.flatten(task.requires()):
            do(needed)
        task.run()


@contextmanager
def killed_after(operations: int | None) -> Iterator[None]:
    """Raise ``Killed`` instead of the operation of a store that comes then, and instead of all that follow it."""
    left = operations

    def counted(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            if left is not None:
                if not left:
                    raise Killed
                left -= 1
            return method(*args, **kwargs)

        return call

    with pytest.MonkeyPatch.context() as patch:
        for name in ("_publish", "_remove", "delete"):
            patch.setattr(LocalStore, name, counted(getattr(LocalStore, name)))
        patch.setattr(Load, "work", counted(Load.work))
        yield
        if left == 0 and operations is not None:
            raise Killed


RESULTS: dict[Situation, tuple[str, str, str]] = {}


def undisturbed(folder: Path, wanted: Situation) -> tuple[str, str, str]:
    """Digests of the Parquet file and of the rejects, and the table, that one run in empty folders makes."""
    wanted = replace(wanted, limit=1)
    if wanted not in RESULTS:
        shutil.rmtree(folder / "quiet", ignore_errors=True)
        code, published, before = (
            os.environ[code_version.CODE],
            folder / "published",
            our_settings.CleanSettings().max_unreadable,
        )
        shutil.copytree(published, folder / "kept", dirs_exist_ok=True)
        quiet = World(folder / "quiet")
        quiet.set(**vars(wanted))
        do(quiet.task())
        manifest = quiet.task().job.lake.manifest(Partition("green", MONTH))
        assert manifest is not None
        RESULTS[wanted] = manifest.parquet.sha256, manifest.rejects.sha256, quiet.table()
        shutil.copytree(folder / "kept", published, dirs_exist_ok=True)
        os.environ[code_version.CODE] = code
        limit(before)
    return RESULTS[wanted]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """The folder of all worlds of a test. The code that cleans is the one that the environment names."""
    honest = cleaner.clean

    def clean(*args: Any, **kwargs: Any) -> Iterator[Any]:
        dearer = float(100 * CODES.index(os.environ[code_version.CODE]))
        for batch in honest(*args, **kwargs):
            index = batch.rows.schema.get_field_index("fare_amount")
            fares = pc.add(batch.rows.column(index), dearer)
            yield replace(batch, rows=batch.rows.set_column(index, batch.rows.schema.field(index), fares))

    with our_settings.restored(), pytest.MonkeyPatch.context() as patch:
        patch.setenv(code_version.CODE, CODES[0])
        patch.setenv("PIPELINE_RETRY_ATTEMPTS", "1")
        patch.setenv("PIPELINE_WORKSPACE_URL", f"file:{tmp_path}/journals")
        patch.setattr(cleaner, "clean", clean)
        our_settings.apply_environment()
        RESULTS.clear()
        yield tmp_path
    Register.clear_instance_cache()


STEPS = st.one_of(
    st.tuples(st.sampled_from([*STAGES, MonthlyTrips]), st.none() | st.integers(0, OPERATIONS)),
    st.tuples(st.sampled_from(["source"]), st.integers(0, 2)),
    st.tuples(st.sampled_from(["rules", "code", "limit"]), st.integers(0, 1)),
    st.tuples(st.just("forget"), st.none()),
)


@settings(max_examples=8, derandomize=True)
@example([(Load, None), ("code", 1), ("forget", None)])
@example([(Clean, None), ("code", 1)])
@example([(Clean, None), ("rules", 1)])
@example([(MonthlyTrips, None), ("rules", 1), (Clean, None), ("rules", 0)])
@example([("source", 2), (WriteParquet, None), ("limit", 0)])
@example([(WriteParquet, None), ("source", 1), (Download, None)])
@example([(MonthlyTrips, None), ("source", 1), (Download, None), ("source", 0)])
@given(st.lists(STEPS, max_size=8))
def test_any_order_of_events_ends_like_an_undisturbed_run(folder: Path, steps: list[tuple[Any, Any]]) -> None:
    shutil.rmtree(folder / "world", ignore_errors=True)
    world = World(folder / "world")
    world.set(source=0, rules=0, code=0, limit=1)
    for what, value in steps:
        if what == "forget":
            world.forget()
        elif isinstance(what, str):
            world.set(**{what: value})
        else:
            world.run(what, value)
    if world.run(MonthlyTrips):
        assert world.made is not None
        wanted = replace(world.now, code=world.made.code)  # what is in the lake is not made anew for other code
        assert replace(world.made, limit=world.now.limit) == wanted
        assert world.table() == undisturbed(folder, wanted)[2]
    else:
        assert world.now.fails
    assert not world.scratch()


@pytest.mark.parametrize("is_refused", [False, True])
def test_scratch_goes_as_soon_as_the_month_is_in_the_lake(
    folder: Path, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing but Upload or Load was asked for. That it cannot go fails no month."""

    def refuse(scratch: Scratch) -> None:
        raise LakeError("no right")

    world = World(folder / "world")
    world.set(source=0)
    if is_refused:
        monkeypatch.setattr(Scratch, "discard", refuse)
    do(world.task(Upload))
    assert world.task(Upload).complete() and bool(world.scratch()) == is_refused


def test_a_file_that_was_cleaned_under_a_wider_limit_is_refused_by_a_narrower_one(folder: Path) -> None:
    world = World(folder / "world")
    world.set(source=2, limit=1)
    do(world.task(WriteParquet))
    world.set(limit=0)
    with pytest.raises(TooManyUnreadable):
        do(world.task(Upload))
    assert world.task().job.lake.manifest(Partition("green", MONTH)) is None


# -- what is believed, what is swept, and what is not -----------------------------------------------------------------


@pytest.fixture
def scratch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    """The raw file of a month that is not in the lake yet."""
    job = Job("tlc", "none", f"file:{folder}/lake", f"file:{folder}/workspace")
    monkeypatch.setenv("PIPELINE_WORKSPACE_URL", job.workspace_url)
    our_settings.apply_environment()
    scratch = Scratch(job, Partition("green", MONTH), journal.run_id)
    keep(scratch)
    return scratch


def keep(scratch: Scratch, name: str = RAW) -> None:
    with scratch.staging(name) as file:
        file.write_bytes(b"x")
        about = {"url": "https://example.org/raw", "version": {}, "length": 1, "format": "parquet", "last_look": ""}
        scratch.keep(file, name, {**about, "sha256": "ab" * 32, "fetched_at": "2021-01-01T00:00:00+00:00"})


def test_a_record_never_speaks_for_the_file_of_another(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even if both have the same size, and the process is killed before the new record is written."""

    def killed(*args: Any, **kwargs: Any) -> None:
        raise Killed

    assert scratch.record(RAW)
    monkeypatch.setattr(LocalStore, "write", killed)
    with pytest.raises(Killed):
        keep(scratch)
    assert scratch.store.stat(scratch.path(RAW)) and scratch.record(RAW) is None


def age(scratch: Scratch, seconds: float) -> None:
    for stored in scratch.store.list(scratch.folder):
        with scratch.store.local(stored) as path:
            os.utime(path, (time.time() - seconds,) * 2)


def swept(scratch: Scratch) -> bool:
    gone = sweep.sweep_scratch(
        CachedState(), scratch.store.url, {Job("tlc", "none", scratch.job["lake"], scratch.store.url)}
    )
    left = {path.rpartition("/")[0] for path in scratch.store.list("scratch")}
    assert left.isdisjoint(gone) and set(gone) <= {scratch.prefix}
    return bool(gone)


def test_scratch_of_a_month_still_to_be_done_stays_for_a_week(scratch: Scratch) -> None:
    assert not swept(scratch)
    age(scratch, 2 * sweep.DAY)
    assert not swept(scratch)
    age(scratch, 2 * sweep.WEEK)
    assert swept(scratch)


def test_scratch_of_other_code_goes_when_nobody_can_be_using_it(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(code_version.CODE, CODES[1])
    journal.folder().mkdir(parents=True, exist_ok=True)
    other = journal._hold(journal.folder() / "other.jsonl")
    assert not swept(scratch), "another run is alive"
    os.close(other)
    with scratch.lock():
        assert not swept(scratch), "somebody works on the month"
    assert swept(scratch)
    keep(scratch)
    other = journal._hold(journal.folder() / "other.jsonl")
    age(scratch, 2 * sweep.DAY)
    assert swept(scratch), "another run is alive, and does not use it"
    os.close(other)


def test_scratch_in_a_bucket_stays_for_a_day_unless_its_run_is_known_to_have_ended(
    gcs_bucket: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job("tlc", "none", f"file:{folder}/lake", f"gs://{gcs_bucket}/workspace")
    monkeypatch.setenv("PIPELINE_WORKSPACE_URL", job.workspace_url)
    monkeypatch.setattr(journal, "folder", lambda: folder)
    our_settings.apply_environment()
    scratch = Scratch(job, Partition("green", MONTH), journal.run_id)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "another")
        keep(scratch)
    assert not swept(scratch), "still to be done"
    monkeypatch.setenv(code_version.CODE, CODES[1])
    assert not swept(scratch), "of another host"
    with monkeypatch.context() as patch:
        patch.setattr(sweep, "DAY", -60.0)
        assert swept(scratch), "of another host, a day ago"
    keep(scratch)
    scratch.store.delete(scratch.path(f"{RAW}.json"))  # its run was killed before it was written
    alive = journal._hold(journal.path())
    assert not swept(scratch)
    os.close(alive)
    assert swept(scratch)


@pytest.mark.parametrize(("run", "is_older"), [("its own", True), ("a later one", False)])
def test_scratch_of_the_second_of_a_manifest_is_older_if_the_same_run_made_both(
    scratch: Scratch, run: str, is_older: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = dt.datetime.now(dt.UTC)
    manifest = SimpleNamespace(created_at=now.replace(microsecond=0), run_id="its own", publisher="another")
    state = CachedState()
    monkeypatch.setattr(state, "manifest", lambda job, partition: manifest)
    job = Job("tlc", "none", scratch.job["lake"], scratch.store.url)
    about = {"run": run, "job": scratch.job}
    useless = sweep._is_useless(state, scratch.prefix, now.timestamp(), about, scratch.store.url, {job})
    assert useless is is_older


def test_scratch_of_another_lake_is_for_the_runs_of_that_lake(scratch: Scratch, folder: Path) -> None:
    other = Job("tlc", "none", f"file:{folder}/other", scratch.store.url)
    assert sweep.sweep_scratch(CachedState(), scratch.store.url, {other}) == []


def test_scratch_without_a_record_is_nobodys(scratch: Scratch) -> None:
    scratch.store.delete(scratch.path(f"{RAW}.json"))
    assert swept(scratch)


@pytest.mark.parametrize(
    "planted", ["green/2020-13", "green/0000-01", "green/\u0662020-01", "green/x", "purple/2020-01"]
)
def test_folder_that_somebody_else_has_made_keeps_no_scratch_from_going(scratch: Scratch, planted: str) -> None:
    record = scratch.store.read_small(scratch.path(f"{RAW}.json"), 10_000)
    scratch.store.write(f"scratch/{planted}/{scratch.prefix.rpartition('/')[2]}/{RAW}.json", record)
    job = Job("tlc", "none", scratch.job["lake"], scratch.store.url)
    assert months_of(job, "green") <= {MONTH, dt.date(2020, 1, 1)}
    scratch.store.delete(scratch.path(f"{RAW}.json"))
    assert scratch.prefix in sweep.sweep_scratch(CachedState(), scratch.store.url, {job})


def test_a_link_in_place_of_scratch_goes_and_what_it_leads_to_stays(scratch: Scratch, folder: Path) -> None:
    (folder / "victim").mkdir()
    (folder / "victim" / "raw.json").write_text("{}")
    planted = folder / "workspace" / scratch.folder / ("0" * 12)
    planted.symlink_to(folder / "victim")
    assert sweep.sweep_scratch(CachedState(), scratch.store.url, set()) == [f"{scratch.folder}/{planted.name}"]
    assert not planted.is_symlink() and (folder / "victim" / "raw.json").read_text() == "{}"


def test_a_stage_of_other_code_finds_nothing(scratch: Scratch, monkeypatch: pytest.MonkeyPatch) -> None:
    assert scratch.record(RAW)
    monkeypatch.setenv(code_version.CODE, CODES[1])
    job = Job("tlc", "none", scratch.job["lake"], scratch.store.url)
    later = Scratch(job, Partition("green", MONTH), journal.run_id)
    assert later.record(RAW) is None
    with scratch.lock(), pytest.raises(StorageUnavailable), later.store.lock(lock_of(later.prefix), timeout=0):
        pass  # two versions of the code do not work on a month at the same time


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 200_000,
        b"[]",
        b"5",
        b"\xff",
        b'{"bytes": 1, "bytes": 1}',
        b'{"bytes": 1, "sha256": NaN}',
        b'{"bytes": 1, "sha256": 5}',
        b'{"bytes": "1"}',
        b'{"bytes": 1, "version": []}',
        b'{"bytes": 1, "report": "x"}',
        b" " * (5 << 20) + b'{"bytes": 1}',
    ],
)
def test_record_that_somebody_else_has_written_is_none(scratch: Scratch, content: bytes) -> None:
    scratch.store.write(scratch.path(f"{RAW}.json"), content)
    assert scratch.record(RAW) is None
    assert not sweep._about(scratch.store, list(scratch.store.list(scratch.prefix).values()))

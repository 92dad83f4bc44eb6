"""Stages whose scratch is taken away: by another run, as a workspace in a bucket has no lock that would keep two runs
apart, or by a power cut; or whose disk takes no more."""

from __future__ import annotations

import datetime as dt
import errno
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.cleaning.chunks import Report
from pipeline.errors import DamagedScratch, LakeError, StorageUnavailable, TakenAway, UnreadableFile, WarehouseBusy
from pipeline.lake import layout
from pipeline.lake.lake import digest_of
from pipeline.partition import ZONES, Partition
from pipeline.planning import completeness
from pipeline.planning.completeness import Completeness
from pipeline.planning.publisher_questions import observe
from pipeline.planning.scratch import PARQUET, RAW, REJECTS, ROWS, Scratch
from pipeline.planning.state import State
from pipeline.publishers.sample import generator
from pipeline.reporting import progress
from pipeline.reporting.explanations import NOT_AGAIN
from pipeline.reporting.progress import StageProgress
from pipeline.storage import local
from pipeline.storage.local import LocalStore
from pipeline.tasks import write_parquet
from pipeline.tasks.base import Stage
from pipeline.tasks.clean import Clean, ipc_file
from pipeline.tasks.download import Download
from pipeline.tasks.load import Load
from pipeline.tasks.upload import Upload
from pipeline.tasks.write_parquet import WriteParquet
from pipeline.warehouse.duckdb.warehouse import DuckDB

from ..patience import Clock
from ..servers.gcs import gcs_bucket, gcs_server
from ..servers.http import HttpServer

__all__ = ["gcs_bucket", "gcs_server"]


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """Upload of a month whose raw file and rows are in the scratch, and whose Parquet file is not (any more)."""
    monkeypatch.setenv("PIPELINE_RETRY_ATTEMPTS", "2")
    monkeypatch.setenv("PIPELINE_RETRY_BACKOFF", "0.01")
    task = Upload(
        dataset="green",
        month=dt.date(2020, 1, 1),
        publisher="tlc",
        rules="none",
        lake=f"file:{tmp_path}/lake",
        workspace=f"file:{tmp_path}/workspace",
    )
    for name in (RAW, ROWS):
        (tmp_path / name).write_bytes(b"x")
        task.scratch.keep(tmp_path / name, name, record(name))
    return task


def record(name: str, sha256: str = "ab" * 32) -> dict[str, Any]:
    """What the stages note of a file of the scratch."""
    fields = {
        RAW: {
            "url": "https://example.org/a.parquet",
            "version": {},
            "length": 1,
            "format": "parquet",
            "fetched_at": "2021-01-01T00:00:00+00:00",
            "last_look": "",
        },
        ROWS: {"report": vars(Report())},
        REJECTS: {},
        PARQUET: {"parquet_sha256": "ef" * 32, "rows_written": 0},
    }
    return {"sha256": sha256, **fields[name]}


@pytest.mark.parametrize("name", [RAW, ROWS, REJECTS, PARQUET])
@pytest.mark.parametrize("odd", [None, "x", -1.5, [], {"a": "b"}])
def test_a_record_that_no_stage_can_have_written_counts_for_nothing(
    upload: Upload, tmp_path: Path, name: str, odd: Any
) -> None:
    def is_believed(written: dict[str, Any]) -> bool:
        (tmp_path / name).write_bytes(b"x")
        upload.scratch.keep(tmp_path / name, name, written)
        return upload.scratch.record(name) is not None

    sound = record(name)
    assert is_believed(sound)
    for field in sound:
        assert not is_believed({other: value for other, value in sound.items() if other != field})
        assert is_believed({**sound, field: odd}) == (
            isinstance(odd, type(sound[field])) and field not in ("report", "fetched_at")
        )
    if name == RAW:
        assert not is_believed({**sound, "fetched_at": "yesterday"})
        assert not is_believed({**sound, "fetched_at": "2021-01-01"})
        for part, known in (("etag", '"x"'), ("length", 1), ("last_modified", "x")):
            assert is_believed({**sound, "version": {part: known}})
            assert is_believed({**sound, "version": {part: odd}}) == (odd is None or isinstance(odd, type(known)))
    if name == ROWS:
        for field, value in sound["report"].items():
            report = {other: value for other, value in sound["report"].items() if other != field}
            assert is_believed({**sound, "report": report}) == (value is None)
            assert is_believed({**sound, "report": {**report, field: odd}}) == (value is None or odd == value)


def test_row_groups_of_long_texts_have_fewer_rows(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write_parquet, "GROUP_BYTES", 40_000)
    task = upload.sibling(WriteParquet)
    schema = datasets.get("green").schema
    batch = pa.RecordBatch.from_pylist([{"request_source": f"{i:01000}"} for i in range(30)], schema)
    path = tmp_path / "groups.arrow"
    with ipc_file(path, schema) as writer:
        for _ in range(5):
            writer.write(batch)
    with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
        groups = list(task._groups(reader, datasets.get("green").table_schema))
    assert [group.num_rows for group in groups] == [30] * 5
    assert [name for group in groups for name in group["request_source"].to_pylist()] == [
        f"{i:01000}" for _ in range(5) for i in range(30)
    ]


def test_scratch_that_is_replaced_by_another_run_is_waited_for(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scratch, "_is_folder", False)  # a bucket, which has no lock
    with pytest.raises(TakenAway, match=f"{PARQUET} was replaced or removed by another run") as caught:
        upload.work_with_retries(StageProgress(upload.stage_record))
    assert caught.value.at_once, "another run may be about to put it there"


def test_scratch_that_is_gone_is_made_again_at_once_where_stages_have_locks(upload: Upload) -> None:
    with pytest.raises(TakenAway, match=f"{PARQUET} was replaced or removed by another run") as caught:
        upload.work_with_retries(StageProgress(upload.stage_record))
    assert not caught.value.at_once


def test_scratch_that_is_not_there_whole_is_damaged_where_stages_have_locks(upload: Upload, tmp_path: Path) -> None:
    upload.scratch.keep(tmp_path / ROWS, PARQUET, record(PARQUET))
    with upload.scratch.local(PARQUET) as file:
        file.write_bytes(b"longer")
    with pytest.raises(DamagedScratch, match=rf"{PARQUET} is not there as it was written; run again"):
        upload.work_with_retries(StageProgress(upload.stage_record))


@pytest.mark.parametrize("name", [ROWS, PARQUET, REJECTS])
def test_scratch_of_another_version_of_the_source_is_not_uploaded(upload: Upload, tmp_path: Path, name: str) -> None:
    for each in (ROWS, PARQUET, REJECTS):
        (tmp_path / each).write_bytes(b"x")
        upload.scratch.keep(tmp_path / each, each, record(each, ("cd" if each == name else "ab") * 32))
    with pytest.raises(TakenAway, match=f"{name} was replaced or removed"):
        upload.work_with_retries(StageProgress(upload.stage_record))
    if name == ROWS:
        with pytest.raises(TakenAway, match=f"{ROWS} was replaced or removed"):
            task = upload.sibling(WriteParquet)
            task.work_with_retries(StageProgress(task.stage_record))


def test_what_another_run_has_done_meanwhile_is_done(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upload, "complete", lambda task: True)
    assert upload.work_with_retries(StageProgress(upload.stage_record)) == {"outcome": "done by another run"}


def test_a_file_that_vanishes_behind_its_record_may_come_back(upload: Upload) -> None:
    with pytest.raises(StorageUnavailable, match="run again"), upload.scratch.local(PARQUET):
        pass


@pytest.mark.parametrize("left", [b"", b"x" * 5])
@pytest.mark.parametrize("name", [RAW, f"{RAW}.json"])
def test_what_a_power_cut_left_of_the_scratch_counts_for_nothing(upload: Upload, name: str, left: bytes) -> None:
    assert upload.scratch.record(RAW)
    with upload.scratch.store.local(upload.scratch.path(name)) as file:
        file.write_bytes(left)
    assert upload.scratch.record(RAW) is None


@pytest.mark.parametrize("is_bucket", [False, True], ids=["folder", "bucket"])
def test_what_was_made_of_a_damaged_file_is_not_kept(
    upload: Upload, tmp_path: Path, is_bucket: bool, gcs_bucket: str
) -> None:
    task = upload.sibling(Clean, workspace=f"gs://{gcs_bucket}/workspace") if is_bucket else upload.sibling(Clean)
    (tmp_path / RAW).write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    about = record(RAW, digest_of(tmp_path / RAW, RAW).sha256)
    task.scratch.keep(tmp_path / RAW, RAW, {**about, "length": 108})
    assert task.requires().complete()
    with pytest.raises(UnreadableFile):
        task.run()
    assert not task.scratch.store.list(task.scratch.prefix)
    assert not task.requires().complete(), "the next run fetches it anew"


@pytest.mark.parametrize(("failures", "is_for_good"), [(1, False), (2, False), (3, True)])
def test_a_lock_that_is_never_free_ends_the_load_of_this_run(
    upload: Upload, tmp_path: Path, failures: int, is_for_good: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_RUN_ID", "run")
    monkeypatch.setenv("PIPELINE_WORKSPACE_URL", f"file:{tmp_path}/workspace")

    def held(load: Load) -> bool:
        raise WarehouseBusy("held")

    monkeypatch.setattr(Load, "complete", held)
    load = upload.sibling(Load, warehouse=f"duckdb:///{tmp_path}/w.duckdb")
    explained = []
    for _ in range(failures):
        with pytest.raises(WarehouseBusy) as caught:
            load.run()
        explained.append(load.on_failure(caught.value))
    assert [text.endswith(NOT_AGAIN) for text in explained] == [False] * (failures - 1) + [is_for_good]


# -- what the disk refuses -------------------------------------------------------------------------

TABLE = pa.table({"a": range(200_000)})


def open_ipc(path: Path) -> AbstractContextManager[Any]:
    return ipc_file(path, TABLE.schema)


def open_parquet(path: Path) -> AbstractContextManager[Any]:
    return pq.ParquetWriter(path, TABLE.schema)


@pytest.fixture
def scratch(upload: Upload) -> Scratch:
    return upload.scratch


@pytest.mark.parametrize("opened", [open_ipc, open_parquet])
@pytest.mark.parametrize("rows", [0, 200_000])
def test_a_full_disk_is_one_line_with_the_place(scratch: Scratch, opened: Any, rows: int) -> None:
    """Written are the rows, or at least what ends a file."""
    with (
        pytest.raises(
            LakeError, match=r"scratch/green/.*/trips\.parquet cannot be written: no room left \(.*make room"
        ),
        scratch.staging(PARQUET) as target,
    ):
        target.symlink_to("/dev/full")
        with scratch.writer(target, PARQUET, opened) as write:
            write(TABLE.slice(0, rows))


@pytest.mark.parametrize(
    ("code", "kind", "says"),
    [
        (errno.ENOSPC, LakeError, "no room left"),
        (errno.EDQUOT, LakeError, "no room left"),
        (errno.EACCES, LakeError, "give your user the right"),
        (errno.EROFS, LakeError, "give your user the right"),
        (errno.EIO, StorageUnavailable, "try again"),
    ],
)
@pytest.mark.parametrize("moment", ["open", "write", "close"])
def test_what_the_disk_says_becomes_one_line(
    scratch: Scratch, code: int, kind: type[Exception], says: str, moment: str
) -> None:
    def refuse(now: str) -> None:
        if now == moment:
            raise OSError(code, f"Error writing bytes to file. Detail: {os.strerror(code)}")

    class Refusing:
        def write(self, rows: object) -> None:
            refuse("write")

    @contextmanager
    def opened(path: Path) -> Iterator[Refusing]:
        refuse("open")
        yield Refusing()
        refuse("close")

    with (
        pytest.raises(kind, match=says) as caught,
        scratch.staging(ROWS) as target,
        scratch.writer(target, ROWS, opened) as write,
    ):
        write(TABLE)
    assert ROWS in str(caught.value) and "\n" not in str(caught.value)


def test_an_error_of_reading_is_none_of_writing_and_not_replaced_by_one_of_closing(scratch: Scratch) -> None:
    reading = OSError(errno.EIO, "reading")

    @contextmanager
    def opened(path: Path) -> Iterator[None]:
        try:
            yield
        finally:
            raise OSError(errno.ENOSPC, "closing")

    with (
        pytest.raises(OSError) as caught,
        scratch.staging(ROWS) as target,
        scratch.writer(target, ROWS, opened),
    ):
        raise reading
    assert caught.value is reading


def test_what_is_on_its_way_to_a_bucket_waits_on_a_disk_of_this_machine(upload: Upload, tmp_path: Path) -> None:
    scratch = upload.clone(workspace="gs://bucket/scratch").scratch
    (tmp_path / "full").symlink_to("/dev/full")
    with (
        pytest.raises(LakeError, match=f"^{tmp_path}/full cannot be written: no room left"),
        scratch.writer(tmp_path / "full", ROWS, open_ipc) as write,
    ):
        write(TABLE)


def test_scratch_is_not_waited_for_until_it_is_on_the_disk(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise AssertionError("synced")

    monkeypatch.setattr(os, "fsync", fsync)
    upload.scratch.keep(tmp_path / ROWS, ROWS, record(ROWS))
    assert upload.scratch.record(ROWS)
    with pytest.raises(AssertionError, match="synced"):
        upload.job.lake.store.write("data/a", b"the lake is")


# -- progress ---------------------------------------------------------------------------------------


class Recorded(StageProgress):
    """Keeps every report, not only those that somebody can read."""

    def __init__(self, task: Stage) -> None:
        super().__init__(task.stage_record)
        self.reports: list[tuple[int, int, str]] = []

    def __call__(self, done: int, total: int, unit: str = "rows", note: str = "") -> None:
        self.reports.append((done, total, unit))


def test_rows_of_a_file_that_another_run_replaces_meanwhile_are_not_kept(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may happen in a bucket, which has no lock."""
    raw, before = tmp_path / "raw_file", upload.scratch.record(ROWS)
    generator.make_file(Partition("green", dt.date(2020, 1, 1)), raw, rows=100, seed=1, layout="tlc")
    about = {**record(RAW, digest_of(raw, RAW).sha256), "length": raw.stat().st_size}

    def replace_it(*args: Any) -> None:
        upload.scratch.keep(raw, RAW, {**about, "sha256": "cd" * 32})

    upload.scratch.keep(raw, RAW, about)
    monkeypatch.setattr(Clean, "_check", replace_it)
    task = upload.sibling(Clean)
    with pytest.raises(TakenAway, match=f"{RAW} was replaced or removed by another run"):
        task.work(StageProgress(task.stage_record))
    assert upload.scratch.record(ROWS) == before and upload.scratch.record(REJECTS) is None


def test_the_percentage_of_an_upload_grows_in_steps(
    upload: Upload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month is copied from workspace to lake in blocks, each of which luigid hears of."""
    clock, percentages = Clock(), []

    class Slow(StageProgress):
        def __call__(self, *args: Any, **kwargs: Any) -> None:
            clock.sleep(1)
            super().__call__(*args, **kwargs)

    def tell(what: str, value: Any) -> None:
        if what == "progress_percentage":
            percentages.append(value)

    file = tmp_path / PARQUET
    for name in (REJECTS, PARQUET):
        file.write_bytes(b"x" * 1000)
        about = {**record(name), **({"parquet_sha256": digest_of(file, name).sha256} if name == PARQUET else {})}
        upload.scratch.keep(file, name, about)
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(local, "BLOCK", 100)
    upload.work(Slow(replace(upload.stage_record, tell=tell)))
    assert percentages[:3] == [10, 20, 30] and percentages[-1] == 100, percentages


@pytest.mark.parametrize("layout", ["tlc", "dtc"])
def test_progress_begins_at_the_beginning_and_only_grows(upload: Upload, tmp_path: Path, layout: str) -> None:
    raw = tmp_path / "raw_file"
    generator.make_file(Partition("green", dt.date(2020, 1, 1)), raw, rows=150_000, seed=1, layout=layout)
    about = record(RAW, digest_of(raw, RAW).sha256)
    about |= {"length": raw.stat().st_size, "format": "parquet" if layout == "tlc" else "csv.gz"}
    upload.scratch.keep(raw, RAW, about)
    for task in (upload.sibling(Clean), upload.sibling(WriteParquet), upload):
        progress = Recorded(task)
        task.work(progress)
        done, (total,) = [report[0] for report in progress.reports], {report[1] for report in progress.reports}
        assert done == sorted(done) and done[-1] == total, task
        if isinstance(task, Clean) and layout == "tlc":  # a small text is read ahead at once
            assert done[0] < total / 2 and len(done) > 3


# -- a lake that changes meanwhile -------------------------------------------------------------------


def test_a_month_that_is_forgotten_before_its_load_may_come_back(upload: Upload, tmp_path: Path) -> None:
    load = upload.sibling(Load, warehouse=f"duckdb:///{tmp_path}/w.duckdb")
    with pytest.raises(TakenAway, match="does not have the month any more"):
        load.work(StageProgress(load.stage_record))


class ZoneTable:
    """The zone table in a publisher's folder, and its way into a lake."""

    HEADER = "LocationID,Borough,Zone,service_zone"
    ROWS = (
        "1,EWR,Newark Airport,EWR",
        "4,Manhattan,Alphabet City,Yellow Zone",
        "5,Staten Island,Arden Heights,Boro Zone",
    )

    def __init__(self, upload: Upload, folder: Path) -> None:
        self.file = folder / "published" / "misc" / "taxi_zone_lookup.csv"
        self.stages = [
            upload.sibling(stage, dataset="zones", month=None, publisher=f"tlc=file:{folder}/published")
            for stage in (Download, Clean, WriteParquet, Upload)
        ]
        self.lake = upload.job.lake
        self.load = self.stages[-1].sibling(Load, warehouse=f"duckdb:///{folder}/w.duckdb")

    def put_into_lake(self, rows: int) -> int:
        """Publish so many rows and run the stages; the number of rows that the lake has then."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("\n".join([self.HEADER, *self.ROWS[:rows], ""]))
        for stage in self.stages:
            stage.run()
        manifest = self.lake.manifest(ZONES)
        assert manifest is not None
        return manifest.rows_written


@pytest.fixture
def table(upload: Upload, tmp_path: Path) -> ZoneTable:
    return ZoneTable(upload, tmp_path)


@pytest.mark.parametrize("how", ["replaces", "removes"])
def test_a_month_that_another_run_takes_away_while_it_is_loaded_is_not_damaged(
    table: ZoneTable, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    load_now = DuckDB.load

    def load_late(self: DuckDB, *args: Any) -> Any:
        if how == "replaces":
            table.put_into_lake(3)
        else:
            table.lake.store.delete(layout.data(ZONES))
        return load_now(self, *args)

    table.put_into_lake(2)
    monkeypatch.setattr(DuckDB, "load", load_late)
    with pytest.raises(TakenAway, match="does not have the month any more"):
        table.load.work(StageProgress(table.load.stage_record))
    monkeypatch.setattr(DuckDB, "load", load_now)
    table.put_into_lake(3)
    table.load.run()
    assert table.load.complete() and table.load.work(StageProgress(table.load.stage_record))["rows"] == 3


def test_a_load_waits_for_the_run_that_replaces_its_month(table: ZoneTable, monkeypatch: pytest.MonkeyPatch) -> None:
    table.put_into_lake(2)
    path = layout.manifest(ZONES)
    text = table.lake.store.read(path)
    lock = LocalStore.lock

    @contextmanager
    def lock_when_it_is_free(self: LocalStore, name: str, *args: Any, **named: Any) -> Iterator[None]:
        if name == path and not self.stat(path):
            self.write(path, text)  # the last thing that another run does with the lock
        with lock(self, name, *args, **named):
            yield

    table.lake.store.delete(path)
    monkeypatch.setattr(LocalStore, "lock", lock_when_it_is_free)
    assert table.load.work(StageProgress(table.load.stage_record))["rows"] == 2


def test_a_zone_table_that_shrinks_is_believed_only_after_the_old_one_is_forgotten(table: ZoneTable) -> None:
    assert table.put_into_lake(2) == 2
    with pytest.raises(UnreadableFile, match=r"has 1 rows, and the table in the lake has 2.*forget --dataset zones"):
        table.put_into_lake(1)
    assert table.put_into_lake(3) == 3
    table.lake.forget(ZONES)
    assert table.put_into_lake(1) == 1


class Zones:
    """A web publisher's zone table on its way into a lake, while clocks are wrong."""

    def __init__(self, upload: Upload, server: HttpServer) -> None:
        self.file = server.folder / "misc" / "taxi_zone_lookup.csv"
        self.stages = [
            upload.sibling(stage, dataset="zones", month=None, publisher=f"dtc={server.url}")
            for stage in (Download, Clean, WriteParquet, Upload)
        ]
        self.job = self.stages[0].job

    def publish(self, name: str) -> None:
        rows = [f"{zone},Queens,{name} {zone},Boro Zone" for zone in range(1, 266)]
        self.file.parent.mkdir(exist_ok=True)
        self.file.write_text("\n".join(["LocationID,Borough,Zone,service_zone", *rows, ""]))

    def load(self, clock: dt.timedelta, **source: Any) -> None:
        """Load it by a clock that is so far ahead. ``source``: what else the manifest says of it."""
        for stage in self.stages:
            stage.run()
        lake = self.job.lake
        manifest = lake.manifest(ZONES)
        assert manifest is not None
        wrong = replace(manifest.source, fetched_at=manifest.source.fetched_at + clock, **source)
        lake.restate(replace(manifest, source=wrong))
        self.stages[0].scratch.prune()

    def look(self) -> None:
        assert observe(State(), self.job, [ZONES]) == {}

    def reason(self) -> str | None:
        return Completeness(State(), self.job, ZONES).why_not_in_lake()


@pytest.fixture
def zones(upload: Upload, tmp_path: Path) -> Iterator[Zones]:
    (tmp_path / "site").mkdir()
    with HttpServer(tmp_path / "site") as server:
        yield Zones(upload, server)


YEAR = dt.timedelta(days=365)


@pytest.mark.parametrize("clock", [-YEAR, dt.timedelta(hours=-2), dt.timedelta(0), dt.timedelta(hours=2), YEAR])
def test_a_republication_is_seen_whatever_the_clock_said_during_the_load(zones: Zones, clock: dt.timedelta) -> None:
    for number, name in enumerate(("Old", "New", "Old")):  # the last one takes the second back
        zones.publish(name)
        if number:
            zones.look()
            assert zones.reason() == completeness.REPUBLISHED
        zones.load(clock)
        assert zones.reason() is None
        zones.look()
        assert zones.reason() is None


@pytest.mark.parametrize("clock", [-YEAR, dt.timedelta(0), YEAR])
def test_a_look_before_the_load_is_none_after_it(zones: Zones, clock: dt.timedelta) -> None:
    """What was published between the look and the load is what was loaded."""
    zones.publish("Old")
    zones.look()
    zones.publish("New")
    zones.load(clock)
    assert zones.reason() is None


def test_the_id_of_an_observation_depends_on_its_time_and_version() -> None:
    observed = {"checked_at": "2021-01-01T00:00:00+00:00", "version": {"etag": '"a"'}}
    later = {**observed, "checked_at": "2021-01-01T00:00:01+00:00"}
    other = {**observed, "version": {"etag": '"b"'}}
    assert len({completeness.observation_id(each) for each in (observed, later, other)}) == 3
    assert completeness.observation_id(observed) and not completeness.observation_id({**observed, "version": None})


def test_a_manifest_that_knows_no_look_goes_by_the_clocks_as_far_as_they_can_be_right(zones: Zones) -> None:
    zones.publish("Old")
    zones.look()
    zones.publish("New")
    zones.load(dt.timedelta(0), last_look=None)
    assert zones.reason() is None
    zones.publish("Third")
    zones.look()
    assert zones.reason() == completeness.REPUBLISHED
    zones.load(YEAR, last_look=None)
    zones.publish("Fourth")
    zones.look()
    assert zones.reason() == completeness.REPUBLISHED


def test_a_file_in_the_scratch_that_was_fetched_by_a_wrong_clock_is_replaced_too(zones: Zones, tmp_path: Path) -> None:
    zones.publish("Old")
    download = zones.stages[0]
    download.run()
    record = {**(download.scratch.record(RAW) or {}), "fetched_at": "2999-01-01T00:00:00+00:00"}
    with download.scratch.local(RAW) as file:
        (tmp_path / "copy").write_bytes(file.read_bytes())
    download.scratch.keep(tmp_path / "copy", RAW, record)
    assert download.complete()
    zones.publish("New")
    zones.look()
    assert not download.complete()
    download.run()
    assert download.complete()


def test_a_long_stage_says_every_minute_how_far_it_is(
    upload: Upload, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    caplog.set_level("INFO", "pipeline")
    report = StageProgress(upload.stage_record)
    for done in range(0, 2000, 10):
        clock.sleep(1)
        report(done, 4000, "bytes")
    assert [record.getMessage() for record in caplog.records] == [
        f"Upload green 2020-01: {done:,} of 4,000 bytes so far" for done in (590, 1190, 1790)
    ]


def test_a_time_to_come_is_not_recent() -> None:
    now = dt.datetime.now(dt.UTC)
    assert completeness.is_recent(now, 60) and not completeness.is_recent(now - YEAR, 60)
    assert not completeness.is_recent(now + YEAR, 60) and not completeness.is_recent(now + YEAR, 1e12)

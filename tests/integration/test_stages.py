"""Stages whose scratch is taken away: by another run, as a workspace in a bucket has no lock that would keep two runs
apart, or by a power cut."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pipeline.errors import LakeTrouble
from pipeline.operations.progress import StageProgress
from pipeline.stages.clean import ROWS
from pipeline.stages.download import RAW
from pipeline.stages.upload import Upload
from pipeline.stages.write_parquet import PARQUET


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Upload:
    """Upload of a month whose raw file and rows are in the scratch, and whose Parquet file is not (any more)."""
    monkeypatch.setenv("PIPELINE_PUBLISHER_ATTEMPTS", "2")
    monkeypatch.setenv("PIPELINE_PUBLISHER_BACKOFF", "0.01")
    task = Upload(
        dataset="green",
        month=dt.date(2020, 1, 1),
        publisher="tlc",
        rules="none",
        lake=f"file:{tmp_path}/lake",
        workspace=f"file:{tmp_path}/workspace",
    )
    about = {
        "url": "https://example.org/a.parquet",
        "sha256": "ab" * 32,
        "version": {},
        "length": 1,
        "format": "parquet",
        "fetched_at": "2021-01-01T00:00:00+00:00",
    }
    for name in (RAW, ROWS):
        (tmp_path / name).write_bytes(b"x")
        task.scratch.keep(tmp_path / name, name, about)
    return task


def test_scratch_that_is_replaced_by_another_run_is_waited_for(upload: Upload) -> None:
    with pytest.raises(LakeTrouble, match=f"{PARQUET} is being replaced by another run"):
        upload.attempt(StageProgress(upload))


def test_what_another_run_has_done_meanwhile_is_done(upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Upload, "complete", lambda task: True)
    assert upload.attempt(StageProgress(upload)) == {"outcome": "done by another run"}


def test_a_file_that_vanishes_behind_its_record_may_come_back(upload: Upload) -> None:
    with pytest.raises(LakeTrouble, match="run again"), upload.scratch.local(PARQUET):
        pass


@pytest.mark.parametrize("left", [b"", b"x" * 5])
@pytest.mark.parametrize("name", [RAW, f"{RAW}.json"])
def test_what_a_power_cut_left_of_the_scratch_counts_for_nothing(upload: Upload, name: str, left: bytes) -> None:
    assert upload.scratch.record(RAW)
    with upload.scratch.store.local(upload.scratch.path(name)) as file:
        file.write_bytes(left)
    assert upload.scratch.record(RAW) is None

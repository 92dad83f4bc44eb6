"""``forget``: one month or a range, with its scratch, everywhere or in one warehouse."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from pipeline.__main__ import main
from pipeline.job import Job
from pipeline.partition import Partition
from pipeline.planning.scratch import Scratch

from .conftest import Project

RANGE = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-04")


def states(project: Project) -> list[str]:
    """What ``status`` says of each month of the range."""
    shown = project.pipeline("status", "--dataset", "green", "--start", "2020-01", "--stop", "2020-04").stdout
    return [line.split(maxsplit=2)[2] for line in shown.splitlines() if line.startswith("green ")]


def test_a_range_is_forgotten_with_the_scratch_of_all_jobs(project: Project) -> None:
    assert project.luigi("RangeMonthly", *RANGE).returncode == 0
    other_rules = ("Clean", "--dataset", "green", "--month", "2020-02", "--clean-rules", "none")
    assert project.luigi(*other_rules).returncode == 0
    scratch = project.folder / "workspace" / "scratch" / "green"
    assert list((scratch / "2020-02").rglob("raw"))
    done = project.pipeline("forget", "--dataset", "green,yellow", "--start", "2020-02", "--stop", "2020-04")
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-3:] == [
        "green 2020-02 is forgotten; the next run does it again.",
        "green 2020-03 is forgotten; the next run does it again.",
        "2 months forgotten.",
    ]
    assert not list(scratch.rglob("raw"))
    assert [state.split()[0] for state in states(project)] == ["complete", "to", "to"]
    again = project.pipeline("forget", "--dataset", "green", "--start", "2020-02", "--stop", "2020-04")
    assert again.stdout.splitlines()[-1] == "Nothing to forget."
    assert project.luigi("RangeMonthly", *RANGE).returncode == 0
    assert [state.split()[0] for state in states(project)] == ["complete"] * 3


def test_one_warehouse_forgets_and_is_filled_from_the_lake(project: Project) -> None:
    project.environment["PIPELINE_WAREHOUSE_URL"] = "duckdb:///a.duckdb,duckdb:///b.duckdb"
    assert project.luigi("RangeMonthly", *RANGE).returncode == 0
    unclear = project.pipeline("forget", "--dataset", "green", "--month", "2020-01", "--warehouse", "duckdb")
    assert unclear.returncode == 2 and "--warehouse duckdb names several" in unclear.stdout, unclear.stdout
    label = f"duckdb:///{project.folder}/b.duckdb"
    done = project.pipeline("forget", "--dataset", "green", "--month", "2020-01", "--warehouse", label)
    assert done.stdout == "green 2020-01 is forgotten; the next run does it again.\n"
    again = project.luigi("RangeMonthly", *RANGE)
    stages = [line.split()[2:5] for line in again.stdout.splitlines() if " INFO " in line]
    assert stages == [["Load", "green", "2020-01"]], again.stdout
    assert "into b.duckdb: " in again.stdout


def test_who_is_at_work_on_the_month_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By another job: other rules than the settings have."""
    monkeypatch.chdir(tmp_path)
    for name, value in {"PUBLISHER_NAME": "sample", "RUN_ID": "r-1", "CLEAN_RULES": "none"}.items():
        monkeypatch.setenv(f"PIPELINE_{name}", value)
    job = Job("sample", "zero_passengers-1", f"file:{tmp_path}/lake", f"file:{tmp_path}/workspace")
    scratch = Scratch(job, Partition("green", dt.date(2020, 1, 1)))
    (tmp_path / "file").write_bytes(b"x")
    scratch.keep(tmp_path / "file", "rejects.parquet", {"sha256": "ab" * 32})
    monkeypatch.setattr("pipeline.planning.scratch.LOCK_TIMEOUT", 0.1)
    with scratch.lock():
        assert main(["forget", "--dataset", "green", "--month", "2020-01"]) != 0
    said = capsys.readouterr().err
    assert "another run of the pipeline (PID " in said and "is still working on green 2020-01 after" in said
    assert scratch.record("rejects.parquet")
    assert main(["forget", "--dataset", "green", "--month", "2020-01"]) == 0
    assert not scratch.record("rejects.parquet")

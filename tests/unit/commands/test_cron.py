"""The cron wrapper's own decisions: which range, who may run, and what the log holds."""

from __future__ import annotations

import argparse
import datetime as dt
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import pytest

from pipeline import lock_files, renamed
from pipeline.__main__ import parser
from pipeline.commands import cron
from pipeline.datasets import MONTHLY
from pipeline.errors import UsageError
from pipeline.partition import ZONES, Partition
from pipeline.planning import planner
from pipeline.planning.plan import COMPLETE, NOT_YET, TO_DO, Entry, Plan
from pipeline.reporting import journal


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "a-run")
    return tmp_path


def arguments(*words: str) -> argparse.Namespace:
    return parser().parse_args(["cron", *words])


@pytest.mark.parametrize(
    ("states", "start"),
    [
        ({}, "2026-05"),
        ({"2026-05": COMPLETE, "2026-06": COMPLETE, "2026-07": TO_DO}, "2026-07"),
        ({"2026-05": COMPLETE, "2026-09": NOT_YET, "2026-10": NOT_YET}, "2026-09"),
        ({"2026-05": TO_DO, "2026-07": TO_DO}, "2026-05"),
        ({f"2026-{month:02}": COMPLETE for month in range(5, 11)}, "2026-05"),
    ],
)
def test_range_begins_with_the_oldest_missing_month(
    monkeypatch: pytest.MonkeyPatch, states: dict[str, str], start: str
) -> None:
    def plan_range(state: Any, job: Any, names: list[str], months: list[dt.date], warehouses: Any, ask: bool) -> Plan:
        assert months == [dt.date(2026, month, 1) for month in range(5, 11)] and not ask
        entries = [Entry(Partition.parse("green", month), state) for month, state in states.items()]
        return Plan([Entry(ZONES, TO_DO), *entries])

    monkeypatch.setattr(planner, "plan_range", plan_range)
    assert cron.luigi_arguments(6, ["green", "fhv"], dt.date(2026, 11, 30)) == [
        *("RangeMonthly", "--of", "AllTrips", "--of-params", '{"dataset": "green,fhv"}'),
        *("--start", start, "--stop", "2026-11"),
    ]


@pytest.mark.parametrize("flag", ["--dataset", "--datasets"])
def test_crontab_of_version_0_1_works_with_one_line_of_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, flag: str
) -> None:
    class Run:
        def __init__(self, args: argparse.Namespace, names: list[str], locks: Any) -> None:
            self.names = names

        def run(self) -> int:
            return len(self.names)

    monkeypatch.setattr(cron, "_Run", Run)
    monkeypatch.setattr(renamed, "_found", {})
    monkeypatch.setattr(renamed, "_told", set())
    assert cron.run(arguments("--log", "-", "--last", "6", flag, "all")) == len(MONTHLY)
    lines = ["--datasets is called --dataset now"] if flag == "--datasets" else []
    assert [record.message for record in caplog.records] == lines


@pytest.mark.parametrize("today", [dt.date(2026, 1, 1), dt.date(2025, 12, 31), dt.date(2024, 2, 29)])
@pytest.mark.parametrize("last", [1, 6, 12, 30])
def test_last_months_end_before_this_one(monkeypatch: pytest.MonkeyPatch, today: dt.date, last: int) -> None:
    asked: list[dt.date] = []

    def plan_range(state: Any, job: Any, names: list[str], months: list[dt.date], warehouses: Any, ask: bool) -> Plan:
        asked.extend(months)
        return Plan()

    monkeypatch.setattr(planner, "plan_range", plan_range)
    cron.luigi_arguments(last, ["green"], today)
    assert len(asked) == last and asked[-1] < today.replace(day=1) <= asked[-1] + dt.timedelta(days=31)


def test_what_follows_the_task_is_luigis() -> None:
    args = arguments("--workers", "2", "Refresh", "--since", "2024-01", "--workers", "3")
    assert args.workers == 2
    assert args.task == ["Refresh", "--since", "2024-01", "--workers", "3"]


def hold(path: Path, about: str) -> int:
    """Lock as another process would: flock is about open files."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.write(descriptor, about.encode())
    return descriptor


def test_same_task_is_refused_at_once_by_name(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = hold(folder / "cron.Refresh.lock", "Refresh (run x, process 7 on moon)")
    args = arguments("--wait", "1", "Refresh")
    assert args.work(args) == cron.ALREADY_RUNNING
    assert capsys.readouterr().out == "Refresh (run x, process 7 on moon) is running already; nothing was started\n"
    os.close(other)


def test_another_task_is_waited_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron, "INTERVAL", 0.01)
    other = hold(folder / "cron.lock", "Refresh (run x)")
    with (
        pytest.raises(cron._Busy, match=r"Refresh \(run x\) is running already"),
        cron._serialised("RangeMonthly", 0.1),
    ):
        pass
    monkeypatch.setattr(lock_files.time, "sleep", lambda seconds: os.close(other))
    with cron._serialised("RangeMonthly", 60) as locks:
        assert len(locks) == 2
        assert (folder / "cron.lock").read_text().startswith("RangeMonthly (run a-run, process ")
    with cron._serialised("RangeMonthly", 0):
        pass  # both were let go


def test_log_is_turned_over_and_the_oldest_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cron, "LOG_SIZE", 1000)
    monkeypatch.setattr(cron, "LOGS_KEPT", 2)
    log = cron._open_log(str(folder / "cron.log"))
    for number in range(200):
        log.info("line %d with some text", number)
    log.handlers.pop().close()
    assert sorted(path.name for path in folder.glob("cron.log*")) == ["cron.log", "cron.log.1", "cron.log.2"]
    assert "line 199 " in (folder / "cron.log").read_text()


def test_log_that_cannot_be_written_is_a_mistake(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--log .*nowhere"):
        cron._open_log(str(folder / "nowhere" / "cron.log"))


def test_urls_stay_out_of_journal_and_log() -> None:
    words = ["cron", "--warehouse-url", "postgresql+psycopg2://u:secret@h/db", "--lake-url=gs://b", json.dumps({})]
    assert journal.without_addresses(words) == ["cron", "--warehouse-url", "…", "--lake-url=gs://b", "{}"]
    theirs = [
        "report.py",
        "--db-password",
        "hush",
        "--api-key=hush",
        "--token",
        "--scheduler-url",
        "http://luigid:8082",
    ]
    hidden = ["report.py", "--db-password", "…", "--api-key=…", "--token", "--scheduler-url", "http://luigid:8082"]
    assert journal.without_addresses(theirs) == hidden
    urls = ["--notify-urls", "slack://a/b", "--publisher-url", "https://host/path?sig=hush", '--x={"u": "gs://a@b"}']
    assert journal.without_addresses(urls) == ["--notify-urls", "…", "--publisher-url", "…", "--x=…"]


@pytest.mark.parametrize("name", ["cron.lock", "cron.Refresh.lock"])
def test_link_in_place_of_a_lock_is_one_line_and_stays_as_it_is(folder: Path, name: str) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / name).symlink_to(victim)
    with (
        pytest.raises(UsageError, match=rf"{name} is a link, not a file of a run; remove it"),
        cron._serialised("Refresh", 60),
    ):
        pass
    assert victim.read_text() == "precious"


def test_link_in_place_of_the_log_is_one_line(folder: Path) -> None:
    victim = folder / "victim"
    victim.write_text("precious")
    (folder / "cron.log").symlink_to(victim)
    with pytest.raises(UsageError, match=r"cron.log is a link, not a file of a run; remove it"):
        cron._open_log(str(folder / "cron.log"))
    (folder / "logs").mkdir()
    (folder / "logs" / "mine.log").symlink_to(victim)  # the user's own, in a folder of the user's choice
    cron._open_log(str(folder / "logs" / "mine.log")).handlers[0].close()
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("task", ["../../x", "a/b", "--module", "x" * 300, "\u6771" * 100, "\udcff"])
def test_lock_of_any_word_stays_in_its_folder(folder: Path, task: str) -> None:
    with cron._serialised(task, 60):
        assert len(list(folder.iterdir())) == 2
        assert all(path.suffix == ".lock" for path in folder.iterdir())

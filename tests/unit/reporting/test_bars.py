"""Progress bars on terminals of any width."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pipeline.reporting import bars


def stage(
    name: str, state: str, month: str | None = "2020-01", dataset: str = "fhvhv", **details: Any
) -> dict[str, Any]:
    about = {"stage": name, "dataset": dataset, "month": month, "warehouse": None, "at": 100.0}
    return {"event": "stage", "state": state, **about, **details}


def running(
    done: int, total: int = 1_000_000, note: str = ", 4 rejected: zero_passengers", **about: Any
) -> dict[str, Any]:
    return stage("WriteParquet", "running", done=done, total=total, unit="rows", note=note, **about)


def plan(*months: str) -> dict[str, Any]:
    return {"event": "plan", "entries": [("fhvhv", month, "to do", "new") for month in months], "goal": "MonthlyTrips"}


def drawn(*events: dict[str, Any], width: int = 80, now: float = 165.0) -> list[str]:
    state = bars.BarState()
    for event in events:
        state.read(event)
    return [line.plain for line in state.lines(width, now)]


@pytest.mark.parametrize("width", [120, 80, 60, 50])
def test_dataset_and_month_are_never_cut_and_no_line_is_too_long(width: int) -> None:
    months = [f"2022-{month:02}" for month in range(1, 13)]
    events = [plan(*months)]
    for month in months[:3]:
        events += [stage("WriteParquet", "started", month), running(123_456_789, 987_654_321, month=month)]
    lines = drawn(*events, width=width, now=100.0 + 3 * 3600)
    assert [line[:26].rstrip(" ━─") for line in lines[:3]] == [f"WriteParquet fhvhv {month}" for month in months[:3]]
    assert lines[3].startswith("all ")
    assert all(len(line) <= width and "3:00:00" in line for line in lines)
    assert all(re.fullmatch(r"(WriteParquet fhvhv \d{4}-\d\d|all) +[━─]+ \d:\d\d:\d\d[^━]*", line) for line in lines)


def filled(line: Any) -> int:
    return sum(span.end - span.start for span in line.spans if span.style == "cyan")


def test_a_bar_starts_at_nothing_and_only_grows_until_the_stage_is_tried_again() -> None:
    state = bars.BarState()
    seen = []
    for done in (0, 400_000, 200_000, 1_000_000, 2_000_000):
        state.read(running(done))
        seen.append(filled(state.lines(80, 100.0)[0]))
    assert seen[0] == 0 and seen == sorted(seen) and seen[1] == seen[2] < seen[3] == seen[4]
    state.read(stage("WriteParquet", "started"))
    assert filled(state.lines(80, 100.0)[0]) == 0


def test_a_bar_says_for_whom_its_stage_waits() -> None:
    waits = stage("WriteParquet", "waiting", note="waits for python (PID 12)")
    assert "waits for python (PID 12)" in drawn(running(5), waits)[0]
    assert "waits" not in drawn(running(5), waits, {**waits, "note": ""}, running(6))[0]


def test_the_bar_of_the_run_counts_what_is_done_failed_and_left() -> None:
    loaded = {"event": "all loaded", "dataset": "fhvhv", "month": "2022-01", "warehouses": ["a"]}
    given_up = {
        "event": "given up",
        "family": "Load",
        "dataset": "fhvhv",
        "month": "2022-02",
        "error": "E",
        "message": "m",
    }
    events = [plan("2022-01", "2022-02", "2022-03"), stage("Load", "started", "2022-02"), loaded, given_up]
    (line,) = drawn(*events, width=100, now=160.0)
    assert "1 of 3 done, 1 failed, 1 left, 1.0 a minute, 1:00 to go" in line
    assert "luigid is paused" in drawn(*events, {"event": "waiting", "text": "luigid is paused"})[-1]
    assert drawn(plan("2022-01"), running(1, month="2022-01"))[0].startswith("WriteParquet"), (
        "one month needs no other bar"
    )

"""The outcome of a run, read from its journal."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.planning.plan import MISSING
from pipeline.reporting import outcomes

COUNTS = {"rows_read": 10, "rows": 9, "rows_rejected": {"zero_passengers": 1}}
BEGUN = {"event": "begun", "at": 100.0, "run": "r1", "command": ["luigi"], "host": "h"}
ENDED = {"event": "ended", "at": 160.0}
ALL_LOADED = {"event": "all loaded", "dataset": "green", "month": "2020-01", "warehouses": ["a:", "b:"]}

LAKE_ONLY = {**ALL_LOADED, "warehouses": []}


def stage(
    name: str, state: str, warehouse: str | None = None, month: str = "2020-01", **details: Any
) -> dict[str, Any]:
    about = {"stage": name, "dataset": "green", "month": month, "warehouse": warehouse, "seconds": 1.0}
    wrong = {"error": "Throttled", "message": "too many"} if state == "failed" else {}
    return {"event": "stage", "state": state, **about, **wrong, **details}


def plan(*entries: tuple[str, str | None, str, str], **about: Any) -> dict[str, Any]:
    return {"event": "plan", "entries": entries, "goal": "MonthlyTrips", "warehouses": ["a:", "b:"], **about}


def judged(code: int, result: str) -> dict[str, Any]:
    return {"event": "judged", "code": code, "result": result}


def given_up(family: str, **about: Any) -> dict[str, Any]:
    return {"event": "given up", "family": family, "error": "WarehouseBusy", "message": "held by a shell", **about}


TO_DO = plan(("green", "2020-01", "to do", "new"))
UPLOAD = plan(("green", "2020-01", "to do", "new"), goal="Upload", warehouses=[])
IN_LAKE = [TO_DO, stage("Upload", "done", rows=9)]
LOAD_GIVEN_UP = given_up("Load", dataset="green", month="2020-01", warehouse="a:")
LOADED_BEFORE = stage("Load", "found", "a:", since=50.0)

#: Events of one month, its state at the end of the run, and the result of the run.
MONTHS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "failed": ([stage("Download", "failed")], "failed: Throttled", "failed"),
    "tried again": ([stage("Load", "failed", "a:"), stage("Load", "done", "a:", **COUNTS)], "loaded", "complete"),
    "one of two warehouses": (
        [stage("Load", "failed", "a:"), stage("Load", "done", "b:", **COUNTS)],
        "failed: Throttled",
        "failed",
    ),
    "the other": (
        [stage("Load", "done", "b:", **COUNTS), stage("Load", "failed", "a:")],
        "failed: Throttled",
        "failed",
    ),
    "failed here, loaded by others": (
        [TO_DO, stage("Clean", "failed"), ALL_LOADED],
        "loaded by another run",
        "complete",
    ),
    "outcome": ([stage("Upload", "done", outcome="same bytes as before")], "same bytes as before", "complete"),
    "no news": (
        [TO_DO, stage("Upload", "done", outcome="same bytes as before"), ALL_LOADED],
        "same bytes as before",
        "complete",
    ),
    "raced": ([stage("Load", "done", "a:", outcome="done by another run")], "done by another run", "complete"),
    "no plan": ([stage("Clean", "done"), stage("Upload", "done")], "in the lake", "complete"),
    "never begun": ([TO_DO], "not done", "unfinished"),
    "cleaned": ([TO_DO, stage("Clean", "done")], "cleaned, not in a, b", "unfinished"),
    "in one warehouse": ([*IN_LAKE, stage("Load", "done", "a:", **COUNTS)], "loaded, not in b", "unfinished"),
    "found in one warehouse": ([*IN_LAKE, LOADED_BEFORE], "in the lake, not in b", "unfinished"),
    "in both": ([*IN_LAKE, stage("Load", "done", "a:", **COUNTS), ALL_LOADED], "loaded", "complete"),
    "killed": ([TO_DO, stage("Clean", "started")], "Clean not finished", "failed"),
    "stopped": (
        [TO_DO, stage("Clean", "failed", error="KeyboardInterrupt", message="")],
        "Clean not finished",
        "failed",
    ),
    "given up": ([*IN_LAKE, LOAD_GIVEN_UP], "failed: WarehouseBusy", "failed"),
    "given up here, loaded by others": ([*IN_LAKE, LOAD_GIVEN_UP, ALL_LOADED], "loaded by another run", "complete"),
    "all by others": ([TO_DO, ALL_LOADED], "loaded by another run", "complete"),
    "repaired in the lake": ([*IN_LAKE, LOADED_BEFORE, ALL_LOADED], outcomes.BEFORE, "complete"),
    "loaded while it was uploaded": (
        [*IN_LAKE, stage("Load", "found", "a:", since=150.0), ALL_LOADED],
        "loaded by another run",
        "complete",
    ),
    "nobody knows since when": (
        [*IN_LAKE, stage("Load", "found", "a:", since=None), ALL_LOADED],
        outcomes.BY_ANOTHER,
        "complete",
    ),
    "raced, then all by others": (
        [*IN_LAKE, stage("Load", "done", "a:", outcome="done by another run"), ALL_LOADED],
        outcomes.BY_ANOTHER,
        "complete",
    ),
    "a stage that was there": ([UPLOAD, stage("Upload", "found")], "in the lake", "complete"),
    "without warehouses": ([TO_DO, stage("Upload", "done", rows=9), LAKE_ONLY], "in the lake", "complete"),
    "a stage": ([UPLOAD, stage("Download", "done"), stage("Upload", "done", rows=9)], "in the lake", "complete"),
    "half a stage": ([UPLOAD, stage("Download", "done")], "downloaded", "unfinished"),
    "gap": ([plan(("green", "2020-01", "missing at publisher", "a gap"))], "missing at publisher", "missing"),
    "gap found by the download": (
        [stage("Download", "failed", error="MissingAtPublisher", message="gone")],
        "missing at publisher",
        "missing",
    ),
    "not yet": ([plan(("green", "2020-01", "not yet published", ""))], "not yet published", "complete"),
    "asked again": ([TO_DO, stage("Clean", "failed"), judged(0, "complete")], "loaded by another run", "complete"),
}


@pytest.mark.parametrize("name", MONTHS)
def test_state_of_a_month_and_result_of_its_run(name: str) -> None:
    events, state, result = MONTHS[name]
    outcome = outcomes.summarize([BEGUN, *events, ENDED])
    (month,) = outcome.months
    assert (month.state, outcome.result) == (state, result)


def test_a_run_tells_when_it_was_and_what_it_came_to() -> None:
    loaded = [stage("Upload", "done", rows=9), stage("Load", "done", "a:", **COUNTS)]
    failed = stage("Clean", "failed", month="2020-02", message="green 2020-02: too many")
    planned = plan(("zones", None, "complete", ""), ("green", "2019-12", "complete", ""))
    outcome = outcomes.summarize([BEGUN, planned, *loaded, failed, judged(30, "failed"), ENDED])
    assert (outcome.run, outcome.start, outcome.end) == ("r1", 100.0, 160.0)
    assert (outcome.result, outcome.exit_code, outcome.complete_before) == ("failed", 30, 1)
    assert [month.title for month in outcome.touched] == ["green 2020-01", "green 2020-02"]
    assert [outcome.total(name) for name in ("rows_read", "loaded")] == [10, 9]
    assert sum(outcome.rejected.values()) == 1
    (month,) = outcome.having(outcomes.FAILED)
    assert month.why == "Clean: Throttled: too many", "names the month once"


def test_rejects_are_in_the_same_order_everywhere() -> None:
    first = stage("Load", "done", "a:", rows_read=20, rows=9, rows_rejected={"b": 1, "late": 9, "a": 1})
    second = stage("Load", "done", "a:", "2020-02", rows_read=20, rows=9, rows_rejected={"a": 2, "late": 1})
    outcome = outcomes.summarize([first, second])
    assert [list(month.rejected) for month in outcome.months] == [["late", "a", "b"], ["a", "late"]]
    assert list(outcome.rejected.items()) == [("late", 10), ("a", 3), ("b", 1)]


@pytest.mark.parametrize(("is_alive", "result"), [(True, "running"), (False, "crashed")])
def test_run_without_an_end(is_alive: bool, result: str) -> None:
    events = [BEGUN, TO_DO, stage("Clean", "running"), {"event": "waiting", "text": "luigid is paused"}]
    outcome = outcomes.summarize(events, is_alive)
    assert (outcome.result, outcome.end, outcome.waiting) == (result, None, "luigid is paused")
    assert outcome.months[0].was_killed is not is_alive


def test_second_plan_of_a_run_does_not_call_complete_what_the_run_did() -> None:
    again = plan(("green", "2020-01", "complete", ""))
    outcome = outcomes.summarize([BEGUN, *IN_LAKE, stage("Load", "done", "a:", **COUNTS), ALL_LOADED, again, ENDED])
    assert [month.state for month in outcome.months] == ["loaded"]


def test_a_task_that_has_no_month_is_a_failure_of_the_run() -> None:
    outcome = outcomes.summarize([BEGUN, given_up("Refresh"), ENDED])
    assert (outcome.failure, outcome.result) == ("Refresh: WarehouseBusy: held by a shell", "failed")


def test_why_a_run_is_not_well_is_one_line() -> None:
    failed = [stage("Clean", "failed", month="2020-02", error="WrongFormat", message="no Parquet file")]
    assert (
        outcomes.summarize([*failed, judged(30, "failed")]).why == "green 2020-02: Clean: WrongFormat: no Parquet file"
    )
    gap = plan(("green", "2020-02", MISSING, ""), ("green", "2020-01", "complete", ""))
    assert outcomes.summarize([gap, judged(20, "missing")]).why == f"green 2020-02: {MISSING}"
    refused = {**judged(35, "planning failed"), "failure": "no answer"}
    assert outcomes.summarize([*failed, refused]).why == "no answer"
    assert outcomes.summarize([judged(0, "complete")]).why == ""

"""The summary at the end of a run, at any width."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.planning.plan import MISSING
from pipeline.reporting import end_of_run, outcomes

COUNTS = {"rows_read": 1234567, "rows": 1234560, "rows_rejected": {"zero_passengers": 6, "pickup_outside_month": 1}}


def stage(
    name: str, state: str, month: str | None = "2020-01", dataset: str = "fhvhv", **details: Any
) -> dict[str, Any]:
    about = {"stage": name, "dataset": dataset, "month": month, "warehouse": None, "at": 100.0}
    return {"event": "stage", "state": state, **about, **details}


def lines_of(*events: dict[str, Any], **judged: Any) -> list[str]:
    begun = {
        "event": "begun",
        "at": 100.0,
        "run": "r1",
        "command": ["luigi", "--of-params", '{"a": "b c"}'],
        "host": "h",
    }
    verdict = {"event": "judged", "code": 0, "result": "complete", "failure": "", **judged}
    return list(
        end_of_run.summary(outcomes.summarize([begun, *events, verdict, {"event": "ended", "at": 161.0}]), None)
    )


def loaded(month: str, dataset: str = "green") -> list[dict[str, Any]]:
    return [stage("Load", "done", month, dataset, seconds=1.5, **COUNTS)]


@pytest.fixture(autouse=True)
def no_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(end_of_run.logs, "path", lambda: tmp_path / "r1.log")


def test_a_run_ends_with_a_total_its_id_and_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r1.log").touch()
    monkeypatch.chdir(tmp_path)
    lines = lines_of(*loaded("2020-01"), *loaded("2020-02"))
    (total,) = [line.split() for line in lines if line.split()[:1] == ["total"]]
    assert total == [
        "total",
        "2",
        "months",
        "2,469,134",
        "2,469,120",
        "12",
        "zero_passengers,",
        "2",
        "pickup_outside_month",
        "3.0",
    ]
    assert lines[-1] == "Run        r1, 1:01; log r1.log"
    assert not any(line.startswith("total") for line in lines_of(*loaded("2020-01")))


def test_a_failed_run_ends_with_each_reason_once_and_the_command_to_repeat() -> None:
    failed = stage("Clean", "failed", "2020-02", "green", seconds=1.0, error="WrongFormat", message="green 2020-02: no")
    lines = lines_of(*loaded("2020-01"), failed, code=30, result="failed")
    assert lines.count("green 2020-02: Clean: WrongFormat: no") == 1
    assert lines[-1] == """Again      luigi --of-params '{"a": "b c"}'"""


def test_reasons_of_rejects_stand_below_a_table_that_has_no_room_for_them() -> None:
    outcome = outcomes.summarize([*loaded("2020-01"), *loaded("2020-02")])
    narrow = list(end_of_run.table(outcome, width=80))
    assert narrow[-1] == "Rejected: 12 zero_passengers, 2 pickup_outside_month"
    assert re.search(r"green +2020-01 +1,234,567 +1,234,560 +7 +1.5 +loaded", "\n".join(narrow))
    assert all(len(line) <= 80 for line in narrow)
    assert not any(line.startswith("Rejected") for line in end_of_run.table(outcome, width=140))


def test_what_was_complete_before_is_counted_with_a_noun() -> None:
    entries = [
        ("green", "2019-01", "complete", ""),
        ("zones", None, "complete", ""),
        ("green", "2020-01", "to do", "new"),
    ]
    planned = {"event": "plan", "entries": entries}
    assert "1 month complete before this run." in lines_of(planned, *loaded("2020-01"))
    idle = {"event": "plan", "entries": [*entries[:2], ("green", "2030-01", "not yet published", "")]}
    assert lines_of(idle)[0] == "Nothing to do: 1 month complete, 1 month not yet published."


def test_total_counts_the_months_that_are_done() -> None:
    failed = stage("Clean", "failed", "2020-02", "green", error="WrongFormat", message="no")
    entries = [("green", "2020-01", "to do", ""), ("green", "2020-02", "to do", ""), ("zones", None, "to do", "")]
    planned = {"event": "plan", "entries": entries}
    lines = lines_of(planned, *loaded("2020-01"), failed, code=30, result="failed")
    (total,) = [line for line in lines if line.split()[:1] == ["total"]]
    assert total.split()[1:5] == ["1", "of", "2", "months"]
    outcome = outcomes.summarize(
        [planned, *loaded("2020-01"), stage("Clean", "started", "2020-02", "green")], is_alive=False
    )
    narrow = list(end_of_run.table(outcome, width=80))
    assert any(re.search(r"total +1 of 2  ", line) for line in narrow)
    assert any(line.rstrip().endswith("Clean not finished") for line in narrow), "the row has its state in one line"


def test_what_was_complete_before_is_counted_beside_gaps() -> None:
    entries = [("green", "2019-01", "complete", ""), ("green", "2019-02", MISSING, "")]
    lines = lines_of({"event": "plan", "entries": entries}, code=20, result="missing")
    assert "1 month complete before this run." in lines


@pytest.mark.parametrize(
    ("events", "datasets"),
    [
        ([*loaded("2020-01"), stage("Load", "done", None, "zones", rows=265)], {"green"}),
        (
            [
                {"event": "plan", "entries": [("fhv", "2019-01", "complete", ""), ("zones", None, "to do", "")]},
                stage("Load", "done", None, "zones", rows=265),
            ],
            {"fhv"},
        ),
        ([stage("Load", "done", None, "zones", rows=265)], {"zones"}),
        ([{"event": "plan", "entries": [("zones", None, "complete", "")]}], {"zones"}),
        ([], set()),
    ],
)
def test_months_are_looked_at_rather_than_zones(events: list[dict[str, Any]], datasets: set[str]) -> None:
    assert end_of_run._to_look_at(outcomes.summarize(events)) == datasets


def test_run_that_was_told_to_stop_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    stopped = outcomes.summarize([{"event": "judged", "code": 25, "result": "stopped", "failure": ""}])
    end_of_run.show(stopped, None)
    assert capsys.readouterr().err == "told to stop; the same command goes on from here\n"
    end_of_run.show(stopped, None, is_said=True)
    assert capsys.readouterr().err == ""


def test_places_are_named_as_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = outcomes.summarize([*loaded("2020-01"), {"event": "ended", "at": 161.0}])
    places = end_of_run.Places(f"file:{tmp_path}/lake", [f"duckdb:///{tmp_path}/w.duckdb"], is_synthetic=True)
    lines = list(end_of_run.summary(outcome, places))
    assert "These rows are synthetic: made on this machine, not TLC's." in lines
    assert "Lake       lake" in lines and "Warehouse  w.duckdb" in lines

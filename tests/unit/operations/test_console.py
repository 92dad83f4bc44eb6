"""What the table at the end of a run says of each month."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.operations.console import outcomes

COUNTS = {"rows_read": 10, "rows": 9, "rows_rejected": {"zero_passengers": 1}}


def stage(name: str, state: str, warehouse: str | None = None, **details: Any) -> dict[str, Any]:
    about = {"stage": name, "dataset": "green", "month": "2020-01", "warehouse": warehouse, "seconds": 1.0}
    wrong = {"error": "Throttled", "message": "too many"} if state == "failed" else {}
    return {"event": "stage", "state": state, **about, **wrong, **details}


@pytest.mark.parametrize(
    ("events", "state", "reason"),
    [
        ([stage("Download", "failed")], "failed: Throttled", "too many"),
        ([stage("Download", "failed"), stage("Download", "done"), stage("Load", "done", "a", **COUNTS)], "loaded", ""),
        ([stage("Load", "failed", "a"), stage("Load", "done", "b", **COUNTS)], "failed: Throttled", "too many"),
        ([stage("Load", "done", "b", **COUNTS), stage("Load", "failed", "a")], "failed: Throttled", "too many"),
        ([stage("Load", "failed", "a"), stage("Load", "done", "a", **COUNTS)], "loaded", ""),
        ([stage("Upload", "done", outcome="same bytes as before")], "same bytes as before", ""),
        ([stage("Load", "done", "a", outcome="done by another run")], "done by another run", ""),
        ([stage("Clean", "done"), stage("Upload", "done")], "in the lake", ""),
    ],
    ids=["failed", "tried again", "one of two warehouses", "the other", "loaded at last", "outcome", "raced", "stage"],
)
def test_month_has_failed_only_if_nobody_made_up_for_it(events: list[dict[str, Any]], state: str, reason: str) -> None:
    (outcome,) = outcomes(events, None).values()
    assert (outcome.state, outcome.reason) == (state, reason)
    assert outcome.seconds == len(events)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ([], "loaded by another run"),
        ([stage("Upload", "done")], "loaded by another run"),
        ([stage("Upload", "done"), stage("Load", "done", "a", **COUNTS)], "loaded"),
        ([stage("Upload", "done", outcome="same bytes as before")], "same bytes as before"),
    ],
    ids=["all of it", "the rest of it", "nothing of it", "no news"],
)
def test_month_that_another_run_has_loaded(events: list[dict[str, Any]], state: str) -> None:
    done = {"event": "all loaded", "dataset": "green", "month": "2020-01"}
    (outcome,) = outcomes([*events, done], None).values()
    assert outcome.state == state

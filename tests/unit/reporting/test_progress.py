"""Progress that luigid shows while a stage runs."""

from __future__ import annotations

import pytest
from luigi.rpc import RPCError

from pipeline.reporting import progress
from tests.patience import Clock


def test_luigid_that_does_not_answer_is_told_nothing_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, told, is_away = Clock(), [], True

    class Task:
        def set_status_message(self, text: str) -> None:
            told.append(text)
            if is_away:
                clock.sleep(10)
                raise RPCError("no answer")

    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "_silent_until", 0.0)
    for text in ("first", "while it is silent"):
        progress.tell(Task(), "status_message", text)
    clock.sleep(10 * progress.SILENT + 1)
    is_away = False
    for text in ("when it is back", "and from then on"):
        progress.tell(Task(), "status_message", text)
    progress.tell(object(), "status_message", "a task that does not run is asked nothing")
    assert told == ["first", "when it is back", "and from then on"]

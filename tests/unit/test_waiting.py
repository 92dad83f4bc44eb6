"""Waits for others: reported after a while, limited per stage, shorter while a person waits."""

from __future__ import annotations

import pytest

from pipeline import waiting


class Heard(waiting.Listener):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.in_vain: list[tuple[str, str]] = []

    def waiting(self, text: str) -> None:
        self.texts.append(text)

    def gave_up(self, what: str, whom: str) -> None:
        self.in_vain.append((what, whom))

    def has_given_up(self, what: str, whom: str) -> bool:
        return (what, whom) in self.in_vain


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only the test moves: its one item are the seconds."""
    seconds = [100.0]
    monkeypatch.setattr(waiting.time, "monotonic", lambda: seconds[0])
    return seconds


def test_a_wait_is_said_once_and_its_end_too(clock: list[float]) -> None:
    heard = Heard()
    with waiting.reported_to(heard), waiting.Wait(60, "the database") as wait:
        for _ in range(20):
            assert wait.left("python (PID 12)")
            clock[0] += 1
        assert heard.texts == ["waits for python (PID 12), which holds the database, for at most 60 s"]
    assert heard.texts[1:] == [""]


def test_a_short_wait_is_not_said(clock: list[float]) -> None:
    heard = Heard()
    with waiting.reported_to(heard), waiting.Wait(60, "it") as wait:
        wait.left("somebody")
        clock[0] += 4
        wait.left("somebody")
    assert not heard.texts


def test_all_waits_of_one_piece_of_work_share_the_limit(clock: list[float]) -> None:
    heard = Heard()
    with waiting.reported_to(heard):
        with waiting.Wait(60, "it") as wait:
            wait.left("one")
            clock[0] += 50
        with waiting.Wait(60, "it") as wait:
            assert wait.left("another") == 10
            clock[0] += 11
            assert wait.left("another") == 0
        with waiting.Wait(60, "something else") as wait:
            assert wait.left("one") == 60
    with waiting.reported_to(heard), waiting.Wait(60, "it") as wait:
        assert wait.left("one") == 60


def test_whom_a_run_has_waited_for_in_vain_it_only_glances_at(clock: list[float]) -> None:
    heard = Heard()
    for expected in (60, waiting.SHORT_WAIT, waiting.SHORT_WAIT):
        with waiting.reported_to(heard), waiting.Wait(60, "it") as wait:
            assert wait.left("one") == expected
            clock[0] += expected
            assert wait.left("one") == 0
            assert waiting.gave_up("it", "one") is (expected == waiting.SHORT_WAIT)
    with waiting.reported_to(heard), waiting.Wait(60, "it") as wait:
        assert wait.left("another") == 60

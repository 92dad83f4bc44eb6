"""Which state a task reads: the one that its caller gave it while that is open, else a new one for each question."""

from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import luigi
import pytest
from luigi.worker import TaskProcess

import pipeline
from pipeline.planning.state import CachedState, State
from pipeline.planning.task_state import UsesState, give_state, is_complete
from pipeline.runner.task_context import TaskContext

MONTHS = [dt.date(2020, month, 1) for month in (1, 2, 3)]


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    return {
        "publisher": "sample",
        "lake": f"file:{tmp_path}/lake",
        "workspace": f"file:{tmp_path}/workspace",
        "warehouse": "",
    }


@pytest.fixture
def month(places: dict[str, str]) -> pipeline.MonthlyTrips:
    return pipeline.MonthlyTrips(dataset="green", month=MONTHS[0], **places)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[State]:
    """The states that were asked for a manifest, each time one was."""
    found: list[State] = []
    answer = State.manifest

    def manifest(self: State, *args: Any) -> Any:
        found.append(self)
        return answer(self, *args)

    monkeypatch.setattr(State, "manifest", manifest)
    return found


def test_a_task_without_a_given_state_makes_a_new_one_for_each_question(
    month: pipeline.MonthlyTrips, asked: list[State]
) -> None:
    assert not month.complete() and not month.complete()
    assert len(set(map(id, asked))) == 2 and {type(state) for state in asked} == {State}


def test_a_given_state_is_passed_on_until_it_is_closed(month: pipeline.MonthlyTrips) -> None:
    with CachedState() as state:
        give_state(month, state)
        family = [month, *month.requires(), *month.requires()[0].deps()]
        assert len(family) > 2 and {id(task.given_state) for task in family} == {id(state)}
    assert all(task.given_state is None for task in family), "what was found is history"


def test_a_fresh_state_gives_way_to_the_one_before(month: pipeline.MonthlyTrips) -> None:
    with CachedState() as before:
        give_state(month, before)
        with month.fresh_state() as fresh:
            assert month.given_state is fresh and fresh is not before
        assert not fresh.is_open and month.given_state is before


def test_a_state_stays_in_its_process(month: pipeline.MonthlyTrips) -> None:
    with CachedState() as state:
        for task in (month, pipeline.RangeMonthly(of=pipeline.MonthlyTrips, start=MONTHS[0], stop=MONTHS[1])):
            give_state(task, state)
            assert pickle.loads(pickle.dumps(task)).given_state is None and task.given_state is state


def test_what_spans_months_never_asks_for_them_one_by_one() -> None:
    span = pipeline.RangeMonthly(of=pipeline.MonthlyTrips, start=MONTHS[0], stop=MONTHS[1])
    with State() as state:
        give_state(span, state)
        with span.shared_state() as shared:
            assert isinstance(shared, CachedState)


def test_somebody_elses_wrapper_is_one_question_to_the_lake(places: dict[str, str], asked: list[State]) -> None:
    class Quarter(luigi.WrapperTask):
        def requires(self) -> list[luigi.Task]:
            return [pipeline.MonthlyTrips(dataset="green", month=month, **places) for month in MONTHS]

    class Year(luigi.WrapperTask):
        def requires(self) -> luigi.Task:
            return Quarter()

    with CachedState() as state:
        give_state(Year(), state)
        assert [task.given_state for task in Quarter().requires()] == [state] * len(MONTHS)
        assert not is_complete(Year(), state)
    assert asked and set(map(id, asked)) == {id(state)}


def test_somebody_elses_wrapper_that_many_require_is_looked_through_once() -> None:
    looked: list[int] = []

    class Diamond(luigi.WrapperTask):
        level = luigi.IntParameter()
        side = luigi.IntParameter(default=0)

        def requires(self) -> list[luigi.Task]:
            looked.append(self.level)
            return [Diamond(level=self.level - 1, side=side) for side in (0, 1) if self.level]

    with CachedState() as state:
        for _ in range(2):
            give_state(Diamond(level=9), state)
    assert sorted(looked) == sorted([9, *(level for level in range(9) for _ in (0, 1))])


def test_a_wrapper_whose_needs_cannot_be_told_is_left_to_luigi() -> None:
    class Broken(luigi.WrapperTask):
        def requires(self) -> list[luigi.Task]:
            raise ValueError("broken")

    with CachedState() as state, pytest.raises(ValueError, match="broken"):
        is_complete(Broken(), state)


class Reporter:
    """Luigi's reporter of a task, as far as a task context knows it."""

    _scheduler = None


def test_months_that_somebody_elses_task_needs_while_it_runs_are_asked_of_one_state(
    places: dict[str, str], asked: list[State], monkeypatch: pytest.MonkeyPatch
) -> None:
    months = [pipeline.MonthlyTrips(dataset="green", month=month, **places) for month in MONTHS]

    def has_no_manifest(month: pipeline.MonthlyTrips) -> bool:
        with month.shared_state() as state:
            return month.completeness(state).manifest is None

    monkeypatch.setattr(pipeline.MonthlyTrips, "complete", has_no_manifest)

    class Report(luigi.Task):
        def run(self) -> Iterator[list[luigi.Task]]:
            for month in months:
                yield [month]

    process = TaskProcess(Report(), "worker", None, Reporter())
    with CachedState() as planned:
        for task in months:
            give_state(task, planned)
        with TaskContext(process):
            assert process._run_get_new_deps() is None
    assert len(asked) == len(MONTHS) and len(set(map(id, asked))) == 1 and planned not in asked


def test_a_task_that_has_run_is_asked_anew(month: pipeline.MonthlyTrips, asked: list[State]) -> None:
    """[worker] check_complete_on_run: what it found before it ran is no answer."""
    process = TaskProcess(month, "worker", None, Reporter())
    with TaskContext(process):
        before = month.given_state
        assert not month.complete() and not process.check_complete(month)
        assert asked[0] is before and asked[-1] is not before
        assert isinstance(month, UsesState) and month.given_state is not before

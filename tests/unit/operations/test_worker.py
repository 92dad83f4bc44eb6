"""What luigid is told of an error, and what the scheduler does with it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import luigi
import luigi.scheduler
import pytest

from pipeline.errors import Throttled, WrongFormat
from pipeline.operations.worker import NOT_AGAIN, Worker, explain


def test_explanations_name_the_month_in_one_line() -> None:
    assert explain("Clean green 2020-03", Throttled("too many")) == "Clean green 2020-03: Throttled: too many"
    assert explain("Clean green 2020-03", WrongFormat("a page")) == (
        f"Clean green 2020-03: WrongFormat: a page {NOT_AGAIN}"
    )
    unforeseen = explain("Clean green 2020-03", KeyError("x"))
    assert unforeseen.startswith("Clean green 2020-03: ") and unforeseen.endswith(NOT_AGAIN)
    assert "KeyError: 'x'" in unforeseen
    assert NOT_AGAIN not in explain("Load", RuntimeError("Unfulfilled dependency at run time: Upload"))


class Fails(luigi.Task):
    """Raises the first of the errors that are left."""

    name = luigi.Parameter()
    errors: ClassVar[list[Exception]] = []
    runs: ClassVar[int] = 0
    done: ClassVar[bool] = False

    def complete(self) -> bool:
        return Fails.done

    def run(self) -> None:
        Fails.runs += 1
        if Fails.errors:
            raise Fails.errors.pop(0)
        Fails.done = True

    def on_failure(self, exception: BaseException) -> str:
        return explain("Fails", exception)


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("errors", []), ("runs", 0), ("done", False)):
        monkeypatch.setattr(Fails, name, value)
    for name, value in (("done", set()), ("started", []), ("during", {})):
        monkeypatch.setattr(Step, name, value)


@pytest.fixture(autouse=True)
def events(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the journal is told."""
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        "pipeline.operations.journal.record", lambda event, **details: told.append({"event": event, **details})
    )
    monkeypatch.setattr("pipeline.operations.journal.is_mine", lambda: True)
    return told


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is logged as a warning or worse."""
    logged: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            logged.append(record.getMessage())

    for name in ("pipeline", "luigi-interface"):
        monkeypatch.setattr(logging.getLogger(name), "handlers", [Lines(logging.WARNING)])
    return logged


def make_worker(scheduler: Any) -> Worker:
    return Worker(scheduler=scheduler, keep_alive=True, wait_interval=0.01, wait_jitter=0.0)


def run(scheduler: Any, task: luigi.Task | None = None) -> Worker:
    """A run that is told to stop after a minute: without what is tested here it would wait for ever."""
    worker = make_worker(scheduler)
    with worker:
        worker.add(task or Fails("a"))
        alarm = threading.Timer(60, worker._start_phasing_out)
        alarm.start()
        worker.run()
        alarm.cancel()
    return worker


def make_scheduler(retry_count: int = 5) -> Any:
    return luigi.scheduler.Scheduler(
        prune_on_get_work=True, retry_delay=0.01, retry_count=retry_count, disable_persist=600
    )


def test_terminal_error_is_not_repeated_but_the_next_call_tries_again() -> None:
    scheduler = make_scheduler()
    Fails.errors = [WrongFormat("a page")]
    run(scheduler)
    assert Fails.runs == 1
    assert list(scheduler.task_list("DISABLED", "")) == [Fails("a").task_id]
    run(scheduler)
    assert (Fails.runs, Fails.done) == (2, True)


def test_error_that_may_pass_is_repeated() -> None:
    Fails.errors = [Throttled("too many"), Throttled("too many")]
    run(make_scheduler())
    assert (Fails.runs, Fails.done) == (3, True)


def test_error_that_does_not_pass_ends_the_run_and_leaves_the_next_call_free() -> None:
    scheduler = make_scheduler(retry_count=3)
    Fails.errors = [Throttled("too many")] * 3
    run(scheduler)
    assert (Fails.runs, Fails.done) == (3, False)
    run(scheduler)
    assert (Fails.runs, Fails.done) == (4, True)


def test_scheduler_that_would_repeat_for_ever_is_not_followed() -> None:
    Fails.errors = [Throttled("too many")] * 10
    run(make_scheduler(retry_count=999_999_999))
    assert Fails.runs == 5


def test_scheduler_that_waits_long_before_it_repeats_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.operations.worker.PATIENCE", 0.1)
    scheduler = make_scheduler()
    monkeypatch.setattr(scheduler._config, "retry_delay", 900)  # which all schedulers share
    Fails.errors = [Throttled("too many")]
    run(scheduler)
    assert (Fails.runs, Fails.done) == (1, False)
    run(scheduler)
    assert (Fails.runs, Fails.done) == (2, True), "the next call tries at once"


def test_what_others_did_counts_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make_scheduler()

    def done_by_another(self: Any) -> None:
        Fails.done = True
        raise KeyError("lost the race")

    monkeypatch.setattr(Fails, "run", done_by_another)
    scheduler.add_task(task_id=Fails("a").task_id, worker="another", status="PENDING", family="Fails")
    scheduler.get_work(worker="another")  # takes it
    worker = Worker(scheduler=scheduler)
    with worker:
        worker.add(Fails("a"))
        Fails.done = True
        worker.run()
    assert (Fails("a"), "DONE", None) in worker._add_task_history


def test_run_that_the_scheduler_forgot_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make_scheduler()
    worker = Worker(scheduler=scheduler)
    with worker:
        worker.add(Fails("a"))
        scheduler._state.inactivate_tasks([Fails("a").task_id])
        worker.run()
    assert (Fails.runs, Fails.done) == (1, True)


class Then(luigi.Task):
    """Comes after the one that fails or not."""

    def requires(self) -> luigi.Task:
        return Fails("a")

    def complete(self) -> bool:
        return False

    def run(self) -> None:
        Fails.runs += 10


@pytest.mark.parametrize("was_done", [True, False], ids=["done and not told", "not done"])
def test_task_whose_host_was_cut_off_is_taken_over(was_done: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counted as complete, or ran elsewhere, when this run was planned: then the scheduler does not listen."""
    monkeypatch.setattr("pipeline.operations.worker.LOOK_EVERY", 0.1)
    scheduler = make_scheduler()
    scheduler.add_task(task_id=Fails("a").task_id, worker="cut off", status="PENDING", family="Fails")
    assert scheduler.get_work(worker="cut off")["task_id"] == Fails("a").task_id
    Fails.done = True
    worker = Worker(scheduler=scheduler, keep_alive=True, wait_interval=0.01, wait_jitter=0.0)
    with worker:
        worker.add(Then())
        Fails.done = was_done
        scheduler._state.inactivate_workers(["cut off"])
        alarm = threading.Timer(20, worker._start_phasing_out)  # without being taken over it would wait for ever
        alarm.start()
        worker.run()
        alarm.cancel()
    assert Fails.runs == (10 if was_done else 11)


# -- a scheduler that is wrong ---------------------------------------------------------------------


class Step(luigi.Task):
    """One of a chain: needs the step before it. The first has number 0."""

    number = luigi.IntParameter()
    done: ClassVar[set[int]] = set()
    started: ClassVar[list[int]] = []
    during: ClassVar[dict[int, list[Callable[[], object]]]] = {}  # what happens while a step runs, in its first runs

    def requires(self) -> list[luigi.Task]:
        return [Step(self.number - 1)] if self.number else []

    def complete(self) -> bool:
        return self.number in Step.done

    def run(self) -> None:
        Step.started.append(self.number)
        if Step.during.get(self.number):
            Step.during[self.number].pop(0)()
        Step.done.add(self.number)

    def on_failure(self, exception: BaseException) -> str:
        return explain(f"Step {self.number}", exception)


ROOT = 3


def lose_state(scheduler: Any) -> None:
    """As luigid does that is killed and started again; whoever is being answered gets the answer."""
    for table in (scheduler._state._tasks, scheduler._state._status_tasks, scheduler._state._active_workers):
        table.clear()


def believed_done(scheduler: Any, number: int) -> None:
    """Somebody marks a step as done on luigid's page, after it has failed in an earlier run."""
    scheduler.add_task(task_id=Step(number).task_id, worker="earlier", status="DISABLED", family="Step")
    assert scheduler.mark_as_done(task_id=Step(number).task_id)["status"] == "DONE"


@pytest.mark.parametrize("number", range(ROOT + 1))
def test_task_that_was_marked_as_done_is_done_by_the_next_call(number: int, lines: list[str]) -> None:
    scheduler = make_scheduler()
    believed_done(scheduler, number)
    worker = run(scheduler, Step(ROOT))
    assert sorted(Step.started) == list(range(ROOT + 1)), "each once"
    assert not any(status == "FAILED" for _, status, _ in worker._add_task_history)
    assert worker.run_succeeded and not any("Traceback" in line or "Unfulfilled" in line for line in lines)
    assert len(scheduler.task_list("DONE", "")) == ROOT + 1


@pytest.mark.parametrize("number", range(ROOT))
@pytest.mark.parametrize("error", [Throttled("too many"), WrongFormat("a page")], ids=["passing", "for good"])
def test_task_that_is_marked_as_done_after_it_failed_in_this_run_is_tried_again(
    number: int, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = make_scheduler()
    monkeypatch.setattr(scheduler._config, "retry_delay", 900)  # which all schedulers share
    worker = make_worker(scheduler)
    mark, failed = scheduler.mark_as_done, worker._failed

    def fails() -> None:
        raise error

    def failed_and_marked(task_id: str, explanation: str) -> None:
        failed(task_id, explanation)
        mark(task_id=task_id)

    monkeypatch.setattr(worker, "_failed", failed_and_marked)
    Step.during = {number: [fails]}
    with worker:
        worker.add(Step(ROOT))
        worker.run()
    assert (Step.done, Step.started.count(number)) == (set(range(ROOT + 1)), 2)


@pytest.mark.parametrize("number", range(ROOT + 1))
def test_run_goes_on_when_the_scheduler_loses_its_state(number: int, lines: list[str]) -> None:
    """While a step runs: those before it are done, and the scheduler does not know of them any more."""
    scheduler = make_scheduler()
    Step.during = {number: [lambda: lose_state(scheduler)]}
    worker = run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1)) and worker.run_succeeded
    assert not lines, "nobody need look after it"


@pytest.mark.parametrize("number", range(ROOT + 1))
@pytest.mark.parametrize("kept", range(ROOT + 1))
def test_run_goes_on_when_the_scheduler_has_kept_some_of_its_state(
    number: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As luigid that was killed while it was told of the tasks: it knows one, and that this needs another."""
    monkeypatch.setattr("pipeline.operations.worker.LOOK_EVERY", 0.05)
    scheduler = make_scheduler()

    def lose_most() -> None:
        worker_id = next(iter(scheduler._state.get_worker_ids()))
        lose_state(scheduler)
        needed = [task.task_id for task in Step(kept).deps()]
        scheduler.add_task(task_id=Step(kept).task_id, worker=worker_id, family="Step", deps=needed)

    Step.during = {number: [lose_most]}
    run(scheduler, Step(ROOT))
    assert sorted(set(Step.started)) == list(range(ROOT + 1)) and Step.done == set(range(ROOT + 1))


def test_several_tasks_of_one_run_are_all_announced_again() -> None:
    scheduler = make_scheduler()
    worker = make_worker(scheduler)
    Step.during = {ROOT: [lambda: lose_state(scheduler)]}
    with worker:
        worker.add(Step(ROOT))
        worker.add(Then())
        Fails.errors = [WrongFormat("a page")]
        worker.run()
    assert Step.done == set(range(ROOT + 1))
    assert Fails.runs == 1, "what failed for good is not tried again, though the scheduler forgot that too"


@pytest.mark.parametrize("times", [1, 2, 3])
def test_dependency_that_is_taken_away_is_done_again(times: int, lines: list[str]) -> None:
    left = [0] * times

    def take_away(task: Any) -> None:
        if task.number in left:
            left.remove(task.number)
            Step.done.discard(task.number)

    Step.event_handler(luigi.Event.SUCCESS)(take_away)
    try:
        worker = run(make_scheduler(), Step(ROOT))
    finally:
        Step.remove_event_handler(luigi.Event.SUCCESS, take_away)
    assert Step.done == set(range(ROOT + 1)) and Step.started.count(0) == times + 1
    assert worker.run_succeeded and len(lines) == times
    assert all(f"{Step(0).task_id} is not there" in line for line in lines)


def test_dependency_that_never_stays_ends_as_a_failure(events: list[dict[str, Any]]) -> None:
    class Vanishes(luigi.Task):
        def complete(self) -> bool:
            return False

        def run(self) -> None:
            Fails.runs += 1

    class Needs(luigi.Task):
        def requires(self) -> luigi.Task:
            return Vanishes()

        def complete(self) -> bool:
            return False

    run(make_scheduler(), Needs())
    assert 1 < Fails.runs < 20
    (given_up,) = [event for event in events if event["event"] == "given up"]
    assert given_up["family"] == "Needs" and "Unfulfilled dependency" in given_up["message"]


def test_missing_file_of_somebody_else_is_a_failure_as_luigi_has_it() -> None:
    class File(luigi.ExternalTask):
        there = True

        def complete(self) -> bool:
            return self.there

    class Needs(luigi.Task):
        def requires(self) -> luigi.Task:
            return File()

        def complete(self) -> bool:
            return False

        def run(self) -> None:
            raise AssertionError("its file is not there")

    worker = make_worker(make_scheduler(retry_count=1))
    with worker:
        worker.add(Needs())
        File.there = False
        worker.run()
    assert (Needs(), "FAILED", None) in worker._add_task_history


def test_task_that_the_scheduler_disabled_by_itself_is_tried_by_the_next_call() -> None:
    """As after the deaths of hosts, of which no worker could tell."""
    scheduler = make_scheduler(retry_count=1)
    scheduler.add_task(task_id=Step(0).task_id, worker="dead", family="Step")
    assert scheduler.get_work(worker="dead")["task_id"] == Step(0).task_id
    scheduler._state.inactivate_workers(["dead"])
    scheduler.prune()
    assert list(scheduler.task_list("DISABLED", "")) == [Step(0).task_id]
    run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1))

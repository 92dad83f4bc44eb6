"""Failed tasks: the text that luigid shows, and what the scheduler does with it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from typing import Any, ClassVar

import luigi
import luigi.scheduler
import pytest
from luigi.rpc import RemoteScheduler, RPCError

from pipeline.errors import TakenAway, Throttled, WrongFormat
from pipeline.reporting.explanations import NOT_AGAIN, error_of, explain
from pipeline.runner.lost_tasks import ANNOUNCEMENTS
from pipeline.runner.rpc import Luigid
from pipeline.runner.worker import Worker
from tests.patience import PATIENCE


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

    title = "Fails"

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
        "pipeline.reporting.journal.record", lambda event, **details: told.append({"event": event, **details})
    )
    monkeypatch.setattr("pipeline.reporting.journal.is_mine", lambda: True)
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


def finish(worker: Worker) -> None:
    """Run, and stop in the end: without what is tested here some runs would wait for ever."""
    alarm = threading.Timer(PATIENCE, worker._start_phasing_out)
    alarm.start()
    try:
        worker.run()
    finally:
        alarm.cancel()


def run(scheduler: Any, task: luigi.Task | None = None) -> Worker:
    worker = make_worker(scheduler)
    with worker:
        worker.add(task or Fails("a"))
        finish(worker)
    return worker


def make_scheduler(retry_count: int = 5, resources: dict[str, int] | None = None, retry_delay: float = 0.01) -> Any:
    return luigi.scheduler.Scheduler(
        resources=resources,
        prune_on_get_work=True,
        retry_delay=retry_delay,
        retry_count=retry_count,
        disable_persist=600,
        worker_disconnect_delay=300,
    )


def test_terminal_error_is_not_repeated_but_the_next_call_tries_again() -> None:
    scheduler = make_scheduler()
    Fails.errors = [WrongFormat("a page")]
    run(scheduler)
    assert Fails.runs == 1
    (shown,) = scheduler.task_list("DISABLED", "").values()
    assert shown["status_message"] == "WrongFormat: a page", "the page says why"
    run(scheduler)
    assert (Fails.runs, Fails.done) == (2, True)


class Asks(luigi.Task):
    """Finds out while it runs that it needs the task that fails."""

    number = luigi.IntParameter()

    def complete(self) -> bool:
        return False

    def run(self) -> Any:
        yield Fails("a")


def test_terminal_error_is_not_repeated_for_each_task_that_asks_for_it() -> None:
    Fails.errors = [WrongFormat("a page")] * 3
    worker = make_worker(make_scheduler())
    with worker:
        for number in range(3):
            worker.add(Asks(number))
        finish(worker)
    assert Fails.runs == 1


def test_error_that_may_pass_is_repeated() -> None:
    Fails.errors = [Throttled("too many"), Throttled("too many")]
    run(make_scheduler())
    assert (Fails.runs, Fails.done) == (3, True)


def test_error_that_does_not_pass_ends_the_run_and_leaves_the_next_call_free() -> None:
    scheduler = make_scheduler()
    Fails.errors = [Throttled("too many")] * 5
    run(scheduler)
    assert (Fails.runs, Fails.done) == (5, False)
    run(scheduler)
    assert (Fails.runs, Fails.done) == (6, True)


def test_scheduler_that_gives_up_sooner_is_asked_once_more() -> None:
    Fails.errors = [Throttled("too many")] * 10
    run(make_scheduler(retry_count=2))
    assert Fails.runs == 4


def test_scheduler_that_would_repeat_for_ever_is_not_followed() -> None:
    Fails.errors = [Throttled("too many")] * 10
    run(make_scheduler(retry_count=999_999_999))
    assert Fails.runs == 5


def test_scheduler_that_waits_long_before_it_repeats_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runner.failures.OFFERED_WITHIN", 0.1)
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
        finish(worker)
    assert (Fails("a"), "DONE", None) in worker._add_task_history


def test_run_that_the_scheduler_forgot_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler = make_scheduler()
    worker = Worker(scheduler=scheduler)
    with worker:
        worker.add(Fails("a"))
        scheduler._state.inactivate_tasks([Fails("a").task_id])
        finish(worker)
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
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.1)
    scheduler = make_scheduler()
    scheduler.add_task(task_id=Fails("a").task_id, worker="cut off", status="PENDING", family="Fails")
    assert scheduler.get_work(worker="cut off")["task_id"] == Fails("a").task_id
    Fails.done = True
    worker = Worker(scheduler=scheduler, keep_alive=True, wait_interval=0.01, wait_jitter=0.0)
    with worker:
        worker.add(Then())
        Fails.done = was_done
        scheduler._state.inactivate_workers(["cut off"])
        finish(worker)
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
    scheduler = make_scheduler(retry_delay=900)
    worker = make_worker(scheduler)
    mark, failed = scheduler.mark_as_done, worker._failures.note

    def fails() -> None:
        raise error

    def failed_and_marked(task_id: str, explanation: str) -> None:
        failed(task_id, explanation)
        mark(task_id=task_id)

    monkeypatch.setattr(worker._failures, "note", failed_and_marked)
    Step.during = {number: [fails]}
    with worker:
        worker.add(Step(ROOT))
        finish(worker)
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
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.05)
    scheduler = make_scheduler()

    def lose_most() -> None:
        worker_id = next(iter(scheduler._state.get_worker_ids()))
        lose_state(scheduler)
        needed = [task.task_id for task in Step(kept).deps()]
        scheduler.add_task(task_id=Step(kept).task_id, worker=worker_id, family="Step", deps=needed)

    Step.during = {number: [lose_most]}
    run(scheduler, Step(ROOT))
    assert sorted(set(Step.started)) == list(range(ROOT + 1)) and Step.done == set(range(ROOT + 1))


@pytest.mark.parametrize("number", range(ROOT))
def test_run_goes_on_when_the_scheduler_knows_its_tasks_from_another_run_only(number: int) -> None:
    scheduler = make_scheduler()

    def only_another() -> None:
        lose_state(scheduler)
        for task in map(Step, range(ROOT + 1)):
            needed = [dependency.task_id for dependency in task.deps()]
            scheduler.add_task(task_id=task.task_id, worker="another", family="Step", deps=needed)

    Step.during = {number: [only_another]}
    worker = run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1)) and worker.run_succeeded


def test_scheduler_that_forgets_all_it_is_told_does_not_keep_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.0)
    scheduler = make_scheduler()
    get_work = scheduler.get_work

    def forgetful(**asked: Any) -> Any:
        lose_state(scheduler)
        return get_work(**asked)

    monkeypatch.setattr(scheduler, "get_work", forgetful)
    worker = run(scheduler, Step(0))
    assert worker._lost._announcements == {Step(0).task_id: ANNOUNCEMENTS}
    assert not Step.started and not worker._stop_requesting_work, "it has ended by itself"


def test_several_tasks_of_one_run_are_all_announced_again() -> None:
    scheduler = make_scheduler()
    worker = make_worker(scheduler)
    Step.during = {ROOT: [lambda: lose_state(scheduler)]}
    with worker:
        worker.add(Step(ROOT))
        worker.add(Then())
        Fails.errors = [WrongFormat("a page")]
        finish(worker)
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
    assert all(f"needs {Step(0).task_id}, which is not there" in line for line in lines)


def test_dependency_that_is_taken_away_while_a_task_waits_is_done_again(lines: list[str]) -> None:
    def take_away() -> None:
        Step.done.discard(1)
        raise TakenAway("what step 1 made is gone", may_return=False)

    Step.during[2] = [take_away]
    worker = run(make_scheduler(), Step(ROOT))
    assert Step.done == set(range(ROOT + 1)) and worker.run_succeeded
    assert (Step.started.count(1), Step.started.count(2)) == (2, 2)
    assert not any(status == "FAILED" for _, status, _ in worker._add_task_history)
    (line,) = lines
    assert f"needs {Step(1).task_id}, which is not there" in line


def test_dependency_that_never_stays_ends_as_a_failure(events: list[dict[str, Any]], lines: list[str]) -> None:
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
    assert given_up["family"] == "Needs" and "is gone again" in given_up["message"]
    assert not any("Traceback" in line for line in lines)
    assert ["is gone again" in line for line in lines].count(True) == 1 and "run again when" in lines[-1]


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
        finish(worker)
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


def test_task_that_the_scheduler_disables_in_the_middle_of_a_run_because_earlier_ones_died_is_done_here() -> None:
    scheduler = make_scheduler(retry_count=1)
    take(scheduler, Step(2), "dead")
    Step.during = {0: [lambda: scheduler._state.inactivate_workers(["dead"])]}
    worker = run(scheduler, Step(ROOT))
    assert worker.run_succeeded and Step.started == list(range(ROOT + 1))


@pytest.mark.parametrize("errors", [1, 4])
def test_failures_in_earlier_runs_do_not_count(errors: int, events: list[dict[str, Any]]) -> None:
    """As often as a task may fail in one hour, the scheduler says, and means all runs."""
    scheduler = make_scheduler()
    for _ in range(4):
        take(scheduler, Fails("a"), "dead")
        scheduler.add_task(task_id=Fails("a").task_id, worker="dead", status="FAILED", expl='"Fails: its process died"')
    Fails.errors = [Throttled("too many") for _ in range(errors)]
    run(scheduler)
    assert (Fails.runs, Fails.done) == (errors + 1, True)
    assert not [event for event in events if event["event"] == "given up"]


def test_task_whose_hosts_die_again_and_again_ends_as_a_failure(events: list[dict[str, Any]]) -> None:
    scheduler = make_scheduler(retry_count=1)
    worker = make_worker(scheduler)

    def another_dies() -> Any:
        for task in scheduler._state.get_active_tasks():
            if task.id == Step(0).task_id and task.status == "PENDING":
                scheduler._state.set_status(task, "FAILED", scheduler._config)
        return get_work()

    with worker:
        worker.add(Step(ROOT))
        get_work, worker._get_work = worker._get_work, another_dies  # type: ignore[method-assign]
        finish(worker)
    assert Step.started == [] and given_up(events)["message"] == "the hosts that did it died"


def test_task_whose_host_died_is_soon_done_here_whatever_the_scheduler_would_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.runner.failures.OFFERED_WITHIN", 0.1)
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.01)
    scheduler = make_scheduler(retry_delay=900)
    scheduler.add_task(task_id=Step(0).task_id, worker="dead", family="Step")
    assert scheduler.get_work(worker="dead")["task_id"] == Step(0).task_id
    scheduler._state.inactivate_workers(["dead"])
    run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1))


# -- what a run waits for --------------------------------------------------------------------------


class Heavy(Step):
    """A step that needs memory."""

    resources: ClassVar[dict[str, int]] = {"memory": 1}


OTHER = "Worker(salt=1, workers=1, host=far, username=u, pid=12)"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[[luigi.Task, Any, Callable[[], object]], str]:
    """What a run says while it waits, and that it says it once; what then happens ends the wait."""
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.01)
    monkeypatch.setattr("pipeline.runner.idle.SAID_AFTER", 0.0)

    def wait(task: luigi.Task, scheduler: Any, end: Callable[[], object]) -> str:
        texts: list[str] = []
        lines: list[str] = []

        def record(event: str, **details: Any) -> None:
            if event == "waiting":
                texts.append(details["text"])
                if len(texts) == 3:  # told to the bar at each look
                    end()

        monkeypatch.setattr("pipeline.reporting.journal.record", record)
        monkeypatch.setattr("pipeline.reporting.progress.LOGGER.warning", lambda text, *args: lines.append(text % args))
        run(scheduler, task)
        assert task.complete()
        assert texts[0] == texts[2] and texts[-1] == "", "the bar goes on with the run"
        (line,) = {line for line in lines if texts[0] in line}
        assert lines.count(line) == 1 and line.startswith("this run waits ")
        return line.removeprefix("this run waits ")

    return wait


def take(scheduler: Any, task: luigi.Task, worker: str = OTHER) -> None:
    """Another run does the task."""
    scheduler.add_worker(worker, [("host", "far"), ("pid", 12)])
    scheduler.add_task(
        task_id=task.task_id,
        worker=worker,
        family=task.task_family,
        resources=task.process_resources(),
        params={"dataset": "green", "month": "2020-01"},
    )
    assert scheduler.get_work(worker=worker)["task_id"] == task.task_id


def test_run_says_that_luigid_is_paused(said: Any) -> None:
    scheduler = make_scheduler()
    scheduler.pause()
    assert "luigid is paused" in said(Step(0), scheduler, scheduler.unpause)


def test_run_says_which_resource_is_nil(said: Any) -> None:
    scheduler = make_scheduler(resources={"memory": 0})
    line = said(Heavy(0), scheduler, lambda: scheduler.update_resource("memory", 1))
    assert "[resources] memory = 0" in line and "raise it" in line


@pytest.mark.parametrize("resources", [{"memory": 1}, {"other": 1}], ids=["named", "not named"])
def test_run_says_who_has_taken_a_resource(said: Any, resources: dict[str, int]) -> None:
    scheduler = make_scheduler(resources=resources)
    take(scheduler, Heavy(7))
    done = {"task_id": Heavy(7).task_id, "worker": OTHER, "status": "DONE"}
    line = said(Heavy(0), scheduler, lambda: scheduler.add_task(**done))
    assert "[resources] memory = 1 is taken by Heavy green 2020-01 (PID 12 on far)" in line


def test_run_says_who_does_what_it_needs(said: Any) -> None:
    scheduler = make_scheduler()
    take(scheduler, Step(0))

    def done_by_other() -> None:
        Step.done.add(0)
        scheduler.add_task(task_id=Step(0).task_id, worker=OTHER, status="DONE")

    line = said(Step(1), scheduler, done_by_other)
    assert f"for {Step(0).task_id}, which another run does (PID 12 on far)" in line


def test_run_says_that_a_task_failed_and_is_tried_again(said: Any) -> None:
    scheduler = make_scheduler(retry_delay=900)

    def fails() -> None:
        raise Throttled("too many")

    Step.during = {0: [fails]}
    line = said(Step(1), scheduler, lambda: scheduler.forgive_failures(task_id=Step(0).task_id))
    assert f"to try {Step(0).task_id} again" in line


def test_run_that_is_disabled_on_the_page_says_so_and_ends(lines: list[str]) -> None:
    scheduler = make_scheduler()
    Step.during = {0: [lambda: scheduler.disable_worker(worker=next(iter(scheduler._state.get_worker_ids())))]}
    run(scheduler, Step(ROOT))
    assert Step.started == [0] and len(lines) == 1 and "disabled on luigid's page" in lines[0]


@pytest.mark.parametrize(
    "message",
    [
        5,
        {},
        {"name": 5},
        {"name": "set_worker_processes"},
        {"name": "set_worker_processes", "kwargs": {"n": "x"}},
        {"name": "set_worker_processes", "kwargs": {"x": 1}},
    ],
)
def test_message_that_makes_no_sense_is_one_line(message: Any, lines: list[str]) -> None:
    worker = make_worker(make_scheduler())
    worker._handle_rpc_message(message)
    worker._handle_rpc_message({"name": "set_worker_processes", "kwargs": {"n": 3}})
    assert len(lines) == 1 and "a message of luigid cannot be followed" in lines[0] and worker.worker_processes == 3


def test_task_that_the_scheduler_believes_a_dead_run_does_is_done_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """As luigid that came back with a state of another time, and gives nobody up for an hour."""
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.01)
    monkeypatch.setattr("pipeline.runner.idle.GONE_AFTER", 0.0)
    ended = subprocess.Popen(["true"])
    ended.wait()
    scheduler = make_scheduler()
    take(scheduler, Step(0))
    scheduler.add_worker(OTHER, [("host", socket.gethostname()), ("pid", ended.pid)])
    run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1))


@pytest.mark.parametrize("answer", [{}, None, [], 5, {"task_id": None, "running_tasks": None}])
def test_answer_that_makes_no_sense_is_one_of_a_luigid_that_went_away(
    monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    monkeypatch.setattr(RemoteScheduler, "_request", lambda *asked, **options: answer)
    worker = make_worker(Luigid("http://127.0.0.1:1"))
    with pytest.raises(RPCError, match="the answer of the scheduler makes no sense"):
        worker._get_work()


def test_task_that_was_done_here_is_waited_for_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.01)
    scheduler = make_scheduler()

    def held_by_another() -> None:
        scheduler._state.get_task(Step(0).task_id).worker_running = OTHER

    scheduler.add_task(task_id=Step(0).task_id, worker=OTHER, family="Step")
    Step.during = {0: [held_by_another]}
    run(scheduler, Step(ROOT))
    assert Step.started == list(range(ROOT + 1))


def test_run_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch, lines: list[str]) -> None:
    monkeypatch.setattr("pipeline.runner.idle.LOOK_EVERY", 0.01)
    monkeypatch.setattr("pipeline.runner.idle.SAID_AFTER", 0.0)
    monkeypatch.setattr("pipeline.runner.idle.WAITS_AT_MOST", 0.05)
    scheduler = make_scheduler()
    scheduler.pause()
    run(scheduler, Step(0))
    assert not Step.started and "luigid is paused" in lines[-1] and lines[-1].endswith("and so the run ends")


# -- what the journal is told of tasks that are given up --------------------------------------------


def given_up(events: list[dict[str, Any]]) -> dict[str, Any]:
    (event,) = [event for event in events if event["event"] == "given up"]
    return {name: event[name] for name in ("task", "family", "error", "message")}


@pytest.mark.parametrize(
    ("error", "name", "message", "times"),
    [
        (WrongFormat("a page"), "WrongFormat", "a page", 1),
        (Throttled("too many"), "Throttled", "too many", 5),
        (KeyError("x"), "KeyError", "'x'", 1),
    ],
)
def test_given_up_task_is_recorded_with_its_last_error(
    events: list[dict[str, Any]], error: Exception, name: str, message: str, times: int
) -> None:
    Fails.errors = [error] * times
    run(make_scheduler(), Then())
    expected = {"task": Fails("a").task_id, "family": "Fails", "error": name, "message": message}
    assert given_up(events) == expected


def test_task_that_passes_in_the_end_is_not_given_up(events: list[dict[str, Any]]) -> None:
    Fails.errors = [Throttled("too many")] * 2
    run(make_scheduler(retry_count=3))
    assert not [event for event in events if event["event"] == "given up"]


def test_failed_task_that_nobody_waits_for_is_given_up(events: list[dict[str, Any]]) -> None:
    worker = Worker(scheduler=make_scheduler(retry_delay=900), keep_alive=False)
    Fails.errors = [Throttled("too many")]
    with worker:
        worker.add(Fails("a"))
        finish(worker)
    assert given_up(events)["error"] == "Throttled"


def test_task_that_another_run_gave_up_is_recorded_too(events: list[dict[str, Any]]) -> None:
    scheduler = make_scheduler()
    worker = make_worker(scheduler)
    with worker:
        worker.add(Then())
        take(scheduler, Fails("a"))
        fails = {"task_id": Fails("a").task_id, "worker": OTHER, "runnable": False}
        scheduler.add_task(status="FAILED", expl='"Fails: WrongFormat: a page (not tried again in this run)"', **fails)
        scheduler.add_task(status="DISABLED", **fails)
        finish(worker)
    assert given_up(events)["error"] == "WrongFormat"


class Lasts(luigi.Task):
    """Until its process is ended."""

    def complete(self) -> bool:
        return False

    def run(self) -> None:
        threading.Event().wait()


class Dies(Lasts):
    def run(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("task", "timeout", "message"),
    [
        (Lasts(), 1, "its process ended after 1 s, the limit of [worker] timeout"),
        (Dies(), 0, "its process was killed; maybe no memory was left"),
    ],
    ids=["timeout", "killed"],
)
def test_task_whose_process_was_ended_is_said_and_given_up(
    events: list[dict[str, Any]], lines: list[str], task: luigi.Task, timeout: int, message: str
) -> None:
    worker = Worker(
        scheduler=make_scheduler(), keep_alive=True, wait_interval=0.01, force_multiprocessing=True, timeout=timeout
    )
    with worker:
        worker.add(task)
        finish(worker)
    assert given_up(events)["message"] == message
    assert lines == [f"{task.task_id}: {message}"] * 5


@pytest.mark.parametrize(
    ("explanation", "expected"),
    [
        (
            "Clean green 2020-03: WrongFormat: a page: with a colon " + NOT_AGAIN,
            ("WrongFormat", "a page: with a colon"),
        ),
        ("Clean green 2020-03: Throttled: too many", ("Throttled", "too many")),
        (
            "Clean green 2020-03: Traceback (most recent call last):\n  x\nduckdb.duckdb.OutOfMemory: all\n"
            + NOT_AGAIN,
            ("OutOfMemory", "all"),
        ),
        ("Task Clean_1 died unexpectedly with exit code -9", ("", "its process was killed; maybe no memory was left")),
        (
            "Task Clean_1 died unexpectedly with exit code -11",
            (
                "",
                "its process was ended by SIGSEGV; if it happens again, "
                "the month's file may be one that nobody can read",
            ),
        ),
        ("Task Clean_1 died unexpectedly with exit code 3", ("", "its process ended with exit code 3")),
        (
            "Task Clean_1 timed out after 60 seconds and was terminated.",
            ("", "its process ended after 60 s, the limit of [worker] timeout"),
        ),
        ("", ("", "")),
    ],
)
def test_explanations_are_read_again(explanation: str, expected: tuple[str, str]) -> None:
    assert error_of(explanation, "Clean green 2020-03") == expected


def test_signals_of_a_program_are_its_own_again_after_a_run() -> None:
    before = signal.getsignal(signal.SIGTERM)
    run(make_scheduler())
    assert signal.getsignal(signal.SIGTERM) == before


def test_somebody_elses_program_gets_this_worker_too() -> None:
    result = luigi.build([Step(ROOT)], local_scheduler=True, detailed_summary=True)
    assert type(result.worker) is Worker and result.scheduling_succeeded
    assert Step.started == list(range(ROOT + 1))


class Missing(luigi.ExternalTask):
    """Somebody else's data, which is not there."""

    def complete(self) -> bool:
        return False


class NeedsBoth(luigi.Task):
    def requires(self) -> list[luigi.Task]:
        return [Fails("a"), Missing()]

    def complete(self) -> bool:
        return False


@pytest.mark.parametrize("errors", [[], [Throttled("busy")], [WrongFormat("a page")]])
def test_external_data_that_is_missing_is_not_waited_for(errors: list[Exception]) -> None:
    Fails.errors = list(errors)
    worker = make_worker(make_scheduler())
    with worker:
        worker.add(NeedsBoth())
        worker.run()
    assert Fails.done == (not isinstance(next(iter(errors), None), WrongFormat)), "all else is done"

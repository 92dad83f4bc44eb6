"""What luigid is told of an error, and what the scheduler does with it."""

from __future__ import annotations

import threading
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
    monkeypatch.setattr("pipeline.operations.journal.record", lambda *args, **kwargs: None)


def run(scheduler: Any, name: str = "a") -> Worker:
    worker = Worker(scheduler=scheduler, keep_alive=True, wait_interval=0.01, wait_jitter=0.0)
    with worker:
        worker.add(Fails(name))
        worker.run()
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

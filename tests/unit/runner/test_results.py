"""The results of tasks that run in processes of their own, and what becomes of a run whose processes are killed."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
from pathlib import Path
from typing import Any

import luigi
import luigi.scheduler
import pytest

from pipeline.runner.results import Results
from pipeline.runner.worker import Worker
from tests.patience import PATIENCE, wait_for

from .test_worker import finish, make_scheduler

DONE = ("a", "DONE", None, [], [])


def test_results_of_processes_and_of_this_one() -> None:
    results = Results()
    sender, other = results.sender("a"), results.sender("b")
    sender.put(DONE)
    results.put(("c", "DONE", None, [], []))
    other.put(("b", "FAILED", "x" * 10_000, [], []))
    assert {results.get(timeout=PATIENCE)[0] for _ in range(3)} == {"a", "b", "c"}
    with pytest.raises(queue.Empty):
        results.get(timeout=0)


def test_first_result_of_a_run_counts() -> None:
    results = Results()
    sender = results.sender("a")
    sender.put(DONE)
    for _ in range(2):
        results.put(("a", "FAILED", "died", [], []))
    assert results.get(timeout=PATIENCE) == DONE
    with pytest.raises(queue.Empty):
        results.get(timeout=0)


def test_who_was_replaced_has_nothing_to_say() -> None:
    results = Results()
    late, sender = results.sender("a"), results.sender("a")
    late.put(("a", "FAILED", "late", [], []))
    sender.put(DONE)
    assert results.get(timeout=PATIENCE) == DONE


def test_half_a_result_is_none_and_keeps_nobody_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    results = Results()
    sender, other = results.sender("a"), results.sender("b")
    os.write(sender._connection.fileno(), b"\0\0\0")
    with pytest.raises(queue.Empty):
        results.get(timeout=0)
    other.put(("b", "DONE", None, [], []))
    assert results.get(timeout=PATIENCE)[0] == "b"
    sender.close()
    with pytest.raises(queue.Empty):
        results.get(timeout=PATIENCE)  # at once: the end of a process is worth a look
    waited_for: list[list[object]] = []
    monkeypatch.setattr("pipeline.runner.results.wait", lambda some, timeout: waited_for.append(some))
    with pytest.raises(queue.Empty):
        results.get(timeout=PATIENCE)
    assert waited_for == [[]], "it is worth one look"
    monkeypatch.undo()
    results.put(("a", "FAILED", "died", [], []))
    assert results.get(timeout=PATIENCE)[1] == "FAILED"


def test_result_that_cannot_be_sent_is_a_failure() -> None:
    results = Results()
    results.sender("a").put(("a", "DONE", lambda: None, [], []))
    assert results.get(timeout=PATIENCE)[1] == "FAILED"


def die_in_write(descriptor: int, data: bytes) -> int:
    real_write(descriptor, data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


real_write = os.write


class Ends(luigi.Task):
    """Its process ends in an odd way the first time, and well the second time."""

    how = luigi.Parameter()
    folder = luigi.Parameter(significant=False)

    @property
    def path(self) -> Path:
        return Path(self.folder) / self.how

    def complete(self) -> bool:
        return self.path.with_suffix(".done").exists()

    def run(self) -> None:
        if self.path.exists():
            self.path.with_suffix(".done").touch()
            return
        self.path.touch()
        if self.how == "in the middle of its result":
            os.write = die_in_write
        elif self.how == "without a result":
            os._exit(0)
        elif self.how == "late":
            wait_for(lambda: (self.path.parent / "in the middle of its result.done").exists())
            self.path.with_suffix(".done").touch()


@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_run_goes_on_however_its_processes_end(tmp_path: Path, method: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method(method, force=True)
    monkeypatch.setattr("pipeline.reporting.journal.record", lambda event, **details: None)
    try:
        worker = Worker(
            scheduler=make_scheduler(), worker_processes=3, keep_alive=True, wait_interval=0.05, wait_jitter=0.0
        )
        tasks = [Ends(how, str(tmp_path)) for how in ("in the middle of its result", "without a result", "late")]
        with worker:
            for task in tasks:
                worker.add(task)
            finish(worker)
        assert all(task.complete() for task in tasks)
    finally:
        multiprocessing.set_start_method(before, force=True)


def test_process_that_cannot_be_started_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.reporting.journal.record", lambda event, **details: None)
    left = [ConnectionRefusedError("the fork server was killed"), EOFError()]
    task = Ends("well", str(tmp_path))
    task.path.touch()
    start = luigi.worker.TaskProcess.start

    def fails(self: Any) -> None:
        if left:
            raise left.pop()
        start(self)

    monkeypatch.setattr("pipeline.runner.task_process.TaskProcess.start", fails)
    worker = Worker(
        scheduler=make_scheduler(), force_multiprocessing=True, keep_alive=True, wait_interval=0.05, wait_jitter=0.0
    )
    with worker:
        worker.add(task)
        finish(worker)
    assert task.complete() and not left

"""A worker process never outlives the run that it belongs to."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

import pipeline
from pipeline.planning.state import CachedState
from pipeline.planning.task_state import give_state
from pipeline.runner.signals import without_interrupts
from pipeline.runner.task_context import TaskContext
from tests.patience import PATIENCE, has_ended, wait_for

MONTH = dt.date(2020, 1, 1)

MAIN = """
import multiprocessing, os, pathlib, signal, time
from pipeline.runner.signals import exit_with_main_process

def work(late):
    pathlib.Path("new").write_text(str(os.getpid()))
    pathlib.Path("new").rename("began")
    if late:
        while not pathlib.Path("killed").exists():
            time.sleep(0.01)
    exit_with_main_process()
    pathlib.Path("asked").touch()
    while True:
        time.sleep(60)

if __name__ == "__main__":
    multiprocessing.set_start_method({method!r})
    multiprocessing.Process(target=work, args=({late},)).start()
    while not pathlib.Path({wait_for!r}).exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("late", [False, True], ids=["in its work", "before it could ask"])
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_ends_with_its_parent(tmp_path: Path, method: str, late: bool) -> None:
    script = tmp_path / "main.py"
    script.write_text(MAIN.format(method=method, late=late, wait_for="began" if late else "asked"))
    assert subprocess.run([sys.executable, str(script)], cwd=tmp_path, timeout=PATIENCE).returncode == -9
    child = int((tmp_path / "began").read_text())
    (tmp_path / "killed").touch()
    wait_for(lambda: has_ended(child))


BORN = """
import multiprocessing, os, signal
from pipeline.runner.signals import without_interrupts

def interrupt_itself(heard):
    os.kill(os.getpid(), signal.SIGINT)
    heard.put("the child goes on")

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    heard = context.Queue()
    try:
        with without_interrupts():
            child = context.Process(target=interrupt_itself, args=(heard,))
            child.start()
            os.kill(os.getpid(), signal.SIGINT)
            print(heard.get())
        print("the main process does not hear it")
    except KeyboardInterrupt:
        print("the main process hears it at the end")
    child.join()
"""


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_child_is_deaf_to_ctrl_c_from_its_birth(tmp_path: Path, method: str) -> None:
    script = tmp_path / "main.py"
    script.write_text(BORN.format(method=method))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("the child goes on\nthe main process hears it at the end\n", "")


def test_ctrl_c_that_another_thread_takes_is_also_heard_at_the_end() -> None:
    ready = threading.Event()

    def take() -> None:
        ready.wait()
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)

    taker = threading.Thread(target=take)
    taker.start()
    went_on = False
    with pytest.raises(KeyboardInterrupt), without_interrupts():
        ready.set()
        taker.join()
        went_on = True
    assert went_on
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


INTERRUPTED = """
import os, signal, time
from pipeline.runner.signals import interrupt_finalizers_too

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass

interrupt_finalizers_too()
Finalized()
try:
    time.sleep(100)
except KeyboardInterrupt:
    print("stopped")
"""


def test_interrupt_that_meets_a_finalizer_still_stops_the_run() -> None:
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=PATIENCE)
    assert run.stdout == "stopped\n" and run.stderr == ""


@pytest.mark.parametrize(
    ("task", "looks_once"),
    [("RangeMonthly", True), ("Refresh", True), ("AllTrips", False), ("TaxiZones", False), ("MonthlyTrips", False)],
)
def test_only_tasks_over_many_months_look_once_for_all(tmp_path: Path, task: str, looks_once: bool) -> None:
    """One month is asked for by small requests: a listing of the whole lake for each would take longer and longer."""
    words = {
        "RangeMonthly": {"of": pipeline.MonthlyTrips, "start": MONTH, "stop": dt.date(2020, 2, 1)},
        "TaxiZones": {},
        "Refresh": {"since": MONTH},
    }.get(task, {"month": MONTH})
    job = {"publisher": "sample", "lake": f"file:{tmp_path}", "workspace": f"file:{tmp_path}"}
    one = getattr(pipeline, task)(**({} if task == "RangeMonthly" else job), **words)
    process = mock.Mock(inner_context=None, task=one)
    with CachedState() as planned:
        give_state(one, planned)
        with TaskContext(process):
            state = one.given_state
            assert state and state is not planned, "what was true while the run was planned"
            assert isinstance(state, CachedState) == looks_once
        assert not state.is_open


NAMES = """
import importlib
from pipeline.runner.task_context import modules_of_workers

for name in modules_of_workers():
    importlib.import_module(name)
    print(name)
"""


def test_fork_server_loads_what_worker_processes_use(tmp_path: Path) -> None:
    urls = {
        "PIPELINE_LAKE_URL": "gs://bucket/lake",
        "PIPELINE_WORKSPACE_URL": f"file:{tmp_path}",
        "PIPELINE_WAREHOUSE_URL": f"duckdb:///{tmp_path}/warehouse.duckdb,postgresql+psycopg2://etl@localhost/trips",
    }
    command = [sys.executable, "-c", NAMES]
    done = subprocess.run(command, env={**os.environ, **urls}, capture_output=True, text=True, check=True)
    stores = {"pipeline.storage.gcs", "pipeline.storage.local"}
    assert {*stores, "pipeline.warehouse.duckdb.warehouse", "pipeline.warehouse.postgresql.warehouse"} <= set(
        done.stdout.split()
    )

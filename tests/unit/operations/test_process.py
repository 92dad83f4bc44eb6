"""A worker process never outlives the run that it belongs to."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

MAIN = """
import multiprocessing, os, pathlib, signal, time
from pipeline.operations.process import die_with_parent

def work(late):
    pathlib.Path("began").touch()
    if late:
        while not pathlib.Path("killed").exists():
            time.sleep(0.01)
    die_with_parent()
    pathlib.Path("asked").touch()
    time.sleep(1)
    pathlib.Path("survived").touch()

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
    assert subprocess.run([sys.executable, str(script)], cwd=tmp_path, timeout=60).returncode == -9
    (tmp_path / "killed").touch()
    time.sleep(1.5)
    assert not (tmp_path / "survived").exists()


INTERRUPTED = """
import os, signal, time
from pipeline.operations.process import hear_every_interrupt

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(100):
            pass

hear_every_interrupt()
Finalized()
try:
    time.sleep(10)
except KeyboardInterrupt:
    print("stopped")
"""


def test_interrupt_that_meets_a_finalizer_still_stops_the_run() -> None:
    run = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60)
    assert run.stdout == "stopped\n" and run.stderr == ""

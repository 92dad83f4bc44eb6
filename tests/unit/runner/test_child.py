"""Luigi as a child process: its lines, its last words, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.runner import child
from tests.patience import PATIENCE


def start(folder: Path, program: str, tell: Callable[[str], object], *words: str) -> child.Luigi:
    """Another program in luigi's place."""
    (folder / "luigi").mkdir()
    (folder / "luigi" / "__init__.py").touch()
    (folder / "luigi" / "__main__.py").write_text(program)
    return child.Luigi(words, {**os.environ, "PYTHONPATH": str(folder)}, tell)


def test_lines_are_handed_on_and_the_last_error_is_kept(tmp_path: Path) -> None:
    program = """
import sys
print("a line", *sys.argv[1:])
print("12:00:00 ERROR Clean green 2020-03: damaged")
print("error: run 1 failed\\x1b[2J  ")
print("summary\\tof the run", file=sys.stderr)
sys.exit(30)
"""
    lines: list[str] = []
    luigi = start(tmp_path, program, lines.append, "TaxiZones")
    assert luigi.wait() == 30
    assert lines == [
        "a line --module pipeline TaxiZones",
        "12:00:00 ERROR Clean green 2020-03: damaged",
        "error: run 1 failed\\u001b[2J",
        "summary\tof the run",
    ]
    assert luigi.last_words == "run 1 failed\\u001b[2J"


WAITS = """
import signal, time
signal.signal(signal.SIGTERM, {handler})
print("ready")
while True:
    time.sleep(0.01)
"""


@pytest.mark.parametrize(
    ("handler", "code"),
    [("signal.SIG_DFL", -signal.SIGTERM), ("signal.SIG_IGN", -signal.SIGKILL)],
    ids=["ends", "deaf"],
)
def test_process_that_is_stopped_ends_at_the_latest_when_it_is_killed(
    tmp_path: Path, handler: str, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_ready = threading.Event()
    luigi = start(tmp_path, WAITS.format(handler=handler), lambda line: is_ready.set())
    assert is_ready.wait(PATIENCE)
    assert luigi.wait(0.01) is None
    monkeypatch.setattr(child, "GRACE", 0.5 if code == -signal.SIGKILL else PATIENCE)
    luigi.stop()
    assert luigi.wait(PATIENCE) == code
    luigi.send(signal.SIGUSR1)  # to nobody


def test_how_a_process_was_ended() -> None:
    assert child.how_ended(-signal.SIGKILL) == "ended by SIGKILL"
    assert child.how_ended(-1000) == "ended by signal 1000"

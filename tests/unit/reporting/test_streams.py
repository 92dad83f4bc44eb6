"""Standard streams whose reader is gone, slow or full, in programs of their own: their exit code is what they say."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from ...conftest import CHECKOUT
from ...patience import PATIENCE

#: Prints in all ways, and says with its exit code that it has come to its end.
COMMAND = """
import logging, sys
from pipeline.reporting import console, streams
streams.STALLED = 0.1
streams.protect()
print("text é" * 30_000)
console.say("line é" * 30)
logging.getLogger().error("logged")
print("more", file=sys.stderr)
print("left in the buffer", end="")
sys.exit(7)
"""

LINES = """
import sys
from pipeline.reporting import console, streams
streams.STALLED = 0.1
for number in range(2_000):
    console.say("line é" * 30)
console.say("line", error=True)
sys.exit(7)
"""


@contextmanager
def full() -> Iterator[int]:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@contextmanager
def left_alone(pair: Callable[[], tuple[int, int]]) -> Iterator[int]:
    """One end of a pipe or a terminal, the other end of which is closed."""
    other, end = pair()
    os.close(other)
    yield end
    os.close(end)


@contextmanager
def stalled() -> Iterator[int]:
    """A pipe that does not wait, and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    yield writer
    os.close(reader)
    os.close(writer)


BROKEN = {
    "full": full,
    "without reader": partial(left_alone, os.pipe),
    "stalled": stalled,
    "terminal that went away": partial(left_alone, pty.openpty),
}


@pytest.mark.parametrize("code", [COMMAND, LINES], ids=["command", "lines"])
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
def test_broken_streams_do_not_change_the_exit_code(
    broken: Callable[[], AbstractContextManager[int]], code: str
) -> None:
    with broken() as stream:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=CHECKOUT, stdout=stream, stderr=stream, timeout=PATIENCE
        )
    assert done.returncode == 7


def test_all_arrives_in_its_order(tmp_path: Path) -> None:
    code = """
import sys
from pipeline.reporting import console, streams
print("first")
with streams.protected():
    print("second")
    console.say("third é")
print("fourth")
"""
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=CHECKOUT, env=environment, capture_output=True, timeout=PATIENCE
    )
    assert (done.stdout, done.stderr) == (b"first\nsecond\nthird ?\nfourth\n", b"")


def test_slow_reader_gets_all() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    program = subprocess.Popen([sys.executable, "-c", LINES], cwd=CHECKOUT, stdout=writer)
    os.close(writer)
    with open(reader, "rb") as output:
        assert output.read().count(b"\n") == 2_000
    assert program.wait(PATIENCE) == 7

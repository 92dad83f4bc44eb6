"""Runs contestants, each in a fresh process, one after the other, and measures time and memory.

``Work`` is timed inside its process, after imports and preparation: for cases that compare work. ``Command`` is timed
from outside, from its start to its end: for cases where the start counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

#: Seconds between two looks at the memory of a contestant's processes.
SAMPLE_EVERY = 0.1

#: Seconds after which a contestant counts as hanging.
PATIENCE = 3600


class CouldNotRun(Exception):
    """A contestant failed; the text ends with its last words."""


@dataclass(frozen=True)
class Measured:
    """One contestant: seconds of each repeat, the peak resident memory of all its processes together in bytes (the
    smallest of the repeats), rows if the contestants did different numbers of them, and what it says of its work."""

    seconds: tuple[float, ...]
    peak_bytes: int = 0
    rows: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def best(self) -> float:
        return min(self.seconds)


@dataclass(frozen=True)
class Work:
    """A function ``module:name`` that prepares and returns the work; it gets ``arguments`` and the empty ``folder``.

    ``rows`` is set where contestants do different numbers of them; ``is_slow`` ones run once, not ``repeat`` times.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    rows: int | None = None
    is_slow: bool = False


@dataclass(frozen=True)
class Command:
    """A command, made for the empty folder in which it runs. ``before`` prepares that folder, untimed."""

    name: str
    command: Callable[[Path], Sequence[str]]
    environment: Callable[[Path], Mapping[str, str]] = lambda folder: {}
    before: Callable[[Path], None] = lambda folder: None
    rows: int | None = None
    is_slow: bool = False


Contestant = Work | Command


def contest(contestants: Sequence[Contestant], repeat: int, folder: Path) -> dict[str, Measured]:
    """Run all contestants ``repeat`` times in turn, so that a slow moment of the machine meets all of them.

    Each run has an empty folder of its own below ``folder``, which is removed afterwards.
    """
    runs: dict[str, list[Measured]] = {each.name: [] for each in contestants}
    for number in range(repeat):
        for each in contestants:
            if number and each.is_slow:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix="run-", ignore_cleanup_errors=True) as own:
                runs[each.name].append(measure(each, Path(own), f" {number + 1} of {repeat}"))
    return {name: _merged(found) for name, found in runs.items()}


def measure(contestant: Contestant, folder: Path, note: str = "") -> Measured:
    """Run one contestant once in ``folder``, and say so."""
    print(f"    {contestant.name}{note} ... ", end="", file=sys.stderr, flush=True)
    os.sync()  # what the one before has written is not paid for by this one
    measured = _run_work(contestant, folder) if isinstance(contestant, Work) else _run_command(contestant, folder)
    print(f"{measured.best:.2f} s, {measured.peak_bytes / 1e6:.0f} MB", file=sys.stderr)
    return measured


def _merged(runs: Sequence[Measured]) -> Measured:
    seconds = tuple(run.best for run in runs)
    return Measured(seconds, min(run.peak_bytes for run in runs), runs[-1].rows, runs[-1].facts)


def clean_environment(changes: Mapping[str, str]) -> dict[str, str]:
    """The environment without settings of the pipeline that whoever started us may have, with ``changes``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE_")}
    return {**kept, **changes}


def _run_work(work: Work, folder: Path) -> Measured:
    reading, writing = os.pipe()
    order = {"function": work.function, "arguments": {**work.arguments, "folder": str(folder)}}
    with (folder / ".output").open("w+b") as output, os.fdopen(reading) as channel:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.contestant", json.dumps(order), str(writing)],
            env=clean_environment(work.environment(folder)),
            stdout=output,
            stderr=output,
            pass_fds=(writing,),
        )
        os.close(writing)
        with _patience(process):
            channel.readline()  # "started"; nothing if the preparation failed
            with _Memory(process.pid) as memory:
                report = channel.readline()
        _finish(process, work.name, output)
    found = json.loads(report)
    return Measured((found["seconds"],), max(found["peak_bytes"], memory.peak), work.rows, found["facts"])


def _run_command(command: Command, folder: Path) -> Measured:
    command.before(folder)
    words = list(command.command(folder))
    environment = clean_environment(command.environment(folder))
    with (folder / ".output").open("w+b") as output:
        started = time.perf_counter()
        process = subprocess.Popen(words, cwd=folder, env=environment, stdout=output, stderr=output)
        with _Memory(process.pid) as memory, _patience(process):
            process.wait()  # not with a timeout: that would look every 50 ms only
        seconds = time.perf_counter() - started
        _finish(process, command.name, output)
    return Measured((seconds,), memory.peak, command.rows)


@contextmanager
def _patience(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Kill the process after ``PATIENCE`` seconds."""
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _finish(process: subprocess.Popen[bytes], name: str, output: Any) -> None:
    code = process.wait()
    if code:
        output.seek(0)
        last = output.read().decode(errors="replace").strip()[-1500:]
        raise CouldNotRun(f"{name} ended with {code}: {last}")


class _Memory:
    """The peak of the resident memory of a process and all its descendants, while the ``with`` block lasts."""

    def __init__(self, pid: int) -> None:
        self.peak = 0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> _Memory:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        with suppress(psutil.Error):
            root = psutil.Process(self._pid)
            while True:
                self.peak = max(self.peak, sum(_resident(each) for each in (root, *root.children(recursive=True))))
                if self._done.wait(SAMPLE_EVERY):
                    return


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # has ended
        return 0

"""Runs attempts one after the other until their number or their time is used up, and writes each one down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from .campaign import Campaign, Difference, chance_of

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass
class Record:
    """What is known of a campaign with one seed on one commit, kept as a line of JSON per attempt."""

    path: Path
    ends: Counter[str] = field(default_factory=Counter)
    differences: dict[int, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, name: str, seed: int, commit: str) -> Record:
        """The record that an earlier call has begun, or a new one."""
        record = cls(folder / f"{name}-seed{seed}-{commit}.jsonl")
        record.path.touch()
        whole, newline, _ = record.path.read_bytes().rpartition(b"\n")
        os.truncate(record.path, len(whole + newline))  # the last line may be cut: the runner was killed
        for line in whole.splitlines():
            record._count(json.loads(line))
        return record

    @property
    def attempts(self) -> int:
        """How many are done; they have the numbers below."""
        return self.ends.total() + len(self.differences)

    def add(self, **attempt: Any) -> None:
        """Write an attempt down before it counts."""
        with self.path.open("a") as file:
            file.write(json.dumps(attempt) + "\n")
        self._count(attempt)

    def _count(self, attempt: dict[str, Any]) -> None:
        if "difference" in attempt:
            self.differences[attempt["number"]] = attempt["difference"]
        else:
            self.ends[attempt["end"]] += 1


def run(campaign: Campaign, record: Record, seed: int, count: int | None, seconds: float | None) -> None:
    """Go on where ``record`` ends: up to ``count`` attempts in all, for at most ``seconds`` from now."""
    until = None if seconds is None else time.monotonic() + seconds
    with campaign:
        while (count is None or record.attempts < count) and (until is None or time.monotonic() < until):
            number = record.attempts
            try:
                end = attempt(campaign, seed, number)
            except Exception as error:
                record.add(number=number, difference=str(error) or repr(error), trace=traceback.format_exc())
                print(f"{campaign.name} {number}: {error!r}", flush=True)
            else:
                record.add(number=number, end=end)


def attempt(campaign: Campaign, seed: int, number: int) -> str:
    """One attempt. Its folder stays if there is a difference, for a look at it."""
    folder = campaign.folder / f"attempt-{number}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _no_longer_than(campaign.patience):
        end = campaign.attempt(chance_of(seed, campaign.name, number), folder)
    shutil.rmtree(folder, ignore_errors=True)
    return end


@contextmanager
def _no_longer_than(seconds: float) -> Iterator[None]:
    is_over = False

    def too_long(signum: int, frame: FrameType | None) -> None:
        nonlocal is_over
        is_over = True
        raise Difference(f"still at work after {seconds:g} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    if is_over:  # and the code under attack took it for an error of its own
        raise Difference(f"still at work after {seconds:g} s")


def commit() -> str:
    """The commit under attack, with ``-changed`` if the checkout has changes of its own."""
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--abbrev=7", "--exclude=*", "--dirty=-changed"],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return named.stdout.strip()

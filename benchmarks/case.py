"""The interface of a benchmark case: its targets, its input, and how it is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .contest import Contestant, Measured, contest
from .inputs import Inputs

OURS = "ours"


class Skip(Exception):
    """The case cannot be run here; the text says what is missing."""


@dataclass(frozen=True)
class Results:
    """What a case measured: its input in words, the contestants by name (ours is ``OURS``), and other figures.

    ``rows`` are those of contestants that name no number of their own, where others do.
    """

    input: str
    measured: Mapping[str, Measured] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    rows: int | None = None

    def __getitem__(self, name: str) -> Measured:
        return self.measured[name]

    def cost(self, name: str) -> float:
        """What is compared: the best time, per row where contestants had different numbers of rows."""
        return self[name].best / (self[name].rows or self.rows or 1)


@dataclass(frozen=True)
class Target:
    """A line to reach. ``value`` gives the figure in ``unit``, or None where a contestant was left out."""

    what: str
    limit: float
    unit: str
    at_most: bool
    value: Callable[[Results], float | None]

    def is_met(self, value: float) -> bool:
        return value <= self.limit if self.at_most else value >= self.limit

    def __str__(self) -> str:
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}{self.unit}"


@dataclass(frozen=True)
class Bench:
    """What every case is given."""

    inputs: Inputs
    folder: Path
    repeat: int = 3
    is_full: bool = False

    def contest(self, contestants: Sequence[Contestant], repeat: int | None = None) -> dict[str, Measured]:
        return contest(contestants, repeat or self.repeat, self.folder)


@dataclass(frozen=True)
class Case:
    """One line of the table. ``full_only`` cases take too long for every day."""

    name: str
    what: str
    targets: tuple[Target, ...]
    run: Callable[[Bench], Results]
    full_only: bool = False


def times_faster_than(peer: str, least: float) -> Target:
    """Ours is at least so many times faster than the peer; per row where rows differ."""

    def value(results: Results) -> float | None:
        return results.cost(peer) / results.cost(OURS) if peer in results.measured else None

    return Target(f"times faster than {peer}", least, "x", False, value)


def times_of_fastest(most: float, *peers: str) -> Target:
    """Ours takes at most so many times as long as the fastest of the peers."""

    def value(results: Results) -> float | None:
        costs = [results.cost(peer) for peer in peers if peer in results.measured]
        return results.cost(OURS) / min(costs) if costs else None

    return Target(f"time of {'the fastest of ' if len(peers) > 1 else ''}{', '.join(peers)}", most, "x", True, value)


def seconds_more_than(peer: str, most: float) -> Target:
    """Ours takes at most so many seconds more than the peer."""

    def value(results: Results) -> float | None:
        return results[OURS].best - results[peer].best if peer in results.measured else None

    return Target(f"more than {peer}", most, " s", True, value)


def figure_at_most(name: str, most: float, unit: str) -> Target:
    """A figure of the results by its name."""
    return Target(name, most, unit, True, lambda results: results.figures.get(name))


def figure_at_least(name: str, least: float, unit: str) -> Target:
    """A figure of the results by its name."""
    return Target(name, least, unit, False, lambda results: results.figures.get(name))


def plain(results: Results) -> dict[str, Any]:
    """The results as JSON has them."""
    return {
        "input": results.input,
        "contestants": {
            name: {
                "seconds": [round(seconds, 4) for seconds in measured.seconds],
                "best": round(measured.best, 4),
                "peak_mb": round(measured.peak_bytes / 1e6, 1),
                **({"rows": measured.rows} if measured.rows else {}),
                **measured.facts,
            }
            for name, measured in results.measured.items()
        },
        "figures": {name: round(value, 4) for name, value in results.figures.items()},
    }

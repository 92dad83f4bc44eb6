"""A plan, as a data structure: what is to be done for each month, and why. ``planner`` makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..partition import Partition

#: The states of a month in a plan.
COMPLETE = "complete"
TO_DO = "to do"
NOT_YET = "not yet published"
MISSING = "missing at publisher"
UNASKED = "could not be asked"

#: The reason of a month that was forgotten, and so the status of its row in the ledger.
FORGOTTEN = "forgotten"

#: The reason of a month that has become available at the publisher.
NEW = "new"

#: The reason of a loaded month that the publisher does not have any more.
WITHDRAWN = "withdrawn; what was loaded stays"


@dataclass(frozen=True)
class Entry:
    """One month of the plan. ``reason`` says why it is to be done, or why it is left as it is; mostly it is empty."""

    partition: Partition
    state: str
    reason: str = ""


class Plan(list[Entry]):
    """All asked months of one job, each with its state."""

    def months(self, state: str) -> list[Entry]:
        return [entry for entry in self if entry.state == state]


def count(number: int) -> str:
    """``1 month``, ``2 months``."""
    return f"{number:,} month{'' if number == 1 else 's'}"


def counts(states: Iterable[str]) -> str:
    """``3 months complete, 2 months not yet published``, of the states of all months."""
    numbers = Counter(states)
    order = (COMPLETE, TO_DO, NOT_YET, MISSING, UNASKED)
    return ", ".join(f"{count(numbers[state])} {state}" for state in order if numbers[state])


def titles(entries: Sequence[Entry]) -> str:
    """``green 2020-03, green 2020-04 and 7 more``, with five of them at most."""
    more = f" and {len(entries) - 5:,} more" if len(entries) > 5 else ""
    return ", ".join(str(entry.partition) for entry in entries[:5]) + more

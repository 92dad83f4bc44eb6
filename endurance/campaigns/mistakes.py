"""Command lines with wrong values anywhere: each is accepted, or refused in one line, and shows no secret."""

from __future__ import annotations

import random
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.end_to_end.mistaken import ACCEPTED, WAITS, Case, Forks
from tests.end_to_end.test_many_mistakes import (
    CONFIGURATIONS,
    EVIL,
    LUIGI,
    MONTH,
    NO_SITES,
    OF_RANGES,
    OF_TASKS,
    RANGE,
    SAMPLE,
    SETTINGS,
    VARIABLES,
    VERBS,
    what_is_wrong,
    what_must_never_be,
)

from ..campaign import Campaign, Difference

#: Every value of every table, for any flag.
VALUES = sorted({value for table in (SETTINGS, OF_TASKS, OF_RANGES) for values in table.values() for value in values})
VALUES += [*NO_SITES, "", "0", "1", "-", "--", "true", "2021-01", "green", "sample", "file:a", "duckdb:///a", "none"]

#: Pieces that get into a value by accident.
PIECES = ["%", "%00", "\x1b[2J", "\u202e", "\udcff", "\n", "..", "\u0661", *" ,:/@#?'\"[]"]

TASKS = ["MonthlyTrips", "RangeMonthly", "AllTrips", "TaxiZones", "Refresh", "Load", "Download", "Nosuch", EVIL]

#: Exit codes of what is no mistake: done or accepted, found something wrong, cannot reach a server, is about to wait.
OTHERS = {0: "done", 1: "done", 35: "unreachable", ACCEPTED: "accepted", WAITS: "waits"}


class Mistakes(Campaign):
    name = "mistakes"
    what = "command lines, variables and luigi.cfg with odd values: one line and exit code 2, or accepted"
    slice = 40

    def __enter__(self) -> Self:
        self._forks = Forks(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forks.__exit__(kind, error, trace)

    def attempt(self, chance: random.Random, folder: Path) -> str:
        case = _case(chance)
        result = self._forks.run(case)
        wrong = what_is_wrong(result) if result.code == 2 else what_must_never_be(result)
        if not wrong and result.code not in {2, *OTHERS}:
            wrong = f"exit code {result.code}"
        if wrong:
            raise Difference(f"{wrong}: {ascii(case)[:1000]}: {ascii(result)[:2000]}")
        return OTHERS.get(result.code, "refused")


def _case(chance: random.Random) -> Case:
    kind = chance.choice(["task", "task", "verb", "variable", "luigi.cfg"])
    words, environment, config = _command(chance), dict(SAMPLE), None
    if kind == "verb":
        words = ["pipeline", *chance.choice(VERBS)]
    if kind == "variable":
        name = chance.choice([*(_variable(flag) for flag in SETTINGS), *(name for name, _ in VARIABLES)])
        environment[name] = _value(chance).replace("\x00", "")
    if kind == "luigi.cfg":
        config = chance.choice(CONFIGURATIONS) if chance.random() < 0.3 else ""
        for _ in range(chance.randrange(1, 4)):
            section, _, name = chance.choice(list(SETTINGS)).partition("-")
            value = _value(chance).encode("utf-8", "surrogateescape").decode("latin-1")
            config += f"\n[{section}]\n{name.replace('-', '_')} = {value}"
        if chance.random() < 0.5:
            words = ["pipeline", *chance.choice([["status"], ["plan"], ["doctor"], ["runs"], ["queue"], ["ui"]])]
    for _ in range(chance.randrange(3) if kind in ("luigi.cfg", "variable") else chance.choice([1, 1, 1, 2, 3])):
        flags = list(SETTINGS) if words[0] == "pipeline" else [*SETTINGS, *OF_TASKS, *OF_RANGES]
        first = 3 if words[0] == "luigi" else 2  # behind --module pipeline, and behind the verb
        words.insert(chance.randrange(first, len(words) + 1), f"--{chance.choice(flags)}={_value(chance)}")
    return Case([word.replace("\x00", "") for word in words], environment, config)


def _command(chance: random.Random) -> list[str]:
    if chance.random() < 0.7:
        return list(chance.choice([MONTH, RANGE]))
    return [*LUIGI, chance.choice(TASKS), "--local-scheduler"]


def _variable(flag: str) -> str:
    return f"PIPELINE_{flag.replace('-', '_').upper()}"


def _value(chance: random.Random) -> str:
    value = chance.choice(VALUES)
    if chance.random() < 0.3:
        at = chance.randrange(len(value) + 1)
        value = value[:at] + chance.choice(PIECES) + value[at:]
    if chance.random() < 0.1:
        value = value[: chance.randrange(len(value) + 1)]
    return value

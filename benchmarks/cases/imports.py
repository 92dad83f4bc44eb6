"""What ``import pipeline`` adds to ``import luigi``: the start of every command and worker process."""

from __future__ import annotations

import sys

from ..case import OURS, Bench, Case, Results, seconds_more_than
from ..contest import Command
from ..project import CHECKOUT

LUIGI = "import luigi"

#: Such short times need more tries.
REPEAT = 15


def _python(name: str, code: str) -> Command:
    environment = {"LUIGI_CONFIG_PATH": str(CHECKOUT / "luigi.cfg")}
    return Command(name, lambda folder: [sys.executable, "-c", code], lambda folder: environment)


def _run(bench: Bench) -> Results:
    commands = [_python(OURS, "import pipeline"), _python(LUIGI, "import luigi")]
    return Results("an interpreter's start and the import", bench.contest(commands, max(REPEAT, bench.repeat)))


CASES = (Case("import", "import pipeline", (seconds_more_than(LUIGI, 0.1),), _run),)

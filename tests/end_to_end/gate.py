"""A gate at which the stages of a command stop, so that a test can do something in the middle of a run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..patience import wait_for

HOOKS = Path(__file__).parent / "hooks"


@dataclass
class Gate:
    """Stands where a stage has ``started``, is ``running`` with a ``share`` of its work done, or is ``done``.

    There it holds the lock of its month, which it has let go where it is ``left`` and ``telling`` its result.
    ``patience``: seconds for which the command waits for a server once the gate is open, instead of minutes.

    Every process of a command with the variables of ``environment`` that comes there waits until the gate is opened.
    It waits in the code of the stage: a signal, a lock and a connection behave as they do while the stage works.
    """

    folder: Path
    stage: str
    state: str
    month: str | None = None
    dataset: str = "green"
    share: float = 0.0
    patience: float | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        return environment_of(self)

    @property
    def stopped(self) -> list[int]:
        """The processes that are at the gate or were there."""
        return [int(path.stem) for path in self.folder.glob("*.stopped")]

    def wait(self, process: subprocess.Popen[Any], told: Callable[[], object] = lambda: "") -> int:
        """Wait until one of the command's processes is at the gate; returns its id."""
        return wait_for(lambda: self.stopped, process, told)[0]

    @property
    def is_told_to_stop(self) -> bool:
        """Whether the main process has heard that it shall take no more tasks."""
        return (self.folder / "told to stop").exists()

    @property
    def is_open(self) -> bool:
        return (self.folder / "open").exists()

    def open(self) -> None:
        (self.folder / "open").touch()


def environment_of(*gates: Gate) -> dict[str, str]:
    """Variables of a command that stops at several gates."""
    paths = [str(HOOKS), *filter(None, [os.environ.get("PYTHONPATH")])]
    wheres = [{**asdict(gate), "folder": str(gate.folder)} for gate in gates]
    return {"PYTHONPATH": os.pathsep.join(paths), "TESTS_GATES": json.dumps(wheres)}

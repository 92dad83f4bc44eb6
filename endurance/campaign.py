"""The interface of a campaign: numbered attempts, each determined by a seed, and an oracle that checks the result."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self


class Difference(AssertionError):
    """The pipeline did something that it must never do: another value, a lost row, a traceback, a wait without end."""


class Campaign(ABC):
    """Attempts against one part of the pipeline. A ``with`` block around them starts and stops what they share.

    An attempt must depend on its ``chance`` only, so that its number and the seed repeat it.
    """

    #: The name on the command line.
    name: ClassVar[str]
    #: One line that says what is attacked, and what must hold.
    what: ClassVar[str]
    #: Attempts of the slice that ``make test`` runs: some seconds.
    slice: ClassVar[int] = 20
    #: Seconds after which an attempt counts as hanging.
    patience: ClassVar[float] = 1800

    def __init__(self, folder: Path) -> None:
        """``folder`` is empty and stays for the whole campaign: for servers and for inputs that the attempts share."""
        self.folder = folder

    def __enter__(self) -> Self:
        return self

    def __exit__(  # noqa: B027 - most have nothing to stop
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop what ``__enter__`` has started."""

    @abstractmethod
    def attempt(self, chance: random.Random, folder: Path) -> str:
        """Attack once, in an empty folder of its own, and compare.

        Returns in a word or two how it ended (``"same"``, ``"refused"``, ``"killed, then same"``); the runner counts
        each. Raises :class:`Difference` for what must never be; any other error counts as a difference as well.
        """


def chance_of(seed: int, name: str, number: int) -> random.Random:
    """What determines attempt ``number`` of a campaign, the same on every machine and in every order."""
    return random.Random(f"{seed}/{name}/{number}")

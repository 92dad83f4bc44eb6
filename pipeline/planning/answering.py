"""How a task gets the state that its ``complete()`` answers from: handed by whoever asks, else a fresh one.

Luigi asks ``complete()`` without arguments, and gives the same object to all who name the same task. So whoever asks
several tasks, such as the worker while it schedules, hands them one state; they hand it on to what they require. A
state that was closed, or that nobody handed, is replaced by a new one for each question: slower, and never stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TypeVar

import luigi

from .state import CachedState, State

Tasks = TypeVar("Tasks", bound=Iterable[Any])


class Answering:
    """A task that answers from the state it was handed."""

    #: Whether it asks about so many months that one listing of the lake is cheaper than a request for each.
    spans_months: ClassVar[bool] = False

    _handed: State | None = None

    @property
    def handed(self) -> State | None:
        """The state that somebody handed to this task, if it is still open and can answer for all its months."""
        if self._handed is None or not self._handed.is_open:
            return None
        return self._handed if isinstance(self._handed, CachedState) or not self.spans_months else None

    @property
    def state(self) -> State:
        """What this task answers from now."""
        return self.handed or self.new_state()

    def new_state(self) -> State:
        return CachedState() if self.spans_months else State()

    def take(self, state: State) -> None:
        """Answer from this state until it is closed or another one comes."""
        self._handed = state

    @contextmanager
    def one_state(self) -> Iterator[State]:
        """Answer all questions within this context from one state: the one handed, or else a new one."""
        if (handed := self.handed) is not None:
            yield handed
        else:
            with self.fresh_state() as state:
                yield state

    @contextmanager
    def fresh_state(self) -> Iterator[State]:
        """Answer from a new state within this context: what others did since the last question matters."""
        before = self._handed
        with self.new_state() as state:
            self._handed = state
            try:
                yield state
            finally:
                self._handed = before

    def hand_on(self, tasks: Tasks) -> Tasks:
        """Hand the state of this task to tasks that it requires. Returns them."""
        if (handed := self.handed) is not None:
            for task in tasks:
                hand(task, handed)
        return tasks

    def __getstate__(self) -> dict[str, Any]:
        """All but the state: in another process it would be a copy of what was true in this one."""
        return {name: value for name, value in vars(self).items() if name != "_handed"}


def is_complete(task: Any, state: State) -> bool:
    """Whether a task, anybody's, is complete by this state."""
    hand(task, state)
    return bool(task.complete())


def hand(task: Any, state: State) -> None:
    """Hand a state to a task of ours, or through somebody else's wrapper to those of ours that it requires."""
    if isinstance(task, Answering):
        task.take(state)
    elif isinstance(task, luigi.WrapperTask):
        with suppress(Exception):  # Luigi meets the same error when it asks, and reports it
            for needed in task.deps():
                hand(needed, state)

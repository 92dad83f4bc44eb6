"""How a task gets the ``State`` that its ``complete()`` reads: from its caller, or else a new one for each question.

Luigi calls ``complete()`` without arguments, and all who name the same task get the same object. So a caller that asks
several tasks, such as the worker while it schedules, gives them one state with ``give_state``; each passes it to the
tasks that it requires. A closed state is not used again: a task then makes a new one, which is slower but never stale.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ClassVar, TypeVar

import luigi

from .state import CachedState, State

Tasks = TypeVar("Tasks", bound=Iterable[Any])


class UsesState:
    """A task that reads its answers from a ``State``: one that its caller gave it, or else a new one."""

    #: Whether it asks about so many months that one listing of the lake is cheaper than a request for each.
    spans_months: ClassVar[bool] = False

    _given_state: State | None = None

    @property
    def given_state(self) -> State | None:
        """The state that a caller gave to this task, if it is still open and can answer for all its months."""
        state = self._given_state
        if state is None or not state.is_open:
            return None
        return state if isinstance(state, CachedState) or not self.spans_months else None

    def use_state(self, state: State) -> None:
        """Read from this state until it is closed or another one is given."""
        self._given_state = state

    @contextmanager
    def shared_state(self) -> Iterator[State]:
        """Read all answers within this context from one state: the given one, or else a new one."""
        if (given := self.given_state) is not None:
            yield given
        else:
            with self.fresh_state() as state:
                yield state

    @contextmanager
    def fresh_state(self) -> Iterator[State]:
        """Read all answers within this context from a new state, because others may have changed something."""
        before = self._given_state
        with CachedState() if self.spans_months else State() as state:
            self._given_state = state
            try:
                yield state
            finally:
                self._given_state = before

    def give_state_to(self, tasks: Tasks) -> Tasks:
        """Give the state of this task to tasks that it requires. Returns the tasks."""
        if (given := self.given_state) is not None:
            for task in tasks:
                give_state(task, given)
        return tasks

    def __getstate__(self) -> dict[str, Any]:
        """All but the state: another process would get a copy that may be out of date."""
        return {name: value for name, value in vars(self).items() if name != "_given_state"}


def is_complete(task: Any, state: State) -> bool:
    """Whether any task, of ours or not, is complete by this state."""
    give_state(task, state)
    return bool(task.complete())


def give_state(task: Any, state: State) -> None:
    """Give a state to a task of ours. Of another project's wrapper task, give it to our tasks that it requires."""
    if isinstance(task, UsesState):
        task.use_state(state)
    elif isinstance(task, luigi.WrapperTask) and task.task_id not in state.wrappers:
        state.wrappers.add(task.task_id)
        with suppress(Exception):  # Luigi meets the same error when it asks, and reports it
            for needed in task.deps():
                give_state(needed, state)

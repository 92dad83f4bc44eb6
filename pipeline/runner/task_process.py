"""One execution of one task, as a subclass of Luigi's: checks its dependencies, and has missing ones done again.

Leans on private parts of ``luigi.worker.TaskProcess`` (3.8.1): ``run`` checks the dependencies while
``check_unfulfilled_deps`` is true, then calls ``_run_get_new_deps``, and puts one result on ``result_queue``: task id,
status, explanation, missing dependencies, new dependencies.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import luigi
import luigi.worker
from luigi.task_status import FAILED, PENDING

from .. import remote, settings
from ..errors import PipelineError, TakenAway, text_after
from ..planning.state import State
from ..planning.task_state import is_complete
from ..reporting.explanations import NOT_AGAIN, title_of
from ..tasks.base import Stage
from .task_context import TaskContext
from .task_list import is_external

LOGGER = logging.getLogger("pipeline")

#: What surrounds every task of our worker, whatever luigi.cfg says.
CONTEXT = f"{TaskContext.__module__}.{TaskContext.__qualname__}"

#: Starts of a task in one run after which a dependency that is missing again counts as a failure.
STARTS = 5


class _CheckedProcess(luigi.worker.TaskProcess):
    """One run of a task. A dependency that is not there is done again; Luigi would fail the task with a traceback."""

    #: Whether a dependency that is missing again is done again; otherwise it counts as a failure.
    may_repeat_dependencies: bool
    check_complete: Any
    _trouble: PipelineError | None = None

    def run(self) -> None:
        missing = self._missing(self.check_complete) if self.check_unfulfilled_deps else []
        if not missing:
            super().run()
            return
        if not self.may_repeat_dependencies:
            title, names = title_of(self.task), ", ".join(map(title_of, missing))
            text = (
                f"{title}: what it needs was done and is gone again, {STARTS} times: {names}; "
                f"if another run does it with other rules or from another publisher, run again when that one has ended"
            )
            self.result_queue.put((self.task.task_id, FAILED, f"{text} {NOT_AGAIN}", [], []))  # the run says it
            return
        self.result_queue.put((self.task.task_id, PENDING, "", [], self._again(missing)))

    def _run_get_new_deps(self) -> Any:
        """Run the task. What it needs may be taken away after it was asked for, while the task waits for a lock."""
        if self._trouble is not None and not isinstance(self.task, Stage):  # a stage meets it again, and reports it
            raise self._trouble
        try:
            return super()._run_get_new_deps()
        except TakenAway as error:
            with State() as now:  # it was there when it was asked for
                missing = self._missing(lambda task: is_complete(task, now)) if self.may_repeat_dependencies else []
            if not missing:
                LOGGER.error("%s: %s", title_of(self.task), text_after(title_of(self.task), error))
                raise
            return self._again(missing)

    def _again(self, missing: list[luigi.Task]) -> list[Any]:
        """Dependencies that have to be done again, in the form in which a running task gives Luigi new dependencies."""
        names = ", ".join(map(title_of, missing))
        LOGGER.warning(
            "%s: needs %s, which is not there though it counts as done; done again", title_of(self.task), names
        )
        return [(task.task_module, task.task_family, task.to_str_params()) for task in missing]

    def _missing(self, check: Callable[[luigi.Task], bool]) -> list[luigi.Task]:
        """The dependencies that are incomplete by ``check`` and can be done."""
        if is_external(self.task):
            return []
        try:
            for server in getattr(self.task, "servers", []):
                server.check()
            with remote.planning():
                missing = [task for task in self.task.deps() if not check(task)]
        except PipelineError as error:
            self._trouble = error
            self.check_unfulfilled_deps = False  # Luigi's own check would wait for the same server again
            return []
        except Exception:
            return []  # Luigi's own check meets the error again, and reports it
        if any(map(is_external, missing)):
            return []
        self.check_unfulfilled_deps = bool(missing)  # not asked twice
        return missing


class TaskProcess(luigi.worker.ContextManagedTaskProcess, _CheckedProcess):
    """``_CheckedProcess`` within ``CONTEXT``, and within that the context of luigi.cfg, if that names another one."""

    def __init__(self, context: str | None, *args: Any, may_repeat_dependencies: bool, **kwargs: Any) -> None:
        super().__init__(CONTEXT, *args, **kwargs)
        self.inner_context = None if context == CONTEXT else context
        self.settings = settings.in_environment()  # as they are now: a fork server has those of its start
        self.may_repeat_dependencies = may_repeat_dependencies

    def terminate(self) -> None:
        """End it at once, as ``[worker] timeout`` wants it; SIGTERM it does not hear."""
        self.kill()

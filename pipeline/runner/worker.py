"""The worker of a run, in the main process, a subclass of Luigi's: schedules tasks, starts them, stops gently.

What else a run does while it works stands beside: ``failures`` (what is tried again), ``lost_tasks`` (where the
scheduler is wrong), ``idle`` (what is waited for), ``task_process`` (one run of a task).

The class overrides private methods of ``luigi.worker.Worker`` (3.8.1), because Luigi has no hooks for these moments;
``tests/unit/runner/test_patches.py`` fails when Luigi changes what it relies on:

* ``run`` asks ``_get_work``, then calls ``_run_task`` or, when there is no task, ``_keep_alive``, until that is false;
* every status reaches the scheduler through ``_add_task``, which notes it in ``_add_task_history``;
* ``_run_task`` makes its process by ``_create_task_process`` and keeps it in ``_running_tasks``; ``_purge_children``
  looks for dead ones; results come through ``_task_result_queue``;
* ``_add`` tells the scheduler of one task and yields those that it needs;
* ``_validate_task`` is called for a task before it is asked whether it is complete;
* errors of planning are logged by ``_log_complete_error`` and ``_log_dependency_error``;
* ``_start_phasing_out`` and ``_stop_requesting_work`` end a run after the running tasks.
"""

from __future__ import annotations

import copy
import logging
import multiprocessing
import os
import signal
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType
from typing import Any

import luigi.worker
from luigi.rpc import RemoteScheduler, RPCError
from luigi.task_status import DISABLED, DONE, FAILED, PENDING, SUSPENDED

from .. import errors, remote, renamed
from ..errors import PipelineError
from ..planning.state import CachedState
from ..planning.task_state import give_state
from ..reporting.explanations import error_of, title_of
from .failures import Failures
from .idle import Idle
from .lost_tasks import LostTasks
from .results import Results
from .rpc import PipelinedScheduler
from .signals import STOPS, without_interrupts
from .task_list import TaskList
from .task_process import STARTS, TaskProcess

LOGGER = logging.getLogger("pipeline")


class Worker(luigi.worker.Worker):
    """One run's worker."""

    _scheduler: Any

    #: Why a task could not be planned, if that is one of our errors.
    planning_error = ""
    add_succeeded: bool
    _config: Any
    _task_result_queue: Any

    def __init__(
        self,
        *args: Any,
        state: CachedState | None = None,
        on_scheduled: Callable[[Worker], None] | None = None,
        **kwargs: Any,
    ) -> None:
        """``state``: what was found already when the run was begun.

        ``on_scheduled``: called once, when all tasks are scheduled and none has run.
        """
        super().__init__(*args, **kwargs)
        self._on_scheduled = on_scheduled
        self.state = state or CachedState()
        if self.worker_processes < 1:
            raise errors.UsageError(f"workers={self.worker_processes}: nothing would run; give at least 1")
        self._config = copy.copy(self._config)  # told to stop Luigi changes it, and all workers of a process share it
        self._task_completion_cache = None  # what was complete once may have been taken away
        self._task_result_queue.close()
        self._task_result_queue = Results()
        self._pid = os.getpid()
        self._has_begun = False
        self._starts: Counter[str] = Counter()
        self.tasks = TaskList.of(self)
        self._failures = Failures(self.tasks)
        self._lost = LostTasks(self.tasks, self._failures, self._announce)
        self._idle = Idle(self.tasks, self._lost, self._failures, self._config.wait_interval, self._start_phasing_out)
        self._handlers_before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    self._handlers_before[number] = signal.signal(number, self._stop_gently)

    def __exit__(self, *error: Any) -> Any:
        self.state.close()
        for number, handler in self._handlers_before.items():
            if signal.getsignal(number) == self._stop_gently:
                signal.signal(number, handler)  # this may be a part of somebody else's program
        return super().__exit__(*error)

    def _stop_gently(self, number: int, frame: FrameType | None) -> None:
        """Finish the running tasks and take no more; told so twice, end at once. Child processes end at once."""
        signal.signal(number, signal.SIG_DFL)
        if os.getpid() == self._pid:
            self._start_phasing_out()
        else:
            os.kill(os.getpid(), number)

    # -- telling the scheduler of tasks ------------------------------------------------------------

    def add(self, task: luigi.Task, *args: Any, **kwargs: Any) -> bool:
        """As Luigi has it while a run is planned; later for a task that must be done again."""
        if self._has_begun:
            if task.task_id in self._failures.given_up and self.tasks.counts_as_done(task.task_id):
                self._failures.is_done(task.task_id)  # somebody marked it as done, and so has looked after it
            self._announce([task])
            return self.add_succeeded
        could_add_others = self.add_succeeded
        with self._pipelined():
            super().add(task, *args, **kwargs)
        self.tasks.roots[task.task_id] = task
        self.add_succeeded = self.add_succeeded and could_add_others
        return self.add_succeeded

    def _validate_task(self, task: luigi.Task) -> None:
        """Called for each task before Luigi asks whether it is complete, while a run is planned."""
        super()._validate_task(task)
        give_state(task, self.state)

    def _log_complete_error(self, task: luigi.Task, tb: str) -> None:
        """Log errors of our own classes in one line, such as a server that does not answer; others as Luigi does."""
        if not self._tell_planning_error(task, tb):
            super()._log_complete_error(task, tb)

    def _log_dependency_error(self, task: luigi.Task, tb: str) -> None:
        if not self._tell_planning_error(task, tb):
            super()._log_dependency_error(task, tb)

    def _tell_planning_error(self, task: luigi.Task, tb: str) -> bool:
        name, text = error_of(tb, title_of(task))
        is_ours = isinstance(kind := getattr(errors, name, None), type) and issubclass(kind, PipelineError)
        if is_ours:
            if text != self.planning_error:
                LOGGER.error("%s: %s", title_of(task), text)
            self.planning_error = text
        return is_ours

    @contextmanager
    def _pipelined(self) -> Iterator[None]:
        """Within this context several tasks are on their way to luigid at once: it is told of thousands, one by one."""
        scheduler = self._scheduler
        if not isinstance(scheduler, RemoteScheduler):
            yield
            return
        try:
            with PipelinedScheduler(scheduler) as self._scheduler:
                yield
        finally:
            self._scheduler = scheduler

    def _announce(self, tasks: Iterable[luigi.Task]) -> None:
        """Tell the scheduler of tasks and of all that they need, as they are found now."""
        waiting = {task.task_id: task for task in tasks}
        seen = set(waiting)
        answers = True
        with CachedState() as state, remote.planning(), self._pipelined():
            while waiting:
                task = waiting.pop(next(iter(waiting)))
                give_state(task, state)
                is_complete: Any = False  # where nobody answers each task finds out itself, and tries again
                try:
                    is_complete = answers and task.complete()
                except PipelineError:
                    answers = False
                except Exception:
                    is_complete = luigi.worker.TracebackWrapper(traceback.format_exc())
                for needed in self._add(task, is_complete):
                    if needed.task_id not in seen:
                        seen.add(needed.task_id)
                        waiting[needed.task_id] = needed

    def _add_task(self, *args: Any, **kwargs: Any) -> None:
        task_id, status = kwargs["task_id"], kwargs["status"]
        is_announced = status == PENDING and kwargs["runnable"]  # of the outcome of a run Luigi says None
        if is_announced and task_id in self._failures.given_up:
            kwargs.update(status=DISABLED, runnable=False)
        elif is_announced and self._has_begun:
            # The scheduler makes PENDING of it; PENDING itself it ignores for some seconds after DONE.
            kwargs["status"] = SUSPENDED
        super()._add_task(*args, **kwargs)
        if kwargs["status"] == SUSPENDED:
            task, _, runnable = self._add_task_history[-1]
            self._add_task_history[-1] = (task, PENDING, runnable)
        if status == DONE:
            self._failures.is_done(task_id)
        if status == FAILED:
            self._failures.note(task_id, kwargs.get("expl") or "")

    # -- running and failing -----------------------------------------------------------------------

    def _create_task_process(self, task: luigi.Task) -> TaskProcess:
        """As Luigi has it, but of our class, with a pipe of its own for the result."""
        self._starts[task.task_id] += 1
        messages: Any = multiprocessing.Queue() if task.accepts_messages else None
        process = TaskProcess(
            renamed.value_now("worker", "task_process_context", self._config.task_process_context),
            task,
            self._id,
            self._task_result_queue,
            luigi.worker.TaskStatusReporter(self._scheduler, task.task_id, self._id, messages),
            use_multiprocessing=self.worker_processes > 1 or self._config.force_multiprocessing,
            worker_timeout=self._config.timeout,
            check_unfulfilled_deps=self._config.check_unfulfilled_deps,
            check_complete_on_run=self._config.check_complete_on_run,
            may_repeat_dependencies=self._starts[task.task_id] <= STARTS,
        )
        if process.use_multiprocessing:
            process.result_queue = self._task_result_queue.sender(task.task_id)
        return process

    def _handle_rpc_message(self, message: Any) -> None:
        """As Luigi has it, but an invalid message does not end the thread that sends signs of life to the scheduler."""
        try:
            super()._handle_rpc_message(message)
        except Exception as error:
            LOGGER.warning("a message of luigid cannot be followed: %s: %s", type(error).__name__, error)

    def _get_work(self) -> Any:
        try:
            response = super()._get_work()
        except (LookupError, TypeError, AttributeError) as error:
            if not isinstance(self._scheduler, RemoteScheduler):
                raise
            raise RPCError(f"the answer of the scheduler makes no sense: {type(error).__name__}: {error}") from error
        if response.worker_state == luigi.worker.WORKER_STATE_DISABLED and not self._stop_requesting_work:
            LOGGER.warning("this run was disabled on luigid's page: running tasks are finished, no more are started")
        return response

    def _run_task(self, task_id: str) -> None:
        self._idle.is_over()
        self._failures.is_offered_again(task_id)
        in_processes = self.worker_processes > 1 or self._config.force_multiprocessing
        try:
            with without_interrupts() if in_processes else nullcontext():
                super()._run_task(task_id)
        except (OSError, EOFError) as error:  # the fork server was killed at this moment, or there is no room for more
            process = self._running_tasks.get(task_id)
            if process is None or not process.use_multiprocessing or process.pid is not None:
                raise
            text = f"{self.tasks.name(task_id)}: its process cannot be started: {error or type(error).__name__}"
            self._task_result_queue.put((task_id, FAILED, text, [], []))
        finally:
            process = self._running_tasks.get(task_id)
            if process is not None and process.use_multiprocessing:
                process.result_queue.close()  # the process has its own

    def _purge_children(self) -> None:
        """As Luigi has it. A process that has exited with 0 and sent no result of its task counts as dead too."""
        super()._purge_children()
        for task_id, process in self._running_tasks.items():
            if process.use_multiprocessing and process.exitcode == 0:
                text = f"Task {task_id} died unexpectedly with exit code 0"
                self._task_result_queue.put((task_id, FAILED, text, [], []))

    def run(self) -> bool:
        """Work until nothing is left; then look what others have done of it, and go on if the scheduler lost some."""
        if self._on_scheduled is not None:
            self._on_scheduled(self)
        self.state.close()  # from here on others change what was found
        self._has_begun = True
        self._failures.enable_again()
        succeeded = bool(super().run())
        while not self._assistant and not self._stop_requesting_work:  # see to it that all of the run is done
            if not self._lost.reannounce_forgotten(self.tasks.known(), is_end=True):
                break
            succeeded = bool(super().run()) and succeeded
        self._idle.is_over()
        if not self._stop_requesting_work:
            self._failures.give_up_waiting()
        return succeeded

    def _keep_alive(self, get_work_response: Any) -> bool:
        """Whether to ask for work again, though there is none now."""
        self._failures.give_up_late()
        # What could not be scheduled never becomes ready, and neither does what needs it.
        is_waiting = self.add_succeeded or bool(get_work_response.running_tasks)
        is_waiting = bool(is_waiting and super()._keep_alive(get_work_response))
        if is_waiting and not self._assistant:
            self._idle.look(get_work_response)
        if not is_waiting or self._lost.is_all_done:
            return False
        return bool(self._config.retry_external_tasks) or not self._lost.are_all_external()

"""Luigi's worker, which also knows what failed for good, and that the scheduler may be wrong about its tasks.

The scheduler never sees the class of an error: it would repeat whatever failed. What failed for good is therefore
disabled by the worker itself. Unlike a task that the scheduler disables, such a one runs at once when a later call asks
for it.

The scheduler knows of tasks only what it was told. It forgets them when luigid loses its state, and believes them done
when somebody marks them as done on its page. What a run finds itself counts: it announces again what it needs.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import re
import signal
import socket
import threading
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import luigi.scheduler
import luigi.worker
from luigi.rpc import RemoteScheduler, RPCError
from luigi.task_status import DISABLED, DONE, FAILED, PENDING, RUNNING, SUSPENDED, UNKNOWN

from .. import errors, remote, settings
from ..errors import PipelineError, TakenAway, TransientError, text_after
from ..partition import Partition
from ..planning import completeness
from ..reporting import journal
from ..reporting.progress import RunProgress
from ..waiting import SAID_AFTER
from .process import STOPS, without_interrupts
from .results import Results
from .rpc import PipelinedScheduler

LOGGER = logging.getLogger("pipeline")

#: What surrounds every task of our worker, whatever luigi.cfg says.
CONTEXT = "pipeline.runner.process.TaskContext"

#: The end of an explanation of an error that the same run would meet again.
NOT_AGAIN = "(not tried again in this run)"

#: Seconds between two looks, while nothing can be done, at what the scheduler knows of this run.
LOOK_EVERY = 5.0

#: Seconds that a run waits for the scheduler to offer a failed task again. Ours does so after a few; one that was
#: started with other settings may want to wait for a quarter of an hour, and that for ever.
PATIENCE = 60

#: Seconds of waiting for a task of another run after which it is asked whether that run is there, and the task done.
GONE_AFTER = 20.0

#: Seconds for which a run waits for the same: a paused luigid, a resource that is 0 there, one task of another run.
WAITS_AT_MOST = 12 * 3600.0

#: Starts of a task in one run after which a dependency that is missing again counts as a failure.
STARTS = 5

#: How often one task is announced again in one run. It ends a run of foreign tasks that the scheduler loses each time.
ANNOUNCEMENTS = 20


def explain(title: str, error: BaseException) -> str:
    """What luigid shows of a task that failed: one line with the month, and the traceback of what we did not foresee.

    Errors that may pass are tried again by the scheduler when the stage itself has given up, and so is a task whose
    dependency was taken away. Nobody has said of any other that another try would help.
    """
    if isinstance(error, RuntimeError) and str(error).startswith("Unfulfilled depend"):
        return f"{title}: {error}"
    if isinstance(error, TransientError) and not error.is_for_good:
        return f"{title}: {type(error).__name__}: {text_after(title, error)}"
    if isinstance(error, PipelineError):
        return f"{title}: {type(error).__name__}: {text_after(title, error)} {NOT_AGAIN}"
    return f"{title}: {''.join(traceback.format_exception(error))}{NOT_AGAIN}"


def error_of(explanation: str, title: str) -> tuple[str, str]:
    """Class and text of the error that ``explain`` or Luigi put into words; an empty class where none was raised."""
    text = explanation.removesuffix(NOT_AGAIN).strip().removeprefix(f"{title}: ")
    died = re.search(r"died unexpectedly with exit code (-?\d+)$", text)
    if died:
        return "", f"its process {_end_of(int(died[1]))}"
    late = re.search(r"timed out after (\d+) seconds", text)
    if late:
        return "", f"its process ended after {late[1]} s, the limit of [worker] timeout"
    line = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    name, colon, message = line.partition(": ")
    return (name.rpartition(".")[2], message) if colon and re.fullmatch(r"[\w.]+", name) else ("", line)


def _end_of(code: int) -> str:
    """How a process ended, by its exit code; below 0 it is a signal."""
    if code == -signal.SIGKILL:
        return "was killed; maybe no memory was left"
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        return f"was ended by {name}; if it happens again, the month's file may be one that nobody can read"
    return f"ended with exit code {code}"


def _text_of(explanation: str) -> str:
    """What ``explain`` returned, of which Luigi makes JSON; of a task that could not be loaded, the text itself."""
    try:
        return str(json.loads(explanation))
    except ValueError:
        return explanation


def title_of(task: luigi.Task) -> str:
    return str(getattr(task, "title", task.task_id))


def _is_gone(worker: dict[str, Any]) -> bool:
    """Whether a worker that the scheduler shows was a process of this host and is none any more."""
    try:
        if worker.get("host") == socket.gethostname():
            os.kill(int(worker["pid"]), 0)
    except ProcessLookupError:
        return True
    except (OSError, LookupError, TypeError, ValueError, OverflowError):
        pass
    return False


class _CheckedProcess(luigi.worker.TaskProcess):
    """One run of a task. A dependency that is not there is done again; Luigi would fail the task with a traceback."""

    may_ask = False
    _trouble: PipelineError | None = None

    def run(self) -> None:
        missing = self._missing() if self.check_unfulfilled_deps else []
        if not missing:
            super().run()
            return
        if not self.may_ask:
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
        if self._trouble is not None and not getattr(self.task, "tells_trouble", False):
            raise self._trouble
        try:
            return super()._run_get_new_deps()
        except TakenAway as error:
            missing = self._missing() if self.may_ask else []
            if not missing:
                LOGGER.error("%s: %s", title_of(self.task), text_after(title_of(self.task), error))
                raise
            return self._again(missing)

    def _again(self, missing: list[luigi.Task]) -> list[Any]:
        """Dependencies that have to be done again, as Luigi wants to be told of those found out while a task runs."""
        names = ", ".join(map(title_of, missing))
        LOGGER.warning(
            "%s: needs %s, which is not there though it counts as done; done again", title_of(self.task), names
        )
        return [(task.task_module, task.task_family, task.to_str_params()) for task in missing]

    def _missing(self) -> list[luigi.Task]:
        """The dependencies that are incomplete and can be done."""
        if luigi.worker._is_external(self.task):
            return []
        # A look of its own, which is forgotten when the task has run. What spans months has one for all of them.
        look: AbstractContextManager[None] = (
            nullcontext() if getattr(self.task, "spans_months", False) else completeness.running()
        )
        try:
            for server in getattr(self.task, "servers", []):
                server.check()
            with look, remote.planning():
                missing = [task for task in self.task.deps() if not task.complete()]
        except PipelineError as error:
            self._trouble = error
            self.check_unfulfilled_deps = False  # Luigi's own check would wait for the same server again
            return []
        except Exception:
            return []  # Luigi's own check meets the error again, and reports it
        if any(map(luigi.worker._is_external, missing)):
            return []
        self.check_unfulfilled_deps = bool(missing)  # not asked twice
        return missing


class TaskProcess(luigi.worker.ContextManagedTaskProcess, _CheckedProcess):
    """``_CheckedProcess`` within ``CONTEXT``."""

    inner_context: str | None = None

    def terminate(self) -> None:
        """End it at once, as ``[worker] timeout`` wants it; SIGTERM it does not hear."""
        self.kill()


class Worker(luigi.worker.Worker):
    """One run's worker."""

    _scheduler: Any

    #: Why a task could not be planned, if that is one of our errors.
    planning_error = ""
    add_succeeded: bool
    _config: Any
    _task_result_queue: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.worker_processes < 1:
            raise errors.UsageError(f"workers={self.worker_processes}: nothing would run; give at least 1")
        self._config = copy.copy(self._config)  # told to stop Luigi changes it, and all workers of a process share it
        self._task_completion_cache = None  # what was complete once may have been taken away
        self._task_result_queue.close()
        self._task_result_queue = Results()
        self._pid = os.getpid()
        self._roots: dict[str, luigi.Task] = {}
        self._has_begun = False
        self._starts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._announcements: Counter[str] = Counter()
        self._failed_at: dict[str, float] = {}  # those that wait to be offered again
        self._failed_elsewhere: dict[str, float] = {}  # the same, of other runs; since when they were seen
        self._explanations: dict[str, str] = {}  # of the last failures
        self._given_up: set[str] = set()
        self._enabled: set[str] = set()  # in this run, after the scheduler had disabled them by itself
        self._is_done = False  # whatever the scheduler says that is pending
        self._next_look = 0.0
        self._idle_since_when: float | None = None
        self._waits_for = ""  # the kind of what was said last
        self._cause_told, self._same_since = "", 0.0
        self._handlers_before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in STOPS:
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    self._handlers_before[number] = signal.signal(number, self._stop_gently)

    def __exit__(self, *error: Any) -> Any:
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
            if task.task_id in self._given_up and self._counts_as_done(task.task_id):
                self._given_up.discard(task.task_id)  # somebody marked it as done, and so has looked after it
            self._announce([task])
            return self.add_succeeded
        could_add_others = self.add_succeeded
        with self._pipelined():
            super().add(task, *args, **kwargs)
        self._roots[task.task_id] = task
        self.add_succeeded = self.add_succeeded and could_add_others
        return self.add_succeeded

    def _log_complete_error(self, task: luigi.Task, tb: str) -> None:
        """As Luigi has it, but what we foresaw is one line: mostly a server that does not answer."""
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
        with completeness.running(), completeness.scheduling(), remote.planning(), self._pipelined():
            while waiting:
                task = waiting.pop(next(iter(waiting)))
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
        if is_announced and task_id in self._given_up:
            kwargs.update(status=DISABLED, runnable=False)
        elif is_announced and self._has_begun:
            # The scheduler makes PENDING of it; PENDING itself it ignores for some seconds after DONE.
            kwargs["status"] = SUSPENDED
        super()._add_task(*args, **kwargs)
        if kwargs["status"] == SUSPENDED:
            task, _, runnable = self._add_task_history[-1]
            self._add_task_history[-1] = (task, PENDING, runnable)
        if status == DONE:
            self._given_up.discard(task_id)
        if status == FAILED:
            self._failed(task_id, kwargs.get("expl") or "")

    # -- running and failing -----------------------------------------------------------------------

    def _create_task_process(self, task: luigi.Task) -> Any:
        process = super()._create_task_process(task)
        process.__class__ = TaskProcess  # Luigi has no hook for its class
        if process.context != CONTEXT:  # somebody else's goes into ours
            process.context, process.inner_context = CONTEXT, process.context
        process.settings = settings.in_environment()  # as they are now: a fork server has those of its start
        if process.use_multiprocessing:
            process.result_queue = self._task_result_queue.sender(task.task_id)
        self._starts[task.task_id] += 1
        process.may_ask = self._starts[task.task_id] <= STARTS
        return process

    def _handle_rpc_message(self, message: Any) -> None:
        """As Luigi has it; a message that makes no sense does not end the thread that says that this run lives."""
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
            LOGGER.warning("this run was disabled on luigid's page: what runs is finished, nothing more is begun")
        return response

    def _run_task(self, task_id: str) -> None:
        self._goes_on()
        self._failed_at.pop(task_id, None)
        in_processes = self.worker_processes > 1 or self._config.force_multiprocessing
        try:
            with without_interrupts() if in_processes else nullcontext():
                super()._run_task(task_id)
        except (OSError, EOFError) as error:  # the fork server was killed at this moment, or there is no room for more
            process = self._running_tasks.get(task_id)
            if process is None or not process.use_multiprocessing or process.pid is not None:
                raise
            text = f"{self._name(task_id)}: its process cannot be started: {error or type(error).__name__}"
            self._task_result_queue.put((task_id, FAILED, text, [], []))
        finally:
            process = self._running_tasks.get(task_id)
            if process is not None and process.use_multiprocessing:
                process.result_queue.close()  # the process has its own

    def _purge_children(self) -> None:
        """As Luigi has it; and a process that has ended well, and has not said what became of its task, is dead too."""
        super()._purge_children()
        for task_id, process in self._running_tasks.items():
            if process.use_multiprocessing and process.exitcode == 0:
                text = f"Task {task_id} died unexpectedly with exit code 0"
                self._task_result_queue.put((task_id, FAILED, text, [], []))

    def _failed(self, task_id: str, explanation: str) -> None:
        self._failures[task_id] += 1
        self._failed_at[task_id] = time.monotonic()
        explanation = self._explanations[task_id] = _text_of(explanation)
        error, message = self._error_of(task_id)
        if message and not error:  # of its own errors the task's process has told
            LOGGER.error("%s: %s", self._name(task_id), message)
        is_for_good = explanation.endswith(NOT_AGAIN)
        is_enough = self._failures[task_id] >= luigi.scheduler.scheduler().retry_count
        if is_for_good or is_enough:
            self._give_up(task_id, {FAILED, PENDING, DISABLED})
        elif not self._enable(task_id):
            self._give_up(task_id, {DISABLED})

    def _error_of(self, task_id: str) -> tuple[str, str]:
        return error_of(self._explanations.get(task_id, ""), self._name(task_id))

    def _give_up(self, task_id: str, states: set[str]) -> None:
        """Disable a task, if the scheduler has it in one of the states, until the next call asks for it.

        Done again by the worker for one that the scheduler has disabled by itself: that would not run at the next call.
        """
        for status, tasks in self._scheduler.task_search(task_str=task_id).items():
            if task_id in tasks and status in states:
                link = tasks[task_id]["tracking_url"]
                self._scheduler.add_task(
                    task_id=task_id, worker=self._id, status=DISABLED, runnable=False, tracking_url=link
                )
                self._note_given_up(task_id)
                self._scheduler.set_task_status_message(
                    task_id=task_id, status_message=": ".join(filter(None, self._error_of(task_id)))
                )

    def _note_given_up(self, task_id: str) -> None:
        """Tell the journal that a task is not tried again in this run, and why it failed last."""
        self._failed_at.pop(task_id, None)
        self._given_up.add(task_id)
        task = self._scheduled_tasks.get(task_id)  # None if it is another run's that cannot be loaded here
        error, message = self._error_of(task_id)
        month = getattr(task, "month", None)
        journal.record(
            "given up",
            task=task_id,
            family=getattr(task, "task_family", task_id.partition("_")[0]),
            dataset=getattr(task, "dataset", None),
            month=f"{month:%Y-%m}" if month else None,
            warehouse=getattr(task, "warehouse", None),
            error=error,
            message=message,
        )

    # -- a scheduler that is wrong, and other hosts ------------------------------------------------

    def run(self) -> bool:
        """Work until nothing is left; then look what others have done of it, and go on if the scheduler lost some."""
        from . import run  # which shows what tasks of all kinds come to, and so imports them

        run.scheduled(self)
        self._has_begun = True
        self._enable_again()
        succeeded = bool(super().run())
        while not self._assistant and not self._stop_requesting_work and self._reconcile(self._known(), is_end=True):
            succeeded = bool(super().run()) and succeeded
        self._goes_on()
        if not self._stop_requesting_work:
            for task_id in list(self._failed_at):  # nobody waits for them any more
                self._note_given_up(task_id)
        return succeeded

    def _enable_again(self) -> None:
        """Have the scheduler offer tasks again that it disabled by itself before: hosts died while they did them."""
        for task_id, task in self._scheduler.task_list(status=DISABLED, upstream_status="").items():
            if task_id in self._scheduled_tasks and task.get("re_enable_able"):
                self._scheduler.re_enable_task(task_id=task_id)
                self._scheduler.forgive_failures(task_id=task_id)

    def _enable(self, task_id: str) -> bool:
        """Have the scheduler offer a task again that it has disabled by itself; once in a run.

        It counts the failures of all runs within an hour, those of runs before too. What failed too often in this run
        is given up, and so is what it disables once more, as when it kills each host that does it.
        """
        if task_id in self._enabled or not self._scheduler.re_enable_task(task_id=task_id):
            return False
        self._enabled.add(task_id)
        self._scheduler.forgive_failures(task_id=task_id)
        return True

    def _counts_as_done(self, task_id: str) -> bool:
        return task_id in self._scheduler.task_search(task_str=task_id).get(DONE, {})

    def _known(self) -> dict[str, dict[str, Any]]:
        """What the scheduler knows of this run's tasks."""
        known: dict[str, dict[str, Any]] = {}
        for root in self._roots:
            if root not in known:
                known.update(self._scheduler.dep_graph(task_id=root))
        return known

    def _reconcile(self, known: dict[str, dict[str, Any]], is_end: bool = False) -> bool:
        """Note what others have done of this run, and announce all again if the scheduler has lost some of it.

        It forgets a worker that it has not heard of for ``[scheduler] worker_disconnect_delay`` seconds, and all of
        them if luigid lost its state. It gives a task to nobody whose host was gone before it could say what became of
        it. And it believes those done that somebody has marked so. Returns whether anything was lost.
        """
        last = {task.task_id: (task, status) for task, status, _ in self._add_task_history}
        status_of = {task_id: known.get(task_id, {}).get("status", UNKNOWN) for task_id in last}
        is_open = {
            task_id: task
            for task_id, (task, status) in last.items()
            if (status == PENDING and is_end) or (status != DONE and status_of[task_id] == DONE)
        }
        done = self._note_done(is_open.values())
        left = {
            task_id: task
            for task_id, (task, status) in last.items()
            if status == PENDING and task_id not in done and not luigi.worker._is_external(task)
        }
        lost = [
            task
            for task_id, task in left.items()
            if status_of[task_id] in (UNKNOWN, DONE)
            or (status_of[task_id] == PENDING and self._id not in known[task_id]["workers"])
        ]
        lost += [
            task
            for task_id, (task, status) in last.items()
            if status == DONE
            and task_id in known
            and (status_of[task_id] == UNKNOWN or (status_of[task_id] == PENDING and not known[task_id]["workers"]))
        ]
        lost = [task for task in lost if self._announcements[task.task_id] < ANNOUNCEMENTS]
        enabled = {name for name in left if known.get(name, {}).get("re_enable_able") and self._enable(name)}
        self._is_done = not lost and all(status == DONE or name in done for name, (_, status) in last.items())
        if lost:
            self._announcements.update(task.task_id for task in lost)
            LOGGER.info("the scheduler had forgotten tasks of this run; %s are left to do", f"{len(left):,}")
            self._announce([*self._roots.values(), *lost])
        elif is_end:
            for task_id in left:
                if status_of[task_id] == DISABLED and task_id not in self._given_up | enabled:  # by another run
                    self._note_given_up_elsewhere(task_id)
            for response in self._get_work_response_history:  # from these Luigi tells what was left to others
                response["running_tasks"] = [task for task in response["running_tasks"] if task["task_id"] in left]
        return bool(lost or enabled)

    def _note_done(self, tasks: Iterable[luigi.Task]) -> set[str]:
        """Note those as done that are complete now, whoever did them. Returns their ids."""
        done = set()
        with remote.planning(), completeness.running(), completeness.scheduling():  # not what was true before the run
            for task in tasks:
                try:
                    if not task.complete():
                        continue
                except PipelineError:
                    break  # nobody answers; to ask about all others would take as long each time
                except Exception:
                    continue
                done.add(task.task_id)
                self._add_task_history.append((task, DONE, None))
                if task.task_family == "MonthlyTrips":
                    journal.record_all_loaded(task.task_id, Partition(task.dataset, task.month), task.warehouses)
        return done

    def _note_given_up_elsewhere(self, task_id: str) -> None:
        told = _text_of(self._scheduler.fetch_error(task_id=task_id)["error"] or "")
        self._explanations[task_id] = told or "the hosts that did it died"
        self._note_given_up(task_id)

    # -- waiting -----------------------------------------------------------------------------------

    def _keep_alive(self, get_work_response: Any) -> bool:
        for task_id, since in list(self._failed_at.items()):
            if time.monotonic() - since > PATIENCE:
                self._failed_at[task_id] = time.monotonic()
                self._give_up(task_id, {FAILED})
        # What could not be scheduled never becomes ready, and neither does what needs it.
        is_waiting = self.add_succeeded or bool(get_work_response.running_tasks)
        is_waiting = bool(is_waiting and super()._keep_alive(get_work_response))
        if is_waiting and not self._assistant:
            self._idle(get_work_response)
        return is_waiting and not self._is_done and not self._is_stuck()

    def _is_stuck(self) -> bool:
        """Whether all that is left needs external data, of somebody else's tasks, which no worker makes."""
        if self._config.retry_external_tasks:
            return False
        last = {task.task_id: (task, status) for task, status, _ in self._add_task_history}
        last = {name: (task, status) for name, (task, status) in last.items() if status != DONE}
        stuck = {name for name, (task, _) in last.items() if luigi.worker._is_external(task)}
        if not stuck:
            return False
        stuck |= self._given_up & last.keys()
        before = 0
        while len(stuck) > before:
            before = len(stuck)
            stuck |= {
                name for name, (task, _) in last.items() if any(needed.task_id in stuck for needed in task.deps())
            }
        return stuck >= last.keys()

    def _idle(self, response: Any) -> None:
        """Nothing can be done now: look from time to time whether that is right, and say what this run waits for."""
        now = time.monotonic()
        if self._idle_since_when is None:
            self._idle_since_when = now
        if now < self._next_look:
            return
        self._next_look = now + LOOK_EVERY
        known = {} if response.running_tasks else self._known()
        if response.running_tasks and self._release(response.running_tasks, now):
            return
        if not response.running_tasks and self._reconcile(known):
            return
        self._hurry(known, now)
        if now - self._idle_since_when + self._config.wait_interval >= SAID_AFTER:  # asleep it cannot say it
            kind, text = self._cause(response, known)
            if text != self._cause_told:
                self._cause_told, self._same_since = text, now
            elif now - self._same_since > WAITS_AT_MOST:
                hours = f"{WAITS_AT_MOST / 3600:g}"
                LOGGER.error("this run %s; that has not changed for %s hours, and so the run ends", text, hours)
                self._start_phasing_out()
            if kind != self._waits_for:
                self._waits_for = kind
                RunProgress().waiting(text)
            elif journal.is_mine():
                journal.record("waiting", text=text)

    def _release(self, running: list[dict[str, Any]], now: float) -> bool:
        """Correct a scheduler that waits for tasks to be ended by runs that are gone, or have nothing to do with them.

        It came back with a state of another time, maybe. Whom it has not heard of for some seconds it gives up by
        itself; how many is a setting of its own. Returns whether there was something to correct.
        """
        last = {task.task_id: status for task, status, _ in self._add_task_history}
        has_waited = self._idle_since_when is not None and now - self._idle_since_when > GONE_AFTER
        theirs = {shown["task_id"]: shown for shown in running if shown["task_id"] in self._scheduled_tasks}
        done = {task_id for task_id in theirs if last.get(task_id) == DONE}
        if has_waited:
            done |= self._note_done([self._scheduled_tasks[task_id] for task_id in theirs.keys() - done])
        gone = {task_id for task_id in theirs.keys() - done if has_waited and _is_gone(theirs[task_id])}
        gone = {task_id for task_id in gone if self._announcements[task_id] < ANNOUNCEMENTS}
        for task_id in done | gone:
            LOGGER.info("the scheduler believed that %s runs elsewhere, which is over", self._name(task_id))
            self._scheduler.mark_as_done(task_id=task_id)  # the one way to end it, and to offer it again
        self._announcements.update(gone)
        if gone:
            self._announce([self._scheduled_tasks[task_id] for task_id in gone])
        return bool(done | gone)

    def _hurry(self, known: dict[str, dict[str, Any]], now: float) -> None:
        """Have the scheduler offer what failed elsewhere no later than what failed here: its host may have died."""
        failed = {task_id for task_id, task in known.items() if task["status"] == FAILED} - set(self._failed_at)
        self._failed_elsewhere = {task_id: self._failed_elsewhere.get(task_id, now) for task_id in failed}
        for task_id, since in self._failed_elsewhere.items():
            if now - since > PATIENCE:
                self._scheduler.forgive_failures(task_id=task_id)

    def _goes_on(self) -> None:
        self._idle_since_when = None
        self._cause_told = ""
        if self._waits_for:
            self._waits_for = ""
            RunProgress().waiting("")

    def _cause(self, response: Any, known: dict[str, dict[str, Any]]) -> tuple[str, str]:
        """What this run waits for: its kind, and in words."""
        if self._scheduler.is_paused()["paused"]:
            return "paused", "waits because luigid is paused; the switch on its page lets it run again"
        if response.running_tasks:
            task = response.running_tasks[0]
            others = len(response.running_tasks) - 1
            more = f" and {others:,} more" if others else ""
            who = f"PID {task.get('pid')} on {task.get('host')}"
            return "others", f"waits for {self._name(task['task_id'])}{more}, which another run does ({who})"
        ready = {
            task_id: task
            for task_id, task in known.items()
            if task["status"] == PENDING
            and self._id in task["workers"]
            and all(known.get(needed, {}).get("status") == DONE for needed in task["deps"])
        }
        for task_id, task in ready.items():
            for resource, amount in (task.get("resources") or {}).items():
                taken = self._taken(resource, amount)
                if taken:
                    return f"resource {resource}", f"waits to do {self._name(task_id)}: [resources] {resource}{taken}"
        if ready:
            return "ready", f"waits until luigid offers {self._name(next(iter(ready)))}; tasks of other runs come first"
        failed = [task_id for task_id, task in known.items() if task["status"] == FAILED]
        if failed:
            return "failed", f"waits to try {self._name(failed[0])} again, which has failed"
        return "rest", f"waits for luigid to offer {response.n_pending_tasks:,} tasks"

    def _taken(self, resource: str, amount: int) -> str:
        """By whom a resource is taken, if less than ``amount`` of it is left."""
        totals = {found["name"]: found["num_total"] for found in self._scheduler.resource_list()}
        total = totals.get(resource, 1)
        if total < amount:
            return f" = {total} where the scheduler runs lets no such task run; raise it there"
        running = self._scheduler.task_list(status=RUNNING, upstream_status="")
        holders = {
            task_id: task
            for task_id, task in running.items()
            if isinstance(task, dict) and (task.get("resources_running") or {}).get(resource)
        }
        used = sum(task["resources_running"][resource] for task in holders.values())
        if used + amount <= total:
            return ""
        task_id, task = next(iter(holders.items()))
        who = dict(re.findall(r"(host|pid)=([^,)]+)", task.get("worker_running") or ""))
        more = f" and {len(holders) - 1:,} more" if len(holders) > 1 else ""
        return f" = {total} is taken by {self._name(task_id, task)}{more} (PID {who.get('pid')} on {who.get('host')})"

    def _name(self, task_id: str, shown: dict[str, Any] | None = None) -> str:
        """What people call a task, of this run or of another that luigid ``shows``."""
        if task_id in self._scheduled_tasks:
            return title_of(self._scheduled_tasks[task_id])
        if shown is None:
            return task_id
        parameters = shown.get("params") or {}
        return " ".join(filter(None, (shown.get("name"), parameters.get("dataset"), parameters.get("month"))))

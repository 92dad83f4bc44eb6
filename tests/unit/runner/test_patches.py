"""What the patches of Luigi rely on: each of these fails when Luigi changes it.

``original`` are Luigi's own functions: the patches keep them.
"""

from __future__ import annotations

import importlib.metadata
import inspect
import logging
import pickle
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any

import luigi
import luigi.cmdline
import luigi.interface
import luigi.retcodes
import luigi.scheduler
import luigi.server
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.contrib.prometheus_metric import PrometheusMetricsCollector
from luigi.setup_logging import InterfaceLogging

from pipeline.runner import luigid, patches, rpc, worker
from pipeline.runner.task_process import CONTEXT


class Reached(BaseException):
    """A function of Luigi's was called with these arguments."""


def reached(*args: Any, **kwargs: Any) -> Any:
    raise Reached(args, kwargs)


def original(patched: Any) -> Callable[..., Any]:
    found: Callable[..., Any] = patched.__wrapped__
    return found


class Nothing(luigi.Task):
    def complete(self) -> bool:
        return True


WORDS = ["--module", __name__, "Nothing", "--local-scheduler"]


def test_version_of_luigi() -> None:
    assert importlib.metadata.version("luigi") == patches.LUIGI, "look at every patch, then change the version"


def test_patches_are_applied_once() -> None:
    assert not patches.is_first()
    assert not hasattr(original(luigi.interface._run), "__wrapped__")


@pytest.mark.parametrize("command", [luigi.retcodes.run_with_retcodes, luigi.cmdline.luigi_run])
def test_both_commands_of_luigi_call_interface_run(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luigi.interface, "_run", reached)
    with pytest.raises(Reached) as caught:
        command(WORDS)
    assert caught.value.args == ((WORDS,), {})


def test_command_and_build_call_schedule_and_run_with_the_root_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luigi.interface, "_schedule_and_run", reached)
    monkeypatch.setattr(CmdlineParser, "get_task_obj", original(CmdlineParser.get_task_obj))
    with pytest.raises(Reached) as caught:
        original(luigi.interface._run)(WORDS)
    assert caught.value.args[0][0] == [Nothing()]
    with pytest.raises(Reached) as caught:
        luigi.build([Nothing()], local_scheduler=True, log_level="INFO")
    (tasks, _), options = caught.value.args
    assert tasks == [Nothing()] and options["override_defaults"]["log_level"] == "INFO"


def test_result_of_a_run_can_be_corrected() -> None:
    """Of its attributes luigi.build returns ``scheduling_succeeded``, and Luigi's command the exit code of ours."""
    result = luigi.build([Nothing()], local_scheduler=True, detailed_summary=True)
    assert result.scheduling_succeeded and isinstance(result.worker, luigi.worker.Worker)
    assert result.status == luigi.LuigiStatusCode.SUCCESS


def test_command_builds_the_root_task_when_it_knows_the_flags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CmdlineParser, "get_task_obj", reached)
    with pytest.raises(Reached) as caught:
        original(luigi.interface._run)(WORDS)
    ((parser,), _) = caught.value.args
    assert parser.known_args.root_task == "Nothing" and CmdlineParser.get_instance() is None


def test_a_parser_is_built_once_and_anew_for_a_task_that_is_defined_later() -> None:
    first = CmdlineParser._build_parser("Nothing")
    assert CmdlineParser._build_parser(root_task="Nothing") is first

    class Later(luigi.Task):
        answer = luigi.Parameter()

    later = CmdlineParser._build_parser("Nothing")
    assert "--Later-answer" in later._option_string_actions and later is not first


def test_every_parser_is_made_by_build_parser_and_says_mistakes_by_error(monkeypatch: pytest.MonkeyPatch) -> None:
    build = original(CmdlineParser._build_parser)
    assert list(inspect.signature(build).parameters) == ["root_task", "help_all"]
    assert isinstance(build(root_task="Nothing", help_all=False), ArgumentParser)
    roots = []

    def build_and_note(root_task: str | None = None, help_all: bool = False) -> ArgumentParser:
        roots.append(root_task)
        parser: ArgumentParser = build(root_task, help_all)
        monkeypatch.setattr(parser, "error", reached)
        return parser

    monkeypatch.setattr(CmdlineParser, "_build_parser", staticmethod(build_and_note))
    with pytest.raises(Reached, match="--no-such-flag"):
        CmdlineParser([*WORDS, "--no-such-flag"])
    assert roots[-1] == "Nothing", "the parser of the root task is asked last"


def test_parser_looks_for_help_before_it_misses_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CmdlineParser, "_possibly_exit_with_help", staticmethod(reached))
    with pytest.raises(Reached) as caught:
        CmdlineParser([])
    ((parser, known), _) = caught.value.args
    assert isinstance(parser, ArgumentParser) and isinstance(known, Namespace) and known.root_task is None
    assert known.retcode_task_failed is None, "settings are among the flags, under their section"


def test_runs_get_luigid_and_worker_of_the_factory(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = luigi.interface._WorkerSchedulerFactory
    with monkeypatch.context() as patch:
        patch.setattr(factory, "create_remote_scheduler", reached)
        with pytest.raises(Reached) as caught:
            luigi.build([Nothing()], scheduler_url="http://127.0.0.1:1")
        assert caught.value.args[1] == {"url": "http://127.0.0.1:1"}
    monkeypatch.setattr(factory, "create_worker", reached)
    with pytest.raises(Reached) as caught:
        luigi.build([Nothing()], local_scheduler=True, workers=3)
    options = caught.value.args[1]
    assert options.keys() == {"scheduler", "worker_processes", "assistant"} and options["worker_processes"] == 3


def test_luigi_still_calls_settings_unknown_that_it_reads_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """``luigi_config`` has set [core] rpc_retry_attempts."""
    monkeypatch.setattr(luigi.interface.core, "_unconsumed_params", set(), raising=False)  # it says so once
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        luigi.interface.core()
    texts = [str(warning.message) for warning in said]
    assert any("The configuration contains the parameter 'rpc_retry_attempts'" in text for text in texts)
    monkeypatch.setattr(luigi.interface.core, "_unconsumed_params", set())
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        patches.hide_warnings_with_addresses()
        luigi.interface.core()
    assert not [warning for warning in said if "rpc_retry" in str(warning.message)]


def test_logging_that_was_set_up_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(InterfaceLogging, "_configured", False)
    monkeypatch.setattr(InterfaceLogging, "_default", lambda options: reached())
    monkeypatch.setattr(InterfaceLogging.config, "getboolean", lambda *args: False)
    options = Namespace(background=False, logdir="", logging_conf_file="", log_level="INFO")
    before = list(logging.getLogger("luigi-interface").handlers)
    with patches.logging_left_alone():
        assert InterfaceLogging.setup(options) is False
    assert logging.getLogger("luigi-interface").handlers == before
    with pytest.raises(Reached):
        InterfaceLogging.setup(options)  # so that is what was prevented


def test_luigid_makes_its_application_by_server_app(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(inspect.signature(luigi.server.app).parameters) == ["scheduler"]
    monkeypatch.setattr(luigi.server, "app", reached)
    scheduler = luigi.scheduler.Scheduler()
    monkeypatch.setattr(scheduler, "load", lambda: None)
    with pytest.raises(Reached) as caught:
        luigi.server.run(api_port=0, address="127.0.0.1", scheduler=scheduler)
    assert caught.value.args[0] == (scheduler,)


# -- private parts that our subclasses rely on -----------------------------------------------------


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("add", "self, task, multiprocess=False, processes=0"),
        ("run", "self"),
        ("_add", "self, task, is_complete"),
        ("_add_task", "self, *args, **kwargs"),
        ("_create_task_process", "self, task"),
        ("_get_work", "self"),
        ("_handle_rpc_message", "self, message"),
        ("_keep_alive", "self, get_work_response"),
        ("_log_complete_error", "self, task, tb"),
        ("_log_dependency_error", "self, task, tb"),
        ("_purge_children", "self"),
        ("_run_task", "self, task_id"),
        ("_start_phasing_out", "self"),
        ("_validate_task", "self, task"),
    ],
)
def test_methods_of_luigis_worker(method: str, parameters: str) -> None:
    assert str(inspect.signature(getattr(luigi.worker.Worker, method))) == f"({parameters})"


def test_our_worker_overrides_only_what_is_listed_here() -> None:
    listed = {arguments[0] for arguments in test_methods_of_luigis_worker.pytestmark[0].args[1]}  # type: ignore[attr-defined]
    theirs = {name for name, value in vars(luigi.worker.Worker).items() if callable(value)}
    ours = {name for name, value in vars(worker.Worker).items() if callable(value)}
    assert ours & theirs - {"__init__", "__exit__"} <= listed


def test_attributes_of_luigis_worker() -> None:
    theirs = luigi.worker.Worker(worker_processes=1)
    names = "_scheduler _id _config _assistant _stop_requesting_work _scheduled_tasks _running_tasks"
    names += " _add_task_history _get_work_response_history _task_result_queue _task_completion_cache"
    assert [name for name in names.split() if not hasattr(theirs, name)] == []
    theirs._task_result_queue.close()


@pytest.mark.parametrize("method", ["run", "_run_get_new_deps"])
def test_methods_of_luigis_task_process(method: str) -> None:
    assert str(inspect.signature(getattr(luigi.worker.TaskProcess, method))) == "(self)"
    assert luigi.worker.ContextManagedTaskProcess.__mro__[1] is luigi.worker.TaskProcess


@pytest.mark.parametrize("context", [None, "theirs.Context", CONTEXT])
def test_process_of_a_task_is_made_with_all_that_luigi_gives_it(context: str | None) -> None:
    """Our worker does not call Luigi's method, which has no hook for the class of the process."""
    with worker.Worker(worker_processes=1) as ours:
        settings = ours._config
        settings.task_process_context, settings.timeout, settings.force_multiprocessing = context, 5, True
        settings.check_unfulfilled_deps, settings.check_complete_on_run = False, True
        found = vars(ours._create_task_process(Nothing()))
        expected = vars(luigi.worker.Worker._create_task_process(ours, Nothing()))
    assert found.keys() - expected.keys() == {"inner_context", "settings", "may_repeat_dependencies"}
    assert (found["context"], found["inner_context"]) == (CONTEXT, None if context == CONTEXT else context)
    assert vars(found.pop("status_reporter")) == vars(expected.pop("status_reporter"))
    of_each = {"_identity", "_name", "context", "result_queue", "timeout_time", "check_complete"}
    assert {name: found[name] for name in expected.keys() - of_each} == {
        name: expected[name] for name in expected.keys() - of_each
    }


def test_attributes_of_luigis_remote_scheduler() -> None:
    names = ["_url", "_fetcher", "_connect_timeout", "_rpc_retry_attempts", "_rpc_retry_wait", "_rpc_log_retries"]
    theirs = luigi.rpc.RemoteScheduler("http://127.0.0.1:1")
    assert [name for name in names if not hasattr(theirs, name)] == []


#: The methods of Luigi's that the classes of our luigid and of its client override.
OVERRIDDEN: dict[type, dict[str, str]] = {
    rpc.Luigid: {
        "_get_retryer": "self",
        "_request": "self, url, data, attempts=3, allow_null=True",
        "_fetch": "self, url_suffix, body",
    },
    rpc.Fetcher: {"fetch": "self, full_url, body, timeout", "check_pid": "self"},
    luigid.Scheduler: {
        "prune": "self",
        "get_work": "self, host=None, assistant=False, current_tasks=None, worker=None, **kwargs",
        "count_pending": "self, worker",
        "load": "self",
        "dump": "self",
    },
    luigid.History: {"task_scheduled": "self, task"},
    luigid.Metrics: {"handle_task_failed": "self, task", "handle_task_disabled": "self, task, config"},
}


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_subclasses_override_only_what_is_listed_here(ours: type) -> None:
    theirs = ours.__mro__[1]
    overridden = {name for name, value in vars(ours).items() if callable(value) and hasattr(theirs, name)}
    found = {name: str(inspect.signature(getattr(theirs, name))) for name in overridden if not name.startswith("__")}
    assert found == {name: f"({parameters})" for name, parameters in OVERRIDDEN[ours].items()}


def test_scheduler_prunes_and_counts_when_it_is_asked_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler, called = luigi.scheduler.Scheduler(prune_on_get_work=True), []

    def count(worker: str) -> dict[str, Any]:
        called.append(f"count for {worker}")
        return {}

    monkeypatch.setattr(scheduler, "prune", lambda: called.append("prune"))
    monkeypatch.setattr(scheduler, "count_pending", count)
    assert scheduler.get_work(worker="w") == {"task_id": None} and called == ["prune", "count for w"]


def test_state_of_the_scheduler_can_be_pickled() -> None:
    scheduler = luigi.scheduler.Scheduler(state_path="state")
    scheduler.add_task(worker="w", task_id="Nothing__1")
    pickle.dumps(scheduler._state.get_state())
    assert scheduler._config.state_path == "state"
    assert [worker.last_active > 0 for worker in scheduler._state.get_active_workers()] == [True]


def test_history_remembers_the_record_of_a_task() -> None:
    history = luigid.History("sqlite://")
    history.task_started(luigi.scheduler.Task("Nothing__1", "PENDING", [], params={}), "host")
    assert [task.record_id for task in history.tasks.values()] == [1]


def test_metrics_still_need_the_start_of_a_task_that_fails() -> None:
    task = luigi.scheduler.Task("Nothing__1", "RUNNING", [], params={}, family="Nothing")
    assert task.time_running is None and task.updated is not None
    with pytest.raises(TypeError):
        PrometheusMetricsCollector().handle_task_failed(task)
    luigid.Metrics().handle_task_failed(task)

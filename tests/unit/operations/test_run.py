"""What a run is, apart from what its tasks do: its command, and the verdict on one that an error has ended."""

from __future__ import annotations

import sys

import luigi
import pytest
from luigi.rpc import RPCError

from pipeline.errors import PublisherTrouble, UsageError
from pipeline.operations import outcomes, run


@pytest.mark.parametrize(
    ("argv", "is_luigi", "command"),
    [
        (
            ["/venv/bin/luigi", "--module", "pipeline", "TaxiZones"],
            True,
            ["luigi", "--module", "pipeline", "TaxiZones"],
        ),
        (["/venv/luigi/__main__.py", "--module", "pipeline"], True, ["luigi", "--module", "pipeline"]),
        (["/src/pipeline/__main__.py", "refresh"], True, ["python", "-m", "pipeline", "refresh"]),
        (["scripts/nightly.py", "--fast"], False, ["python", "scripts/nightly.py", "--fast"]),
        (["-c"], False, []),
        ([""], False, []),
        ([], False, []),
    ],
)
def test_the_command_that_repeats_a_run(
    argv: list[str], is_luigi: bool, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    assert run.command(is_luigi) == command


@pytest.mark.parametrize(
    ("error", "code", "result"),
    [
        (KeyboardInterrupt(), 130, outcomes.STOPPED),
        (UsageError("a mistake"), 2, outcomes.REFUSED),
        (luigi.parameter.MissingParameterException("no month"), 2, outcomes.REFUSED),
        (PublisherTrouble("no answer"), 35, outcomes.PLANNING_FAILED),
        (RPCError("no answer"), 40, outcomes.FAILED),
        (KeyError("x"), 40, outcomes.FAILED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_verdict_on_a_run_that_an_error_has_ended(error: BaseException, code: int, result: str) -> None:
    for name, value in {"scheduling_error": "35", "unhandled_exception": "40"}.items():
        luigi.configuration.get_config().set("retcode", name, value)
    verdict = run._verdict_of(error)
    assert (verdict["code"], verdict["result"]) == (code, result)
    assert verdict.get("failure", "") or result == outcomes.STOPPED


def test_tasks_of_others_alone_are_no_run_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    class Theirs(luigi.Task):
        is_done = False

        def complete(self) -> bool:
            return self.is_done

        def run(self) -> None:
            type(self).is_done = True

    result = luigi.build([Theirs()], local_scheduler=True, detailed_summary=True)
    assert result.scheduling_succeeded and not hasattr(result, "exit_code")
    assert capsys.readouterr().out == ""

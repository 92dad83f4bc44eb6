"""What a run is, apart from what its tasks do: its command, and the verdict on one that an error has ended."""

from __future__ import annotations

import sys
from pathlib import Path

import luigi
import pytest
from luigi.rpc import RPCError

from pipeline import settings
from pipeline.errors import PublisherUnavailable, UsageError
from pipeline.reporting import outcomes
from pipeline.runner import own_command, run


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
    assert own_command.own_command(is_luigi) == command


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to be in, with an environment ``venv`` in it that PATH does not name."""
    folder = tmp_path / "venv" / "bin"
    folder.mkdir(parents=True)
    (folder / "luigi").touch(0o755)
    (folder / "python").symlink_to(sys.executable)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    return folder


@pytest.mark.parametrize(
    ("program", "is_luigi", "called", "by_name"),
    [
        ("{bin}/luigi", True, "venv/bin/luigi", "luigi"),
        ("venv/bin/luigi", True, "venv/bin/luigi", "luigi"),
        ("/lib/luigi/__main__.py", True, "venv/bin/python -m luigi", "python -m luigi"),
        ("/lib/pipeline/__main__.py", False, "venv/bin/python -m pipeline", "python -m pipeline"),
        ("a report.py", False, "venv/bin/python 'a report.py'", "python 'a report.py'"),
    ],
)
def test_a_run_is_repeated_with_the_program_as_it_was_called(
    program: str, is_luigi: bool, called: str, by_name: str, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [program.format(bin=programs), "a b"])
    assert own_command.again({}, is_luigi) == f"{called} 'a b'"
    monkeypatch.setenv("PATH", str(programs))
    assert own_command.again({}, is_luigi) == f"{by_name} 'a b'"
    monkeypatch.chdir(programs)
    monkeypatch.delenv("PATH")
    if program.startswith("{bin}"):
        assert own_command.again({}, is_luigi) == "./luigi 'a b'"


def test_program_outside_of_the_folder_and_another_of_its_name(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = programs.parent.parent / "elsewhere"
    other.mkdir()
    (other / "luigi").touch(0o755)
    (other / "python").symlink_to(sys.executable)
    monkeypatch.chdir(other)
    monkeypatch.setattr(sys, "argv", [str(programs / "luigi")])
    assert own_command.again({}, is_luigi=True) == str(programs / "luigi")
    monkeypatch.setattr(sys, "argv", ["/lib/luigi/__main__.py"])
    assert own_command.again({}, is_luigi=True) == f"{programs / 'python'} -m luigi"


def test_a_run_is_repeated_with_the_settings_of_its_environment(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["luigi", "TaxiZones"])
    for name, value in {
        "LAKE_URL": "file:my lake",
        "WAREHOUSE_URL": "postgresql://me:tiger@host/db",
        "PUBLISHER_URL": "https://host/data?sig=tiger",
        "NOTIFY_URLS": "json://tiger",
        "RUN_ID": "a-run",
    }.items():
        monkeypatch.setenv(f"PIPELINE_{name}", value)
    assert own_command.again(settings.given(), is_luigi=True) == (
        "PIPELINE_PUBLISHER_URL='…' PIPELINE_LAKE_URL='file:my lake' PIPELINE_WAREHOUSE_URL='…' luigi TaxiZones"
    )


@pytest.mark.parametrize(
    ("error", "code", "result"),
    [
        (KeyboardInterrupt(), 130, outcomes.STOPPED),
        (UsageError("a mistake"), 2, outcomes.REFUSED),
        (luigi.parameter.MissingParameterException("no month"), 2, outcomes.REFUSED),
        (PublisherUnavailable("no answer"), 35, outcomes.PLANNING_FAILED),
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

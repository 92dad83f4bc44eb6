"""Smoke test: the commands as programs of their own, and that a warm start (``warm``) is the same as a cold one."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from ..patience import PATIENCE
from ..warm import WARM
from .conftest import Project

MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2021-01")


def cold(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=project.folder,
        env=project.env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    )


def test_a_month_from_the_command_line_to_the_warehouse(project: Project) -> None:
    done = cold(project, *project.luigi_command(*MONTH))
    assert done.returncode == 0, done.stdout
    assert project.query("SELECT row_count + rejected_count FROM etl_current WHERE dataset = 'green'") == [(500,)]
    again = cold(project, *project.luigi_command(*MONTH))
    assert again.returncode == 0 and "Nothing to do" in again.stdout
    agrees = cold(project, sys.executable, "-m", "pipeline", "verify")
    assert (agrees.returncode, agrees.stdout.splitlines()[-1]) == (0, "1 looked at, 1 agree, 0 do not.")


def test_warm_start_is_the_same_command(project: Project) -> None:
    """Same output and same exit code: of work, of a mistake, of help, of a traceback, and of a program."""
    if sys.platform != "linux" or os.environ.get("TESTS_COLD"):
        pytest.skip("all commands are started cold here")
    luigi, python = project.luigi_command()[0], sys.executable
    commands = [
        project.luigi_command(*MONTH),
        project.luigi_command(*MONTH),
        project.luigi_command(*MONTH, "--clean-rules", "nonsense"),
        [luigi, "--module", "nosuch", *MONTH],
        [luigi, "--help"],
        [python, "-m", "luigi", "--module", "pipeline", *MONTH, "--workers", "x"],
        [python, "-m", "pipeline", "status", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02"],
        [python, "-m", "pipeline", "--help"],
        project.luigi_command("TaxiZones", "--workers", "2"),
        [python, "-c", "import pipeline; print(len(pipeline.read('zones')))"],
    ]
    found: dict[str, list[tuple[int, str]]] = {}
    for way in ("cold", "warm"):
        here = Project(project.folder / way, dict(project.environment))
        here.folder.mkdir()
        assert WARM.can_run(commands[0], here.env), "otherwise all are cold, without a word: see READ_LATE"
        results = [cold(here, *command) if way == "cold" else here.run(*command) for command in commands]
        found[way] = [(result.returncode, without_what_differs(result.stdout)) for result in results]
    assert found["warm"] == found["cold"]


def without_what_differs(output: str) -> str:
    """Without the lines of the log, run ids, times, and the frames of a traceback."""
    lines = [line for line in output.splitlines() if not re.match(r"\d\d:\d\d:\d\d |  File|    \S", line)]
    moving = r"\d{8}T\d{6}-\w+|\d+:\d\d|\d+\.\d+| +|─+"
    return "\n".join(re.sub(moving, "*", line) for line in lines)

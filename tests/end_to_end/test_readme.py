"""The examples of the README, as they are written and in their order."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from pathlib import Path

from ..conftest import CHECKOUT
from .conftest import Project

README = (CHECKOUT / "README.md").read_text()


def block(after: str) -> str:
    """The first indented block after a text."""
    found = re.search(r"\n\n((?:    .*\n|\n(?=    ))+)", README[README.index(after) :])
    assert found
    return textwrap.dedent(found[1])


def with_commands(project: Project) -> None:
    """Let ``luigi`` and ``python`` be those of this environment, and our package be found."""
    project.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    project.environment["PYTHONPATH"] = str(CHECKOUT)


def test_the_demo_by_hand(project: Project) -> None:
    with_commands(project)
    script = block("## The demo, by hand").replace(". .venv/bin/activate\n", "set -ex\n")
    assert "set -ex" in script and script.count("python -m pipeline") >= 5
    done = project.run("bash", "-c", script)
    assert done.returncode == 0, done.stdout
    assert "error" not in done.stdout and "Traceback" not in done.stdout, done.stdout
    assert project.query(
        "SELECT dataset, count(*) FROM etl_current WHERE file_month IS NOT NULL GROUP BY 1 ORDER BY 1",
        "demo/warehouse.duckdb",
    ) == [("fhv", 1), ("green", 3), ("yellow", 3)]
    assert len(list((project.folder / "published" / "trip-data").glob("yellow_*.parquet"))) == 3


def test_a_task_of_your_own(project: Project) -> None:
    with_commands(project)
    (project.folder / "report.py").write_text(block("## In your own Luigi project"))
    project.environment["PYTHONPATH"] += f"{os.pathsep}{project.folder}"
    done = project.run("luigi", "--module", "report", "Report", "--local-scheduler")
    assert done.returncode == 0, done.stdout
    assert (project.folder / "report.csv").read_text().startswith("PULocationID,")


def test_a_script_without_the_command(project: Project) -> None:
    with_commands(project)
    (project.folder / "script.py").write_text(block("A script does the same without the command:"))
    done = project.run("python", "script.py")
    assert done.returncode == 0, done.stdout
    assert project.query("SELECT count(*) FROM etl_current WHERE dataset = 'green'") == [(3,)]

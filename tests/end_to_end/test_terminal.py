"""The display on a terminal while the real command runs."""

from __future__ import annotations

import os
import re
import signal

from .conftest import Project
from .terminal import Terminal

GREEN = ("RangeMonthly", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-04")


def test_bars_name_what_they_are_about_and_leave_nothing_behind(project: Project) -> None:
    """On a narrow terminal; of other widths: tests/unit/reporting/test_bars.py."""
    width = 50
    gate = project.gate("WriteParquet", "started", month="2020-02")
    terminal = Terminal(project, project.luigi_command(*GREEN, "--workers", "2"), width)
    terminal.wait_for("WriteParquet green 2020-02 ")
    terminal.wait_for("all ")
    gate.open()
    assert terminal.end() == 0, terminal.raw
    bars = [line for line in terminal.written if "━" in line]
    assert any(re.match(r"all +━+ \d:\d\d . of 4 d", line) for line in bars), bars
    assert all(re.fullmatch(r"([A-Z]\w+ (green \d{4}-\d\d|zones)|all) +━+ \d:\d\d[^━]*", line) for line in bars), bars
    assert all(len(line) <= width for line in bars)
    assert "INFO" not in terminal.raw, "that is for the log file"
    assert not [line for line in terminal.screen if "━" in line and "green" in line]
    assert any(line.startswith("Run ") for line in terminal.screen)
    (log,) = (project.folder / "workspace" / "runs").glob("*.log")
    assert "INFO Load green 2020-03" in log.read_text()


def colours(raw: str) -> set[str]:
    """Foreground colours that occur."""
    codes = ";".join(re.findall(r"\x1b\[([\d;]+)m", raw))
    return set(re.findall(r"(?:38;5;\d+|38;2;\d+;\d+;\d+|(?<!\d)(?:3[0-7]|9[0-7])(?!\d))", codes))


def test_a_run_that_is_well_shows_no_red_and_one_without_colours_none(project: Project) -> None:
    for environment in ({}, {"NO_COLOR": "1"}):
        gate = project.gate("WriteParquet", "started", month="2020-01")
        command = project.luigi_command("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
        terminal = Terminal(project, [*command, "--lake-url", f"file:lake{len(environment)}"], **environment)
        terminal.wait_for("WriteParquet green 2020-01 ")
        gate.open()
        assert terminal.end() == 0, terminal.raw
        assert colours(terminal.raw) <= ({"36", "90"} if not environment else set())


def test_what_is_wrong_is_shown_above_the_bars(project: Project) -> None:
    gate = project.gate("WriteParquet", "started", month="2020-01")
    project.environment["PIPELINE_PUBLISHER_NAME"] = "tlc"
    published = project.folder / "published"
    project.environment["PIPELINE_PUBLISHER_URL"] = f"file:{published}"
    project.pipeline(
        "sample", *("--dataset", "green", "--start", "2020-01", "--stop", "2020-04"), "--to", str(published)
    )
    (published / "SYNTHETIC.txt").unlink(missing_ok=True)
    broken = published / "trip-data" / "green_tripdata_2020-02.parquet"
    broken.write_bytes(b"<html>Access Denied</html>")
    terminal = Terminal(project, project.luigi_command(*GREEN, "--workers", "2"))
    terminal.wait_for("WriteParquet green 2020-01 ")
    terminal.wait_for("ERROR Download green 2020-02: ")
    gate.open()
    assert terminal.end() == 30, terminal.raw
    (line,) = [line for line in terminal.screen if "ERROR" in line]
    assert line.count("green 2020-02: ") == 1, "the month is named once"


def test_ctrl_c_leaves_no_bar_between_the_lines(project: Project) -> None:
    gate = project.gate("Clean", "started", month="2020-02")
    terminal = Terminal(project, project.luigi_command(*GREEN, "--workers", "2"))
    gate.wait(terminal.process)
    terminal.wait_for("Clean green 2020-02 ")
    os.killpg(terminal.process.pid, signal.SIGINT)
    assert terminal.end() == 130, terminal.raw
    screen = [line for line in terminal.screen if line]
    assert screen[-1] == "stopped; the same command goes on from here"
    assert not [line for line in screen if line.startswith("all ")]
    assert any(re.search(r"green +2020-02 .* Clean not finished", line) for line in screen)

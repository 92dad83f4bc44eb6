"""Tables in a pipe, on terminals of several widths, and with texts from outside."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import textwrap

import pytest

from pipeline.reporting import tables
from pipeline.reporting.tables import Column

COLUMNS = [Column(width=6), Column(width=7), Column(is_number=True), Column(is_folded=True)]
REASON = "the publisher has another version, [bold]and[/bold] the rules have changed since it was loaded"
ROWS = [["green", "2020-01", "1,234,567", REASON], ["zones", "", "265", ""]]


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_terminal(monkeypatch: pytest.MonkeyPatch, width: int, **environment: str) -> None:
    for name, value in {"COLUMNS": str(width), "TERM": "xterm-256color", **environment}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "stdout", Tty())


def test_lines_in_a_pipe_are_plain_and_never_folded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("FORCE_COLOR", "1")
    named = [Column("dataset"), Column("month"), Column("rows", is_number=True), Column("", is_folded=True)]
    assert tables.lines(COLUMNS, ROWS) == [f"green   2020-01  1,234,567  {REASON}", "zones                  265"]
    assert tables.lines(named, ROWS)[0] == "dataset  month         rows"


@pytest.mark.parametrize("width", [120, 80, 60])
def test_a_terminal_folds_what_may_be_folded_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    on_terminal(monkeypatch, width)
    lines = tables.lines(COLUMNS, ROWS)
    assert max(map(len, lines)) <= width
    assert " ".join(line[28:].strip() for line in lines[:-1]) == REASON
    assert "1,234,567" in lines[0]


def test_numbers_are_whole_on_the_narrowest_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    on_terminal(monkeypatch, 20)
    lines = tables.lines(COLUMNS, ROWS)
    assert lines[0].startswith("green   2020-01  1,234,567  ") and "265" in lines[-1]


def test_colours_are_those_of_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    named = [Column("dataset"), Column("month"), Column("rows", is_number=True), Column("why", is_folded=True)]
    on_terminal(monkeypatch, 80)
    assert "\x1b[1m" in "".join(tables.lines(named, ROWS))
    for environment in ({"NO_COLOR": "1"}, {"TERM": "dumb", "NO_COLOR": ""}):
        on_terminal(monkeypatch, 80, **environment)
        assert "\x1b" not in "".join(tables.lines(named, ROWS))


def test_text_from_outside_neither_commands_the_terminal_nor_adds_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["green", "2020-01", "1", "\x1b[2J\r\nzones  owned\u202e :smile: [red]"]]
    for _ in range(2):
        (line,) = tables.lines(COLUMNS, rows)
        assert line.isprintable() and ":smile: [red]" in line and line.startswith("green")
        on_terminal(monkeypatch, 120, NO_COLOR="1")


def test_total_is_the_last_row() -> None:
    named = [Column("dataset"), Column("rows", is_number=True)]
    lines = tables.lines(named, [["green", "10"], ["fhv", "5"]], ["total", "15"], is_ruled=True, width=40)
    assert [line.split() for line in lines if line.strip()][-1] == ["total", "15"]
    assert any(set(line.strip()) == {"─"} for line in lines)
    assert os.linesep not in "".join(lines)


def test_rich_is_loaded_by_the_first_table_and_not_before() -> None:
    """A run with nothing to do prints none."""
    code = """
        import sys, pipeline.__main__
        from pipeline.reporting import bars, end_of_run, outcomes
        pipeline.__main__.parser()
        entries = [["green", "2020-01", "complete", ""]]
        idle = outcomes.summarize([{"event": "plan", "entries": entries}, {"event": "ended", "at": 1.0}])
        print(*end_of_run.summary(idle, None), sep="|")
        print([name for name in sys.modules if name.partition(".")[0] == "rich"])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    said, loaded = done.stdout.splitlines()
    assert said.startswith("Nothing to do: 1 month complete.") and loaded == "[]"

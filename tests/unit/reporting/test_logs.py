"""Log lines for people and for machines."""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.errors import Throttled
from pipeline.reporting import journal, logs
from pipeline.reporting.logs import JsonLine, Once, OneLine


def record(message: str, *args: object, error: Exception | None = None) -> logging.LogRecord:
    info = None
    if error is not None:
        try:
            raise error
        except Exception:
            info = sys.exc_info()
    return logging.LogRecord("pipeline", logging.ERROR, __file__, 1, message, args, info)


FORESEEN = record("failed %s", SimpleNamespace(title="Clean green 2020-03"), error=Throttled("too many"))
UNFORESEEN = record("failed %s", "x", error=KeyError("y"))
SILENT = record(
    "Failed connecting to remote scheduler %r", "http://me:tiger@luigid", error=ConnectionError("me:tiger@luigid")
)


def test_foreseen_errors_are_one_line() -> None:
    line = OneLine("%(message)s").format(FORESEEN)
    assert line.endswith("ERROR Clean green 2020-03: too many") and "\n" not in line
    assert "Traceback" in OneLine("%(message)s").format(UNFORESEEN)


@pytest.mark.parametrize("formatter", [OneLine("%(message)s"), JsonLine()])
def test_password_of_luigid_is_not_logged(formatter: logging.Formatter) -> None:
    line = formatter.format(SILENT)
    assert "luigid does not answer" in line and "tiger" not in line and "\n" not in line


def test_json_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_RUN_ID", "20260101T000000-aaaaaa")
    shown = json.loads(JsonLine().format(FORESEEN))
    assert shown.pop("at").endswith("+00:00")
    assert shown == {"level": "ERROR", "run": "20260101T000000-aaaaaa", "text": "Clean green 2020-03: too many"}
    assert "KeyError: 'y'" in json.loads(JsonLine().format(UNFORESEEN))["traceback"]


@pytest.mark.parametrize(
    ("title", "error", "line"),
    [
        ("Download green 2022-02", "green 2022-02: no such file", "Download green 2022-02: no such file"),
        (
            "Load green 2022-02 into wh.duckdb",
            "duckdb:////a/wh.duckdb: held",
            "Load green 2022-02 into wh.duckdb: held",
        ),
        ("Load zones into postgresql@h/d", "postgresql@h/d: gone", "Load zones into postgresql@h/d: gone"),
        ("Clean green 2022-02", "file.parquet: no Parquet file", "Clean green 2022-02: file.parquet: no Parquet file"),
        ("Clean zones", "no rows", "Clean zones: no rows"),
    ],
)
def test_a_line_names_what_it_is_about_once(title: str, error: str, line: str) -> None:
    shown = OneLine("%(message)s").format(record("failed %s", SimpleNamespace(title=title), error=Throttled(error)))
    assert shown.endswith(f"ERROR {line}")


def test_a_warning_that_every_process_of_a_run_finds_is_written_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log = tmp_path / "run.log"
    monkeypatch.setattr(logs, "path", lambda: log)
    monkeypatch.setenv(journal.RUN_ID, "r1")
    for formatter in (OneLine("%(asctime)s %(levelname)s %(message)s"), JsonLine()):
        log.unlink(missing_ok=True)
        for _ in range(3):  # processes
            logger, handler, shown = (
                logging.Logger("process"),
                logging.FileHandler(log),
                logging.StreamHandler(io.StringIO()),
            )
            once = Once()
            for one in (shown, handler):
                one.setFormatter(formatter)
                one.addFilter(once)
                logger.addHandler(one)
            below = logging.Logger("process.below")
            below.parent = logger
            for _ in range(2):
                below.warning("a %s is cut", "manifest")
                below.error("a %s is cut", "file")
            handler.close()
        lines = log.read_text().splitlines()
        assert sum("manifest is cut" in line for line in lines) == 1
        assert sum("file is cut" in line for line in lines) == 6


def test_logging_of_a_program_stays_and_else_records_look_as_those_of_the_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path / "runs")
    monkeypatch.setenv(journal.RUN_ID, "r1")
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr(logs.LOGGER, "handlers", [])
    luigis = logging.StreamHandler()
    luigis.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    monkeypatch.setattr(logs.LUIGI, "handlers", [luigis])
    assert not logs.are_configured(), "that is what Luigi does where nobody else has"
    with logs.of_program(has_logging=False):
        assert [type(handler) for handler in logs.LUIGI.handlers] == [logs.Terminal, logs.SaysOnce]
        assert logs.LUIGI.level == logging.WARNING and not logs.LUIGI.propagate
    assert logs.LUIGI.handlers == [luigis] and logs.LUIGI.propagate

    theirs = io.StringIO()
    logging.getLogger().addHandler(logging.StreamHandler(theirs))
    assert logs.are_configured()
    with logs.of_program(has_logging=True):
        logs.LOGGER.warning("seen")
        assert luigis in logs.LUIGI.handlers
    assert theirs.getvalue() == "seen\n" and not logs.LOGGER.handlers


@pytest.mark.parametrize(("kind", "says"), [("link", "a link"), ("pipe", "a pipe"), ("folder", "a folder")])
def test_what_is_planted_in_place_of_the_log_is_one_line_and_harms_no_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, says: str
) -> None:
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    monkeypatch.setenv(journal.RUN_ID, "r1")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    if kind == "link":
        logs.path().symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(logs.path())
    else:
        logs.path().mkdir()
    assert logs._files() == []
    said = capsys.readouterr().err
    assert said.startswith(f"warning: no log is written: {tmp_path}/r1.log is {says}") and said.count("\n") == 1
    if kind != "link":
        assert Once().filter(logging.LogRecord("pipeline", logging.WARNING, "x", 1, "a warning", None, None))
    assert victim.read_text() == "precious"

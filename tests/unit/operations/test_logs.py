"""Log lines for people and for machines."""

from __future__ import annotations

import json
import logging
import sys
from types import SimpleNamespace

import pytest

from pipeline.errors import Throttled
from pipeline.operations.logs import JsonLine, OneLine


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

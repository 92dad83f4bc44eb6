"""Logging: one line per record on stderr and in a file per run, for people or, as JSON, for machines.

Errors that we foresaw are one line instead of a traceback.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
import sys
from contextlib import suppress
from pathlib import Path

from .. import settings
from ..errors import PipelineError, Unreachable
from . import journal

#: Set in the environment while a terminal shows bars: records of worker processes then go through the journal.
THROUGH_JOURNAL = "PIPELINE_LOG_THROUGH_JOURNAL"

LOGGER = logging.getLogger("pipeline")


def _is_foreseen(record: logging.LogRecord) -> bool:
    """Whether the record's exception is told by its own line: ours, and a luigid that does not answer."""
    return bool(record.exc_info and (isinstance(record.exc_info[1], PipelineError) or _is_about_luigid(record)))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the record is not about a server of which this run has said before that it does not answer."""
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, Unreachable) and error.is_repeated)


def _is_about_luigid(record: logging.LogRecord) -> bool:
    return str(record.msg).startswith("Failed connecting to remote scheduler")  # an address that may hold a password


def _text(record: logging.LogRecord) -> str:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, PipelineError):
        subject = record.args[-1] if isinstance(record.args, tuple) and record.args else None
        title = getattr(subject, "title", None)
        return f"{title}: {error}" if title else str(error)
    return "luigid does not answer; trying again" if _is_about_luigid(record) else record.getMessage()


class OneLine(logging.Formatter):
    """Shows a ``PipelineError`` as its own line; any other exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        if _is_foreseen(record):
            return f"{self.formatTime(record, self.datefmt)} {record.levelname} {_text(record)}"
        return super().format(record)


class JsonLine(logging.Formatter):
    """One JSON object a line: ``at``, ``level``, ``run``, ``text``, and ``traceback`` of what we did not foresee."""

    def format(self, record: logging.LogRecord) -> str:
        shown = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "run": journal.run_id(),
            "text": _text(record),
        }
        if record.exc_info and not _is_foreseen(record):
            shown["traceback"] = self.formatException(record.exc_info)
        return json.dumps(shown, ensure_ascii=False)


class ThroughJournal(logging.Handler):
    """Hands records to the process that owns the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        journal.record("log", text=self.format(record))


def path() -> Path:
    """The log file of this run, beside its journal."""
    return journal.path().with_suffix(".log")


def configure(to_file: bool = False) -> None:
    """Send our records and Luigi's warnings to stderr, once per process; luigi.cfg tells Luigi to leave it to us.

    With ``to_file``, in the processes of a run, also to the log file of the run.
    """
    if LOGGER.handlers:
        return
    handlers: list[logging.Handler] = [
        ThroughJournal() if os.environ.get(THROUGH_JOURNAL) else logging.StreamHandler(sys.stderr)
    ]
    if to_file:
        with suppress(OSError):  # a log that cannot be written never harms the run
            path().parent.mkdir(parents=True, exist_ok=True)
            handlers.append(logging.FileHandler(path(), encoding="utf-8"))
    level = settings.process().log_level
    luigi_logger = logging.getLogger("luigi-interface")
    for handler in handlers:
        is_file = isinstance(handler, logging.FileHandler)
        if settings.process().log_format == "json":
            handler.setFormatter(JsonLine())
        else:
            handler.setFormatter(
                OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S" if is_file else "%H:%M:%S")
            )
        handler.addFilter(_is_news)
        LOGGER.addHandler(handler)
        luigi_logger.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    luigi_logger.propagate = False
    # Luigi's INFO is its protocol with the scheduler; what a person wants to know of it is in our own records.
    luigi_logger.setLevel(level if level in ("DEBUG", "ERROR") else "WARNING")

"""Logging for people: one line per record on stderr, and one line instead of a traceback for errors that we foresaw."""

from __future__ import annotations

import logging
import os
import sys

from .. import settings
from ..errors import PipelineError
from . import journal

#: Set in the environment while a terminal shows bars: records of worker processes then go through the journal.
THROUGH_JOURNAL = "PIPELINE_LOG_THROUGH_JOURNAL"

LOGGER = logging.getLogger("pipeline")


class OneLine(logging.Formatter):
    """Shows a ``PipelineError`` as its own line; any other exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PipelineError):
            subject = record.args[-1] if isinstance(record.args, tuple) and record.args else None
            title = getattr(subject, "title", None)
            text = f"{title}: {error}" if title else str(error)
            return f"{self.formatTime(record, self.datefmt)} {record.levelname} {text}"
        return super().format(record)


class ThroughJournal(logging.Handler):
    """Hands records to the process that owns the terminal."""

    def emit(self, record: logging.LogRecord) -> None:
        journal.record("log", text=self.format(record))


def configure() -> None:
    """Send our records and Luigi's warnings to stderr, once per process; luigi.cfg tells Luigi to leave it to us."""
    if LOGGER.handlers:
        return
    handler = ThroughJournal() if os.environ.get(THROUGH_JOURNAL) else logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    level = settings.process().log_level
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    LOGGER.propagate = False
    luigi_logger = logging.getLogger("luigi-interface")
    luigi_logger.addHandler(handler)
    luigi_logger.propagate = False
    # Luigi's INFO is its protocol with the scheduler; what a person wants to know of it is in our own records.
    luigi_logger.setLevel(level if level in ("DEBUG", "ERROR") else "WARNING")

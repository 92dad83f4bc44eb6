"""Logging: one line per record on stderr and in a file per run, for people or, as JSON, for machines.

Errors of our own classes are one line instead of a traceback.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

import luigi.configuration

from .. import settings
from ..errors import PipelineError, text_after
from ..safe_files import NOT_REGULAR, open_regular
from ..sanitize import printable
from . import journal

#: Set in the environment while a terminal shows bars: records that it shall show go through the journal.
THROUGH_JOURNAL = "PIPELINE_LOG_THROUGH_JOURNAL"

LOGGER = logging.getLogger("pipeline")
LUIGI = logging.getLogger("luigi-interface")


def _error_of(record: logging.LogRecord) -> PipelineError | None:
    """The error of our own that the record is about, if it is about one."""
    error = record.exc_info[1] if record.exc_info else None
    return error if isinstance(error, PipelineError) else None


def _is_foreseen(record: logging.LogRecord) -> bool:
    """Whether the line of the record's exception is enough: our own, and a luigid that does not answer."""
    return bool(record.exc_info and (_error_of(record) or _is_about_luigid(record)))


def _is_news(record: logging.LogRecord) -> bool:
    """Whether the record is not about an error that this run has logged before, such as a server without an answer."""
    error = _error_of(record)
    return error is None or not error.is_repeated


def _is_about_luigid(record: logging.LogRecord) -> bool:
    return str(record.msg).startswith("Failed connecting to remote scheduler")  # an address that may hold a password


def _text(record: logging.LogRecord) -> str:
    """What a record says, on one line."""
    error = _error_of(record)
    if error is None:
        return printable("luigid does not answer; trying again" if _is_about_luigid(record) else record.getMessage())
    subject = record.args[-1] if isinstance(record.args, tuple) and record.args else None
    title = getattr(subject, "title", None)
    return printable(f"{title}: {text_after(title, error)}" if isinstance(title, str) else str(error))


class OneLine(logging.Formatter):
    """Shows a ``PipelineError`` as its own line; any other exception with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        if _is_foreseen(record):
            return f"{self.formatTime(record, self.datefmt)} {record.levelname} {_text(record)}"
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:
        return printable(super().formatException(ei), keep="\n\t")


class JsonLine(logging.Formatter):
    """One JSON object a line: ``at``, ``level``, ``run``, ``text``, and ``traceback`` of other errors than ours."""

    def format(self, record: logging.LogRecord) -> str:
        shown = {
            "at": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "run": journal.run_id(),
            "text": _text(record),
        }
        if record.exc_info and not _is_foreseen(record):
            shown["traceback"] = self.formatException(record.exc_info)
        return printable(json.dumps(shown, ensure_ascii=False))


class Terminal(logging.StreamHandler[TextIO]):
    """Writes to stderr. While bars are shown there, passes warnings and errors to the process that shows them."""

    def __init__(self) -> None:
        super().__init__(sys.stderr)

    def emit(self, record: logging.LogRecord) -> None:
        if not os.environ.get(THROUGH_JOURNAL):
            super().emit(record)
        elif record.levelno >= logging.WARNING:
            journal.record("log", text=self.format(record))


class SaysOnce(logging.FileHandler):
    """A log file. A disk that is full or gone causes one line on stderr, not a traceback for each record."""

    _is_said = False

    def _open(self) -> Any:
        """In the folder of the journals others may have put a link or a pipe in place of the file: OSError."""
        path = Path(self.baseFilename)
        if path.parent != journal.folder():
            return super()._open()
        descriptor = journal.open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        return os.fdopen(descriptor, self.mode, encoding=self.encoding, errors=self.errors)

    def handleError(self, record: logging.LogRecord) -> None:
        if not self._is_said and sys.stderr is not None:
            self._is_said = True
            why = getattr(sys.exception(), "strerror", None) or "an error"
            with suppress(OSError, ValueError):
                text = printable(f"warning: the log {self.baseFilename} cannot be written: {why}")
                print(text, file=sys.stderr, flush=True)


class Once(logging.Filter):
    """Lets a warning pass once in a run, whichever of its processes finds the same again. Errors always pass."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()
        self._last: logging.LogRecord | None = None
        self._is_new = True

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno != logging.WARNING:
            return True
        if record is not self._last:  # all handlers of a process ask about one record, one after the other
            text = _text(record)
            self._last, self._is_new = record, text not in self._seen and not _is_logged(text)
            self._seen.add(text)
        return self._is_new


def _is_logged(text: str) -> bool:
    try:
        with os.fdopen(open_regular(path(), os.O_RDONLY), encoding="utf-8", errors="replace") as file:
            logged = file.read()
    except OSError:
        return False
    return f" WARNING {text}\n" in logged or f"{printable(json.dumps(text, ensure_ascii=False))}}}\n" in logged


def path() -> Path:
    """The log file of this run, beside its journal."""
    return journal.path().with_suffix(".log")


def configure(to_file: bool = False) -> None:
    """Send our records and Luigi's warnings to stderr, once per process; luigi.cfg tells Luigi to leave it to us.

    With ``to_file``, in the processes of a run, also to the log file of the run. A verb that runs tasks finds only then
    that it is one.
    """
    if to_file and [type(handler) for handler in LOGGER.handlers] == [Terminal]:
        for logger in (LOGGER, LUIGI):
            logger.handlers.clear()
    if not LOGGER.handlers:
        _take_all([Terminal(), *_files()], Once()) if to_file else _take_all([Terminal()])


def _take_all(handlers: list[logging.Handler], *filters: logging.Filter) -> None:
    """Send our records and Luigi's to these handlers, and to none of the program's."""
    _attach(handlers, (LOGGER, LUIGI), *filters)
    for logger in (LOGGER, LUIGI):
        logger.propagate = False
    LOGGER.setLevel(settings.ProcessSettings().log_level)
    # Luigi's INFO is its protocol with the scheduler; what a person wants to know of it is in our own records.
    LUIGI.setLevel(LOGGER.level if LOGGER.level in (logging.DEBUG, logging.ERROR) else logging.WARNING)


def are_configured() -> bool:
    """Whether a program, or luigi.cfg for it, has set up logging."""
    config = luigi.configuration.get_config()
    in_file = any(config.has_option("core", name) for name in ("log_level", "logging_conf_file"))
    return in_file or LOGGER.hasHandlers() or not all(map(_is_luigis, LUIGI.handlers))


def _is_luigis(handler: logging.Handler) -> bool:
    """Whether Luigi has added the handler because nobody else had."""
    return handler.formatter is not None and handler.formatter._fmt == "%(levelname)s: %(message)s"


class _Forward(logging.Handler):
    """Passes records on to the handlers of the program, from its level on."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger().callHandlers(record)


@contextmanager
def of_program(has_logging: bool) -> Iterator[None]:
    """Log a run that a program has started, in the log file of the run too.

    A program that ``has_logging`` keeps its own. Without, records are shown as those of the command are.
    """
    files, once = _files(), Once()
    before = [(logger, logger.level, logger.propagate, list(logger.handlers)) for logger in (LOGGER, LUIGI)]
    ours: list[logging.Handler] = [_Forward(LOGGER.getEffectiveLevel()) if has_logging else Terminal(), *files]
    try:
        if has_logging:
            for handler in files:
                handler.setLevel(settings.ProcessSettings().log_level)
                handler.addFilter(lambda record: record.name != LUIGI.name or record.levelno >= logging.WARNING)
            _attach(ours, (LOGGER,), once)
            _attach(files, (LUIGI,))
            LOGGER.propagate = False
            LOGGER.setLevel(settings.ProcessSettings().log_level)
        else:
            for logger in (LOGGER, LUIGI):
                logger.handlers.clear()  # Luigi's own, if it was there first
            _take_all(ours, once)
        yield
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate = propagate
            for handler in ours:
                logger.removeHandler(handler)
            for handler in handlers:
                logger.addHandler(handler)
        for handler in files:
            handler.close()


def _files() -> list[logging.Handler]:
    """The handler of the run's log file; none where that cannot be written, which never harms the run."""
    try:
        journal.ensure_folder()
        return [SaysOnce(path(), encoding="utf-8")]
    except OSError as error:
        if error.errno in NOT_REGULAR and multiprocessing.parent_process() is None:
            print(f"warning: no log is written: {journal.not_writable(error)}", file=sys.stderr, flush=True)
        return []


def _attach(handlers: list[logging.Handler], loggers: Iterable[logging.Logger], *filters: logging.Filter) -> None:
    for handler in handlers:
        if settings.ProcessSettings().log_format == "json":
            handler.setFormatter(JsonLine())
        else:
            is_file = isinstance(handler, logging.FileHandler)
            handler.setFormatter(
                OneLine("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S" if is_file else "%H:%M:%S")
            )
        for each in filters:
            handler.addFilter(each)
        handler.addFilter(_is_news)
        for logger in loggers:
            logger.addHandler(handler)

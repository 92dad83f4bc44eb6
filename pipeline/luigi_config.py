"""Luigi's configuration: read with one line for each mistake, and our defaults for Luigi's own settings.

Luigi reads luigi.cfg from the current folder. Without it, or with another project's, a failed run would exit with 0,
and a stage would not see the output of the stage before it. The package therefore contains the Luigi settings that the
pipeline relies on, as defaults. luigi.cfg overrides them.

This module is the first of the package to import luigi, which reads luigi.cfg while it is imported.
"""

from __future__ import annotations

import configparser
import os
import sys
import warnings
from typing import Any, NoReturn

from . import renamed
from .errors import UsageError
from .sanitize import error_line

#: Luigi's own settings, unless luigi.cfg overrides them; luigi.cfg explains each.
DEFAULTS: dict[str, dict[str, str]] = {
    "core": {
        "autoload_range": "false",
        "no_lock": "true",
        "rpc_retry_attempts": "30",
        "rpc_retry_wait": "5",
    },
    "worker": {
        "task_process_context": "pipeline.runner.task_context.TaskContext",
        "check_complete_on_run": "false",
        "cache_task_completion": "false",
        "keep_alive": "true",
        "wait_interval": "1",
        "wait_jitter": "1",
    },
    "scheduler": {
        "worker_disconnect_delay": "20",
        "retry_delay": "5",
        "prune_on_get_work": "true",
        "retry_count": "5",
        "disable_window": "3600",
        "disable_persist": "600",
        "state_path": "luigid/state.pickle",
    },
    "task_history": {"db_connection": "sqlite:///luigid/history.db"},
    "resources": {
        "download_tlc": "4",
        "download_dtc": "4",
        "download_sample": "4",
        "memory": "4",
        "load_duckdb": "1",
        "load_postgresql": "2",
        "load_bigquery": "4",
    },
    "retcode": {
        "already_running": "10",
        "missing_data": "20",
        "not_run": "25",
        "task_failed": "30",
        "scheduling_error": "35",
        "unhandled_exception": "40",
    },
}

#: Defaults of the luigi command only. reporting/logs.py configures the log of a program that calls ``luigi.build``.
COMMAND_DEFAULTS: dict[str, dict[str, str]] = {"core": {"no_configure_logging": "true"}}

#: Files that Luigi reads; the later overrides the earlier. ``LUIGI_CONFIG_PATH`` comes last.
PLACES = ("/etc/luigi/client.cfg", "/etc/luigi/luigi.cfg", "client.cfg", "luigi.cfg")


def files() -> list[str]:
    """The files that Luigi reads its settings from."""
    return [path for path in (*PLACES, os.environ.get("LUIGI_CONFIG_PATH", "")) if path and os.path.isfile(path)]


def names_luigid() -> bool:
    """Whether [core] says where luigid is."""
    config = luigi.configuration.get_config()
    return any(config.has_option("core", f"default-scheduler-{name}") for name in ("host", "port", "url"))


def complete(defaults: dict[str, dict[str, str]]) -> None:
    """Set the defaults that luigi.cfg does not set, by their new or old names."""
    config = luigi.configuration.get_config()
    renamed.take_from_configuration(config)
    with warnings.catch_warnings():  # about names with - in place of _
        warnings.simplefilter("ignore", DeprecationWarning)
        for section, values in defaults.items():
            for name, value in values.items():
                if not config.has_option(section, name):
                    config.set(section, name, value)


def _mistake(path: str) -> str:
    """Why a file cannot be read as settings; empty if it can. Its lines are not shown: they may contain passwords."""
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(b"\xef\xbb\xbf"):
            return f"{path} begins with a byte order mark (BOM); save it as UTF-8 without one"
        for number, line in enumerate(data.decode().splitlines(), start=1):
            if line.startswith("[") and "]" not in line:
                return f"{path}, line {number}: the ] of the section is missing"
        configparser.RawConfigParser().read_string(data.decode(), path)
    except UnicodeDecodeError as error:
        before = data[: error.start].count(b"\n")
        return f"{path}, line {before + 1}: not UTF-8; save the file as UTF-8"
    except configparser.DuplicateOptionError as error:
        return f"{path}, line {error.lineno}: [{error.section}] {error.option} is set a second time; keep one of them"
    except configparser.DuplicateSectionError as error:
        return f"{path}, line {error.lineno}: there is a second section [{error.section}]; put both into one"
    except configparser.MissingSectionHeaderError as error:
        return f"{path}, line {error.lineno}: no section such as [lake] comes before this line; write one above it"
    except configparser.ParsingError as error:
        return f"{path}, line {error.errors[0][0]}: neither [section] nor name = value nor # and a comment"
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return ""


def _refuse(error: Exception) -> NoReturn:
    """Say in one line why Luigi could not read its settings."""
    is_ours = isinstance(error, UsageError)
    text = str(error) if is_ours else next((mistake for path in files() if (mistake := _mistake(path))), None)
    if text is None:
        raise error
    if sys.argv[:1] == ["-m"]:  # `python -m pipeline` imports the package before any code is there to catch an error
        print(f"error: {error_line(text)}", file=sys.stderr)
        sys.exit(2)
    raise UsageError(text) from None


def check_parser() -> None:
    """Raise UsageError for every parser but that of luigi.cfg."""
    if os.environ.get("LUIGI_CONFIG_PARSER", "cfg") not in ("cfg", "conf", "ini"):
        raise UsageError("environment variable LUIGI_CONFIG_PARSER: settings are read from luigi.cfg only; unset it")


def _import_luigi() -> Any:
    try:
        check_parser()
        with warnings.catch_warnings():  # about [core] autoload_range, which is set below
            warnings.simplefilter("ignore", DeprecationWarning)
            import luigi
            import luigi.configuration
    except (configparser.Error, UnicodeDecodeError, OSError, UsageError) as error:
        _refuse(error)
    return luigi


luigi = _import_luigi()

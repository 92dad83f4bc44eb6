"""Checks of the flags of luigi's command: each mistake is one line, and no value that may be a secret is shown.

In the order in which Luigi comes to them: ``build_parser``, ``check_before_settings``, and then, from
``command_line``, ``check_values``, ``check_core`` and ``check_required``.
"""

from __future__ import annotations

import configparser
import re
from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Callable
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NoReturn

import luigi.interface
from luigi.retcodes import retcode
from luigi.task_register import Register, TaskClassNotFoundException

from .. import renamed, settings, validation
from ..errors import PipelineError, UsageError
from ..reporting import journal
from ..setting_values import MOST_WORKERS, luigid_url
from .exit_codes import exit_with


def build_parser(build: Callable[..., ArgumentParser], root_task: str | None = None, help_all: bool = False) -> Any:
    """Let the parser say what is wrong in one line, without the usage of a hundred flags."""
    if root_task is not None and root_task not in Register.task_names():
        exit_with(_no_such_task(root_task))
    return _parser(build, root_task, help_all, tuple(Register._reg))


@lru_cache(maxsize=2)
def _parser(build: Callable[..., ArgumentParser], root_task: str | None, help_all: bool, tasks: object) -> Any:
    """The parser of these tasks. Luigi asks for the same one six times, and each takes ten milliseconds to build."""
    parser = build(root_task, help_all)
    for section, name in renamed.NAMES:
        flags = [renamed.flag(section, name), *([f"--{name}"] if section == root_task else [])]
        parser.add_argument(*flags, dest=f"{section}_{name}", help=SUPPRESS)
    parser.allow_abbrev = False  # --warehouse is a flag of a task, not short for --warehouse-url

    def error(message: str) -> NoReturn:
        unknown = next((word for word in message.split() if word.startswith("--")), "")
        unknown = unknown.partition("=")[0].rstrip(":")
        if "ignored explicit argument" in message:
            exit_with(UsageError(f"{unknown} takes no value; give it alone"))
        own, common = _flags_of(root_task)
        near = get_close_matches(unknown, own, 1) or get_close_matches(unknown, common, 1, validation.ALIKE)
        hint = f"; did you mean {near[0]}?" if near and unknown not in own + common else ""
        exit_with(UsageError(without_values(message) + hint))

    parser.error = error  # type: ignore[method-assign]
    return parser


def check_before_settings(print_help: Callable[..., None], parser: ArgumentParser, known: Namespace) -> None:
    """Refuse mistakes that Luigi would answer with a traceback or exit code 1, before it builds the task."""
    print_help(parser, known)
    try:
        if not known.root_task:
            raise UsageError("no task is named; for instance: luigi --module pipeline RangeMonthly --local-scheduler")
        for name, value in vars(known).items():
            if value == []:  # which argparse makes of --flag=--
                raise UsageError(f"{_flag(name)}: -- is no value")
        validation.check_texts("DEFAULT")
        validation.check_texts("retcode")
        for name, parameter in retcode.get_params():
            text = getattr(known, f"retcode_{name}")
            if text and not _is_exit_code(parameter.parse, text):
                raise UsageError(f"{_flag(f'retcode_{name}')}: {text!r} is not a number from 0 to 255")
            if not _is_exit_code(parameter.task_value, "retcode", name):
                raise UsageError(f"luigi.cfg: [retcode] {name} is not a number from 0 to 255")
    except UsageError as error:
        exit_with(error)


def check_values(given: Namespace) -> None:
    """Refuse a flag whose value its parameter cannot read. Of a setting, ``validation.validate`` says more."""
    sections = {section.get_task_family() for section in settings.SECTIONS}
    for family, is_without_section, name, parameter in Register.get_all_params():
        flags = {f"{family}_{name}": name if is_without_section else f"{family}_{name}"}
        if family == given.root_task:
            flags[name] = name
        for attribute, flag in flags.items():
            text, why = getattr(given, attribute), ""
            try:
                if text:
                    parameter.normalize(parameter.parse(text))
            except TaskClassNotFoundException:
                why = str(_no_such_task(text))
            except PipelineError as error:
                why = "" if family in sections else str(error)
            except Exception as error:
                why = validation.what_is_wrong(parameter, text, error)
            if why:
                raise UsageError(f"{_flag(flag)}: {why}")


def check_core() -> None:
    """Refuse a number of workers with which Luigi waits for ever."""
    core = luigi.interface.core()
    if not 1 <= core.workers <= MOST_WORKERS:
        raise UsageError(f"--workers {core.workers} (or [core] workers): give at least 1, at most {MOST_WORKERS:,}")
    if core.scheduler_url:
        try:
            luigid_url(core.scheduler_url)
        except UsageError as error:
            raise UsageError(f"--scheduler-url (or [core] default_scheduler_url): {error}") from None
    if not 1 <= core.scheduler_port <= 65535:
        raise UsageError(f"--scheduler-port {core.scheduler_port} (or [core]) is not between 1 and 65535")
    _check_logging(core.logging_conf_file)


def _check_logging(path: str) -> None:
    """Refuse a file from which Luigi cannot set up logging."""
    if not path:
        return
    parser, why = configparser.RawConfigParser(), ""
    try:
        if not parser.read(path):
            why = "there is no such file"
        elif not {"loggers", "handlers", "formatters"} <= set(parser.sections()):
            why = "it needs the sections [loggers], [handlers] and [formatters]"
    except (configparser.Error, UnicodeDecodeError, OSError, ValueError):
        why = "it cannot be read as settings"
    if why:
        raise UsageError(f"--logging-conf-file {path} (or [core] logging_conf_file): {why}")


def check_required(given: Namespace) -> None:
    """Refuse a task without a parameter that it needs, by the name of its flag."""
    task = Register.get_task_cls(given.root_task)
    for name, parameter in task.get_params():
        if not getattr(given, name) and not parameter.has_task_value(task.get_task_family(), name):
            about = f" ({parameter.description})" if parameter.description else ""
            raise UsageError(f"{_flag(name)} is missing: {given.root_task} needs it{about}")


def without_values(message: str) -> str:
    """What argparse says, without the values of flags that it does not know: each may be a secret."""
    what, colon, words = message.partition("unrecognized arguments: ")
    if not colon or what:
        return message
    flags = [word.partition("=")[0] for word in words.split() if word.startswith("--")]
    return colon + " ".join(flags or journal.without_addresses(words.split()))


def _no_such_task(name: str) -> UsageError:
    near = get_close_matches(name, Register.task_names(), 1)
    shown = name if re.fullmatch(r"[\w.]+", name) else repr(name)
    return UsageError(f"there is no task {shown}" + (f"; did you mean {near[0]}?" if near else ""))


def _flags_of(root_task: str | None) -> tuple[list[str], list[str]]:
    """The flags that are worth a hint: those of the task itself, and those of the settings and of Luigi."""
    ours = {section.get_task_family() for section in settings.SECTIONS}
    own, common = [], []
    for family, is_without_section, name, _ in Register.get_all_params():
        own += [_flag(name)] if family == root_task else []
        common += [_flag(name)] if is_without_section else [_flag(f"{family}_{name}")] if family in ours else []
    return own, common


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _is_exit_code(read: Callable[..., int], *arguments: str) -> bool:
    """Whether the number is one that a shell gets as it is; it gets 0 for 256."""
    try:
        return 0 <= read(*arguments) <= 255
    except ValueError:
        return False

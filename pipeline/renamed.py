"""Old names of settings and parameters: they still work, and one line of warning says what they are called now.

To rename a setting, declare it under its new name and add a line to ``NAMES``. The old name is then understood in
luigi.cfg, in the environment, as a flag and as an argument. In each of these places the new name wins over the old one.
"""

from __future__ import annotations

import logging
import multiprocessing
import warnings
from collections.abc import Callable, MutableMapping
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from luigi.configuration import LuigiConfigParser

LOGGER = logging.getLogger("pipeline")

Key = TypeVar("Key")

#: Section and name as they were, and as they are now. The section of a parameter is its task.
NAMES = {
    ("publisher", "attempts"): ("retry", "attempts"),
    ("publisher", "backoff"): ("retry", "backoff"),
    ("publisher", "max_backoff"): ("retry", "max_backoff"),
    ("AllTrips", "datasets"): ("AllTrips", "dataset"),
}

#: Section, name and value as it was, and the value now.
VALUES = {
    ("worker", "task_process_context", f"pipeline.{old}.TaskContext"): "pipeline.runner.task_context.TaskContext"
    for old in ("operations.process", "runner.process")
}

_found: dict[str, str] = {}
_told: set[str] = set()
_given_as: dict[tuple[str, str], str] = {}


def flag(section: str, name: str) -> str:
    """The flag of a setting."""
    return f"--{section}-{name}".replace("_", "-")


def take(values: MutableMapping[Key, Any], key: Callable[[str, str], Key], shown: Callable[[str, str], str]) -> None:
    """Put the values that have an old name under the new one. ``key`` and ``shown`` take a section and a name."""
    for old, new in NAMES.items():
        value = values.pop(key(*old), None)
        if value is None:
            continue
        is_overruled = values.get(key(*new)) is not None
        note(shown(*old), shown(*new) + (" now, which is set too and wins" if is_overruled else " now"))
        if not is_overruled:
            values[key(*new)] = value
            _given_as[new] = shown(*old)


def take_from_configuration(config: LuigiConfigParser) -> None:
    """The same for luigi.cfg."""
    with warnings.catch_warnings():  # about names with - in place of _
        warnings.simplefilter("ignore", DeprecationWarning)
        options = [option for names in NAMES.items() for option in names if option[1] not in config.defaults()]
        before = {option: config.get(*option, raw=True) for option in options if config.has_option(*option)}
        values = dict(before)
        take(values, lambda section, name: (section, name), lambda section, name: f"[{section}] {name}")
        for section, name in before.keys() - values.keys():
            config.remove_option(section, name)
            config.remove_option(section, name.replace("_", "-"))
        for option in values.keys() - before.keys():
            config.set(*option, values[option])
        for section, name, old in VALUES:
            if config.get(section, name, "", raw=True) == old:
                config.set(section, name, value_now(section, name, old))


def take_from_arguments(task: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The same for the arguments of a task, which may be built by somebody's program."""
    if not any(section == task for section, _ in NAMES):
        return arguments
    arguments = dict(arguments)
    take(
        arguments,
        lambda section, name: name if section == task else f"{section}.{name}",
        lambda section, name: f"{name} of {section}",
    )
    return arguments


def value_now(section: str, name: str, value: str | None) -> str | None:
    """The value of a setting, which may be an old one, from a flag or put together in luigi.cfg."""
    new = VALUES.get((section, name, value or ""))
    if new is not None:
        note(f"[{section}] {name}: {value}", f"{new} now")
    return new or value


def given_as(section: str, name: str) -> str:
    """The old name that a setting was given by, for messages about its value; empty if it was not."""
    return _given_as.get((section, name), "")


def note(old: str, new: str) -> None:
    """Remember an old name for ``warn``."""
    if old not in _told:
        _found[old] = new


def warn() -> None:
    """Say in one line which old names were found, once per process; worker processes leave it to their parent.

    Called when nothing is refused any more: a mistake is one line.
    """
    if _found and multiprocessing.parent_process() is None:
        LOGGER.warning("%s", "; ".join(f"{old} is called {new}" for old, new in _found.items()))
        _told.update(_found)
        _found.clear()

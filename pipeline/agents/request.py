"""Validation of submitted commands: only tasks of the pipeline, with the parameters that select their months.

Everybody who can write to the workspace can write a queue file, so a command is untrusted. ``submit`` and the agent
validate it before Luigi's parser or any import sees it. The command that runs is rebuilt from the validated values.
Everything else is the agent's own: publisher address, lake, warehouses, scheduler, logging, notifications.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .. import datasets, renamed, validation
from ..cleaning.rules import Rules
from ..datasets import monthly_names
from ..errors import UsageError
from ..partition import format_month, typed_month
from ..publishers.catalog import CATALOGS
from ..strict_json import json_object

#: Most words of a command, and most characters of one.
WORDS, LENGTH = 50, 2000

#: Values that an error may show: months and numbers. Any other text may be a misplaced secret.
_SHOWN = re.compile(r"[0-9-]{1,10}")

Check = Callable[[str], str]


@dataclass(frozen=True)
class Request:
    """A task and its flags, each value normalized."""

    task: str
    values: Mapping[str, str]

    @property
    def words(self) -> list[str]:
        """The command behind ``luigi --module pipeline``; no value can be taken for a flag."""
        return [self.task, *(f"--{flag}={value}" if value else f"--{flag}" for flag, value in self.values.items())]


def read(words: Sequence[str]) -> Request:
    """Validate the words of a command. Raises UsageError, in one line without secrets, if they are not allowed."""
    if not words:
        raise UsageError("no task is named; such as RangeMonthly --start 2021-01")
    if len(words) > WORDS:
        raise UsageError(f"a command has at most {WORDS} words; this one has {len(words):,}")
    for number, word in enumerate(words, 1):
        if len(word) > LENGTH or not word.isprintable():
            raise UsageError(f"word {number} of the command has control characters, or more than {LENGTH:,} in all")
    task, *rest = words
    flags = _FLAGS.get(task)
    if flags is None:
        raise UsageError(_no_task(task))
    values: dict[str, str] = {}
    while rest:
        word = rest.pop(0)
        flag, has_value, value = word.removeprefix("--").partition("=")
        check = flags.get(flag) if word.startswith("--") else None
        if check is None:
            raise UsageError(_no_flag(task, word, len(words) - len(rest)))
        if flag in values:
            raise UsageError(f"--{flag} is given twice")
        if not has_value and check is not _alone:
            if not rest or rest[0].startswith("-"):
                raise UsageError(f"--{flag} has no value")
            value = rest.pop(0)
        try:
            values[flag] = check(value) if has_value or check is not _alone else ""
        except UsageError as error:
            raise UsageError(f"--{flag}: {error}") from None
    return Request(task, values)


# -- values ----------------------------------------------------------------------------------------


def _choice(value: str, choices: Sequence[str], what: str) -> str:
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1, validation.ALIKE)
        hint = f"{value} is not {what}; did you mean {near[0]}?" if near else f"the value is not {what}"
        raise UsageError(hint if near else f"{hint}; choose from {', '.join(choices)}")
    return value


def _month(value: str) -> str:
    try:
        return format_month(typed_month(value))
    except UsageError:
        raise UsageError(f"{_shown(value)} is not a month; write it as YYYY-MM, such as 2021-01") from None


def _number(value: str) -> str:
    if not re.fullmatch(r"[1-9][0-9]{0,4}", value):
        raise UsageError(f"{_shown(value)} is not a number from 1 to 99999")
    return value


def _alone(value: str) -> str:
    raise UsageError("this flag has no value")


def _dataset(value: str) -> str:
    return _choice(value, tuple(datasets.DATASETS), "a dataset")


def _datasets(value: str) -> str:
    for name in value.split(","):
        _choice(name.strip(), datasets.MONTHLY, "a dataset with months")
    return ",".join(monthly_names(value))


def _task_of_range(value: str) -> str:
    if value not in _RANGED and (near := difflib.get_close_matches(value, _RANGED, 1)):
        raise UsageError(f"there is no task {value}; did you mean {near[0]}?")
    return _choice(value, _RANGED, "a task of months")


def _of_params(value: str) -> str:
    try:
        found = json_object(value.encode())
    except ValueError:
        found = {}
    if not found:
        raise UsageError('the value is not a JSON object, such as \'{"dataset": "green"}\'')
    checked = {}
    for name, text in found.items():
        if name not in _OF_PARAMS or not isinstance(text, str):
            raise UsageError(f"a queue takes {' and '.join(_OF_PARAMS)} there, each with a text")
        checked[name] = _OF_PARAMS[name](text)
    return json.dumps(checked)


def _rules(value: str) -> str:
    try:
        return str(Rules.parse(value))
    except UsageError:
        from ..cleaning.rules import RULES

        raise UsageError(f"the value names no rules; choose from {', '.join(RULES)}, or none") from None


def _publisher(value: str) -> str:
    return _choice(value, tuple(CATALOGS), "a publisher")


def _shown(value: str) -> str:
    return repr(value) if _SHOWN.fullmatch(value) else "the value"


#: Tasks that a range may be of, and parameters of these.
_RANGED = ("MonthlyTrips", "AllTrips")
_OF_PARAMS: dict[str, Check] = {
    "dataset": lambda value: _datasets(value) if "," in value else _dataset(value),
    "datasets": _datasets,
}

_ANY: dict[str, Check] = {"clean-rules": _rules, "publisher-name": _publisher}
_ONE_MONTH: dict[str, Check] = {**_ANY, "dataset": _dataset, "month": _month}

_FLAGS: dict[str, dict[str, Check]] = {
    "RangeMonthly": {
        **_ANY,
        "of": _task_of_range,
        "of-params": _of_params,
        **_OF_PARAMS,
        "start": _month,
        "stop": _month,
        "task-limit": _number,
        "reverse": _alone,
    },
    "MonthlyTrips": _ONE_MONTH,
    "AllTrips": {**_ANY, "dataset": _datasets, "datasets": _datasets, "month": _month},
    "TaxiZones": _ANY,
    "Refresh": {**_ANY, "dataset": _datasets, "since": _month},
    "Download": _ONE_MONTH,
    "Clean": _ONE_MONTH,
    "WriteParquet": _ONE_MONTH,
    "Upload": _ONE_MONTH,
    "Load": _ONE_MONTH,
}


# -- what is refused -------------------------------------------------------------------------------


def _no_task(word: str) -> str:
    if not word:
        return "there is no task ''"
    if near := difflib.get_close_matches(word, _FLAGS, 1):
        return f"there is no task {word!r}; did you mean {near[0]}?"
    return f"the first word is no task that a queue takes; it takes {', '.join(_FLAGS)}"


def _no_flag(task: str, word: str, number: int) -> str:
    """The error for an unknown flag. It shows the flag only if it is a known one: any other text may be a secret."""
    flag = word.partition("=")[0]
    if flag in _agents_own():
        return (
            f"{flag} is the agent's own: give it to `python -m pipeline agent`, or set it where that runs; an address "
            "or a password does not belong in a queue"
        )
    allowed = [f"--{name}" for name in _FLAGS[task]]
    near = difflib.get_close_matches(flag, allowed, 1)
    hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(allowed)}"
    return f"word {number} of the command is no flag of {task} that a queue takes; {hint}"


def _agents_own() -> set[str]:
    """Known flags that a queue does not take: those of settings, and those of Luigi itself."""
    from luigi.task_register import Register

    found = {"--module", "--help", "--help-all", *(renamed.flag(*old) for old in renamed.NAMES)}
    for family, is_without_section, name, _ in Register.get_all_params():
        found |= {f"--{family}-{name}"} | ({f"--{name}"} if is_without_section else set())
        if family in _FLAGS:
            found.add(f"--{name}")
    return {flag.replace("_", "-") for flag in found}

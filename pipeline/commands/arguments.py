"""The kinds of arguments that verbs take, each with the check of its values.

A kind is what argparse calls a ``type``. The check itself raises UsageError and is defined where the value is also used
without argparse: in the modules of settings, tasks and queues.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import Any, TypeVar

from .. import datasets, setting_values, strict_json
from ..agents.records import check_queue
from ..datasets import monthly_names
from ..errors import UsageError
from ..partition import typed_month

T = TypeVar("T")


def kind(check: Callable[[str], T]) -> Callable[[str], T]:
    """``check`` for argparse, which names the flag only in errors of its own class."""

    def parse(text: str) -> T:
        try:
            return check(text)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


def _host_name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9])?", text):
        raise UsageError(f"{text!r} is not the name of a host; write it without scheme and port, such as luigid")
    return text


def _some_datasets(text: str) -> str:
    return ",".join(monthly_names(text))


def _each_of(*names: str) -> Callable[[str], str]:
    one = setting_values.choice(*names)
    return kind(lambda text: ",".join(dict.fromkeys(one(name.strip()) for name in text.split(","))))


def _text(text: str) -> str:
    if not text.strip():
        raise UsageError(f"{text!r} is empty; give a value, or omit the flag")
    return text


def _json_object(text: str) -> dict[str, Any]:
    try:
        return strict_json.json_object(text.encode())
    except ValueError:
        raise UsageError(f'{text!r} is not a JSON object, such as \'{{"dataset": "green"}}\'') from None


def number(least: float, most: float) -> Callable[[str], float]:
    return kind(setting_values.number(least, most))


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    return kind(setting_values.whole(least, most))


text = kind(_text)
monthly_datasets = _each_of(*datasets.MONTHLY)
any_datasets = _each_of(*datasets.DATASETS)
some_datasets = kind(_some_datasets)
all_or_some_datasets = kind(lambda text: ",".join(datasets.MONTHLY) if text == "all" else _some_datasets(text))
json_object = kind(_json_object)
queue_name = kind(check_queue)
host_name = kind(_host_name)

#: Flags that several verbs have.
MONTH: dict[str, Any] = {"type": kind(typed_month), "metavar": "YYYY-MM"}
WORKERS: dict[str, Any] = {"type": whole(least=1, most=setting_values.MOST_WORKERS), "default": 1, "metavar": "N"}
LUIGID: dict[str, Any] = {
    "type": kind(setting_values.luigid_url),
    "metavar": "URL",
    "help": "luigid, such as http://luigid:8082; default: none",
}
QUEUE: dict[str, Any] = {"type": queue_name, "metavar": "NAME"}

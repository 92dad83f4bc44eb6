"""Parses and checks one value of a setting, parameter or flag: choices, numbers within bounds, memory, luigid's URL.

Settings, tasks and verbs use these functions. A wrong value raises UsageError with one line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlsplit

from .errors import UsageError

#: Tasks at once, beyond which a number is a slip of the hand.
MOST_WORKERS = 1000


def choice(*words: str) -> Callable[[str], str]:
    """One of a few words."""

    def read(text: str) -> str:
        if text not in words:
            raise UsageError(f"{text!r} is not one of {', '.join(words)}")
        return text

    return read


def choices(*words: str, least: int = 0) -> Callable[[str], str]:
    """Some of a few words, comma-separated; at least ``least`` of them."""
    one = choice(*words)

    def read(text: str) -> str:
        found = [one(word.strip()) for word in text.split(",") if word.strip()]
        if len(found) < least:
            raise UsageError(f"{text!r} names none of {', '.join(words)}")
        return ",".join(found)

    return read


def number(least: float, most: float) -> Callable[[str], float]:
    """A number within bounds."""

    def read(text: str) -> float:
        if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", text, re.ASCII):
            raise UsageError(f"{text!r} is not a number")
        if not least <= float(text) <= most:
            raise UsageError(f"{text} is not between {least:g} and {most:g}")
        return float(text)

    return read


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """A whole number of at least ``least``, and of ``most`` at most if there is such a bound."""

    def read(text: str) -> int:
        if not re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", text, re.ASCII):
            raise UsageError(f"{text!r} is not a whole number")
        value = int(text)
        if value < least or (most is not None and value > most):
            raise UsageError(
                f"{text} is " + (f"less than {least}" if most is None else f"not between {least} and {most}")
            )
        return value

    return read


def _matching(pattern: str, what: str) -> Callable[[str], str]:
    """A text that the pattern matches as a whole, in capitals or not."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text, re.IGNORECASE | re.ASCII):
            raise UsageError(f"{text!r} is not {what}")
        return text

    return read


#: An amount of memory as DuckDB reads it.
memory = _matching(r"\d+(\.\d+)?\s*([KMGT]i?B|%)", "an amount of memory; write it as 192MB or 2GB")

#: A location of Google Cloud.
location = _matching("[a-z][a-z0-9-]{1,62}", "a location of Google Cloud; write it as US, EU or europe-west1")


def luigid_url(url: str) -> str:
    """The http address of a luigid; a password in it is not shown."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        shown = url.rpartition("@")[2]
        raise UsageError(f"{shown!r} is not the address of a luigid; write it as http://host:8082")
    return url

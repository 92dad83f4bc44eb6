"""The records in a queue: a submitted run, and an agent with its last heartbeat; read from JSON and validated.

Everybody who can write to the workspace can write them, so they are untrusted: every field must have its type and a
plausible value.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import getpass
import json
import os
import re
import socket
import time
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..errors import UsageError
from ..reporting.journal import is_run_id
from ..strict_json import json_object

#: Seconds between two heartbeats of an agent, and seconds without one after which its run is taken over.
RENEW, LEASE = 5.0, 20.0

#: Limits: bytes of a record, characters of a text in it, texts of a field.
LIMIT, LENGTH, MANY = 1 << 20, 10_000, 500

#: Years of a plausible time.
YEARS = range(1971, 9000)

WAITING, RUNNING, DONE, FAILED, CANCELLED = "waiting", "running", "done", "failed", "cancelled"
OPEN = (WAITING, RUNNING)

T = TypeVar("T")


def user() -> str:
    """This user and host, for other people."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def is_queue(text: str) -> bool:
    """Whether a text can name a queue, which is a folder in every kind of store."""
    return re.fullmatch(r"\w[\w.-]{0,99}", text) is not None and len(text.encode(errors="replace")) <= 200


def check_queue(text: str) -> str:
    """The name of a queue as it was given. Raises UsageError for what cannot be a folder in every store."""
    if not is_queue(text):
        shown = "an address" if "://" in text else repr(text if len(text) <= 40 else f"{text[:40]}...")
        raise UsageError(f"{shown} cannot be the name of a queue; use letters, digits, dots and dashes")
    return text


def this_agent() -> str:
    """The name of an agent that is this process, such as ``moon:4711``."""
    host = re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.ASCII)[:100]
    return f"{host or 'host'}:{os.getpid()}"


def file_of_agent(name: str) -> str:
    """``host-pid`` of an agent called ``host:pid``."""
    return re.sub(r"[^\w-]+", "-", name).strip("-") or "agent"


def now(precision: str = "seconds") -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec=precision)


def seconds_of(moment: str) -> float | None:
    """Seconds since 1970 of a time in the format of the queues."""
    return dt.datetime.fromisoformat(moment).astimezone(dt.UTC).timestamp() if moment else None


def seconds_since(moment: str) -> float:
    """Seconds since a time in the format of the queues; infinite for an empty text."""
    at = seconds_of(moment)
    return float("inf") if at is None else time.time() - at


@dataclass(frozen=True)
class Submission:
    """One run that somebody asked for. Times are ISO 8601, in UTC.

    ``command``: the words after ``luigi --module pipeline``. ``meaning``: the ``effective_settings`` of command and
    submitter. ``agent``: has claimed it. ``refusals``: why agents refuse it, by host. ``cancelled_by``: tells the agent
    to stop it. ``result`` and ``summary``: the outcome in its journal, which is on the agent's host.
    """

    id: str
    queue: str
    command: list[str]
    meaning: dict[str, str]
    submitter: str
    submitted_at: str
    state: str = WAITING
    agent: str = ""
    attempts: int = 0
    started_at: str = ""
    renewed_at: str = ""
    ended_at: str = ""
    exit_code: int | None = None
    message: str = ""
    log: str = ""
    refusals: dict[str, str] = field(default_factory=dict)
    cancelled_by: str = ""
    result: str = ""
    summary: str = ""

    def changed(self, **changes: object) -> Submission:
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def to_json(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Submission:
        """Raises ValueError for an invalid submission."""
        found = _from_json(cls, data)
        for name, is_right in (
            ("id", is_run_id(found.id)),
            ("queue", is_queue(found.queue)),
            ("command", bool(found.command)),
            ("state", found.state in (*OPEN, DONE, FAILED, CANCELLED)),
            ("attempts", 0 <= found.attempts <= 1000),
            ("exit_code", found.exit_code is None or abs(found.exit_code) <= 255),
            ("submitted_at", _is_time(found.submitted_at)),
        ):
            if not is_right:
                raise ValueError(f"its {name} is not valid")
        for name in ("started_at", "renewed_at", "ended_at"):
            if getattr(found, name) and not _is_time(getattr(found, name)):
                raise ValueError(f"its {name} is no time")
        return found


@dataclass(frozen=True)
class AgentRecord:
    """An agent that serves a queue, at its last heartbeat. Times are ISO 8601, in UTC, by the clock of its host."""

    name: str
    since: str
    heard_at: str
    run: str = ""

    @property
    def silent(self) -> float:
        """Seconds since its last heartbeat, as far as the clocks of the hosts agree."""
        return max(0.0, seconds_since(self.heard_at))

    @property
    def is_alive(self) -> bool:
        return self.silent < LEASE

    @classmethod
    def from_json(cls, data: bytes) -> AgentRecord:
        """Raises ValueError for an invalid record."""
        found = _from_json(cls, data)
        if not re.fullmatch(r"[\w.-]{1,100}:[0-9]{1,10}", found.name, re.ASCII) or (
            found.run and not is_run_id(found.run)
        ):
            raise ValueError("its name, or that of its run, is not valid")
        if not (_is_time(found.since) and _is_time(found.heard_at)):
            raise ValueError("it has no times")
        return found


def _from_json(cls: type[T], data: bytes) -> T:
    """A dataclass from a JSON object. Values must have the declared types; unknown names are ignored."""
    given, values = json_object(data), {}
    for name, kind in get_type_hints(cls).items():
        if name in given:
            if not _has_type(given[name], kind):
                raise ValueError(f"its field {name} has the wrong type, or is too long")
            values[name] = given[name]
    try:
        return cls(**values)
    except TypeError:
        raise ValueError("fields are missing") from None


def _has_type(value: Any, kind: Any) -> bool:
    """Whether a JSON value has the declared type and a plausible size."""
    if isinstance(value, bool):
        return False
    if (origin := get_origin(kind)) in (list, dict):
        if not isinstance(value, origin) or len(value) > MANY:
            return False
        inner = [*value, *value.values()] if origin is dict else value
        return all(_has_type(one, get_args(kind)[0]) for one in inner)
    return isinstance(value, kind) and not (isinstance(value, str) and len(value) > LENGTH)


def _is_time(text: str) -> bool:
    try:
        return dt.datetime.fromisoformat(text).year in YEARS
    except ValueError:
        return False

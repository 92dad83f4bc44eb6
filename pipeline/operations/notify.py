"""Messages to people about runs, through Apprise: one per run, made from its journal, and never to the run's harm.

What can be told of a run are the words of ``[notify] on``. A message is sent if one of them happened; it then tells
the whole story of the run. A run that was killed cannot tell: the next one does (``tell_of_killed_runs``).

Sending lasts ``PATIENCE`` seconds at most, whatever the addresses do. An address is named by its position and service
only, because any part of its URL may be a secret.
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import shlex
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .. import settings
from ..checks import Check
from ..completeness import REPUBLISHED
from ..errors import UsageError
from ..planning import COMPLETE, NOT_YET
from . import journal

LOGGER = logging.getLogger("pipeline")

#: Seconds after which a message that is still on its way is given up.
PATIENCE = 15.0

#: Months that one line of a message names before it only counts the others.
NAMED = 12

FAILED, COMPLETED, CRASHED = "failed", "completed", "crashed"
SCHEMA_DRIFT, NOTHING_NEW = "schema_drift", "nothing_new"

#: Apprise's kind of message by what happened, the gravest first.
_KINDS = {
    CRASHED: "failure",
    FAILED: "failure",
    SCHEMA_DRIFT: "warning",
    REPUBLISHED: "warning",
    COMPLETED: "success",
    NOTHING_NEW: "info",
}

Events = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Message:
    """What is sent. ``happened`` are words of ``[notify] on``, ``datasets`` those it speaks of; empty: of the run."""

    title: str
    body: str
    happened: frozenset[str]
    datasets: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        return next(kind for word, kind in _KINDS.items() if word in self.happened)

    @property
    def is_wanted(self) -> bool:
        """Whether ``[notify]`` asks for what happened, to the datasets it happened to."""
        wanted = settings.notify()
        return bool(self.happened & set(wanted.on.split(","))) and (
            not self.datasets or bool(self.datasets & set(wanted.datasets.split(",")))
        )


# -- the story of a run ----------------------------------------------------------------------------


@dataclass
class Story:
    """What a run's journal tells: months as ``green 2020-03``, in the order in which it happened."""

    done: list[str] = field(default_factory=list)
    rows: int = 0
    rejected: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    republished: list[str] = field(default_factory=list)
    unknown_columns: dict[str, list[str]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    states: dict[str, int] = field(default_factory=dict)
    planned: bool = False


def story(events: Events) -> Story:
    """Read a run's journal. A stage that failed and was done later has not failed."""
    told = Story()
    states: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for event in events:
        if event["event"] == "stage":
            states[event["stage"], event["dataset"], event["month"], event.get("warehouse")] = event
        elif event["event"] == "missing":
            told.missing += event["months"]
        elif event["event"] == "plan":
            told.planned = True
            for dataset, month, state, reason in event["entries"]:
                if month:
                    told.states[state] = told.states.get(state, 0) + 1
                if reason == REPUBLISHED:
                    told.republished.append(_month(dataset, month))
    rows: dict[str, int] = {}
    rejected: dict[str, int] = {}
    for (stage, dataset, month, _), event in states.items():
        title = _month(dataset, month)
        if event["state"] == "failed":
            told.failed[title] = f"{stage}: {event['error']}: {event['message']}"
        elif event["state"] != "done":
            told.unfinished.append(f"{stage} {title}")
        elif stage in ("Upload", "Load") and "rows" in event:
            rows[title] = event["rows"]
            if stage == "Load":
                rejected[title] = sum(event["rows_rejected"].values())
            if title not in told.done:
                told.done.append(title)
            for column in event.get("unknown_columns", ()):
                told.unknown_columns.setdefault(column, []).append(title)
    told.done = [title for title in told.done if title not in told.failed]
    told.rows = sum(rows[title] for title in told.done)
    told.rejected = sum(rejected.get(title, 0) for title in told.done)
    told.republished = [title for title in told.republished if title in told.done]
    return told


def message_of_run(
    events: Events, failure: str = "", where: str = "", is_complete: bool = False, was_killed: bool = False
) -> Message | None:
    """The message about a run that ended; None if nothing happened that anyone could want to know.

    ``failure`` says why the run as a whole is not well, beside the months that failed; ``where`` names its log.
    ``is_complete`` says that the root task was asked again and is complete: then others did what failed here.
    """
    told = story(events)
    if is_complete:
        told.failed, told.missing, told.unfinished = {}, [], []
    for title in told.unfinished:
        told.failed.setdefault(title.partition(" ")[2], f"{title.split()[0]}: its process was killed; out of memory?")
    is_well = not (told.failed or told.missing or failure)
    happened = {
        CRASHED: bool(told.unfinished) or was_killed,
        FAILED: not is_well,
        COMPLETED: bool(told.done) and is_well,
        REPUBLISHED: bool(told.republished),
        SCHEMA_DRIFT: bool(told.unknown_columns),
        NOTHING_NEW: told.planned and not told.done and is_well,
    }
    if not any(happened.values()):
        return None
    concerned = {*told.failed, *told.missing, *told.done}
    return Message(
        title=f"NYC trips: {', '.join(_headlines(told, failure)) or 'nothing new'}",
        body="\n".join([*_details(told, failure), _whereabouts(journal.run_id(), socket.gethostname(), where)]),
        happened=frozenset(word for word, did in happened.items() if did),
        datasets=frozenset(title.split()[0] for title in concerned if told.failed or told.missing or not failure),
    )


def _headlines(told: Story, failure: str) -> Iterator[str]:
    if failure and not (told.failed or told.missing):
        yield "the run failed"
    for months, what in (
        (told.failed, "failed"),
        (told.missing, "missing at the publisher"),
        (told.done, "loaded"),
        (told.republished, "republished"),
    ):
        if months:
            yield f"{_counted(months)} {what}"
    if told.unknown_columns:
        yield f"undeclared columns: {', '.join(list(told.unknown_columns)[:NAMED])}"


def _details(told: Story, failure: str) -> Iterator[str]:
    if failure:
        yield f"Failed: {failure}"
    for title, why in list(told.failed.items())[:NAMED]:
        yield f"Failed: {title}: {why}"
    if len(told.failed) > NAMED:
        yield f"... and {len(told.failed) - NAMED} more"
    if told.missing:
        yield f"Missing at the publisher, which has later months: {_listed(told.missing)}"
    if told.done:
        yield f"Loaded: {_listed(told.done)}; {told.rows:,} rows, {told.rejected:,} rejected"
    if told.republished:
        yield f"Republished and loaded anew: {_listed(told.republished)}"
    for column, months in told.unknown_columns.items():
        yield f"Column {column} is not declared and was kept out: {_listed(months)}"
    for state, text in ((COMPLETE, "complete before"), (NOT_YET, NOT_YET)):
        if told.states.get(state):
            yield f"{_count(told.states[state])} {text}"


def message_of_killed(events: Events) -> Message:
    """The message about a run that has begun and can no longer end; ``events`` starts with its ``begun``."""
    begun, last = events[0], max(event.get("at", 0.0) for event in events)
    told = story(events)
    run = str(begun.get("run", ""))
    lines = [
        f"Began {_time(begun['at'])}, last heard of {_time(last)}: {shlex.join(begun['command'])}",
        *([f"At work on: {_listed(told.unfinished)}"] if told.unfinished else []),
        *([f"Loaded before: {_listed(told.done)}"] if told.done else []),
        "What was done is safe; the same command goes on where it stopped. Was the host out of memory, or shut down?",
        _whereabouts(run, begun.get("host", ""), ""),
    ]
    titles = [title.partition(" ")[2] for title in told.unfinished]
    return Message(
        title=f"NYC trips: a run was killed on {begun.get('host', 'an unknown host')}",
        body="\n".join(lines),
        happened=frozenset([CRASHED]),
        datasets=frozenset(title.split()[0] for title in titles),
    )


def _whereabouts(run: str, host: str, where: str) -> str:
    return f"Run {run} on {host}; log: {where or journal.folder() / f'{run}.jsonl'}"


def _month(dataset: str, month: str | None) -> str:
    return f"{dataset} {month}" if month else dataset


def _count(number: int) -> str:
    return f"{number:,} month{'' if number == 1 else 's'}"


def _counted(names: Iterable[str]) -> str:
    """``2 months and zones``."""
    months = [name for name in names if " " in name]
    others = [name for name in names if " " not in name]
    return " and ".join([*([_count(len(months))] if months else []), *others])


def _listed(names: Iterable[str]) -> str:
    """``yellow 2021-01, 2021-02, green 2021-01`` in order, the first of them if they are many."""
    months: defaultdict[str, list[str]] = defaultdict(list)
    found = sorted(set(names))
    for name in found[:NAMED]:
        dataset, _, month = name.rpartition(" ")
        months[dataset].append(month)
    text = ", ".join(f"{dataset} {', '.join(some)}".strip() for dataset, some in months.items())
    return text + (f" and {len(found) - NAMED} more" if len(found) > NAMED else "")


def _time(seconds: float) -> str:
    return f"{dt.datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M %Z}"


# -- when it is told -------------------------------------------------------------------------------


def tell_of_run(
    failure: str = "", where: str = "", is_complete: bool = False, was_killed: bool = False
) -> Message | None:
    """Send the message about this run if it is wanted; see ``message_of_run``. Returns it. Never raises."""
    try:
        events, _ = journal.events()
        message = message_of_run(events, failure, where, is_complete, was_killed)
        if message is not None and settings.notify().urls and message.is_wanted:
            send(message)
        return message
    except Exception as error:  # a journal of another version, anything: no reason for the run to fail
        LOGGER.warning("no notification could be made: %s: %s", type(error).__name__, error)
        return None


def tell_of_killed_runs() -> None:
    """Send a message about each run that was killed and that nobody was told of. Never raises."""
    try:
        if not settings.notify().urls:
            return
        for run in journal.killed():
            message = message_of_killed(run.events)
            if not message.is_wanted or send(message):
                run.reported()
            else:
                return  # nobody could be told; the next run tries again
    except Exception as error:
        LOGGER.warning("no notification could be made: %s: %s", type(error).__name__, error)


# -- sending ---------------------------------------------------------------------------------------


def addresses() -> list[tuple[str, Any]]:
    """The configured addresses as (name without secrets, Apprise service). Raises UsageError for one that is none."""
    import apprise
    from apprise.utils.parse import parse_urls

    logger = logging.getLogger("apprise")
    logger.handlers, logger.propagate = [logging.NullHandler()], False  # its warnings may quote an address
    # Apprise's own time limit would leave threads behind that Python waits for at its end.
    asset = apprise.AppriseAsset(app_id="NYC trips", async_mode=False, service_timeout=0)
    found = []
    for number, url in enumerate(parse_urls(settings.notify().urls), 1):
        service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if service is None:
            raise UsageError(
                f"[notify] urls: address {number} is not one that Apprise understands; "
                "its notation for each service is at https://appriseit.com/services"
            )
        found.append((f"address {number} ({service.service_name})", service))
    if settings.notify().urls.strip() and not found:
        raise UsageError(
            "[notify] urls: no address in it; write such as json://host/path or mailto://user:password@host"
        )
    return found


def send(message: Message) -> bool:
    """Send to all addresses at once, and log those that did not take it. Whether at least one did."""
    outcomes = _send(message)
    for name, problem in outcomes.items():
        if problem:
            LOGGER.warning("notification not delivered to %s: %s", name, problem)
    return not all(outcomes.values())


def _send(message: Message) -> dict[str, str]:
    """What went wrong, by name of the address; empty for those that took the message."""
    from apprise import Apprise, AppriseAsset

    outcomes: dict[str, str] = {}
    threads = []
    for name, service in addresses():
        outcomes[name] = f"no answer within {PATIENCE:g} s"

        def deliver(name: str = name, service: Any = service) -> None:
            try:
                one = Apprise(service, asset=AppriseAsset(async_mode=False, service_timeout=0))
                taken = one.notify(body=message.body, title=message.title, notify_type=message.kind, body_format="text")
                outcomes[name] = "" if taken else "it did not take the message"
            except Exception as error:
                outcomes[name] = type(error).__name__

        # A daemon: Python does not wait for it at its end.
        threads.append(threading.Thread(target=deliver, name=f"notify {name}", daemon=True))
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + PATIENCE
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return dict(outcomes)


# -- doctor ----------------------------------------------------------------------------------------


def check() -> Iterator[Check]:
    """Whether the configured addresses are understood. Sends nothing."""
    try:
        found = addresses()
    except UsageError as error:
        yield Check("notify", False, str(error), "correct it, then: python -m pipeline doctor --notify")
        return
    if not found:
        yield Check("notify", True, "no address in [notify] urls: nobody is told of runs")
    for name, _ in found:
        yield Check(f"notify {name}", True, f"understood; told of: {settings.notify().on}")


def send_test() -> Iterator[Check]:
    """Send a test message to each address, whatever ``[notify] on`` says. Nothing where none is configured."""
    if not settings.notify().urls.strip():
        yield Check("notify", False, "no address in [notify] urls", "set PIPELINE_NOTIFY_URLS")
        return
    message = Message(
        title="NYC trips: test message",
        body=f"Sent by `python -m pipeline doctor --notify` on {socket.gethostname()}, process {os.getpid()}.",
        happened=frozenset([NOTHING_NEW]),
    )
    try:
        outcomes = _send(message)
    except UsageError as error:
        yield Check("notify", False, str(error), "correct it and try again")
        return
    for name, problem in outcomes.items():
        remedy = "correct the address, or look into the service's own log" if problem else ""
        yield Check(f"notify {name}", not problem, problem or "test message delivered", remedy)

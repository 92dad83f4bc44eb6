"""Notifications about runs, sent through Apprise: one per run, made from its outcome. They never fail the run.

``[notify] on`` lists what is reported. A message is sent if any of it happened, and describes the whole run. A run
that was killed is reported by the next one (``notify_of_killed_runs``).

Sending takes ``SENDING_TIMEOUT`` seconds at most, whatever the addresses do. An address is named by its position and
service only, because any part of its URL may be a secret.
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
from dataclasses import dataclass
from itertools import islice
from typing import Any

from .. import settings
from ..checks import Check
from ..errors import UsageError
from ..plain import one_line
from ..planning.completeness import REPUBLISHED
from ..planning.planner import COMPLETE, MISSING, NOT_YET, UNASKED
from . import journal, journal_reader, outcomes
from .outcomes import MonthOutcome, RunOutcome, count

LOGGER = logging.getLogger("pipeline")

#: Seconds after which a message that is still on its way is given up.
SENDING_TIMEOUT = 15.0

#: Most killed runs that one run reports; the next ones report the others.
KILLED = 20

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

    @classmethod
    def of(cls, title: str, lines: Iterable[str], happened: Iterable[str], datasets: Iterable[str] = ()) -> Message:
        """A message whose lines are one line each, whatever a column or an error is called."""
        body = "\n".join(map(one_line, lines))
        return cls(one_line(title), body, frozenset(happened), frozenset(datasets))

    @property
    def kind(self) -> str:
        return next(kind for word, kind in _KINDS.items() if word in self.happened)

    @property
    def is_wanted(self) -> bool:
        """Whether ``[notify]`` asks for what happened, to the datasets it happened to."""
        wanted = settings.NotifySettings()
        return bool(self.happened & set(wanted.on.split(","))) and (
            not self.datasets or bool(self.datasets & set(wanted.datasets.split(",")))
        )


# -- the message about a run -------------------------------------------------------------------------


def message_of_run(outcome: RunOutcome, where: str = "") -> Message | None:
    """The message about a run that ended; None if nothing happened that anyone could want to know.

    ``where`` names its log.
    """
    failed, new, is_well = outcome.failures, outcome.new, outcome.is_well
    happened = {
        CRASHED: outcome.result == outcomes.CRASHED or any(month.was_killed for month in failed),
        FAILED: not is_well,
        COMPLETED: bool(new) and is_well,
        REPUBLISHED: bool(_republished(outcome)),
        SCHEMA_DRIFT: bool(_unknown_columns(outcome)),
        NOTHING_NEW: outcome.is_planned and not new and outcome.result == COMPLETE,
    }
    if not any(happened.values()):
        return None
    about = {month.dataset for month in (*failed, *_gaps(outcome), *new)}
    is_about_months = is_well or bool(failed or _gaps(outcome))
    headlines = ", ".join(_headlines(outcome))
    return Message.of(
        title=f"NYC trips: {headlines or 'nothing new'}",
        lines=[
            *_details(outcome),
            _whereabouts(outcome.run or journal.run_id(), outcome.host or socket.gethostname(), where),
        ],
        happened=(word for word, did in happened.items() if did),
        datasets=about if is_about_months else (),
    )


def _gaps(outcome: RunOutcome) -> list[MonthOutcome]:
    """The months for whose absence the run is not well."""
    return [] if outcome.result == COMPLETE else [month for month in outcome.having(MISSING) if month.month]


def _republished(outcome: RunOutcome) -> list[MonthOutcome]:
    return [month for month in outcome.new if month.is_republished]


def _unknown_columns(outcome: RunOutcome) -> dict[str, list[str]]:
    """Undeclared columns with the months loaded now that have them."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for month in outcome.new:
        for column in month.unknown_columns:
            found[column].append(month.title)
    return found


def _headlines(outcome: RunOutcome) -> Iterator[str]:
    failed, gaps, left = outcome.failures, _gaps(outcome), outcome.not_done
    if outcome.result == outcomes.STOPPED:
        yield "the run was stopped"
    elif not (outcome.is_well or failed or gaps or (left and outcome.result == outcomes.UNFINISHED)):
        yield "the run failed"
    # What waits for a month that failed is no news of its own.
    is_left = outcome.result in (outcomes.UNFINISHED, outcomes.STOPPED)
    for months, what in (
        (failed, "failed"),
        (gaps, "missing at the publisher"),
        (left if is_left else [], "not done"),
        *((months, state) for state, months in outcome.new_by_state.items()),
        (_republished(outcome), "republished"),
    ):
        if months:
            yield f"{_counted(month.title for month in months)} {what}"
    if drift := _unknown_columns(outcome):
        yield f"undeclared columns: {', '.join(list(drift)[:NAMED])}"


def _details(outcome: RunOutcome) -> Iterator[str]:
    if outcome.failure:
        yield f"Failed: {outcome.failure}"
    reasons = outcomes.by_reason(outcome.failures)
    for line in reasons[:NAMED]:
        yield f"Failed: {line}"
    if len(reasons) > NAMED:
        yield f"... and {len(reasons) - NAMED} more"
    for months, what in (
        ([month for month in outcome.having(MISSING) if month.month], "Missing at the publisher"),
        ([month for month in outcome.having(UNASKED) if month.month], "Could not be asked about"),
        (outcome.not_done, "Not done"),
    ):
        if months:
            yield f"{what}: {_listed(month.title for month in months)}"
    for state, months in outcome.new_by_state.items():
        rows, rejected = sum(month.rows or 0 for month in months), sum(sum(month.rejected.values()) for month in months)
        named = _listed(month.title for month in months)
        yield f"{state[:1].upper()}{state[1:]}: {named}; {rows:,} rows, {rejected:,} rejected"
    loaded, in_lake = _by_place(_republished(outcome))
    if loaded:
        yield f"Republished and loaded anew: {loaded}"
    if in_lake:
        yield f"Republished and in the lake anew: {in_lake}"
    for column, titles in _unknown_columns(outcome).items():
        yield f"Column {column} is not declared and was kept out: {_listed(titles)}"
    for number, text in (
        (outcome.complete_before, "complete before"),
        (sum(1 for month in outcome.having(NOT_YET) if month.month), NOT_YET),
    ):
        if number:
            yield f"{count(number)} {text}"


def message_of_killed(events: Events) -> Message:
    """The message about a run that has begun and can no longer end; ``events`` starts with its ``begun``."""
    outcome = outcomes.summarize(events, is_alive=False)
    begun, last = outcome.start or 0.0, max(event.get("at", 0.0) for event in events)
    at_work = outcome.having(outcomes.AT_WORK)
    loaded, in_lake = _by_place(outcome.new)
    lines = [
        f"Began {_time(begun)}, last heard of {_time(last)}: {shlex.join(outcome.command)}",
        *([f"At work on: {_listed(f'{month.stage} {month.title}' for month in at_work)}"] if at_work else []),
        *([f"Loaded before: {loaded}"] if loaded else []),
        *([f"In the lake before: {in_lake}"] if in_lake else []),
        "What was done is safe; the same command goes on where it stopped. Was the host out of memory, or shut down?",
        _whereabouts(outcome.run, outcome.host, ""),
    ]
    return Message.of(
        title=f"NYC trips: a run was killed on {outcome.host or 'an unknown host'}",
        lines=lines,
        happened=[CRASHED],
        datasets=(month.dataset for month in at_work),
    )


def _by_place(months: Iterable[MonthOutcome]) -> tuple[str, str]:
    """New months by name: those that this run loaded, and those that it put into the lake only."""
    found: tuple[list[str], list[str]] = [], []
    for month in months:
        found[month.loaded is None].append(month.title)
    return _listed(found[0]), _listed(found[1])


def _whereabouts(run: str, host: str, where: str) -> str:
    return f"Run {run} on {host}; log: {where or journal.folder() / f'{run}.log'}"


def _counted(names: Iterable[str]) -> str:
    """``2 months and zones``."""
    found = list(names)
    months = [name for name in found if " " in name]
    return " and ".join([*([count(len(months))] if months else []), *(name for name in found if " " not in name)])


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


# -- when it is sent -------------------------------------------------------------------------------


def notify_of_run(outcome: RunOutcome, where: str = "") -> Message | None:
    """Send the message about this run if it is wanted; see ``message_of_run``. Returns it. Never raises."""
    try:
        message = message_of_run(outcome, where)
        if message is not None and settings.NotifySettings().urls and message.is_wanted:
            send(message)
        return message
    except Exception as error:  # a receiver's library, anything: no reason for the run to fail
        LOGGER.warning("no notification could be made: %s: %s", type(error).__name__, error)
        return None


def notify_of_killed_runs() -> None:
    """Send a message about each run that was killed and not reported yet. Never raises."""
    try:
        if not settings.NotifySettings().urls:
            return
        for run in islice(journal_reader.killed(), KILLED):
            try:
                message = message_of_killed(run.events)
            except Exception as error:  # of another version, or written by somebody else
                LOGGER.warning("a run that was killed left a journal without sense: %s", type(error).__name__)
                run.reported()
                continue
            if not message.is_wanted or send(message):
                run.reported()
            else:
                return  # no address took it; the next run tries again
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
    for number, url in enumerate(parse_urls(settings.NotifySettings().urls), 1):
        service = apprise.Apprise.instantiate(url, asset=asset, suppress_exceptions=True)
        if service is None:
            raise UsageError(
                f"[notify] urls: address {number} is not one that Apprise understands; "
                "its notation for each service is at https://appriseit.com/services"
            )
        found.append((f"address {number} ({service.service_name})", service))
    if settings.NotifySettings().urls.strip() and not found:
        raise UsageError(
            "[notify] urls: no address in it; write such as json://host/path or mailto://user:password@host"
        )
    return found


def send(message: Message) -> bool:
    """Send to all addresses at once, and log those that did not take it. Whether at least one did."""
    problems = _send(message)
    for name, problem in problems.items():
        if problem:
            LOGGER.warning("notification not delivered to %s: %s", name, problem)
    return not all(problems.values())


def _send(message: Message) -> dict[str, str]:
    """What went wrong, by name of the address; empty for those that took the message."""
    from apprise import Apprise, AppriseAsset

    problems: dict[str, str] = {}
    threads = []
    for name, service in addresses():
        problems[name] = f"no answer within {SENDING_TIMEOUT:g} s"

        def deliver(name: str = name, service: Any = service) -> None:
            try:
                one = Apprise(service, asset=AppriseAsset(async_mode=False, service_timeout=0))
                taken = one.notify(body=message.body, title=message.title, notify_type=message.kind, body_format="text")
                problems[name] = "" if taken else "it did not take the message"
            except Exception as error:
                problems[name] = type(error).__name__

        # A daemon: Python does not wait for it at its end.
        threads.append(threading.Thread(target=deliver, name=f"notify {name}", daemon=True))
    for thread in threads:
        thread.start()
    give_up = time.monotonic() + SENDING_TIMEOUT
    for thread in threads:
        thread.join(max(0.0, give_up - time.monotonic()))
    return dict(problems)


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
        yield Check(f"notify {name}", True, f"understood; told of: {settings.NotifySettings().on}")


def send_test() -> Iterator[Check]:
    """Send a test message to each address, whatever ``[notify] on`` says. Nothing where none is configured."""
    if not settings.NotifySettings().urls.strip():
        yield Check("notify", False, "no address in [notify] urls", "set PIPELINE_NOTIFY_URLS")
        return
    message = Message.of(
        title="NYC trips: test message",
        lines=[f"Sent by `python -m pipeline doctor --notify` on {socket.gethostname()}, process {os.getpid()}."],
        happened=[NOTHING_NEW],
    )
    try:
        problems = _send(message)
    except UsageError as error:
        yield Check("notify", False, str(error), "correct it and try again")
        return
    for name, problem in problems.items():
        remedy = "correct the address, or look into the service's own log" if problem else ""
        yield Check(f"notify {name}", not problem, problem or "test message delivered", remedy)

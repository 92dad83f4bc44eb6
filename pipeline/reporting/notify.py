"""Notifications about runs, sent through Apprise: one per run, made from its outcome. They never fail the run.

``[notify] on`` lists what is reported. A message is sent if any of it happened, and describes the whole run. A run
that was killed is reported by the next one (``notify_of_killed_runs``).

Sending takes ``SENDING_TIMEOUT`` seconds at most, whatever the addresses do. An address is named by its position and
service only, because any part of its URL may be a secret.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from .. import settings
from ..doctor_check import Check
from ..errors import UsageError
from . import journal_reader
from .messages import NOTHING_NEW, Message, message_of_killed, message_of_run
from .outcomes import RunOutcome

LOGGER = logging.getLogger("pipeline")

#: Seconds after which a message that is still on its way is given up.
SENDING_TIMEOUT = 15.0

#: Most killed runs that one run reports; the next ones report the others.
KILLED = 20


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
                message = message_of_killed(run.events, run.heard)
            except Exception as error:  # of another version, or written by somebody else
                LOGGER.warning("the journal of a killed run cannot be read: %s", type(error).__name__)
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
        yield Check("[notify] urls", True, "no address: no notifications are sent")
    for name, _ in found:
        yield Check(f"notify {name}", True, f"understood; notified about: {settings.NotifySettings().on}")


def send_test() -> Iterator[Check]:
    """Send a test message to each address, whatever ``[notify] on`` says. Nothing where none is configured."""
    if not settings.NotifySettings().urls.strip():
        yield Check("[notify] urls", False, "no address", "set PIPELINE_NOTIFY_URLS")
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

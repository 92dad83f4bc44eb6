"""Unreachable servers: the first stage that fails notes it in the journal, and the other stages of the run give up.

A stage that fails asks whether the server answers anybody at all. If it does not, the run's journal says so, and the
other stages of the run, in whichever process, give up at once. As soon as one of them gets through, they go on.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .. import job, remote
from ..errors import (
    ConflictError,
    LakeError,
    MissingBucket,
    PipelineError,
    PublisherUnavailable,
    StorageUnavailable,
    TakenAway,
    TransientError,
    TruncatedFile,
    Unreachable,
    WarehouseUnavailable,
)
from ..reporting import journal, journal_reader
from ..retry import retrying
from ..storage import Store, open_store

#: Seconds between two questions to a server that did not answer, and the time-out of such a question.
ASK_INTERVAL, ASK_LIMIT = 60.0, 5.0


@dataclass(frozen=True)
class Server:
    """A publisher, lake, workspace or warehouse, by its label. After one of its ``errors`` it is asked ``question``.

    ``question`` raises a TransientError, MissingBucket or Unreachable where the server has no answer.
    """

    label: str
    errors: tuple[type[PipelineError], ...]
    question: Callable[[], object]

    def check(self) -> None:
        """Raise Unreachable if the journal says so; if that is older than ``ASK_INTERVAL``, ask the server again."""
        last = _last(self.label)
        if last is None or last["event"] == REACHABLE:
            return
        # A clock that was set back meanwhile must not keep everybody from asking.
        if abs(time.time() - last.get("at", 0.0)) < ASK_INTERVAL and last.get("message"):
            raise Unreachable(last["message"], is_repeated=True)
        with remote.interactive(ASK_LIMIT):
            self.ask()

    def diagnose(self, error: PipelineError) -> None:
        """Ask the server if it may have caused the error of a stage. Raises Unreachable if it does not answer."""
        is_of_another_run = isinstance(error, ConflictError | TakenAway)
        is_worth_asking = getattr(error, "at_once", True)
        if isinstance(error, self.errors) and is_worth_asking and not is_of_another_run:
            self.ask()

    def ask(self) -> None:
        """Raise Unreachable, and note it in the journal, if the server does not answer in the time of a plan."""
        try:
            with remote.planning():
                self.question()
        except (TransientError, MissingBucket, Unreachable) as error:
            last = _last(self.label)
            known = last.get("message") if last is not None and last["event"] == UNREACHABLE else None
            message = str(known or error)  # all months of a run say the same
            journal.record(UNREACHABLE, label=self.label, message=message)
            raise Unreachable(message, is_repeated=known is not None) from None
        self.has_answered()

    def has_answered(self) -> None:
        """Note in the journal that the server answers, if it says otherwise there."""
        last = _last(self.label)
        if last is not None and last["event"] == UNREACHABLE:
            journal.record(REACHABLE, label=self.label)


def of_publisher(label: str) -> Server:
    errors = (PublisherUnavailable, TruncatedFile)
    return Server(label, errors, lambda: job.open_publisher(label).check_reachable(job.retry_policy()))


def of_store(url: str) -> Server:
    def question() -> None:
        try:
            retrying(lambda: _use(open_store(url)), job.retry_policy())
        except (LakeError, ConflictError, FileNotFoundError) as error:
            if isinstance(error, MissingBucket):
                raise  # the others are answers

    return Server(url, (StorageUnavailable, MissingBucket), question)


def _use(store: Store) -> None:
    """Look, write, read and delete: a server may answer to some of these only."""
    store.stat("manifests")
    probe = f"doctor/{uuid.uuid4().hex}.txt"
    store.write(probe, b"is it there")
    store.read(probe)
    store.delete(probe)


def of_warehouse(label: str) -> Server:
    return Server(
        label, (WarehouseUnavailable,), lambda: retrying(job.open_warehouse(label).ledger, job.retry_policy())
    )


#: Events of the journal.
UNREACHABLE, REACHABLE = "unreachable", "reachable"


def _last(label: str) -> dict[str, Any] | None:
    """What the run's journal says last of a server. Most of its lines are about progress and are not parsed."""
    try:
        lines = journal_reader.contents().splitlines()
    except OSError:
        return None
    for line in reversed(lines):
        if b'{"event": "begun"' in line:
            return None
        if b'reachable"' in line:
            for event in journal_reader.parsed(line):
                if event["event"] in (UNREACHABLE, REACHABLE) and event.get("label") == label:
                    return event
    return None

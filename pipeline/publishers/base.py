"""Interface of every publisher, and what the three classes share: label, months offered, the checks of doctor."""

from __future__ import annotations

import abc
import datetime as dt
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from .. import datasets
from ..doctor_check import Check
from ..errors import MissingAtPublisher, NeverOffered, NoAnswer, UsageError
from ..partition import ZONES, Partition, add_months, format_month
from ..retry import DEFAULT, Policy, retrying
from .availability import Availability
from .catalog import Catalog, Layout
from .fetching import Fetched, IncomingFile, Progress
from .version import Version

#: What to do about a file that is not there: the end of messages.
LEAVE_OUT = "leave it out, or use another [publisher] name or url"

#: Months that ``check`` looks through for the newest one.
MONTHS_BACK = 12


@dataclass(frozen=True)
class Publisher(abc.ABC):
    """Who publishes the files, and at which address. Made by ``open_publisher``, which validates.

    ``base_url`` is the full address and may hold credentials; ``label`` and ``address`` never do.
    """

    catalog: Catalog
    base_url: str = field(repr=False)

    #: Whether asking costs nothing: the files lie on this machine or are made on it.
    is_local: ClassVar[bool]

    @classmethod
    @abc.abstractmethod
    def open(cls, catalog: Catalog, url: str) -> Publisher:
        """The publisher at ``url``, which is normalized. Raises UsageError for an address that cannot be right."""

    # -- what it is --------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """``tlc``, ``dtc`` or ``sample``."""
        return self.catalog.name

    @property
    def is_own_address(self) -> bool:
        """Whether the address is the publisher's own, not a mirror or a folder of the user's."""
        return self.base_url == self.catalog.address

    @property
    def public_url(self) -> str:
        """The base address without credentials."""
        return self.base_url

    @property
    def label(self) -> str:
        """The name, with the address if that was replaced, and without credentials: ``tlc=https://mirror/x``."""
        return self.name if self.is_own_address else f"{self.name}={self.public_url}"

    @property
    def layout(self) -> Layout:
        """Folders, names and format below the base address."""
        return self.catalog.layout

    @property
    def is_synthetic(self) -> bool:
        """Whether the months are made up."""
        return self.catalog.is_synthetic

    @property
    def needs_known_month(self) -> bool:
        """Whether a ``known_month`` is of use to ``version`` and ``fetch``."""
        return False

    @abc.abstractmethod
    def address(self, partition: Partition) -> str:
        """Address of a file without credentials, for messages, manifests and the ledger."""

    # -- which months it offers --------------------------------------------------------------------

    def months_offered(self, dataset: str) -> tuple[dt.date, dt.date | None]:
        """First and last month of a dataset; None as last where months still appear.

        A mirror or a folder may hold anything from the dataset's first month on. The last CSV month is the last
        wherever the layout of ``dtc`` is used.
        """
        first = datasets.get(dataset).first_month
        if first is None:
            raise UsageError(f"{dataset} has no months")
        return self._first_month(dataset, first), self.layout.last_month

    def _first_month(self, dataset: str, first: dt.date) -> dt.date:
        """The first month of a dataset whose first month anywhere is ``first``."""
        return self.catalog.first_months.get(dataset, first) if self.is_own_address else first

    def check_offered(self, partition: Partition) -> None:
        """Raise ``NeverOffered`` for a month before the dataset's or after the publisher's time."""
        dataset, month = partition
        if month is None and not datasets.get(dataset).is_monthly:
            return
        first, last = self.months_offered(dataset)
        if month is None:
            raise UsageError(f"{dataset} comes in months: name one")
        if month < first or (last is not None and month > last):
            until = f"to {format_month(last)}" if last else "on"
            raise NeverOffered(
                f"{partition} was never offered by {self.label}, which has it from {format_month(first)} {until}; "
                "ask for those months or another publisher ([publisher] name)"
            )

    # -- questions ---------------------------------------------------------------------------------

    @abc.abstractmethod
    def version(self, partition: Partition, policy: Policy = DEFAULT, known_month: dt.date | None = None) -> Version:
        """The version of a file that is published now.

        ``known_month`` is a month of the dataset that the publisher must have, such as the last one loaded from it.
        Raises ``MissingAtPublisher``, ``RefusedByPublisher`` and, after the tries of ``policy``, ``Throttled`` or
        ``PublisherUnavailable``.
        """

    def check_availability(
        self,
        dataset: str,
        months: Iterable[dt.date],
        policy: Policy = DEFAULT,
        *,
        known_month: dt.date | None = None,
        today: dt.date | None = None,
    ) -> Availability:
        """Sort months of a dataset into published, not yet published and missing, with as few requests as possible.

        ``known_month`` as for ``version``; months up to it are presumed published. Raises as ``version`` does,
        ``Unreachable`` instead of ``Throttled``, and ``RefusedByPublisher`` also where nothing at all is found at the
        address.
        """
        wanted = sorted(set(months))
        return self._availability(dataset, wanted, policy, known_month, today or dt.date.today())

    @abc.abstractmethod
    def _availability(
        self, dataset: str, wanted: Sequence[dt.date], policy: Policy, known_month: dt.date | None, today: dt.date
    ) -> Availability:
        """The same for months in order, each once."""

    def check_reachable(self, policy: Policy) -> None:  # noqa: B027  a sample is always there
        """Raise ``Unreachable`` or ``RefusedByPublisher`` if the publisher answers no request at all."""

    def check_has_files(self, policy: Policy) -> None:  # noqa: B027  only a web address can be wrong unnoticed
        """Raise ``RefusedByPublisher`` if neither the zone table nor any month is below the address."""

    def is_unchanged(self, partition: Partition, recorded: Version, sha256: str, current: Version) -> bool:
        """Whether the ``current`` version has the bytes of the ``recorded`` one, whose SHA-256 is known."""
        return recorded.same_as(current)

    def fetch(
        self,
        partition: Partition,
        target: Path,
        policy: Policy,
        *,
        known_month: dt.date | None = None,
        progress: Progress | None = None,
        on_silence: Callable[[NoAnswer], None] | None = None,
    ) -> Fetched:
        """Fetch a file to ``target``, replacing what is there. The folder of ``target`` belongs to this process alone.

        What the publisher has now is fetched, and its version returned. ``on_silence`` is called before another try
        where the publisher gave no answer, and may raise what ends the tries.

        Raises, after the tries of ``policy``: ``PublisherUnavailable`` or ``TruncatedFile`` when the transfer did not
        come to its end (what arrived stays only if it can be resumed); at once: ``MissingAtPublisher``,
        ``RefusedByPublisher``, ``WrongFormat`` for another format or a file that is damaged at the publisher,
        ``LakeError`` when the folder cannot be written. None of the latter leaves anything behind.
        """
        file_format = self.layout.format_of(partition.dataset)
        incoming = IncomingFile(partition, self.address(partition), target, file_format, progress, self.redact)

        def attempt() -> Fetched:
            try:
                return self._fetch_once(incoming, policy, known_month)
            except NoAnswer as error:
                if on_silence is not None:
                    on_silence(error)
                raise

        return retrying(attempt, policy)

    @abc.abstractmethod
    def _fetch_once(self, incoming: IncomingFile, policy: Policy, known_month: dt.date | None) -> Fetched:
        """One try to fetch a file; what an earlier try has brought may be there."""

    def redact(self, text: str) -> str:
        """The text with every credential of the base address replaced, for words that came from elsewhere."""
        return text

    # -- doctor ------------------------------------------------------------------------------------

    def check(self, names: Sequence[str], policy: Policy) -> Iterator[Check]:
        """Try what the pipeline will ask of the publisher about the datasets ``names``."""
        self.check_reachable(policy)
        try:
            self.version(ZONES, policy)
            yield Check(self.label, True, "answers, and has the zone table")
        except MissingAtPublisher:
            remedy = "check [publisher] url, if there should be one"
            yield Check(self.label, False, "answers, but has no zone table: it is left out", remedy, True)
        for name in names:
            last = self.months_offered(name)[1] or dt.date.today()
            months = [add_months(last, -back) for back in range(MONTHS_BACK + 1)]
            newest = self.check_availability(name, months, policy).newest
            if newest:
                yield Check(self.label, True, f"has {name} up to {format_month(newest)} at least")
                return
        if not policy.left():
            detail = f"did not answer within {policy.patience:g} s when it was asked for months"
            yield Check(self.label, False, detail, "check the network, or try again later", True)
            return
        detail = f"of {', '.join(names)} no month was found among the last {MONTHS_BACK}"
        yield Check(self.label, False, detail, "check that [publisher] name and url belong together", True)

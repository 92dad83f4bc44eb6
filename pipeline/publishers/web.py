"""A publisher on a web server, at its own address or at a mirror: ``https:`` and ``http:`` addresses."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from .. import datasets, remote, time_limits
from ..datasets import row_counts
from ..errors import (
    MissingAtPublisher,
    NoAnswer,
    PipelineError,
    PublisherUnavailable,
    RefusedByPublisher,
    Throttled,
    TransientError,
    Unreachable,
    UsageError,
)
from ..partition import ZONES, Partition, add_months, format_month
from ..retry import DEFAULT, Policy, retrying
from ..storage.base import without_secrets
from .availability import APPEARS_WITHIN, Availability, can_still_appear
from .base import LEAVE_OUT, Publisher
from .catalog import Catalog
from .fetching import Fetched, IncomingFile
from .version import Version
from .web_download import WebDownload

if TYPE_CHECKING:
    from ..http_client import Answer

#: How many months past the newest wanted one are tried, to tell a gap from a month that is not published yet.
MONTHS_AHEAD = APPEARS_WITHIN
#: How many months before the oldest wanted one are tried before an address is called wrong.
MONTHS_BEFORE = 12
#: Requests under way at once.
CONCURRENT = 6

#: A month that all datasets have in both layouts.
COMMON_MONTH = dt.date(2021, 7, 1)

#: Files that are asked for to see whether a publisher answers at all. Both layouts have them, but any answer will do.
KNOWN_FILES = (ZONES, Partition("yellow", COMMON_MONTH))

#: Characters of an address that servers take for sure.
LONGEST_ADDRESS = 2000

#: What one request for the version of a file found: None if the file is not there.
Found = Version | TransientError | None


class WebPublisher(Publisher):
    """Each question is an HTTP request. User, password and query string of the address count as credentials (a signed
    address has its signature in the query)."""

    is_local: ClassVar = False

    @classmethod
    def open(cls, catalog: Catalog, url: str) -> WebPublisher:
        if len(url) > LONGEST_ADDRESS:
            raise UsageError(f"[publisher] url: the address has {len(url):,} characters, more than {LONGEST_ADDRESS:,}")
        try:
            parts = urlsplit(url)
            has_host = (
                bool(parts.hostname) and _is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
            )
        except ValueError:
            has_host = False
        if not has_host or re.search(r"\s", url):
            raise UsageError(
                "[publisher] url: the address has no host that can be read; write it as https://host/folder"
            )
        return cls(catalog, urlunsplit((parts.scheme.lower(), parts.netloc, parts.path.rstrip("/"), parts.query, "")))

    # -- addresses ---------------------------------------------------------------------------------

    @property
    def public_url(self) -> str:
        return without_secrets(self.base_url)

    @property
    def needs_known_month(self) -> bool:
        return self.catalog.hides_absence

    def url(self, partition: Partition) -> str:
        """Full address of a file, credentials included: for requests, never for messages or records."""
        base = urlsplit(self.base_url)
        path = f"{base.path.rstrip('/')}/{self.layout.path(partition)}"
        return urlunsplit((base.scheme, base.netloc, path, base.query, ""))

    def address(self, partition: Partition) -> str:
        return without_secrets(self.url(partition))

    def redact(self, text: str) -> str:
        base = urlsplit(self.base_url)
        values = [base.password, base.query, *(value for _, value in parse_qsl(base.query))]
        for secret in sorted((value for value in values if value and len(value) > 3), key=len, reverse=True):
            for spelling in (secret, unquote(secret), quote(secret, safe="")):
                text = text.replace(spelling, "***")
        return text

    # -- requests ----------------------------------------------------------------------------------

    def request(
        self,
        method: str,
        partition: Partition,
        policy: Policy,
        headers: Mapping[str, str] | None = None,
        *,
        is_told: bool = True,
    ) -> Answer:
        """One request, whatever its status; see ``request_of_publisher``. A long wait is said if ``is_told``."""
        from .web_request import request_of_publisher

        whom = self._title if is_told else ""
        return request_of_publisher(method, self.url(partition), self.address(partition), policy, headers or {}, whom)

    @property
    def _title(self) -> str:
        """How a wait names the publisher."""
        return f"publisher {self.name} at {self.public_url}"

    def error_of(self, partition: Partition, status: int, headers: Mapping[str, str]) -> PipelineError | None:
        """What a status means, as the error to raise; None for success.

        A 403 where absence is hidden comes back as ``Throttled``, which is half of the truth: see
        ``_throttled_or_missing``.
        """
        if 200 <= status < 300:
            return None
        answered = f"{partition}: {self.address(partition)} answered {status}"
        wait = remote.seconds_asked_for(headers)
        if status in (429, 503) or self._is_ambiguous(status):
            when = "later" if wait is None else f"in {wait:.0f} s"
            return Throttled(f"{answered}: too many requests or overload; try again {when}", wait)
        if status >= 500 or status in (408, 425):
            return PublisherUnavailable(f"{answered}: server error; try again later", wait)
        if status == 404:
            return MissingAtPublisher(f"{answered}: it is not there; {LEAVE_OUT}")
        if status in (401, 403, 407):
            return RefusedByPublisher(f"{answered}: not allowed; check the credentials in [publisher] url")
        return RefusedByPublisher(f"{answered}: it refuses this file; check [publisher] url")

    def _is_ambiguous(self, status: int) -> bool:
        """Whether a status may stand for an absent file or for too many requests."""
        return status == 403 and self.catalog.hides_absence

    def _throttled_or_missing(self, partition: Partition, known_month: dt.date | None, policy: Policy) -> PipelineError:
        """What an ambiguous 403 for a file means.

        Requests files that must exist: ``known_month`` of the dataset, then the zone table. If one is served, the file
        asked for is missing; if all are refused too, that is throttling. A store that answers 404 for one of them does
        so for all that is absent, and means its 403.
        """
        answered = f"{partition}: {self.address(partition)} answered 403"
        known = [partition._replace(month=known_month)] if known_month else []
        statuses = []
        for file in [*known, ZONES]:
            if file.month == partition.month:
                continue
            with self.request("HEAD", file, policy) as answer:
                error = self.error_of(file, answer.status_code, answer.headers)
            if error is None:
                return MissingAtPublisher(f"{answered}, though other files are served: it is not there; {LEAVE_OUT}")
            if answer.status_code not in (403, 404):
                return error
            statuses.append(answer.status_code)
        if 404 in statuses:
            return RefusedByPublisher(f"{answered}: not allowed; check [publisher] url and its credentials")
        return Throttled(f"{answered}, and so do files that must exist: too many requests; try again later")

    # -- is it reachable ---------------------------------------------------------------------------

    def check_reachable(self, policy: Policy) -> None:
        """As declared. One HEAD where the server answers, be it that the file is not there.

        Where it does not: the tries of ``policy``, and no more than its ``patience`` in all, however many addresses its
        name has.
        """
        policy = replace(policy, timeout=min(policy.timeout, policy.patience / len(KNOWN_FILES)))
        try:
            with time_limits.for_answer(self._title, policy.patience):
                retrying(lambda: self._request_known_files(policy), policy, say=lambda text: False)
        except TransientError as error:
            raise self._unreachable(str(error)) from None

    def _request_known_files(self, policy: Policy) -> None:
        """Raise ``PublisherUnavailable`` with the cause alone unless the publisher answers for one of the files."""
        for file in KNOWN_FILES:
            try:
                with self.request("HEAD", file, policy, is_told=False) as answer:
                    error = self.error_of(file, answer.status_code, answer.headers)
            except NoAnswer as silence:
                cause = str(silence).removeprefix(f"{self.address(file)}: ").partition("; ")[0]
                trouble = PublisherUnavailable(cause)
                continue
            if not isinstance(error, TransientError) or answer.status_code in (403, 501):  # 501: it knows no HEAD
                return
            trouble = PublisherUnavailable(f"it answers {answer.status_code} to everything", error.retry_after)
        raise trouble

    def _unreachable(self, cause: str) -> Unreachable:
        return Unreachable(
            f"publisher {self.name} cannot be reached at {self.public_url}: {cause}; "
            "check the network and [publisher] url, or try again later"
        )

    def check_has_files(self, policy: Policy) -> None:
        if self.is_own_address:
            return
        statuses = set()
        for file in (ZONES, *(Partition(name, COMMON_MONTH) for name in datasets.MONTHLY)):
            try:
                with self.request("HEAD", file, policy) as answer:
                    statuses.add(answer.status_code)
            except NoAnswer:
                return  # about this file: the publisher was reached before
        if 404 in statuses and statuses <= {403, 404}:
            raise self._nothing_there(f"months of {format_month(COMMON_MONTH)}")

    def _nothing_there(self, months: str) -> RefusedByPublisher:
        return RefusedByPublisher(
            f"[publisher] url: neither {months} nor the zone table are below {self.public_url}; correct the setting"
        )

    # -- versions ----------------------------------------------------------------------------------

    def version(self, partition: Partition, policy: Policy = DEFAULT, known_month: dt.date | None = None) -> Version:
        version = self._versions([partition], known_month, policy)[partition]
        if isinstance(version, TransientError):
            raise version
        if version is None:
            raise MissingAtPublisher(f"{partition}: {self.address(partition)} is not there; {LEAVE_OUT}")
        return version

    def _versions(
        self, partitions: Sequence[Partition], known_month: dt.date | None, policy: Policy
    ) -> dict[Partition, Found]:
        """Versions of several files; one HEAD each and one check of the known files for all their 403s.

        What remains of trouble with one of them after the tries of ``policy`` stands in its place.
        """
        from concurrent.futures import ThreadPoolExecutor

        found: dict[Partition, Found] = {}

        def attempt() -> None:
            left = [each for each in partitions if each not in found or isinstance(found[each], TransientError)]
            with ThreadPoolExecutor(min(CONCURRENT, len(left))) as pool:
                answers = dict(zip(left, pool.map(lambda each: self._head(each, policy), left), strict=True))
            ambiguous = None
            for partition, answer in answers.items():
                if isinstance(answer, NoAnswer):
                    found[partition] = answer
                    continue
                status, headers = answer
                error = self.error_of(partition, status, headers)
                if self._is_ambiguous(status):
                    # The check comes after all of them: if it passes now, none of them was throttled.
                    ambiguous = ambiguous or self._throttled_or_missing(partition, known_month, policy)
                    error = ambiguous
                if isinstance(error, TransientError) and error is not ambiguous:
                    found[partition] = error
                elif error is not None and not isinstance(error, MissingAtPublisher):
                    raise error
                else:
                    found[partition] = None if error else Version.from_headers(headers)
            for partition in left:
                if isinstance(trouble := found[partition], TransientError):
                    raise trouble

        try:
            retrying(attempt, policy)
        except TransientError as error:
            if error not in found.values():
                raise  # not about a single file
        return found

    def _head(self, partition: Partition, policy: Policy) -> tuple[int, Mapping[str, str]] | NoAnswer:
        """Status and headers of a file, or the error of a request that got no answer."""
        try:
            with self.request("HEAD", partition, policy) as answer:
                if answer.status_code not in (405, 501):
                    return answer.status_code, answer.headers
            # A server that knows no HEAD: begin a GET, and read nothing of the body.
            with self.request("GET", partition, policy) as answer:
                return answer.status_code, answer.headers
        except NoAnswer as error:
            return error

    # -- availability ------------------------------------------------------------------------------

    def _availability(
        self, dataset: str, wanted: Sequence[dt.date], policy: Policy, known_month: dt.date | None, today: dt.date
    ) -> Availability:
        """As declared. A closed archive is presumed to have what lies within its time.

        Elsewhere HEADs go back from the newest wanted month to the first that exists; all before it are presumed
        published, and the download finds out about gaps. If the newest wanted month is absent and may still appear,
        the ``MONTHS_AHEAD`` months after it are tried too: where one of those exists, the absent one is a gap. A month
        that the publisher has trouble with, while it answers otherwise, is presumed published too.

        Months up to ``known_month``, and up to the newest whose rows TLC has counted, are presumed published.
        """
        _, last = self.months_offered(dataset)
        if self.catalog.is_closed and self.is_own_address:
            return Availability.of(wanted, (), last, today)
        try:
            found, presumed = self._search(dataset, wanted, policy, known_month, today)
        except Throttled:
            raise self._unreachable("it refuses files that must exist: too many requests") from None
        absent = {month for month, version in found.items() if version is None}
        seen = [month for month, version in found.items() if isinstance(version, Version)]
        return Availability.of(wanted, absent, max([*seen, *presumed], default=None), today)

    def _search(
        self, dataset: str, wanted: Sequence[dt.date], policy: Policy, known_month: dt.date | None, today: dt.date
    ) -> tuple[dict[dt.date, Found], list[dt.date]]:
        """Months that were asked for on the way to the newest one, and the newest that is presumed there, if any."""
        counted = row_counts.newest_month(self.name, dataset) if self.is_own_address else None
        presumed = max((month for month in (counted, known_month) if month), default=None)
        newest_possible = min(today.replace(day=1), self.layout.last_month or dt.date.max)

        def versions(months: Sequence[dt.date]) -> dict[dt.date, Found]:
            if not months:
                return {}
            partitions = [Partition(dataset, month) for month in months]
            answers = self._versions(partitions, known_month or presumed, policy)
            return {month: answers[partition] for month, partition in zip(months, partitions, strict=True)}

        found: dict[dt.date, Found] = {}
        for window in _windows([month for month in reversed(wanted) if presumed is None or month > presumed]):
            found |= versions(window)
            if any(found.values()):
                break
        if wanted and wanted[-1] in found and found[wanted[-1]] is None and can_still_appear(wanted[-1], today):
            ahead = [add_months(wanted[-1], step) for step in range(1, MONTHS_AHEAD + 1)]
            found |= versions([month for month in ahead if month <= newest_possible])
        if found and presumed is None and not any(found.values()):
            # Nothing so far. A wrong address must not pass for "not yet published", so something has to be there.
            with_zones = self._versions([ZONES], None, policy)[ZONES]
            if not with_zones:
                found |= versions([add_months(wanted[0], -step) for step in range(1, MONTHS_BEFORE + 1)])
            if not with_zones and not any(found.values()):
                raise self._nothing_there(f"{dataset} months around {format_month(wanted[0])}")
        return found, [presumed] if presumed else []

    # -- fetching ----------------------------------------------------------------------------------

    def _fetch_once(self, incoming: IncomingFile, policy: Policy, known_month: dt.date | None) -> Fetched:
        """As declared. A broken transfer is resumed; the zone table, which has no checksum, is fetched twice."""

        def get(headers: Mapping[str, str]) -> Answer:
            answer = self.request("GET", incoming.partition, policy, headers)
            error = self.error_of(incoming.partition, answer.status_code, answer.headers)
            if error is None or (answer.status_code == 416 and "Range" in headers):
                return answer
            with answer:
                if self._is_ambiguous(answer.status_code):
                    error = self._throttled_or_missing(incoming.partition, known_month, policy)
                raise error

        return WebDownload(incoming, get, policy).attempt()


def _is_host(name: str) -> bool:
    """Whether a name can be looked up at all; a mistake is refused before anything waits for an answer."""
    if ":" in name:  # urlsplit has read the brackets of an address of IPv6
        return True
    try:
        name.rstrip(".").encode("idna")  # refuses labels that are empty or too long
    except UnicodeError:
        return False
    return len(name) <= 253 and re.fullmatch(r"[\w.-]+", name) is not None


def _windows(months: Sequence[dt.date]) -> Iterator[Sequence[dt.date]]:
    """The months in order, in growing groups: mostly the first one decides, but a long absence should not take long."""
    size = 1
    while months:
        yield months[:size]
        months, size = months[size:], min(2 * size, 2 * CONCURRENT)

"""What publishers there are, at which address each file is, and what an answer of theirs means.

Three publishers offer the same datasets: ``tlc`` (official Parquet), ``dtc`` (the closed CSV archive of DataTalksClub)
and ``sample`` (made on this machine). ``[publisher] url`` puts a mirror or a folder in the place of the publisher's own
address; the layout below it stays. Fetching a file is the business of ``transfer``; here are only cheap questions.
"""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

from .. import datasets, remote, waiting
from ..errors import (
    MissingAtPublisher,
    NeverOffered,
    NoAnswer,
    PipelineError,
    PublisherUnavailable,
    RefusedByPublisher,
    Throttled,
    TransientError,
    Unreachable,
    UsageError,
)
from ..files import refuse_long
from ..partition import Partition
from ..retry import Policy, retrying

if TYPE_CHECKING:
    from ..web import Answer

Month = dt.date

#: The publishers' own addresses; ``[publisher] url`` replaces them.
ADDRESSES = {
    "tlc": "https://d37ci6vzurychx.cloudfront.net",
    "dtc": "https://github.com/DataTalksClub/nyc-tlc-data/releases/download",
    "sample": "sample:?rows=20000&seed=1",
}

#: TLC put no earlier green month into Parquet; the five before it exist as CSV only.
TLC_FIRST = {"green": dt.date(2014, 1, 1)}

#: What the archive at the dtc address holds. Its last month is also the last that TLC published as CSV, so that
#: no folder or mirror in this layout can have a later one; it may have earlier ones, back to the dataset's first.
DTC_FIRST = {
    "yellow": dt.date(2019, 1, 1),
    "green": dt.date(2019, 1, 1),
    "fhv": dt.date(2019, 1, 1),
    "fhvhv": dt.date(2021, 1, 1),
}
DTC_LAST = dt.date(2021, 7, 1)

#: How many months after its end an absent month counts as not yet published. TLC publishes a month some two to three
#: months after its end, so half a year leaves room; what is absent for longer is a gap, whoever the publisher is.
APPEARS_WITHIN = 6
#: How many months past the newest asked one are tried, to tell a gap from a month that is not published yet.
LOOK_AHEAD = APPEARS_WITHIN
#: How many months before the oldest asked one are tried before an address is called wrong.
LOOK_BACK = 12
#: Requests under way at once.
CONCURRENT = 6

#: Files that are asked for to see whether a publisher answers at all. Both layouts have them, but any answer will do.
WITNESSES: tuple[tuple[str, Month | None], ...] = (("zones", None), ("yellow", DTC_LAST))

#: What to do about a file that is not there: the end of messages.
LEAVE_OUT = "leave it out, or use another [publisher] name or url"

#: Seconds for an answer, above which it counts against the patience although it came.
SLOW = 2.0

#: Characters of an address that servers take for sure.
LONGEST_ADDRESS = 2000

USER_AGENT = "nyc-trips-pipeline (Luigi pipeline for the NYC TLC trip records)"


# -- publishers ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Publisher:
    """Who publishes the files, and at which address. Made by ``get``, which validates.

    ``base_url`` is the full address and may hold credentials; ``label`` and ``address`` never do.
    """

    name: str
    base_url: str = field(repr=False)

    @property
    def scheme(self) -> str:
        """``https``, ``http``, ``file`` or ``sample``."""
        return urlsplit(self.base_url).scheme

    @property
    def is_own_address(self) -> bool:
        """Whether the address is the publisher's own, not a mirror or a folder of the user's."""
        return self.base_url == ADDRESSES[self.name]

    @property
    def is_local(self) -> bool:
        """Whether asking costs nothing: the files lie on this machine or are made on it."""
        return self.scheme in ("file", "sample")

    @property
    def hides_absence(self) -> bool:
        """Whether a 403 may stand for an absent file: so answers the store of ``tlc``, and maybe its mirrors."""
        return self.name == "tlc"

    @property
    def is_synthetic(self) -> bool:
        """Whether the months are made up: by ``sample``, or lying in a folder that was marked as such."""
        from .sample.generator import README

        return self.name == "sample" or (self.scheme == "file" and (self.folder / README).exists())

    @property
    def label(self) -> str:
        """The name, with the address if that was replaced, and without credentials: ``tlc=https://mirror/x``.

        User, password and query string count as credentials (a signed address has its signature in the query).
        """
        return self.name if self.is_own_address else f"{self.name}={_without_credentials(self.base_url)}"

    @property
    def layout(self) -> str:
        """Whose folders and formats are used below the base address: ``tlc`` or ``dtc``."""
        if self.name == "sample":
            return dict(parse_qsl(urlsplit(self.base_url).query)).get("layout", "tlc")
        return self.name

    @property
    def format(self) -> str:
        """Format of the monthly files: ``parquet`` or ``csv.gz``."""
        return "csv.gz" if self.layout == "dtc" else "parquet"

    def file_format(self, dataset: str) -> str:
        """Format of the files of a dataset; the zone table is a plain ``csv`` everywhere."""
        return self.format if datasets.get(dataset).is_monthly else "csv"

    def file_name(self, dataset: str, month: Month | None = None) -> str:
        """Name of the file, without folders."""
        if month is None:
            return "taxi_zone_lookup.csv"
        return f"{dataset}_tripdata_{month:%Y-%m}.{self.format}"

    def months_folder(self, dataset: str) -> str:
        """Folder of the monthly files of a dataset, below the base address."""
        return dataset if self.layout == "dtc" else "trip-data"

    def file_path(self, dataset: str, month: Month | None = None) -> str:
        """Path of a file, below the base address; ``month`` None stands for the zone table."""
        folder = "misc" if month is None else self.months_folder(dataset)
        return f"{folder}/{self.file_name(dataset, month)}"

    def url(self, dataset: str, month: Month | None = None) -> str:
        """Full address of a file, credentials included: for requests, never for messages or records.

        ``month`` is the first day of the file's month, and None for the zone table.
        """
        base = urlsplit(self.base_url)
        path = f"{base.path.rstrip('/')}/{self.file_path(dataset, month)}"
        if self.is_local:  # urlunsplit would write file:///x, labels and lakes say file:/x
            return f"{base.scheme}:{path}" + (f"?{base.query}" if base.query else "")
        return urlunsplit((base.scheme, base.netloc, path, base.query, ""))

    def address(self, dataset: str, month: Month | None = None) -> str:
        """Address of a file without credentials, for messages, manifests and the ledger."""
        return _without_credentials(self.url(dataset, month))

    def path(self, dataset: str, month: Month | None = None) -> Path:
        """Path of a file of a ``file:`` publisher."""
        return self.folder / self.file_path(dataset, month)

    @cached_property
    def folder(self) -> Path:
        """Base folder of a ``file:`` publisher."""
        if self.scheme != "file":
            raise ValueError(f"{self.label} is not a folder")
        return Path(unquote(urlsplit(self.base_url).path))

    @cached_property
    def sample_options(self) -> dict[str, Any]:
        """What a ``sample:`` address asks for: ``rows`` per month, ``seed``, ``layout``."""
        options = dict(parse_qsl(urlsplit(self.base_url).query))
        return {"rows": int(options["rows"]), "seed": int(options["seed"]), "layout": self.layout}

    def months_offered(self, dataset: str) -> tuple[Month, Month | None]:
        """First and last month of a dataset; None as last where months still appear.

        A mirror or a folder may hold anything from the dataset's first month on. The last CSV month is the last
        wherever the ``dtc`` layout is used.
        """
        first = datasets.get(dataset).first_month
        if first is None:
            raise UsageError(f"{dataset} has no months")
        if self.name == "dtc" and self.is_own_address:
            first = DTC_FIRST[dataset]
        elif self.layout == "tlc" and (self.is_own_address or self.scheme == "sample"):
            first = TLC_FIRST.get(dataset, first)
        return first, DTC_LAST if self.layout == "dtc" else None

    def check_offered(self, dataset: str, month: Month | None) -> None:
        """Raise ``NeverOffered`` for a month before the dataset's or after the publisher's time."""
        if month is None and not datasets.get(dataset).is_monthly:
            return
        first, last = self.months_offered(dataset)
        if month is None:
            raise UsageError(f"{dataset} comes in months: name one")
        if month < first or (last is not None and month > last):
            until = f"to {last:%Y-%m}" if last else "on"
            raise NeverOffered(
                f"{dataset} {month:%Y-%m} was never offered by {self.label}, which has it from {first:%Y-%m} {until}; "
                "ask for those months or another publisher ([publisher] name)"
            )

    def redact(self, text: str) -> str:
        """The text with every credential of the base address replaced, for words that came from elsewhere."""
        base = urlsplit(self.base_url)
        values = [] if self.is_local else [base.password, base.query, *(value for _, value in parse_qsl(base.query))]
        for secret in sorted((value for value in values if value and len(value) > 3), key=len, reverse=True):
            for spelling in (secret, unquote(secret), quote(secret, safe="")):
                text = text.replace(spelling, "***")
        return text


def get(name: str, url: str = "") -> Publisher:
    """The publisher of that name, at its own address or at ``url``.

    ``url`` is ``https:``, ``http:`` or ``file:`` (``file:relative`` to the current directory, ``file:/absolute``,
    ``file:///absolute``, percent-encoded), or for ``sample`` also ``sample:?rows=20000&seed=1`` with any of the keys
    ``rows`` (per month), ``seed`` and ``layout`` (``tlc`` or ``dtc``). ``UsageError`` for everything else.
    """
    if name not in ADDRESSES:
        raise UsageError(f"[publisher] name: {name!r} is none of {', '.join(ADDRESSES)}")
    url = url.strip() or ADDRESSES[name]
    scheme = url.partition(":")[0].lower() if ":" in url else ""
    if scheme == "file":
        return Publisher(name, _file_base(url))
    if scheme == "sample" and name == "sample":
        return Publisher(name, _sample_base(url))
    if scheme in ("http", "https"):
        return Publisher(name, _web_base(url))
    if scheme == "sample":
        raise UsageError(f"[publisher] url: a sample: address goes with the name sample, not {name}")
    shown = _without_credentials(url)
    raise UsageError(f"[publisher] url: {shown!r} must begin with https:, http: or file: (a folder is file:{shown})")


def from_label(label: str, reveal: Iterable[str] | None = None) -> Publisher:
    """The publisher of a label. A label holds no credentials: ``reveal`` lists full addresses that may be meant."""
    name, _, shown = label.partition("=")
    for url in reveal or ():
        publisher = get(name, url)
        if publisher.label == label:
            return publisher
    return get(name, shown)


def _web_base(url: str) -> str:
    if len(url) > LONGEST_ADDRESS:
        raise UsageError(f"[publisher] url: the address has {len(url):,} characters, more than {LONGEST_ADDRESS:,}")
    try:
        parts = urlsplit(url)
        has_host = bool(parts.hostname) and _is_host(parts.hostname or "") and (parts.port is None or parts.port > 0)
    except ValueError:
        has_host = False
    if not has_host or re.search(r"\s", url):
        raise UsageError("[publisher] url: the address has no host that can be read; write it as https://host/folder")
    return urlunsplit((parts.scheme.lower(), parts.netloc, parts.path.rstrip("/"), parts.query, ""))


def _is_host(name: str) -> bool:
    """Whether a name can be looked up at all; a mistake is refused before anything waits for an answer."""
    if ":" in name:  # urlsplit has read the brackets of an address of IPv6
        return True
    try:
        name.rstrip(".").encode("idna")  # refuses labels that are empty or too long
    except UnicodeError:
        return False
    return len(name) <= 253 and re.fullmatch(r"[\w.-]+", name) is not None


def _file_base(url: str) -> str:
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        host, slash, rest = rest[2:].partition("/")
        rest = slash + rest
        if host not in ("", "localhost"):
            raise UsageError(f"[publisher] url: {url!r} names the host {host!r}; write file:/absolute or file:relative")
    if not rest or "\0" in unquote(rest):
        raise UsageError(f"[publisher] url: {url!r} names no folder; write file:/absolute or file:relative")
    refuse_long(os.path.abspath(unquote(rest)), "[publisher] url: file:")
    return "file:" + quote(os.path.abspath(unquote(rest)))


def _sample_base(url: str) -> str:
    problem = f"[publisher] url: {url!r} must be like sample:?rows=20000&seed=1 (also layout=tlc or layout=dtc)"
    parts = urlsplit(url)
    try:
        pairs = parse_qsl(parts.query, strict_parsing=True) if parts.query else []
    except ValueError:
        raise UsageError(problem) from None
    options = {"rows": "20000", "seed": "1", "layout": "tlc"}
    given = dict(pairs)
    if parts.netloc or parts.path or parts.fragment or len(given) != len(pairs) or not given.keys() <= options.keys():
        raise UsageError(problem)
    options |= given
    if not all(re.fullmatch(r"[0-9]{1,9}", options[key]) for key in ("rows", "seed")):
        raise UsageError(problem + "; rows and seed are whole numbers")
    if options["layout"] not in ("tlc", "dtc"):
        raise UsageError(problem)
    layout = "" if options["layout"] == "tlc" else f"&layout={options['layout']}"
    return f"sample:?rows={int(options['rows'])}&seed={int(options['seed'])}{layout}"


def _without_credentials(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme in ("file", "sample"):
        return url
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


# -- versions --------------------------------------------------------------------------------------


def _sane(header: str | None) -> str | None:
    """The value of a header; None for one that could not be sent back, or that PostgreSQL has no text for."""
    text = (header or "").strip()
    return text if text and text.isprintable() and len(text) <= 1_000 else None


@dataclass(frozen=True)
class Version:
    """What tells two publications of one file apart without reading it. Every part may be unknown.

    ``etag`` is as sent, quotes and ``W/`` included; of a local file ``<size>-<mtime in ns>``, of a sample what it is
    made from, both unquoted. ``length`` in bytes. ``last_modified`` is for reading only: it changes without the data.
    """

    etag: str | None = None
    length: int | None = None
    last_modified: str | None = None

    @property
    def is_strong(self) -> bool:
        """Whether the ETag promises the same bytes, so that a broken transfer may be resumed."""
        return self.etag is not None and self.etag.startswith('"')

    @property
    def fingerprint(self) -> str:
        """ETag and length as one text, equal for equal publications; empty when neither is known.

        A weak ETag counts as its strong twin: a server or proxy may send either for the same bytes. The unquoted
        tags of local files and samples say all by themselves.
        """
        etag = (self.etag or "").removeprefix("W/")
        if etag and not etag.startswith('"'):
            return etag
        return f"{etag} {'' if self.length is None else self.length}".strip()

    def same_as(self, other: Version) -> bool:
        """Whether nothing that both versions know differs, and something that both know agrees."""
        if self.fingerprint == other.fingerprint:
            return self.fingerprint != ""
        mine, theirs = ((v.etag or "").removeprefix("W/") or None for v in (self, other))
        known = [(a, b) for a, b in ((mine, theirs), (self.length, other.length)) if None not in (a, b)]
        return bool(known) and all(a == b for a, b in known)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Version:
        return cls(values.get("etag"), values.get("length"), values.get("last_modified"))

    @classmethod
    def from_headers(cls, headers: Mapping[str, str]) -> Version:
        """Of an answer; for a part of a file (``Content-Range``) the length is that of the whole."""
        length = headers.get("Content-Length", "")
        if "Content-Range" in headers:
            length = headers["Content-Range"].rpartition("/")[2]
        if headers.get("Content-Encoding", "identity") != "identity":
            length = ""  # of what is on the wire, not of the file
        return cls(
            etag=_sane(headers.get("ETag")),
            length=int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None,
            last_modified=_sane(headers.get("Last-Modified")),
        )

    @classmethod
    def from_stat(cls, stat: os.stat_result) -> Version:
        modified = dt.datetime.fromtimestamp(stat.st_mtime, dt.UTC).isoformat(timespec="seconds")
        return cls(f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size, modified)


# -- answers ---------------------------------------------------------------------------------------


def ask(
    method: str,
    publisher: Publisher,
    dataset: str,
    month: Month | None,
    policy: Policy,
    headers: Mapping[str, str] | None = None,
    *,
    is_told: bool = True,
) -> Answer:
    """One request, whatever its status; the body is not read yet. The caller closes the answer.

    A long wait is said if ``is_told``. Proxies and certificates as in ``requests``. Raises ``NoAnswer`` where none
    comes in time, ``RefusedByPublisher`` where none can come, never with the text of the library, which repeats the
    address with its credentials.
    """
    import requests
    import urllib3

    from .. import web

    place = publisher.address(dataset, month)
    limit = min(policy.timeout, policy.left())
    limit = round(limit, 1 if limit > 1 else 2)
    if limit <= 0:
        raise NoAnswer(f"{place}: no answer within {policy.patience:g} s; try again later")
    # Identity: lengths and bytes are those of the file, never of a compression on the way.
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **(headers or {})}
    begun = time.monotonic()
    has_failed = True
    try:
        answer = web.ask(method, publisher.url(dataset, month), sent, limit, _whom(publisher) if is_told else "")
        has_failed = False
        return answer
    except (TimeoutError, requests.Timeout):
        raise NoAnswer(f"{place}: no answer within {limit:g} s; try again later") from None
    except web.WrongRedirect as error:
        raise RefusedByPublisher(f"{place} {error}; check [publisher] url") from None
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
        UnicodeError,
    ):
        raise UsageError(f"{place} is no address that can be asked; check [publisher] url{_and_proxy(place)}") from None
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            text = "its certificate cannot be verified; name the authority's file in REQUESTS_CA_BUNDLE"
            raise RefusedByPublisher(f"{place}: {text}") from None
        raise NoAnswer(f"{place}: the TLS connection failed; try again later") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        _check_authorities()
        raise NoAnswer(f"{place}: {_root_cause(error)}; check the network, or try again later") from None
    finally:
        policy.spent.add(begun + (0.0 if has_failed else SLOW), time.monotonic())


def _and_proxy(place: str) -> str:
    """What else to check about an address that requests cannot ask."""
    import requests

    return ", and the proxy that the environment names" if requests.utils.get_environ_proxies(place) else ""


def _check_authorities() -> None:
    """Raise UsageError if the environment names a file of certificates that is not there."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := os.environ.get(name)) and not os.path.exists(path):
            raise UsageError(f"environment variable {name}: there is no file {path}; correct it, or unset it") from None


def _root_cause(error: BaseException) -> str:
    """What the operating system said, or else the class of the innermost error: neither repeats the address."""
    seen: list[BaseException] = [error]
    for link in seen:
        inner = [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
        seen.extend(item for item in inner if isinstance(item, BaseException) and item not in seen)
    said = [item.strerror for item in seen if isinstance(item, OSError) and isinstance(item.strerror, str)]
    return f"connection failed ({said[-1] if said else type(seen[-1]).__name__})"


def refusal(
    publisher: Publisher, dataset: str, month: Month | None, status: int, headers: Mapping[str, str]
) -> PipelineError | None:
    """What a status means, as the error to raise; None for success.

    A 403 of the ``tlc`` layout comes back as ``Throttled`` here, which is half of the truth: see ``refused_or_absent``.
    """
    if 200 <= status < 300:
        return None
    place = f"{describe(dataset, month)}: {publisher.address(dataset, month)} answered {status}"
    wait = remote.seconds_asked_for(headers)
    if status in (429, 503) or (status == 403 and publisher.hides_absence):
        when = "later" if wait is None else f"in {wait:.0f} s"
        return Throttled(f"{place}: too many requests or overload; try again {when}", wait)
    if status >= 500 or status in (408, 425):
        return PublisherUnavailable(f"{place}: trouble at the publisher; try again later", wait)
    if status == 404:
        return MissingAtPublisher(f"{place}: it is not there; {LEAVE_OUT}")
    if status in (401, 403, 407):
        return RefusedByPublisher(f"{place}: not allowed; check the credentials in [publisher] url")
    return RefusedByPublisher(f"{place}: it does not give this file; check [publisher] url")


def refused_or_absent(
    publisher: Publisher,
    dataset: str,
    month: Month | None,
    probe: Month | None,
    policy: Policy,
) -> PipelineError:
    """What a 403 of ``tlc`` means: its store answers 403 both for absent files and for too many requests.

    Asks for files that must exist: ``probe`` (the dataset's last loaded month), then the zone table. If one is there,
    the file asked for is missing; if all are refused too, that is throttling. A store that answers 404 for one of them
    does so for all that is absent, and means its 403.
    """
    place = f"{describe(dataset, month)}: {publisher.address(dataset, month)} answered 403"
    known: list[Month | None] = [item for item in (probe, None) if item != month]
    statuses = []
    for witness in known:
        with ask("HEAD", publisher, dataset if witness else "zones", witness, policy) as answer:
            error = refusal(publisher, dataset if witness else "zones", witness, answer.status_code, answer.headers)
        if error is None:
            return MissingAtPublisher(f"{place}, though other files are served: it is not there; {LEAVE_OUT}")
        if answer.status_code not in (403, 404):
            return error
        statuses.append(answer.status_code)
    if 404 in statuses:
        return RefusedByPublisher(f"{place}: not allowed; check [publisher] url and its credentials")
    return Throttled(f"{place}, and so do files that must exist: too many requests; try again later")


def check_reachable(publisher: Publisher, policy: Policy) -> None:
    """Raise ``Unreachable`` if the publisher has an answer to no question at all, whichever file is asked for.

    One HEAD where it answers, be it that the file is not there. Where it does not: the tries of ``policy``, and no more
    than its ``patience`` in all, however many addresses its name has. A folder is only looked at.
    """
    if publisher.scheme == "file":
        check_folder(publisher)
    if publisher.is_local:
        return
    policy = replace(policy, timeout=min(policy.timeout, policy.patience / len(WITNESSES)))
    try:
        with waiting.for_answer(_whom(publisher), policy.patience):
            retrying(lambda: _ask_witnesses(publisher, policy), policy, say=lambda text: False)
    except TransientError as error:
        raise unreachable(publisher, str(error)) from None


def _ask_witnesses(publisher: Publisher, policy: Policy) -> None:
    """Raise ``PublisherUnavailable`` with the cause alone unless the publisher answers for one of the files."""
    for witness in WITNESSES:
        try:
            with ask("HEAD", publisher, *witness, policy, is_told=False) as answer:
                error = refusal(publisher, *witness, answer.status_code, answer.headers)
        except NoAnswer as silence:
            cause = str(silence).removeprefix(f"{publisher.address(*witness)}: ").partition("; ")[0]
            trouble = PublisherUnavailable(cause)
            continue
        if not isinstance(error, TransientError) or answer.status_code in (403, 501):  # 501: it knows no HEAD
            return
        trouble = PublisherUnavailable(f"it answers {answer.status_code} to everything", error.retry_after)
    raise trouble


def _whom(publisher: Publisher) -> str:
    """How a wait names a publisher."""
    return f"publisher {publisher.name} at {_without_credentials(publisher.base_url)}"


def unreachable(publisher: Publisher, cause: str) -> Unreachable:
    """The error of a publisher that answers no question, by its address and not by that of a file."""
    return Unreachable(
        f"publisher {publisher.name} cannot be reached at {_without_credentials(publisher.base_url)}: {cause}; "
        "check the network and [publisher] url, or try again later"
    )


def describe(dataset: str, month: Month | None) -> str:
    """``green 2020-04``, or the dataset alone where it has no months: the beginning of messages."""
    return dataset if month is None else f"{dataset} {month:%Y-%m}"


# -- looking ---------------------------------------------------------------------------------------


def look(
    publisher: Publisher,
    dataset: str,
    month: Month | None = None,
    *,
    probe: Month | None = None,
    policy: Policy | None = None,
) -> Version:
    """The version now published: a HEAD, a stat, or what a sample would be made from.

    ``probe`` is a month of the dataset that this publisher must have, such as the last one loaded from it. Raises
    ``MissingAtPublisher``, ``RefusedByPublisher`` and, after the tries of ``policy``, ``Throttled`` or
    ``PublisherUnavailable``.
    """
    if publisher.scheme == "sample":
        from .sample import generator

        return Version(etag=generator.version(Partition(dataset, month), **publisher.sample_options))
    if publisher.scheme == "file":
        return _look_at_file(publisher, dataset, month)
    version = _look_at_web(publisher, dataset, [month], probe, policy or Policy())[month]
    if isinstance(version, TransientError):
        raise version
    if version is None:
        place = f"{describe(dataset, month)}: {publisher.address(dataset, month)}"
        raise MissingAtPublisher(f"{place} is not there; {LEAVE_OUT}")
    return version


def _look_at_file(publisher: Publisher, dataset: str, month: Month | None) -> Version:
    path = publisher.path(dataset, month)
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        check_folder(publisher)
        raise MissingAtPublisher(f"{describe(dataset, month)}: {path} is not there; {LEAVE_OUT}") from None
    except OSError as error:
        raise RefusedByPublisher(f"{describe(dataset, month)}: {path} cannot be read: {error.strerror}") from None
    if not path.is_file():
        raise RefusedByPublisher(f"{describe(dataset, month)}: {path} is not a file; check [publisher] url")
    return Version.from_stat(stat)


def check_folder(publisher: Publisher) -> None:
    """Raise ``RefusedByPublisher`` if a ``file:`` publisher is no folder that can be read, or has none of its own."""
    if not publisher.folder.is_dir():
        raise RefusedByPublisher(f"[publisher] url: the folder {publisher.folder} is not there; correct the setting")
    if not os.access(publisher.folder, os.R_OK | os.X_OK):
        raise RefusedByPublisher(f"[publisher] url: {publisher.folder} cannot be read; permit it to this user")
    if not publisher.path("zones").parent.is_dir():
        _check_months_folders(publisher)


def _check_months_folders(publisher: Publisher) -> None:
    folders = {publisher.months_folder(name) for name in datasets.MONTHLY}
    if not any((publisher.folder / folder).is_dir() for folder in folders):
        raise RefusedByPublisher(
            f"[publisher] url: {publisher.folder} has none of the folders {', '.join(sorted(folders))} "
            f"of the publisher {publisher.name}; correct the setting, or [publisher] name"
        )


def _look_at_web(
    publisher: Publisher,
    dataset: str,
    months: Sequence[Month | None],
    probe: Month | None,
    policy: Policy,
) -> dict[Month | None, Version | TransientError | None]:
    """Versions of several files, None for those that are not there; one HEAD each and one probe for all their 403s.

    What remains of trouble with one of them after the tries of ``policy`` stands in its place.
    """
    from concurrent.futures import ThreadPoolExecutor

    def head(month: Month | None) -> tuple[int, Mapping[str, str]] | NoAnswer:
        try:
            with ask("HEAD", publisher, dataset, month, policy) as answer:
                if answer.status_code not in (405, 501):
                    return answer.status_code, answer.headers
            # A server that knows no HEAD: begin a GET, and read nothing of the body.
            with ask("GET", publisher, dataset, month, policy) as answer:
                return answer.status_code, answer.headers
        except NoAnswer as error:
            return error

    found: dict[Month | None, Version | TransientError | None] = {}

    def attempt() -> None:
        left = [month for month in months if month not in found or isinstance(found[month], TransientError)]
        with ThreadPoolExecutor(min(CONCURRENT, len(left))) as pool:
            answers = dict(zip(left, pool.map(head, left), strict=True))
        ambiguous = None
        for month, answer in answers.items():
            if isinstance(answer, NoAnswer):
                found[month] = answer
                continue
            status, headers = answer
            error = refusal(publisher, dataset, month, status, headers)
            if status == 403 and publisher.hides_absence:
                # The probe comes after all of them: if it passes now, none of them was throttled.
                ambiguous = ambiguous or refused_or_absent(publisher, dataset, month, probe, policy)
                error = ambiguous
            if isinstance(error, TransientError) and error is not ambiguous:
                found[month] = error
            elif error is not None and not isinstance(error, MissingAtPublisher):
                raise error
            else:
                found[month] = None if error else Version.from_headers(headers)
        for month in left:
            if isinstance(trouble := found[month], TransientError):
                raise trouble

    try:
        retrying(attempt, policy)
    except TransientError as error:
        if error not in found.values():
            raise  # not about a single file
    return found


def sha256_of(publisher: Publisher, dataset: str, month: Month | None = None) -> str:
    """SHA-256 (hexadecimal) of a file of a ``file:`` publisher, read now."""
    import hashlib

    with publisher.path(dataset, month).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- surveys ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """Asked months, sorted: ``published`` (or presumed so), ``not_yet`` (absent, may still appear), ``missing`` (gaps).

    A month may still appear if it is later than ``newest`` and ``can_still_appear``.

    ``versions`` holds those that were seen on the way. ``newest`` is the newest month known to be published, whether
    it was asked for or not.
    """

    published: tuple[Month, ...]
    not_yet: tuple[Month, ...]
    missing: tuple[Month, ...]
    versions: Mapping[Month, Version] = field(default_factory=dict)
    newest: Month | None = None


def survey(
    publisher: Publisher,
    dataset: str,
    months: Iterable[Month],
    newest_known: Month | None = None,
    probe: Month | None = None,
    *,
    today: dt.date | None = None,
    policy: Policy | None = None,
) -> Survey:
    """Sort months into published, not yet published and missing, with as few requests as possible.

    A folder is listed once. ``sample`` has every month that is over. The dtc archive is closed: what lies within its
    time is presumed there. Elsewhere HEADs go back from the newest asked month to the first that exists; all before it
    are presumed published, and the download finds out about gaps. If the newest asked month is absent and may still
    appear, the ``LOOK_AHEAD`` months after it are tried too: where one of those exists, the absent one is a gap.
    A month that the publisher has trouble with, while it answers otherwise, is presumed published too.

    ``newest_known`` is the newest month of the official files that we have figures of; it counts at tlc's own address
    only. ``probe`` is the last month that was loaded from this publisher. Months up to either are presumed published
    without a request. Raises as ``look`` does; ``RefusedByPublisher`` also where nothing at all is found at an address.
    """
    asked = sorted(set(months))
    today = today or dt.date.today()
    if publisher.scheme == "file":
        versions = _listing(publisher, dataset)
        return _sorted_out(asked, set(asked) - versions.keys(), versions, max(versions, default=None), today)
    _, last = publisher.months_offered(dataset)
    if publisher.scheme == "sample":
        newest = min(_plus(today.replace(day=1), -1), last or dt.date.max)
        return _sorted_out(asked, {month for month in asked if month > newest}, {}, newest, today)
    if publisher.name == "dtc" and publisher.is_own_address:
        return _sorted_out(asked, set(), {}, last, today)
    presumed = max((m for m in (newest_known if publisher.is_own_address else None, probe) if m), default=None)
    newest_possible = min(today.replace(day=1), last or dt.date.max)

    def seen(wanted: Sequence[Month]) -> dict[Month, Version | TransientError | None]:
        if not wanted:
            return {}
        found = _look_at_web(publisher, dataset, wanted, probe or presumed, policy or Policy())
        return {month: version for month, version in found.items() if month is not None}

    found: dict[Month, Version | TransientError | None] = {}
    for window in _windows([each for each in reversed(asked) if presumed is None or each > presumed]):
        found |= seen(window)
        if any(found.values()):
            break
    if asked and asked[-1] in found and found[asked[-1]] is None and can_still_appear(asked[-1], today):
        ahead = [_plus(asked[-1], step) for step in range(1, LOOK_AHEAD + 1)]
        found |= seen([month for month in ahead if month <= newest_possible])
    if found and presumed is None and not any(found.values()):
        # Nothing so far. A wrong address must not pass for "not yet published", so something has to be there.
        with_zones = _look_at_web(publisher, "zones", [None], None, policy or Policy())[None]
        found |= {} if with_zones else seen([_plus(asked[0], -step) for step in range(1, LOOK_BACK + 1)])
        if not with_zones and not any(found.values()):
            raise nothing_there(publisher, f"{dataset} months around {asked[0]:%Y-%m}")
    versions = {month: version for month, version in found.items() if isinstance(version, Version)}
    absent = {month for month, version in found.items() if version is None}
    seen_last = max([*versions, *([presumed] if presumed else [])], default=None)
    return _sorted_out(asked, absent, versions, seen_last, today)


def can_still_appear(month: Month, today: dt.date | None = None) -> bool:
    """Whether a month that a publisher does not have may just not be published yet; see ``APPEARS_WITHIN``."""
    return _plus(month, 1 + APPEARS_WITHIN) > (today or dt.date.today())


def check_zones(publisher: Publisher, policy: Policy) -> None:
    """Raise ``RefusedByPublisher`` if a mirror has neither the zone table nor a month that all datasets have."""
    if publisher.is_local or publisher.is_own_address:
        return
    statuses = set()
    for name in ("zones", *datasets.MONTHLY):
        try:
            with ask("HEAD", publisher, name, None if name == "zones" else DTC_LAST, policy) as answer:
                statuses.add(answer.status_code)
        except NoAnswer:
            return  # about this file: the publisher was reached before
    if 404 in statuses and statuses <= {403, 404}:
        raise nothing_there(publisher, f"months of {DTC_LAST:%Y-%m}")


def nothing_there(publisher: Publisher, months: str) -> RefusedByPublisher:
    """The error of a web address where neither ``months`` nor the zone table are."""
    return RefusedByPublisher(
        f"[publisher] url: neither {months} nor the zone table are below {_without_credentials(publisher.base_url)}; "
        "correct the setting"
    )


def _sorted_out(
    asked: Sequence[Month],
    absent: set[Month],
    versions: Mapping[Month, Version],
    newest: Month | None,
    today: dt.date,
) -> Survey:
    not_yet = {month for month in absent if can_still_appear(month, today) and (newest is None or month > newest)}
    return Survey(
        published=tuple(month for month in asked if month not in absent),
        not_yet=tuple(month for month in asked if month in not_yet),
        missing=tuple(month for month in asked if month in absent - not_yet),
        versions={month: version for month, version in versions.items() if month in asked},
        newest=newest,
    )


def _listing(publisher: Publisher, dataset: str) -> dict[Month, Version]:
    """Versions of all months of a dataset in a ``file:`` publisher's folder."""
    check_folder(publisher)
    _check_months_folders(publisher)
    folder = publisher.folder / publisher.months_folder(dataset)
    pattern = re.compile(rf"{dataset}_tripdata_([0-9]{{4}})-(0[1-9]|1[0-2])\.{re.escape(publisher.format)}")
    found = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                match = pattern.fullmatch(entry.name)
                if match and entry.is_file():
                    found[dt.date(int(match[1]), int(match[2]), 1)] = Version.from_stat(entry.stat())
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise RefusedByPublisher(f"[publisher] url: {folder} cannot be read: {error.strerror}") from None
    return found


def _windows(months: Sequence[Month]) -> Iterator[Sequence[Month]]:
    """The months in order, in growing groups: mostly the first one decides, but a long absence should not take long."""
    size = 1
    while months:
        yield months[:size]
        months, size = months[size:], min(2 * size, 2 * CONCURRENT)


def _plus(month: Month, count: int) -> Month:
    index = month.year * 12 + month.month - 1 + count
    return dt.date(index // 12, index % 12 + 1, 1)

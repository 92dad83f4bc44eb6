"""The job of a run: its publisher, rules, lake, workspace and warehouses, by label, and how they are opened.

A label is a name without secrets, and part of the identity of the tasks. The functions without arguments give the
labels of the configured backends. What a label opens has the credentials of this machine's settings.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import TYPE_CHECKING

from . import remote, settings
from .errors import UsageError
from .local_paths import broken_link, path_of
from .retry import Policy

if TYPE_CHECKING:
    from .lake import Lake
    from .publishers import Publisher
    from .warehouse import Warehouse


#: How tasks and ledger write that no rule is applied.
NO_RULES = "none"


@dataclass(frozen=True)
class Job:
    """What the output of a task depends on besides dataset and month.

    Its fields are labels, which compare and print without credentials. ``publisher`` and ``lake`` are what they open.
    """

    publisher_label: str
    rules: str
    lake_url: str
    workspace_url: str

    @classmethod
    def configured(cls) -> Job:
        """The job of the settings."""
        return cls(publisher_label(), rules_text(), lake_url(), workspace_url())

    def for_zones(self) -> Job:
        """The job of the zone table, which no rule applies to: changed rules leave it alone."""
        return replace(self, rules=NO_RULES)

    @cached_property
    def publisher(self) -> Publisher:
        return open_publisher(self.publisher_label)

    @cached_property
    def lake(self) -> Lake:
        from .lake import Lake
        from .storage import open_store

        return Lake(open_store(self.lake_url))


# -- the labels of the configured backends ---------------------------------------------------------


def publisher_label() -> str:
    """The publisher as task parameters name it."""
    return _configured_publisher().label


def _configured_publisher() -> Publisher:
    from .publishers import open_publisher

    return open_publisher(settings.PublisherSettings().name, settings.PublisherSettings().url)


def lake_url() -> str:
    return _store_url("lake", settings.LakeSettings().url)


def workspace_url() -> str:
    return _store_url("workspace", settings.WorkspaceSettings().url)


def _store_url(section: str, url: str) -> str:
    from .storage import is_local, open_store

    try:
        found = open_store(url).url  # a relative path is relative to the current folder, so nothing is cached
        if is_local(found) and (lost := broken_link(path_of(found))):
            raise UsageError(lost)  # or all that is behind the link would count as not there
    except UsageError as error:
        raise UsageError(f"[{section}] url: {error}") from None
    return found


def rules_text() -> str:
    """The rules, normalized, with their versions."""
    try:
        return normalize_rules(settings.CleanSettings().rules)
    except UsageError as error:
        raise UsageError(f"[clean] rules: {error}") from None


def warehouse_labels() -> str:
    """The labels of the warehouses, comma-separated, in the order of the setting; empty for none."""
    return ",".join(warehouses())


def warehouses() -> list[str]:
    """The labels of the warehouses, in the order of the setting."""
    from .warehouse import label_of, split_urls

    return [label_of(url) for url in split_urls(settings.WarehouseSettings().url)]


# -- one form of each label ------------------------------------------------------------------------


@cache
def normalize_store_url(url: str) -> str:
    from .storage import open_store

    return open_store(url).url


@cache
def normalize_rules(text: str) -> str:
    from .cleaning.rules import Rules

    return str(Rules.parse(text))


def normalize_warehouses(text: str) -> str:
    from .warehouse import label_of

    return ",".join(
        piece if "@" in piece.partition("://")[0] else label_of(piece) for piece in text.split(",") if piece
    )


# -- what the labels open --------------------------------------------------------------------------


def open_publisher(label: str) -> Publisher:
    """The publisher of a label; credentials come from ``[publisher] url`` if that has the same label."""
    from .publishers import from_label

    configured = _configured_publisher()
    return configured if configured.label == label else from_label(label)


def open_warehouse(label: str) -> Warehouse:
    """The warehouse of a label; the password comes from ``[warehouse] url``, which must list it."""
    from .warehouse import Options, label_of, open_warehouse, split_urls

    configured = settings.WarehouseSettings()
    options = Options(
        lock_timeout=configured.lock_timeout,
        statement_timeout=configured.statement_timeout,
        memory_limit=configured.memory_limit,
        location=configured.location,
        maximum_bytes_billed=configured.maximum_bytes_billed,
    )
    for url in split_urls(configured.url):
        if label_of(url) == label:
            return open_warehouse(url, options)
    if "://" in label:  # such a label is the whole URL: it never had a secret
        return open_warehouse(label, options)
    raise UsageError(f"warehouse {label} is not among those of [warehouse] url on this machine; add its URL there")


def retry_policy() -> Policy:
    """The waits and tries of the settings, cut short while somebody waits or a run is planned."""
    configured, retry = settings.PublisherSettings(), settings.RetrySettings()
    return Policy(
        timeout=remote.for_server(configured.timeout),
        attempts=retry.attempts,
        backoff=retry.backoff,
        max_backoff=retry.max_backoff,
        patience=remote.for_server(float("inf")),
        min_rate=configured.min_rate,
        spent=remote.spent(),
    )

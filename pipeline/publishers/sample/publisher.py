"""The publisher whose months are made on this machine: ``sample:`` addresses."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

from ...doctor_check import Check
from ...errors import UsageError
from ...partition import Partition, add_months, parse_month
from ...retry import DEFAULT, Policy
from ..availability import Availability
from ..base import Publisher
from ..catalog import LAYOUTS, Catalog, Layout
from ..fetching import Fetched, IncomingFile, writing
from ..version import Version
from .layouts import FIRST_MONTHS

#: What an address asks for, with the defaults.
OPTIONS = {"rows": "20000", "seed": "1", "layout": "tlc"}


class SamplePublisher(Publisher):
    """Every month that is over is published."""

    is_local: ClassVar = True

    @classmethod
    def open(cls, catalog: Catalog, url: str) -> SamplePublisher:
        if not catalog.is_synthetic:
            raise UsageError(f"[publisher] url: a sample: address goes with the name sample, not {catalog.name}")
        problem = f"[publisher] url: {url!r} must be like sample:?rows=20000&seed=1 (also layout=tlc or layout=dtc)"
        beginning, _, query = url.partition("?")
        try:
            pairs = parse_qsl(query, strict_parsing=bool(query))
        except ValueError:
            raise UsageError(problem) from None
        given = dict(pairs)
        if beginning.lower() != "sample:" or len(given) != len(pairs) or not given.keys() <= OPTIONS.keys():
            raise UsageError(problem)
        options = OPTIONS | given
        if not all(re.fullmatch(r"[0-9]{1,9}", options[key]) for key in ("rows", "seed")):
            raise UsageError(problem + "; rows and seed are whole numbers")
        if options["layout"] not in LAYOUTS:
            raise UsageError(problem)
        layout = "" if options["layout"] == OPTIONS["layout"] else f"&layout={options['layout']}"
        return cls(catalog, f"sample:?rows={int(options['rows'])}&seed={int(options['seed'])}{layout}")

    @cached_property
    def options(self) -> Mapping[str, Any]:
        """What the months are made from: ``rows`` per month, ``seed`` and ``layout`` by name."""
        options = OPTIONS | dict(parse_qsl(urlsplit(self.base_url).query))
        return {"rows": int(options["rows"]), "seed": int(options["seed"]), "layout": options["layout"]}

    @property
    def layout(self) -> Layout:
        return LAYOUTS[self.options["layout"]]

    def address(self, partition: Partition) -> str:
        base = urlsplit(self.base_url)
        return f"{base.scheme}:/{self.layout.path(partition)}?{base.query}"

    def _first_month(self, dataset: str, first: dt.date) -> dt.date:
        return parse_month(FIRST_MONTHS[self.layout.name][dataset])

    def version(self, partition: Partition, policy: Policy = DEFAULT, known_month: dt.date | None = None) -> Version:
        from .generator import version

        return Version(etag=version(partition, **self.options))

    def _availability(
        self, dataset: str, wanted: Sequence[dt.date], policy: Policy, known_month: dt.date | None, today: dt.date
    ) -> Availability:
        newest = min(add_months(today, -1), self.layout.last_month or dt.date.max)
        return Availability.of(wanted, {month for month in wanted if month > newest}, newest, today)

    def _fetch_once(self, incoming: IncomingFile, policy: Policy, known_month: dt.date | None) -> Fetched:
        from .generator import make_file

        incoming.version = self.version(incoming.partition)
        incoming.remove_parts()
        try:
            with writing(incoming.target.parent):
                make_file(incoming.partition, incoming.part, **self.options)
                made = incoming.part.stat().st_size
            return incoming.receive(lambda: b"", made)
        finally:
            incoming.discard()

    def check(self, names: Sequence[str], policy: Policy) -> Iterator[Check]:
        yield Check(self.label, True, "synthetic months are made on this machine")

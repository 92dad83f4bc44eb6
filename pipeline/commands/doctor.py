"""``python -m pipeline doctor``: check everything that is configured, as the pipeline uses it, and name remedies."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from .. import job, luigi_config, settings, validation
from ..doctor_check import Check
from ..errors import PipelineError
from ..planning.state import CachedState, State
from ..planning.synthetic import ensure_load_allowed, ensure_upload_allowed
from ..remote import INTERACTIVE_TIMEOUT
from ..reporting import logs, notify, tables
from ..reporting.tables import Column
from ..sanitize import error_line

if TYPE_CHECKING:
    from ..storage import Store

HELP = "check everything that is configured, and name the remedy for each problem"

Probe = Callable[[], Iterable[Check]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--create", action="store_true", help="create a missing bucket, dataset, database or schema")
    parser.add_argument("--notify", action="store_true", help="send a test message to the addresses of [notify]")
    parser.set_defaults(validate=False)  # a mistake in the settings is its first finding


def run(args: argparse.Namespace) -> int:
    """Print a line for each check. Returns 0, or 1 if a check fails; warnings do not count."""
    failed = False
    for what, probe in probes(args.create, args.notify):
        for check in _tried(what, probe):
            failed = failed or not (check.ok or check.is_warning)
            _show(what, check)
        if failed and what == "settings":
            return 1  # the other sections are not known
    return 1 if failed else 0


def probes(create: bool, send: bool) -> Iterator[tuple[str, Probe]]:
    """All probes, each with the name of its section of luigi.cfg."""
    yield "settings", _settings
    logs.configure()
    yield "publisher", _publisher
    yield "workspace", partial(_store, settings.WorkspaceSettings().url, create)
    lake = _Lake()
    yield "lake", partial(lake.check, create)
    for label in job.warehouses():
        yield "warehouse", partial(_warehouse, label, lake, create)
    yield "luigid", _luigid
    yield "notify", notify.send_test if send else notify.check


def _tried(what: str, probe: Probe) -> Iterator[Check]:
    """The checks of a probe. An exception becomes one more failed check, so that the other probes still run."""
    try:
        yield from probe()
    except PipelineError as error:
        yield Check.failed("", error)
    except ImportError as error:
        yield Check("", False, f"{error.name} is not installed", "pip install -r requirements.txt")
    except Exception as error:  # its text is not shown: it may contain a secret
        yield Check("", False, f"{type(error).__name__} while trying [{what}]", "check the setting")


def _show(what: str, check: Check) -> None:
    word = "ok" if check.ok else "warn" if check.is_warning else "FAIL"
    text = ": ".join(part for part in (check.subject, check.detail) if part)
    remedy = f"; {check.remedy}" if check.remedy and not check.ok else ""
    columns = [Column(width=4), Column(width=9), Column(is_folded=True)]
    tables.show(columns, [[word, what, error_line(text + remedy)]])


def _settings() -> Iterator[Check]:
    validation.validate()
    files = ", ".join(luigi_config.files())
    origin = f"read from {files}" if files else "settings come from the package's defaults; there is no luigi.cfg here"
    yield Check("", True, f"all {len(list(settings.names()))} are valid; {origin}")


def _publisher() -> Iterator[Check]:
    names = [name.strip() for name in settings.RangeSettings().datasets.split(",")]
    return job.open_publisher(job.publisher_label()).check(names, job.retry_policy())


def _store(url: str, create: bool) -> Iterable[Check]:
    return _open_store(url).check(create)


def _open_store(url: str) -> Store:
    from ..storage import StoreOptions, open_store

    return open_store(url, StoreOptions(location=settings.WarehouseSettings().location))


class _Lake:
    """The lake: a problem is reported by its own check, and not again by every warehouse."""

    works = False

    def check(self, create: bool) -> Iterator[Check]:
        checks = []
        for check in _store(settings.LakeSettings().url, create):
            checks.append(check)
            yield check
        self.works = all(check.ok or check.is_warning for check in checks)
        if self.works:
            state = CachedState()
            for name in settings.RangeSettings().datasets.split(","):
                ensure_upload_allowed(state, job.Job.configured(), name)  # as a run does before its first task

    def location(self) -> str | None:
        return _open_store(settings.LakeSettings().url).location() if self.works else None


def _warehouse(label: str, lake: _Lake, create: bool) -> Iterator[Check]:
    from ..warehouse.base import is_near, location_near

    warehouse = job.open_warehouse(label)
    if create and warehouse.has_location:  # like the first load: in a location that can load from the lake
        create = lake.works  # the location of a dataset cannot be changed later
        location = location_near(lake.location(), warehouse.options.location)
        warehouse.options = replace(warehouse.options, location=location)
    works = True
    for check in warehouse.check(create):
        works = works and (check.ok or check.is_warning)
        yield check
    is_synthetic = job.open_publisher(job.publisher_label()).is_synthetic
    if works or (is_synthetic and not warehouse.takes_synthetic):
        ensure_load_allowed(State(), is_synthetic, label)
    here, there = (lake.location(), warehouse.location()) if works and warehouse.has_location else (None, None)
    if here and there:
        remedy = f"choose a bucket within {there}, or a dataset within {here}"
        yield Check(label, is_near(here, there), f"is in {there}, the lake in {here}", remedy)


def _luigid() -> Iterator[Check]:
    from luigi.interface import core

    from .. import http_client

    chosen = core()
    if chosen.local_scheduler:
        yield Check("", True, "not used: [core] local_scheduler is set")
        return
    url = chosen.scheduler_url or f"http://{chosen.scheduler_host}:{chosen.scheduler_port}"
    shown = url.rpartition("@")[2].removeprefix("http://").rstrip("/")
    try:
        with http_client.send("HEAD", url, {}, INTERACTIVE_TIMEOUT):
            yield Check(shown, True, "answers")
    except http_client.NO_ANSWER:
        remedy = "start one with `python -m pipeline ui`, or run with --local-scheduler"
        yield Check(shown, False, "no luigid answers", remedy, is_warning=not luigi_config.names_luigid())

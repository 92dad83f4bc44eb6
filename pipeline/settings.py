"""The settings: one ``luigi.Config`` class per section of luigi.cfg.

Every setting may come from luigi.cfg, from the environment variable ``PIPELINE_<SECTION>_<NAME>`` or from the flag
``--<section>-<name>``; the later wins. Luigi itself knows the first and the last. ``apply_environment`` puts the
variables between them, in every process that imports the pipeline; ``export_to_environment`` exports the effective
settings, so that child processes, which read luigi.cfg again, see the flags too.

Nothing is checked here beyond the form of one value: see validation.py. What a task's output depends on is a parameter
of the task, not a setting that is looked up while it runs: see job.py.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.task_register import Register

from .errors import UsageError

ENVIRONMENT_PREFIX = "PIPELINE_"

#: Longest waits, in seconds, and oldest ages, in days (or hours): beyond them clocks and dates overflow.
DAY, CENTURY = 86_400, 36_500


class Choice(luigi.Parameter):
    """One of a few words."""

    def __init__(self, *choices: str, **kwargs: Any) -> None:
        self.choices = choices
        super().__init__(**kwargs)

    def parse(self, x: str) -> str:
        if x not in self.choices:
            raise UsageError(f"{x!r} is not one of {', '.join(self.choices)}")
        return x


class Choices(luigi.Parameter):
    """Some of a few words, comma-separated; at least ``least`` of them."""

    def __init__(self, *choices: str, least: int = 0, **kwargs: Any) -> None:
        self.choices, self.least = choices, least
        super().__init__(default=",".join(kwargs.pop("default", choices)), **kwargs)

    def parse(self, x: str) -> str:
        words = [word.strip() for word in x.split(",") if word.strip()]
        for word in words:
            if word not in self.choices:
                raise UsageError(f"{word!r} is not one of {', '.join(self.choices)}")
        if len(words) < self.least:
            raise UsageError(f"{x!r} names none of {', '.join(self.choices)}")
        return ",".join(words)


class Number(luigi.FloatParameter):
    """A number within bounds, in the unit that its description names."""

    def __init__(self, *, least: float = 0, most: float, **kwargs: Any) -> None:
        self.least, self.most = least, most
        super().__init__(**kwargs)

    def parse(self, x: str) -> float:
        if not re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", x, re.ASCII):
            raise UsageError(f"{x!r} is not a number")
        value = float(x)
        if not self.least <= value <= self.most:
            raise UsageError(f"{x} is not between {self.least:g} and {self.most:g}")
        return value


class Whole(luigi.IntParameter):
    """A whole number of at least ``least``, and of ``most`` at most if there is such a bound."""

    def __init__(self, *, least: int = 0, most: int | None = None, **kwargs: Any) -> None:
        self.least, self.most = least, most
        super().__init__(**kwargs)

    def parse(self, x: str) -> int:
        if not re.fullmatch(r"\s*[+-]?\d{1,4000}\s*", x, re.ASCII):
            raise UsageError(f"{x!r} is not a whole number")
        value = int(x)
        if self.most is not None and not self.least <= value <= self.most:
            raise UsageError(f"{x} is not between {self.least} and {self.most}")
        if value < self.least:
            raise UsageError(f"{x} is less than {self.least}")
        return value


class Memory(luigi.Parameter):
    """An amount of memory as DuckDB reads it."""

    def parse(self, x: str) -> str:
        if not re.fullmatch(r"\d+(\.\d+)?\s*([KMGT]i?B|%)", x, re.IGNORECASE | re.ASCII):
            raise UsageError(f"{x!r} is not an amount of memory; write it as 192MB or 2GB")
        return x


class Location(luigi.Parameter):
    """A place of Google Cloud's."""

    def parse(self, x: str) -> str:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{1,62}", x):
            raise UsageError(f"{x!r} is not a place of Google Cloud; write it as US, EU or europe-west1")
        return x


class YesNo(luigi.BoolParameter):
    """true or false; off by default, because Luigi cannot turn a flag off on the command line."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(default=False, **kwargs)

    def parse(self, x: Any) -> bool:
        if isinstance(x, str) and x.strip().lower() not in ("true", "false"):
            raise UsageError(f"{x!r} is neither true nor false")
        return super().parse(x)


# The classes are named like their sections, in lower case, as Luigi names its own.


class publisher(luigi.Config):
    name = Choice("tlc", "dtc", "sample", default="tlc", description="tlc, dtc or sample")
    url = luigi.Parameter(default="", description="base address instead of the publisher's own: https:, http: or file:")
    max_age = Number(
        most=CENTURY, default=7.0, description="days after which a loaded month is asked about again at a web publisher"
    )
    absent_max_age = Number(most=CENTURY, default=6.0, description="hours for which a 'not published' answer is cached")
    timeout = Number(
        least=1, most=DAY, default=60.0, description="seconds for an answer, and without a byte until a body is lost"
    )
    min_rate = Number(
        most=1e6, default=1000.0, description="bytes per second that a body brings at least, over timeout; 0: any"
    )
    attempts = Whole(
        least=1, most=1000, default=5, description="tries of one request or transfer before the stage fails"
    )
    backoff = Number(most=DAY, default=2.0, description="seconds before the second try; doubles, with jitter")
    max_backoff = Number(
        most=DAY, default=120.0, description="longest wait between two tries, in seconds, whatever a server asks for"
    )
    allow_synthetic = YesNo(description="let synthetic months go where published ones are, and into server warehouses")


class workspace(luigi.Config):
    url = luigi.Parameter(default="file:workspace", description="scratch between download and upload: file: or gs://")


class lake(luigi.Config):
    url = luigi.Parameter(default="file:lake", description="where published Parquet lives: file: or gs://")
    keep_versions = YesNo(description="keep replaced Parquet files under versions/")


class warehouse(luigi.Config):
    url = luigi.Parameter(
        default="duckdb:///warehouse.duckdb",
        description="one or several, comma-separated: duckdb:///file, postgresql+psycopg2://..., bigquery://project/dataset",
    )
    lock_timeout = Number(most=DAY, default=60.0, description="seconds that a load waits for others' locks, in all")
    statement_timeout = Number(
        least=1, most=DAY, default=300.0, description="seconds of a statement of PostgreSQL; more for many rows"
    )
    memory_limit = Memory(default="160MB", description="memory of the embedded engine")
    location = Location(default="US", description="place of a BigQuery dataset that has to be made")
    maximum_bytes_billed = Whole(
        least=1, most=2**63 - 1, default=10 * 1024**3, description="limit of one BigQuery query, in bytes"
    )


class clean(luigi.Config):
    rules = luigi.Parameter(
        default="zero_passengers,pickup_outside_month",
        description="rules that reject or fill, comma-separated, or none",
    )
    max_unreadable = Number(most=100, default=5.0, description="percent of unreadable rows above which a month fails")


class range(luigi.Config):  # hides the built-in, in this module only
    datasets = Choices("yellow", "green", "fhv", "fhvhv", least=1, description="datasets of AllTrips, comma-separated")


class notify(luigi.Config):
    urls = luigi.Parameter(
        default="", description="addresses notified about runs, in the notation of Apprise; one or several"
    )
    on = Choices(
        "failed",
        "completed",
        "crashed",
        "republished",
        "schema_drift",
        "nothing_new",
        default=("failed", "completed", "crashed", "republished", "schema_drift"),
        description="events to notify: failed, completed, crashed, republished, schema_drift, nothing_new",
    )
    datasets = Choices("yellow", "green", "fhv", "fhvhv", "zones", description="datasets that are told of")


class process(luigi.Config):
    start_method = Choice(
        "forkserver",
        "fork",
        "spawn",
        default="forkserver",
        description="how worker processes start: forkserver, fork or spawn",
    )
    log_level = Choice("DEBUG", "INFO", "WARNING", "ERROR", default="INFO", description="least severity that is logged")
    log_format = Choice("text", "json", default="text", description="how lines are logged: text or json")


SECTIONS: tuple[type[luigi.Config], ...] = (publisher, workspace, lake, warehouse, clean, range, notify, process)


def names() -> Iterator[tuple[str, str, luigi.Parameter]]:
    """All settings as (section, name, parameter)."""
    for section in SECTIONS:
        for name, parameter in section.get_params():
            yield section.get_task_family(), name, parameter
    if "RangeMonthly" in Register.task_names():
        parameters = dict(Register.get_task_cls("RangeMonthly").get_params())
        for name in ("of", "dataset", "datasets", "start", "stop"):
            yield "RangeMonthly", name, parameters[name]


def variable(section: str, name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{section}_{name}".upper()


class Place(enum.IntEnum):
    """Where a value comes from; the stronger wins."""

    DEFAULT, FILE, ENVIRONMENT, CALL = 0, 1, 2, 3


def place_of(section: str, name: str) -> Place:
    """Where the value of a setting or a parameter comes from, if it is not an argument of the call itself."""
    flags = CmdlineParser.get_instance()
    if flags is not None and getattr(flags.known_args, f"{section}_{name}", None):
        return Place.CALL
    if variable(section, name) in os.environ:
        return Place.ENVIRONMENT
    return Place.FILE if get_config().has_option(section, name) else Place.DEFAULT


def apply_environment() -> None:
    """Let the environment's settings win over luigi.cfg's in this process."""
    config = get_config()
    for section, name, _ in names():
        value = os.environ.get(variable(section, name))
        if value is not None:
            config.set(section, name, value.strip().replace("%", "%%"))  # env files leave line ends behind


def export_to_environment() -> None:
    """Write the values in force into the environment: for child processes, and for when Luigi forgets its flags."""
    for section in SECTIONS:
        for name, parameter in section.get_params():
            value = parameter.task_value(section.get_task_family(), name)
            os.environ[variable(section.get_task_family(), name)] = str(parameter.serialize(value))
    apply_environment()


def given() -> dict[str, str]:
    """The settings that the environment has, as variables."""
    variables = (variable(section, name) for section, name, _ in names())
    return {name: os.environ[name] for name in variables if name in os.environ}


def in_environment() -> dict[str, str]:
    """All variables of ours in the environment: settings, and what the processes of a run know of it."""
    return {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)}


def take_over(variables: dict[str, str]) -> None:
    """Put ``variables`` in the place of those of ours that the environment has, and let its settings win."""
    for name in in_environment():
        del os.environ[name]
    os.environ.update(variables)
    apply_environment()


@contextmanager
def restored() -> Iterator[None]:
    """At the end of this context let environment and configuration say of our settings what they say now."""
    config = get_config()
    variables = in_environment()
    values = {(section, name): config.get(section, name, None, raw=True) for section, name, _ in names()}
    try:
        yield
    finally:
        take_over(variables)
        for (section, name), value in values.items():
            if value is not None:
                with suppress(ValueError):  # a text with a single %, which was refused
                    config.set(section, name, value)
            elif config.has_option(section, name):
                config.remove_option(section, name)

"""The settings: one ``luigi.Config`` class per section of luigi.cfg.

A setting may come from luigi.cfg, from the environment variable ``PIPELINE_<SECTION>_<NAME>`` or from the flag
``--<section>-<name>``; the later overrides the earlier. Luigi itself reads the file and the flags.
``apply_environment`` applies the variables in every process that imports the pipeline. ``export_to_environment``
exports the effective settings, so that child processes, which read luigi.cfg again, see the flags too.

Only the form of each value is checked here; validation.py checks the rest. What a task's output depends on is a
parameter of the task, not a setting that is read while it runs: see job.py.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import luigi
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config

from . import renamed
from .datasets import DATASETS, MONTHLY
from .setting_values import choice, choices, location, memory, number, whole

T = TypeVar("T")

ENVIRONMENT_PREFIX = "PIPELINE_"

#: Upper bounds: of waits, in seconds, and of ages, in days or hours. Larger values overflow clocks and dates.
DAY, CENTURY = 86_400, 36_500


class Checked(luigi.Parameter[T]):
    """A parameter whose text ``read`` turns into a value. ``read`` raises UsageError for a wrong text."""

    def __init__(self, read: Callable[[str], T], default: T, **kwargs: Any) -> None:
        self._read = read
        super().__init__(default=default, **kwargs)

    def parse(self, x: str) -> T:
        return self._read(x)


class Section(luigi.Config):
    """A section of luigi.cfg. Luigi takes its name from that of the class: ``LakeSettings`` is ``[lake]``."""

    def __init_subclass__(cls) -> None:
        cls.__name__ = cls.__name__.removesuffix("Settings").lower()


class PublisherSettings(Section):
    name = Checked(choice("tlc", "dtc", "sample"), "tlc", description="tlc, dtc or sample")
    url = luigi.Parameter(default="", description="base address instead of the publisher's own: https:, http: or file:")
    max_age = Checked(
        number(0, CENTURY), 7.0, description="days after which a web publisher is asked again about a loaded month"
    )
    absent_max_age = Checked(number(0, CENTURY), 6.0, description="hours for which a 'not published' answer is cached")
    timeout = Checked(
        number(1, DAY), 60.0, description="time-out of a request, and longest silence within a transfer, in seconds"
    )
    min_rate = Checked(
        number(0, 1e6),
        1000.0,
        description="lowest speed of a transfer, in bytes per second, over timeout; 0: any",
    )
    allow_synthetic = luigi.BoolParameter(
        description="allow synthetic months beside published ones, and in PostgreSQL and BigQuery"
    )


class RetrySettings(Section):
    attempts = Checked(
        whole(1, 1000), 5, description="tries of a request, a transfer or a stage before the stage fails"
    )
    backoff = Checked(number(0, DAY), 2.0, description="seconds before the second try; doubles, with jitter")
    max_backoff = Checked(
        number(0, DAY), 120.0, description="longest wait between two tries, in seconds, even if a server asks for more"
    )


class WorkspaceSettings(Section):
    url = luigi.Parameter(default="file:workspace", description="scratch between download and upload: file: or gs://")


class LakeSettings(Section):
    url = luigi.Parameter(default="file:lake", description="location of the published Parquet files: file: or gs://")
    keep_versions = luigi.BoolParameter(description="keep replaced Parquet files under versions/")


class WarehouseSettings(Section):
    url = luigi.Parameter(
        default="duckdb:///warehouse.duckdb",
        description="one or several, comma-separated: duckdb:///file, postgresql+psycopg2://..., bigquery://project/dataset",
    )
    lock_timeout = Checked(number(0, DAY), 60.0, description="seconds that a load waits for locks of others, in all")
    statement_timeout = Checked(
        number(1, DAY), 300.0, description="time-out of a PostgreSQL statement, in seconds; more for many rows"
    )
    memory_limit = Checked(memory, "160MB", description="memory of the embedded engine (DuckDB)")
    location = Checked(location, "US", description="location of a BigQuery dataset that the pipeline creates")
    maximum_bytes_billed = Checked(
        whole(1, 2**63 - 1), 10 * 1024**3, description="most bytes that one BigQuery query may bill"
    )


class CleanSettings(Section):
    rules = luigi.Parameter(
        default="zero_passengers,pickup_outside_month",
        description="rules that reject or fill, comma-separated, or none",
    )
    max_unreadable = Checked(number(0, 100), 5.0, description="percent of unreadable rows above which a month fails")


class RangeSettings(Section):
    datasets = Checked(
        choices(*MONTHLY, least=1),
        ",".join(MONTHLY),
        description="default datasets of AllTrips, Refresh, status and cron, comma-separated",
    )


class NotifySettings(Section):
    urls = luigi.Parameter(
        default="", description="addresses notified about runs, in the notation of Apprise; one or several"
    )
    on = Checked(
        choices("failed", "completed", "crashed", "republished", "schema_drift", "nothing_new"),
        "failed,completed,crashed,republished,schema_drift",
        description="events to notify: failed, completed, crashed, republished, schema_drift, nothing_new",
    )
    datasets = Checked(
        choices(*DATASETS),
        ",".join(DATASETS),
        description="datasets that notifications are about",
    )


class ProcessSettings(Section):
    start_method = Checked(
        choice("forkserver", "fork", "spawn"),
        "forkserver",
        description="how worker processes start: forkserver, fork or spawn",
    )
    log_level = Checked(
        choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", description="lowest severity that is logged"
    )
    log_format = Checked(choice("text", "json"), "text", description="format of the log: text or json")


#: All sections, in this order.
SECTIONS: tuple[type[Section], ...] = tuple(Section.__subclasses__())


#: The parameters of tasks that are settings too, by name, and their old names: see ``add_task``.
_of_tasks: dict[type[luigi.Task], tuple[Sequence[str], Sequence[str]]] = {}


def add_task(task: type[luigi.Task], names: Sequence[str], old_names: Sequence[str] = ()) -> None:
    """Let parameters of a task be settings too: luigi.cfg and the environment may give them."""
    _of_tasks[task] = names, old_names


def names(with_old: bool = False) -> Iterator[tuple[str, str, luigi.Parameter]]:
    """All settings as (section, name, parameter); ``with_old`` adds those that only an old luigi.cfg has."""
    for section in SECTIONS:
        for name, parameter in section.get_params():
            yield section.get_task_family(), name, parameter
    for task, (now, old) in _of_tasks.items():
        parameters = dict(task.get_params())
        for name in (*now, *(old if with_old else ())):
            yield task.get_task_family(), name, parameters[name]


def variable(section: str, name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{section}_{name}".upper()


class Origin(enum.IntEnum):
    """Where a value comes from. The higher overrides the lower."""

    DEFAULT, FILE, ENVIRONMENT, CALL = 0, 1, 2, 3


def origin_of(section: str, name: str) -> Origin:
    """Where the value of a setting or a parameter comes from, unless it is an argument of the call itself."""
    flags = CmdlineParser.get_instance()
    if flags is not None and getattr(flags.known_args, f"{section}_{name}", None):
        return Origin.CALL
    if variable(section, name) in os.environ:
        return Origin.ENVIRONMENT
    return Origin.FILE if get_config().has_option(section, name) else Origin.DEFAULT


def apply_environment() -> None:
    """Let the settings of the environment override those of luigi.cfg in this process."""
    config = get_config()
    renamed.take(os.environ, variable, variable)
    for section, name, _ in names(with_old=True):
        value = os.environ.get(variable(section, name))
        if value is not None:
            config.set(section, name, value.strip().replace("%", "%%"))  # env files leave line ends behind


def export_to_environment() -> None:
    """Export the effective settings so that child processes, which read luigi.cfg again, see the flags too.

    This process needs them as well: Luigi forgets its flags at the end of its command.
    """
    for section in SECTIONS:
        for name, parameter in section.get_params():
            value = parameter.task_value(section.get_task_family(), name)
            os.environ[variable(section.get_task_family(), name)] = str(parameter.serialize(value))
    apply_environment()


def given() -> dict[str, str]:
    """The settings in the environment, as variables."""
    variables = (variable(section, name) for section, name, _ in names(with_old=True))
    return {name: os.environ[name] for name in variables if name in os.environ}


def in_environment() -> dict[str, str]:
    """All ``PIPELINE_`` variables in the environment: settings, and what the processes of a run pass on."""
    return {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT_PREFIX)}


def take_over(variables: dict[str, str]) -> None:
    """Replace the ``PIPELINE_`` variables of the environment by ``variables``, and apply the settings among them."""
    for name in in_environment():
        del os.environ[name]
    os.environ.update(variables)
    apply_environment()


@contextmanager
def restored() -> Iterator[None]:
    """Restore the settings in environment and configuration at the end of this context."""
    config = get_config()
    variables = in_environment()
    values = {(section, name): config.get(section, name, None, raw=True) for section, name, _ in names(with_old=True)}
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

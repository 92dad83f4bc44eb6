"""The settings: one ``luigi.Config`` class per section of luigi.cfg.

Every setting may come from luigi.cfg, from the environment variable ``PIPELINE_<SECTION>_<NAME>`` or from the flag
``--<section>-<name>``; the later wins. Luigi itself knows the first and the last. ``apply_environment`` puts the
variables between them, in every process that imports the pipeline; ``export_to_environment`` exports the effective
settings, so that child processes, which read luigi.cfg again, see the flags too.

What a task's output depends on is a parameter of the task, not a setting that is looked up while it runs.
``label_of_...`` functions give the names without secrets that those parameters hold, and ``reveal_...`` find the full
URL again.
"""

from __future__ import annotations

import configparser
import difflib
import enum
import multiprocessing
import os
import pkgutil
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import luigi
import luigi.execution_summary
import luigi.interface
import luigi.notifications
import luigi.retcodes
import luigi.scheduler
import luigi.worker
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import get_config
from luigi.configuration.cfg_parser import InterpolationMissingEnvvarError
from luigi.task_register import Register, TaskClassNotFoundException

from . import luigi_config
from .errors import UsageError
from .files import lost_link

ENVIRONMENT_PREFIX = "PIPELINE_"

#: Longest waits, in seconds, and oldest ages, in days (or hours): beyond them clocks and dates overflow.
DAY, CENTURY = 86_400, 36_500

#: How alike two names are if one is taken for the other misspelt, from 0 to 1.
ALIKE = 0.8


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


#: Luigi's own sections that matter to us.
LUIGIS: tuple[type[luigi.Config], ...] = (
    luigi.interface.core,
    luigi.worker.worker,
    luigi.scheduler.scheduler,
    luigi.retcodes.retcode,
    luigi.notifications.email,
    luigi.execution_summary.execution_summary,
)


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


_is_valid = False


def ensure_valid() -> None:
    """``validate``, once per process, for tasks that a program builds itself.

    Worker processes have the settings that their parent has validated.
    """
    if not _is_valid and multiprocessing.parent_process() is None:
        apply_environment()
        validate()


def validate() -> None:
    """Read every setting once. Raises UsageError with one line that names the setting and what is wrong."""
    global _is_valid
    if os.environ.get("LUIGI_CONFIG_PARSER", "cfg") not in ("cfg", "conf", "ini"):
        raise UsageError("environment variable LUIGI_CONFIG_PARSER: settings are read from luigi.cfg only; unset it")
    try:
        folder = os.getcwd()
    except OSError:
        raise UsageError("the current folder is gone; call from another one") from None
    if not _is_utf8(folder):
        raise UsageError("the name of the current folder is not UTF-8; rename it, or call from another folder")
    _check_names()
    families = [section.get_task_family() for section in (*SECTIONS, *LUIGIS)]
    for family in ("DEFAULT", *families, "RangeMonthly", "resources", "task_history"):
        check_texts(family)
    for section, name, parameter in names():
        try:
            if section != "RangeMonthly":
                value = parameter.task_value(section, name)
                if not _is_utf8(str(value)):
                    raise UsageError("has bytes that are not UTF-8; write such a character of a path as %XX")
            elif text := get_config().get(section, name, ""):  # of a flag more is known where the flags are checked
                parameter.normalize(parameter.parse(text))
        except TaskClassNotFoundException:
            raise UsageError(f"{_named(section, name)}: there is no task {text!r}") from None
        except Exception as error:
            raise UsageError(f"{_named(section, name)}: {error}") from None
    _check_luigis()
    # What the tasks' parameters are made of; Luigi would bury an error of theirs in one of its own.
    for derived in (publisher_label, workspace_url, lake_url, warehouse_labels, rules_text):
        derived()
    from .reporting import journal

    journal.check_run_id()
    journal.folder()
    _check_resources()
    if notify().urls:
        from .reporting import notify as notifications

        notifications.addresses()
    _is_valid = True


def _is_utf8(text: str) -> bool:
    """Whether a text of the command line, the environment or the file system can be written down."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(section: str, name: str) -> str:
    """How an error names a setting."""
    if any((section, name.replace("-", "_")) == (of, known) for of, known, _ in names()):
        return f"setting [{section}] {name} (or {variable(section, name)})"
    return f"luigi.cfg: [{section}] {name}"


def check_texts(section: str) -> None:
    """Refuse texts that luigi.cfg does not mean so. They are never shown: one may hold a password."""
    config = get_config()
    for name in _options(section):
        try:
            with warnings.catch_warnings():  # about names with - in place of _
                warnings.simplefilter("ignore", DeprecationWarning)
                text = config.get(section, name)
        except InterpolationMissingEnvvarError as error:
            lacks = str(error).partition("environment variable ")[2].partition(".")[0]
            raise UsageError(f"{_named(section, name)}: there is no environment variable {lacks}; set it") from None
        except configparser.InterpolationError:
            raise UsageError(f"{_named(section, name)}: a percent sign in luigi.cfg is written %%") from None
        if comment := re.search(r"\s[;#]", text):
            raise UsageError(
                f"{_named(section, name)}: a blank and {comment[0][-1]} begin no comment behind a value; "
                "give the comment a line of its own"
            )
        for line in text.splitlines()[1:]:
            if re.match(r"[\w-]+\s*[=:](?!//)", line):
                raise UsageError(
                    f"{_named(section, name)}: the line below it begins with a blank, so it belongs to the value; "
                    "begin each setting at the start of its line"
                )


def _options(section: str) -> list[str]:
    """The settings that luigi.cfg has in a section, without those of [DEFAULT], which all sections have."""
    config = get_config()
    if section == config.default_section:
        return list(config.defaults())
    return (
        [name for name in config.options(section) if name not in config.defaults()]
        if config.has_section(section)
        else []
    )


def _check_luigis() -> None:
    """Read Luigi's own settings: one that it cannot read would end a run, or luigid, with a traceback."""
    for section in LUIGIS:
        for name, parameter in section.get_params():
            family = section.get_task_family()
            try:
                parameter.task_value(family, name)
            except Exception as error:
                raise UsageError(f"luigi.cfg: [{family}] {name}: {error}") from None
    for name, kind in (  # which Luigi reads by a way of its own, when it connects to luigid
        ("rpc_retry_attempts", Whole(least=1)),
        ("rpc_retry_wait", Whole(most=DAY)),
        ("rpc_connect_timeout", Number(least=0.1, most=DAY)),
    ):
        text = get_config().get("core", name, "1")
        try:
            kind.parse(text)
        except UsageError as error:
            raise UsageError(f"luigi.cfg: [core] {name}: {error}") from None
    for name, _ in luigi.retcodes.retcode.get_params():
        if not 0 <= getattr(luigi.retcodes.retcode(), name) <= 255:  # of 256 a shell would see 0
            raise UsageError(f"luigi.cfg: [retcode] {name} is not a number from 0 to 255")
    worker, core = luigi.worker.worker(), luigi.interface.core()
    if worker.task_limit is not None:
        # Luigi cuts the tree off below its root: the tasks that are left need those, and wait for them for ever.
        raise UsageError("--worker-task-limit (or [worker] task_limit): no task would ever run; give a shorter range")
    if core.assistant:
        raise UsageError(
            "--assistant (or [core] assistant): it would never end; give every host the same command, "
            "or start `python -m pipeline agent`"
        )
    if core.lock_size < 1 and not core.no_lock:
        raise UsageError(f"--lock-size {core.lock_size} (or [core] lock_size): nothing would run; give at least 1")
    scheduler = luigi.scheduler.scheduler()
    for family, name, value, least in (  # a wait without end, or none at all
        ("worker", "wait_interval", worker.wait_interval, 0.001),
        ("worker", "wait_jitter", worker.wait_jitter, 0),
        ("worker", "ping_interval", worker.ping_interval, 0.001),
        ("scheduler", "retry_delay", scheduler.retry_delay, 0),
        ("scheduler", "worker_disconnect_delay", scheduler.worker_disconnect_delay, 0.001),
    ):
        if not least <= value <= DAY:
            raise UsageError(f"luigi.cfg: [{family}] {name}: {value:g} is not between {least:g} and {DAY:,} seconds")
    if context := worker.task_process_context:
        try:
            pkgutil.resolve_name(context)
        except (ImportError, AttributeError, ValueError):
            raise UsageError(f"luigi.cfg: [worker] task_process_context: there is no {context}") from None
    if worker.ping_interval >= (delay := scheduler.worker_disconnect_delay):
        raise UsageError(
            f"luigi.cfg: [worker] ping_interval ({worker.ping_interval:g}) must be less than [scheduler] "
            f"worker_disconnect_delay ({delay:g}), or a run counts as dead between two pings"
        )


def _check_resources() -> None:
    """Refuse an amount that is no number, or that lets none of our tasks of a kind run."""
    config = get_config()
    kinds = [label.partition(":")[0].partition("@")[0] for label in warehouse_labels().split(",") if label]
    used = {"memory", f"download_{publisher().name}", *(f"load_{kind}" for kind in kinds)}
    for name in _options("resources"):
        text = config.get("resources", name)
        if not re.fullmatch(r"\s*\d+\s*", text):
            raise UsageError(f"luigi.cfg: [resources] {name}: {text!r} is not a whole number")
        if int(text) < 1 and name in used:
            raise UsageError(
                f"luigi.cfg: [resources] {name} = {int(text)}: the run would wait for ever; give at least 1"
            )


def _check_names() -> None:
    """Refuse what looks like one of our settings and is none: it would be passed over in silence."""
    path = os.environ.get("LUIGI_CONFIG_PATH")
    if path and not os.path.isfile(path):
        raise UsageError(f"environment variable LUIGI_CONFIG_PATH: there is no file {path}")
    config = get_config()
    ours = {section.get_task_family() for section in SECTIONS}
    known_sections = {*ours, *(section.get_task_family() for section in LUIGIS), "resources", "task_history"}
    by_lower = {section.lower(): section for section in (*known_sections, "RangeMonthly")}
    for section in config.sections():
        near = difflib.get_close_matches(section.lower(), by_lower, 1, ALIKE)
        if near and section not in by_lower.values() and section not in Register.task_names():
            raise UsageError(f"luigi.cfg: [{section}] is no section; did you mean [{by_lower[near[0]]}]?")
    for luigis in LUIGIS:
        family, choices = luigis.get_task_family(), {name for name, _ in luigis.get_params()}
        for name in _options(family):  # Luigi reads more than it declares, so only what looks misspelt is refused
            near = difflib.get_close_matches(name.replace("-", "_"), choices, 1, ALIKE)
            if near and name.replace("-", "_") not in {*choices, *luigi_config.DEFAULTS.get(family, {})}:
                raise UsageError(f"luigi.cfg: [{family}] has no setting {name}; did you mean {near[0]}?")
    for section in ours:
        choices = {name for of, name, _ in names() if of == section}
        for name in _options(section):
            if name.replace("-", "_") not in choices:
                near = difflib.get_close_matches(name, choices, 1)
                raise UsageError(
                    f"luigi.cfg: [{section}] has no setting {name}" + (f"; did you mean {near[0]}?" if near else "")
                )
    known = {variable(section, name).removeprefix(ENVIRONMENT_PREFIX) for section, name, _ in names()}
    prefixes = tuple({variable(section, "") for section, _, _ in names()})
    for name in os.environ:
        short = name.removeprefix(ENVIRONMENT_PREFIX)
        if not name.startswith(ENVIRONMENT_PREFIX) or short in known:
            continue
        is_ours = f"{name}_".startswith(prefixes)  # other programs have variables that begin with PIPELINE_ too
        near = difflib.get_close_matches(short, known, 1, *(() if is_ours else (ALIKE,)))
        if is_ours or near:
            raise UsageError(
                f"environment variable {name} names no setting"
                + (f"; did you mean {ENVIRONMENT_PREFIX}{near[0]}?" if near else "")
            )


# -- the configured backends ---------------------------------------------------------------------


def publisher_label() -> str:
    """The configured publisher as task parameters name it."""
    from .publishers import publishers

    return publishers.get(publisher().name, publisher().url).label


def lake_url() -> str:
    return _store_url("lake", lake().url)


def workspace_url() -> str:
    return _store_url("workspace", workspace().url)


def _store_url(section: str, url: str) -> str:
    from .storage import open_store
    from .storage.local import path_of

    try:
        found = open_store(url).url
        if found.startswith("file:") and (lost := lost_link(path_of(found))):
            raise UsageError(lost)  # or all that is behind the link would count as not there
    except UsageError as error:
        raise UsageError(f"[{section}] url: {error}") from None
    return found


def rules_text() -> str:
    """The configured rules, normalised, with their versions."""
    from .cleaning.rules import Rules

    try:
        return str(Rules.parse(clean().rules))
    except UsageError as error:
        raise UsageError(f"[clean] rules: {error}") from None


def warehouse_labels() -> str:
    """Labels of the configured warehouses, comma-separated, in the order of the setting; empty for none."""
    from .warehouse import label_of, split_urls

    return ",".join(label_of(url) for url in split_urls(warehouse().url))


def open_publisher(label: str) -> Any:
    """The publisher for a label; credentials come from ``[publisher] url`` if that has the same label."""
    from .publishers import publishers

    configured = publishers.get(publisher().name, publisher().url)
    return configured if configured.label == label else publishers.from_label(label)


def open_warehouse(label: str) -> Any:
    """The warehouse for a label; the password comes from ``[warehouse] url``, which must list it."""
    from .warehouse import Options, label_of, open_warehouse, split_urls

    settings = warehouse()
    options = Options(
        lock_timeout=settings.lock_timeout,
        statement_timeout=settings.statement_timeout,
        memory_limit=settings.memory_limit,
        location=settings.location,
        maximum_bytes_billed=settings.maximum_bytes_billed,
    )
    for url in split_urls(settings.url):
        if label_of(url) == label:
            return open_warehouse(url, options)
    if "://" in label:  # such a label is the whole URL: it never had a secret
        return open_warehouse(label, options)
    raise UsageError(f"warehouse {label} is not among those of [warehouse] url on this machine; add its URL there")


def retry_policy() -> Any:
    """The waits and tries of ``[publisher]``, cut short while somebody waits or a run is planned."""
    from .remote import for_server, spent
    from .retry import Policy

    settings = publisher()
    return Policy(
        timeout=for_server(settings.timeout),
        attempts=settings.attempts,
        backoff=settings.backoff,
        max_backoff=settings.max_backoff,
        patience=for_server(float("inf")),
        min_rate=settings.min_rate,
        spent=spent(),
    )

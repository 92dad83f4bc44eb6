"""All settings, checked before anything runs: ours, Luigi's own, and the names of variables and sections."""

from __future__ import annotations

import configparser
import difflib
import logging
import multiprocessing
import os
import pkgutil
import re
import warnings
from typing import Any

import luigi
import luigi.execution_summary
import luigi.interface
import luigi.notifications
import luigi.retcodes
import luigi.scheduler
import luigi.worker
from luigi.configuration import get_config
from luigi.configuration.cfg_parser import InterpolationMissingEnvvarError
from luigi.task_register import Register, TaskClassNotFoundException

from . import job, luigi_config, renamed, settings
from .errors import PipelineError, UsageError
from .reporting import journal, notify
from .setting_values import number, whole
from .settings import DAY, ENVIRONMENT_PREFIX, SECTIONS, names, variable
from .warehouse import kind_of

LOGGER = logging.getLogger("pipeline")

#: Similarity, from 0 to 1, above which a name counts as a misspelling of another.
ALIKE = 0.8

#: Luigi's own sections that matter to us.
LUIGIS: tuple[type[luigi.Config], ...] = (
    luigi.interface.core,
    luigi.worker.worker,
    luigi.scheduler.scheduler,
    luigi.retcodes.retcode,
    luigi.notifications.email,
    luigi.execution_summary.execution_summary,
)

_is_valid = False


def ensure_valid() -> None:
    """Call ``validate`` once per process, for tasks that a program builds itself.

    Worker processes use the settings that their parent has validated.
    """
    if not _is_valid and multiprocessing.parent_process() is None:
        settings.apply_environment()
        validate()


def validate() -> None:
    """Read every setting once. Raises UsageError with one line that names the setting and what is wrong."""
    global _is_valid
    luigi_config.check_parser()
    try:
        folder = os.getcwd()
    except OSError:
        raise UsageError("the current folder does not exist any more; run the command in another folder") from None
    if not _is_utf8(folder):
        raise UsageError("the name of the current folder is not UTF-8; rename it, or run the command in another folder")
    renamed.take_from_configuration(get_config())  # a program may have read another file
    _check_names()
    families = [section.get_task_family() for section in (*SECTIONS, *LUIGIS)]
    for family in ("DEFAULT", *families, "RangeMonthly", "resources", "task_history"):
        check_texts(family)
    for section, name, parameter in names(with_old=True):
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
            why = what_is_wrong(parameter, get_config().get(section, name, ""), error)
            raise UsageError(f"{_named(section, name)}: {why}") from None
    _check_luigis()
    # What the tasks' parameters are made of; Luigi would bury an error of theirs in one of its own.
    for derived in (job.publisher_label, job.workspace_url, job.lake_url, job.warehouse_labels, job.rules_text):
        derived()
    journal.check_run_id()
    journal.folder()
    _check_resources()
    if settings.NotifySettings().urls:
        notify.addresses()
    _is_valid = True
    renamed.warn()


def _is_utf8(text: str) -> bool:
    """Whether a text of the command line, the environment or the file system can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _named(section: str, name: str) -> str:
    """How an error names a setting."""
    if any((section, name.replace("-", "_")) == (of, known) for of, known, _ in names()):
        old = renamed.given_as(section, name)
        return f"setting [{section}] {name} (or {variable(section, name)})" + (f", given as {old}" if old else "")
    return f"luigi.cfg: [{section}] {name}"


def what_is_wrong(parameter: luigi.Parameter[Any], text: str, error: Exception) -> str:
    """Why a parameter cannot read a text. The errors of Luigi's own parameters are replaced by plain words."""
    if isinstance(error, PipelineError):
        return str(error)
    for kind, what in (
        (luigi.IntParameter, "a whole number"),
        (luigi.FloatParameter, "a number"),
        (luigi.BoolParameter, "true or false"),
    ):
        if isinstance(parameter, kind):
            return f"{text!r} cannot be read as {what}"
    return f"{text!r} cannot be read: {error}"


def check_texts(section: str) -> None:
    """Refuse texts that Luigi reads otherwise than they look. They are never shown: one may contain a password."""
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
                f"{_named(section, name)}: a blank and {comment[0][-1]} do not begin a comment after a value; "
                "write the comment on a line of its own"
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
    """Read Luigi's own settings: an unreadable one would end a run, or luigid, with a traceback."""
    for section in LUIGIS:
        for name, parameter in section.get_params():
            family = section.get_task_family()
            try:
                parameter.task_value(family, name)
            except Exception as error:
                why = what_is_wrong(parameter, get_config().get(family, name, ""), error)
                raise UsageError(f"luigi.cfg: [{family}] {name}: {why}") from None
    for name, read in (  # Luigi reads these by another way, when it connects to luigid
        ("rpc_retry_attempts", whole(1)),
        ("rpc_retry_wait", whole(0, DAY)),
        ("rpc_connect_timeout", number(0.1, DAY)),
    ):
        try:
            read(get_config().get("core", name, "1"))
        except UsageError as error:
            raise UsageError(f"luigi.cfg: [core] {name}: {error}") from None
    for name, _ in luigi.retcodes.retcode.get_params():
        if not 0 <= getattr(luigi.retcodes.retcode(), name) <= 255:  # of 256 a shell would see 0
            raise UsageError(f"luigi.cfg: [retcode] {name} is not a number from 0 to 255")
    worker, core = luigi.worker.worker(), luigi.interface.core()
    if worker.task_limit is not None:
        # Luigi cuts off the tree of tasks below its root: the tasks that are left would wait forever for those cut off.
        raise UsageError("--worker-task-limit (or [worker] task_limit): no task would ever run; give a shorter range")
    if core.assistant:
        raise UsageError(
            "--assistant (or [core] assistant): it would never end; give every host the same command, "
            "or start `python -m pipeline agent`"
        )
    if core.lock_size < 1 and not core.no_lock:
        raise UsageError(f"--lock-size {core.lock_size} (or [core] lock_size): nothing would run; give at least 1")
    scheduler = luigi.scheduler.scheduler()
    for family, name, value, least in (  # otherwise a wait without limit, or none at all
        ("worker", "wait_interval", worker.wait_interval, 0.001),
        ("worker", "wait_jitter", worker.wait_jitter, 0),
        ("worker", "ping_interval", worker.ping_interval, 0.001),
        ("scheduler", "retry_delay", scheduler.retry_delay, 0),
        ("scheduler", "worker_disconnect_delay", scheduler.worker_disconnect_delay, 0.001),
    ):
        if not least <= value <= DAY:
            raise UsageError(f"luigi.cfg: [{family}] {name}: {value:g} is not between {least:g} and {DAY:,} seconds")
    if context := renamed.value_now("worker", "task_process_context", worker.task_process_context):
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
    """Refuse an amount that is not a number, or with which no task of a kind could run."""
    config = get_config()
    kinds = map(kind_of, job.warehouses())
    used = {"memory", f"download_{settings.PublisherSettings().name}", *(f"load_{kind}" for kind in kinds)}
    for name in _options("resources"):
        text = config.get("resources", name)
        if not re.fullmatch(r"\s*\d+\s*", text):
            raise UsageError(f"luigi.cfg: [resources] {name}: {text!r} is not a whole number")
        if int(text) < 1 and name in used:
            raise UsageError(
                f"luigi.cfg: [resources] {name} = {int(text)}: the run would wait forever; give at least 1"
            )


def _check_names() -> None:
    """Refuse names that look like settings of ours but are none: they would be ignored without a message."""
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
        for name in _options(family):  # Luigi reads undeclared names too, so only likely misspellings are refused
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
    known = {variable(section, name).removeprefix(ENVIRONMENT_PREFIX) for section, name, _ in names(with_old=True)}
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


def validate_by_old_name() -> None:
    """The old name, ``pipeline.settings.validate``."""
    LOGGER.warning("pipeline.settings.validate is called pipeline.validation.validate now")
    validate()

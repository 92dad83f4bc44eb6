"""Fixtures that every test may use."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from luigi.configuration import get_config

from pipeline import settings as our_settings

from . import real_data as published
from . import warm

CHECKOUT = Path(__file__).resolve().parent.parent

#: Folders of tests that take seconds each.
LONG = ("end_to_end", "endurance")

# A shell that starts the tests in the background has them ignore Ctrl-C, and with them every command that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# So does nohup with SIGHUP. A handler of this process ignores it as well, and no command inherits that.
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda number, frame: None)

# No example is too slow, for that is about the machine. Fixtures are shared by the examples of a test on purpose. Each
# run has the same examples; other ones are what ``make endurance`` is for.
settings.register_profile(
    "tests",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("tests")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Deal the test modules to the workers, those of long tests first, so that none of these is begun last.

    ``--dist worksteal`` gives each worker a stretch of the list. Who has done his takes from the end of another's.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1:
        return
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    order = sorted(modules.items(), key=lambda module: (module[0].parent.name not in LONG, -len(module[1])))
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for _, tests in order:
        min(hands, key=len).extend(tests)
    items[:] = [item for hand in hands for item in hand]


@pytest.fixture(scope="session", autouse=True)
def warm_start() -> Iterator[None]:
    yield
    warm.WARM.stop()


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """A command that a test calls in this process sets up its own logging; the next test has what it expects."""
    loggers = [logging.getLogger(name) for name in ("pipeline", "luigi", "luigi-interface")]
    before = [(logger, logger.level, logger.propagate, list(logger.handlers)) for logger in loggers]
    yield
    for logger, level, propagate, handlers in before:
        logger.setLevel(level)
        logger.propagate, logger.handlers[:] = propagate, handlers


def configured() -> dict[str, dict[str, str]]:
    """Luigi's configuration and our settings in it, by section."""
    config = get_config()
    return {section: dict(config.items(section, raw=True)) for section in config.sections()}


@pytest.fixture(autouse=True)
def settings_as_before() -> Iterator[None]:
    """What a test leaves in the environment and in luigi's configuration, the next test does not inherit."""
    variables, before = our_settings.in_environment(), configured()
    yield
    if our_settings.in_environment() != variables:
        our_settings.take_over(variables)
    after = configured()
    if after == before:
        return
    config = get_config()
    for section in after.keys() - before.keys():
        config.remove_section(section)
    for section, values in before.items():
        if section not in after:
            config.add_section(section)
        for name in after.get(section, {}).keys() - values.keys():
            config.remove_option(section, name)
        for name, value in values.items():
            with suppress(ValueError):  # a text with a single %, which was refused
                config.set(section, name, value)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with published files (publishers, eras, samples, damaged); see ``tests/real_data.py``."""
    return published.FOLDER

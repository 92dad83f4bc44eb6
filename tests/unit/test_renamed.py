"""Old names of settings: accepted everywhere with one line of warning, and overridden by the new name."""

from __future__ import annotations

import os
import pkgutil
from collections.abc import Iterator

import luigi.worker
import pytest
from luigi.configuration import LuigiConfigParser

from pipeline import AllTrips, luigi_config, renamed, settings, validation
from pipeline.errors import UsageError
from pipeline.runner.task_context import TaskContext

from ..conftest import CHECKOUT


@pytest.fixture(autouse=True)
def nothing_told(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("_found", {}), ("_told", set()), ("_given_as", {})):
        monkeypatch.setattr(renamed, name, value)
    config = LuigiConfigParser()
    monkeypatch.setattr(LuigiConfigParser, "_instance", config)
    with settings.restored():
        for old, new in renamed.NAMES.items():
            for names in (old, new):
                os.environ.pop(settings.variable(*names), None)
        yield


def read(text: str) -> None:
    LuigiConfigParser.instance().read_string(text)
    luigi_config.complete(luigi_config.DEFAULTS)
    settings.apply_environment()
    validation.validate()


def test_every_new_name_is_a_setting() -> None:
    known = {(section, name) for section, name, _ in settings.names()}
    known |= {("AllTrips", name) for name, _ in AllTrips.get_params()}
    assert set(renamed.NAMES.values()) <= known and not known & set(renamed.NAMES)


def test_luigi_cfg(caplog: pytest.LogCaptureFixture) -> None:
    read("[publisher]\nattempts = 7\nmax-backoff = 50%%\n".replace("50%%", "50"))
    assert settings.RetrySettings().attempts == 7 and settings.RetrySettings().max_backoff == 50
    assert [record.message for record in caplog.records] == [
        "[publisher] attempts is called [retry] attempts now; [publisher] max_backoff is called [retry] max_backoff now"
    ]
    validation.validate()
    assert len(caplog.records) == 1, "told once"


def test_the_new_name_wins_and_the_line_says_so(caplog: pytest.LogCaptureFixture) -> None:
    read("[publisher]\nattempts = 7\n[retry]\nattempts = 3\n")
    assert settings.RetrySettings().attempts == 3
    assert "attempts is called [retry] attempts now, which is set too and wins" in caplog.text


def test_environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PIPELINE_PUBLISHER_ATTEMPTS", "7")
    read("[retry]\nattempts = 3\n")
    assert settings.RetrySettings().attempts == 7, "the environment wins over luigi.cfg, by whichever name"
    assert "PIPELINE_PUBLISHER_ATTEMPTS is called PIPELINE_RETRY_ATTEMPTS now" in caplog.text
    assert "PIPELINE_PUBLISHER_ATTEMPTS" not in os.environ, "or child processes would warn again"


def test_both_in_the_environment(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("PIPELINE_PUBLISHER_ATTEMPTS", "7")
    monkeypatch.setenv("PIPELINE_RETRY_ATTEMPTS", "4")
    read("")
    assert settings.RetrySettings().attempts == 4
    assert "is called PIPELINE_RETRY_ATTEMPTS now, which is set too and wins" in caplog.text


def test_wrong_value_is_told_with_the_name_that_was_given(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UsageError) as refused:
        read("[publisher]\nattempts = x\n")
    assert str(refused.value).endswith("RETRY_ATTEMPTS), given as [publisher] attempts: 'x' is not a whole number")
    assert not caplog.records, "one line is enough"


def test_setting_that_nobody_renamed_is_no_concern(caplog: pytest.LogCaptureFixture) -> None:
    read("[DEFAULT]\nattempts = 9\n[publisher]\nname = dtc\n")
    assert not caplog.records


@pytest.mark.parametrize("old", ["pipeline.operations.process.TaskContext", "pipeline.runner.process.TaskContext"])
def test_old_names_of_the_task_context(old: str, caplog: pytest.LogCaptureFixture) -> None:
    read(f"[worker]\ntask_process_context = {old}\n")
    now = luigi.worker.worker().task_process_context
    assert pkgutil.resolve_name(now) is TaskContext
    assert [record.message for record in caplog.records] == [
        f"[worker] task_process_context: {old} is called {now} now"
    ]


@pytest.mark.parametrize("old", ["pipeline.operations.process.TaskContext", "pipeline.runner.process.TaskContext"])
def test_old_names_of_the_task_context_in_other_places(old: str, caplog: pytest.LogCaptureFixture) -> None:
    read(f"[DEFAULT]\ncontext = {old}\n[worker]\ntask_process_context = %(context)s\n")
    now = renamed.value_now("worker", "task_process_context", old)
    assert now is not None and pkgutil.resolve_name(now) is TaskContext
    assert [record.message for record in caplog.records] == [
        f"[worker] task_process_context: {old} is called {now} now"
    ]


def test_luigi_cfg_of_version_0_1_means_what_it_meant(caplog: pytest.LogCaptureFixture) -> None:
    """Somebody keeps the whole file. It has every setting of then with its default, as the file of today has.

    A setting, dataset or publisher added since has its default.
    """
    raw, effective = [], []
    for path in ("luigi.cfg", "tests/data/version_0_1/luigi.cfg"):
        LuigiConfigParser._instance = LuigiConfigParser()
        read((CHECKOUT / path).read_text())
        config = LuigiConfigParser.instance()
        sections = config.sections()
        raw.append({(each, name): value for each in sections for name, value in config.items(each, raw=True)})
        effective.append({(each, name): parameter.task_value(each, name) for each, name, parameter in settings.names()})
    assert raw[1].pop(("RangeMonthly", "datasets")) == ""
    datasets_then = raw[1]["notify", "datasets"].split(",")
    for values in (*raw, *effective):
        for section in ("range", "notify"):
            names = values[section, "datasets"].split(",")
            values[section, "datasets"] = [name for name in names if name in datasets_then]
    assert effective[0] == effective[1]
    assert {name: raw[0].get(name) for name in raw[1]} == raw[1]
    (warning,) = [record.message for record in caplog.records]
    renamed_there = {old for old in renamed.NAMES if old[0] == "publisher"} | {("worker", "task_process_context")}
    assert warning.count(" is called ") == len(renamed_there)
    assert all(f"[{section}] {name}" in warning for section, name in renamed_there)

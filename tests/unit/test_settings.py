"""What the settings refuse; that the line names the setting is tested with the real command."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from pathlib import Path

import pytest
from luigi.configuration import LuigiConfigParser, get_config

from pipeline import job, settings, validation
from pipeline.datasets import MONTHLY
from pipeline.errors import UsageError
from pipeline.setting_values import whole


def numbers() -> Iterator[settings.Checked[float]]:
    for _, _, parameter in settings.names():
        if isinstance(parameter, settings.Checked) and isinstance(parameter._default, float):
            yield parameter


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "-inf", "1e12", "", "much"])
def test_numbers_have_bounds(text: str) -> None:
    found = list(numbers())
    assert len(found) > 5
    for number in found:
        with pytest.raises(UsageError):
            number.parse(text)


def test_greatest_ages_and_waits_do_not_overflow() -> None:
    assert dt.datetime.now() - dt.timedelta(days=settings.CENTURY)
    for _, name, parameter in settings.names():
        if name.endswith("max_age"):
            with pytest.raises(UsageError, match=f"is not between 0 and {settings.CENTURY}"):
                parameter.parse(str(settings.CENTURY + 1))
    for number in numbers():
        with pytest.raises(UsageError):  # PostgreSQL counts milliseconds in four bytes
            number.parse(str(2**31 // 1000))


@pytest.mark.parametrize("text", ["0", "65536", "-1", "80.5", ""])
def test_whole_numbers_have_bounds(text: str) -> None:
    with pytest.raises(UsageError):
        whole(1, 65535)(text)


def test_whole_number_without_an_upper_bound() -> None:
    assert whole(1)(str(2**40)) == 2**40
    with pytest.raises(UsageError, match="0 is less than 1"):
        whole(1)("0")


@pytest.mark.parametrize("text", ["", " , ", "purple", "yellow,purple"])
def test_datasets_of_a_range_are_named(text: str) -> None:
    parameter = dict(settings.RangeSettings.get_params())["datasets"]
    assert parameter.parse("fhv, yellow") == "fhv,yellow"
    with pytest.raises(UsageError, match=", ".join(MONTHLY)):
        parameter.parse(text)


@pytest.mark.parametrize("text", ["", "lots", "192", "-1GB", "GB", "1 gigabyte"])
def test_amounts_of_memory(text: str) -> None:
    parameter = dict(settings.WarehouseSettings.get_params())["memory_limit"]
    for good in ("192MB", "1.5 GiB", "80%", "512mb"):
        assert parameter.parse(good) == good
    with pytest.raises(UsageError, match="write it as 192MB"):
        parameter.parse(text)


def test_what_a_run_writes_into_environment_and_configuration_does_not_outlast_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = get_config()
    monkeypatch.delenv("PIPELINE_LAKE_URL", raising=False)
    monkeypatch.setenv("PIPELINE_CLEAN_RULES", "none")
    before = config.get("lake", "url", None), config.get("clean", "rules", None)
    environment = settings.in_environment()
    with settings.restored():
        settings.take_over({"PIPELINE_LAKE_URL": "file:50%", "PIPELINE_RUN_ID": "r1"})
        assert config.get("lake", "url") == "file:50%"
        settings.export_to_environment()
    assert (config.get("lake", "url", None), config.get("clean", "rules", None)) == before
    assert settings.in_environment() == environment


@pytest.mark.parametrize("kind", ["folder", "above", "chain", "loop"])
@pytest.mark.parametrize("section", ["lake", "workspace"])
def test_a_place_on_a_disk_that_is_not_mounted_is_not_empty(section: str, kind: str, tmp_path: Path) -> None:
    """Or ``verify`` would find nothing wrong, and ``status`` nothing done."""
    link, disk = tmp_path / "link", tmp_path / "disk"
    link.symlink_to(link if kind == "loop" else tmp_path / "next" if kind == "chain" else disk)
    if kind == "chain":
        (tmp_path / "next").symlink_to(disk)
    url = job.lake_url if section == "lake" else job.workspace_url
    with settings.restored():
        place = link / "inner" if kind == "above" else link
        settings.take_over({f"PIPELINE_{section.upper()}_URL": f"file:{place}"})
        says = rf"^\[{section}\] url: .*link is a link to .*, which is not there; mount the disk"
        with pytest.raises(UsageError, match=says):
            url()
        if kind != "loop":
            disk.mkdir()
            assert url() == f"file:{place}"


def test_health_checks_of_older_images_find_the_check(caplog: pytest.LogCaptureFixture) -> None:
    getattr(settings, "validate")()  # noqa: B009 - a name that users may have, and we do not
    assert "pipeline.settings.validate is called pipeline.validation.validate now" in caplog.text
    with settings.restored(), pytest.raises(UsageError, match="PIPELINE_LAKE_ULR"):
        settings.take_over({"PIPELINE_LAKE_ULR": "file:x"})
        getattr(settings, "validate")()  # noqa: B009


@pytest.mark.parametrize(
    ("section", "name", "text", "says"),
    [
        ("scheduler", "retry_delay", "soon", "luigi.cfg: [scheduler] retry_delay: 'soon' cannot be read as a number"),
        ("scheduler", "retry_count", "1.5", "luigi.cfg: [scheduler] retry_count: '1.5' cannot be read as a whole"),
        ("core", "workers", "two", "luigi.cfg: [core] workers: 'two' cannot be read as a whole number"),
        ("worker", "keep_alive", "maybe", "luigi.cfg: [worker] keep_alive: 'maybe' cannot be read as true or false"),
        ("core", "rpc_retry_wait", "-1", "luigi.cfg: [core] rpc_retry_wait: -1 is not between 0 and 86400"),
        ("lake", "keep_versions", "yes", "setting [lake] keep_versions (or PIPELINE_LAKE_KEEP_VERSIONS): 'yes' cannot"),
    ],
)
def test_wrong_values_are_told_in_plain_words(
    section: str, name: str, text: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LuigiConfigParser()
    config.read_string(f"[{section}]\n{name} = {text}\n")
    monkeypatch.setattr(LuigiConfigParser, "_instance", config)
    with pytest.raises(UsageError) as refused:
        validation.validate()
    assert str(refused.value).startswith(says)


def test_sections_have_the_names_of_luigi_cfg() -> None:
    assert [section.get_task_family() for section in settings.SECTIONS] == [
        *("publisher", "retry", "workspace", "lake", "warehouse", "clean", "range", "notify", "process")
    ]

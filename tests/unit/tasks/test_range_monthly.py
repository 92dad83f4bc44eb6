"""Which range RangeMonthly is: by flags, environment, luigi.cfg and the package's defaults."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

import luigi
import pytest
from luigi.cmdline_parser import CmdlineParser
from luigi.configuration import LuigiConfigParser

from pipeline import AllTrips, MonthlyTrips, RangeMonthly, luigi_config, renamed, settings
from pipeline.errors import UsageError
from pipeline.partition import add_months
from pipeline.planning import planner


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Iterator[LuigiConfigParser]:
    """An own luigi.cfg, empty at first."""
    found = LuigiConfigParser()
    found.read_string("[publisher]\nname = sample\n")
    monkeypatch.setattr(LuigiConfigParser, "_instance", found)
    luigi_config.complete(luigi_config.DEFAULTS)
    RangeMonthly.clear_instance_cache()
    yield found
    RangeMonthly.clear_instance_cache()


def by_flags(*flags: str) -> RangeMonthly:
    with CmdlineParser.global_instance(["--module", "pipeline", "RangeMonthly", *flags]) as parser:
        task = parser._get_task_cls()(**parser._get_task_kwargs())  # without what our command does around it
    assert isinstance(task, RangeMonthly)
    return task


def span(task: RangeMonthly) -> tuple[str, str]:
    return f"{task.start:%Y-%m}", f"{task.stop:%Y-%m}"


def test_short_flags_make_the_same_task(config: LuigiConfigParser) -> None:
    short = by_flags("--dataset", "green")
    long = by_flags("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')
    assert short.task_id == long.task_id and short.of is MonthlyTrips and short.of_params["dataset"] == "green"
    assert by_flags("--dataset", "green", "--of-params", '{"dataset": "green"}').task_id == long.task_id
    assert RangeMonthly(dataset="green").task_id == long.task_id != by_flags().task_id
    several = by_flags("--dataset", "yellow,green")
    assert several.of is AllTrips and several.of_params["dataset"] == "yellow,green"
    assert several.task_id == by_flags("--datasets", "yellow,green").task_id
    assert several.task_id == by_flags("--of", "AllTrips", "--of-params", '{"dataset": "yellow,green"}').task_id
    assert several.task_id == by_flags("--of", "AllTrips", "--dataset", " yellow, green,yellow").task_id
    one = by_flags("--of", "AllTrips", "--dataset", "green")
    assert one.of is AllTrips and one.task_id == by_flags("--datasets", "green").task_id
    assert several.task_id == by_flags("--of", "AllTrips", "--of-params", '{"datasets": "yellow,green"}').task_id
    assert several.task_id == by_flags("--of", "AllTrips", "--datasets", " yellow, green,yellow").task_id
    assert by_flags("--of", "Upload", "--dataset", "green").of_params["dataset"] == "green"
    assert short.clone() == short and short.clone(stop=dt.date(2021, 3, 1)).of_params == short.of_params


def test_what_is_given_in_a_stronger_place_wins(config: LuigiConfigParser, monkeypatch: pytest.MonkeyPatch) -> None:
    config.set("RangeMonthly", "dataset", "green")
    assert by_flags().of_params["dataset"] == "green"
    assert by_flags("--dataset", "fhv", "--start", "2019-01").of_params["dataset"] == "fhv"
    assert by_flags("--of-params", '{"dataset": "fhv"}', "--start", "2019-01").of_params["dataset"] == "fhv"
    assert by_flags("--of", "AllTrips").of is AllTrips
    assert by_flags("--datasets", "yellow").of is AllTrips
    monkeypatch.setenv("PIPELINE_RANGEMONTHLY_DATASETS", "yellow")
    settings.apply_environment()
    assert by_flags().of is AllTrips
    assert by_flags("--dataset", "green").of is MonthlyTrips
    config.set("RangeMonthly", "of", "MonthlyTrips")
    assert by_flags().of is AllTrips, "the environment wins over luigi.cfg"


def test_contradictions_in_luigi_cfg(config: LuigiConfigParser) -> None:
    config.set("RangeMonthly", "of", "MonthlyTrips")
    config.set("RangeMonthly", "dataset", "green,fhv")
    with pytest.raises(UsageError, match="--dataset goes with --of AllTrips; MonthlyTrips takes one dataset"):
        by_flags()


def test_one_dataset_goes_with_the_task_of_its_place(config: LuigiConfigParser) -> None:
    config.set("RangeMonthly", "of", "AllTrips")
    assert by_flags("--dataset", "green").of is MonthlyTrips, "a flag wins over luigi.cfg"
    config.set("RangeMonthly", "dataset", "green")
    assert by_flags().of is AllTrips and by_flags().of_params["dataset"] == "green"
    assert by_flags("--of", "AllTrips").of_params["dataset"] == settings.RangeSettings().datasets


def test_datasets_is_the_old_name_of_dataset(
    config: LuigiConfigParser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(renamed, "_told", set())
    now = AllTrips(month="2021-01", dataset="green,fhv")
    assert AllTrips(month="2021-01", datasets="green, fhv").task_id == now.task_id
    by_flags("--datasets", "green")
    config.set("AllTrips", "datasets", "green,fhv")
    luigi_config.complete(luigi_config.DEFAULTS)
    assert AllTrips(month="2021-01").task_id == now.task_id
    renamed.warn()
    with CmdlineParser.global_instance(
        ["--module", "pipeline", "AllTrips", "--month", "2021-01", "--datasets", "green,fhv"]
    ) as parser:
        assert parser.get_task_obj().task_id == now.task_id
    assert [record.message for record in caplog.records] == [
        "datasets of AllTrips is called dataset of AllTrips now",
        "datasets of RangeMonthly is called dataset, with --of AllTrips, now",
        "[AllTrips] datasets is called [AllTrips] dataset now",
        "--datasets is called --dataset now",
    ]
    assert now.datasets == now.dataset


def test_subclass_with_the_old_parameter_still_has_its_own_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planner, "plan_range", lambda state, job, datasets, *rest: datasets)

    class Two(AllTrips):
        datasets = luigi.Parameter(default="green,fhv")

    assert Two(month="2021-01").plan == ["green", "fhv"] and Two(month="2021-01", datasets="fhv").plan == ["fhv"]


def test_start_and_stop_belong_together(config: LuigiConfigParser, monkeypatch: pytest.MonkeyPatch) -> None:
    newest = f"{add_months(dt.date.today(), 1):%Y-%m}"
    assert span(by_flags()) == ("2021-01", "2021-04")
    assert span(by_flags("--start", "2022-01")) == ("2022-01", newest)
    assert span(by_flags("--RangeMonthly-start", "2022-01")) == ("2022-01", newest)
    assert span(RangeMonthly(start=dt.date(2022, 1, 1))) == ("2022-01", newest)
    assert span(by_flags("--start", "2022-01", "--stop", "2022-03")) == ("2022-01", "2022-03")
    assert span(by_flags("--stop", "2021-03")) == ("2021-01", "2021-03")
    config.set("RangeMonthly", "start", "2020-01")
    assert span(by_flags()) == ("2020-01", newest), "the stop of the package belongs to its start"
    config.set("RangeMonthly", "stop", "2020-03")
    assert span(by_flags()) == ("2020-01", "2020-03")
    assert span(by_flags("--start", "2019-01")) == ("2019-01", newest)
    assert span(by_flags("--stop", "2020-02")) == ("2020-01", "2020-02")
    with pytest.raises(UsageError, match="--stop 2020-01 is not later than 2020-01, the start of"):
        by_flags("--stop", "2020-01")
    monkeypatch.setenv("PIPELINE_RANGEMONTHLY_START", "2021-01")
    settings.apply_environment()
    assert span(by_flags()) == ("2021-01", newest)
    config.set("RangeMonthly", "stop", "")
    assert span(by_flags()) == ("2021-01", newest)


def test_open_range_ends_with_the_publisher(config: LuigiConfigParser) -> None:
    config.set("publisher", "name", "dtc")
    assert span(by_flags("--start", "2021-01", "--dataset", "green")) == ("2021-01", "2021-08")
    with pytest.raises(UsageError, match="offered"):
        by_flags("--start", "2022-01", "--dataset", "green")

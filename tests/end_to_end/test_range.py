"""RangeMonthly through the real command line: what it does, what it leaves alone, and what it refuses."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline.datasets import MONTHLY
from pipeline.partition import Partition
from pipeline.publishers import open_publisher
from pipeline.publishers.sample import generator

from ..conftest import CHECKOUT
from ..patience import PATIENCE, wait_for
from .conftest import Project

GREEN = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}')


def month_count(project: Project, dataset: str = "green") -> int:
    return int(project.query(f"SELECT count(DISTINCT file_month) FROM {dataset}_trips")[0][0])


def test_plain_range_then_nothing_to_do(project: Project) -> None:
    first = project.luigi("RangeMonthly")
    assert first.returncode == 0, first.stdout
    assert "yellow    2021-01" in first.stdout and "loaded" in first.stdout and "synthetic" in first.stdout
    rows = project.query(
        "SELECT file_month, row_count + rejected_count FROM etl_current WHERE dataset = 'yellow' ORDER BY 1"
    )
    assert rows == [(dt.date(2021, month, 1), 500) for month in (1, 2, 3)]
    assert project.query("SELECT count(*) FROM taxi_zones") == [(265,)]
    assert not list((project.folder / "workspace" / "scratch").rglob("*.arrow")), "scratch is pruned after the load"
    before = project.tables()
    again = project.luigi("RangeMonthly")
    assert again.returncode == 0
    assert "Nothing to do: 3 months complete." in again.stdout
    assert project.tables() == before
    assert project.query("SELECT count(*) FROM etl_loads") == [(4,)], "nothing was loaded twice"


def test_explicit_start_years_back_and_more_than_fifty_months(project: Project) -> None:
    project.environment["PIPELINE_PUBLISHER_URL"] = "sample:?rows=20&seed=1"
    downloads = ("--of", "Download", "--of-params", '{"dataset": "green"}')
    done = project.luigi("RangeMonthly", *downloads, "--start", "2014-01", "--stop", "2018-04")
    assert done.returncode == 0, done.stdout
    assert len(list(project.folder.glob("workspace/scratch/green/*/*/raw"))) == 51


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--start", "2021-01", "--stop", "2021-01"), " is empty"),
        (("--start", "2021-04", "--stop", "2021-01"), "is inverted"),
        (("--start", "2999-01", "--stop", "2999-03"), "later than this month"),
        (("--start", "2013-01", "--stop", "2014-03", *GREEN), "was never offered"),
        (("--start", "2021-13", "--stop", "2022-03"), "'2021-13' is not a month"),
        (("--of-params", '{"dataset": "purple"}'), "purple"),
        (("--of-params", '{"datset": "green"}'), "datset"),
        (("--of-params", "{dataset: green}"), "--of-params: '{dataset: green}' cannot be read"),
        (("--of-params", '["green"]'), "JSON object"),
        (("--workers", "two"), "--workers: 'two' cannot be read"),
        (("--workers", "0"), "at least 1"),
        (("--of", "AllTrips", "--start", "2005-01", "--stop", "2005-03"), "ever offered"),
        (("--stpo", "2021-04"), "did you mean --stop"),
        (("--of", "MonthlyTrip"), "MonthlyTrip"),
        (("--publisher-name", "uber"), "uber"),
        (("--publisher-url", "ftp://example.org"), "[publisher] url"),
        (("--lake-url", "s3://bucket"), "lake"),
        (("--warehouse-url", "oracle://scott:tiger@host/db"), "[warehouse] url"),
        (("--clean-rules", "zero_pasengers"), "zero_pasengers"),
        (("--clean-max-unreadable", "many"), "max_unreadable"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(project: Project, arguments: tuple[str, ...], says: str) -> None:
    refused = project.luigi("RangeMonthly", *arguments)
    assert refused.returncode == 2, refused.stdout
    lines = refused.stdout.strip().splitlines()
    assert len(lines) == 1, refused.stdout
    assert lines[0].startswith("error: ") and says in lines[0]
    assert "tiger" not in refused.stdout
    assert not (project.folder / "warehouse.duckdb").exists(), "refused before anything runs"


def test_month_that_was_never_offered_is_refused_without_a_range_too(project: Project) -> None:
    for arguments in (("MonthlyTrips", "--month", "2008-12"), ("AllTrips", "--month", "2008-12")):
        refused = project.luigi(*arguments)
        assert refused.returncode == 2, refused.stdout
        assert refused.stdout.count("\n") == 1 and "ever offered" in refused.stdout
    assert not (project.folder / "lake").exists(), "refused before anything runs"


def test_unknown_task_and_misspelt_environment_are_one_line(project: Project) -> None:
    unknown = project.luigi("RangeMontly")
    assert unknown.returncode == 2
    assert unknown.stdout == "error: there is no task RangeMontly; did you mean RangeMonthly?\n"
    project.environment["PIPELINE_LAKE_ULR"] = "file:elsewhere"
    misspelt = project.luigi("RangeMonthly")
    assert misspelt.returncode == 2
    assert "PIPELINE_LAKE_ULR names no setting; did you mean PIPELINE_LAKE_URL?" in misspelt.stdout


@pytest.mark.parametrize(
    ("line", "instead", "says"),
    [
        ("start = 2021-01", "start = 2021-1x", r"\[RangeMonthly\] start .*'2021-1x' is not a month"),
        ("of = MonthlyTrips", "of = Monthly", r"\[RangeMonthly\] of .*there is no task .Monthly"),
        ("retry_count = 5", "retry_count = five", r"luigi.cfg: \[scheduler\] retry_count: .*'five'"),
        ("memory = 4", "memory = lots", r"luigi.cfg: \[resources\] memory: 'lots' is not a whole number"),
        ("wait_interval = 1", "wait_interval = soon", r"luigi.cfg: \[worker\] wait_interval: .*'soon'"),
        ("[lake]", "[lak]", r"luigi.cfg: \[lak\] is no section; did you mean \[lake\]"),
    ],
)
def test_mistakes_in_the_file_of_settings_are_one_line(project: Project, line: str, instead: str, says: str) -> None:
    text = (CHECKOUT / "luigi.cfg").read_text()
    assert f"\n{line}\n" in text
    config = project.folder / "luigi.cfg"
    config.write_text(text.replace(f"\n{line}\n", f"\n{instead}\n"))
    project.environment["LUIGI_CONFIG_PATH"] = str(config)
    for run in (project.luigi("RangeMonthly"), project.pipeline("plan")):
        assert run.returncode == 2 and re.fullmatch(f"error: .*{says}.*\n", run.stdout), run.stdout
    assert not (project.folder / "lake").exists()


def test_file_of_settings_that_is_not_there_is_one_line(project: Project) -> None:
    project.environment["LUIGI_CONFIG_PATH"] = "nosuch.cfg"
    run = project.luigi("RangeMonthly")
    assert (
        run.returncode == 2
        and "error: environment variable LUIGI_CONFIG_PATH: there is no file nosuch.cfg" in run.stdout
    )


def test_workspace_that_cannot_be_written_is_one_line(project: Project) -> None:
    (project.folder / "file").touch()
    project.environment["PIPELINE_WORKSPACE_URL"] = "file:file/workspace"
    for run in (
        project.luigi("RangeMonthly"),
        project.pipeline("cron", "--last", "1"),
        project.pipeline("cron", "MonthlyTrips", "--dataset", "green", "--month", "2021-01"),
    ):
        assert run.returncode == 2, run.stdout
        assert re.fullmatch(r"error: \[workspace\] url: .*file/workspace/runs cannot be written to: .*\n", run.stdout)


def test_a_reader_who_goes_away_harms_no_run(project: Project) -> None:
    project.environment["PIPELINE_RANGEMONTHLY_STOP"] = "2021-02"
    command = project.luigi_command("RangeMonthly")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=project.folder, env=project.env, text=True, **pipes) as run:
        assert run.stdout is not None and run.stderr is not None
        run.stdout.close()
        log = run.stderr.read()
    assert run.returncode == 0, log
    assert "Traceback" not in log and "BrokenPipe" not in log
    assert "Nothing to do: 1 month complete" in project.luigi("RangeMonthly").stdout


def test_no_luigid_is_one_line_at_once(project: Project) -> None:
    refused = project.luigi("RangeMonthly", "--scheduler-host", "127.0.0.1", "--scheduler-port", "9")
    assert refused.returncode == 2
    assert refused.stdout.count("\n") == 1 and "no luigid answers" in refused.stdout


def test_warehouse_that_does_not_answer_is_one_line(project: Project) -> None:
    project.environment["PIPELINE_WAREHOUSE_URL"] = "postgresql+psycopg2://etl:tiger@127.0.0.1:9/trips"
    project.environment["PIPELINE_PUBLISHER_ALLOW_SYNTHETIC"] = "true"
    refused = project.luigi("RangeMonthly")
    assert refused.returncode == 35, refused.stdout
    assert refused.stdout.count("\n") == 1 and "127.0.0.1:9" in refused.stdout
    assert "tiger" not in refused.stdout
    assert not (project.folder / "lake" / "data").exists(), "found out before hours of work"


def test_stop_in_the_future_leaves_out_what_is_not_published(folder_project: Project) -> None:
    today = dt.date.today().replace(day=15)  # a day later the same months are still young enough to appear
    start, stop = today - dt.timedelta(days=90), today + dt.timedelta(days=60)
    file = folder_project.folder / "published" / "trip-data" / f"green_tripdata_{start:%Y-%m}.parquet"
    generator.make_file(Partition("green", start.replace(day=1)), file, rows=300, seed=1, layout="tlc")
    span = (*GREEN, "--start", f"{start:%Y-%m}", "--stop", f"{stop:%Y-%m}")
    done = folder_project.luigi("RangeMonthly", *span)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("not yet published") == 4
    assert month_count(folder_project) == 1
    again = folder_project.luigi("RangeMonthly", *span)
    assert again.returncode == 0
    assert "Nothing to do: 1 month complete, 4 months not yet published." in again.stdout


def test_gap_at_the_publisher_lets_the_others_go_on_and_has_its_own_exit_code(folder_project: Project) -> None:
    for workers in ("1", "2"):
        done = folder_project.luigi(
            "RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-05", "--workers", workers
        )
        assert done.returncode == 20, done.stdout
        assert "green 2020-03: missing at tlc" in done.stdout
        assert "Traceback" not in done.stdout
        assert month_count(folder_project) == 3


def test_missing_zone_file_fails_no_month(folder_project: Project) -> None:
    (folder_project.folder / "published" / "misc" / "taxi_zone_lookup.csv").unlink()
    done = folder_project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert done.returncode == 0, done.stdout
    assert "zones are left out: /" in done.stdout
    assert month_count(folder_project) == 2


def test_failing_month_fails_alone_with_its_exit_code(folder_project: Project) -> None:
    broken = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    broken.write_bytes(b"<html>Access Denied</html>")
    done = folder_project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert done.returncode == 30, done.stdout
    assert "failed: WrongFormat" in done.stdout and "Traceback" not in done.stdout
    below = done.stdout.partition("failed: WrongFormat")[2]
    assert "\ngreen 2020-02: " in below and "not a Parquet file" in below, "the reason is not only in the log above"
    assert month_count(folder_project) == 1
    lake = folder_project.folder / "lake"
    assert not list(lake.rglob("*2020-02*")), "a damaged file leaves nothing behind"


def test_file_without_rows_does_not_empty_its_month(folder_project: Project) -> None:
    arguments = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert folder_project.luigi(*arguments).returncode == 0
    month = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    pq.write_table(pq.read_table(month).slice(0, 0), month)
    refused = folder_project.luigi(*arguments)
    assert refused.returncode == 30
    assert "green_tripdata_2020-02.parquet: there is no row below the header" in refused.stdout
    assert folder_project.query("SELECT count(*) FROM green_trips WHERE file_month = '2020-02-01'") == [(300,)]


def test_republished_month_is_done_again_and_no_other(folder_project: Project) -> None:
    arguments = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert folder_project.luigi(*arguments).returncode == 0
    published = folder_project.folder / "published"
    (published / "trip-data" / "green_tripdata_2020-01.parquet").touch()
    assert "Nothing to do" in folder_project.luigi(*arguments).stdout, "touched, but the same bytes"
    month = published / "trip-data" / "green_tripdata_2020-02.parquet"
    generator.make_file(Partition("green", dt.date(2020, 2, 1)), month, rows=310, seed=2, layout="tlc")
    plan = folder_project.pipeline("plan", *arguments[1:], "--json")
    reasons = {entry["month"]: entry["reason"] for entry in json.loads(plan.stdout)}
    assert reasons["2020-02"] == "republished" and reasons["2020-01"] == ""
    assert folder_project.luigi(*arguments).returncode == 0
    assert folder_project.query("SELECT file_month, count(*) FROM green_trips GROUP BY 1 ORDER BY 1") == [
        (dt.date(2020, 1, 1), 300),
        (dt.date(2020, 2, 1), 310),
    ]
    loads = folder_project.query(
        "SELECT file_month, replaces IS NOT NULL FROM etl_loads WHERE dataset = 'green' ORDER BY loaded_at"
    )
    assert sorted(loads) == [(dt.date(2020, 1, 1), False), (dt.date(2020, 2, 1), False), (dt.date(2020, 2, 1), True)]


@pytest.mark.parametrize("loaded", [False, True])
def test_scratch_of_a_killed_run_does_not_hide_a_republication(folder_project: Project, loaded: bool) -> None:
    """A run that died before it tidied up leaves files that were made from what the publisher has replaced since."""
    month = ("--dataset", "green", "--month", "2020-02")
    file = folder_project.folder / "published" / "trip-data" / "green_tripdata_2020-02.parquet"
    assert folder_project.luigi("WriteParquet", *month).returncode == 0
    if loaded:
        scratch, kept = folder_project.folder / "workspace" / "scratch", folder_project.folder / "kept"
        shutil.copytree(scratch, kept)
        assert folder_project.luigi("MonthlyTrips", *month).returncode == 0
        assert not [path for path in scratch.rglob("*") if path.is_file()], "nothing is left of a month that is loaded"
        shutil.rmtree(scratch, ignore_errors=True)
        kept.rename(scratch)
    generator.make_file(Partition("green", dt.date(2020, 2, 1)), file, rows=310, seed=2, layout="tlc")
    again = folder_project.luigi("MonthlyTrips", *month)
    assert again.returncode == 0, again.stdout
    assert folder_project.query("SELECT count(*) FROM green_trips") == [(310,)]


def test_changed_rules_redo_the_asked_range_only(project: Project) -> None:
    wide = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03")
    assert project.luigi(*wide).returncode == 0
    narrow = ("RangeMonthly", *GREEN, "--start", "2020-02", "--stop", "2020-03", "--clean-rules", "none")
    assert project.luigi(*narrow).returncode == 0
    rows = project.query("SELECT file_month, rules FROM etl_current WHERE dataset = 'green' ORDER BY 1")
    both = "zero_passengers@1,pickup_outside_month@1"
    assert [rules for _, rules in rows] == [both, "none"]
    assert project.query("SELECT count(*) FROM green_trips WHERE file_month = '2020-02-01'") == [(500,)]


def test_stages_do_not_run_again_after_their_scratch_was_pruned(project: Project) -> None:
    month = ("--dataset", "green", "--month", "2020-02")
    assert project.luigi("MonthlyTrips", *month).returncode == 0
    for stage in ("Download", "Clean", "WriteParquet", "Upload"):
        again = project.luigi(stage, *month)
        assert again.returncode == 0
        assert "Nothing to do" in again.stdout, stage


def test_forget_makes_a_month_run_again(project: Project) -> None:
    month = ("--dataset", "green", "--month", "2020-02")
    assert project.luigi("MonthlyTrips", *month).returncode == 0
    before = project.tables()
    assert "is forgotten" in project.pipeline("forget", *month).stdout
    assert project.tables() == before, "no row is removed"
    status = project.pipeline("status", "--dataset", "green", "--start", "2020-02", "--stop", "2020-03")
    assert re.search(r"^green +2020-02 +to do +forgotten$", status.stdout, re.MULTILINE), status.stdout
    again = project.luigi("MonthlyTrips", *month)
    assert again.returncode == 0 and "Load green 2020-02" in again.stdout
    assert project.tables() == before


def test_deleted_lake_file_is_made_again(project: Project) -> None:
    month = ("--dataset", "green", "--month", "2020-02")
    assert project.luigi("MonthlyTrips", *month).returncode == 0
    before = project.tables()
    parquet = project.folder / "lake" / "data" / "green" / "green_tripdata_2020-02.parquet"
    bytes_before = parquet.read_bytes()
    group, times = pq.read_metadata(parquet).row_group(0), {"lpep_pickup_datetime", "lpep_dropoff_datetime"}
    chunks = {(chunk := group.column(i)).path_in_schema: chunk for i in range(group.num_columns)}
    dictionaries = {name for name, chunk in chunks.items() if chunk.has_dictionary_page}
    assert times < set(chunks)
    assert "VendorID" in dictionaries and not dictionaries & times, "times hardly come again"
    shutil.rmtree(project.folder / "lake")
    assert project.luigi("MonthlyTrips", *month).returncode == 0
    assert parquet.read_bytes() == bytes_before, "the same input gives the same bytes"
    assert project.tables() == before


def test_all_trips_leaves_out_what_was_never_offered(project: Project) -> None:
    done = project.luigi("RangeMonthly", "--of", "AllTrips", "--start", "2014-12", "--stop", "2015-02")
    assert done.returncode == 0, done.stdout
    loaded = project.query("SELECT dataset, count(*) FROM etl_current WHERE dataset <> 'zones' GROUP BY 1 ORDER BY 1")
    months = [dt.date(2014, 12, 1), dt.date(2015, 1, 1)]
    first = {name: open_publisher("sample").months_offered(name)[0] for name in MONTHLY}
    offered = {name: sum(first[name] <= month for month in months) for name in MONTHLY}
    assert loaded == sorted((name, count) for name, count in offered.items() if count)
    assert {("fhv", 1), ("green", 2), ("yellow", 2)} <= set(loaded) and not offered["fhvhv"]


def test_two_warehouses_from_one_upload(project: Project) -> None:
    month = ("--dataset", "green", "--month", "2020-02")
    both = "duckdb:///warehouse.duckdb,duckdb:///second.duckdb"
    assert project.luigi("MonthlyTrips", *month).returncode == 0
    second = project.luigi("MonthlyTrips", *month, "--warehouse-url", both)
    assert second.returncode == 0
    assert "Download" not in second.stdout, "a warehouse that is added later is filled from the lake"
    count = "SELECT count(*), bit_xor(hash(t)) FROM green_trips t"
    assert project.query(count) == project.query(count, "second.duckdb")


def test_load_alone_fills_the_configured_warehouse_and_asks_which_of_several(project: Project) -> None:
    month = ("--dataset", "green", "--month", "2020-02")
    assert project.luigi("Load", *month).returncode == 0
    assert "Nothing to do" in project.luigi("MonthlyTrips", *month).stdout
    both = ("--warehouse-url", "duckdb:///warehouse.duckdb,duckdb:///second.duckdb")
    refused = project.luigi("Load", *month, *both)
    assert refused.returncode == 2 and "name it with --warehouse" in refused.stdout
    named = project.luigi("Load", *month, *both, "--warehouse", "duckdb:///second.duckdb")
    assert named.returncode == 0, named.stdout
    assert "Nothing to do" in project.luigi("MonthlyTrips", *month, *both).stdout


def test_upload_alone_tells_of_the_lake_and_of_no_warehouse(project: Project) -> None:
    run = project.luigi("Upload", "--dataset", "green", "--month", "2020-01")
    assert run.returncode == 0
    assert re.search(r"green +2020-01 +500 .* in the lake", run.stdout), run.stdout
    assert "Lake  " in run.stdout and "Warehouse  " not in run.stdout


def test_zone_table_alone(project: Project) -> None:
    assert project.luigi("TaxiZones").returncode == 0
    assert project.query("SELECT count(*) FROM taxi_zones") == [(265,)]
    assert "Nothing to do" in project.luigi("TaxiZones").stdout
    reads = "import pipeline; print(len(pipeline.read('zones')))"
    assert project.run(sys.executable, "-c", reads).stdout == "265\n"


def test_synthetic_months_are_kept_apart_from_published_ones(folder_project: Project) -> None:
    assert folder_project.luigi("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-02").returncode == 0
    before = folder_project.tables()
    sampled = ("--publisher-name", "sample", "--publisher-url", "sample:?rows=50&seed=1")
    mixed = folder_project.luigi("MonthlyTrips", "--dataset", "green", "--month", "2020-06", *sampled)
    assert mixed.returncode == 2
    assert "allow_synthetic" in mixed.stdout and "Traceback" not in mixed.stdout
    assert folder_project.tables() == before
    allowed = folder_project.luigi(
        "MonthlyTrips", "--dataset", "green", "--month", "2020-06", *sampled, "--publisher-allow-synthetic"
    )
    assert allowed.returncode == 0, allowed.stdout


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_flags_reach_worker_processes(folder_project: Project, method: str) -> None:
    """A child that is not forked reads luigi.cfg again; every flag of the parent has to reach it all the same."""
    folder = folder_project.folder
    Path(folder / "published").rename(folder / "elsewhere")
    (folder / "elsewhere" / "misc" / "taxi_zone_lookup.csv").unlink()  # each of its stages would be a process too
    done = folder_project.luigi(
        *("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-02", "--workers", "2"),
        *(
            "--publisher-url",
            "file:elsewhere",
            "--lake-url",
            "file:other-lake",
            "--workspace-url",
            "file:other-scratch",
        ),
        *("--warehouse-url", "duckdb:///other.duckdb", "--clean-rules", "zero_passengers"),
        *("--process-start-method", method),
    )
    assert done.returncode == 0, done.stdout
    rules = folder_project.query("SELECT DISTINCT rules FROM etl_current WHERE dataset = 'green'", "other.duckdb")
    assert rules == [("zero_passengers@1",)]
    assert folder_project.query("SELECT count(DISTINCT run_id) FROM etl_loads", "other.duckdb") == [(1,)]
    folders = {path.name for path in folder.iterdir() if path.is_dir()}
    assert folders == {"elsewhere", "other-lake", "other-scratch"}
    assert not (folder / "warehouse.duckdb").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ctrl_c_is_one_line_and_the_same_command_goes_on(project: Project, workers: str) -> None:
    wanted = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03", "--workers", workers)
    gate = project.gate("Clean", "started")
    run = project.start(project.luigi_command(*wanted), group=True)
    gate.wait(run)
    os.killpg(run.pid, signal.SIGINT)
    output, _ = run.communicate(timeout=PATIENCE)
    gate.open()
    assert run.returncode == 130, output
    assert "Traceback" not in output, output
    assert "stopped; the same command goes on" in output, output
    assert project.luigi(*wanted).returncode == 0
    assert project.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'") == [(2,)]


def test_sigterm_to_the_whole_group_stops_gently(project: Project) -> None:
    """As systemd and the shell's ``kill %1`` send it: worker processes finish their stages."""
    wanted = ("RangeMonthly", *GREEN, "--start", "2020-01", "--stop", "2020-03", "--workers", "2")
    gate = project.gate("Clean", "started")
    run = project.start(project.luigi_command(*wanted), group=True)
    gate.wait(run)
    os.killpg(run.pid, signal.SIGTERM)
    wait_for(lambda: gate.is_told_to_stop, run)
    gate.open()
    output, _ = run.communicate(timeout=PATIENCE)
    assert run.returncode == 25, output
    assert "ERROR" not in output and "Traceback" not in output, output
    assert project.luigi(*wanted).returncode == 0


def test_two_runs_at_once_give_one_result(project: Project) -> None:
    wanted = ("--start", "2020-01", "--stop", "2020-04", "--workers", "2")
    command = project.luigi_command("RangeMonthly", *GREEN, *wanted)
    runs = [project.start(command) for _ in range(2)]
    outputs = [run.communicate(timeout=PATIENCE)[0] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], "\n".join(outputs)
    for output in outputs:  # each month was loaded, by this run or by the other
        assert "not done" not in output and not re.search(r"green .* in the lake", output), output
    assert project.query("SELECT count(*) FROM etl_loads WHERE dataset = 'green'") == [(3,)]
    assert project.query("SELECT sum(row_count) FROM etl_current WHERE dataset = 'green'") == project.query(
        "SELECT count(*) FROM green_trips"
    )

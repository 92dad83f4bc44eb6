"""Mistakes in settings and flags, through the real commands: one line, exit code 2, and nothing has run."""

from __future__ import annotations

import itertools
import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..conftest import CHECKOUT
from .conftest import Project
from .mistaken import Case, Forks, Result

BUILD = """
import datetime, luigi, pipeline
luigi.build([pipeline.MonthlyTrips(dataset="green", month=datetime.date(2021, 1, 1))], local_scheduler=True)
"""


@pytest.mark.parametrize(
    "verb", [("status", "--dataset", "green"), ("cron", "--last", "1"), ("ui", "--port", "1"), ("plan",), ("doctor",)]
)
def test_luigi_cfg_that_does_not_parse(project: Project, verb: tuple[str, ...]) -> None:
    (project.folder / "luigi.cfg").write_text("[lake]\nurl = file:a\nurl = file:b\n")
    del project.environment["PIPELINE_PUBLISHER_NAME"]
    project.environment["LUIGI_CONFIG_PATH"] = str(project.folder / "luigi.cfg")
    refused = project.pipeline(*verb)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout == "error: luigi.cfg, line 3: [lake] url is set a second time; keep one of them\n"


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PIPELINE_LAKE_ULR", "file:x", "did you mean PIPELINE_LAKE_URL?"),
        ("PIPELINE_NOTIFY_URLS", "bogus://x", "[notify] urls"),
        ("PIPELINE_CLEAN_RULES", "nonsense", "nonsense"),
        ("PIPELINE_LAKE_URL", "file:/proc/nope", "[lake] url: file:/proc/nope"),
        ("PIPELINE_WAREHOUSE_URL", "duckdb:////proc/nope/w.duckdb", "[warehouse] url: duckdb:////proc/nope"),
    ],
)
def test_settings_of_somebody_elses_program(project: Project, name: str, value: str, says: str) -> None:
    (project.folder / "build.py").write_text(BUILD)
    project.environment[name] = value
    refused = project.run(sys.executable, "build.py")
    assert refused.returncode == 1
    last = refused.stdout.strip().splitlines()[-1]
    assert last.startswith("pipeline.errors.UsageError: ") and says in last
    assert refused.stdout.count("Traceback") == 1 and "Error when parsing" not in refused.stdout
    assert not (project.folder / "lake" / "data").exists() and not list(project.folder.glob("workspace/scratch/*"))


def test_line_end_behind_a_variable_is_no_part_of_it(project: Project) -> None:
    project.environment["PIPELINE_LAKE_URL"] = "file:own\n"
    assert project.luigi("TaxiZones").returncode == 0
    assert (project.folder / "own" / "data").is_dir()


def test_old_names_of_settings_work_with_one_line_of_warning(project: Project) -> None:
    project.environment["PIPELINE_PUBLISHER_BACKOFF"] = "0.1"
    says = "PIPELINE_PUBLISHER_BACKOFF is called PIPELINE_RETRY_BACKOFF now; "
    done = project.luigi("TaxiZones", "--publisher-attempts", "3", "--workers", "2")
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(f"{says}--publisher-attempts is called --retry-attempts now\n") == 1
    assert done.stdout.count(" is called ") == 2, done.stdout
    asked = project.pipeline("status", "--dataset", "green", "--publisher-attempts", "3", "--retry-attempts", "4")
    assert asked.returncode == 0 and asked.stdout.count("now, which is set too and wins\n") == 1, asked.stdout


@pytest.mark.parametrize("code", ["MonthlyTrips(month=202101)]", "MonthlyTrips(month='2021-01')], workers=0"])
def test_arguments_of_somebody_elses_program(project: Project, code: str) -> None:
    refused = project.run(
        sys.executable, "-c", f"import luigi, pipeline; luigi.build([pipeline.{code}, local_scheduler=True)"
    )
    assert refused.returncode == 1
    assert refused.stdout.strip().splitlines()[-1].startswith("pipeline.errors.UsageError: "), refused.stdout


@pytest.mark.parametrize(
    "program",
    [
        ("luigi", "--module", "pipeline"),
        ("python", "-m", "luigi", "--module", "pipeline"),
        ("python", "-m", "pipeline"),
    ],
)
def test_commands_themselves(project: Project, program: tuple[str, ...]) -> None:
    """Hundreds more, not in processes of their own: test_many_mistakes."""
    words = ("status",) if program[-1] == "pipeline" and "--module" not in program else ("TaxiZones",)
    command = str(Path(sys.executable).with_name(program[0]))
    odd = "--publisher-timeout=\x1b]0;t\x07postgresql://u:s3cret@h/db"
    refused = project.run(command, *program[1:], *words, odd)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.startswith("error: setting [publisher] timeout") and refused.stdout.count("\n") == 1
    assert "\x1b" not in refused.stdout and "s3cret" not in refused.stdout
    assert not list(project.folder.iterdir())


def test_output_that_cannot_be_written(project: Project) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("this system has no /dev/full")
    done = project.run("sh", "-c", f"{sys.executable} -m pipeline status --dataset green --start 2025-01 >/dev/full")
    assert (done.returncode, done.stdout.count("\n")) == (2, 1), done.stdout
    assert done.stdout.startswith("error: the output cannot be written: ")


#: What stands in a configuration, and what is said of it.
CONFIGURATIONS = [
    ("[retcode]\ntask_failed = x\n", "luigi.cfg: [retcode] task_failed is not a number"),
    ("[retcode]\ntask_failed = 256\n", "luigi.cfg: [retcode] task_failed is not a number from 0 to 255"),
    ("[Lake]\nurl = file:a\n", "[Lake] is no section; did you mean [lake]?"),
    ("[resource]\nmemory = 1\n", "did you mean [resources]?"),
    ("[RangeMontly]\nof = AllTrips\n", "did you mean [RangeMonthly]?"),
    ("[worker]\nkeep_alve = true\n", "[worker] has no setting keep_alve; did you mean keep_alive?"),
    ("[retcode]\nnot_run = 100%\n", "luigi.cfg: [retcode] not_run: a percent sign"),
    ("[lake]\nurl = file:lake   ; my lake\n", "[lake] url (or PIPELINE_LAKE_URL): a blank and ;"),
    ("[warehouse]\nurl = postgresql://u:se%40cret@localhost/db\n", "written %%"),
]

#: The words behind ``luigi --module pipeline``, and what is said of them.
FLAGS: list[tuple[tuple[str, ...], str]] = [
    ((), "no task is named"),
    (("RangeMonthly", "--retcode-task-failed", "x"), "--retcode-task-failed: 'x' is not a number"),
    (("RangeMonthly", "--task-limit", "0"), "--task-limit: 0 is less than 1"),
    (("RangeMonthly", "--now", "9e19"), "--now"),
    (("RangeMonthly", "--now", "99999999999999999999"), "--now 99999999999999999999 is not a time"),
    (("RangeMonthly", "--lake-url", "file:a%00"), "[lake] url"),
    (("RangeMonthly", "--of-params", '{"lake": 5}'), '"lake" is a text'),
    (("RangeMonthly", "--of-params", '{"dataset": ["green"]}'), '"dataset" is a text'),
    (("RangeMonthly", "--dataset", "purple"), "purple"),
    (("RangeMonthly", "--dataset", "yellow,green", "--of", "MonthlyTrips"), "MonthlyTrips takes one dataset"),
    (("RangeMonthly", "--dataset", "green", "--datasets", "yellow"), "give one of them"),
    (
        ("RangeMonthly", "--dataset", "green", "--of", "TaxiZones"),
        "--dataset goes with --of MonthlyTrips; TaxiZones",
    ),
    (("RangeMonthly", "--datasets", "green", "--of", "MonthlyTrips"), "--datasets goes with --of AllTrips"),
    (("RangeMonthly", "--dataset", "green", "--of-params", '{"dataset": "fhv"}'), "give one of them"),
    (
        ("RangeMonthly", "--of", "TaxiZones"),
        "TaxiZones has no months; run it by itself: luigi",
    ),
    (("RangeMonthly", "--of", "Refresh"), "Refresh has no months"),
    (("RangeMonthly", "--stop", "2020-06"), "is not later than 2021-01, the start of [RangeMonthly]; give --start"),
    (("RangeMonthly", "--start", "2999-01"), "later than this month"),
    (("MonthlyTrips", "--dataset", "green"), "--month is missing: MonthlyTrips needs it"),
    (("TaxiZones", "--dataset", "green"), "unrecognized arguments: --dataset"),
    (("MonthlyTrips", "--mont", "2021-01"), "did you mean --month?"),
    (("MonthlyTrips", "--month", "2021-01", "--warehouse-url", "bigquery://p-1/my-trips"), "letters, digits and _"),
    (
        ("MonthlyTrips", "--month", "2021-01", "--lake-url", "gs://My-Lake/x"),
        "the name of a bucket has no capitals",
    ),
]

#: What a run would refuse in the end, by settings; the doctor says the same.
REFUSED = [
    ({"PIPELINE_WORKSPACE_URL": "file:/proc/nope"}, "/proc/nope"),
    ({"PIPELINE_LAKE_URL": "file:/proc/nope"}, "/proc/nope"),
    ({"PIPELINE_LAKE_URL": "file:taken/lake"}, "taken"),
    ({"PIPELINE_WAREHOUSE_URL": "duckdb:////proc/nope/w.duckdb"}, "/proc/nope"),
    ({"PIPELINE_WAREHOUSE_URL": "duckdb:///taken/w.duckdb"}, "taken"),
    ({"PIPELINE_WAREHOUSE_URL": "duckdb:///folder"}, "is a folder"),
    ({"PIPELINE_WAREHOUSE_URL": "duckdb:///fifo"}, "is no regular file"),
    ({"PIPELINE_WAREHOUSE_URL": "duckdb:///theirs.sqlite"}, "is an SQLite database"),
]

#: The last of each is run by the commands themselves too; the others in forks of one process, see ``mistaken``.
PROOFS = [CONFIGURATIONS[-1][0], FLAGS[-1][0], REFUSED[-1][0]]

Run = Callable[[Project, list[str]], Result]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Run ``luigi`` or ``pipeline`` with these words in the folder of a project."""
    with Forks(tmp_path_factory.mktemp("forks")) as forks:

        def run_one(project: Project, words: list[str]) -> Result:
            environment = {"LUIGI_CONFIG_PATH": str(CHECKOUT / "luigi.cfg"), **project.environment}
            return forks.run(Case(words, environment, folder=str(project.folder)))

        yield run_one


def run_command(project: Project, words: list[str]) -> Result:
    done = project.luigi(*words[3:]) if words[0] == "luigi" else project.pipeline(*words[1:])
    return Result(done.returncode, done.stdout)


def projects(project: Project) -> Iterator[Project]:
    """Projects like this one, each in an empty folder of its own."""
    for number in itertools.count():
        folder = project.folder / str(number)
        folder.mkdir()
        yield Project(folder, dict(project.environment))


def luigi_words(*words: str) -> list[str]:
    return ["luigi", "--module", "pipeline", *words, "--local-scheduler"]


def assert_is_refused(refused: Result, says: str) -> None:
    assert refused.code == 2, refused.output
    assert refused.output.startswith("error: ") and refused.output.count("\n") == 1, refused.output
    assert says in refused.output


def test_value_in_luigi_cfg(project: Project, run: Run) -> None:
    for (text, says), each in zip(CONFIGURATIONS, projects(project), strict=False):
        (each.folder / "own.cfg").write_text(text)
        each.environment["LUIGI_CONFIG_PATH"] = str(each.folder / "own.cfg")
        for way in (run, run_command) if text in PROOFS else (run,):
            refused = way(each, luigi_words("MonthlyTrips", "--month", "2021-01"))
            assert_is_refused(refused, says)
            assert "cret" not in refused.output
            assert {entry.name for entry in each.folder.iterdir()} == {"own.cfg"}


def test_flags(project: Project, run: Run) -> None:
    for (words, says), each in zip(FLAGS, projects(project), strict=False):
        for way in (run, run_command) if words in PROOFS else (run,):
            refused = way(each, luigi_words(*words))
            assert_is_refused(refused, says)
            assert "did you mean" not in refused.output or "did you mean --month" in refused.output
            assert not (each.folder / "lake").exists() and not (each.folder / "warehouse.duckdb").exists()


def test_place_that_cannot_be_made(project: Project, run: Run) -> None:
    for (environment, says), each in zip(REFUSED, projects(project), strict=False):
        (each.folder / "taken").write_text("a file where a folder should be")
        (each.folder / "folder").mkdir()
        os.mkfifo(each.folder / "fifo")
        sqlite3.connect(each.folder / "theirs.sqlite").execute("CREATE TABLE a (b)").connection.close()
        each.environment |= environment
        for way in (run, run_command) if environment in PROOFS else (run,):
            for task in (("MonthlyTrips", "--month", "2021-01"), ("RangeMonthly", "--stop", "2021-02")):
                refused = way(each, luigi_words(*task))
                assert_is_refused(refused, says)
                assert refused.output.count("] url: ") <= 1, "the setting is named once"
            told = way(each, ["pipeline", "doctor"])
            assert told.code == 1, told.output
            assert any(line.startswith("FAIL") and says in line for line in told.output.splitlines()), told.output
            assert not list(each.folder.glob("workspace/scratch/*"))


def test_folder_that_can_be_made_is_made(project: Project) -> None:
    project.environment |= {
        "PIPELINE_WAREHOUSE_URL": "duckdb:///new/place/w.duckdb",
        "PIPELINE_LAKE_URL": "file:another/lake",
    }
    told = project.pipeline("doctor")
    assert told.returncode == 0, told.stdout
    project.pipeline("status", "--start", "2021-01", "--stop", "2021-02")
    assert not (project.folder / "new").exists() and not (project.folder / "another").exists()
    done = project.luigi("MonthlyTrips", "--month", "2021-01")
    assert done.returncode == 0, done.stdout
    assert project.query("SELECT count(*) FROM etl_current", "new/place/w.duckdb")


MONTH = ("MonthlyTrips", "--dataset", "green", "--month", "2020-01")
RANGE = ("RangeMonthly", "--dataset", "green", "--start", "2020-01", "--stop", "2020-03")


def test_synthetic_months_are_refused_where_published_ones_are(folder_project: Project) -> None:
    done = folder_project.luigi(*MONTH)
    assert done.returncode == 0, done.stdout
    sample = {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": "sample:?rows=50&seed=1"}
    published = dict(folder_project.environment)
    for changes in ({"PIPELINE_WAREHOUSE_URL": "duckdb:///other.duckdb"}, {"PIPELINE_LAKE_URL": "file:other"}):
        folder_project.environment = {**published, **sample, **changes}
        for task in (MONTH, RANGE, ("AllTrips", "--month", "2020-01")):
            refused = folder_project.luigi(*task)
            assert refused.returncode == 2, refused.stdout
            assert refused.stdout.startswith("error: ") and refused.stdout.count("\n") == 1
            assert "published months only" in refused.stdout and "allow_synthetic" in refused.stdout
        told = folder_project.pipeline("doctor")
        assert told.returncode == 1 and "published months only" in told.stdout, told.stdout
    assert not [path for path in folder_project.folder.glob("workspace/scratch/**/*") if path.is_file()]
    folder_project.environment = published
    again = folder_project.luigi(*MONTH)
    assert again.returncode == 0 and "Nothing to do" in again.stdout


THEIRS = """
import luigi, pipeline

class Report(luigi.Task):
    def requires(self):
        return pipeline.MonthlyTrips(dataset="green", month="2020-02")
    def complete(self):
        return False
"""


def test_task_of_somebody_else_that_needs_what_is_refused(folder_project: Project) -> None:
    assert folder_project.luigi(*MONTH).returncode == 0
    (folder_project.folder / "theirs.py").write_text(THEIRS)
    folder_project.environment |= {
        "PIPELINE_PUBLISHER_NAME": "sample",
        "PIPELINE_PUBLISHER_URL": "sample:?rows=50&seed=1",
        "PYTHONPATH": str(folder_project.folder),
    }
    command = [word.replace("pipeline", "theirs") for word in folder_project.luigi_command("Report")[1:]]
    refused = folder_project.run(folder_project.luigi_command()[0], *command)
    assert refused.returncode == 2, refused.stdout
    assert refused.stdout.startswith("error: ") and refused.stdout.count("\n") == 1, refused.stdout
    assert "published months only" in refused.stdout


def test_published_months_are_refused_where_synthetic_ones_are(folder_project: Project) -> None:
    published = dict(folder_project.environment)
    folder_project.environment |= {
        "PIPELINE_PUBLISHER_NAME": "sample",
        "PIPELINE_PUBLISHER_URL": "sample:?rows=50&seed=1",
    }
    done = folder_project.luigi(*MONTH)
    assert done.returncode == 0, done.stdout
    folder_project.environment = published
    for task in (MONTH, RANGE):
        refused = folder_project.luigi(*task)
        assert refused.returncode == 2 and "holds synthetic months" in refused.stdout, refused.stdout
    assert "holds synthetic months" in folder_project.pipeline("doctor").stdout
    folder_project.environment["PIPELINE_PUBLISHER_ALLOW_SYNTHETIC"] = "true"
    assert folder_project.luigi(*MONTH).returncode == 0


@pytest.mark.parametrize(
    "environment",
    [
        {"PIPELINE_LAKE_URL": "gs://my-lake/nyc"},
        {"PIPELINE_WAREHOUSE_URL": "bigquery://my-project/trips", "PIPELINE_PUBLISHER_ALLOW_SYNTHETIC": "true"},
    ],
)
def test_credentials_are_a_folder(project: Project, environment: dict[str, str]) -> None:
    """Docker makes one where the file to mount is not there."""
    key = project.folder / "key.json"
    key.mkdir()
    project.environment |= {**environment, "GOOGLE_APPLICATION_CREDENTIALS": str(key)}
    failed = project.luigi("MonthlyTrips", "--month", "2021-01")
    assert failed.returncode == 35, failed.stdout
    assert failed.stdout.count("\n") == 1 and f"{key} is a folder, not a key file" in failed.stdout
    told = project.pipeline("doctor")
    assert told.returncode == 1 and f"{key} is a folder, not a key file" in told.stdout
    assert "Traceback" not in told.stdout

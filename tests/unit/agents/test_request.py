"""Commands that a queue accepts: the pipeline's tasks with the flags that select months, in any spelling."""

from __future__ import annotations

import datetime as dt
import importlib
import subprocess
import sys
from typing import Any

import pytest
from luigi.cmdline_parser import CmdlineParser

from pipeline import job, renamed
from pipeline.agents import request
from pipeline.agents.effective_settings import effective_settings
from pipeline.errors import UsageError

RIGHT = {
    "RangeMonthly": [],
    "RangeMonthly --start 2021-1 --stop=2021-04": ["--start=2021-01", "--stop=2021-04"],
    "RangeMonthly --dataset green --reverse": ["--dataset=green", "--reverse"],
    "RangeMonthly --reverse --task-limit 3": ["--reverse", "--task-limit=3"],
    "RangeMonthly --datasets green,fhv,green": ["--datasets=green,fhv"],
    "RangeMonthly --dataset green,fhv,green": ["--dataset=green,fhv"],
    "RangeMonthly --of AllTrips": ["--of=AllTrips"],
    "AllTrips --month 2020-01 --dataset green,fhv": ["--month=2020-01", "--dataset=green,fhv"],
    'RangeMonthly --of-params {"dataset":"green"}': ['--of-params={"dataset": "green"}'],
    "MonthlyTrips --dataset zones --month 2020-01": ["--dataset=zones", "--month=2020-01"],
    "AllTrips --month 2020-01 --clean-rules none": ["--month=2020-01", "--clean-rules=none"],
    "TaxiZones": [],
    "Refresh --since 2024-01 --dataset yellow": ["--since=2024-01", "--dataset=yellow"],
    "Upload --publisher-name dtc --month 2020-01": ["--publisher-name=dtc", "--month=2020-01"],
}


@pytest.mark.parametrize(("words", "flags"), RIGHT.items())
def test_allowed_words_have_one_spelling(words: str, flags: list[str]) -> None:
    asked = request.read(words.split())
    assert asked.words == [words.split()[0], *flags]
    assert request.read(asked.words) == asked
    with CmdlineParser.global_instance(["--module", "pipeline", *asked.words], allow_override=True) as parser:
        known = vars(parser.known_args)
        assert all(known[flag.replace("-", "_")] == (value or True) for flag, value in asked.values.items())


def test_what_a_request_does_not_say_is_this_hosts() -> None:
    asked, bare = (
        request.read(["TaxiZones", *flags]) for flags in (["--publisher-name=dtc", "--clean-rules=none"], [])
    )
    given, own = effective_settings(asked), effective_settings(bare)
    assert (given["publisher"].partition("=")[0], given["rules"]) == ("dtc", "none")
    assert own["publisher"] == job.publisher_label() != given["publisher"]
    assert own["rules"] == job.rules_text() != "none"


SECRET = "hunter2hunter2"

#: Ways in which somebody tries to get more out of an agent, or a secret into a queue.
WRONG = [
    "",
    "--help",
    "--module os RangeMonthly",
    "RangeMonthly --module os",
    "RangeMonthly --module=os",
    "RangeMonthly --modul os",
    "RangeMonthly --help",
    "RangeMonthly --help-all",
    "RangeMonthly -h",
    "RangeMonthly --",
    "RangeMonthly -- --module os",
    "RangeMonthly @/etc/passwd",
    "RangeMonthly 2021-01",
    "RangeMonthly --start 2021-01 2021-02",
    "RangeMonthly --start --module",
    "RangeMonthly --start",
    "RangeMonthly --start=",
    "RangeMonthly --start 2021-13",
    "RangeMonthly --start 2021-01 --start 2021-02",
    "RangeMonthly --star 2021-01",
    "RangeMonthly --of os.path.join",
    "RangeMonthly --of Report",
    "RangeMonthly --of RangeMonthly",
    'RangeMonthly --of-params {"dataset":"green","warehouse":"x"}',
    'RangeMonthly --of-params {"dataset":"green","dataset":"fhv"}',
    'RangeMonthly --of-params {"dataset":["green"]}',
    'RangeMonthly --of-params {"dataset":null}',
    'RangeMonthly --of-params {"dataset":NaN}',
    'RangeMonthly --of-params {"publisher":"tlc@file:/etc"}',
    'RangeMonthly --of-params {"month":"2021-01"}',
    'RangeMonthly --of-params {"warehouse":"green"}',
    "RangeMonthly --of-params []",
    "RangeMonthly --of-params " + "[" * 1900,
    "RangeMonthly --of_params {}",
    "RangeMonthly --of-params {}",
    "RangeMonthly --param-name now",
    "RangeMonthly --now 1e300",
    "RangeMonthly --months-back 1",
    "RangeMonthly --task-limit 0",
    "RangeMonthly --task-limit -5",
    "RangeMonthly --task-limit " + "9" * 1000,
    "RangeMonthly --reverse=maybe",
    "MonthlyTrips --warehouse duckdb:////tmp/x",
    "MonthlyTrips --lake file:/tmp",
    "MonthlyTrips --workspace file:/tmp",
    "MonthlyTrips --publisher tlc@file:/etc",
    "MonthlyTrips --rules none",
    "MonthlyTrips --MonthlyTrips-warehouse x",
    "MonthlyTrips --dataset ../../etc",
    "MonthlyTrips --dataset purple",
    "MonthlyTrips --month 2020-01\x00",
    "MonthlyTrips --month 2020-01\x1b[31m",
    "MonthlyTrips --month \udcff",
    "MonthlyTrips --clean-rules os.system",
    "MonthlyTrips --publisher-name evil",
    "Refresh --since 2024-01 --dataset zones",
    "AllTrips --datasets ,",
    "TestNotificationsTask",
    "Task",
    "warehouse --url x",
    "pipeline.tasks.wrappers.MonthlyTrips",
    "RangeMonthly " + "x" * 3000,
    "RangeMonthly " + "--reverse " * 100,
]

#: Flags of Luigi's command and of our settings, all of them the agent's own.
OWN = """
    --publisher-url --lake-url --workspace-url --warehouse-url --warehouse-lock-timeout --notify-urls
    --notify-on --process-log-level --process-start-method --clean-max-unreadable --publisher-max-age
    --publisher-attempts --retry-attempts --publisher-allow-synthetic --scheduler-url --scheduler-host --scheduler-port
    --local-scheduler --workers --logging-conf-file --log-level --no-lock --lock-pid-dir --assistant
    --core-scheduler-url --worker-task-process-context --email-receiver --smtp-password --parallel-scheduling
    --retcode-task-failed --batch-email-email-interval --execution-summary-summary-length --take-lock
    --sendgrid-apikey
""".split()  # noqa: SIM905


@pytest.mark.parametrize("words", WRONG)
def test_what_is_not_allowed_is_one_line(words: str) -> None:
    dt.datetime.strptime("2021", "%Y")  # Python loads a module for the first one
    before = set(sys.modules)
    with pytest.raises(UsageError) as error:
        request.read(words.split(" ") if words else [])
    assert len(str(error.value)) < 400 and str(error.value).isprintable()
    assert set(sys.modules) == before, "nothing was imported for it"


@pytest.mark.parametrize("flag", OWN)
def test_what_is_the_agents_own_is_refused_in_every_spelling(flag: str) -> None:
    for words in (
        [flag, SECRET],
        [f"{flag}={SECRET}"],
        [flag[:-1], SECRET],
        [f"{flag[:-1]}={SECRET}"],
        [flag.replace("-", "_").replace("__", "--", 1), SECRET],
        [flag.upper(), SECRET],
    ):
        with pytest.raises(UsageError) as error:
            request.read(["RangeMonthly", "--start", "2021-01", *words])
        assert SECRET not in str(error.value)
    with pytest.raises(UsageError, match=f"^{flag} is the agent's own: .*a password does not belong in a queue"):
        request.read(["RangeMonthly", flag, SECRET])


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://u:{SECRET}@h/db",
        f"postgresql://h/db?password={SECRET}",
        f"https://h/x?sig={SECRET}",
        f"slack://{SECRET}/b/c",
        f"mailto://u:{SECRET}@example.com",
        f"tgram://{SECRET}/1",
        f"token={SECRET}",
        f"--token={SECRET}",
        f"--password-{SECRET}",
        SECRET,
    ],
)
def test_secret_is_nowhere_shown(text: str) -> None:
    places = [[text], ["RangeMonthly", text], ["RangeMonthly", "--start", "2021-01", text]]
    for task, flags in request._FLAGS.items():
        places += [words for flag in flags for words in ([task, f"--{flag}", text], [task, f"--{flag}={text}"])]
    for words in places:
        with pytest.raises(UsageError) as error:
            request.read(words)
        assert SECRET not in str(error.value)


def test_every_task_of_a_queue_exists_with_its_flags() -> None:
    import pipeline

    for task, flags in request._FLAGS.items():
        found = getattr(pipeline, task, None)
        if found is None:
            found = next(
                getattr(importlib.import_module(f"pipeline.tasks.{module}"), task, None)
                for module in ("download", "clean", "write_parquet", "upload", "load")
                if hasattr(importlib.import_module(f"pipeline.tasks.{module}"), task)
            )
        parameters = {name.replace("_", "-") for name, _ in found.get_params()}
        parameters |= {name for section, name in renamed.NAMES if section == task}
        assert set(flags) - set(request._ANY) <= parameters


def test_submit_shows_no_secret_that_argparse_has_met(tmp_path: Any) -> None:
    for words in ([f"--nonsense={SECRET}", "RangeMonthly"], [f"--queue=a://{SECRET}", "RangeMonthly"]):
        done = subprocess.run(
            [sys.executable, "-m", "pipeline", "submit", *words], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 2 and SECRET not in done.stdout + done.stderr, done.stderr
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

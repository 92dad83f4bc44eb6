"""Hundreds of mistakes, each one line and exit code 2 before anything is done, waited for or asked.

They run in forks of one process, see ``mistaken``; that the commands themselves do the same: test_mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..unit.test_sanitize import is_clean
from .mistaken import HANGS, Case, Forks, Result

#: Part of every address that is given, and of no line that is said.
SECRET = "s3cr3tPassw0rd"

#: A line is no longer, whatever was given.
LONGEST = 1500

SAMPLE = {"PIPELINE_PUBLISHER_NAME": "sample", "PIPELINE_PUBLISHER_URL": "sample:?rows=50"}
LUIGI = ["luigi", "--module", "pipeline"]
MONTH = [*LUIGI, "MonthlyTrips", "--local-scheduler", "--dataset", "green", "--month", "2021-01"]
RANGE = [*LUIGI, "RangeMonthly", "--local-scheduler", "--start", "2021-01", "--stop", "2021-02"]

EVIL = "a\x1b]0;t\x07\u202eb"
HUGE = "A" * 100_000
LABEL = "a" * 64
NO_MONTHS = [
    "2021-13",
    "2021-00",
    "2021",
    "0000-01",
    "10000-01",
    "2021-01-01",
    "\u0662\u0660\u0662\u0661-\u0660\u0661",
    "abc",
    " ",
    EVIL,
    HUGE,
    "-1",
    "1e9",
]
NO_NUMBERS = [
    "abc",
    "nan",
    "inf",
    "-1",
    "1e400",
    "9e19",
    "\u0663",
    "1_000",
    "0x10",
    "1,5",
    "--",
    EVIL,
    HUGE,
    "\udcff",
    "%",
    " ",
]
NO_WHOLE = ["abc", "1.5", "-1", "0", "9" * 5000, "²", "\u0661", "1_000", EVIL, "1e3"]
NO_STORES = [
    *("file:", "file:///", "file://host/x", "file:a%00b", "gs:", "gs://", "gs:///x", "gs://My-Lake/x", "gs://ab"),
    *("s3://bucket/x", "lake", "http://h/x", f"ftp://u:{SECRET}@h/x", "file:/dev/null/x", "file:/proc/nope"),
    *("file:" + "a" * 300, "file:" + HUGE, "gs://" + "a" * 300, "gs://bucket/../x", "//x", ":", EVIL),
    "file:\udcff",
]
NO_WAREHOUSES = [
    *("duckdb:", "duckdb://", "duckdb:///", "duckdb://h/x", "duckdb:///a%00b", "duckdb:///x?y", "duckdb:///:memory:"),
    *(
        "duckdb:////proc/nope/w",
        "duckdb:///" + "a" * 300,
        "duckdb:////dev/null/w",
        "w.duckdb",
        "sqlite:///x",
        EVIL,
        HUGE,
    ),
    *(f"mysql://u:{SECRET}@h/db", f"postgresql://u:{SECRET}@h", f"postgresql://u:{SECRET}@h:99999/db"),
    *(f"postgresql://u:{SECRET}@h:0/db", f"postgresql://u:{SECRET}@h:x/db", f"postgresql://u:{SECRET},more@h/db"),
    *("bigquery:", "bigquery://", "bigquery://p", "bigquery://p/", "bigquery://P-1/d", "bigquery://p-1/my-d"),
    *("duckdb:///a,duckdb:///a", "duckdb:///a,b", "bigquery://p-1/d/e", f"postgresql://u:{SECRET}@[::1/db"),
    *("duckdb:///\udcff", f"postgresql://u:{SECRET}\udcff@h/db"),
]
NO_SITES = [
    *("http:", "http://", "http:///x", "ftp://h/x", "h/x", "//h/x", "http://[::1", "http://h:99999/", "http://h:x/"),
    *(f"http://u:{SECRET}@h x/", f"http://u:{SECRET}@a..b/", "http://a..b/x", f"http://{LABEL}.com/", "http://h:0/"),
    *("file:", "file://host/x", "file:a%00b", "sample:?rows=50", f"https://u:{SECRET}@[::g]/", EVIL, "http://h\\x/"),
    *("http://" + "a." * 130 + "com/", "http://.a/", "http://a b/", "http://*/"),
    "file:\udcff",
]
NO_WORDS = ["", "tcl", "TLC", "tlc,dtc", EVIL, HUGE, " ", f"slack://{SECRET}"]

#: What each setting refuses. A flag that is empty counts as not given.
SETTINGS = {
    "publisher-name": NO_WORDS[1:],
    "publisher-max-age": NO_NUMBERS,
    "publisher-timeout": ["0", "1e9", *NO_NUMBERS[:3]],
    "publisher-attempts": [*NO_WHOLE, "99999999999999999999"],
    "publisher-backoff": NO_NUMBERS[:5],
    "retry-attempts": NO_WHOLE[:4],
    "retry-max-backoff": NO_NUMBERS[:5],
    "publisher-allow-synthetic": ["yes", "1", "TRUE?", EVIL],
    "workspace-url": [*NO_STORES[::5], "file:" + "a" * 300],
    "lake-url": NO_STORES,
    "warehouse-url": NO_WAREHOUSES,
    "warehouse-statement-timeout": ["0", *NO_NUMBERS[:5]],
    "warehouse-lock-timeout": NO_NUMBERS[:5],
    "warehouse-memory-limit": ["192", "MB", "-1MB", "1e3MB", "\u0661MB", EVIL],
    "warehouse-location": ["-1MB", "a b", "http://h/", EVIL],
    "warehouse-maximum-bytes-billed": [*NO_WHOLE[:4], "99999999999999999999"],
    "clean-rules": ["nonsense", "none,zero_passengers", "zero_passengers@99", "zero_passengers;", EVIL, HUGE],
    "clean-max-unreadable": ["101", *NO_NUMBERS[:4]],
    "range-datasets": [",", "yellow,purple", "zones", EVIL],
    "notify-urls": [f"bogus://{SECRET}", "x", ",", f"slack://{SECRET}", EVIL],
    "notify-on": ["failed,nonsense", EVIL],
    "notify-datasets": ["purple", EVIL],
    "process-start-method": ["thread", EVIL],
    "process-log-level": ["debug", "TRACE"],
    "process-log-format": ["xml"],
}

OF_TASKS = {
    "month": NO_MONTHS,
    "dataset": ["purple", "Green", "yellow,green", EVIL, HUGE, f"json://{SECRET}"],
    "workers": ["0", "-1", "1e9", "abc", "1000000000", "1.5"],
    "lake": ["x", "gs://", EVIL],
    "warehouse": ["nosuch", EVIL],
    "scheduler-port": ["abc", "0", "99999", "-1"],
    "scheduler-url": ["h", "ftp://h", "http://", f"http://u:{SECRET}@h:99999/", f"http://u:{SECRET}@"],
    "logging-conf-file": ["nosuch", "/dev/null", EVIL],
    "worker-wait-interval": ["0", "-1", "nan", "1e9"],
    "worker-wait-jitter": ["-1", "1e9"],
    "worker-ping-interval": ["0", "21"],
    "worker-task-limit": ["1"],
    "scheduler-retry-delay": ["1e308", "-1", "x"],
    "lock-size": ["x"],
    "retcode-task-failed": ["x", "256", "-1", "1.5"],
    "mont": ["2021-01", f"json://{SECRET}"],
    "no-such-flag": ["x", f"json://{SECRET}"],
}

OF_RANGES = {
    "start": [*NO_MONTHS[::3], "2999-01", "2021-02", "1999-01"],
    "stop": [*NO_MONTHS[1::3], "2021-01", "2020-12"],
    "of": ["nosuch", "TaxiZones", "Refresh", "luigi.Task", EVIL],
    "of-params": [
        *("[]", "5", '"x"', "null", "{", '{"lake": 5}', '{"dataset": ["green"]}', '{"month": "2021-01"}'),
        *('{"nosuch": "x"}', '{"dataset": {"a": 1}}', '{"dataset": "purple"}', EVIL, '{"dataset": null}'),
    ],
    "task-limit": ["0", "-1", "x", "1.5"],
    "now": ["9e19", "99999999999999999999", "x"],
    "datasets": ["purple", ",", "zones"],
}

VERBS = [
    ["statsu"],
    ["status", "extra"],
    ["status", "--nosuch"],
    *(["status", f"--start={value}"] for value in NO_MONTHS[::4]),
    *(["status", "--dataset", value] for value in ("purple", "", " ", "zones", EVIL, HUGE)),
    ["status", "--start", "2021-02", "--stop", "2021-01"],
    ["plan", "--of", "TaxiZones"],
    *(["plan", "--of-params", value] for value in ("", "[]", "{", "5", '{"lake": 5}', '{"nosuch": 1}', EVIL)),
    ["plan", "--dataset", "purple"],
    ["plan", "--start", "2999-01"],
    ["refresh"],
    ["refresh", "--since", "2999-01"],
    *(["refresh", "--since", "2024-01", "--workers", value] for value in ("0", "-1", "1e9", "x", "")),
    ["verify", "--dataset", "purple"],
    ["verify", "--start", "2021-02", "--stop", "2021-01"],
    ["doctor", "--nosuch"],
    ["forget"],
    ["forget", "--dataset", "green"],
    ["forget", "--dataset", "zones", "--month", "2021-01"],
    ["forget", "--dataset", "green", "--month", "2021-01", "--start", "2021-01"],
    ["forget", "--dataset", "green", "--month", "2021-01", "--warehouse", "nosuch"],
    ["forget", "--dataset", "green", "--month", "2021-01", "--warehouse", ""],
    *(["ui", "--port", value] for value in ("0", "-1", "65536", "abc", "", "\u0668\u0660\u0668\u0662", "1e3")),
    *(["ui", f"--allowed-host={value}"] for value in ("", "http://h", "a b", "h:8082", EVIL, "a" * 300, "-x")),
    *(["ui", "--keep-days", value] for value in ("0", "x", "1e9", "nan")),
    ["ui", "--folder", ""],
    ["ui", "--folder", "/dev/null/x"],
    ["ui", "--folder", "a" * 300],
    *(["agent", "--workers", value] for value in ("0", "x", "1e9")),
    *(["agent", "--poll", value] for value in ("0", "x", "1e9", "nan")),
    *(["agent", "--queue", value] for value in ("", "..", "a/b", "../x", EVIL, "a" * 300)),
    *(["agent", "--scheduler-url", value] for value in ("h", f"http://u:{SECRET}@h:x", "ftp://h", "")),
    ["submit"],
    ["submit", "Nosuch"],
    ["submit", "MonthlyTrips"],
    ["submit", "MonthlyTrips", "--month", "2021-13"],
    ["submit", "MonthlyTrips", "--month", "2021-01", "--nosuch", "x"],
    ["submit", "MonthlyTrips", "--month", "2021-01", "--module", "nosuch"],
    ["submit", "RangeMonthly", "--of-params", "{"],
    ["submit", "MonthlyTrips", "--month", "2021-01", "--warehouse-url", f"postgresql://u:{SECRET}@h/db"],
    ["runs", "--last", "0"],
    ["runs", "--last", "x"],
    ["runs", "cancel"],
    ["runs", "cancel", "nosuch"],
    ["runs", "cancel", EVIL],
    ["runs", "nosuch"],
    ["runs", "--queue", "a/b"],
    ["queue", "nosuch"],
    ["queue", "pause", "../x"],
    ["queue", "list", "a b"],
    ["cron"],
    ["cron", "--last", "0"],
    ["cron", "--last", "99999"],
    ["cron", "--last", "1", "MonthlyTrips"],
    ["cron", "--last", "1", "--datasets", "purple"],
    ["cron", "--last", "1", "--wait", "-1"],
    ["cron", "--last", "1", "--workers", "0"],
    ["cron", "--last", "1", "--scheduler-url", "h"],
    ["cron", "--last", "1", "--log", ""],
    ["cron", "--last", "1", "--log", "/dev/null/x"],
    ["sample", "--dataset", "purple", "--start", "2021-01", "--stop", "2021-02", "--to", "x"],
    ["sample", "--dataset", "green", "--start", "2021-02", "--stop", "2021-01", "--to", "x"],
    ["sample", "--dataset", "green", "--start", "2021-13", "--stop", "2021-02", "--to", "x"],
    ["sample", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02", "--to", ""],
    ["sample", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02", "--to", "/dev/null/x"],
    ["sample", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02", "--to", "x", "--rows", "-1"],
    ["sample", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02", "--to", "x", "--rows", "1e9"],
    ["sample", "--dataset", "green", "--start", "2021-01", "--stop", "2021-02", "--to", "x", "--layout", "xml"],
]

TASKS = [
    LUIGI,
    [*LUIGI, "Nosuch", "--local-scheduler"],
    [*LUIGI, "monthlytrips", "--local-scheduler"],
    [*LUIGI, EVIL, "--local-scheduler"],
    [*LUIGI, "MonthlyTrips", "--local-scheduler"],
    [*LUIGI, "Refresh", "--local-scheduler"],
    [*LUIGI, "Refresh", "--local-scheduler", "--since", "2999-01"],
    [*LUIGI, "AllTrips", "--local-scheduler", "--month", "1990-01"],
    [*LUIGI, "TaxiZones", "--local-scheduler", "--dataset", "green"],
    [*MONTH, "extra"],
    [*MONTH, "--assistant"],
    [*RANGE, "--dataset", "green", "--datasets", "yellow"],
    [*RANGE, "--dataset", "green,fhv", "--of", "MonthlyTrips"],
]

#: As Luigi takes it into its configuration, and as it does not; the first line is not at fault.
CONFIGURATIONS = [
    *("[lake]\nurl = a\nurl = b", "[lake]\nurl = a\n[lake]\nurl = b", "url = a", "[lake\nurl = a", "[lake]\nurl", "x"),
    *("\xef\xbb\xbf[lake]\nurl = file:a", "[lake]\nurl = file:\xe9", "[lake]\nurl = file:a\x00", "[]\n[]\n\x00"),
    *("[lake]\nulr = file:a", "[Lake]\nurl = file:a", "[warehouse]\nurl = duckdb:///a # mine"),
    *(
        "[lake]\nurl = file:%a",
        "[lake]\nurl = ${NO_SUCH_VARIABLE}",
        "[lake]\nurl = file:a\n  lock_timeout = 5",
        "[lake]\nurl =",
    ),
    *("[DEFAULT]\nx = %(x)s", "[DEFAULT]\nx = %", "[worker]\nwait_jitter = 1e9", "[worker]\nkeep_alive = maybe"),
    *("[worker]\nkeep_alve = true", "[worker]\ntask_process_context = no.such.thing", "[worker]\nping_interval = 100"),
    *(
        "[retcode]\ntask_failed = x",
        "[retcode]\ntask_failed = 256",
        "[retcode]\nnot_run = -1",
        "[retcode]\nnot_run = 10%",
    ),
    *("[resources]\nmemory = 0", "[resources]\nmemory = x", "[resources]\nmemory =", "[resources]\nload_duckdb = -1"),
    *("[core]\nworkers = x", "[core]\nrpc_retry_attempts = 0", "[core]\nrpc_retry_wait = x"),
    *("[core]\nassistant = true", "[core]\nno_lock = perhaps", "[scheduler]\nretry_delay = x", "[email]\nformat = x"),
    *("[RangeMonthly]\nstart = 2021-13", "[RangeMonthly]\nof = Nosuch", "[RangeMonthly]\ndataset = purple"),
    *(f"[warehouse]\nurl = postgresql://u:{SECRET}%40x@h/db", f"[notify]\nurls = bogus://{SECRET}"),
    *(f"[warehouse]\nurl = postgresql://u:{SECRET}@h:x/db", f"[publisher]\nurl = http://u:{SECRET}@a..b/"),
    *("[publisher]\nmax_age =", "[publisher]\nattempts = 1e3", "[process]\nlog_level = ", "[clean]\nrules = x"),
]

VARIABLES = [
    ("PIPELINE_LAKE_ULR", "file:x"),
    ("PIPELINE_LAKE", "file:x"),
    ("PIPELINE_WAREHOUSE_LOCK_TIMOUT", "1"),
    ("PIPELINE_RUN_ID", "../x"),
    ("PIPELINE_RUN_ID", EVIL),
    ("PIPELINE_RUN_ID", "a" * 300),
    ("LUIGI_CONFIG_PATH", "nosuch.cfg"),
    ("LUIGI_CONFIG_PATH", "/"),
    ("LUIGI_CONFIG_PARSER", "toml"),
    ("PIPELINE_RANGEMONTHLY_START", "2021-13"),
    ("PIPELINE_WAREHOUSE_URL", "duckdb:///\udcff"),
    ("PIPELINE_RANGEMONTHLY_OF", "Nosuch"),
    ("PIPELINE_RANGEMONTHLY_DATASET", "purple"),
]

#: Verbs that read the settings before they do anything.
READERS = [["status"], ["plan"], ["verify"], ["runs"], ["queue"], ["agent"], ["ui"], ["cron", "--last", "1"]]


def cases() -> Iterator[Case]:
    for section_name, values in SETTINGS.items():
        for number, value in enumerate(values):
            flag = f"--{section_name}={value}"
            variable = f"PIPELINE_{section_name.replace('-', '_').upper()}"
            kept = {name: text for name, text in SAMPLE.items() if name != variable}
            yield Case([*MONTH, flag], kept)
            if number % 9 == 0 and "/dev/" not in value and "/proc/" not in value:  # what only a run tries to use
                yield Case(["pipeline", *READERS[number % len(READERS)], flag], kept)
                yield Case(MONTH, {**kept, variable: value})
    yield from (Case([*MONTH, f"--publisher-url={value}"], {"PIPELINE_PUBLISHER_NAME": "tlc"}) for value in NO_SITES)
    for given, command in ((OF_TASKS, MONTH), (OF_RANGES, RANGE)):
        for name, values in given.items():
            yield from (Case([*command, f"--{name}={value}"], SAMPLE) for value in values)
    yield from (Case(["pipeline", *words], SAMPLE) for words in VERBS)
    yield from (Case(words, SAMPLE) for words in TASKS)
    for number, text in enumerate(CONFIGURATIONS):
        yield Case(["pipeline", *READERS[number % len(READERS)]], {}, text + "\n")
        yield Case(RANGE, {}, text + "\n")
    for number, (name, value) in enumerate(VARIABLES):
        yield Case(["pipeline", *READERS[number % len(READERS)]], {**SAMPLE, name: value})
        yield Case(RANGE, {**SAMPLE, name: value})


CASES = list(cases())
HALF = len(CASES) // 2


@pytest.mark.parametrize("some", [CASES[:HALF], CASES[HALF:]], ids=["first", "second"])
def test_each_mistake_is_one_line(some: list[Case], tmp_path: Path) -> None:
    with Forks(tmp_path) as forks:
        results = [forks.run(case) for case in some]
    wrong = [
        f"{ascii(case)[:600]}\n    {found}: {ascii(result)[:1500]}"
        for case, result in zip(some, results, strict=True)
        if (found := what_is_wrong(result))
    ]
    assert not wrong, f"{len(wrong)} of {len(some)}:\n" + "\n".join(wrong)


def test_there_are_many() -> None:
    assert len(CASES) >= 300


def what_is_wrong(result: Result) -> str:
    """In a word; empty if the mistake was refused as it should be."""
    if found := what_must_never_be(result):
        return found
    if result.code != 2:
        return f"exit code {result.code}"
    if not re.fullmatch(r"error: [^\n]{10,}\n", result.output):
        return "not one line"
    return "too long" if len(result.output) > LONGEST else ""


def what_must_never_be(result: Result) -> str:
    """The same of any command line, whether it is a mistake or not."""
    if SECRET in result.output:
        return "shows a secret"
    if not is_clean(result.output.replace("\n", "")):
        return "control characters"
    if "Traceback" in result.output:
        return "a traceback"
    return "hangs" if result.code == HANGS else ""

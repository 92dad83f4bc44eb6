"""Wrong arguments of the verbs: each is one line that names the flag, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline import setting_values
from pipeline.__main__ import parser
from pipeline.datasets import DATASETS, MONTHLY
from pipeline.errors import UsageError
from pipeline.reporting import journal

#: By the words before the value: values that must be refused, and what the line says of them.
WRONG = {
    "agent --workers": (("0", "-1", "x", "1.5", "nan"), "whole number|less than 1|between 1 and 1000"),
    "cron --last 6 --workers": (("0", "-1", "x"), "whole number|less than 1|between 1 and 1000"),
    "refresh --since 2021-01 --workers": (("0", "-1", "x"), "whole number|less than 1|between 1 and 1000"),
    "agent --poll": (("-1", "0", "nan", "inf", "1e30", "soon"), "not a number|is not between 0.1 and 3600"),
    "cron --last 6 --wait": (("-1", "nan", "inf", "long"), "not a number|is not between 0 and 744"),
    "cron --last": (("0", "-1", "x", "100000", "1" + "0" * 30), "whole number|is not between 1 and 1200"),
    "ui --port": (("0", "-1", "65536", "80.5", "http"), "whole number|is not between 1 and 65535"),
    "ui --keep-days": (("-1", "0", "nan", "inf", "1e9", "all"), "not a number|is not between 1 and 36500"),
    "ui --address": (("", " "), "is empty"),
    "ui --folder": (("",), "is empty"),
    "cron --last 6 --log": (("",), "is empty"),
    "status --start": (("2021-13", "0000-01", "nan", ""), "is not a month"),
    "plan --stop": (("2021-13", ""), "is not a month"),
    "verify --start": (("2021", ""), "is not a month"),
    "forget --dataset green --month": (("January", ""), "is not a month"),
    "refresh --since": (("tomorrow", ""), "is not a month"),
    "status --dataset": (("purple", "", "green,", "zones"), f"is not one of {', '.join(MONTHLY)}"),
    "verify --dataset": (("purple", ""), f"is not one of {', '.join(DATASETS)}"),
    "forget --dataset": (("purple", "", "green,", "green,purple"), f"is not one of {', '.join(DATASETS)}"),
    "refresh --since 2021-01 --dataset": (("", ",", "zones", "purple"), "names no dataset|unknown dataset 'purple'"),
    "cron --last 6 --dataset": (("", "purple"), "names no dataset|unknown dataset 'purple'"),
    "cron --last 6 --datasets": (("", "purple"), "names no dataset|unknown dataset 'purple'"),
    "plan --of": (("Clean", ""), "choose from 'MonthlyTrips', 'AllTrips'"),
    "plan --of-params": (("", "[]", "[1]", "3", '{"dataset":'), "is not a JSON object"),
    "agent --queue": (("", "../x"), "cannot be the name of a queue"),
    "submit --queue": (("", "a/b"), "cannot be the name of a queue"),
    "runs --queue": (("", "a/b"), "cannot be the name of a queue"),
    "agent --scheduler-url": (
        ("", "nonsense", "ftp://luigid:8082", "http://", "http://luigid:port", "http://luigid:99999"),
        "is not the address of a luigid; write it as http://host:8082",
    ),
    "cron --last 6 --scheduler-url": (("", "luigid:8082"), "is not the address of a luigid"),
}


@pytest.mark.parametrize(
    ("words", "value", "says"), [(words, value, says) for words, (values, says) in WRONG.items() for value in values]
)
def test_wrong_value_is_one_line_that_names_the_flag(
    words: str, value: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    *before, flag = words.split()
    with pytest.raises(SystemExit) as end:
        parser().parse_args([*before, f"{flag}={value}"])
    said = capsys.readouterr().err
    assert end.value.code == 2
    assert said.startswith(f"error: argument {flag}: ") and said.count("\n") == 1
    assert any(each in said for each in says.split("|")), said


def test_right_values_are_read() -> None:
    read = parser().parse_args
    assert read(["agent", "--scheduler-url", "https://user:password@host/luigi"]).scheduler_url.endswith("@host/luigi")
    assert read(["agent", "--scheduler-url", "http://[::1]:8082", "--poll", "0.1", "--workers", "8"]).workers == 8
    assert read(["ui", "--port", "65535", "--keep-days", "1"]).port == 65535
    assert read(["cron", "--last", "6", "--dataset", "all"]).dataset == ",".join(MONTHLY)
    assert read(["cron", "--last", "6", "--datasets", "all"]).datasets == ",".join(MONTHLY)
    assert read(["status", "--dataset", "green, fhv"]).dataset == "green,fhv"
    assert read(["verify", "--dataset", "green,zones"]).dataset == "green,zones"
    assert read(["plan", "--dataset", "green,fhv"]).dataset == "green,fhv"
    assert read(["refresh", "--since", "2021-01", "--dataset", "fhv, green,fhv"]).dataset == "fhv,green"
    assert read(["plan", "--of-params", '{"dataset": "green"}']).of_params == {"dataset": "green"}


def test_address_of_luigid_is_refused_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["agent", "--scheduler-url", "http://user:tiger@luigid:99999"])
    said = capsys.readouterr().err
    assert "'luigid:99999' is not the address" in said and "tiger" not in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("status --start 2021-05 --stop 2021-01", "--start 2021-05 --stop 2021-01 is inverted"),
        ("status --start 2021-05 --stop 2021-05", "--start 2021-05 --stop 2021-05 is empty"),
        ("status --start 2999-01", "--start 2999-01 is later than this month"),
        ("verify --start 2021-05 --stop 2021-01", "--start 2021-05 --stop 2021-01 is inverted"),
        ("verify --start 2999-01", "--start 2999-01 is later than this month"),
        ("plan --start 2021-05 --stop 2021-01", "--start 2021-05 --stop 2021-01 is inverted"),
        ("forget --dataset green", "--month"),
        ("forget --dataset zones --month 2021-01", "--month"),
        ("forget --dataset green,zones --start 2021-01", "zones has no months"),
        ("forget --dataset green --start 2021-05 --stop 2021-01", "is inverted"),
        ("forget --dataset green --month 2021-05 --start 2021-01", "either --month, or --start and --stop"),
        ("forget --dataset green --month 2021-05 --warehouse oracle", "--warehouse oracle names none of"),
        ("cron", "--last N or a task"),
        ("cron --last 6 Refresh", "--last N or a task"),
        ("cron --datasets green Refresh", "--datasets"),
        ("cron --dataset green Refresh", "--dataset goes with --last"),
        ("ui --folder /dev/null/luigid", "--folder /dev/null/luigid"),
        ("ui --folder /dev/null", "--folder /dev/null"),
        ("sample --start 2021-01 --stop 2021-02 --to=", "--to"),
        ("sample --start 2021-01 --stop 2021-02 --to file:/x", "--to 'file:/x'"),
        ("sample --start 2021-01 --stop 2021-02 --rows 5 --to /dev/null", "--to /dev/null"),
        ("sample --start 2021-01 --stop 2021-02 --rows 5 --to /dev/null/x", "--to /dev/null/x"),
    ],
)
def test_values_that_do_not_fit_are_refused(
    words: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal, "folder", lambda: tmp_path)
    args = parser().parse_args(words.split())
    with pytest.raises(UsageError) as refused:
        args.work(args)
    assert says in str(refused.value)
    assert not list(tmp_path.iterdir()), "refused before anything is made"


def test_text_that_argparse_never_sees_is_checked_by_the_same_words() -> None:
    with pytest.raises(UsageError, match="is not the address of a luigid"):
        setting_values.luigid_url("luigid:8082")

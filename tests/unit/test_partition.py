"""Partitions: months as text, as dates and counted, and that no other file does any of it."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path

import pytest

import pipeline
from pipeline import partition
from pipeline.errors import UsageError
from pipeline.partition import (
    ZONES,
    Partition,
    add_months,
    count_months,
    format_month,
    months_between,
    parse_month,
    typed_month,
)

APRIL = dt.date(2020, 4, 1)
FIRST, LAST = dt.date(1, 1, 1), dt.date(9999, 12, 1)

NO_MONTHS = (
    *("", "2020", "2020-", "2020-00", "2020-13", "0000-01", "20-04", "02020-04", "2020-004", "2020/04", "2020-04-01"),
    *(
        "202004",
        " 2020-04",
        "2020-04\n",
        "-2020-04",
        "2020--4",
        "+202-04",
        "\uff12\uff10\uff12\uff10-04",
        "April",
        "all",
    ),
)


def test_partition_is_the_tuple_of_its_parts() -> None:
    green = Partition("green", APRIL)
    assert green == ("green", APRIL) and {("green", APRIL): 1}[green] == 1
    assert green != ZONES and ZONES == ("zones", None)


def test_texts_of_a_month() -> None:
    green = Partition("green", APRIL)
    assert (str(green), f"{green}", green.month_text) == ("green 2020-04", "green 2020-04", "2020-04")
    assert green.first_day == APRIL
    assert Partition("green", dt.date(2020, 12, 31)).month_text == "2020-12", "any day of it will do"


def test_texts_of_the_zone_table() -> None:
    assert (str(ZONES), ZONES.month_text) == ("zones", None)
    with pytest.raises(ValueError, match="zones has no months"):
        _ = ZONES.first_day


@pytest.mark.parametrize("green", [Partition("green", month) for month in (APRIL, FIRST, LAST, None)])
def test_parse_is_the_inverse_of_the_text(green: Partition) -> None:
    assert Partition.parse("green", green.month_text) == green


def test_partition_without_a_month_of_a_text() -> None:
    assert Partition.parse("zones", "") == Partition.parse("zones", None) == ZONES
    with pytest.raises(ValueError, match="'all' is not a month"):
        Partition.parse("zones", "all")


def test_order_is_by_dataset_then_by_month() -> None:
    ordered = [Partition("fhv", LAST), Partition("green", None), Partition("green", APRIL), Partition("green", LAST)]
    assert sorted(reversed(ordered), key=lambda each: each.sort_key) == ordered


@pytest.mark.parametrize(
    ("text", "month"),
    [("2020-04", APRIL), ("2020-12", dt.date(2020, 12, 1)), ("0001-01", FIRST), ("9999-12", LAST)],
)
def test_month_as_text_and_back(text: str, month: dt.date) -> None:
    assert parse_month(text) == typed_month(text) == month
    assert format_month(month) == text


@pytest.mark.parametrize("text", NO_MONTHS)
def test_texts_that_are_no_month(text: str) -> None:
    line = re.escape(f"{text!r} is not a month; write it as YYYY-MM, such as 2021-01")
    with pytest.raises(ValueError, match=f"^{line}$"):
        parse_month(text)
    with pytest.raises(UsageError, match=f"^{line}$"):
        typed_month(text)


def test_person_may_leave_out_a_zero() -> None:
    assert typed_month("2020-4") == APRIL
    with pytest.raises(ValueError, match="is not a month"):
        parse_month("2020-4")


@pytest.mark.parametrize(
    ("month", "count", "found"),
    [
        (APRIL, 0, APRIL),
        (dt.date(2020, 4, 30), 1, dt.date(2020, 5, 1)),
        (dt.date(2020, 12, 31), 1, dt.date(2021, 1, 1)),
        (dt.date(2020, 1, 31), -1, dt.date(2019, 12, 1)),
        (dt.date(2020, 12, 1), 12, dt.date(2021, 12, 1)),
        (dt.date(2020, 12, 1), -12, dt.date(2019, 12, 1)),
        (dt.date(2020, 12, 1), -24, dt.date(2018, 12, 1)),
        (FIRST, 9999 * 12 - 1, LAST),
    ],
)
def test_months_added(month: dt.date, count: int, found: dt.date) -> None:
    assert add_months(month, count) == found
    assert count_months(month, found) == count
    assert count_months(found, month) == -count


@pytest.mark.parametrize(("month", "count"), [(LAST, 1), (FIRST, -1)])
def test_there_is_no_month_beyond_the_years_of_a_date(month: dt.date, count: int) -> None:
    with pytest.raises(ValueError):
        add_months(month, count)


@pytest.mark.parametrize(
    ("start", "stop", "texts"),
    [
        (dt.date(2020, 11, 1), dt.date(2021, 2, 1), "2020-11 2020-12 2021-01"),
        (dt.date(2020, 11, 30), dt.date(2020, 12, 1), "2020-11"),
        (dt.date(2020, 11, 30), dt.date(2020, 12, 2), "2020-11 2020-12"),  # up to a day
        (APRIL, APRIL, ""),
        (APRIL, dt.date(2020, 3, 1), ""),
        (dt.date(9999, 11, 1), dt.date.max, "9999-11 9999-12"),
    ],
)
def test_months_between(start: dt.date, stop: dt.date, texts: str) -> None:
    assert [format_month(month) for month in months_between(start, stop)] == texts.split()


def test_every_month_of_four_centuries() -> None:
    months = months_between(dt.date(1800, 1, 1), dt.date(2200, 1, 1))
    assert months == [dt.date(year, month, 1) for year in range(1800, 2200) for month in range(1, 13)]
    assert [parse_month(format_month(month)) for month in months] == months


# -- nowhere else ------------------------------------------------------------------------------------

#: What formats, parses or counts months. Days and times of day may be formatted anywhere.
ELSEWHERE = re.compile(
    r"%Y[-_ /]?%m(?![-_ /]?%d)"  # strftime and f-strings, unless a day follows
    r"|strptime"
    r"|fromisoformat\(f"
    r"|date\(int\("
    r"|\.year \* 12|// 12\b|\.month [-+]"
    r"|timedelta\(days=(?:2[89]|3\d)\b|timedelta\(days=30"
    r"|replace\(day=1\) [-+]"
)

#: What looks like it and is not: the line of the source, without its indentation, and why it stays.
ALLOWED: dict[str, str] = {}


def test_no_other_file_formats_parses_or_counts_months() -> None:
    package = Path(pipeline.__file__).parent
    found = {
        f"{path.relative_to(package)}:{number}: {line.strip()}"
        for path in package.rglob("*.py")
        if path != Path(partition.__file__)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if ELSEWHERE.search(line.partition("  # ")[0]) and line.strip() not in ALLOWED
    }
    assert not found, f"use pipeline/partition.py: {sorted(found)}"
    assert ELSEWHERE.search(Path(partition.__file__).read_text(encoding="utf-8")), "the search finds something"

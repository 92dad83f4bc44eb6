"""The rules: their names, what each refuses or fills, and in which order."""

from __future__ import annotations

import datetime as dt

import pyarrow as pa
import pytest

from pipeline import datasets
from pipeline.cleaning.rules import RULES, Rules
from pipeline.errors import UsageError

from .support import parquet, run

MONTH = dt.date(2020, 12, 1)


def green(**columns: list[object]) -> bytes:
    """Three rows without any fault, but for the columns given."""
    declared = datasets.get("green")
    time = dt.datetime(2020, 12, 5, 10)
    good = {
        "VendorID": 2,
        "lpep_pickup_datetime": time,
        "lpep_dropoff_datetime": time + dt.timedelta(minutes=10),
        "passenger_count": 1,
        "trip_distance": 1.5,
        "payment_type": 1,
        "fare_amount": 8.5,
        "total_amount": 9.0,
    }
    table = {name: columns.get(name, [value] * 3) for name, value in good.items()}
    return parquet(pa.table({name: pa.array(table[name], declared.column_for(name).arrow_type) for name in table}))


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("", "none"),
        ("none", "none"),
        (" , ", "none"),
        ("zero_passengers", "zero_passengers@1"),
        (" pickup_outside_month , zero_passengers", "zero_passengers@1,pickup_outside_month@1"),
        ("zero_passengers,zero_passengers@1", "zero_passengers@1"),
        (
            "missing_passengers_to_zero,zero_passengers",
            "zero_passengers@1,missing_passengers_to_zero@1",
        ),
    ],
)
def test_rules_are_normalised(text: str, normalised: str) -> None:
    assert str(Rules.parse(text)) == normalised
    assert Rules.parse(normalised) == Rules.parse(text)


def test_unknown_rules_name_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'zero_pasengers'.*zero_passengers, pickup_outside_month.*none"):
        Rules.parse("zero_pasengers")
    with pytest.raises(UsageError, match="none alone"):
        Rules.parse("none,zero_passengers")
    with pytest.raises(UsageError, match="zero_passengers has the version 1, not '2'"):
        Rules.parse("zero_passengers@2")


def test_rules_that_fill_come_last() -> None:
    fills = [rule.fills is not None for rule in RULES.values()]
    assert fills == sorted(fills) and any(fills)


FIRST, LAST = dt.datetime(2020, 12, 1), dt.datetime(2020, 12, 31, 23, 59, 59, 999999)
BEFORE, AFTER = dt.datetime(2020, 11, 30, 23, 59, 59), dt.datetime(2021, 1, 1)


@pytest.mark.parametrize(
    ("rule", "column", "values", "refused"),
    [
        ("zero_passengers", "passenger_count", [0, 1, None], [1]),
        ("pickup_outside_month", "lpep_pickup_datetime", [BEFORE, FIRST, LAST], [1]),
        ("pickup_outside_month", "lpep_pickup_datetime", [AFTER, None, dt.datetime(2019, 12, 5)], [1, 3]),
        ("missing_times", "lpep_pickup_datetime", [None, FIRST, FIRST], [1]),
        ("missing_times", "lpep_dropoff_datetime", [FIRST, FIRST, None], [3]),
        ("dropoff_before_pickup", "lpep_dropoff_datetime", [BEFORE, None, dt.datetime(2020, 12, 5, 10)], [1]),
        ("negative_fare", "fare_amount", [-0.5, 0.0, None], [1]),
        ("zero_distance", "trip_distance", [0.0, 0.1, None], [1]),
        ("zero_distance", "trip_distance", [-1.0, 0.1, None], [1]),
    ],
)
def test_what_each_rule_refuses(rule: str, column: str, values: list[object], refused: list[int]) -> None:
    result = run(green(**{column: values}), "green", "parquet", rule, MONTH)
    assert [(reason, line) for reason, _, line in result.reasons] == [(rule, line) for line in refused]
    assert result.report.rows_rejected == {rule: len(refused)}
    assert result.report.unreadable == 0 and result.report.first_unreadable is None
    assert all(original.startswith('{"VendorID": 2') for original in result.originals)


def test_every_rule_that_refuses_is_tested_above() -> None:
    (parameters,) = (mark.args[1] for mark in test_what_each_rule_refuses.pytestmark)
    assert {case[0] for case in parameters} == {rule.name for rule in RULES.values() if rule.refuses}


def test_filling_comes_after_refusing() -> None:
    data = green(passenger_count=[0, 1, None])
    assert run(data, "green", "parquet", "missing_passengers_to_zero").column("passenger_count") == [0, 1, 0]
    both = run(data, "green", "parquet", "missing_passengers_to_zero,zero_passengers")
    assert both.column("passenger_count") == [1, 0]


def test_a_row_is_counted_for_the_first_rule_only() -> None:
    data = green(passenger_count=[0, 0, 1], lpep_pickup_datetime=[BEFORE, FIRST, BEFORE], fare_amount=[-1.0, 1.0, -1.0])
    result = run(data, "green", "parquet", "negative_fare,pickup_outside_month,zero_passengers", MONTH)
    assert result.reasons == [
        ("zero_passengers", "passenger_count", 1),
        ("zero_passengers", "passenger_count", 2),
        ("pickup_outside_month", "lpep_pickup_datetime", 3),
    ]


def test_a_rule_with_two_columns_names_none() -> None:
    data = green(lpep_dropoff_datetime=[BEFORE, FIRST.replace(day=6), FIRST.replace(day=6)])
    assert run(data, "green", "parquet", "dropoff_before_pickup").reasons == [("dropoff_before_pickup", None, 1)]


def test_a_rule_is_passed_over_where_its_columns_are_not() -> None:
    everything = ",".join(RULES)
    header = b"dispatching_base_num,pickup_datetime\n"
    result = run(
        header + b"B1,2020-12-05 00:00:00\nB1,2020-11-05 00:00:00\n", "fhv", rules="zero_passengers", month=MONTH
    )
    assert result.report.rows_written == 2
    zones = run(b"LocationID,Borough,Zone,service_zone\n1,EWR,Newark Airport,EWR\n", "zones", rules=everything)
    assert zones.report.rows_written == 1


def test_refused_csv_rows_keep_line_and_text() -> None:
    header = b"dispatching_base_num,pickup_datetime\n"
    lines = b"B1,2020-12-05 00:00:00\n\nB1,2020-11-05 00:00:00\nB2,x\nB3,2020-10-05 00:00:00\n"
    result = run(header + lines, "fhv", rules="pickup_outside_month", month=MONTH)
    assert result.reasons == [
        ("pickup_outside_month", "pickup_datetime", 4),
        ("bad_value", "pickup_datetime", 5),
        ("pickup_outside_month", "pickup_datetime", 6),
    ]
    assert result.originals == ["B1,2020-11-05 00:00:00", "B2,x", "B3,2020-10-05 00:00:00"]

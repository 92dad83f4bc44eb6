"""For-hire vehicle trips: black cars, liveries, and until 2019-01 Uber, Lyft, Via and Juno too. 2015 to today."""

from __future__ import annotations

import datetime as dt

from .schema import Codes, Column, Dataset

#: Most files say 1 or nothing. The mirror's fhvhv file of 2021-06 says Y or N in every row, and an outright no is more
#: than nothing.
SHARED: Codes = {1: "shared ride", 0: "not shared"}
SHARED_TEXTS = {"Y": 1, "N": 0, "TRUE": 1, "FALSE": 0, "T": 1, "F": 0}

FHV = Dataset(
    name="fhv",
    title="For-hire vehicle trips",
    table="fhv_trips",
    first_month=dt.date(2015, 1, 1),
    pickup="pickup_datetime",
    dropoff="dropOff_datetime",
    required=("dispatching_base_num", "pickup_datetime"),
    columns=(
        Column(
            "dispatching_base_num",
            "string",
            "TLC licence of the base that dispatched the trip",
            # The files of 2018 have both spellings; where one is empty the other speaks.
            aliases=("dispatching_base_number",),
            upper=True,
        ),
        Column(
            "pickup_datetime", "timestamp", "When the trip began", unit="New York wall clock", aliases=("pickup_date",)
        ),
        Column(
            "dropOff_datetime",
            "timestamp",
            "When the trip ended",
            unit="New York wall clock",
            aliases=("dropoff_date",),
            since=dt.date(2017, 1, 1),
        ),
        Column(
            "PUlocationID", "int64", "Taxi zone where the trip began; null in half of all rows", aliases=("locationid",)
        ),
        Column("DOlocationID", "int64", "Taxi zone where the trip ended", since=dt.date(2017, 1, 1)),
        Column(
            "SR_Flag",
            "int64",
            "Part of a chain of shared rides; null where the file does not say",
            codes=SHARED,
            texts=SHARED_TEXTS,
            since=dt.date(2017, 7, 1),
        ),
        Column(
            "Affiliated_base_number",
            "string",
            "Base the vehicle is affiliated with",
            aliases=("affiliated_base_num",),
            upper=True,
        ),
    ),
)

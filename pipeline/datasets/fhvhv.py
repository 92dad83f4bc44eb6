"""High-volume for-hire vehicle trips: Uber, Lyft, Via and Juno under licences of their own. 2019-02 to today."""

from __future__ import annotations

import datetime as dt

from .fhv import SHARED, SHARED_TEXTS
from .schema import Column, Dataset
from .taxi import CBD_FEE, DOLLARS, FLAG_TEXTS, FLAGS

WALL_CLOCK = "New York wall clock"


def _flag(name: str, meaning: str) -> Column:
    return Column(name, "string", meaning, codes=FLAGS, texts=FLAG_TEXTS)


FHVHV = Dataset(
    name="fhvhv",
    title="High-volume for-hire vehicle trips",
    table="fhvhv_trips",
    first_month=dt.date(2019, 2, 1),
    pickup="pickup_datetime",
    dropoff="dropoff_datetime",
    required=("dispatching_base_num", "pickup_datetime", "dropoff_datetime", "PULocationID", "DOLocationID"),
    columns=(
        Column(
            "hvfhs_license_num",
            "string",
            "Licence of the high-volume service",
            codes={"HV0002": "Juno", "HV0003": "Uber", "HV0004": "Via", "HV0005": "Lyft"},
            upper=True,
        ),
        Column(
            "dispatching_base_num",
            "string",
            "TLC licence of the base that dispatched the trip",
            aliases=("dispatching_base_number",),
            upper=True,
        ),
        Column("originating_base_num", "string", "Base that received the request", upper=True),
        Column("request_datetime", "timestamp", "When the passenger asked to be picked up", unit=WALL_CLOCK),
        Column("on_scene_datetime", "timestamp", "When the driver arrived; accessible vehicles only", unit=WALL_CLOCK),
        Column("pickup_datetime", "timestamp", "When the trip began", unit=WALL_CLOCK),
        Column("dropoff_datetime", "timestamp", "When the trip ended", unit=WALL_CLOCK),
        Column("PULocationID", "int64", "Taxi zone where the trip began"),
        Column("DOLocationID", "int64", "Taxi zone where the trip ended"),
        Column("trip_miles", "float64", "Distance of the trip", unit="miles"),
        Column("trip_time", "int64", "Duration of the trip", unit="seconds"),
        Column("base_passenger_fare", "float64", "Fare before tolls, tips, taxes and fees", unit=DOLLARS),
        Column("tolls", "float64", "All tolls paid", unit=DOLLARS),
        Column("bcf", "float64", "Collected for the Black Car Fund", unit=DOLLARS),
        Column("sales_tax", "float64", "New York State sales tax", unit=DOLLARS),
        Column("congestion_surcharge", "float64", "New York State congestion surcharge", unit=DOLLARS),
        Column("airport_fee", "float64", "For LaGuardia, Newark and JFK", unit=DOLLARS),
        Column("tips", "float64", "Tips", unit=DOLLARS),
        Column("driver_pay", "float64", "Paid to the driver, without tolls and tips", unit=DOLLARS),
        _flag("shared_request_flag", "Whether the passenger agreed to share the ride"),
        _flag("shared_match_flag", "Whether the ride was shared with another passenger"),
        _flag("access_a_ride_flag", "Whether the trip was made for the MTA's Access-A-Ride"),
        _flag("wav_request_flag", "Whether a wheelchair-accessible vehicle was asked for"),
        _flag("wav_match_flag", "Whether the vehicle was wheelchair-accessible"),
        CBD_FEE,
        # Only the CSV files of 2019 to 2021 have these two. The flag is no other spelling of today's two: most
        # services set it for rides that were requested *and* matched, Lyft for every request.
        Column(
            "SR_Flag",
            "int64",
            "Part of a chain of shared rides, in CSV files; null where the file does not say",
            codes=SHARED,
            texts=SHARED_TEXTS,
        ),
        Column(
            "Affiliated_base_number",
            "string",
            "Base the vehicle is affiliated with, in CSV files of 2021",
            aliases=("affiliated_base_num",),
            upper=True,
        ),
    ),
)

"""Yellow taxi trips: medallion taxis, hailed anywhere in the city. 2009 to today."""

from __future__ import annotations

import datetime as dt

from . import taxi
from .schema import Column, Dataset

YELLOW = Dataset(
    name="yellow",
    title="Yellow taxi trips",
    table="yellow_trips",
    first_month=dt.date(2009, 1, 1),
    pickup="tpep_pickup_datetime",
    dropoff="tpep_dropoff_datetime",
    required=taxi.required("tpep_pickup_datetime", "tpep_dropoff_datetime"),
    columns=(
        taxi.VENDOR,
        Column(
            "tpep_pickup_datetime",
            "timestamp",
            "When the meter was started",
            unit="New York wall clock",
            aliases=("pickup_datetime", "trip_pickup_datetime"),
        ),
        Column(
            "tpep_dropoff_datetime",
            "timestamp",
            "When the meter was stopped",
            unit="New York wall clock",
            aliases=("dropoff_datetime", "trip_dropoff_datetime"),
        ),
        taxi.PASSENGERS,
        taxi.DISTANCE,
        taxi.RATE,
        taxi.STORED,
        taxi.PICKUP_ZONE,
        taxi.DROPOFF_ZONE,
        taxi.PAYMENT,
        taxi.FARE,
        taxi.EXTRA,
        taxi.MTA_TAX,
        taxi.TIP,
        taxi.TOLLS,
        taxi.IMPROVEMENT,
        taxi.TOTAL,
        taxi.CONGESTION,
        Column("Airport_fee", "float64", "For pickups at LaGuardia and JFK", unit=taxi.DOLLARS),
        taxi.CBD_FEE,
        taxi.REQUEST_SOURCE,
        *taxi.COORDINATES,
    ),
)

"""Green taxi trips: street-hail liveries, hailed outside the Manhattan core. 2013-08 to today."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace

from . import taxi
from .schema import Column, Dataset

GREEN = Dataset(
    name="green",
    title="Green taxi trips",
    table="green_trips",
    first_month=dt.date(2013, 8, 1),
    pickup="lpep_pickup_datetime",
    dropoff="lpep_dropoff_datetime",
    required=taxi.required("lpep_pickup_datetime", "lpep_dropoff_datetime"),
    columns=(
        taxi.VENDOR,
        Column("lpep_pickup_datetime", "timestamp", "When the meter was started", unit="New York wall clock"),
        Column("lpep_dropoff_datetime", "timestamp", "When the meter was stopped", unit="New York wall clock"),
        taxi.STORED,
        taxi.RATE,
        taxi.PICKUP_ZONE,
        taxi.DROPOFF_ZONE,
        taxi.PASSENGERS,
        taxi.DISTANCE,
        taxi.FARE,
        taxi.EXTRA,
        taxi.MTA_TAX,
        taxi.TIP,
        taxi.TOLLS,
        Column("ehail_fee", "float64", "Fee of an e-hail app", unit=taxi.DOLLARS),
        taxi.IMPROVEMENT,
        taxi.TOTAL,
        replace(taxi.PAYMENT, texts={text: code for text, code in taxi.PAYMENT_TEXTS.items() if text != "NA"}),
        Column("trip_type", "int64", "How the trip was ordered", codes={1: "street hail", 2: "dispatch"}),
        taxi.CONGESTION,
        taxi.CBD_FEE,
        taxi.REQUEST_SOURCE,
        *taxi.COORDINATES,
    ),
)

"""The declarations: names, order and types of every dataset, and the headers of every era."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys

import pyarrow as pa
import pytest

from pipeline import datasets
from pipeline.datasets import DATASETS, MONTHLY
from pipeline.errors import UsageError

#: Header lines of each era as published; the canonical columns they must reach, in the file's order.
ERAS = {
    ("yellow", "2009 csv"): (
        "vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,"
        "Rate_Code,store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,"
        "Total_Amt",
        "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,pickup_longitude,"
        "pickup_latitude,RatecodeID,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,"
        "extra,mta_tax,tip_amount,tolls_amount,total_amount",
    ),
    ("yellow", "2014 csv"): (
        "vendor_id, pickup_datetime, dropoff_datetime, passenger_count, rate_code, surcharge",
        "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,RatecodeID,extra",
    ),
    ("yellow", "2015-01 csv"): ("RateCodeID,improvement_surcharge", "RatecodeID,improvement_surcharge"),
    ("yellow", "2022 parquet"): ("PULocationID,airport_fee", "PULocationID,Airport_fee"),
    ("green", "2013 csv"): (
        "VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,MTA_tax,"
        "Ehail_fee,Total_amount,Payment_type,Trip_type ",
        "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,pickup_longitude,mta_tax,"
        "ehail_fee,total_amount,payment_type,trip_type",
    ),
    ("fhv", "2015 csv"): (
        "Dispatching_base_num,Pickup_date,locationID",
        "dispatching_base_num,pickup_datetime,PUlocationID",
    ),
    ("fhv", "2018 csv"): (
        "Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID,SR_Flag,Dispatching_base_number,"
        "Dispatching_base_num",
        "pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,SR_Flag,dispatching_base_num,dispatching_base_num",
    ),
    ("fhv", "2020 csv"): ("PULocationID,DOLocationID", "PUlocationID,DOlocationID"),
    ("fhvhv", "2021-06 csv"): (
        "dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag,"
        "Affiliated_base_number",
        "dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag,"
        "Affiliated_base_number",
    ),
}

#: Columns of TLC's newest Parquet files, in their order.
NEWEST = {
    "yellow": "VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,"
    "store_and_fwd_flag,PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,"
    "improvement_surcharge,total_amount,congestion_surcharge,Airport_fee,cbd_congestion_fee,request_source",
    "green": "VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,"
    "DOLocationID,passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,"
    "improvement_surcharge,total_amount,payment_type,trip_type,congestion_surcharge,cbd_congestion_fee,request_source",
    "fhv": "dispatching_base_num,pickup_datetime,dropOff_datetime,PUlocationID,DOlocationID,SR_Flag,"
    "Affiliated_base_number",
    "fhvhv": "hvfhs_license_num,dispatching_base_num,originating_base_num,request_datetime,on_scene_datetime,"
    "pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,trip_miles,trip_time,base_passenger_fare,tolls,bcf,"
    "sales_tax,congestion_surcharge,airport_fee,tips,driver_pay,shared_request_flag,shared_match_flag,"
    "access_a_ride_flag,wav_request_flag,wav_match_flag,cbd_congestion_fee",
    "zones": "LocationID,Borough,Zone,service_zone",
}


@pytest.mark.parametrize("era", ERAS, ids=" ".join)
def test_headers_of_every_era_are_known(era: tuple[str, str]) -> None:
    header, canonical = ERAS[era]
    columns = [datasets.get(era[0]).column_for(name) for name in header.split(",")]
    assert [column.name if column else None for column in columns] == canonical.split(",")


@pytest.mark.parametrize("name", NEWEST)
def test_columns_come_in_the_newest_published_order(name: str) -> None:
    names = [column.name for column in DATASETS[name].columns]
    published = NEWEST[name].split(",")
    assert names[: len(published)] == published


def test_names_and_tables() -> None:
    assert list(DATASETS) == ["yellow", "green", "fhv", "fhvhv", "zones"]
    assert MONTHLY == ("yellow", "green", "fhv", "fhvhv")
    assert [dataset.table for dataset in DATASETS.values()] == [
        "yellow_trips",
        "green_trips",
        "fhv_trips",
        "fhvhv_trips",
        "taxi_zones",
    ]
    assert [dataset.first_month for dataset in DATASETS.values()] == [
        dt.date(2009, 1, 1),
        dt.date(2013, 8, 1),
        dt.date(2015, 1, 1),
        dt.date(2019, 2, 1),
        None,
    ]


@pytest.mark.parametrize("dataset", DATASETS.values(), ids=DATASETS)
def test_a_declaration_fits_together(dataset: datasets.Dataset) -> None:
    names = [column.name for column in dataset.columns]
    assert len({name.lower() for name in names}) == len(names), "warehouses do not tell names apart by case"
    assert {*dataset.required, *filter(None, (dataset.pickup, dataset.dropoff))} <= set(names)
    for column in dataset.columns:
        assert dataset.column_for(f" {column.name.upper()} ") is column
        assert column.meaning
        assert all(text == text.strip().upper() for text in column.texts)
        for code in column.texts.values():
            assert code is None or code in column.codes
        assert not datasets.is_leftover(column.name)
    assert dataset.schema.names == names


def test_times_have_no_zone_and_months_are_added_to_the_table() -> None:
    yellow = datasets.get("yellow")
    assert yellow.schema.field("tpep_pickup_datetime").type == pa.timestamp("us")
    assert yellow.table_schema.names == [*yellow.schema.names, "file_month"]
    assert datasets.get("zones").table_schema == datasets.get("zones").schema


def test_an_unknown_dataset_names_the_choices() -> None:
    with pytest.raises(UsageError, match=r"'yelow'.*yellow, green, fhv, fhvhv, zones"):
        datasets.get("yelow")


def test_two_columns_may_not_share_a_name() -> None:
    column = datasets.Column("fare", "float64", "Fare")
    twin = datasets.Column("price", "float64", "Price", aliases=("FARE",))
    with pytest.raises(ValueError, match="two columns"):
        datasets.Dataset("d", "D", "d_trips", (column, twin)).column_for("fare")


def test_a_description_holds_unit_and_codes() -> None:
    assert datasets.get("green").column_for("trip_type").description == (
        "How the trip was ordered (1 = street hail, 2 = dispatch)"
    )
    assert datasets.get("green").column_for("fare_amount").description.endswith("[US dollars]")


def test_importing_the_declarations_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.datasets; sys.exit('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""One tiny file per era of each dataset, as CSV and as Parquet; the rows are invented, the layouts are not."""

from __future__ import annotations

import datetime as dt
from typing import NamedTuple

import pyarrow as pa
import pytest

from pipeline import datasets

from .support import parquet, run


def at(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)


class Csv(NamedTuple):
    """An era: its file, the values expected in the first row, and what is counted besides rows."""

    dataset: str
    data: bytes
    first: dict[str, object]
    blank: int = 0
    surplus: int = 0
    rows: int = 1


YELLOW_2009 = (
    b"vendor_name,Trip_Pickup_DateTime,Trip_Dropoff_DateTime,Passenger_Count,Trip_Distance,Start_Lon,Start_Lat,"
    b"Rate_Code,store_and_forward,End_Lon,End_Lat,Payment_Type,Fare_Amt,surcharge,mta_tax,Tip_Amt,Tolls_Amt,Total_Amt"
)
YELLOW_2010 = (
    b"vendor_id,pickup_datetime,dropoff_datetime,passenger_count,trip_distance,pickup_longitude,pickup_latitude,"
    b"rate_code,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,surcharge,mta_tax,"
    b"tip_amount,tolls_amount,total_amount"
)
YELLOW_2015 = (
    b"VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,pickup_longitude,"
    b"pickup_latitude,RateCodeID,store_and_fwd_flag,dropoff_longitude,dropoff_latitude,payment_type,fare_amount,extra,"
    b"mta_tax,tip_amount,tolls_amount,improvement_surcharge,total_amount"
)
YELLOW_2017 = (
    b"VendorID,tpep_pickup_datetime,tpep_dropoff_datetime,passenger_count,trip_distance,RatecodeID,"
    b"store_and_fwd_flag,PULocationID,DOLocationID,payment_type,fare_amount,extra,mta_tax,tip_amount,tolls_amount,"
    b"improvement_surcharge,total_amount"
)
GREEN_2013 = (
    b"VendorID,lpep_pickup_datetime,Lpep_dropoff_datetime,Store_and_fwd_flag,RateCodeID,Pickup_longitude,"
    b"Pickup_latitude,Dropoff_longitude,Dropoff_latitude,Passenger_count,Trip_distance,Fare_amount,Extra,MTA_tax,"
    b"Tip_amount,Tolls_amount,Ehail_fee,Total_amount,Payment_type,Trip_type "
)
GREEN_2015 = GREEN_2013.replace(b"Ehail_fee,", b"Ehail_fee,improvement_surcharge,")
GREEN_2016 = (
    b"VendorID,lpep_pickup_datetime,lpep_dropoff_datetime,store_and_fwd_flag,RatecodeID,PULocationID,DOLocationID,"
    b"passenger_count,trip_distance,fare_amount,extra,mta_tax,tip_amount,tolls_amount,ehail_fee,improvement_surcharge,"
    b"total_amount,payment_type,trip_type"
)
FHVHV_2019 = (
    b"hvfhs_license_num,dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag"
)

CSV_ERAS = {
    "yellow 2009": Csv(
        "yellow",
        YELLOW_2009 + b"\n\r\nDDS,2009-01-05 10:00:00,2009-01-05 10:10:00,2,1.25,-73.5,40.5,,,-73.25,40.75,Credit,"
        b"8.5,0.5,,1,0,10\r\n",
        {
            "VendorID": 3,
            "tpep_pickup_datetime": at("2009-01-05 10:00:00"),
            "passenger_count": 2,
            "pickup_longitude": -73.5,
            "dropoff_latitude": 40.75,
            "RatecodeID": None,
            "store_and_fwd_flag": None,
            "payment_type": 1,
            "extra": 0.5,
            "mta_tax": None,
            "total_amount": 10.0,
            "PULocationID": None,
        },
        blank=1,
    ),
    "yellow 2010": Csv(
        "yellow",
        YELLOW_2010 + b"\n\r\nCMT,2010-02-05 10:00:00,2010-02-05 10:10:00,1,0.5,-73.5,40.5,1,0,-73.25,40.75,NA ,"
        b"4.5,0.5,0.5,1,0,6.5\r\n",
        {"VendorID": 1, "RatecodeID": 1, "store_and_fwd_flag": "N", "payment_type": 5, "dropoff_longitude": -73.25},
        blank=1,
    ),
    "yellow 2014": Csv(
        "yellow",
        YELLOW_2010.replace(b",", b", ") + b"\n\r\nVTS,2014-02-05 10:00:00,2014-02-05 10:10:00,1,1.5,-73.5,40.5,1,,"
        b"-73.25,40.75,CSH,6.5,0,0.5,0,0,7\r\n",
        {"VendorID": 2, "tpep_dropoff_datetime": at("2014-02-05 10:10:00"), "payment_type": 2, "total_amount": 7.0},
        blank=1,
    ),
    "yellow 2015": Csv(
        "yellow",
        YELLOW_2015 + b"\r\n2,2015-01-05 10:00:00,2015-01-05 10:10:00,1,.50,-73.5,40.5,1,N,-73.25,40.75,1,12,1,0.5,3,"
        b"0,0.3,16.8\r\n",
        {"RatecodeID": 1, "trip_distance": 0.5, "improvement_surcharge": 0.3, "store_and_fwd_flag": "N"},
    ),
    "yellow 2016-07": Csv(
        "yellow",
        YELLOW_2017 + b"\r\n1,2016-07-05 10:00:00,2016-07-05 10:10:00,1,.50,1,N,263,236,1,4.5,1,0.5,2,0,0.3,8.3,,\r\n",
        {"PULocationID": 263, "DOLocationID": 236, "total_amount": 8.3, "pickup_longitude": None},
        surplus=1,
    ),
    "yellow 2017": Csv(
        "yellow",
        YELLOW_2017
        + b"\n\r\n2,2017-03-05 10:00:00,2017-03-05 10:10:00,1,4.06,1,N,148,48,1,14,0.5,0.5,3,0,0.3,18.3\r\n",
        {"PULocationID": 148, "congestion_surcharge": None},
        blank=1,
    ),
    "yellow 2019": Csv(
        "yellow",
        YELLOW_2017 + b",congestion_surcharge\r\n,2019-01-05 10:00:00,2019-01-05 10:10:00,,1.5,,,151,239,,7,0.5,0.5,0,"
        b"0,0.3,9.95,2.5\r\n",
        {"VendorID": None, "passenger_count": None, "payment_type": None, "congestion_surcharge": 2.5},
    ),
    "yellow 2025, exported with quotes": Csv(
        "yellow",
        b'"' + (YELLOW_2017 + b",congestion_surcharge,Airport_fee,cbd_congestion_fee").replace(b",", b'","') + b'"\n'
        b'1,2025-01-05 10:00:00.000000,2025-01-05 10:10:00.000000,1,1.6,1,"N",229,237,0,10,3.5,0.5,3,0,1,18,2.5,0,'
        b"0.75\n",
        {"tpep_pickup_datetime": at("2025-01-05 10:00:00"), "payment_type": 0, "cbd_congestion_fee": 0.75},
    ),
    "green 2013": Csv(
        "green",
        GREEN_2013 + b"\n\r\n2,2013-08-05 10:00:00,2013-08-05 10:10:00,N,1,0,0,-73.5,40.5,1,.00,21.25,0,0,0,0,,21.25,2,"
        b",,\r\n",
        {"MTA_tax".lower(): 0.0, "ehail_fee": None, "dropoff_longitude": -73.5, "payment_type": 2, "trip_type": None},
        blank=1,
        surplus=1,
    ),
    "green 2015": Csv(
        "green",
        GREEN_2015 + b"\r\n2,2015-07-05 10:00:00,2015-07-05 10:10:00,N,1,-73.5,40.5,-73.25,40.75,1,4.33,15.5,0.5,0.5,0,"
        b"0,,0.3,16.8,2,1\r\n",
        {"improvement_surcharge": 0.3, "trip_type": 1, "pickup_latitude": 40.5},
    ),
    "green 2016-07": Csv(
        "green",
        GREEN_2016
        + b"\n\r\n2,2016-07-05 10:00:00,2016-07-05 10:10:00,N,1,7,41,1,7.14,28,0,0.5,5,0,,0.3,33.8,1,1,,\r\n",
        {"PULocationID": 7, "DOLocationID": 41, "trip_type": 1},
        blank=1,
        surplus=1,
    ),
    "green 2019": Csv(
        "green",
        GREEN_2016
        + b",congestion_surcharge\r\n1,2019-01-05 10:00:00,2019-01-05 10:10:00,Y,1,7,41,0,7.14,28,0,0.5,5,0,,"
        b"0.3,33.8,1,1,2.75\r\n",
        {"passenger_count": 0, "store_and_fwd_flag": "Y", "congestion_surcharge": 2.75},
    ),
    "fhv 2015": Csv(
        "fhv",
        b"Dispatching_base_num,Pickup_date,locationID\r\nb00013 ,2015-01-05 10:00:00,\r\nB00014,1/31/2015 0:30,7\r\n",
        {
            "dispatching_base_num": "B00013",
            "pickup_datetime": at("2015-01-05 10:00:00"),
            "PUlocationID": None,
            "dropOff_datetime": None,
        },
        rows=2,
    ),
    "fhv 2017-01": Csv(
        "fhv",
        b"Dispatching_base_num,Pickup_DateTime,DropOff_datetime,PUlocationID,DOlocationID\r\n"
        b"B00001,2017-01-05 10:00:00,,,7\r\n",
        {"dropOff_datetime": None, "DOlocationID": 7},
    ),
    "fhv 2017-07": Csv(
        "fhv",
        b'"Dispatching_base_num","Pickup_DateTime","DropOff_datetime","PUlocationID","DOlocationID","SR_Flag"\r\n'
        b'"B02817","2017-07-05 10:00:00","2017-07-05 10:10:00","144","132",""\r\n'
        b'"B02817","2017-07-05 10:00:00","2017-07-05 10:10:00","144","132","1"\r\n',
        {"PUlocationID": 144, "SR_Flag": None},
        rows=2,
    ),
    "fhv 2018": Csv(
        "fhv",
        b'"Pickup_DateTime","DropOff_datetime","PUlocationID","DOlocationID","SR_Flag","Dispatching_base_number",'
        b'"Dispatching_base_num"\r\n'
        b'"2018-01-05 10:00:00","2018-01-05 10:10:00","56","","1","B02884",""\r\n'
        b'"2018-01-05 10:00:00","2018-01-05 10:10:00","56","","","","B02885"\r\n',
        {"dispatching_base_num": "B02884", "DOlocationID": None, "SR_Flag": 1},
        rows=2,
    ),
    "fhv 2020": Csv(
        "fhv",
        b"dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag\r\n"
        b"B00008,2020-04-05 10:00:00,3019-04-05 10:10:00,264,265,\r\n",
        {"PUlocationID": 264, "dropOff_datetime": at("3019-04-05 10:10:00")},
    ),
    "fhvhv 2019": Csv(
        "fhvhv",
        FHVHV_2019 + b"\r\nHV0003,B02867,2019-02-05 10:00:00,2019-02-05 10:10:00,245,251,1\r\n",
        {"hvfhs_license_num": "HV0003", "SR_Flag": 1, "shared_request_flag": None, "request_datetime": None},
    ),
    "fhvhv 2021-06": Csv(
        "fhvhv",
        b"dispatching_base_num,pickup_datetime,dropoff_datetime,PULocationID,DOLocationID,SR_Flag,"
        b"Affiliated_base_number\r\nB02764,2021-06-05 10:00:00,2021-06-05 10:10:00,49,25,N,b02764\r\n",
        {"hvfhs_license_num": None, "SR_Flag": 0, "Affiliated_base_number": "B02764"},
    ),
    "zones": Csv(
        "zones",
        b'"LocationID","Borough","Zone","service_zone"\r\n264,"Unknown","NV","N/A"\r\n265,"Unknown","NA","N/A"\r\n',
        {"LocationID": 264, "Borough": "Unknown", "Zone": "NV", "service_zone": "N/A"},
        rows=2,
    ),
}


@pytest.mark.parametrize("era", CSV_ERAS)
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"], ids=["crlf", "lf"])
def test_csv(era: str, line_end: bytes) -> None:
    case = CSV_ERAS[era]
    result = run(case.data.replace(b"\r\n", b"\n").replace(b"\n", line_end), case.dataset)
    assert result.reasons == []
    assert {name: result.column(name)[0] for name in case.first} == case.first
    assert result.report.rows_read == case.rows
    assert result.report.blank_lines == case.blank
    assert result.report.surplus_values == case.surplus
    assert result.report.unknown_columns == {} and result.report.ignored_columns == []


def test_second_rows_of_the_fhv_eras() -> None:
    assert run(CSV_ERAS["fhv 2015"].data, "fhv").column("pickup_datetime")[1] == at("2015-01-31 00:30:00")
    assert run(CSV_ERAS["fhv 2018"].data, "fhv").column("dispatching_base_num") == ["B02884", "B02885"]
    assert run(CSV_ERAS["fhv 2017-07"].data, "fhv").column("SR_Flag") == [None, 1]


YELLOW_TIMES = ["2010-02-05 10:00:00", "2010-02-05 10:10:00"]
LARGE = pa.large_string()
PARQUET_ERAS = {
    "yellow 2009: times as text, codes as double": (
        "yellow",
        {
            "vendor_name": ["VTS"],
            "Trip_Pickup_DateTime": ["2009-01-05 10:00:00"],
            "Trip_Dropoff_DateTime": ["2009-01-05 10:10:00"],
            "Passenger_Count": [1],
            "Trip_Distance": [1.5],
            "Start_Lon": [-73.5],
            "Start_Lat": [40.5],
            "Rate_Code": pa.array([None], pa.float64()),
            "store_and_forward": pa.array([1.0], pa.float64()),
            "End_Lon": [-73.25],
            "End_Lat": [40.75],
            "Payment_Type": ["CASH"],
            "Fare_Amt": [8.5],
            "surcharge": [0.5],
            "mta_tax": pa.array([None], pa.float64()),
            "Tip_Amt": [0.0],
            "Tolls_Amt": [0.0],
            "Total_Amt": [9.0],
        },
        {
            "VendorID": 2,
            "tpep_pickup_datetime": at("2009-01-05 10:00:00"),
            "store_and_fwd_flag": "Y",
            "payment_type": 2,
            "extra": 0.5,
            "pickup_longitude": -73.5,
        },
    ),
    "yellow 2010-02: an index column": (
        "yellow",
        {
            "vendor_id": ["CMT"],
            "pickup_datetime": ["2010-02-05 10:00:00"],
            "dropoff_datetime": ["2010-02-05 10:10:00"],
            "passenger_count": [1],
            "trip_distance": [1.5],
            "rate_code": pa.array([1], pa.int64()),
            "store_and_fwd_flag": ["0"],
            "payment_type": ["CRE"],
            "fare_amount": [8.5],
            "total_amount": [9.0],
            "__index_level_0__": [7],
        },
        {"VendorID": 1, "RatecodeID": 1, "store_and_fwd_flag": "N", "payment_type": 1},
    ),
    "yellow 2010-04: rate code as text": (
        "yellow",
        {
            "vendor_id": ["DDS"],
            "pickup_datetime": ["2010-04-05 10:00:00"],
            "dropoff_datetime": ["2010-04-05 10:10:00"],
            "passenger_count": [1],
            "trip_distance": [1.5],
            "rate_code": ["2"],
            "store_and_fwd_flag": ["*"],
            "payment_type": ["No "],
            "fare_amount": [8.5],
            "total_amount": [9.0],
        },
        {"VendorID": 3, "RatecodeID": 2, "store_and_fwd_flag": None, "payment_type": 3},
    ),
    "yellow 2019: ids as double, a column without values": (
        "yellow",
        {
            "VendorID": [1],
            "tpep_pickup_datetime": [at("2019-01-05 10:00:00")],
            "tpep_dropoff_datetime": [at("2019-01-05 10:10:00")],
            "passenger_count": pa.array([2.0], pa.float64()),
            "trip_distance": [1.5],
            "RatecodeID": pa.array([99.0], pa.float64()),
            "payment_type": [1],
            "fare_amount": [8.5],
            "total_amount": [9.0],
            "airport_fee": pa.nulls(1),
        },
        {"passenger_count": 2, "RatecodeID": 99, "Airport_fee": None},
    ),
    "yellow 2023-02: int32 and large_string": (
        "yellow",
        {
            "VendorID": pa.array([2], pa.int32()),
            "tpep_pickup_datetime": [at("2023-02-05 10:00:00")],
            "tpep_dropoff_datetime": [at("2023-02-05 10:10:00")],
            "passenger_count": [1],
            "trip_distance": [1.5],
            "store_and_fwd_flag": pa.array(["N"], LARGE),
            "PULocationID": pa.array([7], pa.int32()),
            "payment_type": [1],
            "fare_amount": [8.5],
            "total_amount": [9.0],
            "Airport_fee": [1.25],
        },
        {"VendorID": 2, "store_and_fwd_flag": "N", "PULocationID": 7, "Airport_fee": 1.25},
    ),
    "green 2026-06: request_source of whatever type": (
        "green",
        {
            "VendorID": [2],
            "lpep_pickup_datetime": [at("2026-06-05 10:00:00")],
            "lpep_dropoff_datetime": [at("2026-06-05 10:10:00")],
            "passenger_count": [None],
            "trip_distance": [1.5],
            "payment_type": [0],
            "fare_amount": [8.5],
            "total_amount": [9.0],
            "cbd_congestion_fee": [0.75],
            "request_source": pa.array([4], pa.int32()),
        },
        {"passenger_count": None, "cbd_congestion_fee": 0.75, "request_source": "4"},
    ),
    "green saved again by pandas: nanoseconds": (
        "green",
        {
            "VendorID": pa.array([2.0]),
            "lpep_pickup_datetime": pa.array([at("2024-03-05 10:00:00.000001")], pa.timestamp("ns")),
            "lpep_dropoff_datetime": pa.array([at("2024-03-05 10:10:00")], pa.timestamp("ns")),
            "passenger_count": pa.array([float("nan")]),
            "trip_distance": [1.5],
            "payment_type": pa.array(["CRD"]).dictionary_encode(),
            "fare_amount": [8.5],
            "total_amount": [9.0],
        },
        {
            "VendorID": 2,
            "lpep_pickup_datetime": at("2024-03-05 10:00:00.000001"),
            "passenger_count": None,
            "payment_type": 1,
        },
    ),
    "fhv 2019: zones as double": (
        "fhv",
        {
            "dispatching_base_num": ["B00001 "],
            "pickup_datetime": [at("2019-01-05 10:00:00")],
            "dropOff_datetime": [at("2019-01-05 10:10:00")],
            "PUlocationID": pa.array([None], pa.float64()),
            "DOlocationID": pa.array([265.0], pa.float64()),
            "SR_Flag": pa.nulls(1),
            "Affiliated_base_number": [" "],
        },
        {
            "dispatching_base_num": "B00001",
            "PUlocationID": None,
            "DOlocationID": 265,
            "SR_Flag": None,
            "Affiliated_base_number": None,
        },
    ),
    "fhvhv 2019: a flag without values": (
        "fhvhv",
        {
            "hvfhs_license_num": ["HV0005"],
            "dispatching_base_num": ["B02510"],
            "pickup_datetime": [at("2019-02-05 10:00:00")],
            "dropoff_datetime": [at("2019-02-05 10:10:00")],
            "PULocationID": [7],
            "DOLocationID": [8],
            "trip_time": [579],
            "shared_request_flag": ["Y"],
            "access_a_ride_flag": [" "],
            "wav_match_flag": pa.nulls(1),
        },
        {"trip_time": 579, "shared_request_flag": "Y", "access_a_ride_flag": None, "wav_match_flag": None},
    ),
}


@pytest.mark.parametrize("era", PARQUET_ERAS)
def test_parquet(era: str) -> None:
    dataset, columns, first = PARQUET_ERAS[era]
    result = run(parquet(pa.table(columns)), dataset, "parquet")
    assert result.reasons == []
    assert {name: result.column(name)[0] for name in first} == first
    assert result.report.unknown_columns == {}
    assert result.report.ignored_columns == [name for name in columns if name.startswith("__")]


@pytest.mark.parametrize("dataset", datasets.DATASETS)
def test_a_file_in_todays_schema_goes_through_unchanged(dataset: str) -> None:
    samples = {
        "int64": [1, None],
        "float64": [1.5, None],
        "string": ["Y", None],
        "timestamp": [at("2026-01-05 10:00:00"), None],
    }
    declared = datasets.get(dataset)
    table = pa.table({column.name: pa.array(samples[column.type], column.arrow_type) for column in declared.columns})
    assert run(parquet(table), dataset, "parquet").rows.equals(table)

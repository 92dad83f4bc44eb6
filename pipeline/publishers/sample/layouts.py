"""How the published files looked, era by era: the layouts in which synthetic months are written.

A layout is a list of columns in file order. Each column has the name that the era's files spell, the physical
type (Parquet) and a ``key``: what stands in the column, under one name for all eras. ``trips`` makes
the values of each key. The eras were read off the published files' own headers and footers.

Months are compared as text, ``2023-02`` < ``2023-10``.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...partition import Partition, format_month

#: First month of each dataset's files. Green's first five months were published as CSV only.
FIRST_MONTHS = {
    "tlc": {"yellow": "2009-01", "green": "2014-01", "fhv": "2015-01", "fhvhv": "2019-02"},
    "dtc": {"yellow": "2009-01", "green": "2013-08", "fhv": "2015-01", "fhvhv": "2019-02"},
}

#: Borough of zones 1 to 265, a letter each: Bronx X, Brooklyn B, EWR E, Manhattan M (m where green cabs may pick
#: up too), Queens Q, Staten Island S, none -.
BOROUGHS = (
    "EQXMSSQQQQBMMBQQBXQXBBSMBBQQBQXXBBBBBQBBmmMSMXXMBMXBQBBQQXXXBBBQBBBMXQBBQmmBBXMBXQQSBQMMBMBQQXQQBQSMQQMMMBMBSSBBMM"
    "SmQSXmQQBQMXmmQQQQBQQXMQQMMMMMQQXMBBMmmBBSQMXQMMMMBmXXXMQSQXQSBBQQBXXXXMSBBBQQQMBQQQXXQmQSQSQXMBMXXSQQBQQXSBQMBQBB"
    "MMMMMMXMMMMXXXmmSMXXMXSQQXBBBQXQMMM--"
)
AIRPORTS = (132, 138)

TIMES = frozenset({"pickup", "dropoff", "request", "on_scene"})
MONEY = frozenset(
    {"fare", "extra", "mta_tax", "tip", "tolls", "ehail", "improvement", "total", "congestion", "airport", "cbd"}
    | {"bcf", "sales_tax", "driver_pay"}
)


@dataclass(frozen=True)
class Column:
    """``type`` is an Arrow type by name (``null`` for an all-null month); all columns of a CSV are ``text``."""

    name: str
    key: str
    type: str


@dataclass(frozen=True)
class CsvStyle:
    """How a CSV era is spelled besides its names.

    ``header_end`` is all between the last name and the first row: the line end and, in many months, a blank
    line. ``surplus`` is how many empty values each row has more than the header has names. ``exact`` prints
    numbers with 17 digits, ``float_ids`` prints integers as ``1.0``.
    """

    header_end: str = "\r\n"
    surplus: int = 0
    quoted: bool = False
    exact: bool = False
    float_ids: bool = False


@dataclass(frozen=True)
class Layout:
    """Columns in file order; ``csv`` is None for Parquet, ``compression`` is the Parquet codec."""

    columns: tuple[Column, ...]
    csv: CsvStyle | None = None
    compression: str = ""

    @property
    def filled(self) -> frozenset[str]:
        """Keys of the columns that carry values."""
        return frozenset(column.key for column in self.columns if column.type != "null")


# Names and keys of the widest era, in file order. Older eras are the first columns of it or differ in spelling.

_YELLOW_OLD_KEYS = (
    "vendor pickup dropoff passengers distance pickup_lon pickup_lat rate flag dropoff_lon dropoff_lat payment fare "
    "extra mta_tax tip tolls total"
)
_YELLOW_2009 = (
    "vendor_name Trip_Pickup_DateTime Trip_Dropoff_DateTime Passenger_Count Trip_Distance Start_Lon Start_Lat "
    "Rate_Code store_and_forward End_Lon End_Lat Payment_Type Fare_Amt surcharge mta_tax Tip_Amt Tolls_Amt Total_Amt"
)
_YELLOW_2010 = (
    "vendor_id pickup_datetime dropoff_datetime passenger_count trip_distance pickup_longitude pickup_latitude "
    "rate_code store_and_fwd_flag dropoff_longitude dropoff_latitude payment_type fare_amount surcharge mta_tax "
    "tip_amount tolls_amount total_amount"
)
_YELLOW_2015_KEYS = _YELLOW_OLD_KEYS.replace(" total", " improvement total")
_YELLOW_2015 = (
    "VendorID tpep_pickup_datetime tpep_dropoff_datetime passenger_count trip_distance pickup_longitude "
    "pickup_latitude RateCodeID store_and_fwd_flag dropoff_longitude dropoff_latitude payment_type fare_amount extra "
    "mta_tax tip_amount tolls_amount improvement_surcharge total_amount"
)
_YELLOW_KEYS = (
    "vendor pickup dropoff passengers distance rate flag pickup_zone dropoff_zone payment fare extra mta_tax tip tolls "
    "improvement total congestion airport cbd source"
)
_YELLOW = (
    "VendorID tpep_pickup_datetime tpep_dropoff_datetime passenger_count trip_distance RatecodeID store_and_fwd_flag "
    "PULocationID DOLocationID payment_type fare_amount extra mta_tax tip_amount tolls_amount improvement_surcharge "
    "total_amount congestion_surcharge airport_fee cbd_congestion_fee request_source"
)
_GREEN_OLD_KEYS = (
    "vendor pickup dropoff flag rate pickup_lon pickup_lat dropoff_lon dropoff_lat passengers distance fare extra "
    "mta_tax tip tolls ehail improvement total payment trip_type"
)
_GREEN_OLD = (
    "VendorID lpep_pickup_datetime Lpep_dropoff_datetime Store_and_fwd_flag RateCodeID Pickup_longitude "
    "Pickup_latitude Dropoff_longitude Dropoff_latitude Passenger_count Trip_distance Fare_amount Extra MTA_tax "
    "Tip_amount Tolls_amount Ehail_fee improvement_surcharge Total_amount Payment_type Trip_type"
)
_GREEN_KEYS = (
    "vendor pickup dropoff flag rate pickup_zone dropoff_zone passengers distance fare extra mta_tax tip tolls ehail "
    "improvement total payment trip_type congestion cbd source"
)
_GREEN = (
    "VendorID lpep_pickup_datetime lpep_dropoff_datetime store_and_fwd_flag RatecodeID PULocationID DOLocationID "
    "passenger_count trip_distance fare_amount extra mta_tax tip_amount tolls_amount ehail_fee improvement_surcharge "
    "total_amount payment_type trip_type congestion_surcharge cbd_congestion_fee request_source"
)
_FHV_KEYS = "base pickup dropoff pickup_zone dropoff_zone shared affiliated"
_FHV = "dispatching_base_num pickup_datetime dropOff_datetime PUlocationID DOlocationID SR_Flag Affiliated_base_number"
_FHV_2017 = "Dispatching_base_num Pickup_DateTime DropOff_datetime PUlocationID DOlocationID SR_Flag"
_FHV_2018 = (
    "Pickup_DateTime DropOff_datetime PUlocationID DOlocationID SR_Flag Dispatching_base_number Dispatching_base_num"
)
_FHV_2019 = "dispatching_base_num pickup_datetime dropoff_datetime PULocationID DOLocationID SR_Flag"
_FHVHV_KEYS = (
    "license base originating request on_scene pickup dropoff pickup_zone dropoff_zone distance seconds fare tolls bcf "
    "sales_tax congestion airport tip driver_pay shared_request shared_match access_a_ride wav_request wav_match cbd"
)
_FHVHV = (
    "hvfhs_license_num dispatching_base_num originating_base_num request_datetime on_scene_datetime pickup_datetime "
    "dropoff_datetime PULocationID DOLocationID trip_miles trip_time base_passenger_fare tolls bcf sales_tax "
    "congestion_surcharge airport_fee tips driver_pay shared_request_flag shared_match_flag access_a_ride_flag "
    "wav_request_flag wav_match_flag cbd_congestion_fee"
)

#: Months before the surcharge whose column of it is nevertheless typed.
_YELLOW_WITH_CONGESTION = frozenset(
    {"2011-01", "2011-03", "2012-12", "2013-05", "2014-01", "2018-01", "2018-06", "2018-09", "2018-11"}
)
_TEXT_KEYS = frozenset(
    {"flag", "source", "license", "base", "originating", "affiliated"}
    | {"shared_request", "shared_match", "access_a_ride", "wav_request", "wav_match"}
)


def layout_of(partition: Partition, layout: str) -> Layout:
    """The layout of a month as ``tlc`` (Parquet) or ``dtc`` (CSV) published it, or would have."""
    month = format_month(partition.first_day)
    return _parquet(partition.dataset, month) if layout == "tlc" else _csv(partition.dataset, month)


# -- Parquet -------------------------------------------------------------------------------------


def _parquet(dataset: str, month: str) -> Layout:
    names, keys = _parquet_names(dataset, month)
    types = {"yellow": _yellow_types, "green": _green_types, "fhv": _fhv_types, "fhvhv": _fhvhv_types}[dataset](month)
    columns = (
        Column(name, key, types.get(key) or _usual_type(key, month)) for name, key in zip(names, keys, strict=True)
    )
    # Files before 2023-02 were written by pandas with gzip, those since with zstd.
    return Layout(tuple(columns), compression="zstd" if month >= "2023-02" else "gzip")


def _parquet_names(dataset: str, month: str) -> tuple[list[str], list[str]]:
    if dataset == "yellow" and month < "2011-01":
        names, keys = (_YELLOW_2009 if month < "2010-01" else _YELLOW_2010).split(), _YELLOW_OLD_KEYS.split()
        if month in ("2010-02", "2010-03"):  # an index of pandas leaked into the file
            names, keys = [*names, "__index_level_0__"], [*keys, "index"]
        return names, keys
    if dataset == "fhv":
        return _FHV.split(), _FHV_KEYS.split()
    names, keys = {
        "yellow": (_YELLOW.split(), _YELLOW_KEYS.split()),
        "green": (_GREEN.split(), _GREEN_KEYS.split()),
        "fhvhv": (_FHVHV.split(), _FHVHV_KEYS.split()),
    }[dataset]
    later = ({"cbd"} if month < "2025-01" else set()) | ({"source"} if month < "2026-06" else set())
    kept = [(name, key) for name, key in zip(names, keys, strict=True) if key not in later]
    if dataset == "yellow" and month >= "2023-02":
        kept = [("Airport_fee" if key == "airport" else name, key) for name, key in kept]
    return [name for name, _ in kept], [key for _, key in kept]


def _usual_type(key: str, month: str) -> str:
    if key in TIMES:
        return "timestamp"
    if key in _TEXT_KEYS:
        return "large_string" if month >= "2023-02" else "string"
    if key in MONEY or key == "distance" or key.endswith(("_lon", "_lat")):
        return "double"
    if key in ("vendor", "pickup_zone", "dropoff_zone") and month >= "2023-02":
        return "int32"
    return "int64"


def _yellow_types(month: str) -> dict[str, str]:
    if month < "2010-01":
        text = dict.fromkeys(("vendor", "pickup", "dropoff", "payment"), "string")
        return {**text, "rate": "double", "flag": "double"}
    if month < "2011-01":
        rate = "int64" if month in ("2010-02", "2010-03") else "string"
        return {**dict.fromkeys(("vendor", "pickup", "dropoff", "payment"), "string"), "rate": rate}
    types: dict[str, str] = {}
    if "2018-07" <= month < "2023-02":
        types |= {"passengers": "double", "rate": "double"}
    if month == "2014-08":
        types["improvement"] = "null"
    if month < "2019-01" and month not in _YELLOW_WITH_CONGESTION:
        types["congestion"] = "null"
    if (month < "2020-08" and month not in ("2011-01", "2018-01")) or month == "2020-10":
        types["airport"] = "null"
    return types


def _green_types(month: str) -> dict[str, str]:
    types = {}
    if month < "2023-02":
        types["trip_type"] = "double"
    if "2019-01" <= month < "2023-02":
        types |= {"rate": "double", "passengers": "double", "payment": "double"}
    if month < "2015-01":
        types["improvement"] = "null"
    if month < "2019-01":
        types["congestion"] = "null"
    if month < "2019-01" or "2019-09" <= month < "2023-02":
        types["ehail"] = "null"
    return types


def _fhv_types(month: str) -> dict[str, str]:
    if month >= "2023-02":
        return {"pickup_zone": "int64", "dropoff_zone": "int64"}
    integers = month in ("2019-05", "2019-06")
    return {
        "shared": "double" if "2017-05" <= month < "2019-03" else "null",
        "pickup_zone": "int64" if integers else "double",
        "dropoff_zone": "int64" if integers or month == "2020-07" else "double",
    }


def _fhvhv_types(month: str) -> dict[str, str]:
    types = {}
    if month < "2019-04":
        types["wav_match"] = "null"
    if month < "2019-07" or month in ("2020-04", "2020-10"):
        types["airport"] = "null"
    return types


# -- CSV -----------------------------------------------------------------------------------------

_BLANK_LINE = "\n\r\n"


def _csv(dataset: str, month: str) -> Layout:
    csv = {"yellow": _yellow_csv, "green": _green_csv, "fhv": _fhv_csv, "fhvhv": _fhvhv_csv}[dataset]
    names, keys, style = csv(month)
    columns = (Column(name, key, "text") for name, key in zip(names, keys.split(), strict=True))
    return Layout(tuple(columns), csv=style)


def _yellow_csv(month: str) -> tuple[list[str], str, CsvStyle]:
    if month < "2015-01":
        names = (_YELLOW_2009 if month < "2010-01" else _YELLOW_2010).split()
        if month >= "2014-01":
            names = [names[0], *(f" {name}" for name in names[1:])]
        return names, _YELLOW_OLD_KEYS, CsvStyle(_BLANK_LINE, exact=True)
    if month < "2016-07":
        names = (_YELLOW_2015 if month < "2015-07" else _YELLOW_2015.replace("RateCodeID", "RatecodeID")).split()
        return names, _YELLOW_2015_KEYS, CsvStyle()
    count = 17 if month < "2019-01" else 18
    style = CsvStyle(_BLANK_LINE if "2017-01" <= month < "2019-01" else "\r\n", surplus=2 if month < "2017-01" else 0)
    return _YELLOW.split()[:count], " ".join(_YELLOW_KEYS.split()[:count]), style


def _green_csv(month: str) -> tuple[list[str], str, CsvStyle]:
    if month < "2016-07":
        names, keys = _GREEN_OLD.split(), _GREEN_OLD_KEYS
        names[-1] += " "
        if month < "2015-01":
            names.remove("improvement_surcharge")
            keys = keys.replace(" improvement", "")
            return names, keys, CsvStyle(_BLANK_LINE if month < "2014-01" else f"\n{_BLANK_LINE}", surplus=2)
        return names, keys, CsvStyle(surplus=2 if month < "2015-07" else 0)
    count = 19 if month < "2019-01" else 20
    style = CsvStyle(_BLANK_LINE if month < "2019-01" else "\r\n", surplus=2 if month < "2017-01" else 0)
    return _GREEN.split()[:count], " ".join(_GREEN_KEYS.split()[:count]), style


def _fhv_csv(month: str) -> tuple[list[str], str, CsvStyle]:
    if month < "2017-01":
        return ["Dispatching_base_num", "Pickup_date", "locationID"], "base pickup pickup_zone", CsvStyle()
    if month < "2018-01":
        keys = "base pickup dropoff pickup_zone dropoff_zone shared"
        if month < "2017-07":
            return _FHV_2017.split()[:5], keys.removesuffix(" shared"), CsvStyle()
        return _FHV_2017.split(), keys, CsvStyle(quoted=True)
    if month < "2019-01":  # the base stands under one of two names, the other is empty
        return _FHV_2018.split(), "pickup dropoff pickup_zone dropoff_zone shared base nothing", CsvStyle(quoted=True)
    if month < "2021-01":
        return _FHV_2019.split(), _FHV_KEYS.removesuffix(" affiliated"), CsvStyle()
    return _FHV.split(), _FHV_KEYS, CsvStyle(float_ids=True)


def _fhvhv_csv(month: str) -> tuple[list[str], str, CsvStyle]:
    names, keys = _FHV_2019.split(), "base pickup dropoff pickup_zone dropoff_zone"
    if month >= "2021-06":
        return [*names, "Affiliated_base_number"], f"{keys} shared_request affiliated", CsvStyle()
    return ["hvfhs_license_num", *names], f"license {keys} shared", CsvStyle()

"""Columns and codes that yellow and green taxis have in common.

Sources: TLC's data dictionaries for yellow and green trip records (codes, meaning, units), and the headers of the
published files since 2009 (aliases, texts).
"""

from __future__ import annotations

import datetime as dt

from .schema import Codes, Column

#: TLC's numbers, and the name each vendor's files carried until 2014. 3 is this project's own: Digital Dispatch
#: Systems took part in 2009 and 2010 only, before TLC numbered the vendors, and TLC never gave 3 to anybody else.
VENDORS: Codes = {
    1: "Creative Mobile Technologies",
    2: "Curb Mobility, formerly VeriFone",
    3: "Digital Dispatch Systems, in 2009 and 2010; not a number of TLC's",
    6: "Myle Technologies",
    7: "Helix",
}
VENDOR_TEXTS = {"CMT": 1, "VTS": 2, "DDS": 3}

RATES: Codes = {
    1: "standard",
    2: "JFK",
    3: "Newark",
    4: "Nassau or Westchester",
    5: "negotiated",
    6: "group ride",
    99: "unknown",
}

PAYMENTS: Codes = {0: "flex fare", 1: "credit card", 2: "cash", 3: "no charge", 4: "dispute", 5: "unknown", 6: "voided"}
#: The spellings of yellow 2009 to 2014, upper-cased: words in 2009 (Cash, Credit), three letters later (CAS, CSH, CRE,
#: CRD). Green files always had numbers, so there NA is no value, as in other columns.
PAYMENT_TEXTS = {
    "CREDIT": 1,
    "CRE": 1,
    "CRD": 1,
    "CASH": 2,
    "CAS": 2,
    "CSH": 2,
    "NO CHARGE": 3,
    "NOC": 3,
    "NO": 3,
    "DISPUTE": 4,
    "DIS": 4,
    "UNKNOWN": 5,
    "UNK": 5,
    "NA": 5,
    "VOIDED TRIP": 6,
    "VOIDED": 6,
    "VOID": 6,
}

FLAGS: Codes = {"Y": "yes", "N": "no"}
#: Old files say 1 and 0, tools that take a flag for a boolean say true and false or t and f; an asterisk means that
#: nobody knows.
FLAG_TEXTS = {
    **{text: "Y" for text in ("Y", "1", "TRUE", "T")},
    **{text: "N" for text in ("N", "0", "FALSE", "F")},
    "*": None,
}

DOLLARS = "US dollars"
DEGREES = "degrees, WGS 84"

VENDOR = Column(
    "VendorID",
    "int64",
    "Provider of the meter system that sent the record",
    aliases=("vendor_id", "vendor_name"),
    codes=VENDORS,
    texts=VENDOR_TEXTS,
)
PASSENGERS = Column("passenger_count", "int64", "Passengers, as the driver entered them; null where nobody did")
DISTANCE = Column("trip_distance", "float64", "Distance the meter measured", unit="miles")
RATE = Column(
    "RatecodeID", "int64", "Rate in effect at the end of the trip", aliases=("rate_code", "ratecode"), codes=RATES
)
STORED = Column(
    "store_and_fwd_flag",
    "string",
    "Whether the record waited in the vehicle for a connection",
    aliases=("store_and_forward",),
    codes=FLAGS,
    texts=FLAG_TEXTS,
)
PICKUP_ZONE = Column("PULocationID", "int64", "Taxi zone where the meter was started")
DROPOFF_ZONE = Column("DOLocationID", "int64", "Taxi zone where the meter was stopped")
PAYMENT = Column("payment_type", "int64", "How the passenger paid", codes=PAYMENTS, texts=PAYMENT_TEXTS)
FARE = Column("fare_amount", "float64", "Fare by time and distance", unit=DOLLARS, aliases=("fare_amt",))
EXTRA = Column("extra", "float64", "Rush hour, overnight and other extras", unit=DOLLARS, aliases=("surcharge",))
MTA_TAX = Column("mta_tax", "float64", "MTA tax", unit=DOLLARS)
TIP = Column("tip_amount", "float64", "Tip by card; cash tips are not recorded", unit=DOLLARS, aliases=("tip_amt",))
TOLLS = Column("tolls_amount", "float64", "All tolls paid", unit=DOLLARS, aliases=("tolls_amt",))
IMPROVEMENT = Column(
    "improvement_surcharge", "float64", "Improvement surcharge", unit=DOLLARS, since=dt.date(2015, 1, 1)
)
TOTAL = Column("total_amount", "float64", "Total charged, without cash tips", unit=DOLLARS, aliases=("total_amt",))
CONGESTION = Column(
    "congestion_surcharge", "float64", "New York State congestion surcharge", unit=DOLLARS, since=dt.date(2019, 1, 1)
)
CBD_FEE = Column(
    "cbd_congestion_fee",
    "float64",
    "Charge for entering the MTA's Congestion Relief Zone",
    unit=DOLLARS,
    since=dt.date(2025, 1, 1),
)
#: TLC has not published what it holds, so its text is kept as it comes.
REQUEST_SOURCE = Column("request_source", "string", "Where the trip was requested", since=dt.date(2026, 6, 1))


def required(pickup: str, dropoff: str) -> tuple[str, ...]:
    """The columns without which a file is none of a taxi dataset with these time columns."""
    return ("VendorID", pickup, dropoff, *(c.name for c in (PASSENGERS, DISTANCE, PAYMENT, FARE, TOTAL)))


#: Until 2016-06 files gave coordinates where they give zones today. TLC's Parquet of 2011 and later has zones only.
COORDINATES = (
    Column("pickup_longitude", "float64", "Where the meter was started; until 2016-06", DEGREES, ("start_lon",)),
    Column("pickup_latitude", "float64", "Where the meter was started; until 2016-06", DEGREES, ("start_lat",)),
    Column("dropoff_longitude", "float64", "Where the meter was stopped; until 2016-06", DEGREES, ("end_lon",)),
    Column("dropoff_latitude", "float64", "Where the meter was stopped; until 2016-06", DEGREES, ("end_lat",)),
)

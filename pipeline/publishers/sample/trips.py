"""The values of synthetic months: when, where, how far and for how much, as whole numbers.

A column is an int32 array: cents, hundredths of a mile, ten-thousandths of a degree, seconds, codes, positions in a
list of words, or NULL. Only the raw 64-bit stream of PCG64, which numpy promises never to change, and integer
arithmetic are used: so the values are the same on every machine and with every version of Python and numpy. All
distributions are tables of 65,536 equally likely values.
"""

from __future__ import annotations

import datetime as dt
from calendar import monthrange
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from numpy.random import PCG64

from ...partition import Partition, format_month
from .layouts import AIRPORTS, BOROUGHS, MONEY, TIMES, Layout

#: One chunk of a month: key -> numbers, all of one length.
Numbers = dict[str, np.ndarray]

CHUNK_ROWS = 128 * 1024

NULL = -(2**31)
DAY = 86_400

#: Times are seconds since the month began, from two days before it to 40 days after; the numbers that follow
#: stand for the odd pickups, each with the drop-off of its row.
FIRST_SECOND, LAST_SECOND = -2 * DAY, 40 * DAY
ODD_PICKUPS = (
    "2002-12-31 22:59:36",
    "2008-12-31 23:04:11",
    "2009-01-01 00:03:25",
    "2041-11-15 02:57:04",
    "2098-09-11 02:23:31",
)
ODD_TRIP_SECONDS = 540

#: Base numbers; some of them padded or in lower case, as some bases report theirs.
BASES = [
    f"B{number:05d}         " if number % 41 == 0 else f"b{number:05d}" if number % 97 == 0 else f"B{number:05d}"
    for number in range(2000, 2250)
]


class Draws:
    """Random numbers in 16-bit steps, from nothing but the raw stream of PCG64."""

    def __init__(self, seed: bytes, count: int) -> None:
        self._raw = PCG64(int.from_bytes(seed, "big")).random_raw
        self.count = count

    def steps(self) -> np.ndarray:
        """uint16 of 0..65535, one for each row."""
        return self._raw(-(-self.count // 4)).astype("<u8").view("<u2")[: self.count]

    def below(self, limit: int) -> np.ndarray:
        """int32 of 0..limit-1, limit up to 32,768."""
        return (self.steps().astype("int32") * limit) >> 16

    def of(self, table: np.ndarray) -> np.ndarray:
        """Values of a table of 65,536, each equally likely."""
        return table[self.steps()]

    def chance(self, per_mille: float) -> np.ndarray:
        return self.steps() < int(per_mille * 65.536)


def _shares(**shares: float) -> np.ndarray:
    """Table for ``Draws.of``: each value (``_`` and a number) with its weight."""
    values = np.array([int(name[1:]) for name in shares], dtype="int32")
    return _weighted(values, list(shares.values()))


def _weighted(values: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    thousandths = np.array([round(weight * 1000) for weight in weights], dtype="int64")
    ends = thousandths.cumsum() * 65_536 // thousandths.sum()
    return np.repeat(values, np.diff(ends, prepend=0)).astype("int32")


@cache
def _curve(*quantiles: tuple[int, int]) -> np.ndarray:
    """Table for ``Draws.of`` from quantiles: (percent, value), from 0 to 100, straight between them."""
    steps = np.arange(65_536, dtype="int64")
    table = np.empty(65_536, dtype="int32")
    for (low, first), (high, last) in pairwise(quantiles):
        begin, end = low * 65_536 // 100, high * 65_536 // 100
        table[begin:end] = first + (last - first) * (steps[begin:end] - begin) // (end - begin)
    return table


#: Pickups in each hour of a working day and of a weekend day, in parts of the busiest.
_HOURS = (
    (24, 14, 9, 7, 8, 14, 36, 62, 76, 72, 68, 70, 74, 74, 78, 82, 82, 92, 100, 96, 84, 78, 66, 44),
    (66, 56, 44, 32, 20, 12, 14, 20, 32, 46, 60, 70, 76, 78, 78, 80, 80, 84, 88, 84, 76, 74, 76, 72),
)

#: Hundredths of a mile.
_MILES = {
    "yellow": ((0, 0), (1, 10), (25, 98), (50, 165), (75, 310), (92, 900), (99, 1950), (100, 3400)),
    "green": ((0, 0), (2, 10), (25, 110), (50, 195), (75, 380), (95, 1050), (99, 1900), (100, 3000)),
    "fhvhv": ((0, 10), (25, 155), (50, 290), (75, 590), (95, 1600), (99, 2400), (100, 5000)),
}
#: Seconds for a mile.
_PACE = ((0, 90), (10, 180), (50, 290), (90, 500), (100, 1100))


def chunks(partition: Partition, rows: int, layout: Layout, seed: Callable[[int], bytes]) -> Iterator[Numbers]:
    """The month in chunks of at most ``CHUNK_ROWS`` rows, each with the numbers of the layout's keys.

    ``seed`` gives the seed of each chunk by its number.
    """
    dataset, month = partition.dataset, partition.first_day
    make = {"fhv": _fhv, "fhvhv": _fhvhv}.get(dataset, _taxi)
    calendar = Calendar(month, rows, flex=rows * _flex_per_mille(partition) // 1000)
    for number, first in enumerate(range(0, rows, CHUNK_ROWS)):
        row_numbers = np.arange(first, min(first + CHUNK_ROWS, rows), dtype="int64")
        draws = Draws(seed(number), len(row_numbers))
        numbers = make(_Chunk(dataset, format_month(month), layout, calendar, row_numbers, draws))
        numbers = {key: values.astype("int32") for key, values in numbers.items()}
        if dataset in ("yellow", "green"):
            _reverse_some(draws, numbers)
        calendar.misdate(row_numbers, numbers)
        nothing = np.full(len(row_numbers), NULL, dtype="int32")
        yield {column.key: numbers.get(column.key, nothing) for column in layout.columns}


def _flex_per_mille(partition: Partition) -> int:
    """Share of flex fares (payment type 0): rows without passengers, rate, flag and congestion surcharge."""
    dataset, month = partition.dataset, partition.first_day
    if dataset == "yellow":
        shares = {2020: 10, 2021: 50, 2022: 35, 2023: 35, 2024: 90, 2025: 150}
        return shares.get(month.year, 0 if month.year < 2020 else 290)
    if dataset == "green" and month >= dt.date(2019, 7, 1):
        return 330 if month < dt.date(2022, 1, 1) else 60
    return 0


class Calendar:
    """When the rows of a month were picked up: by hour in the order of the file, at random within the hour.

    The flex fares (the last ``flex`` rows) begin again with the month's first hour, as in TLC's files.
    """

    def __init__(self, month: dt.date, rows: int, flex: int) -> None:
        self.metered, self.flex = rows - flex, flex
        days = monthrange(month.year, month.month)[1]
        weekdays = [(month.weekday() + day) % 7 for day in range(days)]
        weights = np.array([_HOURS[weekday >= 5] for weekday in weekdays], dtype="int64").ravel()
        sundays = [day for day, weekday in enumerate(weekdays) if weekday == 6]
        #: Hour of the month at which clocks are set (2 a.m.), and by how many seconds.
        self.change, self.shift = NULL, 0
        if month.month == 3:
            self.change, self.shift = sundays[1] * 24 + 2, 3600
            weights[self.change] = 0
        elif month.month == 11:
            self.change, self.shift = sundays[0] * 24 + 2, -3600
        self.until = weights.cumsum()
        self.weekend = np.array([weekday >= 5 for weekday in weekdays])
        odd = min(40, max(1, rows // 5000)) if rows >= 100 else 0
        self.odd_rows = np.array([rows * (each + 1) // (odd + 1) for each in range(odd)], dtype="int64")
        #: The odd pickups that lie outside this month.
        self.odd = [number for number, text in enumerate(ODD_PICKUPS) if not text.startswith(format_month(month))]

    def is_flex(self, row_numbers: np.ndarray) -> np.ndarray:
        return row_numbers >= self.metered

    def pickups(self, draws: Draws, row_numbers: np.ndarray) -> np.ndarray:
        """Seconds since the month began."""
        flex = self.is_flex(row_numbers)
        place = np.where(flex, row_numbers - self.metered, row_numbers)
        size = np.where(flex, self.flex, max(self.metered, 1))
        hour = np.searchsorted(self.until, place * self.until[-1] // size, side="right").astype("int32")
        return hour * 3600 + draws.below(3600)

    def dropoffs(self, draws: Draws, pickups: np.ndarray, seconds: np.ndarray) -> np.ndarray:
        """Wall-clock drop-offs: where clocks go back an hour during the trip, it may end before it began."""
        ends = pickups + seconds
        change = self.change * 3600
        crosses = (pickups < change) & (ends >= change)
        if self.shift < 0:  # 1 to 2 a.m. happens twice: half of the pickups belong to the second time
            crosses &= (pickups < change - 3600) | draws.chance(500)
        return np.where(crosses, ends + self.shift, ends) if self.shift else ends

    def misdate(self, row_numbers: np.ndarray, numbers: Numbers) -> None:
        """Put a few rows years away, as cabs with a wrong clock do."""
        for order, row in enumerate(self.odd_rows):
            place = np.searchsorted(row_numbers, row)
            if place < len(row_numbers) and row_numbers[place] == row:
                odd = LAST_SECOND + 2 * self.odd[order % len(self.odd)]
                for key in TIMES & numbers.keys():
                    if numbers[key][place] != NULL:
                        numbers[key][place] = odd + (key == "dropoff")


@dataclass(frozen=True)
class _Chunk:
    """Rows ``row_numbers`` (int64, consecutive) of a month, which are to be made. ``era`` is the month as text."""

    dataset: str
    era: str
    layout: Layout
    calendar: Calendar
    row_numbers: np.ndarray
    draws: Draws


@cache
def _zones(dataset: str, end: str) -> np.ndarray:
    """Table of zones: Manhattan and the airports for yellow, the other boroughs for green; 264 and 265 at times."""
    by_borough: dict[str, dict[str, float]] = {
        "yellow": {"M": 14, "m": 2, "Q": 0.4, "B": 0.4, "X": 0.1, "S": 0.02, "E": 0.3, "-": 8},
        "green": {"M": 0.3, "m": 16, "Q": 3, "B": 3, "X": 1.5, "S": 0.05, "E": 0.1, "-": 2},
        "fhv": {"M": 4, "m": 3, "Q": 3, "B": 3, "X": 3, "S": 1, "E": 1, "-": 10},
        "fhvhv": {"M": 7, "m": 5, "Q": 3, "B": 4, "X": 3, "S": 0.8, "E": 0.8, "-": 4},
    }
    weights = by_borough[dataset]
    if end == "dropoff" and dataset == "green":
        weights = {**weights, "M": 4}
    values = [weights[letter] for letter in BOROUGHS]
    if dataset == "yellow" or dataset == "fhvhv" or end == "dropoff":
        for zone in AIRPORTS:
            values[zone - 1] = 30
    return _weighted(np.arange(1, 266), values)


@cache
def _in_manhattan() -> np.ndarray:
    """True at the numbers of Manhattan's zones."""
    return np.array([False, *(letter in "Mm" for letter in BOROUGHS)])


def _taxi(chunk: _Chunk) -> Numbers:
    """Yellow and green cabs. Charges that the file has no column for are not charged, so that totals add up."""
    dataset, era, draws, calendar = chunk.dataset, chunk.era, chunk.draws, chunk.calendar
    layout, row_numbers, filled = chunk.layout, chunk.row_numbers, chunk.layout.filled
    nothing = np.zeros(len(row_numbers), dtype="int32")
    flex = calendar.is_flex(row_numbers)
    dearer = era >= "2023-01"  # the fares of 2022-12-19

    pickup = calendar.pickups(draws, row_numbers)
    rate = draws.of(_shares(_1=955, _2=25, _3=3, _4=2, _5=14, _99=1))
    from_zone = np.where((rate == 2) & draws.chance(500), 132, draws.of(_zones(dataset, "pickup")))
    to_zone = np.where((rate == 2) & (from_zone != 132), 132, draws.of(_zones(dataset, "dropoff")))
    distance = draws.of(_curve(*_MILES[dataset]))
    distance = np.where(rate == 2, 1400 + draws.below(600), distance)
    seconds = np.minimum(60 + distance * draws.of(_curve(*_PACE)) // 100 + draws.below(120), 3 * 3600)

    vendors = _shares(_1=400, _2=600) if dataset == "yellow" else _shares(_1=120, _2=880)
    if era < "2010-01":
        vendors = _shares(_1=450, _2=480, _3=70)
    elif era < "2015-01" and dataset == "yellow":
        vendors = _shares(_1=490, _2=510)
    elif era >= "2025-01":
        vendors = _shares(_1=200, _2=785, _6=2, _7=13)
    elif era >= "2020-01":
        vendors = _shares(_1=300, _2=698, _6=2)
    vendor = draws.of(vendors)

    # Money, in cents. A fifth of a mile, or a minute and more in traffic, costs one step of the meter.
    base, step = (300, 70) if dearer else (250, 50) if era >= "2012-09" else (250, 40)
    fare = base + step * (distance // 20 + seconds // 300)
    fare = np.where(rate == 2, 7000 if dearer else 5200 if era >= "2012-09" else 4500, fare)
    fare = np.where(rate == 5, 1000 + 100 * draws.below(120), fare)
    fare = np.where(flex, fare + draws.below(300), fare)
    hour = pickup // 3600 % 24
    rush = (hour >= 16) & (hour < 20) & ~calendar.weekend[np.minimum(pickup // DAY, len(calendar.weekend) - 1)]
    night = (hour >= 20) | (hour < 6)
    unusual = flex | (rate == 2) | (rate == 5)
    manhattan = _in_manhattan()
    payment = draws.of(_shares(_1=700, _2=288, _3=8, _4=4))
    if era < "2010-01":
        payment = draws.of(_shares(_1=210, _2=785, _3=4, _4=1))
    from_airport = np.isin(from_zone, AIRPORTS)
    by_hour = np.where(rush, 250 if dearer else 100, np.where(night, 100 if dearer else 50, 0))
    tolls = _shares(_0=945, _576=45, _612=10)
    if era < "2009-07":
        tolls = _shares(_0=945, _415=52, _830=3)
    elif dearer:
        tolls = _shares(_0=945, _655=50, _1275=5)
    charges = {
        "fare": fare,
        "extra": np.where(unusual, 0, by_hour),
        "mta_tax": np.where(unusual & (rate != 2), 0, 50),
        "tolls": draws.of(tolls),
        "improvement": nothing + (100 if dearer else 30 if era >= "2015-01" else 0),
        "congestion": np.where(
            (manhattan[from_zone] | manhattan[to_zone]) & (era >= "2019-02"), 250 if dataset == "yellow" else 275, 0
        ),
        "airport": np.where(from_airport & (era >= "2021-06"), 175 if era >= "2023-04" else 125, 0),
        "cbd": np.where(manhattan[to_zone] & draws.chance(800), 75, 0),
    }
    charges = {key: amount.astype("int32") for key, amount in charges.items() if key in filled}
    for key in charges.keys() & {"congestion", "airport"}:
        charges[key][flex] = NULL
    if era < "2010-01":
        charges["mta_tax"][vendor != 1] = NULL
    charged = nothing + sum(np.where(amount == NULL, 0, amount) for amount in charges.values())
    tips = _shares(_0=120, _10=60, _15=140, _20=400, _22=60, _25=150, _30=60, _50=10)
    charges["tip"] = np.where(payment == 1, charged * draws.of(tips) // 100, 0).astype("int32")
    charges["total"] = charged + charges["tip"]

    stored = draws.chance(8).astype("int32")
    numbers: Numbers = {
        **charges,
        "vendor": vendor,
        "pickup": pickup,
        "dropoff": calendar.dropoffs(draws, pickup, seconds),
        "passengers": draws.of(_shares(_0=15, _1=715, _2=150, _3=40, _4=20, _5=35, _6=24, _8=1)),
        "distance": distance,
        "rate": rate,
        "flag": np.where(vendor == 1, stored, NULL if era < "2015-01" and dataset == "yellow" else 0),
        "pickup_zone": from_zone,
        "dropoff_zone": to_zone,
        "payment": payment,
        "trip_type": np.where(rate == 5, 2, 1),
        "source": draws.chance(300).astype("int32"),
        "index": (row_numbers % 65_536).astype("int32"),
    }
    if filled & {"pickup_lon"}:
        unknown = draws.chance(15)
        for end, zone in (("pickup", from_zone), ("dropoff", to_zone)):
            # Zones are strewn over the city by their number; the places are made up.
            numbers[f"{end}_lon"] = np.where(unknown, 0, 17_500 + zone * 37 % 2300 + draws.below(150))
            numbers[f"{end}_lat"] = np.where(unknown, 0, 6000 + zone * 53 % 2400 + draws.below(150))
    if era < "2010-01":
        numbers["rate"] = nothing + NULL
    if era < "2015-01" and layout.csv:
        numbers["trip_type"] = nothing + NULL

    for key in ("passengers", "rate", "flag", "trip_type"):
        numbers[key] = np.where(flex, NULL, numbers[key])
    # Only yellow Parquet writes the code 0; green and all CSV leave the payment type of flex fares empty.
    coded = dataset == "yellow" and layout.csv is None
    numbers["payment"] = np.where(flex, 0 if coded else NULL, numbers["payment"])
    if layout.csv:
        numbers["vendor"] = np.where(flex, NULL, numbers["vendor"])
    return numbers


def _reverse_some(draws: Draws, numbers: Numbers) -> None:
    """Make about 3 in 1,000 rows the reversal of the row before: the same trip with all amounts negative."""
    rows = np.flatnonzero(draws.chance(3))
    rows = rows[(rows > 0) & (np.diff(rows, prepend=-1) > 1)]
    for key, values in numbers.items():
        values[rows] = values[rows - 1]
        if key in MONEY:
            values[rows] = np.where(values[rows] == NULL, NULL, -values[rows])
    numbers["payment"][rows] = np.where(numbers["payment"][rows] > 0, 4, numbers["payment"][rows])


def _fhv(chunk: _Chunk) -> Numbers:
    """For-hire vehicles: who sent the car, when, and in half of the rows from where."""
    dataset, draws, calendar = chunk.dataset, chunk.draws, chunk.calendar
    pickup = calendar.pickups(draws, chunk.row_numbers)
    base = draws.below(len(BASES))
    return {
        "base": base,
        "affiliated": np.where(draws.chance(900), base, draws.below(len(BASES))),
        "pickup": pickup,
        "dropoff": calendar.dropoffs(draws, pickup, draws.of(_curve((0, 60), (50, 900), (95, 3600), (100, 14_400)))),
        "pickup_zone": np.where(draws.chance(500), NULL, draws.of(_zones(dataset, "pickup"))),
        "dropoff_zone": np.where(draws.chance(200), NULL, draws.of(_zones(dataset, "dropoff"))),
        "shared": np.where(draws.chance(60), 1, NULL),
    }


def _fhvhv(chunk: _Chunk) -> Numbers:
    """High-volume for-hire vehicles: Juno (2), Uber (3), Via (4), Lyft (5)."""
    dataset, era, draws, calendar = chunk.dataset, chunk.era, chunk.draws, chunk.calendar
    shares = _shares(_2=30, _3=680, _4=50, _5=240) if era < "2019-12" else _shares(_3=730, _5=270)
    company = draws.of(shares)
    uber = company == 3
    base = company * 8 + np.where(uber, draws.below(8), 0)
    pickup = calendar.pickups(draws, chunk.row_numbers)
    distance = draws.of(_curve(*_MILES[dataset]))
    seconds = np.minimum(90 + distance * draws.of(_curve(*_PACE)) // 100 + draws.below(120), 3 * 3600)
    waited = 60 + draws.below(600)
    from_zone, to_zone = draws.of(_zones(dataset, "pickup")), draws.of(_zones(dataset, "dropoff"))
    manhattan = _in_manhattan()
    fare = 300 + distance * (120 + draws.below(120)) // 100 + seconds // 2
    shared = draws.chance(40)
    return {
        "license": company,
        "base": base,
        "originating": np.where(uber, base, NULL),
        "affiliated": np.where(uber, base, NULL),
        "request": pickup - waited,
        "on_scene": np.where(uber, pickup - draws.below(60), NULL),
        "pickup": pickup,
        "dropoff": calendar.dropoffs(draws, pickup, seconds),
        "pickup_zone": from_zone,
        "dropoff_zone": to_zone,
        "distance": distance,
        "seconds": seconds,
        "fare": fare,
        "tolls": draws.of(_shares(_0=900, _612=70, _655=30)),
        "bcf": fare * (275 if era >= "2022-12" else 250) // 10_000,
        "sales_tax": fare * 8875 // 100_000,
        "congestion": np.where(manhattan[from_zone] | manhattan[to_zone], 275, 0),
        "airport": np.where(np.isin(from_zone, AIRPORTS) | np.isin(to_zone, AIRPORTS), 250, 0),
        "tip": np.where(draws.chance(180), 100 * (1 + draws.below(8)), 0),
        "driver_pay": fare * (60 + draws.below(35)) // 100,
        "shared": np.where(shared, 1, NULL),
        "shared_request": shared,
        "shared_match": shared & draws.chance(400),
        "access_a_ride": np.where(uber, 2, 0),
        "wav_request": draws.chance(3),
        "wav_match": draws.chance(50),
        "cbd": np.where(manhattan[to_zone] & draws.chance(700), 150, 0),
    }

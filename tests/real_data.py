"""Published files: those of ``tests/data``, or of the folder of the same layout that ``TRIPS_TEST_DATA`` names."""

from __future__ import annotations

import gzip
import os
import re
from pathlib import Path

FOLDER = Path(os.environ.get("TRIPS_TEST_DATA") or Path(__file__).parent / "data").absolute()

#: Rows of green months, as the publishers' own counts have them.
PUBLISHED_ROWS = {
    "dtc": {"2020-03": 223_406, "2020-04": 35_612, "2020-05": 57_360, "2020-08": 81_063, "2020-10": 95_120},
    "tlc": {
        "2020-04": 35_644,
        "2021-01": 76_518,
        "2021-02": 64_572,
        "2022-01": 62_495,
        "2022-02": 69_399,
        "2022-03": 78_537,
        "2023-01": 68_211,
        "2023-02": 64_809,
        "2023-03": 72_044,
        "2025-01": 48_326,
    },
}


def path_of(publisher: str, month: str) -> Path:
    """The file of a green month of the publisher ``dtc`` or ``tlc``."""
    place = {"dtc": f"green/green_tripdata_{month}.csv.gz", "tlc": f"trip-data/green_tripdata_{month}.parquet"}
    return FOLDER / "publishers" / publisher / place[publisher]


#: The same of the months that are there.
ROWS = {
    publisher: {month: rows for month, rows in months.items() if path_of(publisher, month).exists()}
    for publisher, months in PUBLISHED_ROWS.items()
}


def zones_of(publisher: str) -> Path:
    """The zone table of a publisher."""
    return FOLDER / "publishers" / publisher / "misc" / "taxi_zone_lookup.csv"


def csv_files(kind: str) -> dict[str, bytes]:
    """The CSV files of ``eras`` or ``samples`` by name, unpacked."""
    found = {}
    for path in sorted((FOLDER / kind).glob("*.csv*")):
        data = path.read_bytes()
        found[path.name.removesuffix(".gz")] = gzip.decompress(data) if path.suffix == ".gz" else data
    return found


def damaged(kind: str) -> list[Path]:
    """The damaged Parquet files of a kind, such as ``truncated``; none where the folder has none."""
    return sorted((FOLDER / "damaged").glob(f"*.{kind}.parquet"))


def csv_lines(data: bytes) -> int:
    """Lines with text, without the header."""
    return sum(bool(line.strip()) for line in data.split(b"\n")) - 1


def month_in(name: str) -> str:
    """The month that a file's name has, ``YYYY-MM``; empty if it has none."""
    found = re.search(r"\d{4}-\d\d", name)
    return found[0] if found else ""

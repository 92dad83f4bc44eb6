"""Small files that expand to large ones, and the memory and time that cleaning them takes."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 32_768
#: Megabytes that cleaning any file may add to a process that has loaded all that it needs, which has some 150. The most
#: seen are 245, and some allocators need more than others; without bounds these files take gigabytes.
MOST = 320


def green(rows: int = ROWS, passengers: int = 1, **columns: pa.Array) -> pa.Table:
    """Trips of 2020-04 with some columns replaced or added. No passengers make rows that a rule refuses."""
    times = pa.array(np.full(rows, np.datetime64("2020-04-01", "us")))
    table = {
        "VendorID": pa.array(np.ones(rows, np.int64)),
        "lpep_pickup_datetime": times,
        "lpep_dropoff_datetime": times,
        "passenger_count": pa.array(np.full(rows, passengers)),
        "trip_distance": pa.array(np.ones(rows)),
        "payment_type": pa.array(np.ones(rows, np.int64)),
        "fare_amount": pa.array(np.full(rows, 5.0)),
        "total_amount": pa.array(np.full(rows, 6.0)),
    }
    return pa.table(table | columns)


def parquet(table: pa.Table, **options: object) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **{"compression": "zstd"} | options)
    return sink.getvalue()


def repeated(value: str | bytes, rows: int = ROWS) -> pa.Array:
    """One value in all rows, which the file has once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def _zeros(rows: int) -> pa.Array:
    return pa.array(np.zeros(rows))


#: One page for a whole column of a row group.
_LARGE_PAGES: dict[str, object] = {
    "use_dictionary": False,
    "data_page_size": 1 << 30,
    "max_rows_per_page": 1 << 30,
}


def _distinct(rows: int) -> bytes:
    return parquet(green(rows, zz=pa.array(np.arange(rows)).cast(pa.string())), dictionary_pagesize_limit=1 << 30)


#: By what they are. The rows of each are read or rejected, or the file is refused in one line.
PARQUET: dict[str, Callable[[], bytes]] = {
    "a long text": lambda: parquet(green(zz=repeated("x" * 1_000_000))),
    "a long text in rejects": lambda: parquet(green(9_000, 0, zz=repeated("\u00e9" * 300_000, 9_000))),
    "long bytes in rejects": lambda: parquet(green(2_000, 0, zz=repeated(b"\xff" * 500_000, 2_000))),
    "a long text of ours": lambda: parquet(green(9_000, request_source=repeated("x" * 500_000, 9_000))),
    # Without the schema that Arrow leaves in a file, texts come as indices, and so in large batches.
    "a long text of ours, by another tool": lambda: parquet(
        green(request_source=repeated("x" * 500_000)), store_schema=False
    ),
    "ten texts that originals keep, by another tool": lambda: parquet(
        green(12_000, 0, **{f"z{i}": repeated("x" * 4_000, 12_000) for i in range(10)}), store_schema=False
    ),
    "a long code": lambda: parquet(green(9_000, store_and_fwd_flag=repeated("x" * 1_000_000, 9_000))),
    "a long time": lambda: parquet(green(9_000, lpep_pickup_datetime=repeated("x" * 1_000_000, 9_000))),
    "a long number": lambda: parquet(green(9_000, fare_amount=repeated("1" * 60_000, 9_000))),
    "a struct of long texts": lambda: parquet(
        green(zz=pa.StructArray.from_arrays([repeated("x" * 60_000)], ["a"])),
    ),
    "lists of a long text": lambda: parquet(green(64, zz=pa.array([["x" * 60_000] * 64] * 64))),
    "a long list": lambda: parquet(green(3, zz=pa.array([[1] * 5_000_000, [], None], pa.list_(pa.int64())))),
    "texts that repeat the one before": lambda: parquet(
        green(8_000, 0, zz=pa.array(["x" * 60_000] * 8_000)),
        use_dictionary=False,
        column_encoding={"zz": "DELTA_BYTE_ARRAY"},
    ),
    "wide bytes": lambda: parquet(green(2_000, 0, zz=pa.array([b"x" * 100_000] * 2_000, pa.binary(100_000)))),
    "one value of 20 MB": lambda: parquet(green(3, 0, zz=pa.array(["x" * 20_000_000, "", None]))),
    "large pages": lambda: parquet(green(3_000_000), **_LARGE_PAGES),
    "larger pages": lambda: parquet(green(3_000_000), row_group_size=3_000_000, **_LARGE_PAGES),
    "a large dictionary": lambda: _distinct(500_000),
    "a larger dictionary": lambda: _distinct(1_000_000),
    "1,000 columns": lambda: parquet(green(**{f"c{i}": _zeros(ROWS) for i in range(900)})),
    "10,000 columns": lambda: parquet(green(3, **{f"c{i}": pa.nulls(3) for i in range(10_000)})),
    "long names": lambda: parquet(green(3, 0, **{f"c{i}" + "n" * 100_000: pa.nulls(3) for i in range(20)})),
    "many row groups": lambda: parquet(green(1_000), row_group_size=1),
    "no row": lambda: parquet(green(0)),
}


_NAMES = ",".join(green(0).schema.names).encode()
_LINE = b"1,2020-04-01 00:00:00,2020-04-01 00:10:00,1,1.0,1,5.0,6.0"
_EMPTY = b"," * _NAMES.count(b",")

#: The same of CSV files, unpacked.
CSV: dict[str, Callable[[], bytes]] = {
    "a header that ends in 900 commas": lambda: _NAMES + b"," * 900 + b"\n" + (_EMPTY + b"\n") * 160_000,
    "a header that ends in 100 commas": lambda: _NAMES + b"," * 100 + b"\n" + (_EMPTY + b"\n") * 500_000,
    "990 unknown columns": lambda: _NAMES + b",x" * 990 + b"\n" + (_LINE + b"," * 990 + b"\n") * 8_000,
    "a header of 1,500 names": lambda: _NAMES + b",x" * 1_500 + b"\n" + _LINE + b"," * 1_500,
    "a line of commas": lambda: _NAMES + b"\n" + b"," * 4_000_000 + b"\n" + _LINE,
    "empty lines": lambda: _NAMES + b"\n" * 8_000_000 + _LINE,
    "byte order marks": lambda: _NAMES + b"\n" + b"\xef\xbb\xbf\n" * 2_000_000 + _LINE,
    "long values": lambda: _NAMES + b"\n" + (b"x" * 3_000_000 + b"," + _LINE + b"\n") * 5,
}


@contextmanager
def bounded(most: int = MOST) -> Iterator[None]:
    """Fail if what is done here takes more than so many megabytes at any time, beside what the process had before."""
    before = resident_now()
    yield
    more = most_resident() - before
    assert more <= most, f"{more} MB more at a time"


def resident_now() -> int:
    """Megabytes of resident memory of this process; from now on its greatest is counted anew.

    Where nobody says, or a process may not begin anew, a number that is never reached.
    """
    try:
        before = _status("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return 1 << 30
    return before


def most_resident() -> int:
    """Megabytes of the greatest resident memory since ``resident_now``."""
    try:
        return _status("VmHWM")
    except OSError:
        return 0


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))

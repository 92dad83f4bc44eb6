"""Synthetic months: they look like the published ones, era by era, and are the same for the same seed."""

from __future__ import annotations

import argparse
import datetime as dt
import gzip
import hashlib
import re
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import datasets
from pipeline.cleaning.chunks import Report
from pipeline.cleaning.cleaner import clean
from pipeline.cleaning.rules import Rules
from pipeline.commands import sample
from pipeline.errors import NeverOffered, SyntheticData, UsageError
from pipeline.partition import ZONES, Partition
from pipeline.publishers import open_publisher
from pipeline.publishers.sample import generator, writer

from ...real_data import csv_files

# The first month of each era, and the odd months within: what is special about each stands in sample_layouts.
PARQUET_ERAS = {
    "yellow": "2009-01 2010-01 2010-02 2010-04 2011-01 2011-02 2014-08 2018-01 2018-07 2019-01 2020-08 2020-10 2020-11 "
    "2023-02 2025-01 2026-06",
    "green": "2014-01 2015-01 2019-01 2019-09 2023-02 2025-01 2026-06",
    "fhv": "2015-01 2017-05 2019-03 2019-05 2019-07 2020-07 2020-08 2023-02",
    "fhvhv": "2019-02 2019-04 2019-07 2020-04 2020-05 2020-10 2023-02 2025-01",
}
CSV_ERAS = {
    "yellow": "2009-01 2010-01 2011-01 2014-01 2015-01 2015-07 2016-07 2017-01 2019-01 2020-01 2021-07",
    "green": "2013-08 2014-01 2015-01 2015-07 2016-07 2017-01 2019-01 2021-01",
    "fhv": "2015-01 2017-01 2017-07 2018-01 2019-01 2021-01",
    "fhvhv": "2019-02 2021-06",
}
ERAS = [
    pytest.param(layout, dataset, month, id=f"{layout}-{dataset}-{month}")
    for layout, eras in (("tlc", PARQUET_ERAS), ("dtc", CSV_ERAS))
    for dataset, months in eras.items()
    for month in months.split()
]


def first_of(month: str) -> dt.date:
    return dt.date.fromisoformat(f"{month}-01")


def make(
    folder: Path, dataset: str, month: str | None, *, rows: int = 2000, seed: int = 1, layout: str = "tlc"
) -> Path:
    path = folder / ("month.parquet" if layout == "tlc" else "month.csv.gz")
    generator.make_file(
        Partition(dataset, first_of(month) if month else None), path, rows=rows, seed=seed, layout=layout
    )
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def lines_of(path: Path) -> list[str]:
    return gzip.decompress(path.read_bytes()).decode().split("\n")


# -- every era -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "dataset", "month"), ERAS)
def test_cleaning_reads_every_era_without_unreadable_rows(
    tmp_path: Path, layout: str, dataset: str, month: str
) -> None:
    path = make(tmp_path, dataset, month, layout=layout)
    declared, report = datasets.get(dataset), Report()

    with path.open("rb") as stream:
        format_ = "parquet" if layout == "tlc" else "csv.gz"
        pieces = list(clean(stream, format_, declared, first_of(month), Rules.parse("none"), path.name, report))

    assert (report.rows_read, report.unreadable, report.first_unreadable) == (2000, 0, None)
    assert not report.unknown_columns
    assert not report.unknown_codes
    rows = pa.Table.from_batches([piece.rows for piece in pieces])
    assert rows.column(declared.pickup).null_count == 0


def test_cleaning_reads_the_zone_table(tmp_path: Path) -> None:
    path = tmp_path / "zones.csv"
    generator.make_file(ZONES, path, rows=1, seed=1)
    report = Report()

    with path.open("rb") as stream:
        (piece,) = clean(stream, "csv", datasets.get("zones"), None, Rules.parse("none"), path.name, report)

    assert (report.rows_read, report.unreadable) == (265, 0)
    assert piece.rows.column("LocationID").to_pylist() == list(range(1, 266))
    assert piece.rows.slice(263).to_pylist() == [
        {"LocationID": 264, "Borough": "Unknown", "Zone": "NV", "service_zone": "N/A"},
        {"LocationID": 265, "Borough": "N/A", "Zone": "Outside of NYC", "service_zone": "N/A"},
    ]
    assert path.read_bytes().startswith(b'"LocationID","Borough","Zone","service_zone"\r\n1,"EWR","Zone 1 (synthetic)"')


PUBLISHED_NAMES = {
    ("yellow", "2009-01"): "vendor_name Trip_Pickup_DateTime Trip_Dropoff_DateTime Passenger_Count Trip_Distance "
    "Start_Lon Start_Lat Rate_Code store_and_forward End_Lon End_Lat Payment_Type Fare_Amt surcharge mta_tax Tip_Amt "
    "Tolls_Amt Total_Amt",
    (
        "yellow",
        "2026-06",
    ): "VendorID tpep_pickup_datetime tpep_dropoff_datetime passenger_count trip_distance RatecodeID "
    "store_and_fwd_flag PULocationID DOLocationID payment_type fare_amount extra mta_tax tip_amount tolls_amount "
    "improvement_surcharge total_amount congestion_surcharge Airport_fee cbd_congestion_fee request_source",
    ("fhv", "2015-01"): "dispatching_base_num pickup_datetime dropOff_datetime PUlocationID DOlocationID SR_Flag "
    "Affiliated_base_number",
}


@pytest.mark.parametrize(("dataset", "month"), PUBLISHED_NAMES)
def test_parquet_names_are_the_published_ones(tmp_path: Path, dataset: str, month: str) -> None:
    assert pq.read_schema(make(tmp_path, dataset, month)).names == PUBLISHED_NAMES[dataset, month].split()


@pytest.mark.parametrize(
    ("dataset", "month", "types"),
    [
        ("yellow", "2009-01", {"Trip_Pickup_DateTime": "string", "Payment_Type": "string", "Rate_Code": "double"}),
        ("yellow", "2010-01", {"rate_code": "string"}),
        ("yellow", "2010-02", {"rate_code": "int64", "__index_level_0__": "int64"}),
        ("yellow", "2011-02", {"airport_fee": "null", "congestion_surcharge": "null", "VendorID": "int64"}),
        ("yellow", "2014-08", {"improvement_surcharge": "null"}),
        ("yellow", "2018-06", {"passenger_count": "int64", "congestion_surcharge": "double"}),
        ("yellow", "2018-07", {"passenger_count": "double", "RatecodeID": "double"}),
        ("yellow", "2020-10", {"airport_fee": "null"}),
        ("yellow", "2020-11", {"airport_fee": "double"}),
        ("yellow", "2023-01", {"airport_fee": "double", "VendorID": "int64", "store_and_fwd_flag": "string"}),
        ("yellow", "2023-02", {"Airport_fee": "double", "VendorID": "int32", "store_and_fwd_flag": "large_string"}),
        ("green", "2019-08", {"ehail_fee": "double", "payment_type": "double"}),
        ("green", "2019-09", {"ehail_fee": "null"}),
        ("green", "2023-02", {"ehail_fee": "double", "trip_type": "int64", "PULocationID": "int32"}),
        ("fhv", "2019-05", {"SR_Flag": "null", "PUlocationID": "int64"}),
        ("fhv", "2020-07", {"PUlocationID": "double", "DOlocationID": "int64"}),
        ("fhv", "2023-02", {"SR_Flag": "int64", "Affiliated_base_number": "large_string"}),
        ("fhvhv", "2019-03", {"wav_match_flag": "null", "airport_fee": "null", "pickup_datetime": "timestamp[us]"}),
        ("fhvhv", "2023-02", {"hvfhs_license_num": "large_string", "DOLocationID": "int32", "trip_time": "int64"}),
    ],
)
def test_parquet_types_drift_as_the_published_ones_did(
    tmp_path: Path, dataset: str, month: str, types: dict[str, str]
) -> None:
    schema = pq.read_schema(make(tmp_path, dataset, month, rows=10))

    assert {name: str(schema.field(name).type) for name in types} == types


def test_names_and_types_equal_those_of_real_files(tmp_path: Path, real_data: Path) -> None:
    for real in sorted((real_data / "publishers" / "tlc" / "trip-data").glob("*.parquet")):
        dataset, _, month = real.stem.split("_")
        path = make(tmp_path, dataset, month, rows=10)
        published, made = pq.read_schema(real), pq.read_schema(path)
        assert made.equals(published, check_metadata=False), real.name
        assert pq.ParquetFile(path).metadata.row_group(0).column(0).compression == (
            pq.ParquetFile(real).metadata.row_group(0).column(0).compression
        ), real.name


def test_headers_equal_those_of_real_csv_files(tmp_path: Path) -> None:
    for name, data in csv_files("eras").items():
        dataset, _, month = name.removesuffix(".csv").split("_")
        published = data.decode("latin-1").split("\n")
        made = lines_of(make(tmp_path, dataset, month, rows=10, layout="dtc"))
        first_row = next(number for number, line in enumerate(published) if number and line.strip())
        assert made[:first_row] == published[:first_row], name  # names, line ends and blank lines
        assert made[first_row].count(",") == published[first_row].count(","), name
        assert made[first_row].endswith("\r") == published[first_row].endswith("\r"), name


def test_one_row_group_however_many_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.publishers.sample.trips.CHUNK_ROWS", 300)

    metadata = pq.ParquetFile(make(tmp_path, "fhvhv", "2025-01", rows=1000)).metadata

    assert (metadata.num_row_groups, metadata.num_rows) == (1, 1000)
    assert metadata.metadata[b"synthetic"] == b"true"


# -- what the rows look like ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def yellow(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """November 2025: flex fares, all surcharges, clocks go back."""
    return pq.read_table(make(tmp_path_factory.mktemp("yellow"), "yellow", "2025-11", rows=200_000))


def share(mask: pa.ChunkedArray) -> float:
    return pc.mean(pc.fill_null(mask, False)).as_py()


def test_rows_come_roughly_in_the_order_of_pickups(yellow: pa.Table) -> None:
    metered = yellow.filter(pc.not_equal(yellow["payment_type"], 0))["tpep_pickup_datetime"]
    hours = pc.floor_temporal(metered, unit="hour").to_pylist()
    steps = [later - earlier for earlier, later in pairwise(hours)]

    assert sum(step < dt.timedelta(0) for step in steps) < 100
    assert metered.slice(0, 1000).to_pylist() != sorted(metered.slice(0, 1000).to_pylist())


def test_evenings_are_busier_than_nights(yellow: pa.Table) -> None:
    counts = {
        row["values"]: row["counts"] for row in pc.value_counts(pc.hour(yellow["tpep_pickup_datetime"])).to_pylist()
    }

    assert counts[18] > 3 * counts[4]


def test_flex_fares_have_no_passengers_rate_flag_and_surcharges(yellow: pa.Table) -> None:
    flex = yellow.filter(pc.equal(yellow["payment_type"], 0))
    metered = yellow.filter(pc.not_equal(yellow["payment_type"], 0))

    assert 0.1 < flex.num_rows / yellow.num_rows < 0.2
    for name in ("passenger_count", "RatecodeID", "store_and_fwd_flag", "congestion_surcharge", "Airport_fee"):
        assert flex[name].null_count == flex.num_rows, name
        assert metered[name].null_count == 0, name


def test_some_trips_have_zero_passengers(yellow: pa.Table) -> None:
    assert 0.01 < share(pc.equal(yellow["passenger_count"], 0)) < 0.02


def test_a_few_pickups_lie_years_outside_the_month(yellow: pa.Table) -> None:
    years = pc.year(yellow["tpep_pickup_datetime"])
    odd = years.filter(pc.not_equal(years, 2025))

    assert 0 < len(odd) <= 40
    assert (pc.min(odd).as_py(), pc.max(odd).as_py()) == (2002, 2098)


def test_totals_add_up(yellow: pa.Table) -> None:
    charges = ["fare_amount", "extra", "mta_tax", "tip_amount", "tolls_amount", "improvement_surcharge"]
    charges += ["congestion_surcharge", "Airport_fee", "cbd_congestion_fee"]
    cents = [pc.round(pc.multiply(pc.fill_null(yellow[name], 0.0), 100)) for name in charges]
    sums = cents[0]
    for part in cents[1:]:
        sums = pc.add(sums, part)

    assert sums.equals(pc.round(pc.multiply(yellow["total_amount"], 100)))


def test_negative_fares_reverse_the_row_before(yellow: pa.Table) -> None:
    fares, pickups = yellow["fare_amount"].to_pylist(), yellow["tpep_pickup_datetime"].to_pylist()
    negative = [row for row, fare in enumerate(fares) if fare < 0]

    assert 0.001 < len(negative) / len(fares) < 0.005
    assert all(fares[row] == -fares[row - 1] for row in negative)
    misdated = sum(pickups[row] != pickups[row - 1] for row in negative)
    assert misdated <= 40


def test_dropoff_before_pickup_only_where_clocks_go_back(yellow: pa.Table) -> None:
    backwards = yellow.filter(pc.less(yellow["tpep_dropoff_datetime"], yellow["tpep_pickup_datetime"]))
    hours = pc.floor_temporal(backwards["tpep_pickup_datetime"], unit="hour")

    assert backwards.num_rows > 0
    assert pc.unique(hours).to_pylist() == [dt.datetime(2025, 11, 2, 1)]


def test_zones_264_and_265_occur_and_no_others_beyond(yellow: pa.Table) -> None:
    zones = set(yellow["PULocationID"].to_pylist())

    assert {264, 265} <= zones <= set(range(1, 266))


def test_half_of_fhv_pickup_zones_are_null(tmp_path: Path) -> None:
    table = pq.read_table(make(tmp_path, "fhv", "2021-01", rows=20_000))

    assert 0.48 < table["PUlocationID"].null_count / table.num_rows < 0.52


def test_no_trip_begins_in_the_hour_that_clocks_skip(tmp_path: Path) -> None:
    pickups = pq.read_table(make(tmp_path, "green", "2021-03", rows=20_000))["lpep_pickup_datetime"]

    assert dt.datetime(2021, 3, 14, 2) not in pc.floor_temporal(pickups, unit="hour").to_pylist()


# -- the same again ------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["tlc", "dtc"])
def test_same_arguments_same_bytes_and_others_differ(tmp_path: Path, layout: str) -> None:
    def digest(name: str, **changes: object) -> str:
        arguments = {"dataset": "green", "month": "2020-04", "rows": 500, "seed": 1, **changes}
        folder = tmp_path / name
        folder.mkdir()
        return sha256(make(folder, layout=layout, **arguments))

    first = digest("first")
    assert digest("again") == first
    others = [digest("seed", seed=2), digest("rows", rows=501), digest("month", month="2020-05")]
    assert len({first, *others}) == 4


def test_values_are_pinned(tmp_path: Path) -> None:
    """Must change only together with GENERATOR: made files carry its number."""
    text = gzip.decompress(make(tmp_path, "yellow", "2021-01", rows=1000, layout="dtc").read_bytes())

    assert (generator.GENERATOR, hashlib.sha256(text).hexdigest()) == (
        1,
        "836d7426cf4e354df99ceebe73b9b2efacbf578ad0600dee0d7d8641d145837c",
    )


def test_the_bytes_do_not_depend_on_the_name_of_the_file(tmp_path: Path) -> None:
    paths = [tmp_path / "a.csv.gz", tmp_path / ".b.part"]
    for path in paths:
        generator.make_file(Partition("yellow", dt.date(2021, 1, 1)), path, rows=10, seed=1, layout="dtc")

    assert sha256(paths[0]) == sha256(paths[1])
    header = paths[0].read_bytes()[:64]
    assert header[4:8] == b"\0\0\0\0"  # no time
    assert header[10:].startswith(b"yellow_tripdata_2021-01.synthetic.csv\0")


def test_version_tells_what_the_bytes_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    month = dt.date(2021, 1, 1)
    signs = {
        generator.version(Partition("yellow", month), 100, 1, "tlc"),
        generator.version(Partition("green", month), 100, 1, "tlc"),
        generator.version(Partition("yellow", dt.date(2021, 2, 1)), 100, 1, "tlc"),
        generator.version(Partition("yellow", month), 101, 1, "tlc"),
        generator.version(Partition("yellow", month), 100, 2, "tlc"),
        generator.version(Partition("yellow", month), 100, 1, "dtc"),
        generator.version(ZONES, 100, 1, "tlc"),
    }
    again = generator.version(Partition("yellow", month), 100, 1, "tlc")
    monkeypatch.setattr(generator, "GENERATOR", generator.GENERATOR + 1)

    assert len(signs) == 7
    assert again in signs
    assert generator.version(Partition("yellow", month), 100, 1, "tlc") not in signs


# -- publishing ----------------------------------------------------------------------------------


def arguments(*flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    sample.add_arguments(parser)
    return parser.parse_args(flags)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("tlc", ["trip-data/green_tripdata_2020-12.parquet", "trip-data/green_tripdata_2021-01.parquet"]),
        ("dtc", ["green/green_tripdata_2020-12.csv.gz", "green/green_tripdata_2021-01.csv.gz"]),
    ],
)
def test_command_writes_the_publishers_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], layout: str, names: list[str]
) -> None:
    to = tmp_path / "my published"
    flags = [*f"--dataset green --start 2020-12 --stop 2021-02 --rows 50 --layout {layout} --to".split(), str(to)]

    assert sample.run(arguments(*flags)) == 0
    assert sample.run(arguments(*flags)) == 0  # over its own files

    files = {str(path.relative_to(to)) for path in to.rglob("*") if path.is_file()}
    assert files == {*names, "misc/taxi_zone_lookup.csv", "SYNTHETIC.txt"}
    output = capsys.readouterr().out
    assert "50 synthetic rows" in output
    name, url = re.search(r"--publisher-name (\S+) --publisher-url (\S+)\n$", output).groups()  # type: ignore[union-attr]
    open_publisher(name, url).version(Partition("green", dt.date(2021, 1, 1)))


def test_publish_never_writes_among_files_that_may_be_real(tmp_path: Path) -> None:
    (tmp_path / "trip-data").mkdir()
    real = tmp_path / "trip-data" / "green_tripdata_2021-01.parquet"
    real.write_bytes(b"real")

    with pytest.raises(SyntheticData, match=r"SYNTHETIC\.txt"):
        generator.publish(tmp_path, "green", [dt.date(2021, 1, 1)], rows=10, seed=1, layout="tlc")

    assert real.read_bytes() == b"real"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--start 2021-1 --stop 2021-02", "--start '2021-1': not a month"),
        ("--start 2021-01 --stop 2021-13", "--stop '2021-13': not a month"),
        ("--start 2021-02 --stop 2021-02", "must be later than --start"),
        ("--start 2021-01 --stop 2021-02 --rows many", "--rows 'many': not a whole number"),
        ("--start 2021-01 --stop 2021-02 --rows 0", "rows 0: must be from 1"),
        ("--start 2021-01 --stop 2021-02 --seed -1", "seed -1: must not be negative"),
        ("--start 2021-01 --stop 2021-02 --dataset purple", "dataset 'purple': no monthly dataset"),
        ("--start 2021-01 --stop 2021-02 --layout xml", "layout 'xml': unknown"),
        ("--start 2008-12 --stop 2009-02", "yellow 2008-12: before 2009-01"),
    ],
)
def test_bad_arguments_are_one_line_and_write_nothing(tmp_path: Path, flags: str, message: str) -> None:
    to = tmp_path / "published"

    with pytest.raises(UsageError, match=message) as caught:
        sample.run(arguments(*flags.split(), "--to", str(to)))

    assert "\n" not in str(caught.value)
    assert not to.exists()


@pytest.mark.parametrize(("layout", "first"), [("tlc", "2014-01"), ("dtc", "2013-08")])
def test_green_begins_earlier_as_csv(tmp_path: Path, layout: str, first: str) -> None:
    before = (first_of(first) - dt.timedelta(days=1)).strftime("%Y-%m")

    make(tmp_path, "green", first, rows=10, layout=layout)
    with pytest.raises(NeverOffered, match=f"before {first}"):
        make(tmp_path, "green", before, rows=10, layout=layout)


def test_a_month_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(writer, "chunks", fail)
    with pytest.raises(OSError, match="disk full"):
        make(tmp_path, "yellow", "2021-01")

    assert list(tmp_path.iterdir()) == []

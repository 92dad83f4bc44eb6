"""The publishers by name (tlc, dtc, sample): address, file names, format, and first month of each dataset."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field

from .. import datasets
from ..partition import Partition

#: The file that marks a folder of synthetic months.
README = "SYNTHETIC.txt"


@dataclass(frozen=True)
class Layout:
    """Folders, names and format of the files below the base address of a publisher.

    ``months_folder`` is a format string of ``dataset``. ``format`` is that of the monthly files, ``parquet`` or
    ``csv.gz``. ``last_month`` is None where months still appear.
    """

    name: str
    format: str
    months_folder: str
    last_month: dt.date | None = None

    def format_of(self, dataset: str) -> str:
        """Format of the files of a dataset; the zone table is a plain ``csv`` everywhere."""
        return self.format if datasets.get(dataset).is_monthly else "csv"

    def folder(self, dataset: str) -> str:
        """Folder of the monthly files of a dataset."""
        return self.months_folder.format(dataset=dataset)

    def path(self, partition: Partition) -> str:
        """Path of a file."""
        if partition.month is None:
            return "misc/taxi_zone_lookup.csv"
        return f"{self.folder(partition.dataset)}/{partition.dataset}_tripdata_{partition.month_text}.{self.format}"


#: Official Parquet.
TLC = Layout("tlc", "parquet", "trip-data")

#: CSV. The last month of the archive is also the last that TLC published as CSV, so that no folder or mirror in this
#: layout can have a later one; it may have earlier ones, back to the dataset's first.
DTC = Layout("dtc", "csv.gz", "{dataset}", last_month=dt.date(2021, 7, 1))

LAYOUTS = {layout.name: layout for layout in (TLC, DTC)}


@dataclass(frozen=True)
class Catalog:
    """What a publisher offers. ``[publisher] url`` replaces ``address``; the layout below it stays.

    ``first_months`` are those at the publisher's own address, where they are later than the dataset's first.
    ``hides_absence``: a 403 may stand for an absent file, at the publisher and maybe at its mirrors. ``is_closed``: its
    own address has every month that is offered, and gets no more. ``is_synthetic``: the months are made up.
    """

    name: str
    address: str
    layout: Layout
    first_months: Mapping[str, dt.date] = field(default_factory=dict)
    hides_absence: bool = False
    is_closed: bool = False
    is_synthetic: bool = False


CATALOGS = {
    catalog.name: catalog
    for catalog in (
        Catalog(
            "tlc",
            "https://d37ci6vzurychx.cloudfront.net",
            TLC,
            # TLC put no earlier green month into Parquet; the five before it exist as CSV only.
            first_months={"green": dt.date(2014, 1, 1)},
            hides_absence=True,
        ),
        Catalog(
            "dtc",
            "https://github.com/DataTalksClub/nyc-tlc-data/releases/download",
            DTC,
            first_months={
                "yellow": dt.date(2019, 1, 1),
                "green": dt.date(2019, 1, 1),
                "fhv": dt.date(2019, 1, 1),
                "fhvhv": dt.date(2021, 1, 1),
            },
            is_closed=True,
        ),
        Catalog("sample", "sample:?rows=20000&seed=1", TLC, is_synthetic=True),
    )
}

"""The inputs: synthetic months in the publishers' layouts, made once by ``python -m pipeline sample`` and kept.

Or months of one's own: any file named like the publishers name theirs, ``yellow_tripdata_2021-01.csv.gz``.
"""

from __future__ import annotations

import datetime as dt
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.partition import Partition, add_months, format_month, parse_month
from pipeline.publishers.catalog import LAYOUTS
from pipeline.publishers.sample import generator

from .contest import CouldNotRun

SEED = 1
_NAME = re.compile(r"(?P<dataset>[a-z]+)_tripdata_(?P<month>\d{4}-\d{2})\.(?P<format>csv\.gz|parquet)")


@dataclass(frozen=True)
class Published:
    """Months of a dataset in a folder laid out as a publisher's. ``rows`` of each month; None if nobody counted."""

    folder: Path
    layout: str
    dataset: str
    months: tuple[dt.date, ...]
    rows: int | None

    @property
    def partitions(self) -> list[Partition]:
        return [Partition(self.dataset, month) for month in self.months]

    @property
    def files(self) -> list[Path]:
        return [self.folder / LAYOUTS[self.layout].path(partition) for partition in self.partitions]

    @property
    def size(self) -> int:
        """Bytes of all months together."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def settings(self) -> dict[str, str]:
        """The pipeline's settings for this publisher."""
        return {"PIPELINE_PUBLISHER_NAME": self.layout, "PIPELINE_PUBLISHER_URL": f"file:{self.folder}"}

    def __str__(self) -> str:
        months = f"{len(self.months)} x " if len(self.months) > 1 else ""
        rows = f"{months}{self.rows:,} rows" if self.rows else self.files[0].name
        kind = "csv.gz" if self.layout == "dtc" else "TLC Parquet"
        return f"{rows} {self.partitions[0]}, {kind}, {self.size / 1e6:.0f} MB"


class Inputs:
    """Makes inputs in ``folder`` and finds them there again, until the generator would make them otherwise."""

    def __init__(self, folder: Path, own: Path | None = None) -> None:
        self.folder, self.own = folder, own

    def months(self, dataset: str, first: str, rows: int, layout: str, count: int = 1) -> Published:
        """``count`` synthetic months from ``first`` (YYYY-MM) on, with ``rows`` rows each."""
        month = parse_month(first)
        months = tuple(add_months(month, number) for number in range(count))
        key = generator.version(Partition(dataset, month), rows, SEED, layout)
        folder = self.folder / f"{layout}-{dataset}-{first}-{count}x{rows}-{key}"
        if not folder.exists():
            print(f"    making {count} x {rows:,} rows of {dataset} ...", file=sys.stderr)
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".making-"))
            try:
                _make(dataset, months, rows, layout, temporary / "published")
                (temporary / "published").rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return Published(folder, layout, dataset, months, rows)

    def noise(self, size: int) -> Path:
        """A file of ``size`` bytes that no compression makes smaller, always the same."""
        file = self.folder / f"noise-{size}"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = file.with_suffix(".making")
            temporary.write_bytes(random.Random(SEED).randbytes(size))
            temporary.rename(file)
        return file

    def own_or(self, synthetic: Published) -> Published:
        """The largest file of one's own in the same format, in a folder laid out as a publisher's; else ``synthetic``.

        The folder is made of links in the folder of inputs.
        """
        if self.own is None:
            return synthetic
        kind = "csv.gz" if synthetic.layout == "dtc" else "parquet"
        found = [
            (path, match)
            for path in self.own.rglob(f"*.{kind}")
            if path.is_file() and (match := _NAME.fullmatch(path.name))
        ]
        if not found:
            raise CouldNotRun(f"{self.own} has no file named like yellow_tripdata_2021-01.{kind}")
        path, match = max(found, key=lambda each: each[0].stat().st_size)
        month = parse_month(match["month"])
        published = Published(self.folder / "own", synthetic.layout, match["dataset"], (month,), None)
        link = published.files[0]
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.symlink(path.resolve(), link)
        return published


def _make(dataset: str, months: Sequence[dt.date], rows: int, layout: str, folder: Path) -> None:
    words = ("--dataset", dataset, "--rows", str(rows), "--seed", str(SEED), "--layout", layout, "--to", str(folder))
    span = ("--start", format_month(months[0]), "--stop", format_month(add_months(months[-1], 1)))
    result = subprocess.run(
        [sys.executable, "-m", "pipeline", "sample", *words, *span], capture_output=True, text=True, cwd=folder.parent
    )
    if result.returncode:
        raise CouldNotRun(f"the input could not be made: {result.stderr.strip()}")

"""The pipeline's own stages as work for ``benchmarks.contestant``: the real tasks, with everything they do.

The settings come from the environment. What comes before the stages that are timed is done by the real tasks too.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pipeline.partition import ZONES, Partition, parse_month

Work = Callable[[], dict[str, Any]]


def stages(folder: str, dataset: str, month: str, timed: list[str], before: list[str] | None = None) -> Work:
    """The ``timed`` stages of a month, after those that come ``before`` (names of the stages, in their order)."""
    import pipeline
    from pipeline.job import open_warehouse, warehouse_labels
    from pipeline.runner.task_context import modules_of_workers

    for module in modules_of_workers():  # as the processes of a run have it, and as the peers have theirs
        import_module(module)

    def task(name: str) -> Any:
        return getattr(pipeline, name)(dataset=dataset, month=parse_month(month))

    first = task(timed[0])
    assert first.job.lake
    if "Load" in timed:
        assert open_warehouse(warehouse_labels())
    for name in before or []:
        task(name).run()

    def work() -> dict[str, Any]:
        for name in timed:
            task(name).run()
        if "Clean" not in timed:
            return {}
        report = first.scratch.need("rows.arrow")["report"]
        return {"rows_read": report["rows_read"], "rows_rejected": sum(report["rows_rejected"].values())}

    return work


def upload(folder: str, source: str) -> Work:
    """Upload of a month whose Parquet is the file ``source``, and which has no rejects.

    The scratch is filled by its own functions, with the records that the stages before would have written.
    """
    import shutil

    import pipeline
    from pipeline import datasets
    from pipeline.cleaning.chunks import Report
    from pipeline.planning.scratch import PARQUET, RAW, REJECTS, ROWS

    task = pipeline.Upload(dataset="yellow", month=dt.date(2021, 1, 1))
    assert task.job.lake
    raw = {"url": "https://example.org/yellow_tripdata_2021-01.csv.gz", "sha256": "ab" * 32, "version": {"etag": '"1"'}}
    about = {"length": 1, "format": "csv.gz", "fetched_at": dt.datetime.now(dt.UTC).isoformat()}
    schema_version = datasets.get("yellow").schema_version
    report = vars(Report(rows_read=1, rows_written=1))
    records: dict[str, dict[str, Any]] = {
        RAW: {**raw, **about},
        REJECTS: {"sha256": raw["sha256"], "schema_version": schema_version},
        ROWS: {"sha256": raw["sha256"], "schema_version": schema_version, "report": report},
        PARQUET: {"sha256": raw["sha256"], "parquet_sha256": _sha256(source), "rows_written": 1},
    }
    for name, record in records.items():
        file = Path(folder, name)
        shutil.copyfile(source, file) if name == PARQUET else file.write_bytes(b"x")
        task.scratch.keep(file, name, record)

    def work() -> dict[str, Any]:
        task.run()
        return {}

    return work


def _sha256(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def everything_done(folder: str) -> Work:
    """Lake and warehouses as they are when every published month and the zone table are loaded, with tiny files.

    Manifests are written by the pipeline's own functions, the ledger is made by them; the other tables stay empty.
    """
    from concurrent.futures import ThreadPoolExecutor

    import pipeline
    from pipeline import datasets
    from pipeline.job import open_warehouse
    from pipeline.reporting import journal
    from pipeline.tasks.load import ledger_row

    from .history import all_months

    root = pipeline.TaxiZones()
    job, zones = root.job, root.job.for_zones()
    warehouses = [open_warehouse(label) for label in root.warehouses]

    def add(partition: Partition) -> None:
        file = files[partition.dataset]
        manifest = _manifest(zones if partition == ZONES else job, partition, file, journal.run_id())
        job.lake.publish(file, file, manifest)

    files = {name: _tiny_parquet(Path(folder), datasets.get(name)) for name in (*datasets.MONTHLY, "zones")}
    partitions = [ZONES, *all_months()]

    def work() -> dict[str, Any]:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(add, partitions))
        rows = [ledger_row(found, found.run_id) for name in files for found in job.lake.manifests(name).values()]
        for warehouse in warehouses:
            warehouse.append(rows[0])
            _append_all(warehouse, rows[1:])
        return {"months": len(partitions) - 1}

    return work


def _append_all(warehouse: Any, rows: Sequence[Any]) -> None:
    """Ledger rows in one transaction: ``Warehouse.append`` takes a tenth of a second for each."""
    values = [replace(row, loaded_at=dt.datetime.now(dt.UTC).replace(tzinfo=None)).values() for row in rows]
    if warehouse.url.startswith("duckdb"):
        import duckdb
        import pandas as pd

        frame = pd.DataFrame(values)
        with duckdb.connect(str(warehouse.path)) as connection:
            connection.register("frame", frame)
            connection.execute("INSERT INTO etl_loads FROM frame")
        return
    import psycopg2
    from psycopg2.extras import execute_values

    with closing(psycopg2.connect(warehouse.url.replace("+psycopg2", ""))) as connection, connection:
        execute_values(connection.cursor(), "INSERT INTO etl_loads VALUES %s", values)


#: Rows of the tiny files, all null.
TINY = 5


def _tiny_parquet(folder: Path, dataset: Any) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / f"{dataset.name}.parquet"
    pq.write_table(pa.Table.from_pylist([{}] * TINY, dataset.table_schema), path)
    return path


def _manifest(job: Any, partition: Partition, file: Path, run: str) -> Any:
    from pipeline import datasets
    from pipeline.lake import Manifest, Source, layout
    from pipeline.lake.lake import digest_of

    dataset, month = partition
    now = dt.datetime.now(dt.UTC)
    publisher = job.publisher
    return Manifest(
        dataset=dataset,
        month=month,
        publisher=job.publisher_label,
        source=Source(
            url=publisher.address(partition),
            sha256=hashlib.sha256(f"{dataset} {month}".encode()).hexdigest(),
            etag='"1"',
            length=1,
            last_modified=None,
            format=publisher.layout.format_of(dataset),
            fetched_at=now,
        ),
        rows_read=TINY,
        rows_written=TINY,
        rows_rejected={},
        rules=job.rules,
        schema_version=datasets.get(dataset).schema_version,
        parquet=digest_of(file, layout.data(partition)),
        rejects=digest_of(file, layout.rejects(partition)),
        run_id=run,
        created_at=now,
        pipeline_version="0",
    )

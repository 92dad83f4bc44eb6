"""An emulator of BigQuery: the REST API as google-cloud-bigquery uses it, as strict as the service, in memory only.

    python deploy/emulators/bigquery.py --host 127.0.0.1 --port 9050

docker-compose.yml runs it in the profile local-cloud; the tests run it in their own process and let it fail on request:

    def test_it(bigquery_server: BigQueryServer) -> None:
        bigquery_server.program("jobs.insert.load", Fault(lose_reply=True))
        warehouse = open_warehouse("bigquery://project/trips")
        ...
        assert bigquery_server.asked("jobs.insert.load") == 2

SQL runs on an in-process DuckDB. Objects of ``gs://`` come from the server that STORAGE_EMULATOR_HOST names, or from
the folder ``objects`` (``<bucket>/<object>``). What it insists on, as the service does:

* a load into ``t$YYYYMM`` with WRITE_TRUNCATE replaces that partition only, and refuses rows of another month
* a job id is taken for ever, also by a job that failed; the second insert answers 409 and runs nothing
* a job is accepted first (RUNNING) and may fail later; a missing object fails the job
* Parquet columns are matched by name; one whose type differs from the table's fails the job, INT64 for FLOAT64 too,
  and nanoseconds arrive as INTEGER; DATETIME needs the explicit schema
* new columns need ALLOW_FIELD_ADDITION, which a whole table that is truncated does not take
* jobs and their results are found only in the location of their dataset
* (own strictness) a query without ``maximumBytesBilled`` is refused, unless ``needs_limit`` is off
"""

from __future__ import annotations

import argparse
import datetime as dt
import email
import email.policy
import io
import itertools
import json
import os
import re
import socket
import struct
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Json = dict[str, Any]

#: Seconds after which something counts as hanging.
PATIENCE = 600.0

_NAMES = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN"}
_DUCKDB = {
    "INTEGER": "BIGINT",
    "FLOAT": "DOUBLE",
    "STRING": "VARCHAR",
    "DATETIME": "TIMESTAMP",
    "TIMESTAMP": "TIMESTAMPTZ",
    "DATE": "DATE",
    "BOOLEAN": "BOOLEAN",
}
_CPP_TYPES = {"INTEGER": "INT64", "FLOAT": "DOUBLE", "STRING": "STRING", "DATETIME": "DATETIME", "DATE": "DATE32"}
_PARTITION_FORMATS = {"MONTH": "%Y%m", "DAY": "%Y%m%d", "YEAR": "%Y"}
_STATUS = {"notFound": 404, "accessDenied": 403, "duplicate": 409, "rateLimitExceeded": 403, "backendError": 503}


@dataclass
class Fault:
    """How requests of one operation misbehave. What is not set is as it should be.

    status       answer this status without doing anything; with ``reason`` and ``message``
    retry_after  value of the header: seconds
    cut          reset the connection without doing anything
    lose_reply   do it, then reset the connection without an answer
    hold         stop here until ``release``: ``"before"`` doing it or ``"after"``, without an answer; ``held`` is set
    job_error    (reason, message): the job is accepted and fails later
    job_seconds  the job takes so long
    job_asks     the job runs until it was asked about so often
    delay        seconds before anything happens
    skip         let so many requests pass first
    times        for how many requests
    """

    status: int | None = None
    reason: str = "backendError"
    message: str = "programmed fault"
    retry_after: str | None = None
    cut: bool = False
    lose_reply: bool = False
    hold: str | None = None
    job_error: tuple[str, str] | None = None
    job_seconds: float | None = None
    job_asks: int = 0
    delay: float = 0.0
    skip: int = 0
    times: int = 1


class ApiError(Exception):
    """An answer that is an error: HTTP status, reason and message as the service words them."""

    def __init__(self, status: int, reason: str, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after


class JobError(Exception):
    """The reason why an accepted job failed."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason, self.message = reason, message


@dataclass
class Upload:
    """A resumable upload: the job that it is for, what came so far, and the answer once it is complete."""

    config: Json
    project: str
    content: bytearray
    reply: Json | None = None


class BigQueryServer:
    """The server, until the ``with`` block ends. ``requests`` are the operations asked for, in order."""

    def __init__(
        self, objects: Path | None = None, needs_limit: bool = True, address: tuple[str, int] = ("127.0.0.1", 0)
    ) -> None:
        self.objects = objects
        self.needs_limit = needs_limit
        self.default_location = "US"
        self.job_seconds = 0.0
        self.requests: list[str] = []
        self.bodies: list[bytes] = []
        self.datasets: dict[str, Json] = {}
        self.tables: dict[tuple[str, str], Json] = {}
        self.jobs: dict[tuple[str, str, str], Json] = {}
        self.results: dict[str, tuple[list[Json], list[Json]]] = {}
        self.executed: list[str] = []
        self._asks: Counter[str] = Counter()
        self.uploads: dict[str, Upload] = {}
        self.held = threading.Event()
        self._released = threading.Event()
        self._faults: list[tuple[str, Fault]] = []
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._database = duckdb.connect()
        self._database.execute("SET threads = 1")
        handler = type("Handler", (_Handler,), {"site": self})
        self._server = ThreadingHTTPServer(address, handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> BigQueryServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            self._database.close()

    # -- what tests use --------------------------------------------------------------------------

    def program(self, operation: str, *faults: Fault) -> None:
        """Let the next requests of an operation meet these faults.

        ``operation`` may be its beginning (``jobs.insert``), ``*`` for any, ``writes`` for all that change something.
        """
        with self._lock:
            self._released.clear()
            self.held.clear()
            self._faults.extend((operation, fault) for fault in faults)

    def clear(self) -> None:
        """Forget all faults and the requests so far."""
        with self._lock:
            self._faults.clear()
            self.requests.clear()
            self.bodies.clear()
            self.executed.clear()

    def release(self) -> None:
        """Let go what a ``hold`` stopped."""
        self._released.set()

    def settle(self) -> None:
        """Wait until no job runs any more: what a client began that has gone since goes on by itself."""
        with self._changed:
            jobs = self.jobs.values()
            is_quiet = self._changed.wait_for(lambda: all(job["status"]["state"] == "DONE" for job in jobs), PATIENCE)
            assert is_quiet, "a job never ends"

    def wipe(self) -> None:
        """Empty everything, as a new project."""
        self.clear()
        with self._lock:
            for name in self.datasets:
                self._database.execute(f"DROP SCHEMA IF EXISTS {_sql(name)} CASCADE")
            for store in (self.datasets, self.tables, self.jobs, self.results, self.uploads):
                store.clear()

    def asked(self, operation: str = "") -> int:
        return sum(each.startswith(operation) for each in self.requests)

    def sql(self, text: str) -> list[tuple[Any, ...]]:
        """Rows of a query in DuckDB's SQL; tables are ``"project:dataset".table``."""
        with self._lock:
            return self._database.execute(text).fetchall()

    def count_jobs(self, state: str | None = None, prefix: str = "") -> int:
        """Jobs whose id begins so: all, or those that ended well (``ok``) or not (``failed``)."""
        jobs = [job for (_, _, job_id), job in self.jobs.items() if job_id.startswith(prefix)]
        if state is None:
            return len(jobs)
        return sum(("errorResult" in job["status"]) == (state == "failed") for job in jobs)

    # -- faults ----------------------------------------------------------------------------------

    def next_fault(self, operation: str) -> Fault:
        with self._lock:
            for index, (wanted, fault) in enumerate(self._faults):
                if wanted == "*" or operation.startswith(wanted) or (wanted == "writes" and operation in _WRITES):
                    if fault.skip:
                        fault.skip -= 1
                        return Fault()
                    fault.times -= 1
                    if not fault.times:
                        del self._faults[index]
                    return fault
        return Fault()

    def stop_here(self) -> None:
        self.held.set()
        self._released.wait(PATIENCE)

    # -- datasets and tables ---------------------------------------------------------------------

    def get_dataset(self, project: str, dataset: str) -> Json:
        try:
            return self.datasets[f"{project}:{dataset}"]
        except KeyError:
            raise ApiError(404, "notFound", f"Not found: Dataset {project}:{dataset}") from None

    def insert_dataset(self, project: str, body: Json) -> Json:
        name = f"{project}:{body['datasetReference']['datasetId']}"
        if name in self.datasets:
            raise ApiError(409, "duplicate", f"Already Exists: Dataset {name}")
        self._database.execute(f"CREATE SCHEMA {_sql(name)}")
        location = body.get("location") or self.default_location
        self.datasets[name] = {**body, "kind": "bigquery#dataset", "id": name, "location": location, **_created()}
        return self.datasets[name]

    def list_tables(self, project: str, dataset: str) -> Json:
        self.get_dataset(project, dataset)
        found = [table for (name, _), table in self.tables.items() if name == f"{project}:{dataset}"]
        keys = ("kind", "id", "tableReference", "type", "labels", "timePartitioning", "clustering", "creationTime")
        return {
            "kind": "bigquery#tableList",
            "tables": [{key: table[key] for key in keys if key in table} for table in found],
            "totalItems": len(found),
        }

    def get_table(self, project: str, dataset: str, table: str) -> Json:
        self.get_dataset(project, dataset)
        try:
            found = self.tables[f"{project}:{dataset}", table]
        except KeyError:
            raise ApiError(404, "notFound", f"Not found: Table {project}:{dataset}.{table}") from None
        if found["type"] == "VIEW":
            return found
        rows = self._database.execute(f"SELECT count(*) FROM {_sql(found['id'])}").fetchall()[0][0]
        return {**found, "numRows": str(rows)}

    def insert_table(self, project: str, dataset: str, body: Json) -> Json:
        location = self.get_dataset(project, dataset)["location"]
        name = body["tableReference"]["tableId"]
        key = f"{project}:{dataset}", name
        if key in self.tables:
            raise ApiError(409, "duplicate", f"Already Exists: Table {project}:{dataset}.{name}")
        if not re.fullmatch(r"\w{1,1024}", name):
            raise ApiError(400, "invalid", f"Invalid table ID {name!r}")
        table = {
            **body,
            "kind": "bigquery#table",
            "id": f"{project}:{dataset}.{name}",
            "location": location,
            "type": "VIEW" if "view" in body else "TABLE",
            **_created(),
        }
        if "view" in body:
            self._make_view(table)
        else:
            fields = _normalised(body.get("schema", {}).get("fields", []))
            names = {field["name"].lower() for field in fields}
            partition = body.get("timePartitioning", {}).get("field")
            for used in [partition, *body.get("clustering", {}).get("fields", [])]:
                if used and used.lower() not in names:
                    raise ApiError(400, "invalid", f"The field specified for partitioning or clustering is not: {used}")
            table["schema"] = {"fields": fields}
            columns = ", ".join(f'"{field["name"]}" {_DUCKDB[field["type"]]}' for field in fields)
            self._database.execute(f"CREATE TABLE {_sql(table['id'])} ({columns})")
        self.tables[key] = table
        return table

    def patch_table(self, project: str, dataset: str, name: str, body: Json) -> Json:
        table = self.get_table(project, dataset, name)
        table = self.tables[f"{project}:{dataset}", name]
        labels = {**table.get("labels", {}), **(body.get("labels") or {})}
        if "schema" in body:
            try:
                self._add_fields(table, _normalised(body["schema"]["fields"]), may_add=True)
            except JobError as error:
                raise ApiError(400, error.reason, error.message) from None
        if "view" in body:
            self._database.execute(f"DROP VIEW {_sql(table['id'])}")
            self._make_view({**table, "view": body["view"]})
        table.update({key: value for key, value in body.items() if key not in ("schema", "labels", "tableReference")})
        table["labels"] = {key: value for key, value in labels.items() if value is not None}
        return table

    def delete_table(self, project: str, dataset: str, name: str) -> Json:
        table = self.get_table(project, dataset, name)
        self._database.execute(f"DROP {table['type']} {_sql(table['id'])}")
        del self.tables[f"{project}:{dataset}", name]
        return {}

    def list_data(self, project: str, dataset: str, name: str, query: dict[str, str]) -> Json:
        table = self.get_table(project, dataset, name)
        if table["type"] == "VIEW":
            raise ApiError(400, "invalid", f"Cannot list a table of type VIEW: {name}")
        cursor = self._database.execute(f"SELECT * FROM {_sql(table['id'])}")
        rows = [_row(row) for row in cursor.fetchall()]
        return {"kind": "bigquery#tableDataList", **_page(rows, query)}

    def _make_view(self, table: Json) -> None:
        text = table["view"]["query"]
        if table["view"].get("useLegacySql", True):
            raise ApiError(400, "invalidQuery", "the views of the tests are in standard SQL")
        table["view"]["useLegacySql"] = False
        try:
            self._database.execute(f"CREATE VIEW {_sql(table['id'])} AS {_translated(text)}")
        except duckdb.Error as error:
            raise ApiError(400, "invalidQuery", str(error).splitlines()[0]) from None

    def _add_fields(self, table: Json, fields: list[Json], may_add: bool) -> None:
        """Let the table have these fields; refuse whatever the service refuses."""
        what = f"Provided Schema does not match Table {table['id']}."
        given = {field["name"].lower(): field for field in fields}
        for old in table["schema"]["fields"]:
            new = given.pop(old["name"].lower(), None)
            if new is None:
                raise JobError("invalid", f"{what} Field {old['name']} is missing in new schema")
            if new["type"] != old["type"]:
                raise JobError(
                    "invalid", f"{what} Field {old['name']} has changed type from {old['type']} to {new['type']}"
                )
        for new in given.values():
            if not may_add:
                raise JobError("invalid", f"{what} Cannot add fields (field: {new['name']})")
            self._database.execute(f'ALTER TABLE {_sql(table["id"])} ADD COLUMN "{new["name"]}" {_DUCKDB[new["type"]]}')
            table["schema"]["fields"].append(new)

    # -- jobs ------------------------------------------------------------------------------------

    def insert_job(self, project: str, body: Json, content: bytes | None, fault: Fault) -> Json:
        reference = body.setdefault("jobReference", {})
        job_id = reference.setdefault("jobId", f"job_{uuid.uuid4().hex}")
        reference["projectId"] = project
        config = body["configuration"]
        kind = next(name for name in ("load", "query", "copy", "extract") if name in config)
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,1024}", job_id):
            raise ApiError(400, "invalid", f"Invalid job ID {job_id!r}")
        location = self._location(project, config, reference.get("location"))
        reference["location"] = location
        key = project, location.lower(), job_id
        with self._lock:
            if key in self.jobs:
                raise ApiError(409, "duplicate", f"Already Exists: Job {project}:{location}.{job_id}")
            if kind == "query":
                self._check_query(config)
            job: Json = {
                "kind": "bigquery#job",
                "id": f"{project}:{location}.{job_id}",
                "jobReference": reference,
                "configuration": {**config, "jobType": kind.upper()},
                "status": {"state": "RUNNING"},
                "statistics": {"creationTime": _millis(), "startTime": _millis()},
                "user_email": "tests@example.com",
            }
            if config.get("dryRun"):
                job["status"] = {"state": "DONE"}
                job["statistics"]["query"] = {"totalBytesProcessed": "0", "statementType": "SELECT"}
                return job
            self.jobs[key] = job
            answer = json.loads(json.dumps(job))
        threading.Thread(target=self._execute, args=(job, kind, content, fault), daemon=True).start()
        return answer

    def get_job(self, project: str, job_id: str, location: str | None) -> Json:
        for (its_project, its_location, its_id), job in self.jobs.items():
            # Outside the two multi-regions a job is found only where it is asked for.
            is_there = its_location == location.lower() if location else its_location in ("us", "eu")
            if (its_project, its_id) == (project, job_id) and is_there:
                self._asks[job["id"]] += 1
                self._changed.notify_all()
                return job
        raise ApiError(404, "notFound", f"Not found: Job {project}:{job_id}")

    def query_results(self, project: str, job_id: str, query: dict[str, str]) -> Json:
        with self._changed:
            job = self.get_job(project, job_id, query.get("location"))
            wait = min(float(query.get("timeoutMs", 10_000)) / 1000, 10.0)
            self._changed.wait_for(lambda: job["status"]["state"] == "DONE", wait)
            answer = {"kind": "bigquery#getQueryResultsResponse", "jobReference": job["jobReference"]}
            if job["status"]["state"] != "DONE":
                return {**answer, "jobComplete": False}
            failure = job["status"].get("errorResult")
            if failure:
                raise ApiError(_STATUS.get(failure["reason"], 400), failure["reason"], failure["message"])
            fields, rows = self.results.get(job["id"], ([], []))
            answer |= {"jobComplete": True, "cacheHit": False, "totalBytesProcessed": "0", "schema": {"fields": fields}}
            affected = job["statistics"]["query"].get("numDmlAffectedRows")
            if affected is not None:
                return {**answer, "numDmlAffectedRows": affected, "totalRows": "0"}
            return {**answer, **_page(rows, query)}

    def _location(self, project: str, config: Json, asked: str | None) -> str:
        """Where a job runs: asked for, or that of the dataset it works on."""
        reference = config.get("load", {}).get("destinationTable")
        names = [f"{reference['projectId']}:{reference['datasetId']}"] if reference else []
        names += [
            f"{p}:{d}" for p, d in re.findall(r"`([\w-]+)\.(\w+)\.\w+`", config.get("query", {}).get("query", ""))
        ]
        actual = next((self.datasets[name]["location"] for name in names if name in self.datasets), None)
        if actual and asked and actual.lower() != asked.lower():
            raise ApiError(404, "notFound", f"Not found: Dataset {names[0]} was not found in location {asked}")
        return str(actual or asked or "US")

    def _execute(self, job: Json, kind: str, content: bytes | None, fault: Fault) -> None:
        time.sleep(self.job_seconds if fault.job_seconds is None else fault.job_seconds)
        with self._changed:
            self._changed.wait_for(lambda: self._asks[job["id"]] >= fault.job_asks, PATIENCE)
            try:
                if fault.job_error:
                    raise JobError(*fault.job_error)
                if kind == "load":
                    self._load(job, content)
                else:
                    self._query(job)
                self.executed.append(job["jobReference"]["jobId"])
            except JobError as error:
                entry = {"reason": error.reason, "message": error.message}
                job["status"] |= {"errorResult": entry, "errors": [entry]}
            except Exception as error:
                entry = {"reason": "invalidQuery", "message": str(error).splitlines()[0]}
                job["status"] |= {"errorResult": entry, "errors": [entry]}
            job["status"]["state"] = "DONE"
            job["statistics"]["endTime"] = _millis()
            self._changed.notify_all()

    # -- queries ---------------------------------------------------------------------------------

    def _check_query(self, config: Json) -> None:
        query = config["query"]
        if self.needs_limit and not int(query.get("maximumBytesBilled") or 0):
            raise ApiError(400, "invalid", "this test server refuses a query without maximumBytesBilled")
        if query.get("useLegacySql", True):
            raise ApiError(400, "invalidQuery", "legacy SQL is not for the tests")
        bare = re.sub(r"`[^`]*`|'[^']*'", "x", query["query"])
        if re.search(r"(?i)\brows\b", bare):
            raise ApiError(400, "invalidQuery", "Syntax error: Unexpected keyword ROWS")
        if re.match(r"(?is)\s*(select|insert)\b(?!.*\bfrom\b.*\bwhere\b).*\bwhere\b", bare):
            raise ApiError(400, "invalidQuery", "Query without FROM clause cannot have a WHERE clause")
        for (_, name), table in self.tables.items():
            field = table.get("timePartitioning", {}).get("field", "")
            asks = table.get("requirePartitionFilter") and f".{name}`" in query["query"]
            if asks and not re.search(rf"(?is)\bwhere\b.*\b{field}\b", query["query"]):
                message = f"Cannot query over table '{name}' without a filter over column(s) '{field}'"
                raise ApiError(400, "invalidQuery", message)

    def _query(self, job: Json) -> None:
        config = job["configuration"]["query"]
        parameters = {each["name"]: _value(each) for each in config.get("queryParameters", [])}
        text = config["query"]
        used = {name: value for name, value in parameters.items() if re.search(rf"@{name}\b", text)}
        for name in re.findall(r"`([^`]+)`", text):
            if name.count(".") == 2:
                project, dataset, table = name.split(".")
                if (f"{project}:{dataset}", table) not in self.tables:
                    raise JobError("notFound", f"Not found: Table {project}:{dataset}.{table} was not found")
        cursor = self._database.execute(_translated(text), used)
        rows = cursor.fetchall()
        if re.match(r"(?i)\s*(insert|update|delete|merge)\b", text):
            affected = str(rows[0][0])
            job["statistics"]["query"] = {"statementType": "INSERT", "numDmlAffectedRows": affected}
            return
        fields = [
            {"name": each[0], "type": _result_type(str(each[1])), "mode": "NULLABLE"} for each in cursor.description
        ]
        job["statistics"]["query"] = {"statementType": "SELECT", "totalBytesProcessed": "0"}
        self.results[job["id"]] = fields, [_row(row) for row in rows]

    # -- loads -----------------------------------------------------------------------------------

    def _load(self, job: Json, content: bytes | None) -> None:
        config = job["configuration"]["load"]
        reference = config["destinationTable"]
        name, _, partition = reference["tableId"].partition("$")
        dataset = f"{reference['projectId']}:{reference['datasetId']}"
        table = self.tables.get((dataset, name))
        if table is None:
            raise JobError("notFound", f"Not found: Table {dataset}.{name}")
        if config.get("sourceFormat") != "PARQUET":
            raise JobError("invalid", "only Parquet is loaded in the tests")
        truncates = config.get("writeDisposition") == "WRITE_TRUNCATE"
        updates = config.get("schemaUpdateOptions", [])
        if updates and truncates and not partition:
            raise JobError(
                "invalid",
                "Schema update options should only be specified with WRITE_APPEND disposition, or with WRITE_TRUNCATE "
                "disposition on a table partition.",
            )
        month = self._partition(table, partition) if partition else None
        source = content if content is not None else b""
        uri = "uploaded file"
        if content is None:
            (uri,) = config["sourceUris"]
            source = self._object(uri)
        try:
            file = pq.ParquetFile(io.BytesIO(source))
        except pa.ArrowInvalid as error:
            raise JobError("invalid", f"Error while reading data, error message: {error}. File: {uri}") from None
        explicit = config.get("schema", {}).get("fields")
        fields = _normalised(explicit) if explicit else _detected(file)
        if truncates and not partition:
            self._replace_fields(table, fields)
        else:
            self._add_fields(table, fields, may_add="ALLOW_FIELD_ADDITION" in updates)
        data = self._matched(file, table, uri)
        if month is not None:
            column = table["timePartitioning"]["field"]
            others = pc.sum(pc.fill_null(pc.not_equal(data[column], pa.scalar(month)), True)).as_py()
            if others:
                raise JobError(
                    "invalid", f"Some rows belong to different partitions rather than destination partition {partition}"
                )
        self._database.execute("BEGIN")
        try:
            if truncates:
                where = f"WHERE \"{table['timePartitioning']['field']}\" = DATE '{month}'" if month else ""
                self._database.execute(f"DELETE FROM {_sql(table['id'])} {where}")
            names = ", ".join(f'"{name}"' for name in data.column_names)
            self._database.register("arriving", data)
            self._database.execute(f"INSERT INTO {_sql(table['id'])} ({names}) SELECT {names} FROM arriving")
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise
        finally:
            self._database.unregister("arriving")
        job["statistics"]["load"] = {
            "inputFiles": "1",
            "inputFileBytes": str(len(source)),
            "outputRows": str(data.num_rows),
            "badRecords": "0",
        }

    def _partition(self, table: Json, partition: str) -> dt.date:
        partitioning = table.get("timePartitioning")
        if not partitioning:
            raise JobError("invalid", f"Cannot load into partition {partition}: {table['id']} is not partitioned")
        try:
            return dt.datetime.strptime(partition, _PARTITION_FORMATS[partitioning["type"]]).date()
        except ValueError:
            raise JobError("invalid", f"Invalid date partitioned table suffix: {partition}") from None

    def _replace_fields(self, table: Json, fields: list[Json]) -> None:
        """The new schema of a whole table that is truncated; the rows go anyhow."""
        if [(field["name"], field["type"]) for field in fields] == [
            (field["name"], field["type"]) for field in table["schema"]["fields"]
        ]:
            return
        columns = ", ".join(f'"{field["name"]}" {_DUCKDB[field["type"]]}' for field in fields)
        self._database.execute(f"CREATE OR REPLACE TABLE {_sql(table['id'])} ({columns})")
        table["schema"]["fields"] = fields

    def _matched(self, file: pq.ParquetFile, table: Json, uri: str) -> pa.Table:
        """The file's columns under the table's names; a type that differs fails the job."""
        fields = {field["name"].lower(): field for field in table["schema"]["fields"]}
        physical = {
            column.name.lower(): column.physical_type for column in map(file.schema.column, range(len(file.schema)))
        }
        names = []
        for arrow in file.schema_arrow:
            field = fields.get(arrow.name.lower())
            if field is None:
                raise JobError(
                    "invalid", f"Error while reading data, error message: No such field: {arrow.name}. File: {uri}"
                )
            if not _fits(arrow.type, field["type"]):
                raise JobError(
                    "invalid",
                    f"Error while reading data, error message: Parquet column '{arrow.name}' has type "
                    f"{physical[arrow.name.lower()]} which does not match the target cpp_type "
                    f"{_CPP_TYPES.get(field['type'], field['type'])}. File: {uri}",
                )
            names.append(field["name"])
        return file.read().rename_columns(names)

    def _object(self, uri: str) -> bytes:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        if self.objects is not None:
            with suppress(OSError):
                return (self.objects / bucket / name).read_bytes()
        elif "STORAGE_EMULATOR_HOST" in os.environ:
            host = os.environ["STORAGE_EMULATOR_HOST"].rstrip("/")
            address = f"{host}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
            with suppress(urllib.error.URLError), urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                return bytes(answer.read())
        raise JobError("notFound", f"Not found: URI {uri}")


# -- HTTP ----------------------------------------------------------------------------------------

_BASE = "/bigquery/v2/projects/"
_ROUTES: tuple[tuple[str, str, re.Pattern[str]], ...] = tuple(
    (method, operation, re.compile(pattern))
    for method, operation, pattern in (
        ("GET", "datasets.get", r"([^/]+)/datasets/([^/]+)"),
        ("POST", "datasets.insert", r"([^/]+)/datasets"),
        ("GET", "tables.list", r"([^/]+)/datasets/([^/]+)/tables"),
        ("POST", "tables.insert", r"([^/]+)/datasets/([^/]+)/tables"),
        ("GET", "tables.get", r"([^/]+)/datasets/([^/]+)/tables/([^/]+)"),
        ("PATCH", "tables.patch", r"([^/]+)/datasets/([^/]+)/tables/([^/]+)"),
        ("DELETE", "tables.delete", r"([^/]+)/datasets/([^/]+)/tables/([^/]+)"),
        ("GET", "tabledata.list", r"([^/]+)/datasets/([^/]+)/tables/([^/]+)/data"),
        ("POST", "jobs.insert", r"([^/]+)/jobs"),
        ("GET", "jobs.get", r"([^/]+)/jobs/([^/]+)"),
        ("GET", "jobs.getQueryResults", r"([^/]+)/queries/([^/]+)"),
    )
)


_WRITES = frozenset(
    {
        "datasets.insert",
        "tables.insert",
        "tables.patch",
        "tables.delete",
        "jobs.insert.load",
        "jobs.insert.query",
        "jobs.upload.chunk",
    }
)


class _Reset(Exception):
    """The connection is to be reset."""


class _Handler(BaseHTTPRequestHandler):
    site: BigQueryServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes; the second would wait for the client's ACK

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            try:
                status, headers, answer = self._serve(body)
            except ApiError as error:
                detail = {"reason": error.reason, "message": error.message, "domain": "global"}
                status, headers = error.status, [("Retry-After", error.retry_after)] if error.retry_after else []
                answer = {"error": {"code": error.status, "message": error.message, "errors": [detail]}}
            content = json.dumps(answer).encode() if answer is not None else b""
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except _Reset:
            # A linger of zero sends RST, so the client sees a broken connection and no end of file.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
        except OSError:
            self.close_connection = True  # the client is gone

    def _serve(self, body: bytes) -> tuple[int, list[tuple[str, str]], Json | None]:
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        operation, arguments = self._operation(parts.path, query, body)
        fault = self.site.next_fault(operation)
        with self.site._lock:
            self.site.requests.append(operation)
            self.site.bodies.append(body[:100_000])
        time.sleep(fault.delay)
        if fault.hold == "before":
            self.site.stop_here()
            raise _Reset
        if fault.cut:
            raise _Reset
        if fault.status:
            raise ApiError(fault.status, fault.reason, fault.message, fault.retry_after)
        reply = self._do(operation, arguments, query, body, fault)
        if fault.hold == "after":
            self.site.stop_here()
            raise _Reset
        if fault.lose_reply:
            raise _Reset
        return reply

    def _operation(self, path: str, query: dict[str, str], body: bytes) -> tuple[str, tuple[str, ...]]:
        path = unquote(path)
        if path.startswith("/upload" + _BASE):
            project = path.removeprefix("/upload" + _BASE).partition("/")[0]
            if self.command == "PUT":
                return "jobs.upload.chunk", (project,)
            return ("jobs.insert.load" if query.get("uploadType") == "multipart" else "jobs.upload.start"), (project,)
        for method, operation, pattern in _ROUTES:
            match = pattern.fullmatch(path.removeprefix(_BASE))
            if match and method == self.command:
                if operation == "jobs.insert":
                    operation += ".query" if "query" in json.loads(body)["configuration"] else ".load"
                return operation, match.groups()
        raise ApiError(404, "notFound", f"no such method in the tests: {self.command} {path}")

    def _do(
        self, operation: str, arguments: tuple[str, ...], query: dict[str, str], body: bytes, fault: Fault
    ) -> tuple[int, list[tuple[str, str]], Json | None]:
        site = self.site
        if operation == "jobs.upload.start":
            upload_id = uuid.uuid4().hex
            site.uploads[upload_id] = Upload(json.loads(body), arguments[0], bytearray())
            return (
                200,
                [("Location", f"{site.url}{urlsplit(self.path).path}?uploadType=resumable&upload_id={upload_id}")],
                {},
            )
        if operation == "jobs.upload.chunk":
            return self._chunk(site.uploads[query["upload_id"]], body, fault)
        if operation.startswith("jobs.insert"):
            content = None
            if "multipart" in self.headers.get("Content-Type", ""):
                body, content = _multipart(self.headers["Content-Type"], body)
            return 200, [], site.insert_job(arguments[0], json.loads(body), content, fault)
        with site._lock:
            given = json.loads(body) if body else {}
            calls: dict[str, Callable[[], Json]] = {
                "datasets.get": lambda: site.get_dataset(*arguments),
                "datasets.insert": lambda: site.insert_dataset(*arguments, given),
                "tables.list": lambda: site.list_tables(*arguments),
                "tables.insert": lambda: site.insert_table(*arguments, given),
                "tables.get": lambda: site.get_table(*arguments),
                "tables.patch": lambda: site.patch_table(*arguments, given),
                "tables.delete": lambda: site.delete_table(*arguments),
                "tabledata.list": lambda: site.list_data(*arguments, query),
                "jobs.get": lambda: json.loads(json.dumps(site.get_job(*arguments, query.get("location")))),
                "jobs.getQueryResults": lambda: site.query_results(*arguments, query),
            }
            return 200, [], calls[operation]()

    def _chunk(self, upload: Upload, body: bytes, fault: Fault) -> tuple[int, list[tuple[str, str]], Json | None]:
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"])
        if match is None:
            raise ApiError(400, "invalid", "bad Content-Range")
        if match[1] is not None:
            del upload.content[int(match[1]) :]  # a chunk that is sent again
            upload.content.extend(body)
        if match[3] == "*" or len(upload.content) < int(match[3]):
            return 308, [("Range", f"bytes=0-{len(upload.content) - 1}")] if upload.content else [], None
        if upload.reply is None:
            upload.reply = self.site.insert_job(upload.project, upload.config, bytes(upload.content), fault)
        return 200, [], upload.reply


# -- small things --------------------------------------------------------------------------------


def _sql(name: str) -> str:
    """``project:dataset`` or ``project:dataset.table`` as DuckDB writes it."""
    return ".".join(f'"{part}"' for part in name.split("."))


def _translated(text: str) -> str:
    """GoogleSQL of the few statements in use, as DuckDB writes it."""
    text = re.sub(r"`([\w-]+)\.(\w+)\.(\w+)`", r'"\1:\2"."\3"', text)
    text = re.sub(r"`([^`]+)`", r'"\1"', text)
    text = re.sub(r"@(\w+)", r"$\1", text)
    return re.sub(r"\bFLOAT64\b", "DOUBLE", text)


_creations = itertools.count(time.time_ns() // 1_000_000)


def _created() -> Json:
    """Times of creation differ, however fast one table follows another."""
    return {"creationTime": str(next(_creations)), "lastModifiedTime": _millis(), "etag": uuid.uuid4().hex}


def _millis() -> str:
    return str(int(time.time() * 1000))


def _normalised(fields: list[Json]) -> list[Json]:
    return [
        {
            **field,
            "type": _NAMES.get(field["type"].upper(), field["type"].upper()),
            "mode": field.get("mode", "NULLABLE"),
        }
        for field in fields
    ]


def _detected(file: pq.ParquetFile) -> list[Json]:
    """The schema without an explicit one: a time without a zone becomes TIMESTAMP, as with the service."""
    return [{"name": field.name, "type": _detected_type(field.type), "mode": "NULLABLE"} for field in file.schema_arrow]


def _detected_type(type_: pa.DataType) -> str:
    if pa.types.is_timestamp(type_):
        return "INTEGER" if type_.unit == "ns" else "TIMESTAMP"
    if pa.types.is_integer(type_):
        return "INTEGER"
    if pa.types.is_floating(type_):
        return "FLOAT"
    return "DATE" if pa.types.is_date(type_) else "STRING"


def _fits(type_: pa.DataType, target: str) -> bool:
    if target == "INTEGER":
        return bool(pa.types.is_integer(type_)) or type_ == pa.timestamp("ns")
    if target == "FLOAT":
        return bool(pa.types.is_floating(type_))
    if target == "STRING":
        return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_))
    if target == "DATETIME":
        return type_ in (pa.timestamp("us"), pa.timestamp("ms"))
    return target == "DATE" and type_ == pa.date32()


def _result_type(type_: str) -> str:
    for name, known in _DUCKDB.items():
        if known == type_.upper():
            return name
    return "INTEGER" if "INT" in type_.upper() else "STRING"


def _value(parameter: Json) -> Any:
    text = parameter["parameterValue"].get("value")
    if text is None:
        return None
    kind = parameter["parameterType"]["type"]
    if kind in ("INT64", "INTEGER"):
        return int(text)
    if kind == "DATE":
        return dt.date.fromisoformat(text)
    if kind == "DATETIME":
        return dt.datetime.fromisoformat(text)
    return float(text) if kind in ("FLOAT64", "FLOAT") else text


def _row(row: tuple[Any, ...]) -> Json:
    return {"f": [{"v": _cell(value)} for value in row]}


def _cell(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, dt.date) else str(value)


def _page(rows: list[Json], query: dict[str, str]) -> Json:
    start = int(query.get("pageToken") or query.get("startIndex") or 0)
    size = int(query.get("maxResults") or 10_000)
    page: Json = {"totalRows": str(len(rows))}
    if size:
        page["rows"] = rows[start : start + size]
    if size and start + size < len(rows):
        page["pageToken"] = str(start + size)
    return page


def _multipart(content_type: str, body: bytes) -> tuple[bytes, bytes]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + body, policy=email.policy.HTTP).get_payload()
    first, second = (part.get_payload(decode=True) for part in parts)  # type: ignore[union-attr]
    return first, second  # type: ignore[return-value]


def argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="An emulator of BigQuery that forgets everything when it stops.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=9050)
    return parser


def main() -> None:
    args = argument_parser().parse_args()
    with BigQueryServer(address=(args.host, args.port)):
        print(f"BigQuery emulator on {args.host}:{args.port}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

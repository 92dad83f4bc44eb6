"""A run that finds nothing to do: all published months of all datasets, locally and with everything on servers.

The publisher is a web server on loopback that has all months. Datasets end in different months, so that the range
holds a few that are not published yet; the run before the measured ones has asked about them.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from tests.servers.gcs import GcsServer
from tests.servers.http import HttpServer
from tests.servers.postgres import PostgresServer

from ..case import OURS, Bench, Case, Results, figure_at_most, seconds_more_than
from ..contest import Command, Work, measure
from ..history import all_months, publish_names, range_words
from ..project import luigi, settings
from ..servers import Databases, gcs, postgres

HELP = "luigi --help"
REQUESTS = "requests and statements in all"

#: Such short times need more tries.
REPEAT = 7

_STATEMENT = re.compile(rb"LOG:  (?:statement|execute [^:]*): (.*)")


def _contest(bench: Bench, folder: Path, environment: Mapping[str, str]) -> Results:
    """Fill lake and warehouse, run once so that all is known, then measure."""
    measure(Work("writing down that all is done", "benchmarks.ours:everything_done", {}, lambda _: environment), folder)
    ours = Command(OURS, lambda _: luigi(*range_words(), "--local-scheduler"), lambda _: environment)
    measure(ours, folder, ", the first time")
    measured = bench.contest([ours, Command(HELP, lambda _: luigi("--help"))], max(REPEAT, bench.repeat))
    return Results(f"{len(all_months())} months", measured)


def _local(bench: Bench) -> Results:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-idle-")))
        server = stack.enter_context(HttpServer(publish_names(folder / "published")))
        return _contest(bench, folder, settings(folder, {"PIPELINE_PUBLISHER_URL": server.url}))


def _servers(bench: Bench) -> Results:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-idle-")))
        web = stack.enter_context(HttpServer(publish_names(folder / "published")))
        bucket_server = stack.enter_context(gcs())
        database_server = stack.enter_context(postgres())
        bucket = bucket_server.make_bucket()
        environment = settings(
            folder,
            {
                "PIPELINE_PUBLISHER_URL": web.url,
                "PIPELINE_LAKE_URL": f"gs://{bucket}/lake",
                "PIPELINE_WORKSPACE_URL": f"gs://{bucket}/workspace",
                "PIPELINE_WAREHOUSE_URL": Databases(database_server).fresh(),
                "STORAGE_EMULATOR_HOST": bucket_server.url,
            },
        )
        results = _contest(bench, folder, environment)
        counts = _count(folder, environment, web, bucket_server, database_server)
        return Results(results.input, results.measured, {REQUESTS: sum(counts.values()), **counts})


def _count(
    folder: Path, environment: Mapping[str, str], web: HttpServer, bucket: GcsServer, database: PostgresServer
) -> dict[str, int]:
    """What one more run asks of each server; BEGIN, COMMIT and SET count as statements too."""
    database.run("ALTER SYSTEM SET log_statement = 'all'")
    database.run("SELECT pg_reload_conf()")
    database.run("SELECT pg_sleep(0.5)")
    web.clear()
    bucket.clear()
    before = database.log.stat().st_size
    measure(Command("counting", lambda _: luigi(*range_words(), "--local-scheduler"), lambda _: environment), folder)
    with database.log.open("rb") as log:
        log.seek(before)
        statements = _STATEMENT.findall(log.read())
    asked = Counter(f"{operation} of {path.partition('?')[0]}" for operation, _, path in bucket.requests)
    for what, count in [*asked.items(), *Counter(statement.decode() for statement in statements).items()]:
        print(f"      {count} x {what[:140]}", file=sys.stderr)
    return {
        "requests to the publisher": len(web.requests),
        "requests to Cloud Storage": bucket.asked(),
        "statements to PostgreSQL": len(statements),
    }


CASES = (
    Case("idle-local", "nothing to do, lake and DuckDB on this machine", (seconds_more_than(HELP, 1.0),), _local),
    Case(
        "idle-servers",
        "nothing to do, Cloud Storage stand-in and PostgreSQL",
        (seconds_more_than(HELP, 2.0), figure_at_most(REQUESTS, 10, "")),
        _servers,
    ),
)

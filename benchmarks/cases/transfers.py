"""Transfers: Download from a web server on loopback, Upload to a stand-in for Cloud Storage."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.servers.http import HttpServer

from ..case import OURS, Bench, Case, Results, Skip, times_of_fastest
from ..contest import Command, Work
from ..project import settings, stages_of
from ..servers import gcs

CURL, CLIENT = "curl, sha256sum, gzip -t", "google-cloud-storage"

#: About 200 MB as csv.gz, in the layout of the course's files.
ROWS = 10_500_000

UPLOAD_BYTES = 200_000_000


def _download(bench: Bench) -> Results:
    missing = [tool for tool in ("curl", "sha256sum", "gzip") if not shutil.which(tool)]
    if missing:
        raise Skip(f"no {', '.join(missing)} on this machine")
    published = bench.inputs.months("yellow", "2021-01", ROWS, "dtc")
    with HttpServer(published.folder) as server:
        web = {"PIPELINE_PUBLISHER_URL": server.url}
        ours = stages_of(published, OURS, ["Download"], changes=lambda folder: web)
        address = f"{server.url}/{published.files[0].relative_to(published.folder)}"
        script = f"curl -sfo month.csv.gz {address} && sha256sum month.csv.gz && gzip -t month.csv.gz"
        curl = Command(CURL, lambda folder: ["sh", "-c", script])
        return Results(str(published), bench.contest([ours, curl]))


def _upload(bench: Bench) -> Results:
    source = bench.inputs.noise(UPLOAD_BYTES)
    with gcs() as server:

        def environment(folder: Path) -> dict[str, str]:
            bucket = server.make_bucket()
            changes = {"PIPELINE_LAKE_URL": f"gs://{bucket}/lake", "STORAGE_EMULATOR_HOST": server.url}
            return {**settings(folder, changes), "BENCH_BUCKET": bucket}

        contestants = [
            Work(OURS, "benchmarks.ours:upload", {"source": str(source)}, environment),
            Work(CLIENT, "benchmarks.peers:gcs_upload", {"source": str(source)}, environment),
        ]
        return Results(f"{UPLOAD_BYTES / 1e6:.0f} MB of Parquet", bench.contest(contestants))


CASES = (
    Case("download", "Download of csv.gz over loopback", (times_of_fastest(1.2, CURL),), _download),
    Case("upload", "Upload to a Cloud Storage stand-in", (times_of_fastest(1.3, CLIENT),), _upload),
)

"""Verify: what agrees, what does not and by how much, through the real command on a lake and warehouses."""

from __future__ import annotations

import datetime as dt
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.datasets import row_counts
from pipeline.partition import Partition
from pipeline.publishers.sample import generator

from ..real_data import FOLDER, ROWS
from ..servers.gcs import GcsServer, gcs_bucket, gcs_server
from ..servers.postgres import PostgresServer, postgres_server
from .conftest import Project

__all__ = ["gcs_bucket", "gcs_server", "postgres_server"]

RANGE = ("--of", "MonthlyTrips", "--of-params", '{"dataset": "green"}', "--start", "2020-01", "--stop", "2020-03")
FEBRUARY = "green_tripdata_2020-02"


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Two small green months that stand for TLC's own, loaded from a folder."""
    folder = tmp_path_factory.mktemp("loaded")
    months = [dt.date(2020, month, 1) for month in (1, 2)]
    generator.publish(folder / "published", "green", months, rows=300, seed=1, layout="tlc")
    (folder / "published" / "SYNTHETIC.txt").unlink()
    project = Project(folder, {"PIPELINE_PUBLISHER_URL": "file:published"})
    done = project.luigi("RangeMonthly", *RANGE)
    assert done.returncode == 0, done.stdout
    return project


@pytest.fixture
def loaded(loaded_once: Project, tmp_path: Path) -> Project:
    """A copy that a test may spoil."""
    shutil.copytree(loaded_once.folder, tmp_path / "copy")
    return replace(loaded_once, folder=tmp_path / "copy")


def line(output: str, month: str) -> str:
    return next(text for text in output.splitlines() if month in text)


def change(project: Project, sql: str) -> None:
    with duckdb.connect(str(project.folder / "warehouse.duckdb")) as connection:
        connection.execute(sql)


def change_manifest(project: Project, work: Callable[[dict[str, Any]], None]) -> None:
    path = project.folder / "lake" / "manifests" / "green" / f"{FEBRUARY}.json"
    content = json.loads(path.read_text())
    work(content)
    path.write_text(json.dumps(content))


def test_all_agrees_and_other_publications_are_a_note(loaded: Project) -> None:
    done = loaded.pipeline("verify")
    assert done.returncode == 0, done.stdout
    january, february = line(done.stdout, "2020-01"), line(done.stdout, "2020-02")
    assert january.split()[:4] == ["green", "2020-01", "447,770", "300"]
    assert "(differs from the published figure by -447,470: another publication of the month)" in january
    assert "agrees" in january and "agrees" in february and "agrees (no published figure)" in line(done.stdout, "zones")
    assert done.stdout.endswith("3 looked at, 3 agree, 0 do not.\n")
    assert "yellow" not in done.stdout


def test_other_rows_in_a_file_of_the_recorded_size_are_a_disagreement(loaded: Project) -> None:
    figure = row_counts.published("tlc", Partition("green", dt.date(2020, 2, 1)))
    assert figure is not None
    change_manifest(loaded, lambda manifest: manifest["source"].update(length=figure.size_bytes))
    done = loaded.pipeline("verify")
    assert done.returncode == 1
    assert line(done.stdout, "2020-02").endswith("differs from the published figure by -398,332")
    assert "3 looked at, 2 agree, 1 do not." in done.stdout


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("DELETE FROM green_trips WHERE file_month = '2020-02-01' AND rowid % 7 = 0", "duckdb: table has"),
        ("UPDATE etl_loads SET row_count = row_count + 4 WHERE file_month = '2020-02-01'", "(+4)"),
        (
            "UPDATE etl_loads SET sha256 = 'other' WHERE file_month = '2020-02-01'",
            "another version than the lake's, +0",
        ),
        ("DELETE FROM etl_loads WHERE file_month = '2020-02-01'", "rows in the table that the ledger does not know"),
    ],
)
def test_warehouse_that_disagrees(loaded: Project, sql: str, says: str) -> None:
    change(loaded, sql)
    done = loaded.pipeline("verify", "--dataset", "green")
    assert done.returncode == 1
    assert says in line(done.stdout, "2020-02"), done.stdout
    assert "agrees" not in line(done.stdout, "2020-02") and "agrees" in line(done.stdout, "2020-01")
    follow_remedy(loaded, done.stdout)


def follow_remedy(project: Project, said: str) -> None:
    """Do what ``verify`` says below its table about February; then all agrees."""
    (remedy,) = (text for text in said.splitlines() if text.startswith("green 2020-02: "))
    for command in remedy.removeprefix("green 2020-02: ").split(" && "):
        words = command.split()
        done = project.pipeline(*words[3:]) if words[0] == "python" else project.luigi(*words[3:])
        assert done.returncode == 0, done.stdout
    after = project.pipeline("verify", "--dataset", "green", "--deep")
    assert after.returncode == 0, after.stdout


def test_damaged_bytes_are_found_by_reading_them_all(loaded: Project) -> None:
    parquet = loaded.folder / "lake" / "data" / "green" / f"{FEBRUARY}.parquet"
    content = bytearray(parquet.read_bytes())
    content[20] ^= 0xFF
    parquet.write_bytes(content)
    assert loaded.pipeline("verify").returncode == 0, "the footer alone does not tell"
    done = loaded.pipeline("verify", "--deep")
    assert done.returncode == 1
    assert "the Parquet file has SHA-256" in line(done.stdout, "2020-02")
    follow_remedy(loaded, done.stdout)


def test_other_text_in_the_table_is_found_by_reading_it_all(loaded: Project) -> None:
    change(loaded, "UPDATE green_trips SET store_and_fwd_flag = 'Ã©' WHERE file_month = '2020-02-01' AND rowid % 9 = 0")
    assert loaded.pipeline("verify").returncode == 0, "rows are not text"
    done = loaded.pipeline("verify", "--deep")
    assert done.returncode == 1
    said = line(done.stdout, "2020-02")
    assert re.search(r"duckdb: the text of store_and_fwd_flag has \d+ characters, the Parquet file \d+ ", said), said
    assert "forget --dataset green --month 2020-02 --warehouse duckdb && luigi" in done.stdout
    follow_remedy(loaded, done.stdout)


def test_lake_that_disagrees(loaded: Project) -> None:
    lake = loaded.folder / "lake"
    rejects = lake / "rejects" / "green" / f"{FEBRUARY}.parquet"
    shutil.copy(lake / "data" / "green" / f"{FEBRUARY}.parquet", rejects)
    assert "the rejects file has " in line(loaded.pipeline("verify").stdout, "2020-02")
    rejects.unlink()
    missing = loaded.pipeline("verify").stdout
    assert "the rejects file is missing" in line(missing, "2020-02")
    assert "\ngreen 2020-02: python -m pipeline forget --dataset green --month 2020-02 && luigi " in missing
    (lake / "data" / "green" / f"{FEBRUARY}.parquet").write_bytes(b"cut")
    done = loaded.pipeline("verify")
    assert done.returncode == 1
    assert "duckdb: loaded, but the lake has no complete month" in line(done.stdout, "2020-02")


def test_month_that_was_not_loaded_and_month_that_was_forgotten(loaded: Project) -> None:
    assert "is forgotten" in loaded.pipeline("forget", "--dataset", "green", "--month", "2020-01").stdout
    forgotten = loaded.pipeline("verify", "--dataset", "green")
    assert forgotten.returncode == 0, forgotten.stdout
    assert line(forgotten.stdout, "2020-01").endswith("agrees (duckdb: forgotten)")
    elsewhere = loaded.pipeline("verify", "--warehouse-url", "duckdb:///other.duckdb")
    assert elsewhere.returncode == 1
    assert line(elsewhere.stdout, "2020-01").endswith("not complete in the lake; the next run does it again")
    assert line(elsewhere.stdout, "2020-02").split("duckdb: ")[-1].startswith("not loaded")


def test_range_and_json(loaded: Project) -> None:
    done = loaded.pipeline("verify", "--start", "2020-02", "--json")
    assert done.returncode == 0
    (february,) = json.loads(done.stdout)
    assert (february["dataset"], february["month"], february["agrees"]) == ("green", "2020-02", True)
    assert february["remedy"] is None
    assert february["rows_read"] == 300 == february["lake_rows"] + february["rejects_rows"]
    assert february["warehouses"] == {"duckdb": {"ledger": february["lake_rows"], "table": february["lake_rows"]}}
    for arguments in (("--start", "2020-03", "--stop", "2020-01"), ("--dataset", "purple")):
        refused = loaded.pipeline("verify", *arguments)
        assert refused.returncode == 2 and refused.stdout.count("\n") == 1


def test_nothing_there_yet(project: Project) -> None:
    done = project.pipeline("verify")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 looked at, 0 agree, 0 do not.")


def test_real_months_agree_with_the_published_figures(tmp_path: Path) -> None:
    project = Project(tmp_path, {"PIPELINE_CLEAN_RULES": "none"})
    expected = {}
    for name, month in (("tlc", max(ROWS["tlc"])), ("tlc", "2020-04"), ("dtc", max(ROWS["dtc"]))):
        place = ("--publisher-name", name, "--publisher-url", f"file:{FOLDER / 'publishers' / name}")
        done = project.luigi("MonthlyTrips", "--dataset", "green", "--month", month, *place)
        assert done.returncode == 0, done.stdout
        expected[month] = ROWS[name][month]
    done = project.pipeline("verify", "--deep", "--json")
    found = {line["month"]: line for line in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert {month: line["published"] for month, line in found.items()} == expected
    assert all(line["published"] == line["rows_read"] == line["lake_rows"] for line in found.values())


def test_bucket_and_server_warehouse(
    loaded: Project, gcs_server: GcsServer, gcs_bucket: str, postgres_server: PostgresServer
) -> None:
    """Footers in a bucket are read without fetching the files, and each warehouse has a column of its own."""
    with postgres_server.database() as database:
        warehouses = f"duckdb:///second.duckdb,{postgres_server.url(database)}"
        loaded.environment = {
            **loaded.environment,
            "STORAGE_EMULATOR_HOST": gcs_server.url,
            "PIPELINE_LAKE_URL": f"gs://{gcs_bucket}/lake",
            "PIPELINE_WAREHOUSE_URL": warehouses,
        }
        done = loaded.luigi("RangeMonthly", *RANGE)
        assert done.returncode == 0, done.stdout
        gcs_server.clear()
        done = loaded.pipeline("verify", "--json")
        assert done.returncode == 0, done.stdout
        for found in json.loads(done.stdout):
            assert set(found["warehouses"]) == {"duckdb", "postgresql"}
            assert {rows["table"] for rows in found["warehouses"].values()} == {found["lake_rows"]}
        flag = "UPDATE green_trips SET store_and_fwd_flag = 'Ã©' WHERE file_month = '2020-02-01'"
        postgres_server.run(flag, database, admin=False)
        done = loaded.pipeline("verify", "--deep")
        assert "postgresql: the text of store_and_fwd_flag has " in line(done.stdout, "2020-02")
        postgres_server.run("DELETE FROM green_trips WHERE file_month = '2020-02-01'", database, admin=False)
        done = loaded.pipeline("verify")
        assert done.returncode == 1
        assert "postgresql: table has 0, ledger " in line(done.stdout, "2020-02")
        assert postgres_server.password not in done.stdout

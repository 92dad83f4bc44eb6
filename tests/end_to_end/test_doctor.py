"""Doctor: each thing that can be wrong is one line with its remedy, and the exit code tells."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..conftest import CHECKOUT
from ..servers import gcs
from ..servers.bigquery import BigQueryServer, bigquery_server
from ..servers.gcs import GcsServer, gcs_bucket, gcs_server
from ..servers.http import ALWAYS, Fault, HttpServer
from ..servers.postgres import PostgresServer, postgres_server
from .conftest import Project

__all__ = ["bigquery_server", "gcs_bucket", "gcs_server", "postgres_server"]


def words(output: str) -> dict[str, set[str]]:
    """The words ``ok``, ``warn`` and ``FAIL`` that were said of each section; every line has one."""
    said: dict[str, set[str]] = {}
    for line in output.splitlines():
        word, section = line.split()[:2]
        assert word in ("ok", "warn", "FAIL"), output
        said.setdefault(section, set()).add(word)
    return said


def line(output: str, *parts: str) -> str:
    return next(text for text in output.splitlines() if all(part in text for part in parts))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HttpServer]:
    folder = tmp_path / "published"
    (folder / "misc").mkdir(parents=True)
    (folder / "misc" / "taxi_zone_lookup.csv").write_text("LocationID,Borough,Zone,service_zone\n")
    with HttpServer(folder) as server:
        yield server


@pytest.fixture
def web(tmp_path: Path, site: HttpServer) -> Project:
    return Project(tmp_path, {"PIPELINE_PUBLISHER_URL": site.url, "PIPELINE_RETRY_BACKOFF": "0.05"})


def test_all_well(project: Project) -> None:
    done = project.pipeline("doctor")
    assert done.returncode == 0, done.stdout
    said = words(done.stdout)
    assert all(said[section] == {"ok"} for section in ("settings", "publisher", "workspace", "lake", "warehouse"))
    assert "synthetic months are made on this machine" in done.stdout
    assert not list(project.folder.iterdir()), "looking makes nothing"


def test_settings_that_cannot_be_right_come_first_and_alone(project: Project) -> None:
    project.environment["PIPELINE_LAKE_URL"] = "s3://bucket"
    done = project.pipeline("doctor")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL  settings") and done.stdout.count("\n") == 1
    assert "[lake] url" in done.stdout


def test_says_which_settings_hold(project: Project) -> None:
    assert str(CHECKOUT / "luigi.cfg") in line(project.pipeline("doctor").stdout, "ok", "settings")
    project.environment["LUIGI_CONFIG_PATH"] = ""
    done = project.pipeline("doctor")
    assert done.returncode == 0
    assert "the package's defaults" in line(done.stdout, "ok", "settings")


def test_publisher(web: Project, site: HttpServer) -> None:
    done = web.pipeline("doctor")
    assert done.returncode == 0
    assert "answers, and has the zone table" in line(done.stdout, "ok", "publisher ")
    assert "no month was found" in line(done.stdout, "warn", "publisher")
    site.program("*", Fault(status=503, times=ALWAYS))
    done = web.pipeline("doctor")
    assert done.returncode == 1
    assert "try again later" in line(done.stdout, "FAIL", "publisher")
    assert words(done.stdout)["lake"] == {"ok"}, "the others are tried all the same"


def test_publisher_folder_and_unreachable_address(project: Project) -> None:
    project.environment |= {"PIPELINE_PUBLISHER_NAME": "tlc", "PIPELINE_PUBLISHER_URL": "file:nowhere"}
    done = project.pipeline("doctor")
    assert done.returncode == 1
    assert "is not there; correct the setting" in line(done.stdout, "FAIL", "publisher")
    project.environment |= {"PIPELINE_PUBLISHER_URL": "http://127.0.0.1:9", "PIPELINE_RETRY_BACKOFF": "0.05"}
    assert "connection failed" in line(project.pipeline("doctor").stdout, "FAIL", "publisher")


def test_places_that_cannot_be_written(project: Project) -> None:
    (project.folder / "file").write_text("not a folder")
    done = project.pipeline("doctor", "--lake-url", "file:file/lake", "--warehouse-url", "duckdb:///file/w.duckdb")
    assert done.returncode == 1
    said = words(done.stdout)
    assert said["lake"] == said["warehouse"] == {"FAIL"} and said["workspace"] == {"ok"}
    assert "Traceback" not in done.stdout


def test_create_makes_folder_and_database(project: Project) -> None:
    done = project.pipeline("doctor", "--create", "--warehouse-url", "duckdb:///new/folder/w.duckdb")
    assert done.returncode == 0, done.stdout
    assert (project.folder / "new" / "folder" / "w.duckdb").exists()


def test_postgresql_role_and_missing_database(project: Project, postgres_server: PostgresServer) -> None:
    project.environment["PIPELINE_PUBLISHER_ALLOW_SYNTHETIC"] = "true"
    with postgres_server.database() as database:
        fine = project.pipeline("doctor", "--warehouse-url", postgres_server.url(database))
        assert fine.returncode == 0, fine.stdout
        assert words(fine.stdout)["warehouse"] == {"ok"}
        wrong = project.pipeline("doctor", "--warehouse-url", postgres_server.url(database, password="not-the-one"))
        assert wrong.returncode == 1
        assert "password authentication failed" in line(wrong.stdout, "FAIL", "warehouse")
        assert "not-the-one" not in wrong.stdout and postgres_server.password not in fine.stdout
        missing = f"postgresql+psycopg2://postgres:{postgres_server.admin_password}@{postgres_server.host}:" + (
            f"{postgres_server.port}/made_by_doctor"
        )
        refused = project.pipeline("doctor", "--warehouse-url", missing)
        assert refused.returncode == 1
        assert "python -m pipeline doctor --create" in line(refused.stdout, "FAIL", "warehouse")
        try:
            created = project.pipeline("doctor", "--create", "--warehouse-url", missing)
            assert created.returncode == 0, created.stdout
        finally:
            postgres_server.run("DROP DATABASE IF EXISTS made_by_doctor")


def test_bucket_that_is_missing_is_made(project: Project, gcs_server: GcsServer, gcs_bucket: str) -> None:
    project.environment["STORAGE_EMULATOR_HOST"] = gcs_server.url
    fine = project.pipeline("doctor", "--lake-url", f"gs://{gcs_bucket}/lake")
    assert fine.returncode == 0, fine.stdout
    assert "lies in US" in line(fine.stdout, "ok", "lake", gcs_bucket)
    missing = ("--lake-url", f"gs://{gcs_bucket}-missing/lake")
    refused = project.pipeline("doctor", *missing)
    assert refused.returncode == 1
    assert "doctor --create" in line(refused.stdout, "FAIL", "lake")
    assert project.pipeline("doctor", *missing, "--create").returncode == 0
    assert project.pipeline("doctor", *missing).returncode == 0


def test_missing_bucket_is_reported_once_and_as_the_lakes(
    project: Project, gcs_server: GcsServer, bigquery_server: BigQueryServer
) -> None:
    project.environment |= {"STORAGE_EMULATOR_HOST": gcs_server.url, "BIGQUERY_EMULATOR_HOST": bigquery_server.url}
    project.environment["PIPELINE_PUBLISHER_ALLOW_SYNTHETIC"] = "true"
    both = ("--warehouse-url", "duckdb:///one.duckdb,bigquery://my-project/trips")
    done = project.pipeline("doctor", "--lake-url", "gs://nobucket/x", *both)
    assert done.returncode == 1
    assert done.stdout.count("gs://nobucket does not exist") == 1 and done.stdout.count("gs://nobucket/x") == 1
    assert "gs://nobucket does not exist" in line(done.stdout, "FAIL", "lake", "gs://nobucket/x: ")
    assert not any("nobucket" in text for text in done.stdout.splitlines() if text.split()[1] == "warehouse")
    assert "the first load makes it" in line(done.stdout, "ok", "warehouse", "one.duckdb")


def test_without_its_lake_a_dataset_is_not_made_somewhere(
    project: Project, gcs_server: GcsServer, bigquery_server: BigQueryServer
) -> None:
    """Its place could not be changed any more, and might be one that cannot load from the lake."""
    project.environment |= {"STORAGE_EMULATOR_HOST": gcs_server.url, "BIGQUERY_EMULATOR_HOST": bigquery_server.url}
    project.environment["PIPELINE_PUBLISHER_ALLOW_SYNTHETIC"] = "true"
    both = ("--warehouse-url", "duckdb:///made.duckdb,bigquery://my-project/trips")
    gcs_server.program("*", gcs.Fault(status=403, times=ALWAYS))
    try:
        done = project.pipeline("doctor", "--create", "--lake-url", "gs://some-bucket/x", *both)
    finally:
        gcs_server.clear()
    assert done.returncode == 1
    assert bigquery_server.datasets == {} and (project.folder / "made.duckdb").exists()


def test_emulator_that_is_no_address_is_named(project: Project) -> None:
    for variable, more in (
        ("STORAGE_EMULATOR_HOST", ("--lake-url", "gs://some-bucket/x")),
        ("BIGQUERY_EMULATOR_HOST", ("--warehouse-url", "bigquery://my-project/trips")),
    ):
        project.environment[variable] = "gs://emulator"
        done = project.pipeline("doctor", *more)
        assert done.returncode == 1
        assert f"{variable} is no address; write http://host:port" in line(done.stdout, "FAIL")
        for done in (project.pipeline("status", *more), project.luigi("RangeMonthly", "--start", "2020-01", *more)):
            assert done.returncode == 2, done.stdout
            assert f"{variable} is no address; write http://host:port" in done.stdout
        del project.environment[variable]


def test_bigquery_dataset_is_made_where_the_lake_is(
    project: Project, gcs_server: GcsServer, gcs_bucket: str, bigquery_server: BigQueryServer
) -> None:
    project.environment |= {
        "STORAGE_EMULATOR_HOST": gcs_server.url,
        "BIGQUERY_EMULATOR_HOST": bigquery_server.url,
        "PIPELINE_LAKE_URL": f"gs://{gcs_server.make_bucket(location='EU')}/lake",
        "PIPELINE_WAREHOUSE_URL": "bigquery://my-project/trips",
        "PIPELINE_PUBLISHER_ALLOW_SYNTHETIC": "true",
    }
    refused = project.pipeline("doctor")
    assert refused.returncode == 1
    assert "doctor --create makes it" in line(refused.stdout, "FAIL", "dataset trips")
    created = project.pipeline("doctor", "--create")
    assert created.returncode == 0, created.stdout
    assert "is in EU, the lake in EU" in line(created.stdout, "ok", "the lake in")
    elsewhere = project.pipeline("doctor", "--lake-url", f"gs://{gcs_bucket}/lake")
    assert elsewhere.returncode == 1
    assert "choose a bucket within EU, or a dataset within US" in line(elsewhere.stdout, "FAIL", "the lake in US")


def test_luigid(project: Project) -> None:
    config = project.folder / "luigi.cfg"
    shutil.copy(project.env["LUIGI_CONFIG_PATH"], config)
    project.environment["LUIGI_CONFIG_PATH"] = str(config)
    text = config.read_text()
    with HttpServer(project.folder) as anything:
        for settings, word, says in (
            (f"default-scheduler-url = {anything.url.replace('//', '//user:planted@')}", "ok", "answers"),
            ("default-scheduler-port = 9", "FAIL", "no luigid answers; start one with `python -m pipeline ui`"),
            ("local_scheduler = true", "ok", "not used"),
        ):
            config.write_text(text.replace("[core]\n", f"[core]\n{settings}\n"))
            done = project.pipeline("doctor")
            assert says in line(done.stdout, f"{word:4}  luigid"), done.stdout
            assert done.returncode == (1 if word == "FAIL" else 0)
            assert "planted" not in done.stdout


def test_nothing_that_goes_wrong_is_a_traceback(project: Project) -> None:
    """A library that fails in a way nobody foresaw is a line like the others."""
    broken = project.folder / "broken"
    broken.mkdir()
    (broken / "duckdb.py").write_text("raise RuntimeError('secret in the text')\n")
    project.environment["PYTHONPATH"] = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    project.environment["COLD_START"] = "1"  # a fork, see warm.py, has the real duckdb already
    done = project.pipeline("doctor")
    assert done.returncode == 1
    assert "RuntimeError" in line(done.stdout, "FAIL", "warehouse")
    assert "Traceback" not in done.stdout and "secret" not in done.stdout


def test_setting_that_luigi_cfg_misspells_is_refused_without_its_value(project: Project) -> None:
    config = project.folder / "luigi.cfg"
    text = Path(project.env["LUIGI_CONFIG_PATH"]).read_text()
    config.write_text(text.replace("[warehouse]\n", "[warehouse]\nulr = postgresql://etl:planted@db/trips\n"))
    project.environment["LUIGI_CONFIG_PATH"] = str(config)
    for done in (project.pipeline("doctor"), project.luigi("RangeMonthly")):
        assert done.returncode in (1, 2) and done.stdout.count("\n") == 1, done.stdout
        assert "[warehouse] has no setting ulr; did you mean url?" in done.stdout
        assert "planted" not in done.stdout

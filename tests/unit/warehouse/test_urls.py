"""URLs of warehouses: which class, which label, which error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UsageError
from pipeline.warehouse import kind_of, label_of, open_warehouse, path_of, split_urls
from pipeline.warehouse.duckdb.warehouse import DuckDB
from pipeline.warehouse.query_commands import query_command
from pipeline.warehouse.urls import BACKENDS


@pytest.mark.parametrize(
    ("url", "label"),
    [
        ("duckdb:////data/trips.duckdb", "duckdb:////data/trips.duckdb"),
        ("duckdb:////data/a%2Cb%20c.duckdb", "duckdb:////data/a%2Cb%20c.duckdb"),
        ("postgresql+psycopg2://etl@db/ny_taxi", "postgresql@db/ny_taxi"),
        ("postgresql://etl:secret@db:5432/ny_taxi", "postgresql@db/ny_taxi"),
        ("postgresql://etl:secret@db:5433/ny_taxi?sslmode=require", "postgresql@db:5433/ny_taxi"),
        ("postgresql://etl@[::1]/ny_taxi", "postgresql@[::1]/ny_taxi"),
        ("postgresql:///ny_taxi", "postgresql@localhost/ny_taxi"),
        ("postgresql:///ny_taxi?host=/run/pg", "postgresql@/run/pg/ny_taxi"),
        ("postgresql://db/ny_taxi?options=-csearch_path%3Dlab", "postgresql@db/ny_taxi/lab"),
        ("postgresql://etl:secret/?#%2C@db/ny_taxi", "postgresql@db/ny_taxi"),
        ("bigquery://my-project/trips", "bigquery://my-project/trips"),
        ("bigquery://example.com:my-project/trips", "bigquery://example.com:my-project/trips"),
        (" bigquery://my-project/trips ", "bigquery://my-project/trips"),
    ],
)
def test_label(url: str, label: str) -> None:
    assert label_of(url) == label
    assert kind_of(label) in BACKENDS and (path_of(label) is None) == ("duckdb" not in url)
    assert query_command(label, url, str) or kind_of(label) == "duckdb"  # whose file is not there


def test_relative_path_of_duckdb_is_below_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert path_of("duckdb:///sub/w.duckdb") == str(tmp_path / "sub" / "w.duckdb")
    assert label_of("duckdb:///w.duckdb") == label_of(f"duckdb:///{tmp_path}/w.duckdb")


def test_label_names_the_same_file_again(tmp_path: Path) -> None:
    label = label_of(f"duckdb:///{tmp_path}/50%25 a%2Cb.duckdb")
    assert label_of(label) == label
    assert path_of(label) == str(tmp_path / "50% a,b.duckdb")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "warehouse.duckdb",
        "duckdb:warehouse.duckdb",
        "duckdb://warehouse.duckdb",
        "duckdb:///",
        "duckdb:///:memory:",
        "duckdb:///folder/",
        "duckdb:///w.duckdb?threads=1",
        "postgres://etl:secret@db/ny_taxi",
        "postgresql+asyncpg://etl:secret@db/ny_taxi",
        "postgresql://etl:secret@db",
        "postgresql://etl:secret@db/",
        "postgresql://etl:sec@ret@db/ny_taxi",
        "postgresql://etl:secret@db:port/ny_taxi",
        "bigquery://my-project",
        "bigquery:///trips",
        "bigquery://my-project/trips?credentials_base64=secret",
        "bigquery://my-project/trips-and-more",
        "mysql://etl:secret@db/ny_taxi",
    ],
)
def test_bad_url_is_one_line_that_names_the_setting_and_no_password(url: str) -> None:
    for function in (label_of, open_warehouse):
        with pytest.raises(UsageError) as caught:
            function(url)
        text = str(caught.value)
        assert text.startswith("[warehouse] url ")
        assert "\n" not in text and "secret" not in text and "ret@" not in text
        forms = ("duckdb:///", "postgresql+psycopg2://", "bigquery://project/dataset")
        assert all(form in text for form in forms) or "has letters, digits and _ only" in text


@pytest.mark.parametrize("port", [0, 65536, 10**20])
def test_port_that_there_is_not_is_named(port: int) -> None:
    with pytest.raises(UsageError, match="has a port that is not between 1 and 65535") as caught:
        label_of(f"postgresql://etl:secret@db:{port}/ny_taxi")
    assert "secret" not in str(caught.value)
    assert label_of("postgresql://etl:secret@db:65535/ny_taxi").endswith("db:65535/ny_taxi")


@given(password=st.text(st.characters(codec="ascii", exclude_characters="@"), min_size=6))
def test_no_password_reaches_a_label_or_an_error(password: str) -> None:
    secret = f"Q{password}Q"
    try:
        text = label_of(f"postgresql://etl:{secret}@db/ny_taxi")
    except UsageError as error:
        text = str(error)
    assert secret not in text


def test_open_warehouse_gives_the_class_of_the_scheme(tmp_path: Path) -> None:
    warehouse = open_warehouse(f"duckdb:///{tmp_path}/w.duckdb")
    assert isinstance(warehouse, DuckDB)
    assert warehouse.label == f"duckdb:///{tmp_path}/w.duckdb"
    assert warehouse.takes_synthetic
    assert list(tmp_path.iterdir()) == []


def test_split_urls() -> None:
    assert split_urls("duckdb:////w.duckdb , postgresql://etl:a%2Cb@db/t,") == [
        "duckdb:////w.duckdb",
        "postgresql://etl:a%2Cb@db/t",
    ]
    assert split_urls(" ") == []


def test_split_urls_refuses_a_bare_comma_in_a_password_without_showing_it() -> None:
    with pytest.raises(UsageError, match="%2C") as caught:
        split_urls("duckdb:////w.duckdb,postgresql://etl:sec,ret@db/t")
    assert "sec" not in str(caught.value) and "ret@" not in str(caught.value)


def test_split_urls_refuses_a_warehouse_named_twice() -> None:
    with pytest.raises(UsageError, match="postgresql@db/t twice"):
        split_urls("postgresql://a:secret@db/t,postgresql+psycopg2://b@db:5432/t")


def test_no_database_library_is_imported_for_a_label() -> None:
    code = (
        "import sys; from pipeline.warehouse import label_of, split_urls; "
        "split_urls('duckdb:////w.duckdb,postgresql://db/t,bigquery://my-project/t'); "
        "print([m for m in ('duckdb', 'sqlalchemy', 'psycopg2', 'google.cloud', 'pyarrow') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

"""Contract of every warehouse (pipeline/warehouse/base.py): all backends pass the same tests."""

from __future__ import annotations

import dataclasses
import datetime as dt
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.datasets import DATASETS
from pipeline.datasets.schema import Column, Dataset
from pipeline.errors import PipelineError, WarehouseError
from pipeline.warehouse import LedgerRow, label_of

from .loads import GREEN, ZONES, ledger_row, table_of
from .warehouses import FEBRUARY, JANUARY, MARCH, Backend

LEARNED = dataclasses.replace(GREEN, columns=(*GREEN.columns, Column("cargo", "string", "What was carried")))


def load_table(backend: Backend, folder: Path, table: pa.Table, row: LedgerRow, dataset: Dataset = GREEN) -> LedgerRow:
    """Load a file that holds this table, and not the rows of a version."""
    path = backend.files / f"{folder.name}.parquet"
    pq.write_table(table, path)
    return backend.open().load(dataset, backend.lake_file(path), row)


def assert_as_before(backend: Backend, before: object, history: list[LedgerRow]) -> None:
    """After a load that failed the partition is what it was, or at least not what the ledger calls loaded."""
    if backend.is_transactional:
        assert backend.everything() == before
    assert backend.open().history() == history
    assert backend.leftovers() == []


# -- loads -----------------------------------------------------------------------------------------


def test_reading_makes_nothing(new_backend: Backend) -> None:
    warehouse = new_backend.open()
    assert (warehouse.ledger(), warehouse.history(), warehouse.counts(GREEN), warehouse.texts(GREEN)) == (
        {},
        [],
        {},
        {},
    )
    assert new_backend.leftovers() == []


def test_a_load_makes_the_tables_and_views_of_all_datasets(new_backend: Backend) -> None:
    stored = new_backend.load("A")
    assert stored.replaces is None and stored.loaded_at is not None
    assert dataclasses.replace(stored, loaded_at=None) == ledger_row("A", JANUARY, 30)
    warehouse = new_backend.open()
    assert warehouse.ledger() == {("green", JANUARY): stored} and warehouse.history() == [stored]
    assert warehouse.counts(GREEN) == {JANUARY: 30} and new_backend.content() == (30, "A")
    assert new_backend.run("SELECT count(*), count(pickup_zone) FROM {trips}") == [(30, 0)]
    for dataset in DATASETS.values():
        assert new_backend.comments(dataset.table) == {
            column.name: column.description for column in dataset.table_columns
        }
    assert new_backend.leftovers() == []


def test_progress_ends_with_all_rows(backend: Backend) -> None:
    told: list[tuple[int, int]] = []
    backend.open().load(GREEN, backend.file("A"), ledger_row("A", JANUARY, 30), lambda *now: told.append(now))
    assert told == sorted(told) and told[-1] == (30, 30)


def test_the_same_load_twice_changes_no_row(backend: Backend) -> None:
    backend.load("A")
    before = backend.everything()
    backend.load("A")
    assert backend.everything() == before
    assert {row.sha256 for row in backend.open().history()} == {"A"}


def test_exactly_the_partition_is_replaced(backend: Backend) -> None:
    backend.load("A", JANUARY)
    backend.load("C", FEBRUARY, rows=20)
    backend.load("B", JANUARY, rows=10)
    assert (backend.content(JANUARY), backend.content(FEBRUARY)) == ((10, "B"), (20, "C"))
    assert backend.open().counts(GREEN) == {JANUARY: 10, FEBRUARY: 20}


def test_a_month_goes_from_one_version_to_another_and_back(backend: Backend) -> None:
    for version in "ABAB":
        stored = backend.load(version, rows=ord(version) - 60)
        assert backend.content() == (ord(version) - 60, version)
        assert backend.open().ledger() == {("green", JANUARY): stored}
    found = [(row.sha256, row.replaces) for row in backend.open().history()]
    assert found == [("A", None), ("B", "A"), ("A", "B"), ("B", "A")]


def test_a_table_without_months_is_replaced_as_a_whole(backend: Backend) -> None:
    backend.load("A", None, rows=20, dataset=ZONES)
    stored = backend.load("B", None, rows=10, dataset=ZONES)
    assert stored.replaces == "A"
    assert backend.open().counts(ZONES) == {None: 10} and backend.open().ledger() == {("zones", None): stored}
    assert backend.leftovers() == []


def test_a_month_without_rows_is_loaded(backend: Backend) -> None:
    backend.load("A")
    backend.load("B", rows=0)
    assert backend.open().counts(GREEN) == {} and backend.content() == (0, None)
    assert backend.open().ledger()["green", JANUARY].row_count == 0


def test_views_show_current_loads_and_trips_with_zones(backend: Backend) -> None:
    backend.load("A", None, rows=10, dataset=ZONES)
    backend.load("A")
    backend.load("B", rows=20)
    assert backend.run("SELECT dataset, count(*), count(pickup_zone) FROM {trips} GROUP BY 1") == [("green", 20, 4)]
    assert set(backend.run("SELECT file_month, sha256, row_count FROM {etl_current}")) == {
        (JANUARY, "B", 20),
        (None, "A", 10),
    }


def test_characters_of_texts_are_counted_where_they_could_come_to_harm(backend: Backend) -> None:
    backend.load("A", rows=4)
    assert backend.open().texts(GREEN) in ({JANUARY: {"store_and_fwd_flag": 12, "request_source": 12}}, {})


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset, month", [(GREEN, None), (ZONES, JANUARY)], ids=["green", "zones"])
def test_a_month_is_given_exactly_where_there_are_months(
    backend: Backend, dataset: Dataset, month: dt.date | None
) -> None:
    with pytest.raises(WarehouseError, match="a month is given exactly for datasets that have months"):
        backend.load("A", month, dataset=dataset)
    assert backend.open().history() == []


@pytest.mark.parametrize("rows", [29, 31])
def test_another_number_of_rows_than_promised_is_not_a_load(backend: Backend, rows: int) -> None:
    backend.load("A")
    backend.load("A", FEBRUARY)
    before, history = backend.everything(), backend.open().history()
    with pytest.raises(WarehouseError, match=rf"\b30\b.*\b{rows}\b") as caught:
        backend.open().load(GREEN, backend.file("B"), ledger_row("B", JANUARY, rows))
    assert "\n" not in str(caught.value)
    assert_as_before(backend, before, history)
    assert backend.content(FEBRUARY) == (30, "A")
    assert backend.is_transactional or backend.open().ledger()["green", JANUARY].status != "loaded"


@pytest.mark.parametrize("month", [JANUARY, MARCH], ids=["replaced", "new"])
def test_rows_of_another_month_are_refused(backend: Backend, month: dt.date) -> None:
    backend.load("A", JANUARY)
    before, history = backend.everything(), backend.open().history()
    with pytest.raises(WarehouseError, match=r"month|partition"):
        backend.open().load(GREEN, backend.file("B", FEBRUARY), ledger_row("B", month, 30))
    assert_as_before(backend, before, history)
    assert backend.content() == (30, "A")


def test_a_file_with_another_type_is_refused_by_the_column(backend: Backend, tmp_path: Path) -> None:
    backend.load("A")
    before, history = backend.everything(), backend.open().history()
    table = table_of("B", JANUARY, 30)
    place = table.schema.get_field_index("trip_distance")
    table = table.set_column(place, "trip_distance", pa.array([1] * 30))
    with pytest.raises(WarehouseError, match=r"column '?trip_distance") as caught:
        load_table(backend, tmp_path, table, ledger_row("B", JANUARY, 30))
    assert "\n" not in str(caught.value)
    assert_as_before(backend, before, history)


def test_a_file_with_an_undeclared_column_is_refused_by_the_column(backend: Backend, tmp_path: Path) -> None:
    table = table_of("A", JANUARY, 30).append_column("surprise", pa.array([1.5] * 30))
    with pytest.raises(WarehouseError, match="surprise"):
        load_table(backend, tmp_path, table, ledger_row("A", JANUARY, 30))
    assert backend.open().history() == [] and backend.open().counts(GREEN) == {}


def test_a_file_that_is_no_parquet_is_refused(backend: Backend, tmp_path: Path) -> None:
    path = backend.files / f"{tmp_path.name}.parquet"
    path.write_bytes(Path(backend.file("A").local().__enter__()).read_bytes()[:-100])
    with pytest.raises(WarehouseError) as caught:
        backend.open().load(GREEN, backend.lake_file(path), ledger_row("A", JANUARY, 30))
    assert "\n" not in str(caught.value)
    assert backend.open().ledger() == {}


# -- values ----------------------------------------------------------------------------------------


def test_columns_match_by_name_and_one_that_the_file_lacks_is_null(backend: Backend, tmp_path: Path) -> None:
    table = table_of("A", JANUARY, 30)
    names = [name for name in reversed(table.column_names) if name != "passenger_count"]
    load_table(backend, tmp_path, table.select(names), ledger_row("A", JANUARY, 30))
    assert backend.content() == (30, "A")
    assert backend.run("SELECT count(passenger_count), count(trip_type) FROM {green_trips}") == [(0, 30)]


@pytest.mark.parametrize("name", DATASETS)
def test_every_column_of_every_dataset_keeps_its_values(name: str, backend: Backend, tmp_path: Path) -> None:
    dataset = DATASETS[name]
    values = {
        "int64": 7,
        "float64": 2.25,
        "string": "O'Hare [x]*",
        "timestamp": dt.datetime(2098, 1, 1, 2, 3, 4, 5),
        "date": JANUARY,
    }
    month = JANUARY if dataset.is_monthly else None
    full = {column.name: values[column.type] for column in dataset.table_columns}
    empty = {**dict.fromkeys(full), **({"file_month": month} if month else {})}
    table = pa.Table.from_pylist([full, empty], dataset.table_schema)
    load_table(backend, tmp_path, table, ledger_row("A", month, 2, dataset), dataset)
    names = ", ".join(f'"{column}"' for column in full)
    first = next(iter(full))
    rows = backend.run(f'SELECT {names} FROM {{{dataset.table}}} ORDER BY "{first}" IS NULL')
    assert rows == [tuple(full.values()), tuple(empty.values())]


# -- declarations that change ----------------------------------------------------------------------


def test_a_new_column_is_added_and_older_rows_and_files_have_null(backend: Backend) -> None:
    backend.load("A", JANUARY)
    backend.load("A", FEBRUARY, dataset=LEARNED)
    backend.load("A", MARCH)  # by an older version of the pipeline, which does not know the column
    counts = backend.run("SELECT file_month, count(*), count(cargo) FROM {green_trips} GROUP BY 1 ORDER BY 1")
    assert counts == [(JANUARY, 30, 0), (FEBRUARY, 30, 10), (MARCH, 30, 0)]
    assert backend.comments("green_trips")["cargo"] == "What was carried"


def test_a_new_column_of_a_table_without_months_is_added(backend: Backend) -> None:
    backend.load("A", None, rows=6, dataset=ZONES)
    grown = dataclasses.replace(ZONES, columns=(*ZONES.columns, Column("shape", "string", "Outline")))
    backend.load("B", None, rows=3, dataset=grown)
    assert backend.run("SELECT count(*), count(shape) FROM {taxi_zones}") == [(3, 1)]


def test_a_column_whose_declared_type_differs_is_refused_with_both_types(backend: Backend) -> None:
    backend.load("A")
    before, history = backend.everything(), backend.open().history()
    changed = [
        dataclasses.replace(each, type="string") if each.name == "fare_amount" else each for each in GREEN.columns
    ]
    with pytest.raises(
        WarehouseError, match=r"table green_trips: column fare_amount is \S.* and should be \S"
    ) as caught:
        backend.load("B", dataset=dataclasses.replace(GREEN, columns=tuple(changed)))
    assert str(caught.value).startswith(backend.open().label)
    assert_as_before(backend, before, history)


def test_a_column_of_the_owner_is_left_alone(backend: Backend) -> None:
    backend.load("A", JANUARY)
    backend.add_column("green_trips", "note")
    backend.load("A", FEBRUARY)
    backend.load("B", JANUARY, rows=10)
    assert (backend.content(JANUARY), backend.content(FEBRUARY)) == ((10, "B"), (30, "A"))
    assert backend.run("SELECT count(note) FROM {green_trips}") == [(0,)]


def test_what_the_owner_has_under_the_name_of_a_view_stays(
    new_backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    new_backend.occupy("trips")
    with caplog.at_level(logging.WARNING):
        new_backend.load("A")
        new_backend.load("B", rows=10)
    assert caplog.text.count("the view trips is not made, because something else has that name") == 2
    assert new_backend.run("SELECT a FROM {trips}") == [(1,)]
    assert new_backend.run("SELECT sha256 FROM {etl_current}") == [("B",)]


# -- the ledger ------------------------------------------------------------------------------------


def test_loaded_at_grows_strictly_although_the_clock_is_set_back(backend: Backend) -> None:
    backend.load("A")
    backend.run("UPDATE {etl_loads} SET loaded_at = TIMESTAMP '2999-01-01'")
    second = backend.load("B")
    third = backend.open().append(dataclasses.replace(second, status="forgotten", loaded_at=None))
    times = [row.loaded_at for row in backend.open().history()]
    assert times == [dt.datetime(2999, 1, 1) + dt.timedelta(microseconds=step) for step in range(3)]
    assert backend.open().ledger()["green", JANUARY] == third


def test_forget_is_the_newest_row_and_touches_no_table(backend: Backend) -> None:
    loaded = backend.load("A")
    before = backend.everything()
    forgotten = backend.open().append(dataclasses.replace(loaded, status="forgotten", run_id="by hand"))
    assert backend.open().ledger() == {("green", JANUARY): forgotten} and backend.everything() == before
    assert backend.run("SELECT status FROM {etl_current}") == [("loaded",)]
    again = backend.load("A")
    assert [row.status for row in backend.open().history()] == ["loaded", "forgotten", "loaded"]
    assert again.replaces == "A" and backend.everything() == before


def test_a_row_may_be_appended_where_nothing_was_loaded(new_backend: Backend) -> None:
    stored = new_backend.open().append(ledger_row("A", JANUARY, 30))
    assert new_backend.open().history() == [stored] and new_backend.open().counts(GREEN) == {}


def test_the_ledger_of_an_older_version_is_read_and_gets_its_new_columns(backend: Backend) -> None:
    backend.load("A")
    backend.drop_view("etl_current")
    backend.drop_columns("etl_loads", "rules", "is_synthetic")
    assert backend.open().ledger()["green", JANUARY].rules is None
    backend.load("B")
    assert [row.rules for row in backend.open().history()] == [None, "none"]
    assert backend.run("SELECT rules FROM {etl_current}") == [("none",)]


def test_a_ledger_row_without_a_time_is_older_than_all(backend: Backend) -> None:
    backend.load("A")
    backend.run("UPDATE {etl_loads} SET loaded_at = NULL")
    stored = backend.load("B")
    assert backend.open().ledger()["green", JANUARY] == stored == backend.open().history()[-1]


def test_a_time_that_python_does_not_have_is_one_line(backend: Backend) -> None:
    for assignment in backend.impossible_times:
        backend.load("A")
        backend.run(f"UPDATE {{etl_loads}} SET {assignment}")
        for ask in (backend.open().ledger, backend.open().history):
            with pytest.raises(WarehouseError, match=r"that no run wrote: .*; correct that row") as caught:
                ask()
            assert str(caught.value).startswith(backend.open().label) and "\n" not in str(caught.value)
        backend.run("DELETE FROM {etl_loads}")


# -- killed, and several at once -------------------------------------------------------------------


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "replaced"])
def test_a_loader_killed_at_any_moment_is_made_good_by_the_same_call(backend: Backend, is_new: bool) -> None:
    """Killed where it has just called ``progress``, and somewhere on its way from there to the next such place."""
    if not is_new:
        backend.load("A")
    for killed_after in range(100):
        version, rows = "BC"[killed_after % 2], 2000 + killed_after % 2
        month = dt.date(2001 + killed_after, 1, 1) if is_new else JANUARY
        before = backend.open().ledger().get(("green", month))
        with backend.loader(version, month, rows) as process:
            has_ended = not all(process.stops() and process.go_on() for _ in range(killed_after // 2))
            has_ended = has_ended or not process.stops()
            if killed_after % 2:
                process.go_on()
        backend.settle()
        newest = backend.open().ledger().get(("green", month))
        if newest and newest.status == "loaded":
            assert backend.content(month) == (newest.row_count, newest.sha256), (
                "the ledger speaks for rows that are gone"
            )
        elif backend.is_transactional:
            assert newest is None and is_new and backend.open().counts(GREEN).get(month) is None
        stored = backend.load(version, month, rows)
        assert backend.content(month) == (rows, version) and backend.open().ledger()["green", month] == stored
        assert stored.replaces in {before.sha256 if before else None, version}
        assert backend.leftovers() == []
        if has_ended:
            break
    assert killed_after >= 4


def test_processes_with_one_month_each_and_tables_that_do_not_exist_yet(new_backend: Backend) -> None:
    with new_backend.loader("A", JANUARY) as first, new_backend.loader("B", FEBRUARY) as second:
        assert first.stops() and second.stops()
        joining = [threading.Thread(target=process.join) for process in (first, second)]
        for thread in joining:
            first.go_on() if thread is joining[0] else second.go_on()
            thread.start()
        for thread in joining:
            thread.join()
    assert (new_backend.content(JANUARY), new_backend.content(FEBRUARY)) == ((30, "A"), (30, "B"))
    assert len(new_backend.open().history()) == 2


def test_workers_with_the_same_month_and_different_files(backend: Backend) -> None:
    """Whoever is last, the table holds what the ledger says."""
    backend.load("X")
    versions = {"B": 10, "C": 20}
    for version, rows in versions.items():
        backend.file(version, rows=rows)
    start = threading.Barrier(len(versions))

    def load(version: str) -> LedgerRow:
        start.wait()
        return backend.load(version, rows=versions[version])

    with ThreadPoolExecutor(len(versions)) as pool:
        stored = list(pool.map(load, versions))
    newest = backend.open().ledger()["green", JANUARY]
    assert backend.content() == (newest.row_count, newest.sha256) and newest.status == "loaded"
    history = backend.open().history()
    assert {row.sha256 for row in history} == {"X", "B", "C"} and all(row in history for row in stored)
    assert [row.replaces for row in history[1:]] == [row.sha256 for row in history[:-1]]


def test_workers_with_different_months(backend: Backend) -> None:
    months = [dt.date(2021, month, 1) for month in range(1, 5)]
    for month in months:
        backend.file("A", month)
    start = threading.Barrier(len(months))

    def load(month: dt.date) -> LedgerRow:
        start.wait()
        return backend.load("A", month)

    with ThreadPoolExecutor(len(months)) as pool:
        list(pool.map(load, months))
    assert backend.open().counts(GREEN) == dict.fromkeys(months, 30)
    assert set(backend.open().ledger()) == {("green", month) for month in months}


# -- names, doctor, errors -------------------------------------------------------------------------


def test_the_label_has_no_secret_and_is_known_without_a_connection(backend: Backend) -> None:
    assert backend.open().label == label_of(backend.url)
    assert "pw-" not in backend.open().label


def test_only_an_embedded_warehouse_takes_synthetic_months_by_itself(backend: Backend) -> None:
    assert backend.open().takes_synthetic == (backend.name == "duckdb")


def test_doctor_makes_nothing_unless_it_is_asked_to(new_backend: Backend) -> None:
    list(new_backend.open().check())
    assert new_backend.is_empty()
    for create in (True, False, True):
        checks = list(new_backend.open().check(create=create))
        assert checks and all(check.ok for check in checks), checks
    new_backend.open().ensure()
    new_backend.load("A")
    assert all(check.ok for check in new_backend.open().check())


def test_a_warehouse_that_cannot_be_used_is_one_line_without_secrets(
    new_backend: Backend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = new_backend.file("A")
    new_backend.url = new_backend.unusable(monkeypatch)
    warehouse = new_backend.open(patience=0.2)
    for use in (
        warehouse.ledger,
        warehouse.history,
        lambda: warehouse.counts(GREEN),
        lambda: warehouse.append(ledger_row("A", JANUARY, 30)),
        lambda: warehouse.load(GREEN, file, ledger_row("A", JANUARY, 30)),
    ):
        with pytest.raises(PipelineError) as caught:
            use()
        text = str(caught.value)
        assert text.startswith(warehouse.label) and "; " in text and "\n" not in text and "planted" not in text
    failed = [check for check in warehouse.check() if not check.ok]
    assert failed and failed[-1].remedy and "planted" not in str(failed)

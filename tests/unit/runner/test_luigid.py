"""luigid's history and state: what is kept, and for how long."""

from __future__ import annotations

import datetime as dt
import os
import pickle
from pathlib import Path

import pytest
import sqlalchemy
from luigi.configuration import get_config
from luigi.db_task_history import TaskEvent, TaskParameter, TaskRecord

from pipeline.errors import UsageError
from pipeline.runner import luigid
from tests.patience import Clock


@pytest.fixture
def scheduler(tmp_path: Path) -> luigid.Scheduler:
    get_config().set("scheduler", "state_path", str(tmp_path / "state.pickle"))
    found = luigid.Scheduler(luigid.History(f"sqlite:///{tmp_path}/history.db"))
    found._config.stable_done_cooldown_secs = 0
    return found


def do(scheduler: luigid.Scheduler, name: str) -> None:
    scheduler.add_task(task_id=name, worker="w", family="Load", params={"month": "2020-01"})
    assert scheduler.get_work(worker="w")["task_id"] == name
    scheduler.add_task(task_id=name, worker="w", status="DONE")


def count(history: luigid.History, table: type) -> int:
    with history.engine.connect() as connection:
        return int(connection.scalar(sqlalchemy.select(sqlalchemy.func.count()).select_from(table)) or 0)


def test_history_forgets_what_is_old(scheduler: luigid.Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luigid, "BATCH", 2)
    history = scheduler.task_history
    names = [f"old{number}" for number in range(5)]
    for name in names:
        do(scheduler, name)
    now = dt.datetime.now()
    with history.engine.begin() as connection:
        connection.execute(sqlalchemy.update(TaskEvent).values(ts=now - dt.timedelta(days=10)))
    do(scheduler, "new")
    assert history.forget(now - dt.timedelta(days=20)) == 0
    assert history.forget(now - dt.timedelta(days=5)) == 5
    assert [record.task_id for record in history.find_all_runs()] == ["new"]
    assert (count(history, TaskEvent), count(history, TaskParameter), count(history, TaskRecord)) == (2, 1, 1)
    do(scheduler, "old0")  # a month that runs again after its history is gone gets a new one
    assert len(history.find_all_runs()) == 2


def test_state_names_no_class_of_ours(scheduler: luigid.Scheduler, tmp_path: Path) -> None:
    """So that a luigid of any version reads it, wherever our modules are."""
    modules = set()

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            modules.add(module.partition(".")[0])
            return super().find_class(module, name)

    do(scheduler, "a")
    scheduler.add_task(task_id="b", worker="w", family="Load", module="pipeline.tasks.load", resources={"memory": 1})
    scheduler.add_worker("w", [("workers", 2)])
    scheduler.dump()
    with (tmp_path / "state.pickle").open("rb") as file:
        assert Unpickler(file).load()[0].keys() == {"a", "b"}
    assert "luigi" in modules and "pipeline" not in modules


def test_state_is_written_whole_and_time_away_counts_against_no_worker(
    scheduler: luigid.Scheduler, tmp_path: Path
) -> None:
    scheduler.add_task(task_id="a", worker="w", family="Load")
    scheduler.get_work(worker="w")
    for worker in scheduler._state.get_active_workers():
        worker.last_active -= 3600
    scheduler.dump()
    path = tmp_path / "state.pickle"
    assert pickle.loads(path.read_bytes())[0].keys() == {"a"}
    assert [file.name for file in tmp_path.iterdir() if "state" in file.name] == ["state.pickle"]

    again = luigid.Scheduler(scheduler.task_history)
    again.load()
    again.prune()
    assert again.task_list("RUNNING", "").keys() == {"a"}


def test_task_of_a_lost_state_may_fail(scheduler: luigid.Scheduler) -> None:
    for status in ("FAILED", "DISABLED"):
        scheduler.add_task(task_id=f"{status} elsewhere", worker="w", status=status, family="Load")
    metrics = scheduler._state._metrics_collector.generate_latest().decode()
    assert 'luigi_task_failed_total{family="Load"} 1.0' in metrics
    assert 'luigi_task_disabled_total{family="Load"} 1.0' in metrics


def test_state_that_cannot_be_written_does_not_stop_luigid(
    scheduler: luigid.Scheduler, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "state.pickle.new").mkdir()
    scheduler.dump()
    assert "state of luigid cannot be saved" in caplog.text


@pytest.mark.parametrize("is_link", [False, True])
def test_what_a_killed_luigid_left_does_not_keep_the_state_from_being_saved(
    scheduler: luigid.Scheduler, tmp_path: Path, is_link: bool
) -> None:
    (tmp_path / "theirs").write_text("precious")
    new = tmp_path / "state.pickle.new"
    if is_link:
        new.symlink_to("theirs")
    else:
        new.write_bytes(b"half")
    scheduler.dump()
    assert pickle.loads((tmp_path / "state.pickle").read_bytes()) and not os.path.lexists(new)
    assert (tmp_path / "theirs").read_text() == "precious"


def test_state_that_somebody_else_may_have_written_is_not_read(scheduler: luigid.Scheduler, tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    state = tmp_path / "state.pickle"
    scheduler.dump()
    assert state.stat().st_mode & 0o777 == 0o600
    state.chmod(0o644)  # as a version before has left it
    scheduler.load()
    for path, mode, says in (
        (state, 0o666, "state.pickle can be written by every user"),
        (tmp_path, 0o777, f"{tmp_path.name} can be written by every user"),
    ):
        path.chmod(mode)
        with pytest.raises(UsageError, match=says):
            scheduler.load()
        path.chmod(0o700)
    tmp_path.chmod(0o1777)  # in a folder such as /tmp nobody can replace another's file
    scheduler.load()
    if os.geteuid() == 0:
        os.chown(state, 65534, 65534)
        with pytest.raises(UsageError, match=r"state.pickle belongs to another user"):
            scheduler.load()
    state.rename(tmp_path / "elsewhere")
    state.symlink_to("elsewhere")
    with pytest.raises(UsageError, match=r"state.pickle is a link"):
        scheduler.load()
    scheduler.dump()  # does not follow it
    state.unlink()
    os.mkfifo(state)
    with pytest.raises(UsageError, match=r"state.pickle is no regular file"):
        scheduler.load()


def test_history_that_cannot_be_opened_is_a_mistake_in_what_names_it(tmp_path: Path) -> None:
    (tmp_path / "history.db").mkdir()
    get_config().set("task_history", "db_connection", f"sqlite:///{tmp_path}/history.db")
    with pytest.raises(UsageError, match="--folder here cannot be used"):
        luigid._open_history("--folder here")


def test_who_gets_no_task_is_told_what_is_pending(scheduler: luigid.Scheduler) -> None:
    scheduler.add_task(task_id="first", worker="w", family="Load")
    scheduler.add_task(task_id="then", worker="w", family="Load", deps=["first"])
    assert scheduler.get_work(worker="w")["task_id"] == "first"
    waiting = scheduler.get_work(worker="w")
    assert (waiting["task_id"], waiting["n_pending_tasks"], waiting["n_unique_pending"]) == (None, 1, 1)
    assert [task["task_id"] for task in waiting["running_tasks"]] == ["first"]
    assert scheduler.count_pending("w") == {name: waiting[name] for name in waiting if name != "task_id"}
    scheduler.disable_worker("w")
    stopped = scheduler.get_work(worker="w")
    assert (stopped["n_pending_tasks"], stopped["worker_state"]) == (0, "disabled")


def test_workers_that_are_gone_are_looked_for_once_in_a_second(
    scheduler: luigid.Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks, clock = [], Clock()
    monkeypatch.setattr(luigid, "time", clock)
    monkeypatch.setattr(scheduler, "_prune_workers", lambda: looks.append(1))
    for _ in range(10):
        clock.sleep(luigid.PRUNE_EVERY)
        for _ in range(10):
            scheduler.get_work(worker="w")
    assert len(looks) == 10

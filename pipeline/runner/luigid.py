"""luigid, the scheduler as a server: durable state, history, the page /metrics. The verb ``ui`` starts it.

Differences from Luigi's own ``luigid``:

* The history works with SQLAlchemy 2, and old history is removed.
* The state is written atomically every few seconds, so that a kill or a power cut loses next to nothing.
* Only the owner can read state and history. The state is a pickle: whoever can write it can run code.
* No worker times out because luigid was down.
* An answer with a task does not count all pending tasks.
* Requests of strangers are refused: see luigid_guard.

The subclasses rely on private parts of Luigi (3.8.1), which ``tests/unit/runner/test_patches.py`` checks:

* ``DbTaskHistory`` keeps ``engine``, ``session_factory`` and ``tasks`` (``StoredTask`` with ``record_id``), and calls
  ``task_scheduled`` for every task that is announced;
* ``PrometheusMetricsCollector.handle_task_failed`` and ``handle_task_disabled`` read ``time_running`` and ``updated``;
* ``Scheduler`` makes the collector that ``metrics_custom_import`` names. ``get_work`` calls ``prune`` and
  ``count_pending``, and ``load`` and ``dump`` read and write ``_state``, whose ``get_state`` can be pickled.
"""

from __future__ import annotations

import datetime as dt
import glob
import logging
import os
import pickle
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import luigi.configuration
import luigi.scheduler
import luigi.server
import sqlalchemy
import sqlalchemy.orm
from luigi.contrib.prometheus_metric import PrometheusMetricsCollector
from luigi.db_task_history import Base, DbTaskHistory, TaskEvent, TaskParameter, TaskRecord
from luigi.metrics import MetricsCollectors
from luigi.task_history import StoredTask
from tornado.ioloop import IOLoop, PeriodicCallback

from ..errors import UsageError
from ..reporting import logs
from . import luigid_guard, patches

LOGGER = logging.getLogger("pipeline")

#: Seconds between two writes of the state, and between two removals of old history.
SAVE_EVERY, FORGET_EVERY = 10, 3600

#: Seconds between two prunings of silent workers. Luigi prunes whenever a worker asks for work.
PRUNE_EVERY = 1

#: Fields of an answer with a task that Luigi's worker requires and does not read.
NOT_COUNTED = {"n_pending_tasks": 0, "n_unique_pending": 0, "running_tasks": []}

#: Tasks whose history is removed in one transaction. luigid answers nobody meanwhile.
BATCH = 1000


class History(DbTaskHistory):
    """Luigi's history without its upgrade of older databases, which needs SQLAlchemy 1."""

    def __init__(self, url: str) -> None:
        self.engine = sqlalchemy.create_engine(url)
        if self.engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(self.engine, "connect", _without_syncs)
        self.session_factory = sqlalchemy.orm.sessionmaker(bind=self.engine, expire_on_commit=False)
        Base.metadata.create_all(self.engine)
        self.tasks: dict[str, StoredTask] = {}

    def task_scheduled(self, task: luigi.scheduler.Task) -> None:
        """Not recorded: the history shows what ran, and recording each planned task would double the planning time."""

    def forget(self, before: dt.datetime) -> int:
        """Remove the history of tasks without an event since ``before``. Returns the number of tasks."""
        removed = 0
        old = (
            sqlalchemy.select(TaskEvent.task_id)
            .group_by(TaskEvent.task_id)
            .having(sqlalchemy.func.max(TaskEvent.ts) < before)
            .limit(BATCH)
        )
        while True:
            with self.engine.begin() as connection:
                ids = connection.scalars(old).all()
                for table, column in (
                    (TaskEvent, TaskEvent.task_id),
                    (TaskParameter, TaskParameter.task_id),
                    (TaskRecord, TaskRecord.id),
                ):
                    connection.execute(sqlalchemy.delete(table).where(column.in_(ids)))
            # Luigi caches the record of every task it has seen, and expects it in the database.
            gone = set(ids)
            self.tasks = {name: task for name, task in self.tasks.items() if task.record_id not in gone}
            removed += len(ids)
            if len(ids) < BATCH:
                return removed


def _without_syncs(connection: Any, record: object) -> None:
    """Do not sync each event to disk: luigid answers nobody meanwhile. A power cut loses the newest events."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")


class Metrics(PrometheusMetricsCollector):
    """Luigi's metrics, which also accept a task that ends without a start: luigid may have lost its state."""

    def handle_task_failed(self, task: luigi.scheduler.Task) -> None:
        super().handle_task_failed(_begun(task))

    def handle_task_disabled(self, task: luigi.scheduler.Task, config: luigi.scheduler.scheduler) -> None:
        super().handle_task_disabled(_begun(task), config)


def _begun(task: luigi.scheduler.Task) -> luigi.scheduler.Task:
    task.time_running = task.time_running or task.updated
    return task


class Scheduler(luigi.scheduler.Scheduler):
    """Luigi's scheduler with a history, metrics, and a state that survives ``kill -9``."""

    def __init__(self, history: History) -> None:
        super().__init__(
            task_history_impl=history,
            record_task_history=True,
            metrics_collector=MetricsCollectors.custom,
            metrics_custom_import=f"{__name__}.{Metrics.__name__}",
        )
        self._saved = b""
        self._pruned_at = 0.0
        self._is_giving_work = False

    def prune(self) -> None:
        """Prune once in ``PRUNE_EVERY`` seconds at most: time-outs are seconds too."""
        if time.monotonic() >= self._pruned_at + PRUNE_EVERY:
            super().prune()
            self._pruned_at = time.monotonic()

    def get_work(self, **kwargs: Any) -> dict[str, Any]:
        """As in Luigi, but an answer with a task has no counts of pending tasks, which only an idle worker needs.

        With thousands of tasks counting takes longer than everything else.
        """
        self._is_giving_work = True
        try:
            reply: dict[str, Any] = super().get_work(**kwargs)
        finally:
            self._is_giving_work = False
        if reply["task_id"] or "batch_id" in reply:
            return {**NOT_COUNTED, **reply}
        return {**self.count_pending(kwargs["worker"]), **reply}

    def count_pending(self, worker: str) -> dict[str, Any]:
        counts: dict[str, Any] = {} if self._is_giving_work else super().count_pending(worker)
        return counts

    def load(self) -> None:
        """Raises UsageError if somebody else may have written the state: to read it is to run what it says."""
        _ensure_ours(Path(self._config.state_path))
        super().load()
        for worker in self._state.get_active_workers():
            worker.last_active = time.time()  # while luigid was away nobody could report

    def dump(self) -> None:
        """Write the state to a new file and put that in place of the old one."""
        state = pickle.dumps(self._state.get_state())
        if state == self._saved:
            return
        path = Path(self._config.state_path)
        new = path.with_name(f"{path.name}.new")
        try:
            new.unlink(missing_ok=True)  # a link in its place is not followed
            with open(new, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(state)
            os.replace(new, path)
            self._saved = state
        except OSError as error:
            LOGGER.warning("the state of luigid cannot be saved in %s: %s", path, error.strerror)


def serve(address: str, port: int, allowed_hosts: Sequence[str], folder: str | None, keep_days: float) -> None:
    """Serve until somebody ends it. Raises UsageError where folder, database, state or port cannot be used.

    ``folder`` is for state and history, in place of what luigi.cfg says; ``keep_days`` is the age of the history.
    """
    hosts = luigid_guard.Hosts(address, allowed_hosts)
    history = "[task_history] db_connection"
    if folder:
        history = f"--folder {folder}"
        _make(Path(folder), history)
        config = luigi.configuration.get_config()
        config.set("scheduler", "state_path", f"{folder}/state.pickle".replace("%", "%%"))
        config.set("task_history", "db_connection", f"sqlite:///{folder}/history.db".replace("%", "%%"))
    _log_lines_of("luigi", "tornado")
    state = Path(luigi.scheduler.scheduler().state_path).absolute()
    _make(state.parent, f"[scheduler] state_path: {state.parent}")
    _ensure_ours(state)
    os.umask(0o077)  # from here on only state and history are written
    scheduler = Scheduler(_open_history(history))
    patches.around_luigid_application(lambda make, scheduler: luigid_guard.guard(make(scheduler), hosts))

    def forget() -> None:
        removed = scheduler.task_history.forget(dt.datetime.now() - dt.timedelta(days=keep_days))
        if removed:
            LOGGER.info("history: %s tasks older than %g days are forgotten", f"{removed:,}", keep_days)

    forget()
    PeriodicCallback(scheduler.dump, SAVE_EVERY * 1000).start()
    PeriodicCallback(forget, FORGET_EVERY * 1000).start()
    where = f"http://{address}:{port}, state and history in {state.parent}"
    IOLoop.current().add_callback(LOGGER.info, "luigid on %s; Ctrl-C ends it", where)  # when it listens
    try:
        luigi.server.run(api_port=port, address=address, scheduler=scheduler)
    except (OSError, UnicodeError) as error:  # some texts cannot even be looked up as a name
        why = getattr(error, "strerror", None) or "no address"
        raise UsageError(f"--address {address} --port {port}: {why}; choose another") from None


def _log_lines_of(*names: str) -> None:
    """Show warnings of these libraries as lines of ours."""
    handler = logging.StreamHandler()
    handler.setFormatter(logs.OneLine("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    for name in names:
        logging.getLogger(name).setLevel(logging.WARNING)
        logging.getLogger(name).addHandler(handler)
        logging.getLogger(name).propagate = False


def _ensure_ours(state: Path) -> None:
    """Raise UsageError if somebody else may have written a file, or can put another one in its place."""
    for path in (state, state.parent):
        try:
            about = path.lstat() if path == state else path.stat()
        except OSError:
            continue  # none was written yet
        is_shared = about.st_mode & stat.S_IWOTH and not (stat.S_ISDIR(about.st_mode) and about.st_mode & stat.S_ISVTX)
        why = (
            "is a link"
            if stat.S_ISLNK(about.st_mode)
            else "is no regular file"
            if path == state and not stat.S_ISREG(about.st_mode)
            else "belongs to another user"
            if about.st_uid not in (os.geteuid(), 0)
            else "can be written by every user"
            if is_shared
            else ""
        )
        if why:
            raise UsageError(
                f"{path} {why}, and luigid would run what is in {'it' if path == state else state.name}; "
                "remove it, or name a folder of your own with --folder"
            )


def _make(folder: Path, what: str) -> None:
    """Make a folder that only its owner can look into, if there is none."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{what} cannot be made: {error.strerror}; choose another") from None


def _open_history(what: str) -> History:
    url = luigi.configuration.get_config().get("task_history", "db_connection", "")
    try:
        parsed = sqlalchemy.make_url(url)
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            database = Path(parsed.database).absolute()
            _make(database.parent, what)
            for file in database.parent.glob(f"{glob.escape(database.name)}*"):  # of a luigid that let others read it
                if file.is_file() and not file.is_symlink() and file.stat().st_uid == os.geteuid():
                    file.chmod(0o600)
        return History(url)
    except (sqlalchemy.exc.SQLAlchemyError, OSError) as error:
        raise UsageError(f"{what} cannot be used for the history ({type(error).__name__}); choose another") from None

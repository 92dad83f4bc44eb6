"""Luigi's requests to luigid, made cheaper: a run of all months makes thousands before its first task."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any

import requests
from luigi.rpc import RequestsFetcher

#: Requests to luigid that are under way at once while a run is planned: one is made while another is answered.
AT_ONCE = 3


class Fetcher(RequestsFetcher):
    """Luigi's own, with what the environment says of proxies and certificates looked up once."""

    def __init__(self, url: str) -> None:
        self._url = url
        super().__init__()
        self.session: requests.Session = self._session()
        self.process_id: int = os.getpid()

    def _session(self) -> requests.Session:
        session = requests.Session()
        found = session.merge_environment_settings(self._url, {}, None, None, None)
        session.proxies, session.verify = found["proxies"], found["verify"]
        session.auth = requests.utils.get_netrc_auth(self._url)
        session.trust_env = False
        return session

    def check_pid(self) -> None:
        """A connection that was open before a fork must not be used on both sides."""
        if os.getpid() != self.process_id:
            self.session, self.process_id = self._session(), os.getpid()


class Announcer:
    """A scheduler in luigid whose ``add_task`` does not wait for the answer; an error comes with a later call."""

    def __init__(self, scheduler: Any) -> None:  # Luigi gives a RemoteScheduler its methods at run time
        self._scheduler = scheduler
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="announce")
        self._waiting: deque[Future[Any]] = deque()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scheduler, name)

    def add_task(self, **task: Any) -> None:
        self._waiting.append(self._pool.submit(self._scheduler.add_task, **task))
        if len(self._waiting) > 2 * AT_ONCE:
            self._waiting.popleft().result()

    def __enter__(self) -> Announcer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the answers; after an error of the caller's only for requests that are on their way."""
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for told in self._waiting:
                told.result()

"""The client of luigid: retries with one line of warning, and several requests at once.

The subclasses rely on private parts of ``luigi.rpc`` (3.8.1), which ``tests/unit/runner/test_patches.py`` checks:
``RemoteScheduler`` sends every call through ``_request`` and ``_fetch``, repeats it as ``_get_retryer`` says, and keeps
``_url``, ``_fetcher``, ``_connect_timeout``, ``_rpc_retry_attempts``, ``_rpc_retry_wait`` and ``_rpc_log_retries``;
``RequestsFetcher`` has ``check_pid``.
"""

from __future__ import annotations

import copy
import json
import os
import threading
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
from luigi.rpc import RemoteScheduler, RequestsFetcher
from tenacity import RetryCallState, Retrying, stop_after_attempt, stop_after_delay, stop_any

from ..errors import UsageError
from ..reporting.progress import RunProgress
from ..sanitize import sanitize_for_luigid
from ..setting_values import luigid_url
from ..time_limits import answer_of
from ..waiting import SAID_AFTER

#: Concurrent requests to luigid while tasks are announced.
AT_ONCE = 3

#: The limit for a whole answer, in time-outs of one request.
IN_ALL = 3


class Fetcher(RequestsFetcher):
    """Luigi's HTTP client, which reads proxies and certificates from the environment once instead of per request."""

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

    def fetch(self, full_url: str, body: Any, timeout: float) -> str:
        """Limit the whole answer to ``IN_ALL`` time-outs: the time-out alone begins anew with each byte.

        An answer that is not luigid's is an error too, such as the page of a proxy or of another program on its port.
        """
        self.check_pid()
        ask = super().fetch
        try:
            page = answer_of(lambda: ask(full_url, body, timeout), IN_ALL * timeout)
        except TimeoutError:
            self.session = self._session()
            raise requests.exceptions.ReadTimeout(f"no whole answer within {IN_ALL * timeout:g} s") from None
        if not page.startswith('{"response"'):
            raise requests.exceptions.InvalidJSONError("what answers is no luigid")
        return page

    def check_pid(self) -> None:
        """Open a new connection after a fork: both processes must not use the same one."""
        if os.getpid() != self.process_id:
            self.session, self.process_id = self._session(), os.getpid()


class Luigid(RemoteScheduler):
    """Client of luigid. While luigid does not answer, it logs one line instead of a traceback per try."""

    _saying = threading.Lock()

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._fetcher = Fetcher(url)
        self._is_away = False

    def _get_retryer(self) -> Retrying:
        retryer: Retrying = super()._get_retryer()
        stop = stop_any(stop_after_attempt(self._rpc_retry_attempts), stop_after_delay(self._limit))
        return retryer.copy(before_sleep=self._wait, after=lambda state: None, stop=stop)

    @property
    def _limit(self) -> float:
        """Longest wait in seconds for a luigid that accepts requests and does not answer them."""
        return float(self._rpc_retry_attempts * (self._rpc_retry_wait + self._connect_timeout))

    def _wait(self, state: RetryCallState) -> None:
        wait = state.next_action.sleep if state.next_action else 0.0
        with self._saying:
            is_news = not self._is_away and (state.seconds_since_start or 0.0) + wait >= SAID_AFTER
            self._is_away = self._is_away or is_news
        if is_news:
            where = self._url.rpartition("@")[2].removeprefix("http://").removeprefix("https://")
            each = ((state.seconds_since_start or 0.0) + wait) / state.attempt_number
            limit = round(min(self._limit, self._rpc_retry_attempts * each))
            RunProgress().waiting(f"waits for luigid at {where}, which does not answer, for about {limit:,} s at most")

    def _request(self, url: str, data: Any, attempts: int = 3, allow_null: bool = True) -> Any:
        return super()._request(url, sanitize_for_luigid(data), attempts, allow_null)

    def _fetch(self, url_suffix: str, body: Any) -> str:
        if url_suffix == "/api/ping":
            return self._ping(body)
        answer: str = super()._fetch(url_suffix, body)
        if self._is_away:
            self._is_away = False
            RunProgress().waiting("")
        return answer

    def _ping(self, body: Any) -> str:
        """Ping once. Luigi pings again a second later anyway, and starting a process waits for this thread."""
        try:
            answer: str = self._fetcher.fetch(f"{self._url}/api/ping", body, self._connect_timeout)
            is_right = isinstance(json.loads(answer)["response"]["rpc_messages"], list)
        except (requests.RequestException, ValueError, LookupError, TypeError):
            is_right = False
        return answer if is_right else '{"response": null}'


def asked_once(scheduler: Any, seconds: float) -> Any:
    """A copy of the scheduler that makes one try of at most ``seconds`` per request to luigid."""
    if isinstance(scheduler, RemoteScheduler):
        scheduler = copy.copy(scheduler)
        scheduler._rpc_retry_attempts = 1
        scheduler._rpc_log_retries = False
        scheduler._connect_timeout = seconds
    return scheduler


class PipelinedScheduler:
    """A scheduler in luigid whose ``add_task`` does not wait for the answer; a later call raises its error."""

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

    def __enter__(self) -> PipelinedScheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the answers; after an error of the caller's only for requests that are on their way."""
        self._pool.shutdown(cancel_futures=error is not None)
        if error is None:
            for told in self._waiting:
                told.result()


def connect(url: str) -> Luigid:
    """Check once that luigid answers, before the first task. Luigi alone retries for minutes without a message."""
    from .. import http_client  # which no local run needs

    luigid_url(url)
    shown = url.rpartition("@")[2].rstrip("/")
    start = "start one with `python -m pipeline ui`"
    try:
        with http_client.send("HEAD", url, {}, limit=10) as answer:
            code = answer.status_code
    except http_client.NO_ANSWER:
        raise UsageError(f"no luigid answers at {shown}; {start}, or run with --local-scheduler") from None
    if code in (401, 403):
        raise UsageError(f"luigid at {shown} refuses user and password; give them as http://user:password@host:8082")
    if code == 421:
        name = urlsplit(url).hostname
        raise UsageError(f"luigid at {shown} does not know that name; start it with --allowed-host {name}")
    if code >= 400:
        raise UsageError(f"what answers at {shown} is no luigid (HTTP {code}); {start}")
    return Luigid(url)

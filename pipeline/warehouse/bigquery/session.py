"""The client of BigQuery: calls with retries, queries, and ``run_once``: a named job runs once for all callers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from google.api_core import exceptions
from google.api_core.retry import Retry
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from ... import remote, time_limits, waiting
from ...errors import PipelineError, WarehouseError, WarehouseUnavailable
from ...retry import REQUESTS, pause
from ..base import Options, named
from .errors import EMULATOR, address, is_passing, is_retried, job_failure, translate, what

_REQUEST_SECONDS = 60.0
_QUERY_SECONDS = 600.0
_JOB_SECONDS = 6 * 3600.0  # BigQuery's own limit of a load job
_FAILURES = 3
_ATTEMPTS = 500


class Session:
    """A dataset of BigQuery and its client. Nothing is asked before the first call.

    ``wanted_location`` is that of the URL. ``location`` is where the dataset was found, and where jobs are run: after a
    lost reply the client asks for a job where it was told to run it.
    """

    def __init__(self, url: str, label: str, options: Options) -> None:
        remote.emulator(EMULATOR)  # refused here, not in the middle of a run
        parts = urlsplit(url)
        self.label, self.options = label, options
        self.project, self.dataset = parts.netloc, parts.path.strip("/")
        self.reference = bigquery.DatasetReference(self.project, self.dataset)
        self.wanted_location = dict(parse_qsl(parts.query)).get("location")
        self.location: str | None = None
        self._client: tuple[int, bigquery.Client] | None = None
        self._is_told = False  # of the wait for an answer

    # -- calls -----------------------------------------------------------------------------------

    @property
    def client(self) -> bigquery.Client:
        """The client of this process: made at the first use, so that none crosses a fork."""
        if self._client is None or self._client[0] != os.getpid():
            emulator = remote.emulator(EMULATOR)
            if emulator:
                client = bigquery.Client(
                    self.project, credentials=AnonymousCredentials(), client_options={"api_endpoint": emulator}
                )
            else:
                try:
                    client = bigquery.Client(self.project)
                except remote.NO_KEY_FILE as error:
                    raise WarehouseError(remote.unusable_key_file(error)) from None
            self._client = os.getpid(), client
        return self._client[1]

    @property
    def _patience(self) -> float:
        return remote.for_server(self.options.patience)

    @property
    def retry(self) -> Retry:
        patience = self._patience

        def tell(error: Exception) -> None:
            whom = f"BigQuery at {address(error)} ({what(error)})"
            self._is_told = self._is_told or waiting.say(f"waits for {whom}, for at most {patience:g} s")

        return _Retry(
            predicate=is_retried,
            initial=REQUESTS.backoff,
            maximum=REQUESTS.max_backoff,
            timeout=patience,
            on_error=tell,
        )

    def call(self, method: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """What a method of the client returns, with the time-outs and retries of every request."""
        return method(*arguments, retry=self.retry, timeout=_timeout(), **options)

    @contextlib.contextmanager
    def errors(self, doing: str) -> Iterator[None]:
        """Everything that Google's libraries raise becomes one line of ours, cut loose from their tracebacks."""
        try:
            yield
        except WarehouseError as error:
            raise named(error, self.label) from None
        except PipelineError:
            raise
        except Exception as error:
            translated = translate(error, f"{self.label}: {doing}")
            if translated is None:
                raise
            raise translated from None
        finally:
            if self._is_told:
                self._is_told = False
                waiting.say("")

    # -- tables and queries ------------------------------------------------------------------------

    def reference_of(self, name: str) -> bigquery.TableReference:
        return self.reference.table(name)

    def table(self, name: str) -> bigquery.Table:
        """A table as it is now; ``NotFound`` where there is none."""
        return self.call(self.client.get_table, self.reference_of(name))

    def sql_name(self, name: str) -> str:
        return quote(f"{self.project}.{self.dataset}.{name}")

    def rows(self, name: str) -> list[Mapping[str, Any]]:
        """All rows of a small table, free of charge; [] where there is none."""
        try:
            return list(self.call(self.client.list_rows, self.table(name)))
        except exceptions.NotFound:
            return []

    def query(self, sql: str, parameters: Iterable[bigquery.ScalarQueryParameter] = ()) -> list[Mapping[str, Any]]:
        job = self.submit_query(sql, parameters)
        return list(job.result(retry=self.retry, job_retry=None, timeout=_QUERY_SECONDS))

    def submit_query(
        self,
        sql: str,
        parameters: Iterable[bigquery.ScalarQueryParameter] = (),
        *,
        job_id: str | None = None,
        **more: Any,
    ) -> bigquery.QueryJob:
        """Begin a query. It is repeated here, if at all: never by the client under another id."""
        config = bigquery.QueryJobConfig(
            query_parameters=list(parameters), maximum_bytes_billed=self.options.maximum_bytes_billed, **more
        )
        return self.call(
            self.client.query, sql, job_config=config, job_id=job_id, location=self.location, job_retry=None
        )

    # -- jobs ------------------------------------------------------------------------------------

    def run_once(
        self,
        name: str,
        submit: Callable[[str], Any],
        is_still_so: Callable[[], bool],
        on_job: Callable[[str], None] = lambda page: None,
    ) -> Any:
        """Run a job at most once for all callers of the same ``name`` and return it when it has succeeded.

        The job may be there already: running, it is waited for; done, its result is taken if ``is_still_so`` (someone
        may have emptied the table since); failed before this call, the cause may be gone, so the next id is tried.
        ``on_job`` is called with the web page of each job.
        """
        failures = 0
        for attempt in range(_ATTEMPTS):
            job_id = f"{name}-{attempt}"
            try:
                job = submit(job_id)
                was_done = False
            except exceptions.Conflict:
                try:
                    job = self._known_job(job_id)
                except exceptions.NotFound:
                    continue  # BigQuery forgets jobs after half a year, but never their ids
                was_done = job.state == "DONE"
            on_job(
                f"https://console.cloud.google.com/bigquery?project={job.project}"
                f"&j=bq:{job.location or self.options.location}:{job.job_id}&page=queryresults"
            )
            self._wait(job)
            if job.error_result is None:
                if was_done and not is_still_so():
                    continue
                return job
            if was_done:
                continue
            error = job_failure(job)
            failures += 1
            if not is_passing(error) or failures == _FAILURES:
                raise error
            pause(REQUESTS.within(self._patience), failures + 1)
        raise WarehouseError(
            f"{self.label}: job {name} failed {_ATTEMPTS} times; see it in the job history of BigQuery"
        )

    def _known_job(self, job_id: str) -> Any:
        """A job that exists; for a moment after its creation BigQuery may answer 404 all the same."""
        retry = Retry(
            predicate=lambda error: isinstance(error, exceptions.NotFound) or is_passing(error),
            initial=REQUESTS.backoff,
            timeout=min(20.0, self._patience),
        )
        try:
            return self.client.get_job(job_id, location=self.location, retry=retry, timeout=_timeout())
        except exceptions.RetryError as error:
            raise error.cause or error from None

    def _wait(self, job: Any) -> None:
        deadline = time.monotonic() + _JOB_SECONDS
        delay = 0.1
        while not self.call(job.done):
            if time.monotonic() > deadline:
                raise WarehouseUnavailable(
                    f"{self.label}: job {job.job_id} is still running; the next run waits for it"
                )
            time.sleep(delay)
            delay = min(delay * 1.5, 5.0)


class _Retry(Retry):
    """Google's, for answers that may drip: while somebody waits, each is given up in time, however many bytes come."""

    def __call__(self, func: Any, on_error: Any = None) -> Any:
        return super().__call__(time_limits.within(remote.for_server(float("inf")), func), on_error)


def _timeout() -> float:
    """Seconds to connect, and to wait for the answer to a request."""
    return remote.for_server(_REQUEST_SECONDS)


def quote(name: str) -> str:
    return f"`{name}`"


def digest(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:24]

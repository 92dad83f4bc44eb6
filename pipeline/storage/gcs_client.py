"""The client of Google Cloud Storage: one per process, which errors are retried, and what each error means.

The text of the client's own errors is never shown: it holds addresses of upload sessions, as good as a key.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Callable
from typing import Any

import requests
import urllib3
from google.api_core.exceptions import GoogleAPICallError
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import DefaultCredentialsError, GoogleAuthError, InvalidOperation, TransportError
from google.cloud import storage  # type: ignore[attr-defined]
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse

from .. import remote, time_limits, waiting
from ..errors import ConflictError, LakeError, MissingBucket, PipelineError, StorageUnavailable
from ..retry import REQUESTS, retrying

LOGGER = logging.getLogger("pipeline")

#: Everything that a call of the client may raise on purpose; anything else is a bug and keeps its traceback.
CLIENT_ERRORS = (
    GoogleAPICallError,
    GoogleAuthError,
    InvalidResponse,
    DataCorruption,
    urllib3.exceptions.HTTPError,
    requests.RequestException,
    ConnectionError,
)

#: Names another server than Google's; the client reads it too.
EMULATOR = "STORAGE_EMULATOR_HOST"

_ENDPOINT = "https://storage.googleapis.com"

_TRANSIENT_STATUS = {408, 429, 500, 502, 503, 504}


@functools.lru_cache(maxsize=8)
def client_of(process: int, emulator: str | None) -> storage.Client:
    """One client per process: a connection that was open before a fork must not be used on both sides."""
    if emulator:
        return storage.Client(
            project="emulator",
            credentials=AnonymousCredentials(),
            client_options={"api_endpoint": emulator},
        )
    try:
        return storage.Client(project=None)  # that of the credentials is not needed
    except remote.NO_KEY_FILE as error:
        raise LakeError(remote.unusable_key_file(error)) from None


def patient(seconds: float, limit: float = float("inf")) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A retry policy for the ``retry`` argument of the client's calls, which waits as long as the service asks for.

    It wraps one request, not one upload: ``seconds`` is how long nothing may move, however slow the line is. A request
    that is not answered whole within ``limit`` seconds, however much it drips, has no answer.
    """

    def wrap(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def repeated(*args: Any, **kwargs: Any) -> Any:
            def words(error: BaseException | None, pause: float, since: float) -> str:
                LOGGER.debug("Cloud Storage: %s, trying again in %.1f s", what(error), pause)
                whom = f"Cloud Storage at {_address(error)} ({what(error)})"
                return f"waits for {whom}, for at most {seconds:g} s" if since + pause >= waiting.SAID_AFTER else ""

            return retrying(
                functools.partial(time_limits.within(limit, call), *args, **kwargs),
                REQUESTS.within(seconds),
                is_transient=is_transient,
                asked_for=_asked_wait,
                words=words,
            )

        return repeated

    return wrap


def explained(error: Exception, where: str, bucket: str, permission: str) -> PipelineError:
    """One line for what a call raised. ``permission`` is what the call needs on ``bucket``."""
    status = status_of(error)
    if isinstance(error, DefaultCredentialsError) and not isinstance(error, InvalidOperation):
        return LakeError(
            f"{where}: no usable Google credentials; set GOOGLE_APPLICATION_CREDENTIALS to a readable key file, "
            "or run `gcloud auth application-default login`"
        )
    if is_transient(error) or isinstance(error, DataCorruption | TransportError):
        return StorageUnavailable(
            f"{where}: no answer from {_address(error)} ({what(error)}); {remote.remedy(EMULATOR)}",
            retry_after=_asked_wait(error),
        )
    if status == 401 or isinstance(error, GoogleAuthError):
        return LakeError(
            f"{where}: Google does not accept the credentials ({what(error)}); "
            "renew the key that GOOGLE_APPLICATION_CREDENTIALS names, or log in again"
        )
    said = _said(error)
    if status == 403:
        named = re.search(r"storage\.\w+\.\w+", said)
        permission = named[0] if named else permission
        role = "roles/storage.admin" if permission == "storage.buckets.create" else "roles/storage.objectUser"
        return LakeError(f"{where}: the service account needs {permission} on {bucket}; grant it {role}")
    if status == 404:
        return MissingBucket(
            f"{where}: the bucket {bucket} does not exist; "
            "make it with `python -m pipeline doctor --create`, or correct the URL"
        )
    if status == 412:
        return ConflictError(f"{where} was changed by another process meanwhile; try again")
    reason = f"{what(error)}: {said}" if said else what(error)
    return LakeError(f"{where}: the service refuses ({reason}); correct the URL or the bucket's settings")


def _response(error: BaseException | None) -> Any:
    return getattr(error, "response", None)


def status_of(error: BaseException | None) -> int | None:
    if isinstance(error, GoogleAPICallError):
        return int(error.code) if error.code else None
    return getattr(_response(error), "status_code", None)


def is_transient(error: BaseException | None) -> bool:
    if isinstance(error, TransportError):
        return not error.args or not isinstance(error.args[0], BaseException) or is_transient(error.args[0])
    if isinstance(error, GoogleAPICallError | InvalidResponse) and not isinstance(error, DataCorruption):
        return status_of(error) in _TRANSIENT_STATUS
    # ConnectionError, time-outs and cut answers, by whichever layer noticed; not a bad URL or too many redirects.
    return isinstance(
        error,
        ConnectionError
        | requests.ConnectionError
        | requests.Timeout
        | requests.exceptions.ChunkedEncodingError
        | urllib3.exceptions.HTTPError,
    )


def is_bucket_missing(error: BaseException) -> bool:
    return status_of(error) == 404 and "bucket does not exist" in _said(error)


def _said(error: BaseException) -> str:
    """The service's own words, without the address, which may hold an upload session; "" if there are none."""
    try:
        message = _response(error).json()["error"]["message"]
    except (AttributeError, KeyError, TypeError, ValueError):
        return ""
    return " ".join(str(message).split())[:200]


def what(error: BaseException | None) -> str:
    """Status or class of an error: its text may hold addresses of upload sessions, which are as good as a key."""
    status = status_of(error)
    return f"HTTP {status}" if status else type(error).__name__


def _address(error: BaseException | None) -> str:
    return remote.address_of(error, os.environ.get(EMULATOR) or _ENDPOINT)


def _asked_wait(error: BaseException | None) -> float | None:
    """Seconds of the Retry-After header; None where there is none."""
    return remote.seconds_asked_for(getattr(_response(error), "headers", None) or {})

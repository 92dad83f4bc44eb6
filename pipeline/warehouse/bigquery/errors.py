"""What BigQuery's answers and Google's exceptions mean: which class of ours each becomes, in one line without secrets.

The class depends on the ``reason`` of the API and the HTTP status, never on the text of a message.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import requests
from google.api_core import exceptions
from google.auth import exceptions as auth
from google.resumable_media import DataCorruption

from ... import remote
from ...errors import PipelineError, WarehouseError, WarehouseUnavailable

#: Names another server than Google's; the client reads it too.
EMULATOR = "BIGQUERY_EMULATOR_HOST"

_ENDPOINT = "https://bigquery.googleapis.com"

#: Reasons of the API that pass by themselves; the HTTP codes 408, 429 and 5xx do too.
_PASSING = (
    "rateLimitExceeded",
    "quotaExceeded",
    "backendError",
    "internalError",
    "badGateway",
    "jobBackendError",
    "jobInternalError",
    "jobRateLimitExceeded",
    "tableUnavailable",
    "timeout",
    "stopped",
)
ROLES = "it needs roles/bigquery.dataEditor on the dataset and roles/bigquery.jobUser on the project"

#: What a refusal says -> what to do about it.
_REMEDIES = {
    "different location": "use a bucket and a dataset in the same place; [warehouse] location names that of a new one",
}

_CONNECTION = (
    ConnectionError,
    TimeoutError,
    requests.exceptions.ConnectionError,
    requests.exceptions.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    auth.TransportError,
    DataCorruption,
)


def translate(error: Exception, where: str) -> PipelineError | None:
    """The pipeline's error for one of Google's, or None for one that is a fault of ours. One line, without secrets."""
    if isinstance(error, exceptions.RetryError):
        cause = error.cause
        if isinstance(cause, Exception):
            return translate(cause, where)
        return WarehouseUnavailable(f"{where}: BigQuery gave no usable answer in time; run again later")
    if isinstance(error, exceptions.GoogleAPICallError):
        return _translate_answer(error, where)
    if isinstance(error, _CONNECTION):
        # The text of these holds addresses, which may hold an upload's session; the class says enough.
        return WarehouseUnavailable(
            f"{where}: no answer from {address(error)} ({what(error)}); {remote.remedy(EMULATOR)}"
        )
    if isinstance(error, auth.GoogleAuthError):
        if getattr(error, "retryable", False):
            return WarehouseUnavailable(
                f"{where}: no answer from Google's login ({type(error).__name__}); run again later"
            )
        return WarehouseError(
            f"{where}: no usable Google credentials ({type(error).__name__}); set GOOGLE_APPLICATION_CREDENTIALS to a "
            f"service account's key file or run gcloud auth application-default login"
        )
    if isinstance(error, OSError):
        reason = f"{error.strerror}: {error.filename}" if error.strerror else type(error).__name__
        return WarehouseError(f"{where}: {reason}; check that the lake's file can be read")
    return None


def _translate_answer(error: exceptions.GoogleAPICallError, where: str) -> PipelineError:
    text = text_of(error)
    if is_passing(error):
        return WarehouseUnavailable(
            f"{where}: BigQuery is overloaded or limits requests: {text}; run again later", _retry_after(error)
        )
    if error.code == 401:
        return WarehouseError(f"{where}: BigQuery does not accept the credentials: {text}; check the service account")
    if error.code == 403:
        if _reason(error) in ("accessDenied", ""):
            return WarehouseError(f"{where}: the service account may not do this: {text}; {ROLES}")
        return WarehouseError(f"{where}: BigQuery refuses: {text}")
    if _reason(error) == "bytesBilledLimitExceeded":
        return WarehouseError(f"{where}: {text}; raise [warehouse] maximum_bytes_billed")
    if error.code == 404:
        return WarehouseError(f"{where}: not found: {text}; check project, dataset and bucket")
    remedy = next((f"; {remedy}" for said, remedy in _REMEDIES.items() if said in text), "")
    return WarehouseError(f"{where}: BigQuery refuses: {text}{remedy}")


def job_failure(job: Any) -> exceptions.GoogleAPICallError:
    """Why a job failed, with the reasons that only the job knows."""
    result: Mapping[str, Any] = job.error_result
    code = getattr(job.exception(), "code", None) or 500
    return exceptions.from_http_status(code, result.get("message") or "", errors=[result, *(job.errors or [])])


def address(error: BaseException) -> str:
    """The address that a failed request went to, without its path and query."""
    return remote.address_of(error, os.environ.get(EMULATOR) or _ENDPOINT)


def what(error: BaseException) -> str:
    """Reason, status or class of an error."""
    return _reason(error) or (f"HTTP {code}" if (code := getattr(error, "code", None)) else type(error).__name__)


def _reason(error: BaseException) -> str:
    errors = getattr(error, "errors", None) or []
    first = errors[0] if errors else None
    return str(first.get("reason") or "") if isinstance(first, Mapping) else ""


def is_passing(error: BaseException) -> bool:
    if isinstance(error, _CONNECTION):
        return not isinstance(error, requests.exceptions.SSLError)
    if not isinstance(error, exceptions.GoogleAPICallError):
        return False
    if _reason(error) in _PASSING:
        return True
    return error.code in (408, 429) or (error.code is not None and error.code >= 500 and error.code != 501)


def is_retried(error: BaseException) -> bool:
    """Whether a request is repeated at once. A quota of the day is not: it takes longer than anyone waits."""
    return is_passing(error) and _reason(error) not in ("quotaExceeded", "stopped")


def _retry_after(error: exceptions.GoogleAPICallError) -> float | None:
    return remote.seconds_asked_for(getattr(error.response, "headers", None) or {})


_SECRETS = re.compile(
    r"(?i)\bbearer\s+\S+|\bya29\.\S+|-----BEGIN[^\n]*|"
    r"\b(?:[\w-]*(?:token|signature|secret|password|credential|upload_id)|key)[\"']?\s*[=:]\s*\S+"
)


def text_of(error: exceptions.GoogleAPICallError) -> str:
    """What the service says, as one short line: the first error that names a cause, without addresses and secrets."""
    errors = getattr(error, "errors", None) or []
    texts = [str(each["message"]) for each in errors if isinstance(each, Mapping) and each.get("message")]
    # A failed load says first that it failed ("Error while reading data, ...") and then why, if at all.
    text = next((each for each in texts if " error message: " in each), texts[0] if texts else error.message) or ""
    text = re.sub(r"^(?:GET|POST|PUT|PATCH|DELETE) \S+: ", "", text.strip())
    text = " ".join(text.splitlines()[:1])
    text = re.sub(r"(https?://[^\s?]+)\?\S+", r"\1", text)
    text = _SECRETS.sub("[hidden]", text)
    return (text[:400] or f"HTTP {error.code}").rstrip(". ")

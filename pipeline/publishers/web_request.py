"""One request to a publisher on the web: each failure of the HTTP client becomes an error without credentials."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping

import requests
import urllib3

from .. import http_client
from ..errors import NoAnswer, RefusedByPublisher, UsageError
from ..http_client import Answer
from ..retry import Policy

#: Seconds for an answer, above which it counts against the patience although it came.
SLOW = 2.0

USER_AGENT = "nyc-trips-pipeline (Luigi pipeline for the NYC TLC trip records)"


def request_of_publisher(
    method: str, url: str, address: str, policy: Policy, headers: Mapping[str, str], whom: str = ""
) -> Answer:
    """The answer to one request, whatever its status; the body is not read yet. The caller closes the answer.

    ``address`` is ``url`` without credentials. A long wait for ``whom`` is said. Proxies and certificates as in
    ``requests``. Raises ``NoAnswer`` where none comes in time, ``RefusedByPublisher`` where none can come, never with
    the text of the library, which repeats the address with its credentials.
    """
    limit = min(policy.timeout, policy.left())
    limit = round(limit, 1 if limit > 1 else 2)
    if limit <= 0:
        raise NoAnswer(f"{address}: no answer within {policy.patience:g} s; try again later")
    # Identity: lengths and bytes are those of the file, never of a compression on the way.
    sent = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **headers}
    begun = time.monotonic()
    has_failed = True
    try:
        answer = http_client.send(method, url, sent, limit, whom)
        has_failed = False
        return answer
    except (TimeoutError, requests.Timeout):
        raise NoAnswer(f"{address}: no answer within {limit:g} s; try again later") from None
    except http_client.WrongRedirect as error:
        raise RefusedByPublisher(f"{address} {error}; check [publisher] url") from None
    except (
        requests.exceptions.InvalidURL,
        requests.exceptions.InvalidSchema,
        urllib3.exceptions.LocationValueError,
        UnicodeError,
    ):
        raise UsageError(
            f"{address} is no address that can be asked; check [publisher] url{_and_proxy(address)}"
        ) from None
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            text = "its certificate cannot be verified; name the authority's file in REQUESTS_CA_BUNDLE"
            raise RefusedByPublisher(f"{address}: {text}") from None
        raise NoAnswer(f"{address}: the TLS connection failed; try again later") from None
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        _check_authorities()
        raise NoAnswer(f"{address}: {_root_cause(error)}; check the network, or try again later") from None
    finally:
        policy.spent.add(begun + (0.0 if has_failed else SLOW), time.monotonic())


def _and_proxy(address: str) -> str:
    """What else to check about an address that requests cannot ask."""
    return ", and the proxy that the environment names" if requests.utils.get_environ_proxies(address) else ""


def _check_authorities() -> None:
    """Raise UsageError if the environment names a file of certificates that is not there."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if (path := os.environ.get(name)) and not os.path.exists(path):
            raise UsageError(f"environment variable {name}: there is no file {path}; correct it, or unset it") from None


def _root_cause(error: BaseException) -> str:
    """What the operating system said, or else the class of the innermost error: neither repeats the address."""
    seen: list[BaseException] = [error]
    for link in seen:
        inner = [link.__cause__, link.__context__, getattr(link, "reason", None), *link.args]
        seen.extend(item for item in inner if isinstance(item, BaseException) and item not in seen)
    said = [item.strerror for item in seen if isinstance(item, OSError) and isinstance(item.strerror, str)]
    return f"connection failed ({said[-1] if said else type(seen[-1]).__name__})"

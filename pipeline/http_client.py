"""HTTP client: one request within one time limit for all of it, redirects included. For publishers and luigid.

The time-outs of ``requests`` count for each read from a connection and for each address of a name. A server that sends
a byte now and then outlasts them, and so do redirects. Here one limit counts for the whole request: looking up the
name, connecting, TLS, every redirect and all headers. A body has a lowest rate instead.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter

from . import time_limits, waiting

#: Redirects that one request follows.
MOST_REDIRECTS = 10

#: Seconds for one address of a name to accept a connection.
CONNECT = 30.0

#: Seconds between two checks of a body that does not arrive.
WATCH_INTERVAL = 1.0


class WrongRedirect(Exception):
    """A redirect that is not followed. The text says why and names no address, which may hold credentials."""


#: All that ``send`` raises where there is no answer.
NO_ANSWER = (TimeoutError, WrongRedirect, requests.RequestException, urllib3.exceptions.HTTPError)


class TooSlow(Exception):
    """A body came more slowly than its lowest rate. ``rate`` in bytes per second."""

    def __init__(self, rate: float) -> None:
        super().__init__(f"{rate:.0f} bytes per second")
        self.rate = rate


class Silent(Exception):
    """Nothing of a body came within the limit."""


class _Adapter(HTTPAdapter):
    """The connections of one request, which another thread may cut."""

    def __init__(self) -> None:
        self.is_cut = False
        self._sockets: list[socket.socket] = []
        super().__init__()

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        adapter, plain = self, pool.ConnectionCls

        class Connection(plain):  # type: ignore[misc, valid-type]
            """Tells the adapter of each socket as soon as there is one: before TLS, which may drip too."""

            def __setattr__(self, name: str, value: Any) -> None:
                super().__setattr__(name, value)
                if name == "sock" and value is not None:
                    adapter.add(value)

        pool.ConnectionCls = Connection
        return pool

    def add(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        if self.is_cut:
            self.cut()

    def cut(self) -> None:
        """End every read that is under way, in whichever thread."""
        self.is_cut = True
        for connected in list(self._sockets):
            with suppress(OSError, TypeError):  # closed before; TLS within TLS, which is no socket
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Session(requests.Session):
    """Sees no redirects. requests would read their bodies to the end, even if it does not follow them."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        return None


class Answer:
    """Status and headers of an answer, and its body, to be read piece by piece. Closed at the end of ``with``."""

    def __init__(self, response: requests.Response, adapter: _Adapter, limit: float, whom: str) -> None:
        self.status_code = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._adapter = adapter
        self._limit = limit
        self._whom = whom
        self._is_told = False  # that nothing arrives
        self._until: float | None = None  # when the read that is under way counts as silent
        self._is_silent = False
        self._over = threading.Event()
        self._watch: threading.Thread | None = None
        self._seconds, self._bytes = 0.0, 0  # of the window over which the rate is averaged

    def __enter__(self) -> Answer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._end_told_wait()
        self._response.close()
        self._adapter.close()

    def read(self, size: int, least_rate: float) -> bytes:
        """The next bytes of the body as sent, at most ``size``; none at its end.

        Raises ``Silent`` if none come within the limit of the request, ``TooSlow`` if fewer than ``least_rate`` bytes
        per second came within such a time, and else what urllib3 raises. What the caller does between two reads does
        not count.
        """
        if self._watch is None:
            self._watch = threading.Thread(target=self._keep_watch, name="watch a transfer", daemon=True)
            self._watch.start()
        begun = time.monotonic()
        self._until = begun + self._limit
        try:
            data: bytes = self._response.raw.read1(size, decode_content=False)
        except urllib3.exceptions.ReadTimeoutError:
            raise Silent from None
        except (urllib3.exceptions.HTTPError, OSError):
            if self._is_silent:
                raise Silent from None
            raise
        finally:
            self._until = None
        if self._is_told:
            self._end_told_wait()
        if self._is_silent:
            raise Silent
        self._seconds += time.monotonic() - begun
        self._bytes += len(data)
        if data and self._seconds >= self._limit:
            if self._bytes < least_rate * self._seconds:
                raise TooSlow(self._bytes / self._seconds)
            self._seconds, self._bytes = 0.0, 0
        return data

    def _keep_watch(self) -> None:
        """Cut a read that does not return because what drips is no part of the file, such as the length of a chunk."""
        while not self._over.wait(min(WATCH_INTERVAL, self._limit / 4)):
            until = self._until
            if until is None:
                continue
            left = until - time.monotonic()
            if left < 0:
                self._is_silent = True
                self._adapter.cut()
                return
            if self._whom and not self._is_told and self._limit - left >= waiting.SAID_AFTER:
                self._is_told = waiting.say(f"waits for {self._whom} to go on, for at most {self._limit:g} s")

    def _end_told_wait(self) -> None:
        if self._is_told:
            self._is_told = False
            waiting.say("")


def send(method: str, url: str, headers: Mapping[str, str], limit: float, whom: str = "") -> Answer:
    """The answer to one request, redirects followed, within ``limit`` seconds in all, whatever the server does.

    After some seconds of waiting for ``whom``, that is said. Raises ``NO_ANSWER``, where texts of requests and
    urllib3 hold the address.
    """
    adapter = _Adapter()
    session = _Session()  # for this request alone: its cookies are nobody else's
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    try:
        response = time_limits.answer_of(lambda: _follow(session, adapter, method, url, headers, limit), limit, whom)
    except BaseException:  # Ctrl-C included
        adapter.cut()
        session.close()
        raise
    return Answer(response, adapter, limit, whom)


def _follow(
    session: _Session, adapter: _Adapter, method: str, url: str, headers: Mapping[str, str], limit: float
) -> requests.Response:
    login = None
    for hop in range(MOST_REDIRECTS + 1):
        try:
            response = session.request(
                method,
                url,
                headers=dict(headers),
                auth=login,
                timeout=(min(limit, CONNECT), limit),
                stream=True,
                allow_redirects=False,
            )
        except (ValueError, urllib3.exceptions.LocationValueError):
            if not hop:
                raise
            raise WrongRedirect("redirects to what is no address") from None
        if adapter.is_cut:
            response.close()
            raise TimeoutError
        if not response.is_redirect:
            return response
        response.close()
        url, login = _redirected(session, url, response)
    raise WrongRedirect("redirects in a circle")


def _redirected(session: _Session, url: str, response: requests.Response) -> tuple[str, Any]:
    """Where a redirect leads to, and the login that goes there: that of ``url``, if it is the same server."""
    try:
        there = urljoin(url, super(_Session, session).get_redirect_target(response) or "")
        scheme = urlsplit(there).scheme
        secret = requests.utils.get_auth_from_url(url)
        strips = session.should_strip_auth(url, there)
    except ValueError:
        raise WrongRedirect("redirects to what is no address") from None
    if scheme not in ("http", "https"):
        raise WrongRedirect("redirects to what is no web address")
    if scheme == "http" and urlsplit(url).scheme == "https":
        raise WrongRedirect("redirects from https: to http:, where anybody could change the file")
    return there, None if strips or not any(secret) else secret

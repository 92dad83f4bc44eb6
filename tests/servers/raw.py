"""A server of plain sockets for tests: says exactly the bytes that a function gives it, as fast as that likes.

    def drip(request: bytes, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\\r\\n")
        ...

    with RawServer(drip) as server:
        publishers.get("tlc", server.url)

For what ``HttpServer`` is too well-behaved to do.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

Behaviour = Callable[[bytes, socket.socket], None]


class RawServer:
    """Calls ``behaviour`` with each request, up to its empty line, and the connection, in a thread of its own.

    One request per connection; ``released`` is set at the end of the ``with`` block, for those that wait.
    """

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        self.released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> RawServer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.released.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Base address, without a slash at its end."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def pause(self, seconds: float) -> None:
        """Wait, or no longer when the test is over: then the connection counts as closed."""
        if self.released.wait(seconds):
            raise BrokenPipeError

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            request = b""
            while b"\r\n\r\n" not in request:
                piece = connection.recv(1 << 16)
                if not piece:
                    return
                request += piece
            self.requests.append(request)
            self.behaviour(request, connection)

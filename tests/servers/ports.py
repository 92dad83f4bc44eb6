"""Ports for servers of other programs, which cannot be told to take any free one and to say which."""

from __future__ import annotations

import socket


def free_port(host: str = "127.0.0.1") -> int:
    """A port that the kernel gives to nobody else for a minute, while a server may still listen on it.

    A connection that was closed on our side leaves the port in the state TIME_WAIT. A port that was only bound and
    released could be given to another process before the server is there.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, 0))
        listener.listen(1)
        address = listener.getsockname()
        with socket.create_connection(address) as client:
            accepted, _ = listener.accept()
            accepted.close()  # first, so that the side with this port is the one that waits
            client.recv(1)
    return int(address[1])

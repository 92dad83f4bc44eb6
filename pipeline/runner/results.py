"""Results of tasks in worker processes: one pipe per process instead of Luigi's queue.

Luigi's queue has a lock that all processes share. If a process is killed while it holds the lock, the run waits
forever.
"""

from __future__ import annotations

import os
import pickle
import queue
import struct
from collections import deque
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

#: Task id, status, explanation, missing dependencies, new dependencies.
Result = tuple[Any, ...]

_LENGTH = struct.Struct("!Q")

#: Bytes per read.
_BLOCK = 1 << 16


class Sender:
    """The writing end of a pipe, which the process of a task has in place of Luigi's queue."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def put(self, result: Result) -> None:
        try:
            data = pickle.dumps(result)
        except Exception as error:  # of somebody's task
            data = pickle.dumps((result[0], "FAILED", f"its result cannot be sent: {error}", [], []))
        data = _LENGTH.pack(len(data)) + data
        with suppress(BrokenPipeError):  # the run has ended
            while data:
                data = data[os.write(self._connection.fileno(), data) :]

    def close(self) -> None:
        self._connection.close()


class _Receiver:
    """The reading end. It never waits for the rest of a result: the sender may be dead."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_open = True
        self._data = b""
        os.set_blocking(connection.fileno(), False)

    def result(self) -> Result | None:
        try:
            while block := os.read(self.connection.fileno(), _BLOCK):
                self._data += block
            self.is_open = False
        except BlockingIOError:
            pass
        if len(self._data) < _LENGTH.size:
            return None
        end = _LENGTH.size + _LENGTH.unpack_from(self._data)[0]
        return None if len(self._data) < end else tuple(pickle.loads(self._data[_LENGTH.size : end]))


class Results:
    """In place of the ``multiprocessing.Queue`` of Luigi's worker. Each run of a task has one result: the first."""

    def __init__(self) -> None:
        self._receivers: dict[str, _Receiver] = {}
        self._ready: deque[Result] = deque()

    def sender(self, task_id: str) -> Sender:
        """The writing end for a new process of the task. The result of an earlier process is dropped."""
        self._forget(task_id)
        reader, writer = Pipe(duplex=False)
        self._receivers[task_id] = _Receiver(reader)
        return Sender(writer)

    def put(self, result: Result) -> None:
        """Add a result found in this process, unless the process of the task has sent its own."""
        self._collect()
        if result[0] not in {ready[0] for ready in self._ready}:
            self._ready.append(result)

    def get(self, block: bool = True, timeout: float | None = None) -> Result:
        """The next result. Raises queue.Empty if there is none, after ``timeout`` seconds or when a process ends."""
        if not self._ready:
            wait([receiver.connection for receiver in self._receivers.values() if receiver.is_open], timeout)
        self._collect()
        if not self._ready:
            raise queue.Empty
        result = self._ready.popleft()
        self._forget(result[0])
        return result

    def _collect(self) -> None:
        told = {ready[0] for ready in self._ready}
        for task_id, receiver in self._receivers.items():
            if task_id not in told and receiver.is_open and (result := receiver.result()):
                self._ready.append(result)

    def _forget(self, task_id: str) -> None:
        if receiver := self._receivers.pop(task_id, None):
            receiver.connection.close()

    def close(self) -> None:
        for task_id in list(self._receivers):
            self._forget(task_id)

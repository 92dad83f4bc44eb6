"""Standard streams that never raise: output that cannot be written is dropped, and the run goes on.

A reader that is gone, a full disk, a closed descriptor or a terminal that went away would raise an error in whatever
prints next, and once more when Python ends. A stream of this module drops what it cannot write, and remembers why.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO

#: Seconds to wait for a reader that takes nothing, where the pipe does not block.
STALLED = 2.0


#: The writer of each descriptor and the file behind it, so that a stalled reader is waited for once.
_known: dict[tuple[int, int, int], _Descriptor] = {}


class _Descriptor(io.RawIOBase):
    """Writes to a descriptor. ``error`` is the first one that occurred."""

    def __init__(self, name: str, descriptor: int) -> None:
        self.name = name
        self.mode = "wb"
        self.error: OSError | None = None
        self._descriptor = descriptor
        self._left_to_wait = STALLED

    def close(self) -> None:
        """Nothing: the descriptor belongs to the process, and several streams may share it."""

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        left = memoryview(data).cast("B")
        size = len(left)
        while len(left) and not self._is_gone:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError as error:
                if not self._is_read():
                    self.error = self.error or error
                    break
            except OSError as error:
                self.error = self.error or error
                break
        return size

    @property
    def _is_gone(self) -> bool:
        """Whether nobody will ever read it; a disk may have room again."""
        return self.error is not None and self.error.errno in (errno.EPIPE, errno.EBADF, errno.EIO)

    def _is_read(self) -> bool:
        """Whether a pipe that does not wait by itself has room again, after a while. A reader has one such while."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        began = time.monotonic()
        if poll.poll(self._left_to_wait * 1000):
            self._left_to_wait = STALLED
            return True
        self._left_to_wait = max(0.0, self._left_to_wait - (time.monotonic() - began))
        return False


class _Stream(io.TextIOWrapper):
    """Text on a ``_Descriptor``; characters that its encoding lacks are replaced."""

    def __init__(self, stream: TextIO, raw: _Descriptor) -> None:
        self.raw = raw
        errors = "replace" if stream.errors in (None, "strict") else stream.errors
        is_unbuffered = isinstance(getattr(stream, "buffer", None), io.RawIOBase)  # python -u
        super().__init__(
            self.raw if is_unbuffered else io.BufferedWriter(self.raw),  # type: ignore[type-var]
            stream.encoding or "utf-8",
            errors,
            "\n",
            line_buffering=bool(getattr(stream, "line_buffering", False)),
            write_through=is_unbuffered,
        )


def _protected(stream: TextIO | None) -> TextIO | None:
    """The stream that takes the place of ``stream``; itself if it belongs to no descriptor, as in a notebook."""
    if stream is None or isinstance(stream, _Stream):
        return stream
    try:
        descriptor = stream.fileno()
        file = os.fstat(descriptor)
    except (OSError, ValueError, AttributeError):
        return stream
    with suppress(OSError, ValueError):
        stream.flush()  # what the program has printed before comes first
    key = descriptor, file.st_dev, file.st_ino
    if key not in _known:
        _known[key] = _Descriptor(str(getattr(stream, "name", descriptor)), descriptor)
    return _Stream(stream, _known[key])


def protect() -> None:
    """Make stdout and stderr of this process never raise. For commands and worker processes."""
    open_closed()
    sys.stdout, sys.stderr = _protected(sys.stdout), _protected(sys.stderr)


@contextmanager
def protected() -> Iterator[None]:
    """The same for a run within somebody's program, which then gets its own streams back."""
    before = sys.stdout, sys.stderr
    protect()
    try:
        yield
    finally:
        for name, stream in zip(("stdout", "stderr"), before, strict=True):
            if isinstance(ours := getattr(sys, name), _Stream) and ours is not stream:
                ours.flush()
                setattr(sys, name, stream)


def write_line(text: str, stream: TextIO | None) -> None:
    """Print a line at once on a stream, protected or not. What cannot be written is dropped, and stays in no buffer."""
    if stream is not None:
        with suppress(OSError, ValueError):
            print(text, file=_protected(stream), flush=True)


def error_of_stdout() -> OSError | None:
    """The error because of which not all was written to stdout; None also if its reader has closed it."""
    if not isinstance(sys.stdout, _Stream):
        return None
    sys.stdout.flush()
    error = sys.stdout.raw.error
    return None if error is None or error.errno == errno.EPIPE else error


def open_closed() -> None:
    """Open those of stdin, stdout and stderr that were closed: files opened later would take their places."""
    for descriptor, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != descriptor:  # not in the order of their numbers
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115 - as long as the process

"""Luigi's command as a child process: its lines are handed on, and the last one that names an error is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, NoReturn

from ..plain import plain

#: Seconds that a process gets to end itself, and for its last lines to arrive.
GRACE = 10.0

#: Characters of the last words that are kept.
LONGEST = 300


class Luigi:
    """``luigi --module pipeline WORDS`` in a process of its own, with this Python and without any input."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        tell: Callable[[str], object],
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it. ``tell`` gets every line that it prints, from a thread. Raises OSError if it cannot be started."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "luigi", "--module", "pipeline", *words],
            env={**environment, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            pass_fds=pass_fds,
        )
        #: What it said last that names an error, without ``error: ``.
        self.last_words = ""
        self._tell = tell
        # In a thread, because a process that luigi left behind may keep the pipe open.
        self._reader = threading.Thread(target=self._copy, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, negative if a signal has ended it; None if it goes on after ``seconds``."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(GRACE)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it if it is still there: as SIGTERM does, and if that takes too long, at once."""
        self.send(signal.SIGTERM)
        if self.wait(GRACE) is None:
            self.kill()

    @contextmanager
    def ended_with_us(self) -> Iterator[None]:
        """Within this context it ends when this process is told to. Its journal has no end then: the next run tells."""

        def stop(number: int, frame: FrameType | None) -> NoReturn:
            sys.exit(128 + number)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except KeyboardInterrupt:
            self.wait(GRACE)  # Ctrl-C reaches it too, and it has something to say
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            if self._process.poll() is None:
                self.stop()

    def _copy(self, output: IO[str]) -> None:
        with output:
            for line in output:
                text = plain(line.rstrip(), keep="\t")  # of somebody else's task it may hold anything
                self._tell(text)
                if text.startswith("error: ") or " ERROR " in text:
                    self.last_words = text.removeprefix("error: ").strip()[:LONGEST]


def how_ended(code: int) -> str:
    """``ended by SIGKILL``: of a process that a signal has ended."""
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"

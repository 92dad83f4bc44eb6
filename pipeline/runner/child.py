"""Luigi's command as a child process, for ``cron`` and agents: its output is forwarded, its last error line is kept."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import IO, NoReturn

from ..sanitize import printable

#: Seconds for a process to end itself, and for its last lines to arrive.
GRACE = 10.0

#: Characters of the last error line that are kept.
LONGEST = 300


class Luigi:
    """``luigi --module pipeline WORDS`` in a child process, with this Python and without input."""

    def __init__(
        self,
        words: Sequence[str],
        environment: Mapping[str, str],
        tell: Callable[[str], object],
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start it. A thread calls ``tell`` with every line of its output. Raises OSError if it cannot be started."""
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
        #: The last line of its output that is an error, without ``error: ``.
        self.last_words = ""
        self._tell = tell
        # In a thread, because a process that luigi leaves behind may keep the pipe open.
        self._reader = threading.Thread(target=self._copy, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def wait(self, seconds: float | None = None) -> int | None:
        """Its exit code, negative if a signal has ended it; None if it still runs after ``seconds``."""
        try:
            code = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(GRACE)
        return code

    def send(self, number: signal.Signals) -> None:
        """Send it a signal if it still runs."""
        if self._process.poll() is None:
            self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it by SIGTERM, and by SIGKILL if that takes too long."""
        self.send(signal.SIGTERM)
        if self.wait(GRACE) is None:
            self.kill()

    @contextmanager
    def ended_with_us(self) -> Iterator[None]:
        """Within this context SIGTERM ends it with this process. Its journal has no end then: the next run tells."""

        def stop(number: int, frame: FrameType | None) -> NoReturn:
            sys.exit(128 + number)

        before = signal.signal(signal.SIGTERM, stop)
        try:
            yield
        except KeyboardInterrupt:
            self.wait(GRACE)  # Ctrl-C reaches it too, and it prints its last lines
            raise
        finally:
            signal.signal(signal.SIGTERM, before)
            if self._process.poll() is None:
                self.stop()

    def _copy(self, output: IO[str]) -> None:
        with output:
            for line in output:
                text = printable(line.rstrip(), keep="\t")
                self._tell(text)
                if text.startswith("error: ") or " ERROR " in text:
                    self.last_words = text.removeprefix("error: ").strip()[:LONGEST]


def how_ended(code: int) -> str:
    """``ended by SIGKILL``, for the negative exit code of a process that a signal has ended."""
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended by signal {-code}"

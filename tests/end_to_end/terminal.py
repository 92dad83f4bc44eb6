"""A terminal of a given width in which the real command runs, and the text on its screen."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence

from ..patience import PATIENCE, wait_for
from .conftest import Project

_CONTROL = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")


class Terminal:
    """Runs one command with all its streams in a terminal; ``raw`` is what arrived there so far."""

    def __init__(self, project: Project, command: Sequence[str], width: int = 80, **environment: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        env = {name: value for name, value in project.env.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            cwd=project.folder,
            env={**env, "TERM": "xterm-256color", **environment},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            process_group=0,
        )
        os.close(slave)
        self.raw = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the last process that had it is gone
                return
            self.raw += data.decode(errors="replace")

    def wait_for(self, text: str) -> None:
        wait_for(lambda: text in self.raw, self.process, lambda: self.raw)

    def end(self) -> int:
        """Wait for the command; returns its exit code."""
        code = self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        os.close(self._master)
        return code

    @property
    def written(self) -> list[str]:
        """Every line that ever stood on the screen, without colours."""
        plain = re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", self.raw)
        return [line for line in re.split(r"[\r\n]+", plain) if line.strip()]

    @property
    def screen(self) -> list[str]:
        """What stands on the screen now, all lines that have scrolled away included."""
        lines, row, column = [""], 0, 0
        for piece in _CONTROL.finditer(self.raw):
            text, parameter, command = piece[0], piece[1], piece[2]
            if text == "\r":
                column = 0
            elif text == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif command == "A":
                row = max(0, row - int(parameter or 1))
            elif command == "K":
                lines[row] = "" if parameter == "2" else lines[row][:column]
            elif command is None:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
        return [line.rstrip() for line in lines]

"""Progress of a command on stderr: one line that is drawn again on a terminal, else a plain line now and then."""

import sys
import time
from collections.abc import Callable
from typing import TextIO

from storage.garbage.watch import Watcher

_REDRAW = 0.1
_PLAIN = 10.0
"""Seconds between two signs of life."""

_WIDTH = 24


class Progress(Watcher):
    """quiet: nothing at all. clock: seconds, for tests."""

    def __init__(
        self, *, quiet: bool = False, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._quiet = quiet
        self._drawn = False
        self._terminal = self._stream.isatty()
        self._clock = clock
        self._what, self._total, self._done, self._shown = "", 0, 0, 0.0
        self._text: Callable[[int], str] = str

    def phase(self, what: str, total: int | None = None, text: Callable[[int], str] = str) -> None:
        """text: how a number is written."""
        self.clear()
        self._text = text
        self._what, self._total, self._done, self._shown = what, total or 0, 0, self._clock()

    def step(self, count: int = 1) -> None:
        self._done += count
        if self._quiet or self._clock() - self._shown < (_REDRAW if self._terminal else _PLAIN):
            return
        self._shown = self._clock()
        if self._terminal:
            self._stream.write(f"\r\x1b[K{self._line()}")
            self._drawn = True
        else:
            self._stream.write(f"{self._what}: {self._numbers()}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Take the line away, before something else is printed or the command ends."""
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False

    def _line(self) -> str:
        if not self._total:
            return f"{self._what} {self._numbers()}"
        full = _WIDTH * min(self._done, self._total) // self._total
        return f"{self._what} [{'#' * full}{'.' * (_WIDTH - full)}] {self._numbers()}"

    def _numbers(self) -> str:
        done = self._text(self._done)
        return f"{done} of {self._text(self._total)}" if self._total else done

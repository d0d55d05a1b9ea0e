"""Who keeps us waiting: one timer a server, and the arithmetic of "too slow".

A timer for each connection would be set and cancelled with every request; instead all connections are looked at every
few seconds. Waiting for *us* never counts against a client.
"""

import asyncio
import logging
import math
from typing import Protocol

from registry.serving.limits import Limits

log = logging.getLogger(__name__)

_SAID_EACH = 60.0
"""Seconds; who is refused comes back every second."""


class Meter:
    """The bytes of one direction against the clock."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.since: float | None = None
        self.mark = 0

    def stalled(self, total: int, now: float, *, waiting: bool) -> bool:
        """total: bytes moved so far. True when we waited for stall_timeout and less than min_progress moved."""
        if not waiting or not self.limits.stall_timeout:
            self.since = None
        elif self.since is None or total - self.mark >= self.limits.min_progress:
            self.since, self.mark = now, total
        elif now - self.since > self.limits.stall_timeout:
            return True
        self.mark = min(self.mark, total)  # bytes are counted as sent before the kernel says that they wait
        return False


class Watched(Protocol):
    def check(self, now: float) -> None:
        """End the connection if its client has kept us waiting for too long."""

    def traffic(self) -> tuple[int, int]:
        """Bytes that have come from the client, and bytes that went to it."""


class Watch:
    """The open connections of a server.

    accepted: how many there have been.   refused: those of them above the limit.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, interval: float) -> None:
        self.loop, self.interval = loop, interval
        self.connections: set[Watched] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.accepted = self.refused = 0
        self._said, self._unsaid = -math.inf, 0
        self._received = self._sent = 0  # of connections that are closed
        self.empty = asyncio.Event()
        self.empty.set()

    def add(self, connection: Watched) -> None:
        self.connections.add(connection)
        self.accepted += 1
        self.empty.clear()
        if self.timer is None:
            self.timer = self.loop.call_later(self.interval, self.sweep)

    def remove(self, connection: Watched) -> None:
        self.connections.discard(connection)
        received, sent = connection.traffic()
        self._received += received
        self._sent += sent
        if not self.connections:
            self.empty.set()

    def refuse(self, limit: int) -> None:
        """Count a connection above the limit, and say so now and then."""
        self.refused += 1
        self._unsaid += 1
        if self.loop.time() - self._said >= _SAID_EACH:
            self._said = self.loop.time()
            log.warning(
                "too many connections: %d refused, as %d are open; raise limits.maxconnections, or add workers",
                self._unsaid,
                limit,
            )
            self._unsaid = 0

    def traffic(self) -> tuple[int, int]:
        """Bytes of all connections that there have been: received, sent."""
        received, sent = self._received, self._sent
        for connection in self.connections:
            more_received, more_sent = connection.traffic()
            received += more_received
            sent += more_sent
        return received, sent

    def sweep(self) -> None:
        now = self.loop.time()
        for connection in list(self.connections):
            connection.check(now)
        # Without connections there is nothing to look at, and nothing that keeps a stopped loop's timer alive.
        self.timer = self.loop.call_later(self.interval, self.sweep) if self.connections else None

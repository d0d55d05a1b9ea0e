"""What one client may take, and how long it may keep us waiting.

Times are seconds, sizes are bytes; a time of 0 means "for ever". `server.py` fills the fields that have a setting
(`limits.*`), docs/server.md lists them all.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Precedents: Apache and Go read 8 KiB and 1 MiB of head, nginx 32 KiB; nginx lingers 5 s, Apache 2 s."""

    head_timeout: float = 30.0
    """From the first byte of a head (or from the connect) to its end; a TLS handshake has the same time once more."""
    stall_timeout: float = 30.0
    min_rate: int = 1024
    """Bytes a second, averaged over stall_timeout, in whichever direction we wait for the client. 0: any rate."""
    keep_alive: float = 120.0
    """An idle connection. Longer than the other side's (Go clients 90 s, nginx 60 s), or it races our close."""
    max_connections: int = 4000
    reserve: int = 16
    """Connections above these that may ask whether the process lives; who asks for something else is refused."""
    max_head: int = 64 << 10
    """Request line and header fields; also chunk headers and trailers, which are as free of charge to send."""
    max_fields: int = 100
    max_pipelined: int = 64
    """Requests that wait on one connection: without a limit one read of 256 KiB would make 10,000 of them."""
    body_high_water: int = 2 << 20
    """Body bytes that wait for the application; above it the client is no longer read from."""
    discard_bytes: int = 1 << 20
    discard_timeout: float = 2.0
    """What is read and dropped behind an early answer, so that a reset does not destroy the answer on its way."""

    @property
    def min_progress(self) -> float:
        """Bytes that must move in every stall_timeout."""
        return self.min_rate * self.stall_timeout

    @property
    def sweep_interval(self) -> float:
        """How often clients are looked at: a twelfth of the shortest time, so that 30 s are at most 32.5 s."""
        times = [t for t in (self.head_timeout, self.stall_timeout, self.keep_alive) if t]
        return min(times, default=30.0) / 12

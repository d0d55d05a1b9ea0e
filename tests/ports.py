"""Ports for the servers that tests start: below those that the kernel hands out by itself (ip_local_port_range).

A server that a test kills finds its port again: no connection of another test was given it meanwhile.
"""

import random
import socket
from contextlib import ExitStack, suppress

_ANY = random.SystemRandom()


def free_port() -> int:
    """A port that nobody listens on now, on IPv4 and IPv6 alike (`localhost` is either)."""
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """Ports that are all free at one moment."""
    with ExitStack() as stack:
        found: list[int] = []
        while len(found) < count:
            port = _ANY.randrange(15_000, 32_000)
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
                found.append(port)
        return found

"""Waiting for what another thread or process does, and nobody tells."""

import threading
import time
from collections.abc import Callable

from tests.rawsocket import PATIENCE


def wait_until(fact: Callable[[], object], patience: float = PATIENCE) -> None:
    """patience: seconds after which the test fails."""
    deadline = time.monotonic() + patience
    while not fact():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)

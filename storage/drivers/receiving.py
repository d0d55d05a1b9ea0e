"""Appending to a stage from a socket: one thread receives, stores and hashes what has come, in one buffer.

This leaves out what a body costs in the event loop: some copies of it, and a hop for each megabyte. A thread is held
only while something is there to be stored, at most for one burst, so slow clients keep nobody waiting.
"""

from storage.direct import Inlet
from storage.driver import Tap
from storage.drivers.growing import GrowingFile
from storage.drivers.oserrors import translated
from storage.drivers.threads import Threads

_BURST = 4 << 20
"""Bytes after which a thread is free for another client."""


async def receive_all(inlet: Inlet, file: GrowingFile, offset: int, tap: Tap | None, threads: Threads) -> int:
    """Returns the new length of the stage. Raises what inlet.ready raises, with all stored that came before."""
    pieces = inlet.first
    while True:
        with translated(file.key):
            offset = await threads.run(_burst, inlet, pieces, file, offset, tap, threads)
        if not inlet.left:
            return offset
        pieces = []
        await inlet.ready()


def _burst(inlet: Inlet, pieces: list[bytes], file: GrowingFile, offset: int, tap: Tap | None, threads: Threads) -> int:
    if pieces:
        offset = file.write(pieces, offset, tap)
    buffer, end = threads.buffer(), offset + _BURST
    while offset < end and (size := inlet.receive(buffer)):
        offset = file.write([buffer[:size]], offset, tap)
    return offset

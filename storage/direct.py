"""Chunks that a thread may fetch from where they come, a socket, instead of getting them through the event loop.

Whoever consumes chunks may ask for this way (`DirectChunks`), and goes the usual one where there is none. A wrapper of
chunks that hides it costs speed and nothing else.
"""

from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable


class Inlet(Protocol):
    """Where the rest of some chunks comes in. One user at a time; nothing of it is used after its context."""

    first: list[bytes]
    """What has come already, to be taken before anything else."""

    left: int
    """Bytes that `receive` has still to give: nothing is missing at 0."""

    def receive(self, buffer: memoryview) -> int:
        """In a thread: move what is there into buffer. Returns the count; 0 when nothing is there now. Never waits."""

    async def ready(self) -> None:
        """In the event loop: wait until there is more. Raises what the chunks would raise when nothing more comes."""


@runtime_checkable
class DirectChunks(Protocol):
    """What an AsyncIterator of chunks is, too, when there is a direct way to them."""

    def take_over(self) -> AbstractContextManager[Inlet] | None:
        """The direct way to all chunks that have not been yielded; None where it is not worth while.

        Inside the context the iterator is not used; where it was left with bytes missing, the iterator goes on.
        """

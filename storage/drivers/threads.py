"""Threads in which a driver does what blocks. Nothing that was started here is left behind.

- A thread cannot be stopped: whoever is cancelled while work runs waits for its end, and is cancelled then. So a verb
  never goes on behind the back of a caller who believes it over, and no descriptor is closed under a running read.
- Work that still waits for a thread when its caller is cancelled is never begun, unless it gives something back.
"""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_BUFFER = 1 << 20


class Threads:
    """A pool of a driver's own; the loop's default pool belongs to name look-ups and to applications.

    size: threads at most, None for the cores and four more: most of them wait for a disk.
    """

    def __init__(self, name: str, size: int | None = None) -> None:
        self.pool = ThreadPoolExecutor(size or (os.cpu_count() or 1) + 4, thread_name_prefix=name)
        self._closed = False
        self._local = threading.local()

    def buffer(self) -> memoryview:
        """In a thread of the pool: one megabyte of scratch space, the same for all work that this thread does."""
        found: memoryview | None = getattr(self._local, "buffer", None)
        if found is None:
            found = self._local.buffer = memoryview(bytearray(_BUFFER))
        return found

    def start(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Begin work. The caller awaits `result` or `ended` before it lets go of what work uses."""
        return self.pool.submit(work, *args, **kwargs)

    async def result(self, future: Future[T], discard: Callable[[T], None] | None = None) -> T:
        """What the work returned or raised. discard: called with what a cancelled caller will never see."""
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            future.cancel()
            await self.ended(future)
            if discard is not None and not future.cancelled() and future.exception() is None:
                discard(future.result())
            raise

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.result(self.start(work, *args, **kwargs))

    async def ended(self, future: Future[T]) -> None:
        """Wait for the end of the work, whatever it brings. A caller who is cancelled meanwhile must raise on."""
        await _done(asyncio.wrap_future(future))

    async def release(self, work: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """As `run`, for what gives something back: it is done even when the caller is cancelled before it begins."""
        await self.finish(asyncio.wrap_future(self.start(work, *args, **kwargs)))

    async def finish(self, foreign: Awaitable[T]) -> T:
        """What an awaitable gives that hands its work to `pool`, as aiofiles does; waited for by the same rules."""
        task = asyncio.ensure_future(foreign)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await _done(task)
            raise

    @property
    def closed(self) -> bool:
        return self._closed

    async def aclose(self) -> None:
        """End the threads. Idempotent."""
        if not self._closed:
            self._closed = True
            await self.finish(asyncio.to_thread(self.pool.shutdown))


async def _done(waiter: asyncio.Future[T]) -> None:
    while not waiter.done():
        with suppress(asyncio.CancelledError):  # the caller, who is being cancelled, raises it again
            await asyncio.wait([waiter])
    if not waiter.cancelled():
        waiter.exception()  # retrieved, or asyncio would log it as lost

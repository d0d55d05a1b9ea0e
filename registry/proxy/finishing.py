"""Work that must not be left half done: who is cancelled while it runs waits for its end, and is cancelled then."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finished(work: Awaitable[T]) -> T:
    """What it brings or raises."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # nobody will ask for it, and asyncio would complain
        raise


async def off_loop(pool: Executor, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """In a thread: no descriptor is closed below a running read."""
    return await finished(asyncio.get_running_loop().run_in_executor(pool, lambda: work(*args, **kwargs)))

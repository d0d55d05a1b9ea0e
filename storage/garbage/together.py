"""Work on many things, some at a time, in bounded memory: for stores where a call is a round trip."""

import asyncio
from collections.abc import AsyncIterable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

AT_ONCE = 16


async def for_each(
    items: AsyncIterable[T], work: Callable[[T], Coroutine[Any, Any, None]], *, at_once: int = AT_ONCE
) -> None:
    """Calls work for every item, for at most `at_once` of them at a time, in any order.

    Raises the first error, of items or of work, when all that had begun is cancelled and over.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        async for item in items:
            if len(running) >= at_once:
                running = await _some_done(running)
            running.add(asyncio.create_task(work(item)))
        while running:
            running = await _some_done(running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _some_done(running: set[asyncio.Task[None]]) -> set[asyncio.Task[None]]:
    """Waits for at least one; those that still run. Raises the error of one that failed."""
    done, running_still = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    errors = [task.exception() for task in done]
    running.difference_update(done)
    for error in errors:
        if error is not None:
            raise error
    return running_still

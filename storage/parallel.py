"""Several calls to the store side by side: for stores where a call is a round trip over a network."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

AT_ONCE = 16
"""Calls that run side by side, of one piece of work."""


async def at_once(*calls: Awaitable[object]) -> None:
    """Waits for all of them, also when one has failed, so that none goes on behind the caller's back.

    Raises the error of the first of them, in the order in which they were given, that has failed.
    """
    for done in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done


async def for_all(items: Sequence[T], work: Callable[[T], Coroutine[Any, Any, R]]) -> list[R]:
    """What work returns for each, in their order; AT_ONCE of them run at a time.

    Raises the first error, when the others are cancelled and over.
    """
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(item: T) -> R:
        async with slots:
            return await work(item)

    tasks = [asyncio.create_task(one(item)) for item in items]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def for_each(
    items: AsyncIterable[T], work: Callable[[T], Coroutine[Any, Any, None]], *, width: int = AT_ONCE
) -> None:
    """Calls work for every item, for at most `width` of them at a time, in any order, in bounded memory.

    Raises the first error, of items or of work, when all that had begun is cancelled and over.
    """
    running: set[asyncio.Task[None]] = set()
    try:
        async for item in items:
            if len(running) >= width:
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

"""Several calls at once: all are waited for, the first error is raised."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from storage.errors import StorageFull, Unavailable
from storage.parallel import AT_ONCE, at_once, for_all, for_each


async def test_all_are_waited_for_though_one_fails() -> None:
    go, done = asyncio.Event(), []

    async def fails() -> None:
        go.set()
        raise StorageFull

    async def follows() -> None:
        await go.wait()
        await asyncio.sleep(0)
        done.append("written")
        raise Unavailable("later")

    with pytest.raises(StorageFull):
        await at_once(fails(), follows())
    assert done == ["written"]


async def test_nothing_to_wait_for() -> None:
    await at_once()


async def test_cancelled_together() -> None:
    started, cancelled = asyncio.Event(), []

    async def hangs() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    waiting = asyncio.create_task(at_once(hangs(), hangs()))
    await started.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert cancelled == [True, True]


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_some_at_a_time() -> None:
    running, most, seen = 0, 0, []

    async def work(number: int) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        seen.append(number)

    await for_each(numbers(50), work, width=7)
    assert sorted(seen) == list(range(50))
    assert most == 7


async def test_the_first_error_ends_all() -> None:
    ended = []

    async def work(number: int) -> None:
        try:
            if number == 3:
                raise ValueError("three")
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="three"):
        await for_each(numbers(100), work, width=8)
    assert sorted(ended) == list(range(8))


async def test_an_error_of_the_items_is_raised() -> None:
    async def broken() -> AsyncIterator[int]:
        yield 1
        raise LookupError("no more")

    async def work(number: int) -> None:
        await asyncio.sleep(0)

    with pytest.raises(LookupError):
        await for_each(broken(), work)


async def test_results_are_in_the_order_of_what_they_are_of() -> None:
    running, most = 0, 0

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(number % 5):
            await asyncio.sleep(0)
        running -= 1
        return -number

    assert await for_all(range(50), work) == [-number for number in range(50)]
    assert most == AT_ONCE


async def test_after_an_error_nothing_goes_on() -> None:
    begun, ended = [], []

    async def work(number: int) -> None:
        begun.append(number)
        try:
            if number == 3:
                raise ValueError("three")
            await asyncio.Event().wait()
        finally:
            ended.append(number)

    with pytest.raises(ValueError, match="three"):
        await for_all(range(100), work)
    assert sorted(ended) == sorted(begun)
    assert len(begun) <= AT_ONCE + 1

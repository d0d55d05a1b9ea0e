"""Several calls at once: all are waited for, the first error is raised."""

import asyncio

import pytest

from storage.errors import StorageFull, Unavailable
from storage.parallel import at_once


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

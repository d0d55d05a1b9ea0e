"""The end of tasks that go on until somebody ends them."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any


async def end_all(tasks: Iterable["asyncio.Task[Any]"]) -> None:
    """Cancel each, one after the other, and wait until it is over. Raises what one of them has raised."""
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

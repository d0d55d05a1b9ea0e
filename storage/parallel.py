"""Several calls to the store side by side: for stores where a call is a round trip over a network."""

import asyncio
from collections.abc import Awaitable


async def at_once(*calls: Awaitable[object]) -> None:
    """Waits for all of them, also when one has failed, so that none goes on behind the caller's back.

    Raises the error of the first of them, in the order in which they were given, that has failed.
    """
    for done in await asyncio.gather(*calls, return_exceptions=True):
        if isinstance(done, BaseException):
            raise done

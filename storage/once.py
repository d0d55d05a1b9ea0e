"""Many who want the same thing at once, and one who fetches it. The fetch outlives whoever asked first."""

import asyncio
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Once(Generic[K, V]):
    """Runs at most one call for each key at a time. Bound to the loop that it is used in; `aclose` ends what runs."""

    def __init__(self) -> None:
        self._running: dict[K, asyncio.Task[V]] = {}

    async def run(self, key: K, call: Callable[[], Coroutine[Any, Any, V]]) -> V:
        """The result of the call that runs for this key, or of this one where none does; its error likewise.

        If cancelled, the call goes on for the others, and for whoever asks next.
        """
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(call())
            self._running[key] = task
            task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: K, task: "asyncio.Task[V]") -> None:
        if self._running.get(key) is task:
            del self._running[key]
        if not task.cancelled():
            task.exception()  # all who waited may have left: then nobody else looks at it

    async def aclose(self) -> None:
        """Cancel what runs. Whoever waits gets CancelledError. Idempotent."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

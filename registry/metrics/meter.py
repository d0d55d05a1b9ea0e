"""Meter: what app.py wraps its parts with where metrics are on, and the page that it adds to the debug address."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Scope

from registry.metrics.actions import Actions
from registry.metrics.numbers import Numbers
from registry.metrics.page import MEDIA_TYPE, render
from registry.metrics.requests import Measured
from registry.metrics.sampler import sample_caches, sample_for_ever, sample_server
from registry.metrics.upstreams import sample_upstreams
from registry.serving.lifespan import HOSTING, Hosting
from registry.tasks import end_all
from registry.watching.debug import Answer
from storage.lookups import Lookups

if TYPE_CHECKING:  # its packages are an extra of their own
    from registry.proxy.upstream import Upstream


class Meter:
    """Of one application. Nothing is counted outside of its lifespan.

    numbers: shared by the applications of all workers. version: Moorage's. repositories: as in Measured.
    """

    def __init__(self, numbers: Numbers, version: str, repositories: int) -> None:
        self._numbers = numbers
        self._version, self._repositories = version, repositories
        self._expect: list[Callable[[], None]] = []
        self._samples: list[Callable[[], None]] = []

    def requests(self, app: ASGIApp) -> Measured:
        """The whole application, to be the outermost."""
        measured = Measured(app, self._numbers, self._repositories, life=self._life)
        self._expect.append(measured.expect)
        self._samples.append(measured.sample)
        return measured

    def actions(self, label: str) -> Actions:
        """Of a driver. label: what metrics call it."""
        actions = Actions(self._numbers, label)
        self._expect.append(actions.expect)
        return actions

    def caches(self, lookups: Lookups) -> None:
        self._samples.append(partial(sample_caches, self._numbers, lookups))

    def upstreams(self, upstreams: "Sequence[Upstream]") -> None:
        self._samples.append(partial(sample_upstreams, self._numbers, upstreams))

    @asynccontextmanager
    async def _life(self, scope: Scope) -> AsyncIterator[None]:
        """scope: of the lifespan, which is inside."""
        hosting: Hosting | None = scope.get("extensions", {}).get(HOSTING)
        self._numbers.enter(hosting.worker if hosting else 0)
        for expect in self._expect:
            expect()
        if hosting:
            self._samples.append(partial(sample_server, self._numbers, hosting))
        task = asyncio.create_task(sample_for_ever(self._numbers, self._sample), name="sample metrics")
        try:
            yield
        finally:
            await end_all([task])

    def _sample(self) -> None:
        for sample in self._samples:
            sample()

    async def page(self) -> Answer:
        """Of all workers; what the others are asked for is up to a second old."""
        self._sample()
        body = await asyncio.to_thread(render, self._numbers, self._version)
        return Answer(body, MEDIA_TYPE)

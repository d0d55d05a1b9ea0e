"""A blob, or a part of it, from as many answers of its upstream as that takes.

An upstream that breaks off is asked for the rest by Range, RESUMES times in a row without PROGRESS; one that does not
know Range begins again, and what was there is skipped. Sizes are compared, bytes are not: whoever reads has the digest.
"""

import asyncio
import logging
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import aclosing
from typing import Protocol, Self

from registry.proxy.answers import WRONG
from registry.proxy.blobs import Incoming
from registry.proxy.patience import backoff
from registry.proxy.tally import Tally
from registry.proxy.transport import BROKEN
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import RangeNotSatisfiable, TooManyRequests, UpstreamBusy, UpstreamUnavailable
from storage.ranges import RangeRequest

log = logging.getLogger(__name__)

RESUMES = 3
PROGRESS = 1 << 20
"""Bytes after which an upstream that breaks off is given RESUMES attempts again."""

Sleep = Callable[[float], Awaitable[None]]


class Source(Protocol):
    """A repository of an upstream (repository.py)."""

    tally: Tally

    async def stat_blob(self, digest: Digest) -> int:
        """Raises BlobUnknown; UpstreamDenied; UpstreamUnavailable."""

    async def open_stream(self, digest: Digest, start: int = 0, stop: int | None = None) -> Incoming:
        """Raises as stat_blob; RangeNotSatisfiable."""

    async def open_blob(self, digest: Digest, range: RangeRequest | None = None) -> ObjectReader:
        """The digest is not compared. Raises as open_stream."""


class WrongContent(UpstreamUnavailable):
    """It is no use to ask for the rest."""

    def __init__(self) -> None:
        super().__init__(WRONG)


class Download:
    """Bytes start to stop (None: all behind start) of a blob. Whoever made it closes it.

    at: position of the next byte.   size: of the whole blob, once `begin` has returned.
    """

    size: int

    def __init__(
        self, source: Source, digest: Digest, sleep: Sleep = asyncio.sleep, start: int = 0, stop: int | None = None
    ) -> None:
        self.at = start
        self._source, self._digest, self._sleep, self._stop = source, digest, sleep, stop
        self._stream: Incoming | None = None

    async def begin(self) -> Self:
        """Ask. Raises what the upstream answers instead. That there is nothing behind start is no error."""
        try:
            self._stream = await self._source.open_stream(self._digest, self.at, self._stop)
        except RangeNotSatisfiable as exc:
            if exc.size != self.at:
                raise WrongContent from exc  # it is shorter than what we have of it
            self.size = exc.size
            return self
        size = self._stream.extent.total
        self.size = await self._source.stat_blob(self._digest) if size is None else size
        return self

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Once. Raises UpstreamUnavailable and its kin when it gives up; what came before that counts all the same."""
        end = self.size if self._stop is None else min(self._stop, self.size)
        mark, waits = self.at, _waits()
        if self._stream is None and self.at >= end:
            return
        while True:
            try:
                if self._stream is None:
                    self._stream = await self._source.open_stream(self._digest, self.at, self._stop)
                async with aclosing(self._answer(self._stream, end)) as pieces:
                    async for piece in pieces:
                        yield piece
            except UpstreamUnavailable as exc:
                if isinstance(exc, WrongContent):
                    raise
                if self.at >= end:
                    return  # all has come but the end of the answer
                if self.at - mark >= PROGRESS:
                    mark, waits = self.at, _waits()
                wait = next(waits, None)
                if wait is None or isinstance(exc, (TooManyRequests, UpstreamBusy)):
                    raise
                log.info("an upstream broke off, going on at byte %d of %d: %s", self.at, self.size, exc)
            else:
                return
            finally:
                await self.aclose()
            await self._sleep(wait)

    async def _answer(self, stream: Incoming, end: int) -> AsyncGenerator[bytes, None]:
        """What one answer brings of what is missing. Raises UpstreamUnavailable when that is not all."""
        at = stream.extent.start  # an upstream that does not know Range begins again at 0
        if stream.extent.total not in (None, self.size) or at > self.at:
            raise WrongContent
        async for chunk in stream.chunks():
            piece = chunk[self.at - at :] if at < self.at else chunk
            at += len(chunk)
            if at > self.size:
                raise WrongContent
            if piece := piece[: end - self.at]:
                self.at += len(piece)
                yield piece
            if self.at >= end and end < self.size:
                return  # of a whole that was not asked for
        if self.at < end:
            raise UpstreamUnavailable(BROKEN)

    async def aclose(self) -> None:
        """Idempotent."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            await stream.aclose()


def _waits() -> Iterator[float]:
    return backoff(RESUMES + 1, random.random)

"""A blob that the cache cannot take, passed on from the upstream to one client: each has a download of its own.

The whole is hashed on its way and, as in a fetch, its last HELD bytes wait for the digest. A part, the start of which
nobody has hashed, is passed on as it comes. In memory are what a download holds, and HELD.
"""

import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from contextlib import aclosing

from registry.proxy.download import Download, Sleep, Source, WrongContent
from registry.proxy.finishing import off_loop
from storage.digest import Digest, RunningHash
from storage.driver import ObjectReader
from storage.ranges import ByteRange, RangeRequest

log = logging.getLogger(__name__)

HELD = 64 << 10
"""Bytes at the end of a blob that wait for its digest."""


class Passing(ObjectReader):
    """Begins where the download does. running: of all before that; None: nothing is compared.

    ahead: the last of what was hashed already, if readers do not have it yet.
    """

    def __init__(
        self,
        download: Download,
        digest: Digest,
        stop: int,
        pool: Executor,
        running: RunningHash | None,
        ahead: bytes = b"",
    ) -> None:
        """Of a download that has begun, and of one to the end of the blob where something is compared."""
        self.size, self.span = download.size, ByteRange(download.at - len(ahead), stop)
        self._download, self._digest, self._pool = download, digest, pool
        self._running, self._ahead = running, ahead

    async def chunks(self) -> AsyncIterator[bytes]:
        at, held = self._download.at, [self._ahead]
        free = self.size if self._running is None else self.size - HELD
        async with aclosing(self._download.chunks()) as pieces:
            async for piece in pieces:
                if self._running is not None:
                    await off_loop(self._pool, self._running.update, piece)
                if now := piece[: max(0, free - at)]:
                    yield now
                if len(now) < len(piece):
                    held.append(piece[len(now) :])
                at += len(piece)
        if self._running is not None and self._running.digest != self._digest:
            log.error("an upstream sent other bytes than those of the digest", extra={"digest": str(self._digest)})
            raise WrongContent
        if rest := b"".join(held)[: self.span.stop - max(self.span.start, free)]:
            yield rest

    async def aclose(self) -> None:
        await self._download.aclose()


async def pass_on(
    source: Source, digest: Digest, range: RangeRequest | None, pool: Executor, sleep: Sleep
) -> ObjectReader:
    """Straight from the upstream. Raises what it answers instead; RangeNotSatisfiable."""
    if range is not None and (range.suffix is not None or range.start or range.stop is not None):
        return await source.open_blob(digest, range)
    download = Download(source, digest, sleep)
    try:
        await download.begin()
    except BaseException:
        await download.aclose()
        raise
    return Passing(download, digest, download.size, pool, RunningHash(digest.algorithm))

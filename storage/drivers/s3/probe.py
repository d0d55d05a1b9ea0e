"""Does the store honour conditions? Asked at the first write that has one, once a process, with four small calls.

A read-only registry never writes, so it never asks. Where conditions are ignored, two writers may overwrite each
other's tags, and the log says so; blobs are safe all the same, since whoever writes a digest writes the same bytes.

Whether the store checks `x-amz-checksum-sha256` is not asked: nothing would be done otherwise if it does not.
"""

import asyncio
import logging
import secrets

from storage.drivers.s3.bucket import Bucket, NoConditions
from storage.errors import ObjectNotFound, PreconditionFailed, Unavailable

log = logging.getLogger(__name__)

_AGAIN = 60.0
"""Seconds before a store that could not be asked is asked again."""


class Probe:
    """folder: whole key of a folder that nobody else looks into."""

    def __init__(self, bucket: Bucket, folder: str) -> None:
        self._bucket = bucket
        self._folder = folder
        self._honoured: bool | None = None
        self._not_before = 0.0
        self._lock = asyncio.Lock()

    async def honoured(self) -> bool:
        """Are conditions honoured? True as long as nothing is known against it."""
        if self._honoured is None:
            async with self._lock:
                await self._find_out()
        return self._honoured is not False

    async def _find_out(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._honoured is not None or now < self._not_before:
            return
        try:
            self._honoured = await self._ask(f"{self._folder}/probe/{secrets.token_hex(16)}/k")
        except Unavailable as exc:
            # the write itself will tell; or it is allowed, and this one is not
            log.warning("could not find out whether the S3 store honours conditional writes: %s", exc)
            self._not_before = now + _AGAIN
        else:
            self._tell(self._honoured)

    async def _ask(self, key: str) -> bool:
        try:
            # the first may fail as well, when its answer was lost and it was sent again: that is an answer, too
            answers = [
                await self._is_refused(key, b"1", if_absent=True),
                await self._is_refused(key, b"2", if_absent=True),
                await self._is_refused(key, b"3", if_match='"00000000000000000000000000000000"'),
            ]
        except NoConditions:
            return False
        finally:
            await self._bucket.delete(key)
        return all(answers[1:])

    async def _is_refused(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> bool:
        try:
            await self._bucket.put(key, data, if_absent=if_absent, if_match=if_match)
        except (PreconditionFailed, ObjectNotFound):
            return True
        return False

    def _tell(self, honoured: bool) -> None:
        if honoured:
            log.info("the S3 store honours conditional writes: several registries may write")
        else:
            log.warning(
                "the S3 store ignores or refuses conditional writes: run one writing registry alone, "
                "or concurrent pushes of one tag may overwrite each other"
            )

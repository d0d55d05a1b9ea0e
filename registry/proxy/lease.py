"""A lease: one small object in a store that replicas share. It says that one of them is doing a piece of work.

    claim       PUT, if nothing stands there
    beat        PUT over our own version, four times in each `ttl`; refused: it has been taken over
    take over   PUT over the version of a rival who is silent
    release     DELETE of our own version

Rules:
- It saves work and protects nothing: who was paused may go on beside his successor. What is done under a lease has to
  be harmless when it is done twice, as it is to write what is named by its bytes.
- No two bodies are equal. Stores make a version of the body: by equal ones, who was paused would take the lease of his
  successor for his own.
- Clocks of two machines are not compared. A rival is watched by our own; the age of what he wrote is the store's clock
  minus the store's own note of when.
"""

import os
import secrets
import socket
from contextlib import suppress
from dataclasses import dataclass

from registry.proxy.finishing import finished
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed

_LIMIT = 1024
"""Bytes; a body has a host's name and some numbers."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. ttl: within which a holder shows that he lives.   patience: that one waits for another's work.

    Both together have to leave a client its answer in time (containerd gives up after 30 s), and a holder who died
    should be replaced within the patience of who waits for him.
    """

    ttl: float = 6.0
    patience: float = 12.0

    @property
    def beat(self) -> float:
        return self.ttl / 4

    @property
    def silence(self) -> float:
        """Without a beat, of which all but the last may be lost or late: then he is dead."""
        return 1.5 * self.ttl

    @property
    def old(self) -> float:
        """An age by the store's clock, whose notes are rounded to seconds: nobody need watch what is as old as that."""
        return 4 * self.ttl + 2.0


class Watch:
    """Does a rival live? His lease changes while he does. Pure."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._version: str | None = None
        self._since = 0.0

    def is_dead(self, version: str, age: float, now: float) -> bool:
        """age: seconds since that version was written, by the store's clock.   now: by our own monotonic one."""
        if version != self._version:
            self._version, self._since = version, now
        return now - self._since >= self._terms.silence or age >= self._terms.old


class Lease:
    """The object under `key`, held by us or not. A call that raises Unavailable leaves it as it was believed to be."""

    def __init__(self, driver: StorageDriver, key: str) -> None:
        self.key = key
        self._driver = driver
        self._owner = f"{socket.gethostname()} {os.getpid()} {secrets.token_hex(8)} ".encode()
        self._count = 0
        self._version: str | None = None

    @property
    def held(self) -> bool:
        """As far as we know."""
        return self._version is not None

    async def claim(self) -> bool:
        """Where nobody has it."""
        await finished(self._write(if_absent=True))
        return self.held

    async def take_over(self, version: str) -> bool:
        """Of a rival who has written that version, and nothing since."""
        await finished(self._write(if_version=version))
        return self.held

    async def beat(self) -> bool:
        """False: another one has it."""
        if self._version is not None:
            await finished(self._beat(self._version))
        return self.held

    async def release(self) -> None:
        """Idempotent. What another one has taken over stays."""
        version, self._version = self._version, None
        if version is not None:
            with suppress(PreconditionFailed):
                await finished(self._driver.delete(self.key, if_version=version))

    async def _beat(self, version: str) -> None:
        await self._write(if_version=version)
        if self._version is None:
            self._version = await self._written()

    async def _write(self, *, if_absent: bool = False, if_version: str | None = None) -> None:
        self._count += 1
        body = self._owner + str(self._count).encode()
        try:
            self._version = await self._driver.put(self.key, body, if_absent=if_absent, if_version=if_version)
        except PreconditionFailed:
            self._version = None

    async def _written(self) -> str | None:
        """The version of what stands there, if it is ours: an earlier beat whose answer never came.

        Nobody writes between the two calls but another owner, and never our bytes: so they belong together.
        """
        try:
            version = (await self._driver.head(self.key)).version
            body = await self._driver.read(self.key, _LIMIT)
        except ObjectNotFound:
            return None
        return version if body.startswith(self._owner) else None

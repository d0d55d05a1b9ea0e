"""Where the credentials come from: the settings, or botocore's chain, refreshed while requests go on.

The chain is that of every AWS tool: variables, web identity, profiles, containers, the instance's role. It runs in a
thread, as does its import: both take longer than a request may wait on the event loop. Rules:

- One fetch at a time, whoever asks. It looks at everything afresh, so a changed profile or variable is found.
- In the last AHEAD seconds of credentials a fetch begins in the background; requests go on with the old ones.
- A fetch that failed, or gave the keys that we had, is not repeated for PAUSE seconds: metadata servers throttle as
  well, and an instance's has newer keys only some five minutes before the end of the old ones.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Protocol

from storage.drivers.s3.sign import Credentials
from storage.errors import Unavailable

log = logging.getLogger(__name__)

AHEAD = 600.0
LAST = 30.0
"""Seconds: credentials with less left are signed with only where there are no others; the store's clock and ours
differ a little."""

PAUSE = 5.0


class Source(Protocol):
    async def get(self) -> Credentials:
        """Raises Unavailable when there are none."""

    async def renew(self, refused: Credentials) -> Credentials:
        """Others than `refused`, which the store says are no longer good; the same keys where there are no others."""

    async def aclose(self) -> None: ...


class Fixed:
    """Credentials of the settings."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    async def get(self) -> Credentials:
        return self._credentials

    async def renew(self, refused: Credentials) -> Credentials:
        return refused

    async def aclose(self) -> None:
        pass


def fetch_from_chain() -> Credentials | None:
    """Blocking: run it in a thread. Raises whatever botocore raises."""
    import botocore.session

    found = botocore.session.get_session().get_credentials()
    if found is None:
        return None
    frozen = found.get_frozen_credentials()
    # botocore tells nobody when temporary credentials end; without it, URLs would outlive them
    expiry = getattr(found, "_expiry_time", None)
    return Credentials(
        frozen.access_key, frozen.secret_key, frozen.token or "", expiry.timestamp() if expiry is not None else None
    )


class Chain:
    """fetch: blocking, called in a thread. wall, monotonic: clocks, in seconds."""

    def __init__(
        self,
        fetch: Callable[[], Credentials | None] = fetch_from_chain,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fetch, self._wall, self._monotonic = fetch, wall, monotonic
        self._found: Credentials | None = None
        self._task: asyncio.Task[Credentials] | None = None
        self._failed_at = self._vain_at = float("-inf")

    async def get(self) -> Credentials:
        found = self._found
        if found is None:
            return await self._fetched()
        left = self._left(found)
        if left >= AHEAD or self._is_recent(self._vain_at):
            return found
        if left < LAST:
            return await self._fetched()
        if self._task is None and not self._is_recent(self._failed_at):
            self._begin()
        return found

    async def renew(self, refused: Credentials) -> Credentials:
        found = self._found
        if found is None or not found.has_keys_of(refused) or self._is_recent(self._vain_at):
            return await self.get()
        return await self._fetched()

    async def aclose(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def _is_recent(self, when: float) -> bool:
        return self._monotonic() - when < PAUSE

    def _left(self, credentials: Credentials) -> float:
        return float("inf") if credentials.expires is None else credentials.expires - self._wall()

    async def _fetched(self) -> Credentials:
        if self._task is None and self._is_recent(self._failed_at):
            raise _unavailable()
        # a caller that is cancelled must not take the fetch away from the others
        return await asyncio.shield(self._task or self._begin())

    def _begin(self) -> asyncio.Task[Credentials]:
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)
        return self._task

    def _ended(self, task: asyncio.Task[Credentials]) -> None:
        self._task = None
        if not task.cancelled():
            task.exception()  # seen: nobody may have waited for it

    async def _run(self) -> Credentials:
        try:
            found = await asyncio.to_thread(self._fetch)
        except Exception as exc:
            log.error("S3: no credentials: %s: %s", type(exc).__name__, str(exc)[:300])
            self._failed_at = self._monotonic()
            raise _unavailable() from exc
        if found is None:
            log.error(
                "S3: no credentials: set accesskey and secretkey, or give the machine a role or the process variables"
            )
            self._failed_at = self._monotonic()
            raise _unavailable()
        if self._found is not None and found.has_keys_of(self._found):
            self._vain_at = self._monotonic()
        self._found = found
        return found


def _unavailable() -> Unavailable:
    return Unavailable("the registry has no credentials for its storage at the moment")

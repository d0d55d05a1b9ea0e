"""The secret that signs upload sessions: `http.secret`, or one that is made once and kept in the store.

Kept, so that workers, restarts and replicas over one store agree; a registry that is never pushed to never makes one.
"""

import secrets

from storage import layout
from storage.driver import StorageDriver
from storage.errors import ObjectNotFound, PreconditionFailed

_LIMIT = 4096
_LEAST = 32
"""Bytes. With an empty secret anybody could sign sessions."""


class UploadSecret:
    """Callable: gives the secret, and finds or makes it at the first call."""

    def __init__(self, configured: str, driver: StorageDriver) -> None:
        self._secret = configured.encode("utf-8")
        self._driver = driver

    async def __call__(self) -> bytes:
        # two first calls at once both end with what is stored
        if not self._secret:
            self._secret = await _load(self._driver)
        return self._secret


async def _load(driver: StorageDriver) -> bytes:
    found = await _find(driver)
    if found:
        return found
    made = secrets.token_hex(32).encode("ascii")
    try:
        # if_absent: another process may be first
        await driver.put(layout.SECRET, made, if_absent=found is None, private=True)
    except PreconditionFailed:
        return await _find(driver) or made
    return made


async def _find(driver: StorageDriver) -> bytes | None:
    """What is stored; b"" where that is too short to be a secret of ours (a damaged file); None: nothing."""
    try:
        found = await driver.read(layout.SECRET, _LIMIT)
    except ObjectNotFound:
        return None
    return found if len(found) >= _LEAST else b""

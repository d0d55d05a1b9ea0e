"""Links: the small objects by which a repository says that something belongs to it.

A link holds exactly the digest. An empty or mangled one (left by a crash of an older registry) is taken for absent, so
that a push heals it, and is logged: it is damage, not a fault of the store, which would raise Unavailable.
"""

import logging

from storage.digest import Digest
from storage.driver import StorageDriver
from storage.errors import DigestInvalid, ObjectNotFound

log = logging.getLogger(__name__)

_LIMIT = 1024
"""Bytes; the longest digest that we know has 135."""


def parse_link(key: str, body: bytes) -> Digest:
    """Raises ObjectNotFound for a mangled link."""
    try:
        return Digest.parse(body.decode("ascii").strip())
    except (UnicodeDecodeError, DigestInvalid) as exc:
        log.warning("ignoring a damaged link: pushing the image again repairs it", extra={"key": key})
        raise ObjectNotFound(key) from exc


async def read_link(driver: StorageDriver, key: str) -> Digest:
    """The digest that the link names. Raises ObjectNotFound."""
    return parse_link(key, await driver.read(key, _LIMIT))


async def read_noted_link(driver: StorageDriver, key: str) -> tuple[Digest, str]:
    """The digest that the link names, and the note that it was written with. Raises ObjectNotFound."""
    async with await driver.open(key) as reader:
        return parse_link(key, await reader.read(_LIMIT)), reader.note


async def write_link(driver: StorageDriver, key: str, digest: Digest) -> None:
    await driver.put(key, str(digest).encode("ascii"))


async def write_noted_link(driver: StorageDriver, key: str, digest: Digest, note: str) -> None:
    """note: see StorageDriver.put_noted; "" for none."""
    if note:
        await driver.put_noted(key, str(digest).encode("ascii"), note)
    else:
        await write_link(driver, key, digest)

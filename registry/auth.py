"""Who is asking: HTTP Basic against an htpasswd file, as distribution's `auth.htpasswd`.

Rules: bcrypt only. One check per login, in a thread, also for a user who does not exist, so that time and answer tell
nothing about users. A login that was right is remembered for a short while, under a keyed hash and bound to the line of
the file, so that a changed or removed line holds at once. The file is read again when it changes; a broken one is
reported and the last good one stays.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from registry.errors import Unauthorized
from registry.policy import ANONYMOUS, Actor

log = logging.getLogger(__name__)

_REMEMBER = 60.0
"""Seconds for which a right password is not checked again: a pull of 20 layers should cost one bcrypt, not 20."""
_REMEMBERED = 1024
_MAX_HEADER = 8 << 10
_AT_ONCE = max(1, (os.cpu_count() or 1) - 1)
"""Checks that run side by side; each takes a core for some 50 ms, and the others have work to do, too."""


class Authenticator(Protocol):
    """Tells who is asking."""

    challenge: str
    """The value of WWW-Authenticate."""

    async def identify(self, headers: Mapping[str, str]) -> Actor:
        """ANONYMOUS without credentials. Raises Unauthorized for wrong ones."""


class Htpasswd:
    """An htpasswd file, read again when it changes. Raises OSError, ValueError when it is no good at the start."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._stamp()
        self._users = _parse(path.read_bytes())

    def hash_of(self, user: str) -> bytes | None:
        self._reload()
        return self._users.get(user)

    def _reload(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._users, self._seen = _parse(self._path.read_bytes()), stamp
        except (OSError, ValueError) as exc:
            log.warning("cannot read the htpasswd file again, going on with what it said before: %s", exc)
        else:
            log.info("read the htpasswd file again: %d users", len(self._users))

    def _stamp(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parse(body: bytes) -> dict[str, bytes]:
    """User to bcrypt hash. Raises ValueError for what is no htpasswd file. Other hashes are kept and never fit."""
    users = {}
    for number, line in enumerate(body.decode("utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise ValueError(f"line {number} is not user:hash")
        if not hashed.startswith(("$2a$", "$2b$", "$2y$")):
            log.warning("line %d of the htpasswd file is no bcrypt hash and fits nobody: use `htpasswd -B`", number)
        users[user] = hashed.encode()
    return users


class BasicAuthenticator:
    """Implements Authenticator."""

    def __init__(self, htpasswd: Htpasswd, realm: str) -> None:
        self.challenge = 'Basic realm="{}"'.format(realm.replace("\\", "").replace('"', ""))
        self._htpasswd = htpasswd
        self._key = secrets.token_bytes(32)
        self._dummy: bytes | None = None
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def identify(self, headers: Mapping[str, str]) -> Actor:
        value = headers.get("authorization")
        if value is None:
            return ANONYMOUS
        credentials = _credentials(value)
        if credentials is None or not await self._is_right(*credentials):
            raise Unauthorized(self.challenge)
        return Actor(credentials[0])

    async def _is_right(self, user: str, password: bytes) -> bool:
        hashed = self._htpasswd.hash_of(user)
        mark = hmac.new(self._key, b"\0".join((user.encode(), hashed or b"", password)), hashlib.sha256).digest()
        now = time.monotonic()
        if self._right.get(mark, 0.0) > now:
            return True
        async with self._slots:
            right = await asyncio.to_thread(self._check, hashed, password)
        if right:
            self._right[mark] = now + _REMEMBER
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        return right

    def _check(self, hashed: bytes | None, password: bytes) -> bool:
        import bcrypt  # 20 ms that a registry without users need not spend at start

        if self._dummy is None:
            self._dummy = bcrypt.hashpw(b"nobody's password", bcrypt.gensalt(10))
        try:
            # for an unknown user the work is the same, and the answer is no
            return bcrypt.checkpw(password, hashed or self._dummy) and hashed is not None
        except ValueError:
            return False  # no bcrypt hash, or a password of more than 72 bytes, which bcrypt would cut


def _credentials(value: str) -> tuple[str, bytes] | None:
    """User and password of an Authorization header; None for anything else than well-formed Basic (RFC 7617)."""
    scheme, _, encoded = value.partition(" ")
    if scheme.lower() != "basic" or len(value) > _MAX_HEADER:
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip().encode("ascii"), validate=True).partition(b":")
        return (user.decode("utf-8"), password) if colon else None
    except (binascii.Error, UnicodeError):
        return None

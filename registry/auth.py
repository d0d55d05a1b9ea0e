"""Who is asking: HTTP Basic against an htpasswd file, as distribution's `auth.htpasswd`.

Rules: bcrypt only. One check per login, in a thread; also for a user who does not exist, and as dear as for one who
does, so that time and answer tell nothing about users. A login that was right is remembered for a short while, under a
keyed hash and bound to the line of the file, so that a changed or removed line holds at once. The file is read again
when it changes; a broken one is reported and the last good one stays.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
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
_SHOWN = 64
"""Characters of a user's name in the log."""
_REMEMBERED = 1024
_MAX_HEADER = 8 << 10
_AT_ONCE = max(1, (os.cpu_count() or 1) - 1)
"""Checks that run side by side; each takes a core for some 50 ms, and the others have work to do, too."""

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12][0-9]|3[01])\$[./A-Za-z0-9]{53}")
_DEFAULT_COST = 10
"""Of a file without users; bcrypt works 2**cost rounds."""


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
        """The bcrypt hash of the user's password; None: nobody can log in under this name."""
        self._reload()
        return self._users.get(user)

    @property
    def costs(self) -> list[int]:
        """What a check of each user costs; in the order of the file."""
        return [int(hashed[4:6]) for hashed in self._users.values()]

    def _reload(self) -> None:
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            body = self._path.read_bytes()
        except OSError as exc:
            log.warning("cannot read the htpasswd file again, going on with what it said before: %s", exc)
            return
        self._seen = stamp  # also of a broken one, which is reported once and not at each request
        try:
            self._users = _parse(body)
        except ValueError as exc:
            log.warning("the htpasswd file is broken, going on with what it said before: %s", exc)
        else:
            log.info("read the htpasswd file again: %d users", len(self._users))

    def _stamp(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino


def _parse(body: bytes) -> dict[str, bytes]:
    """User to bcrypt hash; who has another hash cannot log in. Raises ValueError for what is no htpasswd file."""
    users: dict[str, bytes] = {}
    for number, line in enumerate(body.decode("utf-8").splitlines(), 1):
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        user, colon, hashed = line.partition(":")
        if not colon or not user:
            raise ValueError(f"line {number} is not user:hash")
        users.pop(user, None)  # of two lines the last one holds, whatever it says
        if _BCRYPT.fullmatch(hashed):
            users[user] = hashed.encode("ascii")
        else:
            log.warning("line %d of the htpasswd file is no bcrypt hash and fits nobody: use `htpasswd -B`", number)
    return users


class BasicAuthenticator:
    """Implements Authenticator."""

    def __init__(self, htpasswd: Htpasswd, realm: str) -> None:
        self.challenge = 'Basic realm="{}"'.format(realm.replace("\\", "").replace('"', ""))
        self._htpasswd = htpasswd
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def identify(self, headers: Mapping[str, str]) -> Actor:
        value = headers.get("authorization")
        if value is None:
            return ANONYMOUS
        credentials = _credentials(value)
        if credentials is None:
            log.warning("a login was refused: the Authorization header is not Basic")
            raise Unauthorized(self.challenge)
        if not await self._is_right(*credentials):
            # the same for a wrong password and an unknown user; a log that tells them apart tells its readers, too
            log.warning("a login was refused: wrong user or password", extra={"user": credentials[0][:_SHOWN]})
            raise Unauthorized(self.challenge)
        return Actor(credentials[0])

    async def _is_right(self, user: str, password: bytes) -> bool:
        hashed = self._htpasswd.hash_of(user)
        if hashed is None:
            # the work is that of a known user, and the answer is no
            await self._check(self._stand_in(user), password)
            return False
        # the first two have a fixed length, so that no other three make the same mark
        mark = self._mac(self._mac(user.encode("utf-8")) + hashed + password)
        if self._is_remembered(mark):
            return True
        right = await self._check(hashed, password, mark)
        if right:
            self._right[mark] = time.monotonic() + _REMEMBER
            if len(self._right) > _REMEMBERED:
                self._right.popitem(last=False)
        return right

    def _is_remembered(self, mark: bytes) -> bool:
        return self._right.get(mark, 0.0) > time.monotonic()

    async def _check(self, hashed: bytes, password: bytes, mark: bytes = b"") -> bool:
        """mark: under which another request may have been right while this one waited for its turn."""
        async with self._slots:
            return self._is_remembered(mark) or await asyncio.to_thread(_check, hashed, password)

    def _stand_in(self, user: str) -> bytes:
        """A hash for a user who does not exist, with a cost that one who does could have: the same at each try."""
        costs = self._htpasswd.costs or [_DEFAULT_COST]
        cost = costs[int.from_bytes(self._mac(user.encode("utf-8"))) % len(costs)]
        return b"$2b$%02d$" % cost + b"." * 53

    def _mac(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, hashlib.sha256)


def _check(hashed: bytes, password: bytes) -> bool:
    import bcrypt  # 20 ms that a registry without users need not spend at start

    try:
        return bcrypt.checkpw(password, hashed)
    except ValueError:
        return False  # a password of more than 72 bytes, which bcrypt would cut


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

"""An upstream as it is at this moment, for people: does it answer, whom does it take us for, what does it still allow.

It costs no pull: a GET of `/v2/`, a login, a HEAD of a manifest.
"""

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from registry.proxy.limits import RateLimit
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage.errors import StorageError, UpstreamDenied
from storage.names import RepositoryName, Tag

PREVIEW = (RepositoryName("ratelimitpreview/test"), Tag("latest"))
"""What Docker Hub has for just this (docs.docker.com, "Docker Hub pull usage and limits")."""


@dataclass(frozen=True, slots=True)
class Probed:
    """fault: why it cannot be used, in words; "": it can.   latency: seconds, of an answer on a new connection.

    expires: when its certificate does; None where there is none, or nobody checks it.
    username: "": as nobody.   rate_limit: None where it says nothing of one.
    """

    fault: str = ""
    latency: float | None = None
    expires: datetime | None = None
    username: str = ""
    rate_limit: RateLimit | None = None


async def probe(upstream: Upstream, image: tuple[RepositoryName, Tag] | None) -> Probed:
    """upstream: one that nobody has asked yet.   image: to be asked for by HEAD, which tells the rate limit."""
    latency, expires, fault = None, None, ""
    began = time.monotonic()
    try:
        expires = await upstream.greet()
        latency = time.monotonic() - began
        await _log_in(upstream)
    except StorageError as exc:
        why = "" if isinstance(exc.__cause__, StorageError) else str(exc.__cause__ or "")
        fault = f"{exc}: {why}" if why else str(exc)
    if not fault and image is not None:
        with suppress(StorageError):  # it is there, and need not have just that image
            await UpstreamRepository(upstream, image[0]).head_manifest(image[1])
    state = upstream.state()
    until = None if expires is None else datetime.fromtimestamp(expires, UTC)
    return Probed(fault, latency, until, state.username, state.rate_limit)


async def _log_in(upstream: Upstream) -> None:
    """Raises StorageError. Some want a login for `/v2/` and give images to everybody: as nobody, that is no fault."""
    try:
        await upstream.ping()
    except UpstreamDenied as exc:
        if username := upstream.state().username:
            raise LoginRefused(username) from exc


class LoginRefused(UpstreamDenied):
    def __init__(self, username: str) -> None:
        super().__init__()
        self.args = (f"it does not take the credentials of {username}",)

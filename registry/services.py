"""What handlers work with: the parts that app.py has joined, and one request's view of them."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from starlette.requests import Request
from starlette.responses import Response

from registry import upload_state
from registry.auth import Authenticator
from registry.headers import Query
from registry.policy import Access
from registry.urls import Urls
from storage.content import RepositoryPage
from storage.names import RepositoryName
from storage.repository import Repository, UploadSession

Resolve = Callable[[RepositoryName, str | None], Repository]
"""(name, ns) -> the repository. ns: the upstream that a containerd mirror names (`?ns=`), None where it names none."""


@runtime_checkable
class Namespaced(Protocol):
    """What a repository is, too, that caches an upstream's. namespace: what clients call that (`OCI-Namespace`)."""

    namespace: str


@dataclass(frozen=True, slots=True)
class Settings:
    """The few settings that handlers look at. Sizes in bytes, the others are counts."""

    manifest_size: int
    max_tags: int
    max_catalog: int


@dataclass(frozen=True, slots=True)
class Services:
    """secret: signs upload sessions; asked for at the first upload, as it may have to be made.

    anonymous_mount: may a blob be mounted from "anywhere"? Only where everybody may read everything.
    """

    resolve: Resolve
    list_repositories: Callable[[str, int], Awaitable[RepositoryPage]]
    authenticator: Authenticator | None
    secret: Callable[[], Awaitable[bytes]]
    urls: Urls
    settings: Settings

    @property
    def anonymous_mount(self) -> bool:
        return self.authenticator is None


@dataclass(slots=True)  # frozen would cost a microsecond with every request
class Call:
    """One request to one endpoint.

    argument: the digest, reference or session id of the path, unchecked.
    may: may whoever asks do that to another repository, too (a mount reads from one)?
    """

    request: Request
    services: Services
    name: RepositoryName
    repository: Repository
    argument: str
    query: Query
    may: Callable[[Access, str], bool]

    def header(self, name: str) -> str | None:
        """name: in lower case."""
        wanted = name.encode("ascii")
        for key, value in self.request.scope["headers"]:
            if key == wanted:
                return str(value, "latin-1")
        return None

    @property
    def is_head(self) -> bool:
        return self.request.method == "HEAD"

    @property
    def upstream(self) -> dict[str, str]:
        """The part of a query that says whose repository of that name is meant: a link to the next page keeps it."""
        ns = self.query.get("ns")
        return {} if ns is None else {"ns": ns}

    async def session(self) -> UploadSession:
        """The upload session that the client's Location names. Raises UploadUnknown."""
        return upload_state.decode(
            await self.services.secret(), self.name, self.argument, self.query.get("_state") or "", time.time()
        )

    async def upload_location(self, session: UploadSession) -> str:
        state = upload_state.encode(await self.services.secret(), self.name, session, time.time())
        return self.services.urls.upload(self.name, session.id, state)


Handler = Callable[[Call], Awaitable[Response]]

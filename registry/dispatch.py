"""From a request to a handler: the endpoint table (end-1 to end-14), and the hops every request takes.

Path -> endpoint -> method -> who asks -> may he -> which repository -> does it offer that at all -> handler. Nothing of
a body is read before all of these have been answered. GET serves HEAD.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from registry.errors import Denied, EndpointUnknown, MethodNotAllowed, RegistryError, Unauthorized, respond
from registry.handlers import base, blobs, manifests, referrers, tags, uploads
from registry.headers import HeaderInvalid, decode_path, parse_query
from registry.policy import ANONYMOUS, Access, Actor, decide
from registry.responses import ResponseBroken
from registry.routes import EndpointName, match
from registry.services import Call, Handler, Namespaced, Services
from registry.urls import Urls
from storage.errors import StorageError, Unsupported
from storage.names import parse_name
from storage.repository import Action, Repository

log = logging.getLogger(__name__)


class Operation(NamedTuple):
    handler: Handler
    action: Action


_PULL_MANIFEST = Operation(manifests.get_manifest, "pull")
_PULL_BLOB = Operation(blobs.get_blob, "pull")
_LIST_TAGS = Operation(tags.list_tags, "pull")
_LIST_REFERRERS = Operation(referrers.list_referrers, "pull")

OPERATIONS: dict[EndpointName, dict[str, Operation]] = {
    "blob": {"GET": _PULL_BLOB, "HEAD": _PULL_BLOB, "DELETE": Operation(blobs.delete_blob, "delete")},
    "uploads": {"POST": Operation(uploads.start_upload, "push")},
    "upload": {
        "GET": Operation(uploads.upload_status, "push"),
        "PATCH": Operation(uploads.append_upload, "push"),
        "PUT": Operation(uploads.finish_upload, "push"),
        "DELETE": Operation(uploads.cancel_upload, "push"),
    },
    "manifest": {
        "GET": _PULL_MANIFEST,
        "HEAD": _PULL_MANIFEST,
        "PUT": Operation(manifests.put_manifest, "push"),
        "DELETE": Operation(manifests.delete_manifest, "delete"),
    },
    "tags": {"GET": _LIST_TAGS, "HEAD": _LIST_TAGS},
    "referrers": {"GET": _LIST_REFERRERS, "HEAD": _LIST_REFERRERS},
}
"""What can be done where, and which action on the repository that is."""

_GLOBAL = {"base": base.get_base, "catalog": base.get_catalog}
_GLOBAL_METHODS = ("GET", "HEAD")


def _check_offer(repository: Repository, action: Action, operations: Mapping[str, Operation]) -> None:
    """Raises MethodNotAllowed, with what is left to do here, where the repository does not offer the action."""

    try:
        repository.allow(action)
    except Unsupported as why:
        offered = [method for method, operation in operations.items() if _offers(repository, operation.action)]
        raise MethodNotAllowed(", ".join(offered), str(why)) from why


def _offers(repository: Repository, action: Action) -> bool:
    try:
        repository.allow(action)
    except Unsupported:
        return False
    return True


class Dispatch:
    """The ASGI app behind `/v2/`. What is raised here as a refusal is answered here, too: the application's exception
    handlers, which are for everything else, lie three layers further out, and every missing blob would go there.

    prefix: what stands before `/v2/` in the path of every request (http.prefix), "" for nothing; no trailing slash.
    """

    def __init__(self, services: Services, prefix: str = "") -> None:
        self._services = services
        self._prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except (StorageError, RegistryError) as exc:
            response = await respond(request, exc)
        if scope["method"] == "HEAD" and not isinstance(response, StreamingResponse):
            response.body = b""  # its Content-Length stays, as RFC 9110 section 9.3.2 has it
        try:
            await response(scope, receive, send)
        except (StorageError, OSError) as exc:  # of a disk, where the server itself sends from the file
            # nothing can be said to the client any more but that this is not the end: the server closes
            log.error("a response broke off: %s", exc, extra={"cause": str(exc.__cause__ or "")})
            raise ResponseBroken from exc

    async def _respond(self, request: Request) -> Response:
        root = request.scope.get("root_path", "")
        services = self._services
        if root and not services.urls.is_absolute:  # mounted below another application
            services = replace(services, urls=Urls(root + services.urls.base))
        found = match(self._path(request, root))
        request.scope["endpoint"] = found.endpoint  # for what surrounds the application: traces, metrics
        query = parse_query(request.scope.get("query_string", b""))
        if found.endpoint in _GLOBAL:
            if request.method not in _GLOBAL_METHODS:
                raise MethodNotAllowed(", ".join(_GLOBAL_METHODS))
            await self._authorize(request, "catalog" if found.endpoint == "catalog" else "base", "")
            return await _GLOBAL[found.endpoint](request, services, query)
        operations = OPERATIONS[found.endpoint]
        operation = operations.get(request.method)
        if operation is None:
            raise MethodNotAllowed(", ".join(operations))
        request.scope["repository"] = name = parse_name(found.name)
        actor = await self._authorize(request, operation.action, name)
        ns = query.get("ns")
        repository = services.resolve(name, ns)
        _check_offer(repository, operation.action, operations)

        def may(access: Access, other: str) -> bool:
            return self._decide(actor, access, other) == "allow"

        response = await operation.handler(Call(request, services, name, repository, found.argument, query, may))
        if ns is not None and isinstance(repository, Namespaced):
            response.raw_headers.append((b"oci-namespace", repository.namespace.encode("ascii")))
        return response

    def _path(self, request: Request, root: str) -> str:
        """The decoded path from `/v2` on. From raw_path: `path` has lost the difference between bytes and escapes."""
        raw = request.scope.get("raw_path") or quote(request.scope["path"]).encode("ascii")
        path = decode_path(raw)
        for prefix in (root, self._prefix):
            if not path.startswith(prefix):
                raise EndpointUnknown
            path = path[len(prefix) :]
        return path

    async def _authorize(self, request: Request, access: Access, repository: str) -> Actor:
        authenticator, actor = self._services.authenticator, ANONYMOUS
        if authenticator is not None:
            if len(request.headers.getlist("authorization")) > 1:
                raise HeaderInvalid("more than one Authorization header")  # proxies would disagree on which one counts
            actor = await authenticator.identify(request.headers)
        match self._decide(actor, access, repository):
            case "deny":
                raise Denied
            case "unauthorized" if authenticator is not None:
                raise Unauthorized(authenticator.challenge)
        request.scope["actor"] = actor
        return actor

    def _decide(self, actor: Actor, access: Access, repository: str) -> str:
        return decide(actor, access, repository, authentication=self._services.authenticator is not None)

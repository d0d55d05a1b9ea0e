"""Spans below a request's: one for each thing that a request causes in the store or at an upstream.

Who traces requests (otel.py) puts into the context of each how its spans are begun, and tasks inherit it. Outside of
any, where nobody has asked for traces or the registry does work of its own, every span is NONE. OpenTelemetry is not
imported here.

Rule: a span says what was done, where, and how it ended. Never a query, a header, or what an error says: these may hold
tokens and signatures.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Protocol
from urllib.parse import urlsplit

STORAGE = "io.cncf.distribution.storage."
"""Before the names of distribution's attributes."""

Attributes = Mapping[str, str | int]


class Span:
    """One that nobody sees. Whoever has begun a span ends it."""

    def current(self) -> AbstractContextManager[object]:
        """What is begun within is caused by it. Not around a `yield`, which would let it out."""
        return nullcontext()

    def set(self, name: str, value: str | int) -> None:
        pass

    def fail(self, why: str) -> None:
        """why: the name of a class, a status; nothing that was said."""

    def wait(self) -> None:
        """The request that this code runs for waits for what another one has begun: link the two."""

    def end(self) -> None:
        """Idempotent."""


NONE = Span()


class Begin(Protocol):
    def __call__(self, name: str, attributes: Attributes, *, client: bool = False, ago: float = 0.0) -> Span:
        """client: is it a request to somebody else?   ago: seconds for which it has been going on."""


_begin: ContextVar[Begin | None] = ContextVar("begin_span", default=None)


@contextmanager
def traced(begin: Begin) -> Iterator[None]:
    """Within, and in tasks that are made there, spans are begun by that."""
    token = _begin.set(begin)
    try:
        yield
    finally:
        _begin.reset(token)


def begin_span(name: str, attributes: Attributes, *, client: bool = False, ago: float = 0.0) -> Span:
    begin = _begin.get()
    return NONE if begin is None else begin(name, attributes, client=client, ago=ago)


@contextmanager
def asking(method: str, url: str) -> Iterator[Callable[[int], None]]:
    """Around a request to an upstream. Yields what is to be told the status of its answer."""
    begin = _begin.get()
    if begin is None:
        yield _unheard
        return
    span = begin(*_described(method, url), client=True)

    def answered(status: int) -> None:
        span.set("http.response.status_code", status)
        if status >= 500:
            span.fail(str(status))

    try:
        yield answered
    except BaseException as exc:
        span.fail(type(exc).__name__)
        raise
    finally:
        span.end()


def _unheard(status: int) -> None:
    pass


def _described(method: str, url: str) -> tuple[str, dict[str, str | int]]:
    """Name and attributes, by OpenTelemetry's conventions for clients. The URL may be one that an upstream has made."""
    attributes: dict[str, str | int] = {"http.request.method": method}
    try:
        parts = urlsplit(url)
        attributes |= {"server.address": parts.hostname or "", "url.path": parts.path, "url.scheme": parts.scheme}
        if parts.port is not None:
            attributes["server.port"] = parts.port
    except ValueError:
        pass  # whoever sends it says what is wrong with it
    return f"{method} {attributes.get('server.address', '')}".rstrip(), attributes

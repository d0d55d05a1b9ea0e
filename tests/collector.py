"""An OTLP collector on a socket, which keeps the spans that it is sent; and reading them."""

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.types import ASGIApp

from registry.serving.lifespan import lifespan
from tests.api import Api


class Collector:
    """What was sent to it. url: for OTEL_EXPORTER_OTLP_ENDPOINT."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []
        self.service = ""

    def take(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            for each in resource.resource.attributes:
                if each.key == "service.name":
                    self.service = each.value.string_value
            for scope in resource.scope_spans:
                self.spans += scope.spans

    def all(self, name: str) -> list[Span]:
        """Those of that name, in the order in which they began."""
        return sorted((span for span in self.spans if span.name == name), key=lambda span: span.start_time_unix_nano)

    def one(self, name: str) -> Span:
        (found,) = self.all(name)
        return found

    def below(self, parent: Span) -> list[Span]:
        """What it has caused itself, in the order in which it began."""
        found = [span for span in self.spans if span.parent_span_id == parent.span_id]
        assert all(span.trace_id == parent.trace_id for span in found)
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@contextmanager
def collecting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Whatever application is made meanwhile sends its spans there, when it ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Collector(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[Api]:
    """Its client. At the end the application ends as well, and its spans have arrived."""
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield Api(client)


def attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}

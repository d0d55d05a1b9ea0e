"""Traces: off unless OpenTelemetry's variables ask for them; spans arrive at a collector that speaks OTLP."""

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.types import ASGIApp

from registry.app import create_app
from registry.config import Config, ConfigError, StorageConfig
from registry.tracing import traced

IN_MEMORY = StorageConfig(driver="inmemory", parameters={})
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


class Collector:
    """What an OTLP collector has been sent."""

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


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
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
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def attributes(span: Span) -> dict[str, object]:
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"OTEL_SERVICE_NAME": "moorage"},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://192.0.2.1:4318"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_off_unless_asked_for(environ: dict[str, str]) -> None:
    app = create_app(Config(storage=IN_MEMORY))
    assert traced(app, environ) is app


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_cannot_be_stops_the_start(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        traced(create_app(Config(storage=IN_MEMORY)), environ)


@pytest.mark.slow
async def test_spans_arrive(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_SERVICE_NAME", "moorage-here")
    app = create_app(Config(storage=IN_MEMORY))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        await client.get("/v2/")
        missing = await client.get(
            "/v2/a/b/manifests/latest?_state=secret",
            headers={"Traceparent": f"00-{TRACE}-{PARENT}-01", "Authorization": "Basic c2VjcmV0", "User-Agent": "me"},
        )
        await asyncio.gather(*(client.head("/v2/a/b/blobs/sha256:" + "0" * 64) for _ in range(3)))
    await ended(app)
    assert collector.service == "moorage-here"
    names = sorted(span.name for span in collector.spans)
    assert names == ["GET base", "GET manifest", "HEAD blob", "HEAD blob", "HEAD blob"]
    (span,) = (span for span in collector.spans if span.name == "GET manifest")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    seen = attributes(span)
    assert seen["url.path"] == "/v2/a/b/manifests/latest"
    assert seen["http.response.status_code"] == 404
    assert seen["http.request.id"] == missing.headers["X-Request-Id"]
    assert seen["user_agent.original"] == "me"
    assert "secret" not in str(collector.spans)
    assert "c2VjcmV0" not in str(collector.spans)
    assert span.status.code == Status.STATUS_CODE_UNSET


async def ended(app: ASGIApp) -> None:
    """The lifespan, whose end sends what is left."""
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> dict[str, str]:
        return next(messages)

    async def send(message: object) -> None:
        pass

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)

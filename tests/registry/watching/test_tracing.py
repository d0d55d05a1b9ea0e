"""Traces: off unless OpenTelemetry's variables ask for them; spans arrive at a collector that speaks OTLP."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from starlette.types import Receive, Scope, Send

from registry.app import create_app
from registry.config import Config, ConfigError, StorageConfig
from registry.watching.spans import NONE, asking, begin_span
from registry.watching.spans import Span as RegistrySpan
from registry.watching.tracing import tracing
from registry.watching.watched_driver import WatchedDriver
from storage.driver import CallSeen, ObjectInfo
from storage.drivers.memory import MemoryDriver
from storage.errors import ObjectNotFound, Unavailable
from tests.collector import Collector, attributes, collecting, running

IN_MEMORY = StorageConfig(driver="inmemory", parameters={})
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
STORAGE = "io.cncf.distribution.storage."


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as found:
        yield found


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
    assert tracing(environ) is None


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({"OTEL_TRACES_EXPORTER": "jaeger"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ],
)
def test_what_cannot_be_stops_the_start(environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        tracing(environ)


@pytest.mark.slow
def test_off_costs_no_import() -> None:
    code = """
import sys
from registry.app import create_app
from registry.config import Config, StorageConfig
create_app(Config(storage=StorageConfig(driver="inmemory", parameters={})))
unwanted = ("opentelemetry", "registry.watching.otel", "registry.metrics")
assert not [name for name in sys.modules if name.startswith(unwanted)]
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={})


def test_outside_of_a_request_there_are_none() -> None:
    assert begin_span("Stat", {}) is NONE
    with asking("GET", "http://example.test/v2/") as answered:
        answered(200)
    with NONE.current():
        NONE.set("a", 1)
        NONE.fail("b")
        NONE.wait()
    NONE.end()


@pytest.mark.slow
async def test_spans_arrive(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "moorage-here")
    async with running(create_app(Config(storage=IN_MEMORY))) as api:
        await api.get("/v2/")
        missing = await api.get(
            "/v2/a/b/manifests/latest?_state=secret",
            Traceparent=f"00-{TRACE}-{PARENT}-01",
            Authorization="Basic c2VjcmV0",
            User_Agent="me",
        )
        await asyncio.gather(*(api.http.head("/v2/a/b/blobs/sha256:" + "0" * 64) for _ in range(3)))
    assert collector.service == "moorage-here"
    names = sorted(span.name for span in collector.spans if span.kind == Span.SPAN_KIND_SERVER)
    assert names == ["GET base", "GET manifest", "HEAD blob", "HEAD blob", "HEAD blob"]
    span = collector.one("GET manifest")
    assert (span.trace_id.hex(), span.parent_span_id.hex(), span.kind) == (TRACE, PARENT, Span.SPAN_KIND_SERVER)
    seen = attributes(span)
    assert seen["url.path"] == "/v2/a/b/manifests/latest"
    assert seen["http.response.status_code"] == 404
    assert seen["http.response.body.size"] == len(missing.content)
    assert seen["http.request.id"] == missing.headers["X-Request-Id"]
    assert seen["user_agent.original"] == "me"
    assert "secret" not in str(collector.spans)
    assert "c2VjcmV0" not in str(collector.spans)
    assert span.status.code == Status.STATUS_CODE_UNSET


@pytest.mark.slow
async def test_a_push_and_what_it_causes_in_the_store(collector: Collector) -> None:
    async with running(create_app(Config(storage=IN_MEMORY))) as api:
        digest = await api.push_blob("a/b", b"12345")
        await api.get(f"/v2/a/b/blobs/{digest}")
    put, get = collector.one("PUT upload"), collector.one("GET blob")
    assert {"Append", "Publish", "PutContent"} <= {span.name for span in collector.below(put)}
    data = f"/docker/registry/v2/blobs/sha256/{digest[7:9]}/{digest[7:]}/data"
    (opened,) = (span for span in collector.below(get) if span.name == "Reader")
    assert attributes(opened) == {
        f"{STORAGE}driver.name": "inmemory",
        f"{STORAGE}path": data,
        f"{STORAGE}outcome": "ok",
    }
    for span in collector.below(put) + collector.below(get):
        assert put.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
    (looked,) = (span for span in collector.below(collector.one("PUT upload")) if span.name == "Append")
    assert looked.status.code == Status.STATUS_CODE_UNSET


async def trace(collector: Collector, work: Callable[[], Awaitable[None]], times: int = 1) -> None:
    """Requests that are nothing but this work."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            for event in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{event}.complete"})
            return
        await work()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    wrap = tracing({"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
    assert wrap is not None
    async with running(wrap(app)) as api:
        for _ in range(times):
            await api.get("/v2/")


@pytest.mark.slow
async def test_faults_of_a_store_are_errors_and_what_is_missing_is_none(collector: Collector) -> None:
    class Failing(MemoryDriver):
        def watch_calls(self, seen: CallSeen) -> None:
            self.seen = seen

        async def head(self, key: str) -> ObjectInfo:
            self.seen("HeadObject", 503, 0.5)
            self.seen("HeadObject", 404, 0.001)
            raise Unavailable("https://store.example?X-Amz-Signature=s3cret")

    driver = WatchedDriver(Failing(), "s3aws", None, traced=True)

    async def work() -> None:
        with pytest.raises(ObjectNotFound):
            await driver.read("a/b")
        with pytest.raises(Unavailable):
            await driver.head("a/b")
        assert [each async for each in driver.list_objects("a")] == []

    await trace(collector, work)
    read, head = collector.one("GetContent"), collector.one("Stat")
    assert (attributes(read)[f"{STORAGE}outcome"], read.status.code) == ("missing", Status.STATUS_CODE_UNSET)
    assert (attributes(head)["error.type"], head.status.code) == ("failed", Status.STATUS_CODE_ERROR)
    first, second = collector.below(head)
    assert (attributes(first)["error.type"], first.status.code) == ("503", Status.STATUS_CODE_ERROR)
    assert first.end_time_unix_nano - first.start_time_unix_nano >= 0.5e9
    assert second.status.code == Status.STATUS_CODE_UNSET
    assert attributes(collector.one("List"))[f"{STORAGE}path"] == "/a"
    assert "s3cret" not in str(collector.spans)


@pytest.mark.slow
async def test_no_link_stands_twice(collector: Collector) -> None:
    shared: list[RegistrySpan] = []

    async def work() -> None:
        if not shared:
            shared.append(begin_span("fetch", {}))
        for _ in range(2):
            shared[0].wait()

    await trace(collector, work, 4)
    shared[0].end()
    shared[0].end()  # once more is nothing
    shared[0].wait()
    first, *others = collector.all("GET")
    assert not first.links
    assert [len(span.links) for span in others] == [1, 1, 1]
    assert {span.links[0].span_id for span in others} == {others[0].links[0].span_id}


@pytest.mark.slow
async def test_an_upstream_that_fails_is_an_error(collector: Collector) -> None:
    async def work() -> None:
        with asking("GET", "https://user:s3cret@hub.example:444/v2/?scope=s3cret#s3cret") as answered:
            answered(503)

    await trace(collector, work)
    span = collector.one("GET hub.example")
    assert attributes(span) == {
        "http.request.method": "GET",
        "server.address": "hub.example",
        "server.port": 444,
        "url.path": "/v2/",
        "url.scheme": "https",
        "http.response.status_code": 503,
        "error.type": "503",
    }
    assert "s3cret" not in str(collector.spans)


@pytest.mark.slow
async def test_an_error_that_passes_says_nothing_of_itself(collector: Collector) -> None:
    """What it says, and what its cause says, may be a signed URL."""

    async def work() -> None:
        with asking("GET", "https://store.example/blob?X-Amz-Signature=s3cret"):
            raise OSError("https://store.example/blob?X-Amz-Signature=s3cret")

    with pytest.raises(OSError, match="s3cret"):
        await trace(collector, work)
    request = collector.one("GET")
    (asked,) = collector.below(request)
    assert (asked.name, asked.kind) == ("GET store.example", Span.SPAN_KIND_CLIENT)
    assert attributes(asked)["url.path"] == "/blob"
    for span in (request, asked):
        assert (attributes(span)["error.type"], span.status.code) == ("OSError", Status.STATUS_CODE_ERROR)
        assert not span.events
    assert "s3cret" not in str(collector.spans)


@pytest.mark.slow
async def test_what_is_no_url_is_for_whoever_sends_it(collector: Collector) -> None:
    async def work() -> None:
        with asking("GET", "http://[::1"):
            pass

    await trace(collector, work)
    assert len(collector.below(collector.all("GET")[0])) == 1

"""Traces of a cold pull: what a request asks of upstreams is below it, and no secret is in any span."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from registry.app import create_app
from registry.config import Config
from registry.config.model import CacheConfig, CacheRangesConfig, StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.watching.otel import OtelSpan
from tests.api import Api
from tests.collector import Collector, attributes, collecting, running

from . import scripted as act
from .scripted import Exchange, Scripted

pytestmark = pytest.mark.slow

NAME = "team/app"
DATA = bytes(range(256)) * 2000
USER, PASSWORD = "robot", "the-password-of-the-test"
SIGNED = "/store/blob?X-Amz-Signature=5ec2e7&X-Amz-Credential=AKIAKEY&X-Amz-Security-Token=5e55i0n"
SECRETS = ("5ec2e7", "AKIAKEY", "5e55i0n", "X-Amz", PASSWORD, "token-", "scope=", "Bearer", "Basic")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as found:
        yield found


def cache_of(hub: Scripted) -> Config:
    hub.login, hub.users, hub.anonymous = "bearer", {USER: PASSWORD}, False
    upstream = UpstreamConfig(
        url=hub.url, name="hub", username=USER, password=PASSWORD, default=True, privatenetworks=True
    )
    return Config(storage=StorageConfig(driver="inmemory", parameters={}), upstreams=(upstream,))


def described(span: Span) -> tuple[str, object, object]:
    seen = attributes(span)
    return span.name, seen["url.path"], seen.get("http.response.status_code")


async def get_blob(api: Api, digest: object) -> bytes:
    answer = await api.get(f"/v2/{NAME}/blobs/{digest}")
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_a_cold_pull(hub: Scripted, other: Scripted, collector: Collector) -> None:
    hub.image(NAME, "v1")
    digest = hub.blob(NAME, DATA)
    app = create_app(cache_of(hub))
    hub.on("GET", f"/v2/{NAME}/blobs/", act.redirect(other.url + SIGNED))
    other.on("GET", "/store/", act.data(DATA))
    async with running(app) as api:
        assert (await api.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
        assert await get_blob(api, digest) == DATA
    host, manifest = "127.0.0.1", collector.one("GET manifest")
    asked = [described(span) for span in collector.spans if span.kind == Span.SPAN_KIND_CLIENT]
    place = f"/v2/{NAME}/manifests/v1"
    assert sorted(asked[:3], key=str) == sorted(
        [(f"GET {host}", place, 401), (f"GET {host}", "/token", 200), (f"GET {host}", place, 200)], key=str
    )
    assert all(
        span.trace_id == manifest.trace_id for span in collector.spans if attributes(span).get("url.path") == place
    )
    fetch = collector.one("fetch blob")
    assert fetch.parent_span_id == collector.one("GET blob").span_id
    assert attributes(fetch) == {"digest": str(digest), "repository": f"hub/{NAME}"}
    below = [span for span in collector.below(fetch) if span.kind == Span.SPAN_KIND_CLIENT]
    assert [described(span) for span in below] == [
        (f"GET {host}", f"/v2/{NAME}/blobs/{digest}", 307),
        (f"GET {host}", "/store/blob", 200),
    ]
    assert attributes(below[1])["server.port"] == other.port
    assert {"WriteContent"} <= {span.name for span in collector.below(fetch)}
    assert not [secret for secret in SECRETS if secret in str(collector.spans)]


async def test_one_fetch_for_two_is_linked_to_the_one_that_waits(
    hub: Scripted, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, go = hub.blob(NAME, DATA), asyncio.Event()
    waits: list[OtelSpan] = []
    app = create_app(cache_of(hub))
    hub.login = ""

    async def gated(exchange: Exchange) -> None:
        await go.wait()
        await act.serve(exchange)

    def waiting(span: OtelSpan) -> None:
        wait(span)
        waits.append(span)
        if len(waits) == 2:
            go.set()

    wait = OtelSpan.wait
    monkeypatch.setattr(OtelSpan, "wait", waiting)
    hub.on("GET", f"/v2/{NAME}/blobs/", gated)
    async with running(app) as api:
        assert set(await asyncio.gather(get_blob(api, digest), get_blob(api, digest))) == {DATA}
    assert hub.count("GET", "/v2/") == 1
    fetch, requests = collector.one("fetch blob"), collector.all("GET blob")
    (first,) = (span for span in requests if span.span_id == fetch.parent_span_id)
    (second,) = (span for span in requests if span is not first)
    assert first.trace_id == fetch.trace_id
    assert first.trace_id != second.trace_id
    assert [(link.trace_id, link.span_id) for link in fetch.links] == [(second.trace_id, second.span_id)]
    assert [(link.trace_id, link.span_id) for link in second.links] == [(fetch.trace_id, fetch.span_id)]


async def test_a_range_is_a_fetch_of_its_own(hub: Scripted, collector: Collector) -> None:
    digest = hub.blob(NAME, DATA)
    app = create_app(replace(cache_of(hub), cache=CacheConfig(ranges=CacheRangesConfig(fillafter=100))))
    hub.login = ""
    async with running(app) as api:
        answer = await api.get(f"/v2/{NAME}/blobs/{digest}", Range="bytes=0-9")
        assert (answer.status_code, answer.content) == (206, DATA[:10])
    fetch = collector.one("fetch range")
    assert fetch.parent_span_id == collector.one("GET blob").span_id
    assert [span.name for span in collector.below(fetch)] == ["GET 127.0.0.1"]


async def test_a_store_that_cannot_be_reached(hub: Scripted, other: Scripted, collector: Collector) -> None:
    """The client's own error quotes the URL."""
    digest = hub.blob(NAME, DATA)
    app = create_app(cache_of(hub))
    hub.on("GET", f"/v2/{NAME}/blobs/", act.redirect(other.url + SIGNED))
    other.on("GET", "/store/", act.reset())
    async with running(app) as api:
        assert (await api.get(f"/v2/{NAME}/blobs/{digest}")).status_code == 502
    fetch = collector.one("fetch blob")
    assert fetch.status.code == Status.STATUS_CODE_ERROR
    failed = [span for span in collector.below(fetch) if attributes(span).get("url.path") == "/store/blob"]
    assert failed
    assert {span.status.code for span in failed} == {Status.STATUS_CODE_ERROR}
    assert {attributes(span)["error.type"] for span in failed} <= {"ClientOSError", "ServerDisconnectedError"}
    assert not [secret for secret in SECRETS if secret in str(collector.spans)]

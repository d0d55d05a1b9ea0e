"""Traces of pulls from S3 and pushes to it: verbs of the driver below the request, requests to S3 below the verbs."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from registry.app import create_app
from tests.api import Api
from tests.collector import Collector, attributes, collecting, running
from tests.s3.registries import config_of
from tests.s3.servers import ADMIN, S3Server

pytestmark = pytest.mark.slow

LAYER = bytes(range(251)) * 24_000
"""5.7 MiB: an upload in parts."""

STORAGE = "io.cncf.distribution.storage."


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting(monkeypatch) as found:
        yield found


@asynccontextmanager
async def registry(server: S3Server, *, redirects: bool = False) -> AsyncIterator[Api]:
    parameters = server.parameters(*server.new_root()) | {"chunksize": 5 << 20}
    async with running(create_app(config_of(parameters, redirects=redirects))) as api:
        yield api


def calls(collector: Collector, request: Span) -> set[tuple[str, str]]:
    """(verb, operation of S3) below a request."""
    return {(verb.name, call.name) for verb in collector.below(request) for call in collector.below(verb)}


async def test_a_push_and_a_pull(seaweedfs: S3Server, collector: Collector) -> None:
    async with registry(seaweedfs) as api:
        await api.push_image("a/b", "v1", (LAYER,))
        manifest = await api.get("/v2/a/b/manifests/v1")
        (layer,) = (each["digest"] for each in manifest.json()["layers"])
        assert (await api.get(f"/v2/a/b/blobs/{layer}")).content == LAYER
    pushed = {pair for span in collector.all("PUT upload") for pair in calls(collector, span)}
    assert {("WriteContent", "UploadPart"), ("PutContent", "PutObject")} <= pushed
    pulled = collector.one("GET blob")
    assert ("Reader", "GetObject") in calls(collector, pulled)
    (opened,) = (span for span in collector.below(pulled) if span.name == "Reader")
    assert attributes(opened)[f"{STORAGE}driver.name"] == "s3aws"
    assert str(attributes(opened)[f"{STORAGE}path"]).endswith(f"{layer[7:]}/data")
    (asked,) = collector.below(opened)
    assert (asked.kind, asked.status.code) == (Span.SPAN_KIND_CLIENT, Status.STATUS_CODE_UNSET)
    assert attributes(asked) == {f"{STORAGE}driver.name": "s3aws", "http.response.status_code": 200}
    assert opened.start_time_unix_nano <= asked.end_time_unix_nano <= opened.end_time_unix_nano


async def test_a_redirect_has_no_signature_in_its_spans(seaweedfs: S3Server, collector: Collector) -> None:
    async with registry(seaweedfs, redirects=True) as api:
        digest = await api.push_blob("a/b", b"12345")
        answer = await api.get(f"/v2/a/b/blobs/{digest}")
    location = answer.headers["Location"]
    assert "X-Amz-Signature" in location
    assert "RedirectURL" in {span.name for span in collector.below(collector.one("GET blob"))}
    said = str(collector.spans)
    for secret in ("X-Amz", location.rpartition("X-Amz-Signature=")[2][:16], ADMIN.access, ADMIN.secret):
        assert secret not in said

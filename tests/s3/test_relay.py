"""The relay in front of moto: it changes nothing, counts all, and fails as it is told to."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.s3.calls import call_of
from tests.s3.http1 import Head
from tests.s3.relay import Fault, Relay, denied, expired, no_bucket, relaying, slow_down
from tests.s3.servers import S3Server

DATA = bytes(range(256)) * 2048


@pytest.fixture
async def relay(moto: S3Server) -> AsyncIterator[Relay]:
    async with Relay(moto.endpoint) as relay:
        yield relay


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """moto checks no signature, but that there is one."""
    signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=any/20260101/us-east-1/s3/aws4_request"}
    async with httpx.AsyncClient(headers=signed, trust_env=False) as session:
        yield session


@pytest.fixture
def url(moto: S3Server, relay: Relay) -> str:
    """Of an object with DATA, by way of the relay."""
    bucket, root = moto.new_root()
    moto.client().put_object(Bucket=bucket, Key=f"{root}/k", Body=DATA)
    return f"{relay.endpoint}/{bucket}/{root}/k"


async def stored(moto: S3Server, url: str) -> bytes:
    bucket, _, key = url.removeprefix("http://").partition("/")[2].partition("/")
    return await asyncio.to_thread(moto.content, bucket, key)


@pytest.mark.parametrize(
    ("line", "operation", "key"),
    [
        ("GET /b/k", "GetObject", "k"),
        ("GET /b/a%2Fk%20x?versionId=1", "GetObject", "a/k x"),
        ("HEAD /b/k", "HeadObject", "k"),
        ("HEAD /b", "HeadBucket", ""),
        ("HEAD /b/", "HeadBucket", ""),
        ("GET /b?list-type=2&prefix=x%2F", "ListObjectsV2", ""),
        ("GET /b?prefix=x", "ListObjects", ""),
        ("GET /b/?uploads", "ListMultipartUploads", ""),
        ("GET /b?location", "GetBucketLocation", ""),
        ("GET /b/k?uploadId=1", "ListParts", "k"),
        ("PUT /b/k", "PutObject", "k"),
        ("PUT /b/k?partNumber=1&uploadId=1", "UploadPart", "k"),
        ("PUT /b/k\r\nx-amz-copy-source: b/l", "CopyObject", "k"),
        ("PUT /b/k?partNumber=1&uploadId=1\r\nX-Amz-Copy-Source: b/l", "UploadPartCopy", "k"),
        ("PUT /b", "CreateBucket", ""),
        ("POST /b/k?uploads", "CreateMultipartUpload", "k"),
        ("POST /b/k?uploadId=1", "CompleteMultipartUpload", "k"),
        ("POST /b?delete", "DeleteObjects", ""),
        ("DELETE /b/k", "DeleteObject", "k"),
        ("DELETE /b/k?uploadId=1", "AbortMultipartUpload", "k"),
        ("DELETE /b", "DeleteBucket", ""),
        ("OPTIONS /b", "Unknown", ""),
    ],
)
def test_operations_have_their_names(line: str, operation: str, key: str) -> None:
    first, *more = line.split("\r\n")
    call = call_of(Head("\r\n".join([f"{first} HTTP/1.1", "Host: h", *more, "", ""]).encode()))
    assert (call.operation, call.bucket, call.key) == (operation, "b", key)


async def test_nothing_is_changed_and_all_is_counted(relay: Relay, http: httpx.AsyncClient, url: str) -> None:
    assert (await http.get(url)).content == DATA
    part = await http.get(url, headers={"Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, DATA[5:10])
    assert (await http.head(url)).headers["Content-Length"] == str(len(DATA))
    assert (await http.put(url, content=b"new")).status_code == 200
    assert (await http.get(f"{url}-none")).status_code == 404
    assert [(call.operation, call.status) for call in relay.calls] == [
        ("GetObject", 200),
        ("GetObject", 206),
        ("HeadObject", 200),
        ("PutObject", 200),
        ("GetObject", 404),
    ]
    assert relay.counts()["GetObject"] == 3


@pytest.mark.slow
def test_signatures_hold(seaweedfs: S3Server) -> None:
    """SeaweedFS checks them, and the host is signed."""
    bucket = seaweedfs.new_bucket()
    with relaying(seaweedfs.endpoint) as relay:
        client = seaweedfs.client(endpoint=relay.endpoint)
        client.put_object(Bucket=bucket, Key="k", Body=DATA)
        assert client.get_object(Bucket=bucket, Key="k")["Body"].read() == DATA
        assert client.list_objects_v2(Bucket=bucket)["KeyCount"] == 1
        with relay.counting() as calls:
            client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": "k"}]})
        assert [call.operation for call in calls] == ["DeleteObjects"]
        assert seaweedfs.keys_of(bucket) == []
        assert relay.connections == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (slow_down(), "SlowDown", 503),
        (denied(), "AccessDenied", 403),
        (denied(code="RequestTimeTooSkewed"), "RequestTimeTooSkewed", 403),
        (expired(), "ExpiredToken", 400),
        (no_bucket(), "NoSuchBucket", 404),
        (Fault("answer", status=500, code="InternalError"), "InternalError", 500),
    ],
)
async def test_errors_are_answered_in_the_stores_place(
    relay: Relay, moto: S3Server, url: str, fault: Fault, code: str, status: int
) -> None:
    relay.inject(fault)
    client = moto.client(endpoint=relay.endpoint)

    def put() -> None:
        client.put_object(Bucket="shared", Key="other", Body=DATA)

    with pytest.raises(ClientError) as caught:
        await asyncio.to_thread(put)
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    assert relay.calls[-1].stored is None
    await asyncio.to_thread(put)  # once, by default


async def test_a_fault_comes_at_its_call_and_its_operation(relay: Relay, http: httpx.AsyncClient, url: str) -> None:
    fault = relay.inject(Fault("answer", call=2, times=2, operations=frozenset({"GetObject"})))
    statuses = []
    for method in ("GET", "HEAD", "GET", "HEAD", "GET", "GET"):
        statuses.append((await http.request(method, url)).status_code)
    assert statuses == [200, 200, 503, 200, 503, 200]
    assert (fault.counted, fault.fired) == (4, 2)
    relay.clear()
    relay.inject(Fault("answer", where=lambda call: call.key.endswith("-b")))
    for name, status in (("-a", 404), ("-b", 503)):
        assert (await http.get(url + name)).status_code == status


@pytest.mark.parametrize(
    ("kind", "done"), [("reset-before", False), ("cut", False), ("dead", False), ("reset-after", True)]
)
async def test_a_reset_and_what_the_store_did(
    relay: Relay, http: httpx.AsyncClient, moto: S3Server, url: str, kind: Any, done: bool
) -> None:
    relay.inject(Fault(kind))
    with pytest.raises(httpx.TransportError):
        await http.put(url, content=DATA + b"new")
    assert (await stored(moto, url) == DATA + b"new") == done
    assert relay.calls[0].status is None
    assert (await http.get(url)).status_code == 200  # and then all is well


async def test_an_answer_after_the_store_did_it(
    relay: Relay, http: httpx.AsyncClient, moto: S3Server, url: str
) -> None:
    relay.inject(Fault("answer-after", status=500, code="InternalError"))
    assert (await http.put(url, content=b"new")).status_code == 500
    assert await stored(moto, url) == b"new"
    assert (relay.calls[0].status, relay.calls[0].stored) == (500, 200)


@pytest.mark.parametrize("kind", ["short", "broken"])
async def test_half_a_body(relay: Relay, http: httpx.AsyncClient, url: str, kind: Any) -> None:
    relay.inject(Fault(kind))
    got = bytearray()

    async def read(answer: httpx.Response) -> None:
        async for piece in answer.aiter_raw():
            got.extend(piece)

    async with http.stream("GET", url) as answer:
        assert answer.headers["Content-Length"] == str(len(DATA))
        with pytest.raises(httpx.TransportError):
            await read(answer)
    assert DATA.startswith(got)
    if kind == "short":
        assert len(got) == len(DATA) // 2


@pytest.mark.parametrize("kind", ["stall", "stall-after", "stall-body"])
async def test_a_stall_lasts_until_the_client_gives_up(
    relay: Relay, http: httpx.AsyncClient, url: str, kind: Any
) -> None:
    relay.inject(Fault(kind))
    with pytest.raises(httpx.ReadTimeout):
        await http.get(url, timeout=0.1)
    assert (await http.get(url)).content == DATA


async def test_a_client_that_leaves_in_the_middle_is_a_cut(relay: Relay, moto: S3Server, url: str) -> None:
    host, port = relay.endpoint.removeprefix("http://").split(":")
    path = url.removeprefix(relay.endpoint)
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n".encode() + b"half")
    await writer.drain()
    writer.close()
    with contextlib.suppress(ConnectionError):
        assert await reader.read() == b""  # the relay has let go of both
    assert await stored(moto, url) == DATA


@pytest.mark.slow
async def test_latency_and_rate(moto: S3Server, http: httpx.AsyncClient, url: str) -> None:
    async with Relay(moto.endpoint, latency=0.1, rate=5e6) as slow:
        start = time.monotonic()
        async with http.stream("GET", slow.endpoint + "/" + url.split("/", 3)[3]) as answer:
            headers = time.monotonic() - start
            assert await answer.aread() == DATA
        whole = time.monotonic() - start
    assert headers >= 0.1
    assert whole >= 0.1 + len(DATA) / 5e6 - PIECE_SECONDS


PIECE_SECONDS = (1 << 18) / 5e6
"""The last piece is paid for after it was sent."""

"""RestBucket: every verb on real servers; what is sent, repeated and refused on a scripted one."""

import asyncio
import logging
import os
import ssl
import time
import urllib.error
import urllib.request
import zlib
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import formatdate
from hashlib import md5, sha256
from pathlib import Path
from typing import Any

import pytest
import trustme

from storage.driver import LARGEST_NOTE
from storage.drivers.s3 import calls
from storage.drivers.s3.bucket import Body, Part, PerhapsOurs, UploadGone
from storage.drivers.s3.calls import Retries
from storage.drivers.s3.clock import StoreClock
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.errors import ObjectNotFound, PreconditionFailed, RangeNotSatisfiable, Unavailable
from storage.ranges import ByteRange
from tests.ports import free_ports
from tests.s3.servers import S3Server
from tests.storage.s3.scripted import AT_ONCE, DROP, HANG, Captured, Reply, bucket_over, fault, scripted

MIB = 1 << 20
ONE = "<CompleteMultipartUploadResult/>"


@pytest.fixture
async def bucket(s3_server: S3Server) -> AsyncIterator[RestBucket]:
    """On each real server, an empty bucket's worth of keys below the test's own root."""
    name, root = s3_server.new_root()
    made = RestBucket(S3Settings.parse(s3_server.parameters(name, root)))
    made.root = root  # type: ignore[attr-defined]
    yield made
    await made.aclose()


def key(bucket: RestBucket, name: str) -> str:
    root: str = bucket.root  # type: ignore[attr-defined]
    return f"{root}/{name}"


async def content(bucket: RestBucket, name: str, start: int | None = None, stop: int | None = None) -> bytes:
    body = await bucket.get(name, start, stop)
    found = b"".join([chunk async for chunk in body.chunks()])
    await body.aclose()
    assert len(found) == len(body.span)
    return found


# On real servers


@pytest.mark.slow
async def test_objects(bucket: RestBucket, s3_server: S3Server) -> None:
    name = key(bucket, "a b+ü/x~_-.")
    etag = await bucket.put(name, b"0123456789", sha256=sha256(b"0123456789").digest())
    head = await bucket.head(name)
    assert (head.size, head.etag) == (10, etag)
    assert abs(head.date - head.modified) < 60
    assert abs(await bucket.date() - head.date) < 60
    for start, stop, expected in [
        (None, None, b"0123456789"),
        (0, 10, b"0123456789"),
        (2, 5, b"234"),
        (7, None, b"789"),
        (7, 99, b"789"),
        (-3, None, b"789"),
        (-99, None, b"0123456789"),
    ]:
        assert await content(bucket, name, start, stop) == expected
    body = await bucket.get(name, 2, 5)
    assert (body.span, body.head.size, body.head.etag) == (ByteRange(2, 5), 10, etag)
    filled = bytearray(3)
    await body.readinto(memoryview(filled))
    assert filled == b"234"
    await body.aclose()
    for start, stop in [(10, None), (10, 20)]:
        with pytest.raises(RangeNotSatisfiable) as caught:
            await bucket.get(name, start, stop)
        assert caught.value.size == 10
    await bucket.delete(name)
    await bucket.delete(name)
    for verb in (bucket.head, bucket.get):
        with pytest.raises(ObjectNotFound):
            await verb(name)


async def test_an_empty_object(bucket: RestBucket) -> None:
    name = key(bucket, "empty")
    await bucket.put(name, b"")
    assert (await content(bucket, name), (await bucket.head(name)).size) == (b"", 0)
    for start in (0, -1):
        with pytest.raises(RangeNotSatisfiable) as caught:
            await bucket.get(name, start)
        assert caught.value.size == 0


async def test_conditions(bucket: RestBucket, s3_server: S3Server) -> None:
    name = key(bucket, "k")
    first = await bucket.put(name, b"one", if_absent=True)
    for condition in ({"if_absent": True}, {"if_match": '"0123456789abcdef0123456789abcdef"'}):
        with pytest.raises(PreconditionFailed):
            await bucket.put(name, b"two", **condition)
    with pytest.raises(PreconditionFailed):
        await bucket.put(key(bucket, "absent"), b"two", if_match=first)
    assert await content(bucket, name) == b"one"
    second = await bucket.put(name, b"two", if_match=first)
    if s3_server.name != "minio":  # which takes no condition of a delete
        with pytest.raises(PreconditionFailed):
            await bucket.delete(name, if_match=first)
    await bucket.delete(name, if_match=second)
    with pytest.raises(ObjectNotFound):
        await bucket.head(name)


async def test_a_wrong_digest_is_refused(seaweedfs: S3Server) -> None:
    name, root = seaweedfs.new_root()
    bucket = RestBucket(S3Settings.parse(seaweedfs.parameters(name)), retries=AT_ONCE)
    with pytest.raises(Unavailable):
        await bucket.put(f"{root}/k", b"data", sha256=sha256(b"other").digest())
    with pytest.raises(ObjectNotFound):
        await bucket.head(f"{root}/k")
    await bucket.aclose()


async def test_copies(bucket: RestBucket) -> None:
    source, target = key(bucket, "a/so ürce+"), key(bucket, "b/target")
    await bucket.put(source, b"bytes")
    await bucket.copy(source, target, size=5)
    await bucket.copy(target, target, size=5)
    assert await content(bucket, target) == b"bytes"
    with pytest.raises(ObjectNotFound):
        await bucket.copy(key(bucket, "none"), target, size=5)


async def test_notes(bucket: RestBucket) -> None:
    """They come with every answer about the object, until it is written without one."""
    name, note = key(bucket, "noted"), "+/" + "a" * (LARGEST_NOTE - 3) + "="
    await bucket.put(name, b"bytes", note=note)
    for noted in (True, False):
        for _ in range(2):
            body = await bucket.get(name, 0, 1)
            await body.aclose()
            assert body.head.note == (await bucket.head(name)).note == (note if noted else "")
            await bucket.copy(name, name, size=5, note=note if noted else "")
        await bucket.put(name, b"bytes")


async def test_lists(bucket: RestBucket) -> None:
    names = ["l/a", "l/b/c", "l/b/d", "l/e f+%"]
    for name in names:
        await bucket.put(key(bucket, name), b"x")
    page = await bucket.list_page(key(bucket, "l/"))
    assert ([each.key for each in page.objects], page.token) == ([key(bucket, name) for name in names], None)
    assert {each.size for each in page.objects} == {1}
    page = await bucket.list_page(key(bucket, "l/"), delimiter="/", after=key(bucket, "l/a"))
    assert [each.key for each in page.objects] == [key(bucket, "l/e f+%")]
    assert page.prefixes == [key(bucket, "l/b/")]
    found: list[str] = []
    token = None
    while True:
        page = await bucket.list_page(key(bucket, "l/"), token=token, limit=3)
        found += [each.key for each in page.objects]
        if (token := page.token) is None:
            break
    assert found == [key(bucket, name) for name in names]
    await bucket.delete_many([key(bucket, name) for name in [*names, "l/none"]])
    assert (await bucket.list_page(key(bucket, "l/"))).objects == []


@pytest.mark.slow
async def test_uploads(bucket: RestBucket) -> None:
    name, big = key(bucket, "m"), os.urandom(5 * MIB)
    id = await bucket.create_upload(name)
    first = await bucket.upload_part(name, id, 1, memoryview(big))
    with pytest.raises(ObjectNotFound):
        await bucket.head(name)
    second = await bucket.upload_part(name, id, 2, bytearray(b"tail"))
    listed = await bucket.list_parts(name, id)
    assert [(part.number, part.size, part.etag) for part in listed] == [
        (1, 5 * MIB, first.etag),
        (2, 4, second.etag),
    ]
    assert [(each.key, each.id) for each in await bucket.list_uploads(name)] == [(name, id)]
    await bucket.complete_upload(name, id, [first, second], if_absent=True)
    assert await content(bucket, name) == big + b"tail"
    assert await bucket.list_uploads(name) == []
    await bucket.delete(name)


@pytest.mark.slow
async def test_parts_that_are_copied(bucket: RestBucket) -> None:
    source, target, big = key(bucket, "source"), key(bucket, "target"), os.urandom(10 * MIB + 7)
    await bucket.put(source, big)
    id = await bucket.create_upload(target, checksums=False)
    parts = [
        await bucket.copy_part(target, id, 1, source, ByteRange(1, 5 * MIB + 1)),
        await bucket.copy_part(target, id, 2, source, ByteRange(5 * MIB + 1, 10 * MIB + 7)),
        await bucket.upload_part(target, id, 3, b"more", checksum=False),
    ]
    assert [part.size for part in parts] == [5 * MIB, 5 * MIB + 6, 4]
    await bucket.complete_upload(target, id, parts)
    assert await content(bucket, target) == big[1:] + b"more"


async def test_more_parts_than_one_list_has(bucket: RestBucket) -> None:
    """A session of many parts is found again whole, by whoever goes on with it."""
    name, data = key(bucket, "many"), [bytes([n % 251]) * (n % 7 + 1) for n in range(1, 1102)]
    id = await bucket.create_upload(name)
    side_by_side = asyncio.Semaphore(16)

    async def send(number: int) -> Part:
        async with side_by_side:
            return await bucket.upload_part(name, id, number, data[number - 1])

    sent = await asyncio.gather(*(send(number) for number in range(1, len(data) + 1)))
    found = await bucket.list_parts(name, id)
    assert [(part.number, part.size, part.etag) for part in found] == [(p.number, p.size, p.etag) for p in sent]
    await bucket.abort_upload(name, id)


@pytest.mark.slow
async def test_uploads_that_are_gone(seaweedfs: S3Server) -> None:
    name, root = seaweedfs.new_root()
    bucket = RestBucket(S3Settings.parse(seaweedfs.parameters(name)))
    target = f"{root}/k"
    id = await bucket.create_upload(target)
    part = await bucket.upload_part(target, id, 1, b"x")
    await bucket.abort_upload(target, id)
    await bucket.abort_upload(target, id)
    with pytest.raises(UploadGone):
        await bucket.upload_part(target, id, 1, b"x")
    with pytest.raises(UploadGone):
        await bucket.list_parts(target, id)
    with pytest.raises(UploadGone):
        await bucket.complete_upload(target, id, [part])
    await bucket.aclose()


async def test_a_presigned_url_opens(seaweedfs: S3Server) -> None:
    name, root = seaweedfs.new_root()
    bucket = RestBucket(S3Settings.parse(seaweedfs.parameters(name)))
    await bucket.put(f"{root}/a b", b"bytes")
    for method in ("GET", "HEAD"):
        url = await bucket.presign(f"{root}/a b", method, 60)
        assert url == await bucket.presign(f"{root}/a b", method, 60)
        request = urllib.request.Request(url, method=method)
        with await asyncio.to_thread(urllib.request.urlopen, request) as answer:
            assert answer.headers["Content-Length"] == "5"
    request = urllib.request.Request(await bucket.presign(f"{root}/a b", "GET", 60), method="HEAD")
    with pytest.raises(urllib.error.HTTPError) as caught:
        await asyncio.to_thread(urllib.request.urlopen, request)
    assert caught.value.code == 403
    caught.value.close()
    await bucket.aclose()


@pytest.mark.parametrize("verb", ["head", "get"])
async def test_a_missing_bucket_is_a_fault(verb: str, s3_server: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    bucket = RestBucket(S3Settings.parse(s3_server.parameters("no-such-bucket")), retries=AT_ONCE)
    with pytest.raises(Unavailable):
        await getattr(bucket, verb)("k")
    assert "there is no such bucket: create it, or correct bucket and region" in caplog.text
    await bucket.aclose()


async def test_a_bucket_that_goes_is_a_fault_too() -> None:
    """It was there: an answer of 404 to HEAD, which has no code, is believed until somebody has said otherwise."""
    async with bucket_over(lambda _: Reply()) as (bucket, store):
        await bucket.head("k")
        store.script = [fault(404, "NoSuchBucket")]
        for verb in (bucket.get, bucket.head, bucket.head):
            with pytest.raises(Unavailable):
                await verb("k")
        store.script = [fault(404, "NoSuchKey")]
        with pytest.raises(ObjectNotFound):
            await bucket.head("k")


async def test_a_user_who_may_read_only(seaweedfs: S3Server, caplog: pytest.LogCaptureFixture) -> None:
    name, root = seaweedfs.new_root()
    bucket = RestBucket(S3Settings.parse(seaweedfs.parameters(name, keys=seaweedfs.reader)), retries=AT_ONCE)
    with pytest.raises(ObjectNotFound):
        await bucket.head(f"{root}/none")
    assert (await bucket.list_page(f"{root}/")).objects == []
    with pytest.raises(Unavailable):
        await bucket.put(f"{root}/k", b"x")
    assert "403 AccessDenied" in caplog.text
    assert "allow s3:PutObject on the bucket" in caplog.text
    await bucket.aclose()


# What is sent


def sent(store: object) -> Captured:
    (request,) = store.asked  # type: ignore[attr-defined]
    assert isinstance(request, Captured)
    return request


def answer(request: Captured) -> Reply:
    """Something that each verb can read."""
    if request.method == "POST" and "uploads" in request.query:
        return Reply(body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
    if request.method == "POST":
        return Reply(body=b"<DeleteResult/>" if "delete" in request.query else ONE.encode())
    if "list-type" in request.query:
        return Reply(body=b"<ListBucketResult/>")
    return Reply(body=b"<CopyObjectResult/>" if "x-amz-copy-source" in request.headers else b"")


async def test_what_every_request_carries() -> None:
    async with bucket_over(answer, useragent="fleet/7", sessiontoken="T") as (bucket, store):
        await bucket.list_page("p")
    headers = sent(store).headers
    assert headers["user-agent"] == "moorage fleet/7"
    assert headers["accept-encoding"] == "identity"
    assert headers["x-amz-content-sha256"] == "UNSIGNED-PAYLOAD"
    assert headers["x-amz-security-token"] == "T"
    assert headers["host"] == f"127.0.0.1:{store.port}"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AK/")
    assert "accept" not in headers


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, {}),
        ({"storageclass": "STANDARD", "objectacl": "private"}, {}),
        ({"storageclass": "none"}, {}),
        ({"storageclass": "standard_ia"}, {"x-amz-storage-class": "STANDARD_IA"}),
        ({"objectacl": "bucket-owner-full-control"}, {"x-amz-acl": "bucket-owner-full-control"}),
        ({"encrypt": True}, {"x-amz-server-side-encryption": "AES256"}),
        (
            {"encrypt": True, "keyid": "arn:k"},
            {
                "x-amz-server-side-encryption": "aws:kms",
                "x-amz-server-side-encryption-aws-kms-key-id": "arn:k",
            },
        ),
    ],
)
async def test_what_an_object_is_made_with(parameters: dict[str, Any], expected: dict[str, str]) -> None:
    async with bucket_over(answer, **parameters) as (bucket, store):
        await bucket.put("k", b"x")
        await bucket.create_upload("k")
        await bucket.copy("a", "k", size=1)
    names = ("x-amz-storage-class", "x-amz-acl", "x-amz-server-side-encryption")
    for request in store.asked:
        found = {name: value for name, value in request.headers.items() if name.startswith(names)}
        assert found == expected
        assert request.headers["content-type"] == "application/octet-stream"
        signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        assert set(expected) <= set(signed)


@pytest.mark.parametrize("size", [0, 5, 300 << 10, 3 * MIB])
async def test_checksums(size: int) -> None:
    data = os.urandom(size)
    crc = b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()
    async with bucket_over(answer) as (bucket, store):
        await bucket.put("k", data)
        await bucket.put("k", data, sha256=sha256(data).digest())
        await bucket.upload_part("k", "u", 1, data)
        await bucket.upload_part("k", "u", 1, data, checksum=False)
    assert [request.body == data for request in store.asked] == [True] * 4
    assert [request.headers.get("x-amz-checksum-crc32") for request in store.asked] == [crc, None, crc, None]
    assert b64decode(store.asked[1].headers["x-amz-checksum-sha256"]) == sha256(data).digest()


async def test_an_upload_says_whether_its_parts_have_checksums() -> None:
    async with bucket_over(answer) as (bucket, store):
        await bucket.create_upload("k")
        await bucket.create_upload("k", checksums=False)
    assert [request.headers.get("x-amz-checksum-algorithm") for request in store.asked] == ["CRC32", None]


async def test_a_delete_of_many_has_a_digest_and_an_error_in_its_answer_counts() -> None:
    async with bucket_over(answer) as (bucket, store):
        await bucket.delete_many(["a", "b"])
    request = sent(store)
    assert b64decode(request.headers["content-md5"]) == md5(request.body, usedforsecurity=False).digest()
    refused = Reply(body=b"<DeleteResult><Error><Key>b</Key><Code>AccessDenied</Code></Error></DeleteResult>")
    async with bucket_over([refused]) as (bucket, store):
        with pytest.raises(Unavailable):
            await bucket.delete_many(["a", "b"])


async def test_where_clients_are_redirected() -> None:
    async with bucket_over(answer, redirectendpoint="https://cdn.example.com") as (bucket, store):
        url = await bucket.presign("a b", "GET", 1200)
        assert url.startswith("https://cdn.example.com/bkt/a%20b?X-Amz-Algorithm=AWS4-HMAC-SHA256&")
        assert "X-Amz-Expires=1200&" in url
        assert url != await bucket.presign("a b", "HEAD", 1200)
    assert store.asked == []


async def test_each_call_is_logged_where_that_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with bucket_over(answer, loglevel="debugwithsigning") as (bucket, _):
        await bucket.put("k", b"x")
    (record,) = caplog.records
    assert record.getMessage().startswith("S3 PutObject k done in ")


# What is repeated, and what becomes of what is not


def after_two(bad: Reply) -> Callable[[Captured], Reply]:
    rounds = [bad, bad]
    return lambda request: rounds.pop() if rounds else answer(request)


@pytest.mark.parametrize(
    "bad", [fault(503, "SlowDown"), Reply(500), fault(200, "InternalError"), DROP, Reply(cut=3, body=b"123456")]
)
async def test_every_verb_is_repeated(bad: Reply) -> None:
    async with bucket_over(lambda _: Reply()) as (bucket, store):
        verbs: dict[str, Callable[[], Awaitable[object]]] = {
            "head": lambda: bucket.head("k"),
            "put": lambda: bucket.put("k", b"x"),
            "copy": lambda: bucket.copy("a", "b", size=1),
            "delete": lambda: bucket.delete("k"),
            "delete_many": lambda: bucket.delete_many(["k"]),
            "list_page": lambda: bucket.list_page("k"),
            "create_upload": lambda: bucket.create_upload("k"),
            "upload_part": lambda: bucket.upload_part("k", "u", 1, b"x"),
            "complete_upload": lambda: bucket.complete_upload("k", "u", [Part(1, 1, "e", 0.0)]),
            "abort_upload": lambda: bucket.abort_upload("k", "u"),
        }
        for name, verb in verbs.items():
            if name == "head" and bad.status == 200:  # an answer to HEAD has no body to be bad
                continue
            store.script = after_two(bad)
            asked = len(store.asked)
            await verb()
            assert len(store.asked) - asked == 3, name


async def test_tries_are_bounded_and_a_503_says_why(caplog: pytest.LogCaptureFixture) -> None:
    async with bucket_over([fault(503, "SlowDown")], retries=Retries(total=4, base=0)) as (bucket, store):
        with pytest.raises(Unavailable, match="overloaded or failing"):
            await bucket.get("k")
    assert len(store.asked) == 4
    assert len(caplog.records) == 1
    assert "the store throttles" in caplog.text


@pytest.mark.parametrize("code", ["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"])
async def test_refusals_are_not_repeated(code: str) -> None:
    async with bucket_over([fault(403, code)]) as (bucket, store):
        with pytest.raises(Unavailable):
            await bucket.get("k")
    assert len(store.asked) == 1


def test_waits_grow_under_a_cap_and_are_random() -> None:
    retries = Retries(base=1.0, cap=4.0)
    for repeat, bound in [(0, 1), (1, 2), (2, 4), (9, 4)]:
        waits = [retries.wait(repeat) for _ in range(50)]
        assert 0 <= min(waits) < max(waits) <= bound


async def test_a_condition_that_a_repeat_met_is_told_apart() -> None:
    async with bucket_over([DROP, fault(412, "PreconditionFailed")]) as (bucket, _):
        with pytest.raises(PerhapsOurs):
            await bucket.put("k", b"x", if_absent=True)
    async with bucket_over([fault(412, "PreconditionFailed")]) as (bucket, _):
        with pytest.raises(PreconditionFailed) as caught:
            await bucket.put("k", b"x", if_absent=True)
        assert not isinstance(caught.value, PerhapsOurs)


async def test_so_it_is_on_a_connection_that_was_used_before() -> None:
    """aiohttp would repeat this one by itself, and tell nobody."""
    async with bucket_over([Reply(), DROP, fault(412, "PreconditionFailed")]) as (bucket, store):
        await bucket.put("j", b"x")
        with pytest.raises(PerhapsOurs):
            await bucket.put("k", b"x", if_absent=True)
    assert len(store.asked) == 3


async def test_a_clock_that_is_wrong_is_learned_once() -> None:
    theirs = {"Date": "Sun, 01 Jan 2017 10:00:00 GMT"}

    def store(request: Captured) -> Reply:
        if not request.headers["x-amz-date"].startswith("20170101T10"):
            return Reply(403, headers=theirs)  # to HEAD without a code
        return Reply(body=b"x", headers=theirs)

    async with bucket_over(store) as (bucket, served):
        await bucket.head("k")
        await bucket.head("k")
        assert len(served.asked) == 3
        assert "X-Amz-Date=20170101T10" in await bucket.presign("k", "GET", 60)
    skewed = Reply(403, b"<Error><Code>RequestTimeTooSkewed</Code></Error>", theirs)
    async with bucket_over([skewed]) as (bucket, served):
        with pytest.raises(Unavailable):
            await bucket.get("k")
    assert len(served.asked) == 2


async def test_a_machine_that_slept_learns_the_time_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own clock was set meanwhile, and what it took for the store's stood still."""
    wall, stood_still = time.time(), 0.0
    monkeypatch.setattr(calls, "StoreClock", lambda: StoreClock(wall=lambda: wall, monotonic=lambda: stood_still))

    def store(request: Captured) -> Reply:
        date = {"Date": formatdate(wall, usegmt=True)}
        right = request.headers["x-amz-date"] == time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(wall))
        return Reply(body=b"x", headers=date) if right else fault(403, "RequestTimeTooSkewed", **date)

    async with bucket_over(store) as (bucket, served):
        await (await bucket.get("k")).aclose()
        wall += 3600.0
        await (await bucket.get("k")).aclose()
    assert len(served.asked) == 3


@pytest.mark.parametrize("status", [301, 307, 400])
async def test_another_region_is_named_and_not_followed(status: int, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = {"Location": "http://127.0.0.1:1/", "x-amz-bucket-region": "eu-west-3"}
    code = {301: "PermanentRedirect", 307: "TemporaryRedirect", 400: "AuthorizationHeaderMalformed"}[status]
    async with bucket_over([fault(status, code, **elsewhere)]) as (bucket, store):
        with pytest.raises(Unavailable):
            await bucket.get("k")
    assert len(store.asked) == 1
    assert "set region to eu-west-3" in caplog.text


async def test_a_store_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    async with bucket_over([Reply()], regionendpoint=f"http://127.0.0.1:{port}") as (bucket, _):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await bucket.get("k")
    assert "S3 GetObject on bucket 'bkt' failed: ClientConnectorError" in caplog.text


async def test_a_store_that_hangs(caplog: pytest.LogCaptureFixture) -> None:
    """It is asked once more, as a connection may be dead alone, and the log says so in time."""
    async with bucket_over([HANG], readtimeout=0.02) as (bucket, store):
        for verb in (bucket.get("k"), bucket.put("k", b"x"), bucket.head("k")):
            with pytest.raises(Unavailable, match="does not answer in time"):
                await verb
    assert len(store.asked) == 6
    assert sum(record.levelname == "WARNING" and "trying again" in record.message for record in caplog.records) == 3


async def test_a_connection_that_is_dead_costs_one_try() -> None:
    async with bucket_over([HANG, Reply(body=b"x")], readtimeout=0.2) as (bucket, store):
        await (await bucket.get("k")).aclose()
    assert len(store.asked) == 2


async def test_no_call_waits_for_ever_for_a_place_among_the_connections(caplog: pytest.LogCaptureFixture) -> None:
    held = Reply(body=b"x" * 100, cut=50, stall=True)
    async with bucket_over([held], maxconnections=1, readtimeout=0.02) as (bucket, store):
        body = await bucket.get("k")
        with pytest.raises(Unavailable, match="does not answer in time"):
            await bucket.get("j")
        assert len(store.asked) == 1
        await body.aclose()
        await (await bucket.get("j")).aclose()
    assert "failed: ConnectionTimeoutError" in caplog.text


async def test_a_cancelled_call_ends_at_once() -> None:
    async with bucket_over([HANG]) as (bucket, store):
        task = asyncio.create_task(bucket.get("k"))
        async with asyncio.timeout(5):
            while not store.asked:  # noqa: ASYNC110 - the server's side has no event for it
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


# Bodies


async def drained(body: Body) -> None:
    async for _ in body.chunks():
        pass


@pytest.mark.parametrize("into", [False, True])
@pytest.mark.parametrize("bad", [{"cut": 4}, {"cut": 0}, {"cut": 4, "stall": True}])
async def test_a_body_that_ends_early_is_never_quiet(bad: dict[str, int], into: bool) -> None:
    reply = Reply(body=b"0123456789", cut=bad["cut"], stall=bool(bad.get("stall")))
    async with bucket_over([reply], readtimeout=0.05) as (bucket, store):
        body = await bucket.get("k")
        with pytest.raises(Unavailable):
            await (body.readinto(memoryview(bytearray(10))) if into else drained(body))
        await body.aclose()
        await body.aclose()
    assert len(store.asked) == 1  # whoever reads knows what he has, and goes on from there


async def test_a_large_body_in_small_steps() -> None:
    data = os.urandom(3 * MIB)
    async with bucket_over([Reply(body=data)]) as (bucket, _):
        body = await bucket.get("k")
        chunks = [chunk async for chunk in body.chunks()]
        assert b"".join(chunks) == data
        assert max(map(len, chunks)) <= MIB
        body = await bucket.get("k")
        filled = bytearray(3 * MIB)
        await body.readinto(memoryview(filled))
        assert filled == data


async def test_a_buffer_of_another_size_is_a_mistake() -> None:
    async with bucket_over([Reply(body=b"12345")]) as (bucket, _):
        body = await bucket.get("k")
        with pytest.raises(ValueError, match="a buffer of 4 bytes for 5"):
            await body.readinto(memoryview(bytearray(4)))
        await body.aclose()


@pytest.mark.parametrize(
    ("reply", "asked"),
    [
        (Reply(200, b"0123456789"), (2, 5)),  # Range went missing on the way
        (Reply(206, b"01", {"Content-Range": "bytes 0-1/10"}), (2, 4)),
        (Reply(206, b"01", {"Content-Range": "bytes 2-3/*"}), (2, 4)),
        (Reply(206, b"012", {"Content-Range": "bytes 2-3/10"}), (2, 4)),
        (Reply(206, b"01", {"Content-Range": "bytes 0-1/10"}), (None, None)),
        (Reply(200, b"", {"Content-Length": None, "Connection": "close"}), (None, None)),
        (Reply(200, b"01", {"Last-Modified": "soon"}), (None, None)),
    ],
)
async def test_an_answer_with_other_bytes_is_refused(reply: Reply, asked: tuple[int | None, int | None]) -> None:
    async with bucket_over([reply]) as (bucket, _):
        with pytest.raises(Unavailable, match="cannot be read"):
            await bucket.get("k", *asked)


async def test_a_range_may_come_with_200() -> None:
    async with bucket_over([Reply(200, b"23", {"Content-Range": "bytes 2-3/10"})]) as (bucket, _):
        assert await content(bucket, "k", 2, 4) == b"23"


async def test_the_size_is_asked_for_where_a_416_does_not_say_it() -> None:
    def store(request: Captured) -> Reply:
        return Reply(body=b"1234567") if request.method == "HEAD" else Reply(416)

    async with bucket_over(store) as (bucket, _):
        with pytest.raises(RangeNotSatisfiable) as caught:
            await bucket.get("k", 9)
        assert caught.value.size == 7


# Odd answers


async def test_of_a_part_that_is_listed_twice_the_newest_counts() -> None:
    part = "<Part><PartNumber>{}</PartNumber><ETag>{}</ETag><Size>{}</Size><LastModified>{}</LastModified></Part>"
    old, new = "2026-11-22T10:00:00Z", "2026-11-22T10:00:01Z"
    listed = [(2, "b", 2, old), (1, "a", 1, new), (1, "c", 9, old), (3, "first", 3, old), (3, "second", 4, old)]
    pages = [
        "<IsTruncated>true</IsTruncated><NextPartNumberMarker>1</NextPartNumberMarker>"
        + "".join(part.format(*each) for each in listed[:2]),
        "".join(part.format(*each) for each in listed[2:]),
    ]
    replies = [Reply(body=f"<ListPartsResult>{page}</ListPartsResult>".encode()) for page in pages]
    async with bucket_over(replies) as (bucket, store):
        found = await bucket.list_parts("k", "u")
    assert [(each.number, each.etag, each.size) for each in found] == [(1, "a", 1), (2, "b", 2), (3, "first", 3)]
    assert [request.query.get("part-number-marker") for request in store.asked] == [None, "1"]


async def test_uploads_are_listed_page_by_page() -> None:
    one = "<Upload><Key>k</Key><UploadId>{}</UploadId><Initiated>2026-11-22T10:00:00Z</Initiated></Upload>"
    more = "<IsTruncated>true</IsTruncated><NextKeyMarker>k</NextKeyMarker><NextUploadIdMarker>a</NextUploadIdMarker>"
    replies = [
        Reply(body=f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode())
        for body in (one.format("a") + more, one.format("b"))
    ]
    async with bucket_over(replies) as (bucket, store):
        assert [each.id for each in await bucket.list_uploads("k")] == ["a", "b"]
    assert store.asked[1].query["key-marker"] == "k"
    assert store.asked[1].query["upload-id-marker"] == "a"


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("lost", [True, False])
async def test_what_a_lost_answer_has_begun_is_aborted_where_the_key_is_ours(alone: bool, lost: bool) -> None:
    """But not where somebody has gone on with it, nor under a longer key."""
    uploads = "".join(
        f"<Upload><Key>{key}</Key><UploadId>{id}</UploadId><Initiated>2026-11-22T10:00:00Z</Initiated></Upload>"
        for key, id in (("k", "lost"), ("k", "new"), ("k", "another's"), ("k", "gone"), ("kk", "other"))
    )
    part = "<PartNumber>1</PartNumber><Size>1</Size><ETag>a</ETag><LastModified>2026-11-22T10:00:00Z</LastModified>"
    tries = iter([DROP] if lost else [])

    def reply(request: Captured) -> Reply:
        if request.method == "POST":
            created = Reply(
                body=b"<InitiateMultipartUploadResult><UploadId>new</UploadId></InitiateMultipartUploadResult>"
            )
            return next(tries, created)
        if request.query.get("uploadId") == "gone":
            return fault(404, "NoSuchUpload")
        if "uploadId" in request.query:
            parts = f"<Part>{part}</Part>" if request.query["uploadId"] == "another's" else ""
            return Reply(body=f"<ListPartsResult>{parts}</ListPartsResult>".encode())
        return Reply(body=f"<ListMultipartUploadsResult>{uploads}</ListMultipartUploadsResult>".encode())

    async with bucket_over(reply) as (bucket, store):
        assert await bucket.create_upload("k", alone=alone) == "new"
    aborted = [request.query["uploadId"] for request in store.asked if request.method == "DELETE"]
    assert aborted == (["lost"] if alone and lost else [])
    assert alone or not any(request.method == "GET" for request in store.asked)


@pytest.mark.parametrize("body", [b"", b"<html>welcome</html>", b"<Error/>"])
async def test_an_answer_that_is_none(body: bytes) -> None:
    async with bucket_over([Reply(body=body)]) as (bucket, _):
        for verb in (bucket.list_page("p"), bucket.create_upload("k"), bucket.complete_upload("k", "u", [])):
            with pytest.raises(Unavailable):
                await verb


async def test_an_endless_answer_is_cut() -> None:
    async with bucket_over([Reply(body=b"x" * (17 << 20))], retries=Retries(total=1)) as (bucket, _):
        with pytest.raises(Unavailable, match="cannot be read"):
            await bucket.list_page("p")


async def test_a_put_without_an_etag_is_a_fault() -> None:
    async with bucket_over([Reply(headers={"ETag": None})]) as (bucket, _):
        with pytest.raises(Unavailable, match="cannot be read"):
            await bucket.put("k", b"x")


async def test_the_clock_is_asked_for_once() -> None:
    async with bucket_over(answer) as (bucket, store):
        first = await bucket.date()
        assert first <= await bucket.date() < first + 60
    assert sent(store).query["max-keys"] == "1"


# TLS and proxies


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.mark.parametrize("way", ["cabundle", "skipverify", "variable", "none"])
async def test_certificates(
    way: str, tls: ssl.SSLContext, authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    bundle = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(bundle)
    parameters: dict[str, object] = {"cabundle": str(bundle)} if way == "cabundle" else {}
    if way == "skipverify":
        parameters["skipverify"] = True
    if way == "variable":
        monkeypatch.setenv("AWS_CA_BUNDLE", str(bundle))
    async with scripted([Reply(body=b"x")], tls) as store:
        given = {"bucket": "bkt", "accesskey": "AK", "secretkey": "SK"}
        endpoint = {"regionendpoint": f"https://127.0.0.1:{store.port}"}
        bucket = RestBucket(S3Settings.parse(given | endpoint | parameters), retries=AT_ONCE)
        if way == "none":
            with pytest.raises(Unavailable):
                await bucket.head("k")
        else:
            assert (await bucket.head("k")).size == 1
        await bucket.aclose()


async def test_a_ca_bundle_that_is_not_there_is_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    settings = S3Settings.parse({"bucket": "b", "region": "r", "accesskey": "A", "secretkey": "S", "cabundle": "/none"})
    bucket = RestBucket(settings, retries=AT_ONCE)
    with pytest.raises(Unavailable):
        await bucket.head("k")
    assert "FileNotFoundError" in caplog.text
    await bucket.aclose()


async def test_the_proxy_of_the_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with scripted([Reply(body=b"x")]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://user:hidden@127.0.0.1:{proxy.port}")
        async with bucket_over([Reply()], regionendpoint="http://store.example.com") as (bucket, store):
            assert (await bucket.head("k")).size == 1
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with bucket_over([Reply(body=b"four")]) as (bucket, store):
            assert (await bucket.head("k")).size == 4
    assert [request.target for request in proxy.asked] == ["http://store.example.com/bkt/k"]
    assert proxy.asked[0].headers["host"] == "store.example.com"
    assert len(store.asked) == 1

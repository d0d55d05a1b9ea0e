"""Faults of S3 that need a test of their own, by their number in the design's list; test_sweep.py has the others."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api import IMAGE, Api, descriptor, digest_of, error_of, image, with_query
from tests.s3.registries import QUICK, config_of, quick_retries, serving
from tests.s3.relay import FOREVER, Fault, Relay, denied, expired, no_bucket
from tests.s3.servers import S3Server

NAME = "fault/y"
LAYER = b"layer " * 2000
LARGE = bytes(range(1, 252)) * 46_000  # 11 MiB
CHUNK = 5 << 20


class Place:
    """A bucket's folder behind a relay, and registries on it."""

    def __init__(self, server: S3Server, relay: Relay) -> None:
        self.server, self.relay = server, relay
        self.bucket, self.root = server.new_root()
        self.through = server.parameters(self.bucket, self.root, endpoint=relay.endpoint) | {"chunksize": CHUNK}
        self.direct = server.parameters(self.bucket, self.root) | {"chunksize": CHUNK}

    def keys(self) -> list[str]:
        return [key.removeprefix(f"{self.root}/") for key in self.server.keys_of(self.bucket, f"{self.root}/")]

    def open_uploads(self) -> list[str]:
        return [key for key in self.server.open_uploads(self.bucket) if key.startswith(f"{self.root}/")]


@pytest.fixture
async def place(s3_server: S3Server) -> AsyncIterator[Place]:
    async with Relay(s3_server.endpoint) as relay:
        yield Place(s3_server, relay)


@pytest.fixture
async def api(place: Place) -> AsyncIterator[Api]:
    """The registry behind the relay."""
    with quick_retries():
        async with serving(config_of(place.through)) as api:
            yield api


@pytest.fixture
async def other(place: Place) -> AsyncIterator[Api]:
    """Another replica, which meets no faults."""
    async with serving(config_of(place.direct)) as api:
        yield api


def refused(response: httpx.Response) -> None:
    """503, and when to come again."""
    assert error_of(response) == (503, "UNAVAILABLE"), response.text
    assert response.headers["Retry-After"].isdigit()


@pytest.mark.slow
async def test_f8_bytes_of_an_upload_survive_an_answer_that_is_lost_where_it_starts_anew(
    api: Api, other: Api, place: Place
) -> None:
    """A small part makes the next PATCH complete the upload and begin another: an empty one may be left, unknown."""
    location = await api.start(NAME)
    first = await api.http.patch(location, content=LAYER[:4000])
    assert first.status_code == 202
    place.relay.inject(Fault("reset-after", times=FOREVER, operations=frozenset({"CreateMultipartUpload"})))
    refused(await api.http.patch(first.headers["Location"], content=LAYER[4000:]))
    place.relay.clear()
    for replica in (other, api):
        status = await replica.get(first.headers["Location"])
        assert (status.status_code, status.headers["Range"]) == (204, "0-3999")
    closing = with_query(first.headers["Location"], digest=digest_of(LAYER))
    done = await other.http.put(closing, content=LAYER[4000:])
    assert done.status_code == 201, done.text
    assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}")).content == LAYER


def stored_at(data: bytes) -> str:
    """The key of a blob's bytes."""
    value = digest_of(data).partition(":")[2]
    return f"docker/registry/v2/blobs/sha256/{value[:2]}/{value}/data"


async def put_blob(api: Api, data: bytes) -> httpx.Response:
    location = await api.start(NAME)
    return await api.http.put(with_query(location, digest=digest_of(data)), content=data)


async def pulls(api: Api, data: bytes) -> None:
    found = await api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")
    assert (found.status_code, found.content == data) == (200, True)


COMPLETE = frozenset({"CompleteMultipartUpload"})


@pytest.mark.slow
@pytest.mark.parametrize("status", [429, 500, 503])
async def test_f7_a_burst_is_waited_out_and_an_outage_is_not_waited_for(api: Api, place: Place, status: int) -> None:
    await api.push_blob(NAME, b"the probe is behind us")
    burst = place.relay.inject(Fault("answer", times=QUICK.total - 1, status=status))
    await api.push_blob(NAME, LAYER)
    assert burst.fired == QUICK.total - 1
    place.relay.clear()
    outage = place.relay.inject(Fault("answer", times=FOREVER, status=status))
    refused(await api.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}"))
    assert outage.fired <= 2 * QUICK.total  # link and data are asked for side by side
    refused(await put_blob(api, b"another"))
    place.relay.clear()
    await pulls(api, LAYER)


@pytest.mark.slow
async def test_f8_what_was_completed_is_found_though_the_answer_was_lost(api: Api, other: Api, place: Place) -> None:
    place.relay.inject(Fault("reset-after", operations=COMPLETE))
    await api.push_blob(NAME, LARGE)
    assert place.relay.counts()["CompleteMultipartUpload"] >= 2
    await pulls(other, LARGE)
    assert place.open_uploads() == []


@pytest.mark.slow
async def test_f8_a_lost_answer_to_a_conditional_write_is_no_conflict(api: Api, other: Api, place: Place) -> None:
    await api.push_blob(NAME, b"the probe is behind us")
    place.relay.inject(Fault("reset-after", where=lambda call: call.method == "PUT" and call.key.endswith("/data")))
    with place.relay.counting() as calls:
        await api.push_blob(NAME, LAYER)
    assert [call.stored for call in calls if call.operation == "PutObject" and call.key.endswith("/data")] == [200, 412]
    await pulls(other, LAYER)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["broken", "short"])
async def test_f9_a_body_that_breaks_is_taken_up_where_it_broke(api: Api, other: Api, place: Place, kind: str) -> None:
    await other.push_blob(NAME, LARGE)
    fault = Fault("short" if kind == "short" else "broken", times=2, where=lambda call: call.key.endswith("/data"))
    place.relay.inject(fault)
    await pulls(api, LARGE)
    assert fault.fired == 2
    asked = [call.headers.get("range", "") for call in place.relay.calls if call.key.endswith("/data")]
    assert asked[0] == ""
    starts = [int(text.removeprefix("bytes=").partition("-")[0]) for text in asked[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] < starts[1] < len(LARGE)


@pytest.mark.slow
async def test_f10_an_error_in_an_answer_of_200_is_an_error(api: Api, other: Api, place: Place) -> None:
    once = place.relay.inject(Fault("answer", operations=COMPLETE, status=200, code="InternalError"))
    await api.push_blob(NAME, LARGE)
    assert once.fired == 1
    place.relay.clear()
    place.relay.inject(Fault("answer", times=FOREVER, operations=COMPLETE, status=200, code="InternalError"))
    refused(await put_blob(api, LARGE[::-1]))
    place.relay.clear()
    assert (await other.get(f"/v2/{NAME}/blobs/{digest_of(LARGE[::-1])}")).status_code == 404
    assert place.open_uploads() == []
    copies = place.relay.inject(
        Fault("answer", times=FOREVER, operations=frozenset({"CopyObject"}), status=200, code="InternalError")
    )
    location = await api.start(NAME)
    for piece in (LAYER[:5000], LAYER[5000:]):  # two PATCHes: staged, and copied
        location = (await api.http.patch(location, content=piece)).headers["Location"]
    answer = await api.http.put(with_query(location, digest=digest_of(LAYER)))
    assert copies.fired
    refused(answer)
    place.relay.clear()
    assert (await api.http.put(with_query(location, digest=digest_of(LAYER)))).status_code == 201
    await pulls(other, LAYER)


@pytest.mark.slow
@pytest.mark.parametrize("fault", [denied(times=FOREVER), expired(times=FOREVER), no_bucket(times=FOREVER)])
async def test_f12_what_the_store_refuses_is_never_not_found(api: Api, place: Place, fault: Fault) -> None:
    """A replica that has not had a good answer yet, so a HEAD that says 404 is the missing bucket's."""
    place.relay.inject(fault)
    for path in (f"blobs/{digest_of(LAYER)}", "manifests/t", f"manifests/{digest_of(LAYER)}", "tags/list"):
        refused(await api.get(f"/v2/{NAME}/{path}"))
        assert (await api.http.head(f"/v2/{NAME}/{path}")).status_code in (503, 405)
    refused(await put_blob(api, LAYER))
    place.relay.clear()  # no restart
    await api.push_blob(NAME, LAYER)
    await pulls(api, LAYER)


@pytest.mark.slow
async def test_f14_abandoned_uploads_are_in_nobodys_way(api: Api, other: Api, place: Place) -> None:
    client = place.server.client()
    for _ in range(20):
        client.create_multipart_upload(Bucket=place.bucket, Key=f"{place.root}/{stored_at(LARGE)}")
    await api.push_blob(NAME, LARGE)
    await pulls(other, LARGE)
    assert len(place.open_uploads()) == 20  # for the lifecycle rule


@pytest.mark.slow
async def test_f16_two_replicas_put_one_tag(api: Api, other: Api) -> None:
    await api.push_blob(NAME, b"{}")
    bodies = [image(b"{}", annotations={"n": str(n)}) for n in range(12)]
    await asyncio.gather(
        *(replica.push_manifest(NAME, body, "t") for body, replica in zip(bodies, [api, other] * 6, strict=True))
    )
    seen = {(await replica.get(f"/v2/{NAME}/manifests/t")).content for replica in (api, other)}
    assert len(seen) == 1
    assert seen <= set(bodies)
    for body in bodies:
        assert (await api.get(f"/v2/{NAME}/manifests/{digest_of(body)}")).content == body


@pytest.mark.slow
@pytest.mark.parametrize("data", [LAYER, LARGE], ids=["small", "large"])
async def test_f17_two_replicas_push_one_blob(api: Api, other: Api, place: Place, data: bytes) -> None:
    answers = await asyncio.gather(*(put_blob(replica, data) for replica in (api, other) * 4))
    assert [answer.status_code for answer in answers] == [201] * 8
    for replica in (api, other):
        await pulls(replica, data)
    assert place.open_uploads() == []


@pytest.mark.slow
async def test_f18_every_request_of_a_push_goes_to_another_replica(api: Api, other: Api) -> None:
    pieces = [LARGE[: 6 << 20], LARGE[6 << 20 : (6 << 20) + 100], LARGE[(6 << 20) + 100 :]]
    location = await api.start(NAME)
    for replica, piece in zip((other, api, other), pieces, strict=True):
        answer = await replica.http.patch(location, content=piece)
        assert answer.status_code == 202, answer.text
        location = answer.headers["Location"]
    done = await api.http.put(with_query(location, digest=digest_of(LARGE)))
    assert done.status_code == 201, done.text
    for replica in (api, other):
        await pulls(replica, LARGE)


@pytest.mark.slow
async def test_f19_what_one_replica_deletes_no_other_serves(api: Api, other: Api) -> None:
    await api.push_image(NAME, "t", (LAYER,))
    for path in ("manifests/t", f"blobs/{digest_of(LAYER)}"):
        assert (await other.get(f"/v2/{NAME}/{path}")).status_code == 200
        assert (await api.http.delete(f"/v2/{NAME}/{path}")).status_code == 202
        assert (await other.get(f"/v2/{NAME}/{path}")).status_code == 404


@pytest.mark.slow
async def test_f20_referrers_that_are_pushed_at_once_are_all_listed(api: Api, other: Api) -> None:
    subject = image(b"{}")
    await api.push_blob(NAME, b"{}")
    await api.push_manifest(NAME, subject, "t")
    bodies = [
        image(b"{}", annotations={"n": str(n)}, subject=descriptor(subject, IMAGE), artifactType="application/x")
        for n in range(30)
    ]
    await asyncio.gather(
        *(replica.push_manifest(NAME, body) for body, replica in zip(bodies, [api, other] * 15, strict=True))
    )
    for replica in (api, other):
        found = await replica.referrers(NAME, digest_of(subject))
        assert {entry["digest"] for entry in found} == {digest_of(body) for body in bodies}


@pytest.mark.slow
@pytest.mark.parametrize("damage", [b"", LAYER[:-1], LAYER + b"x"], ids=["empty", "short", "long"])
async def test_f25_a_blob_of_another_size_is_whole_again_when_it_is_pushed_again(
    api: Api, other: Api, place: Place, damage: bytes
) -> None:
    await api.push_image(NAME, "t", (LAYER,))
    place.server.client().put_object(Bucket=place.bucket, Key=f"{place.root}/{stored_at(LAYER)}", Body=damage)
    assert (await put_blob(other, LAYER)).status_code == 201
    for replica in (api, other):
        await pulls(replica, LAYER)


@pytest.mark.slow
async def test_f25_no_bytes_are_served_for_a_digest_of_some(api: Api, other: Api, place: Place) -> None:
    """SeaweedFS keeps an object of 0 bytes where a PUT dies before its first byte."""
    await api.push_image(NAME, "t", (LAYER,))
    place.server.client().put_object(Bucket=place.bucket, Key=f"{place.root}/{stored_at(LAYER)}", Body=b"")
    refused(await other.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}"))


@pytest.mark.slow
async def test_f11_a_completion_that_the_store_only_pretends_is_not_acknowledged(api: Api, place: Place) -> None:
    pretended = b"<CompleteMultipartUploadResult><ETag>&quot;x-3&quot;</ETag></CompleteMultipartUploadResult>"
    place.relay.inject(Fault("answer", operations=COMPLETE, status=200, body=pretended))
    answer = await put_blob(api, LARGE)
    assert answer.status_code == 503

"""Faults of S3 that need a test of their own, by their number in the design's list; test_sweep.py has the others."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from storage.drivers.s3 import calls as s3_calls
from storage.drivers.s3.clock import StoreClock
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.purge import Purged, purge_uploads
from tests.api import IMAGE, Api, descriptor, digest_of, error_of, image, in_pieces, with_query
from tests.s3.calls import Call
from tests.s3.registries import QUICK, config_of, quick_retries, serving
from tests.s3.relay import FOREVER, Fault, Kind, Relay, denied, expired, no_bucket
from tests.s3.servers import S3Server
from tests.storage.shelf import A, Shelf

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


async def patch_blob(api: Api, data: bytes) -> httpx.Response:
    """Its digest comes last."""
    sent = await api.http.patch(await api.start(NAME), content=data)
    return await api.http.put(with_query(sent.headers["Location"], digest=digest_of(data)))


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
@pytest.mark.parametrize("kind", ["broken", "short", "stall-body"])
async def test_f9_a_body_that_breaks_is_taken_up_where_it_broke(other: Api, place: Place, kind: Kind) -> None:
    await other.push_blob(NAME, LARGE)
    fault = Fault(kind, times=2, where=lambda call: call.key.endswith("/data"))
    place.relay.inject(fault)
    with quick_retries():
        async with serving(config_of(place.through | {"readtimeout": 0.5})) as api:
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


TAGS = sorted(f"{n}{end}" for n in range(367) for end in ("", "-alpine", ".1"))
"""More than a list has, and in an order that no store gives: in that of bytes `1-alpine/` comes before `1/`."""


async def push_tags(place: Place, api: Api) -> None:
    """The first by a push, the others behind the registry's back."""
    manifest = await api.push_image(NAME, TAGS[0], (LAYER,))
    client = place.server.client()

    def put(tag: str) -> None:
        key = f"{place.root}/docker/registry/v2/repositories/{NAME}/_manifests/tags/{tag}/current/link"
        client.put_object(Bucket=place.bucket, Key=key, Body=manifest.encode())

    await asyncio.gather(*(asyncio.to_thread(put, tag) for tag in TAGS[1:]))


async def listed(api: Api, page: int) -> list[str]:
    """All tags, page after page."""
    found: list[str] = []
    path = f"/v2/{NAME}/tags/list?n={page}"
    while path:
        answer = await api.get(path)
        assert answer.status_code == 200, answer.text
        found += answer.json()["tags"]
        path = answer.links["next"]["url"] if "next" in answer.links else ""
    return found


@pytest.mark.slow
async def test_f13_tags_are_complete_and_in_order(api: Api, other: Api, place: Place) -> None:
    """More than one list has, with a fault at each list, in the middle of an outage, and in the order of another store.

    Blobs of many parts and copies above 5 GiB: test_large.py by `make s3`, and test_stages.py by arithmetic.
    """
    await push_tags(place, other)
    for page in (100, 5000):
        assert await listed(api, page) == TAGS
    with place.relay.counting() as calls:
        assert (await api.get(f"/v2/{NAME}/tags/list")).json()["tags"][:3] == TAGS[:3]
    lists = [call for call in calls if call.operation == "ListObjectsV2"]
    for number in range(1, len(lists) + 1):
        once = place.relay.inject(Fault("broken", number, operations=frozenset({"ListObjectsV2"})))
        assert await listed(api, 5000) == TAGS
        assert once.fired
        place.relay.clear()
        place.relay.inject(Fault("answer", number, FOREVER, operations=frozenset({"ListObjectsV2"}), status=500))
        refused(await api.get(f"/v2/{NAME}/tags/list?n=5000"))
        place.relay.clear()
    # the order that was learned from lists of several pages is not that of this one
    another = as_list(place, TAGS[1000:0:-1])
    place.relay.inject(Fault("answer", operations=frozenset({"ListObjectsV2"}), status=200, body=another))
    answer = await api.get(f"/v2/{NAME}/tags/list?n=5000")
    assert answer.status_code == 503 or answer.json()["tags"] == TAGS[1:1001]
    assert await listed(api, 5000) == TAGS


def as_list(place: Place, tags: list[str]) -> bytes:
    """What a store would answer that lists these, in this order."""
    folder = f"{place.root}/docker/registry/v2/repositories/{NAME}/_manifests/tags"
    entries = "".join(
        f"<Contents><Key>{folder}/{tag}/current/link</Key><Size>71</Size><ETag>&quot;x&quot;</ETag>"
        "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
        for tag in tags
    )
    return f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()


@pytest.mark.slow
async def test_f13_a_list_that_is_stale_or_in_another_order(api: Api, other: Api, place: Place) -> None:
    """It names what is gone, or what was there is not in it yet; or its order is not what the store's was."""
    manifest = await other.push_image(NAME, "b", (LAYER,))
    body = (await other.get(f"/v2/{NAME}/manifests/b")).content
    for tag in ("a", "c", "c-1"):
        await other.push_manifest(NAME, body, tag)

    def next_list(*tags: str) -> None:
        place.relay.clear()
        stale = as_list(place, list(tags))
        place.relay.inject(Fault("answer", operations=frozenset({"ListObjectsV2"}), status=200, body=stale))

    next_list("c", "a", "c-1", "gone", "b", "a")
    assert await listed(api, 100) == ["a", "b", "c", "c-1", "gone"]
    assert (await api.get(f"/v2/{NAME}/manifests/gone")).status_code == 404
    assert await listed(api, 100) == ["a", "b", "c", "c-1"]
    next_list("gone", "b")  # the tags of a manifest that is being deleted
    assert (await api.http.delete(f"/v2/{NAME}/manifests/{manifest}")).status_code == 202
    assert (await api.get(f"/v2/{NAME}/manifests/{manifest}")).status_code == 404
    for tag in ("b", "gone"):
        assert (await api.get(f"/v2/{NAME}/manifests/{tag}")).status_code == 404


@pytest.mark.slow
async def test_f14_abandoned_uploads_are_in_nobodys_way(api: Api, other: Api, place: Place) -> None:
    client = place.server.client()
    for _ in range(20):
        client.create_multipart_upload(Bucket=place.bucket, Key=f"{place.root}/{stored_at(LARGE)}")
    await api.push_blob(NAME, LARGE)
    await pulls(other, LARGE)
    assert len(place.open_uploads()) == 20  # for the lifecycle rule


class Wall:
    """The clock of a machine. ahead: seconds by which it is wrong."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._right = time.time

    def __call__(self) -> float:
        return self._right() + self.ahead


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    """What everybody in this process takes for the time."""
    wall = Wall()
    monkeypatch.setattr(time, "time", wall)
    monkeypatch.setattr(s3_calls, "StoreClock", lambda: StoreClock(wall=wall))
    return wall


@pytest.mark.slow
async def test_f15_clocks_that_differ_by_two_hours_and_step_back(place: Place, wall: Wall) -> None:
    """One replica's is an hour ahead, the other's an hour behind; every request goes to another one."""
    with quick_retries():
        async with (
            serving(config_of(place.through)) as ahead,
            serving(config_of(place.direct, redirects=True)) as behind,
            httpx.AsyncClient(trust_env=False) as client,
        ):
            replicas = [(ahead, 3600.0), (behind, -3600.0), (ahead, -3600.0), (behind, 3600.0), (ahead, 3600.0)]
            location, sent = "", 0
            for replica, wall.ahead in replicas:
                if not location:
                    location = await replica.start(NAME)
                    continue
                answer = await replica.http.patch(location, content=LAYER[sent : sent + 3000])
                assert answer.status_code == 202, answer.text
                location, sent = answer.headers["Location"], sent + 3000
            wall.ahead = -3600.0
            done = await behind.http.put(with_query(location, digest=digest_of(LAYER)), content=LAYER[sent:])
            assert done.status_code == 201, done.text
            for replica, wall.ahead in replicas:
                tag = f"t{wall.ahead:.0f}".replace("-", "minus")
                await replica.push_image(NAME, tag, (LAYER,))
                for other, wall.ahead in replicas:
                    assert (await other.get(f"/v2/{NAME}/manifests/{tag}")).status_code == 200
            for _, wall.ahead in replicas:
                url = (await behind.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}")).headers["Location"]
                assert (await client.get(url)).content == LAYER


@pytest.mark.slow
@pytest.mark.parametrize("ahead", [-3600.0, 3600.0])
async def test_f15_ages_are_by_the_clock_of_the_store(place: Place, wall: Wall, ahead: float) -> None:
    """Neither the purge of uploads nor the collector takes what has just been written for old, nor old for young."""
    settings = S3Settings.parse(place.through)
    wall.ahead = ahead
    driver = S3Driver(settings, RestBucket(settings, retries=QUICK))
    shelf = Shelf(driver)
    repository = shelf.content.repository(A)
    await repository.append_upload(await repository.start_upload(), in_pieces(b"12345"))
    await shelf.blob(A, LAYER)
    await shelf.blob(A, LARGE)
    half_an_hour = 1800.0
    assert await purge_uploads(shelf.content, half_an_hour) == Purged(0, 0)
    done = await shelf.collect(grace=half_an_hour)
    assert (done.swept, done.young) == (0, 2)
    wall.ahead = -ahead  # steps, under one that runs
    assert await purge_uploads(shelf.content, half_an_hour) == Purged(0, 0)
    assert (await shelf.collect(grace=half_an_hour)).swept == 0
    assert await purge_uploads(shelf.content, -60.0) == Purged(1, 5)
    assert (await shelf.collect(grace=0.0)).swept == 2
    await driver.aclose()


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


def has_condition(call: Call) -> bool:
    return not call.headers.keys().isdisjoint(CONDITIONS)


CONDITIONS = frozenset({"if-none-match", "if-match"})


@pytest.mark.slow
@pytest.mark.parametrize("data", [LAYER, LARGE], ids=["small", "large"])
async def test_f21_a_conflict_is_no_end(api: Api, other: Api, place: Place, data: bytes) -> None:
    """409: somebody writes the same key at this moment. It is asked again, and in the end who is there decides."""
    await api.push_blob(NAME, b"the probe is behind us")
    conflict = Fault("answer", where=has_condition, status=409, code="ConditionalRequestConflict")
    for times in (1, FOREVER):
        place.relay.inject(replace(conflict, times=times))
        await api.push_blob(NAME, data)
        place.relay.clear()
        await pulls(other, data)
        place.server.client().delete_object(Bucket=place.bucket, Key=f"{place.root}/{stored_at(data)}")
    assert place.open_uploads() == []


@pytest.mark.slow
async def test_f21_a_tag_with_a_condition_in_a_conflict(api: Api, other: Api, place: Place) -> None:
    old = await api.push_image(NAME, "t", (LAYER,))
    await api.push_blob(NAME, b"{}")
    new = image(b"{}", annotations={"is": "new"})
    headers = {"Content-Type": IMAGE, "If-Match": f'"{old}"'}
    place.relay.inject(Fault("answer", where=has_condition, status=409, code="ConditionalRequestConflict"))
    assert (await api.http.put(f"/v2/{NAME}/manifests/t", content=new, headers=headers)).status_code == 201
    assert (await other.get(f"/v2/{NAME}/manifests/t")).content == new
    assert (await api.http.put(f"/v2/{NAME}/manifests/t", content=new, headers=headers)).status_code == 412


@pytest.mark.slow
@pytest.mark.parametrize("way", ["ignores", "refuses"])
async def test_f21_a_store_without_conditions(moto: S3Server, caplog: pytest.LogCaptureFixture, way: str) -> None:
    """It writes whatever the condition, or answers 501 to each; the log says who may write then."""
    without = CONDITIONS if way == "ignores" else frozenset[str]()
    async with Relay(moto.endpoint, without=without) as relay:  # moto does not look at signatures
        if way == "refuses":
            relay.inject(Fault("answer", times=FOREVER, where=has_condition, status=501, code="NotImplemented"))
        place = Place(moto, relay)
        with quick_retries():
            async with serving(config_of(place.through)) as api:
                await one_writer(api, place)
    [record] = [record for record in caplog.records if "conditional writes" in record.message]
    assert "run one writing registry alone" in record.message


async def one_writer(api: Api, place: Place) -> None:
    """All goes as ever, conditions on tags too, which the registry looks at itself."""
    for _ in range(2):
        for data in (LAYER, LARGE):
            assert (await put_blob(api, data)).status_code == 201
            await pulls(api, data)
    manifest = await api.push_image(NAME, "t", (LAYER,))
    for condition, status in ((digest_of(b"another"), 412), (manifest, 201)):
        headers = {"Content-Type": IMAGE, "If-Match": f'"{condition}"'}
        body = image(b"{}", (LAYER,), annotations={"for": condition})
        assert (await api.http.put(f"/v2/{NAME}/manifests/t", content=body, headers=headers)).status_code == status
    assert (await api.http.delete(f"/v2/{NAME}/manifests/t")).status_code == 202
    assert place.open_uploads() == []


@pytest.mark.slow
@pytest.mark.parametrize("way", [put_blob, patch_blob], ids=["known", "streamed"])
@pytest.mark.parametrize("data", [LAYER, LARGE], ids=["put", "parts"])
async def test_f25_a_blob_of_another_size_is_whole_again_when_it_is_pushed_again(
    api: Api, other: Api, place: Place, data: bytes, way: Callable[[Api, bytes], Awaitable[httpx.Response]]
) -> None:
    await api.push_image(NAME, "t", (data,))
    for damage in (b"", data[:-1], data + b"x"):
        place.server.client().put_object(Bucket=place.bucket, Key=f"{place.root}/{stored_at(data)}", Body=damage)
        assert (await way(other, data)).status_code == 201
        for replica in (api, other):
            await pulls(replica, data)
    assert place.open_uploads() == []


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

"""Pushing blobs as the conformance suite and real clients do it, and how a push goes on after it was broken off."""

import hashlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.serving.lifespan import lifespan
from registry.serving.server import running
from tests import rawsocket
from tests.api import Api, digest_of, error_of, in_pieces, with_query

DATA = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(96))  # 3 KiB in three chunks of the suite's size
CHUNKS = (DATA[:1024], DATA[1024:2048], DATA[2048:])
ALGORITHMS = ["sha256", "sha512"]
algorithms = pytest.mark.parametrize("algorithm", ALGORITHMS)


async def patched(api: Api, location: str, chunk: bytes, first: int) -> httpx.Response:
    headers = {"Content-Range": f"{first}-{first + len(chunk) - 1}", "Content-Type": "application/octet-stream"}
    return await api.http.patch(location, content=chunk, headers=headers)


async def whole(api: Api, response: httpx.Response, digest: str, data: bytes = DATA) -> None:
    """A 201 that names the digest as it was asked for, and a Location where the bytes are."""
    assert (response.status_code, response.content) == (201, b"")
    assert response.headers["Docker-Content-Digest"] == digest
    got = await api.get(response.headers["Location"])
    assert (got.status_code, got.content) == (200, data)
    assert got.headers["Docker-Content-Digest"] == digest
    head = await api.http.head(f"/v2/a/blobs/{digest}")
    assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(data)))


async def test_start(api: Api) -> None:
    response = await api.http.post("/v2/a/blobs/uploads/")
    assert (response.status_code, response.content) == (202, b"")
    assert response.headers["Range"] == "0-0"
    id = response.headers["Docker-Upload-UUID"]
    assert re.fullmatch(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", id)
    assert response.headers["Location"].startswith(f"/v2/a/blobs/uploads/{id}?_state=")


@algorithms
async def test_post_then_put(api: Api, algorithm: str) -> None:
    digest = digest_of(DATA, algorithm)
    await whole(api, await api.http.put(with_query(await api.start("a"), digest=digest), content=DATA), digest)


@algorithms
@pytest.mark.parametrize("announced", ALGORITHMS)
async def test_chunks(api: Api, algorithm: str, announced: str) -> None:
    """The algorithm that was announced may differ from the one of the closing PUT."""
    location = await api.start("a", f"?digest-algorithm={announced}")
    first = 0
    for chunk in CHUNKS:
        response = await patched(api, location, chunk, first)
        first += len(chunk)
        assert (response.status_code, response.headers["Range"]) == (202, f"0-{first - 1}")
        location = response.headers["Location"]
    digest = digest_of(DATA, algorithm)
    await whole(api, await api.http.put(with_query(location, digest=digest)), digest)


@algorithms
async def test_last_chunk_in_the_put(api: Api, algorithm: str) -> None:
    response = await patched(api, await api.start("a"), CHUNKS[0] + CHUNKS[1], 0)
    digest = digest_of(DATA, algorithm)
    response = await api.http.put(
        with_query(response.headers["Location"], digest=digest),
        content=CHUNKS[2],
        headers={"Content-Range": "2048-3071"},
    )
    await whole(api, response, digest)


async def streamed(api: Api, data: bytes) -> httpx.Response:
    return await api.http.patch(await api.start("a"), content=in_pieces(data[:100], data[100:]))


@algorithms
async def test_row_10_streamed(api: Api, algorithm: str) -> None:
    response = await streamed(api, DATA)
    assert (response.status_code, response.headers["Range"]) == (202, "0-3071")
    digest = digest_of(DATA, algorithm)
    await whole(api, await api.http.put(with_query(response.headers["Location"], digest=digest)), digest)


async def test_row_11_range_is_that_of_the_whole_blob(api: Api) -> None:
    response = await patched(api, await api.start("a"), CHUNKS[0], 0)
    response = await patched(api, response.headers["Location"], CHUNKS[1], 1024)
    assert response.headers["Range"] == "0-2047"


async def test_row_12_out_of_order_patch(api: Api) -> None:
    location = await api.start("a")
    wrong = await patched(api, location, CHUNKS[1], 1024)
    assert error_of(wrong) == (416, "BLOB_UPLOAD_INVALID")
    for url in (location, wrong.headers["Location"]):
        status = await api.http.get(url)
        assert (status.status_code, status.headers["Range"]) == (204, "0-0")
        assert "Location" in status.headers
    response = await patched(api, location, CHUNKS[0], 0)
    wrong = await patched(api, response.headers["Location"], CHUNKS[2], 2048)
    assert error_of(wrong) == (416, "BLOB_UPLOAD_INVALID")
    status = await api.http.get(response.headers["Location"])
    assert (status.status_code, status.headers["Range"]) == (204, "0-1023")
    response = await patched(api, status.headers["Location"], CHUNKS[1], 1024)
    response = await patched(api, response.headers["Location"], CHUNKS[2], 2048)
    await whole(
        api, await api.http.put(with_query(response.headers["Location"], digest=digest_of(DATA))), digest_of(DATA)
    )


async def test_row_13_out_of_order_put(api: Api) -> None:
    """GET on the very URL of the PUT, with its digest, says where the session stands."""
    response = await patched(api, await api.start("a"), CHUNKS[0], 0)
    close = with_query(response.headers["Location"], digest=digest_of(DATA))
    wrong = await api.http.put(close, content=CHUNKS[2], headers={"Content-Range": "2048-3071"})
    assert error_of(wrong) == (416, "BLOB_UPLOAD_INVALID")
    status = await api.http.get(close)
    assert (status.status_code, status.headers["Range"]) == (204, "0-1023")
    response = await patched(api, status.headers["Location"], CHUNKS[1], 1024)
    response = await api.http.put(
        with_query(response.headers["Location"], digest=digest_of(DATA)),
        content=CHUNKS[2],
        headers={"Content-Range": "2048-3071"},
    )
    await whole(api, response, digest_of(DATA))


async def test_row_14_status_of_an_empty_upload(api: Api) -> None:
    status = await api.http.get(await api.start("a"))
    assert (status.status_code, status.headers["Range"], status.content) == (204, "0-0", b"")
    assert "Content-Length" not in status.headers  # RFC 9110 section 8.6


async def test_row_15_repeat_of_an_accepted_chunk(api: Api) -> None:
    location = await api.start("a")
    assert (await patched(api, location, CHUNKS[0], 0)).status_code == 202
    again = await patched(api, location, CHUNKS[0], 0)
    assert error_of(again) == (416, "BLOB_UPLOAD_INVALID")
    status = await api.http.get(location)  # the stale one
    assert (status.status_code, status.headers["Range"]) == (204, "0-1023")


async def test_row_17_cancel(api: Api) -> None:
    response = await patched(api, await api.start("a"), CHUNKS[0], 0)
    cancelled = await api.http.delete(response.headers["Location"])
    assert (cancelled.status_code, cancelled.content) == (204, b"")
    assert error_of(await api.http.get(response.headers["Location"])) == (404, "BLOB_UPLOAD_UNKNOWN")


@algorithms
@pytest.mark.parametrize("query", ["&from=a", ""], ids=["row-18", "row-19"])
async def test_mount(api: Api, algorithm: str, query: str) -> None:
    digest = await api.push_blob("a", DATA, algorithm)
    response = await api.http.post(f"/v2/b/blobs/uploads/?mount={digest}{query}")
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (201, digest)
    assert (await api.get(response.headers["Location"])).content == DATA
    assert (await api.http.delete(f"/v2/a/blobs/{digest}")).status_code == 202
    assert (await api.get(f"/v2/b/blobs/{digest}")).content == DATA


async def test_row_18_mount_with_an_algorithm(api: Api) -> None:
    """Falls back to a session that takes the blob by either digest."""
    digest = digest_of(DATA, "sha512")
    response = await api.http.post(f"/v2/a/blobs/uploads/?mount={digest}&from=nope&digest-algorithm=sha512")
    assert response.status_code == 202
    await whole(api, await api.http.put(with_query(response.headers["Location"], digest=digest), content=DATA), digest)


WAYS = ["post", "put", "chunked-put", "patch-then-put", "patches-and-last-in-the-put"]


@algorithms
@pytest.mark.parametrize("way", WAYS)
async def test_row_20_wrong_digest(api: Api, way: str, algorithm: str) -> None:
    """In each of five ways to push; the digest stays unknown."""
    wrong = digest_of(b"something else", algorithm)
    if way == "post":
        response = await api.http.post(f"/v2/a/blobs/uploads/?digest={wrong}", content=DATA)
    elif way == "put":
        response = await api.http.put(with_query(await api.start("a"), digest=wrong), content=DATA)
    elif way == "chunked-put":
        response = await api.http.put(with_query(await api.start("a"), digest=wrong), content=in_pieces(*CHUNKS))
    else:
        part = DATA if way == "patch-then-put" else CHUNKS[0]
        location = (await patched(api, await api.start("a"), part, 0)).headers["Location"]
        response = await api.http.put(with_query(location, digest=wrong), content=DATA[len(part) :])
    assert error_of(response) == (400, "DIGEST_INVALID")
    for digest in (wrong, digest_of(DATA), digest_of(DATA, "sha512")):
        assert error_of(await api.get(f"/v2/a/blobs/{digest}")) == (404, "BLOB_UNKNOWN")


@algorithms
@pytest.mark.parametrize("data", [b"", b"{}"], ids=["row-24-empty", "row-24-config"])
async def test_small(api: Api, data: bytes, algorithm: str) -> None:
    digest = digest_of(data, algorithm)
    response = await api.http.post(f"/v2/a/blobs/uploads/?digest={digest}", content=data)
    await whole(api, response, digest, data)
    assert (await api.http.delete(f"/v2/a/blobs/{digest}")).status_code == 202
    assert (await api.http.head(f"/v2/a/blobs/{digest}")).status_code == 404


@algorithms
async def test_pushed_twice(api: Api, algorithm: str) -> None:
    for _ in range(2):
        digest = await api.push_blob("a", DATA, algorithm)
    assert (await api.get(f"/v2/a/blobs/{digest}")).content == DATA


async def test_both_algorithms_are_two_blobs(api: Api) -> None:
    short, long = await api.push_blob("a", DATA), await api.push_blob("a", DATA, "sha512")
    assert (await api.http.delete(f"/v2/a/blobs/{short}")).status_code == 202
    assert (await api.get(f"/v2/a/blobs/{long}")).content == DATA


async def test_many_sessions_at_once(api: Api) -> None:
    """None knows of another, in one repository."""
    locations = [await api.start("a") for _ in range(5)]
    for n, location in enumerate(locations):
        response = await api.http.patch(location, content=b"blob %d" % n)
        locations[n] = response.headers["Location"]
    for n, location in enumerate(locations):
        data = b"blob %d" % n
        await whole(api, await api.http.put(with_query(location, digest=digest_of(data))), digest_of(data), data)


@pytest.fixture
async def wire(config: Config) -> AsyncIterator[tuple[Api, str, int]]:
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, verify=False) as client:
            yield Api(client), server.host, server.port


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_resume_after_a_broken_patch(wire: tuple[Api, str, int], framing: str) -> None:
    """A client whose connection broke asks where the upload stands, and sends the rest: nothing twice."""
    api, host, port = wire
    response = await patched(api, await api.start("a"), CHUNKS[0], 0)
    location = response.headers["Location"]
    fields = ("Content-Length: 2048" if framing == "length" else "Transfer-Encoding: chunked",)
    body = CHUNKS[1] if framing == "length" else b"400\r\n" + CHUNKS[1] + b"\r\n"
    with rawsocket.connected(host, port) as client:
        client.send(rawsocket.request("PATCH", location, "Content-Range: 1024-3071", *fields) + body)
        client.half_close()
        assert client.rest() == b""
    answer = await api.http.get(location)
    assert answer.status_code == 204
    for _ in range(100):
        stored = int(answer.headers["Range"].removeprefix("0-")) + 1
        assert stored in (1024, 2048)
        answer = await patched(api, answer.headers["Location"], DATA[stored:], stored)
        if answer.status_code == 202:
            break
        # what had arrived before the connection broke was still on its way to the disk when we asked
        assert error_of(answer) == (416, "BLOB_UPLOAD_INVALID")
    assert answer.headers["Range"] == "0-3071"
    await whole(
        api, await api.http.put(with_query(answer.headers["Location"], digest=digest_of(DATA))), digest_of(DATA)
    )


async def test_session_outlives_the_registry(tmp_path: Path) -> None:
    """Another process with the same store goes on with a session: the state is in the Location and the store."""
    config = Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)}))
    async with in_process(config) as api:
        location = (await patched(api, await api.start("a"), CHUNKS[0], 0)).headers["Location"]
    async with in_process(config) as api:
        response = await patched(api, location, CHUNKS[1] + CHUNKS[2], 1024)
        assert (response.status_code, response.headers["Range"]) == (202, "0-3071")
    async with in_process(config) as api:
        digest = digest_of(DATA, "sha512")
        await whole(api, await api.http.put(with_query(response.headers["Location"], digest=digest)), digest)


@asynccontextmanager
async def in_process(config: Config) -> AsyncIterator[Api]:
    """A registry that starts and stops."""
    app = create_app(config)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield Api(client)

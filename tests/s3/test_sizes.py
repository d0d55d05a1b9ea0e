"""Blobs of every awkward size, in every way to push one, on each server: nothing, a byte, around a part, behind one."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.api import Api, digest_of, in_pieces, with_query
from tests.s3.registries import config_of, serving
from tests.s3.servers import S3Server

pytestmark = pytest.mark.slow

NAME = "team/sizes"
PART = 5 << 20
SIZES = (0, 1, PART - 1, PART, PART + 1, 2 * PART, 2 * PART + 1)
CONTENT = bytes(range(251)) * (2 * PART // 251 + 1)

Way = Callable[[Api, str, bytes], Awaitable[None]]


@pytest.fixture
async def place(s3_server: S3Server) -> tuple[S3Server, str, str]:
    return s3_server, *s3_server.new_root()


@pytest.fixture
async def api(place: tuple[S3Server, str, str]) -> AsyncIterator[Api]:
    server, bucket, root = place
    async with serving(config_of(server.parameters(bucket, root) | {"chunksize": PART})) as api:
        yield api


async def send(api: Api, method: str, url: str, data: bytes, status: int) -> str:
    answer = await api.http.request(method, url, content=data)
    assert answer.status_code == status, answer.text
    return answer.headers["Location"]


async def at_once(api: Api, digest: str, data: bytes) -> None:
    await send(api, "POST", f"/v2/{NAME}/blobs/uploads/?digest={digest}", data, 201)


async def put(api: Api, digest: str, data: bytes) -> None:
    await send(api, "PUT", with_query(await api.start(NAME), digest=digest), data, 201)


async def put_of_unknown_length(api: Api, digest: str, data: bytes) -> None:
    url = with_query(await api.start(NAME), digest=digest)
    answer = await api.http.put(url, content=in_pieces(*(data[n : n + 100_000] for n in range(0, len(data), 100_000))))
    assert answer.status_code == 201, answer.text


async def streamed(api: Api, digest: str, data: bytes) -> None:
    location = await send(api, "PATCH", await api.start(NAME), data, 202)
    await send(api, "PUT", with_query(location, digest=digest), b"", 201)


async def behind_a_small_part(api: Api, digest: str, data: bytes) -> None:
    location = await api.start(NAME)
    last = max(7, len(data) - 7)
    for piece in (data[:7], data[7:last], data[last:]):
        location = await send(api, "PATCH", location, piece, 202)
    await send(api, "PUT", with_query(location, digest=digest), b"", 201)


async def closed_with_the_last(api: Api, digest: str, data: bytes) -> None:
    location = await send(api, "PATCH", await api.start(NAME), data[:-1], 202)
    await send(api, "PUT", with_query(location, digest=digest), data[-1:], 201)


@pytest.mark.parametrize(
    "way", [at_once, put, put_of_unknown_length, streamed, behind_a_small_part, closed_with_the_last]
)
async def test_it_comes_back_as_it_went(api: Api, place: tuple[S3Server, str, str], way: Way) -> None:
    server, bucket, root = place
    for size in SIZES:
        data = CONTENT[:size]
        digest = digest_of(data)
        await way(api, digest, data)
        found = await api.get(f"/v2/{NAME}/blobs/{digest}")
        assert (found.status_code, found.content == data) == (200, True), size
        head = await api.http.head(f"/v2/{NAME}/blobs/{digest}")
        assert (head.status_code, head.headers["Content-Length"]) == (200, str(size))
    assert not [key for key in server.keys_of(bucket, root) if "/_uploads/" in key]
    assert not [key for key in server.open_uploads(bucket) if key.startswith(root)]

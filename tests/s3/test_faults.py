"""Faults of S3 that need a test of their own, by their number in the design's list; test_sweep.py has the others."""

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.api import Api, digest_of, error_of, with_query
from tests.s3.registries import config_of, quick_retries, serving
from tests.s3.relay import FOREVER, Fault, Relay
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

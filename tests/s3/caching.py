"""What tests of a bucket as a cache share: an image at an upstream, the pull of it, and looks at the bucket."""

import asyncio

from storage import layout
from storage.digest import Digest
from tests.api import IMAGE, INDEX, Api, descriptor, image, index
from tests.registry.proxy.scripted import Exchange, Scripted, serve
from tests.s3.servers import S3Server

NAME = "team/app"
CONFIG = b'{"architecture": "amd64"}'
LAYERS = (b"small", bytes(range(256)) * 2000, bytes(range(1, 252)) * 24_000)
"""The last one is 5.7 MiB: an upload in parts."""


class Bucket:
    """One test's folder in a bucket."""

    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket, self.root = server.new_root()
        self.parameters = server.parameters(self.bucket, self.root) | {"chunksize": 5 << 20}

    def keys(self, folder: str = "") -> list[str]:
        found = self.server.keys_of(self.bucket, f"{self.root}/{folder}")
        return [key.removeprefix(f"{self.root}/") for key in found]

    def delete(self, key: str) -> None:
        self.server.client().delete_object(Bucket=self.bucket, Key=f"{self.root}/{key}")

    def put(self, key: str, data: bytes) -> None:
        self.server.client().put_object(Bucket=self.bucket, Key=f"{self.root}/{key}", Body=data)


def have(hub: Scripted, name: str = NAME) -> tuple[Digest, Digest]:
    """An index `v1` with one image in it: their digests."""
    for data in (CONFIG, *LAYERS):
        hub.blob(name, data)
    body = image(CONFIG, LAYERS)
    digest = Digest.of(body)
    hub.manifests[name, str(digest)] = body
    whole = index(descriptor(body, IMAGE))
    return hub.image(name, "v1", whole), digest


async def pull(api: Api, name: str = NAME) -> None:
    """As a client does: tag, image, blobs side by side. All bytes are compared."""
    top = await api.get(f"/v2/{name}/manifests/v1")
    assert (top.status_code, top.headers["Content-Type"]) == (200, INDEX), top.text
    digest = top.json()["manifests"][0]["digest"]
    found = await api.get(f"/v2/{name}/manifests/{digest}")
    assert (found.status_code, found.content) == (200, image(CONFIG, LAYERS))
    bodies = await asyncio.gather(*(api.get(f"/v2/{name}/blobs/{Digest.of(data)}") for data in (CONFIG, *LAYERS)))
    assert [body.status_code for body in bodies] == [200] * 4
    assert all(body.content == data for body, data in zip(bodies, (CONFIG, *LAYERS), strict=True))


def gets(hub: Scripted) -> dict[str, int]:
    """GETs by path, of those that are for content."""
    paths = [seen.path for seen in hub.requests if seen.method == "GET"]
    return {path: paths.count(path) for path in set(paths)}


async def slow(exchange: Exchange) -> None:
    """An upstream that takes its time: the others come meanwhile."""
    await asyncio.sleep(0.2)
    await serve(exchange)


async def settled(bucket: Bucket) -> None:
    """Leases are removed behind the answers."""
    async with asyncio.timeout(30):
        while bucket.keys(layout.LEASES):  # noqa: ASYNC110 - the bucket has no event
            await asyncio.sleep(0.05)

"""Stores for tests of the S3 driver: a bucket in memory, SeaweedFS and moto."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from tests.s3 import servers
from tests.s3.servers import S3Server
from tests.storage.s3.memorybucket import MemoryBucket

seaweedfs = servers.seaweedfs
moto = servers.moto

CHUNKSIZE = 5 << 20
"""The smallest that S3 takes."""

SETTINGS = S3Settings(bucket="b", region="r", rootdirectory="/root", chunksize=CHUNKSIZE)


class RawStore:
    """What a store holds, behind the driver's back."""

    async def read(self, key: str) -> bytes | None:
        raise NotImplementedError

    async def write(self, key: str, data: bytes) -> None:
        raise NotImplementedError

    async def uploads(self) -> list[str]:
        """Keys of the uploads that are open."""
        raise NotImplementedError

    def driver(self) -> S3Driver:
        raise NotImplementedError


class MemoryStore(RawStore):
    def __init__(self, bucket: MemoryBucket) -> None:
        self.bucket = bucket

    async def read(self, key: str) -> bytes | None:
        found = self.bucket.objects.get(f"root/{key}")
        return None if found is None else found.data

    async def write(self, key: str, data: bytes) -> None:
        self.bucket.store(f"root/{key}", data)

    async def uploads(self) -> list[str]:
        return [upload.key.removeprefix("root/") for upload in self.bucket.uploads.values()]

    def driver(self) -> S3Driver:
        return S3Driver(SETTINGS, self.bucket)


class ServerStore(RawStore):
    def __init__(self, server: S3Server) -> None:
        self.server = server
        self.bucket, self.root = server.new_root()
        self.settings = replace(S3Settings.parse(server.parameters(self.bucket, self.root)), chunksize=CHUNKSIZE)

    def _call(self, verb: str, **arguments: Any) -> Any:
        return getattr(self.server.client(), verb)(Bucket=self.bucket, **arguments)

    async def read(self, key: str) -> bytes | None:
        client = self.server.client()
        try:
            answer = await asyncio.to_thread(self._call, "get_object", Key=f"{self.root}/{key}")
        except client.exceptions.NoSuchKey:
            return None
        with answer["Body"] as body:
            data: bytes = await asyncio.to_thread(body.read)
        return data

    async def write(self, key: str, data: bytes) -> None:
        await asyncio.to_thread(self._call, "put_object", Key=f"{self.root}/{key}", Body=data)

    async def uploads(self) -> list[str]:
        answer = await asyncio.to_thread(self._call, "list_multipart_uploads", Prefix=f"{self.root}/")
        return [upload["Key"].removeprefix(f"{self.root}/") for upload in answer.get("Uploads", [])]

    def driver(self) -> S3Driver:
        return S3Driver(self.settings, RestBucket(self.settings))


@pytest.fixture
def bucket() -> MemoryBucket:
    return MemoryBucket()


@pytest.fixture
async def driver(bucket: MemoryBucket) -> AsyncIterator[S3Driver]:
    driver = S3Driver(SETTINGS, bucket)
    yield driver
    await driver.aclose()

"""Fixtures of tests of a bucket as a cache: a folder in it, and the upstream."""

from collections.abc import AsyncIterator

import pytest

from tests.registry.proxy.scripted import Scripted, scripted
from tests.s3.caching import Bucket
from tests.s3.servers import S3Server


@pytest.fixture
def bucket(seaweedfs: S3Server) -> Bucket:
    return Bucket(seaweedfs)


@pytest.fixture
async def hub() -> AsyncIterator[Scripted]:
    async with scripted() as found:
        yield found

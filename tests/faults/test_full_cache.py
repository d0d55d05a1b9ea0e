"""A cache whose disk gets full in the middle of a fetch: a tmpfs of a few megabytes. Needs root, to mount it."""

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from storage.digest import Digest
from tests.faults.test_full_disk import disk as disk
from tests.faults.test_full_disk import free
from tests.registry.proxy.scripted import scripted
from tests.security.process import MIB, serving

CLIENTS = 20
BIG, SMALL, TINY = os.urandom(24 * MIB), os.urandom(MIB), b"tiny"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small filesystem"),
]


async def pull(http: httpx.AsyncClient, data: bytes) -> None:
    answer = await http.get(f"/v2/a/b/blobs/{Digest.of(data)}")
    assert (answer.status_code, answer.content == data) == (200, True)


def kept(disk: Path) -> list[bytes]:
    return [path.read_bytes() for path in disk.rglob("data")]


async def test_clients_get_what_does_not_fit(tmp_path: Path, disk: Path) -> None:
    storage = {"filesystem": {"rootdirectory": str(disk)}}
    async with scripted() as hub:
        for data in (TINY, SMALL, BIG):
            hub.blob("a/b", data)
        before = free(disk)
        with serving(tmp_path, {"storage": storage, "proxy": {"remoteurl": hub.url}}) as process:
            async with httpx.AsyncClient(base_url=process.url, timeout=60, trust_env=False) as http:
                await pull(http, TINY)  # what is loaded at the first request is no growth
                process.reset_peak()
                memory = process.memory()
                await asyncio.gather(*(pull(http, BIG) for _ in range(CLIENTS)))
                assert process.peak() - memory < CLIENTS * 4 * MIB
                await pull(http, BIG)
                await pull(http, SMALL)
        assert sorted(path.stat().st_size for path in disk.rglob("data")) == [len(TINY), len(SMALL)]
        assert before - free(disk) < 2 * MIB
    said = [line for line in (tmp_path / "registry.log").read_text().splitlines() if "cannot be kept" in line]
    assert len(said) == 1, said
    assert "make room" in said[0]

"""F3: the registry is killed while it fetches from a slow upstream; started again, it goes on where it stood.

A short round for `make test`, else a fifth of MOORAGE_KILLS, as each takes a second and more. A failed run is repeated
by MOORAGE_SEED.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from registry.proxy.claim import fetch_id
from storage import layout
from storage.digest import Digest
from storage.names import RepositoryName
from tests.interop.peers import OURS, started, write_config
from tests.ports import free_port
from tests.registry.proxy.scripted import Exchange, Scripted, scripted

KILLS = max(6, int(os.environ.get("MOORAGE_KILLS", "0")) // 5)
SEED = int(os.environ.get("MOORAGE_SEED", random.SystemRandom().randrange(1 << 32)))
NAME = RepositoryName("a/b")
PIECE, PAUSE = 64 << 10, 0.001
"""The upstream's pace: bytes, and seconds between them."""
LAST = 1 << 20
JITTER = 0.02
"""Seconds at most between what the client has got and the signal."""


class Slow:
    """A blob with Range, at that pace; the last LAST bytes when the test says so."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.go = asyncio.Event()

    async def __call__(self, exchange: Exchange) -> None:
        start, total = start_of(exchange.seen.headers.get("range")), len(self.data)
        fields = [("Content-Length", str(total - start))]
        if start:
            fields.append(("Content-Range", f"bytes {start}-{total - 1}/{total}"))
        await exchange.head(206 if start else 200, fields)
        for at in range(start, total, PIECE):
            if at >= total - LAST:
                await self.go.wait()
            await exchange.send(self.data[at : at + PIECE])
            await asyncio.sleep(PAUSE)


def start_of(range: str | None) -> int:
    return int((range or "bytes=0-").removeprefix("bytes=").removesuffix("-"))


@pytest.mark.slow
async def test_kill_9_in_the_middle_of_a_fetch(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"\n{KILLS} kills, seed {SEED}", file=sys.stderr)
    port, data, log = free_port(), tmp_path / "data", tmp_path / "log"
    saved = fetched = 0
    async with scripted() as hub:
        config = write_config(tmp_path, data, port, proxy={"remoteurl": hub.url})
        for _ in range(KILLS):
            blob = rng.randbytes(rng.randrange(2_000_000, 10_000_000))
            hub.on("GET", "/v2/a/b/blobs/", slow := Slow(blob), times=2)
            hub.requests.clear()
            with started(OURS, config, port, log) as process:
                got = await killed(process, port, blob, rng)
            slow.go.set()
            with started(OURS, config, port, log):
                async with client(port) as http:
                    whole = await http.get(path_of(blob))
                assert whole.content == blob
            saved, fetched = saved + resumed(hub, got), fetched + len(blob)
            left_nothing(data, blob)
    print(f"{saved} of {fetched} bytes were not fetched again", file=sys.stderr)
    assert "Traceback" not in log.read_text()


def path_of(blob: bytes) -> str:
    return f"/v2/{NAME}/blobs/{Digest.of(blob)}"


async def killed(process: "subprocess.Popen[bytes]", port: int, blob: bytes, rng: random.Random) -> int:
    """Pull until a random byte, and kill. Returns the bytes that the client has got."""
    enough, got = rng.randrange(1, len(blob) - LAST - PIECE), b""
    async with client(port) as http, http.stream("GET", path_of(blob)) as response:
        async for chunk in response.aiter_raw():
            got += chunk
            if len(got) >= enough:
                break
        await asyncio.sleep(rng.random() * JITTER)
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert blob.startswith(got)
    return len(got)


def resumed(hub: Scripted, got: int) -> int:
    """The second process has asked for what the first had not got: at least what a client had is not asked for."""
    first, second = (seen.headers.get("range") for seen in hub.requests if seen.method == "GET")
    assert first is None
    assert start_of(second) >= got > 0
    return start_of(second)


def left_nothing(data: Path, blob: bytes) -> None:
    digest = Digest.of(blob)
    assert (data / layout.blob_data(digest)).read_bytes() == blob
    assert (data / layout.layer_link(NAME, digest)).read_text() == str(digest)
    assert not (data / layout.upload(NAME, fetch_id(digest))).exists()
    assert not (data / layout.uploads(NAME)).exists()


def client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

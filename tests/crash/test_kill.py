"""kill -9, again and again, while clients push: what was acknowledged stays, and nothing is half visible (F1, F2).

MOORAGE_KILLS: how often (`make crash`: 200). MOORAGE_SEED: the seed of a run that is to be repeated; it decides what
is pushed and after which request the registry dies, though not how far each client was at that moment.
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.purge import purge_uploads
from tests.interop.peers import OURS, started, write_config
from tests.ports import free_port

from .looker import Looker
from .model import Model
from .pusher import Pusher

KILLS = int(os.environ.get("MOORAGE_KILLS", "25"))
SEED = int(os.environ.get("MOORAGE_SEED", random.SystemRandom().randrange(1 << 32)))
CLIENTS = 4
REQUESTS = 60
"""At most in a round, before the registry is killed."""
JITTER = 0.02
"""Seconds at most between the last counted request and the signal: long enough to be anywhere in it."""


class Killer:
    """Kills the process at a random moment after a random number of requests."""

    def __init__(self, process: "subprocess.Popen[bytes]", rng: random.Random) -> None:
        self._process = process
        self._left = rng.randrange(1, REQUESTS)
        self._delay = rng.random() * JITTER
        self.killed = asyncio.Event()

    def count(self) -> None:
        self._left -= 1
        if self._left == 0:
            asyncio.get_running_loop().call_later(self._delay, self._kill)

    def _kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.killed.set()


@pytest.mark.slow
async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"\n{KILLS} kills, seed {SEED}", file=sys.stderr)
    port, data = free_port(), tmp_path / "data"
    config, log = write_config(tmp_path, data, port), tmp_path / "log"
    models = [Model(f"client/{n}") for n in range(CLIENTS)]
    starts = []
    for _ in range(KILLS):
        before = time.monotonic()
        with started(OURS, config, port, log) as process:
            starts.append(time.monotonic() - before)
            assert len(scratch_folders(data)) == 1  # the new process's own
            await one_round(models, rng, process, port)
            assert process.wait() == -signal.SIGKILL
    await last_look(models, rng, config, port, log)
    await back_door(data)
    acknowledged = sum(model.acknowledged for model in models)
    slowest = f"{sorted(starts)[len(starts) // 2]:.2f} s, slowest {max(starts):.2f} s"
    print(f"{acknowledged} requests acknowledged; median start {slowest}", file=sys.stderr)
    assert "Traceback" not in log.read_text()


async def one_round(models: list[Model], rng: random.Random, process: "subprocess.Popen[bytes]", port: int) -> None:
    """Look at what the last round left, then push until the registry dies."""
    killer = Killer(process, rng)
    async with client(port) as http:
        await asyncio.gather(*(look_again(model, rng, http) for model in models))
    async with client(port) as http:
        pushers = [Pusher(model, http, random.Random(rng.random()), killer.count) for model in models]
        await asyncio.gather(*(pusher.work() for pusher in pushers))
    await killer.killed.wait()


async def look_again(model: Model, rng: random.Random, http: httpx.AsyncClient) -> None:
    """At what was touched since the last look, and at a few others, as long as they may be there."""
    old = rng.sample(sorted(model.blobs), min(2, len(model.blobs)))
    touched, model.touched = model.touched, set()
    await Looker(model, http).look({*touched, *old})


async def last_look(models: list[Model], rng: random.Random, config: Path, port: int, log: Path) -> None:
    """At everything; then finish the uploads that are still open, and stop the registry as one should."""
    with started(OURS, config, port, log):
        async with client(port) as http:
            for model in models:
                looker, pusher = Looker(model, http), Pusher(model, http, rng, lambda: None)
                await looker.look({*model.blobs, *model.manifests})
                await looker.finish_uploads(pusher)
                await looker.look({*model.blobs, *model.manifests})


async def back_door(data: Path) -> None:
    """On the disk: no blob with other bytes than its name says, no leftovers, sessions of nobody can be purged."""
    store = data / layout.ROOT
    for path in store.glob("blobs/*/*/*/data"):
        assert str(Digest.of(path.read_bytes(), path.parents[2].name)).endswith(f":{path.parent.name}")
    assert scratch_folders(data) == []
    content = ContentStore(FilesystemDriver(data, scratch=layout.SCRATCH))
    await purge_uploads(content, age=-1.0)
    await content.aclose()
    kinds = {path.name for path in store.rglob("*") if path.is_file()}
    assert kinds <= {"data", "link", "secret", "scanned"}
    assert not [path for path in store.rglob("_uploads/**/*") if path.is_file()]


def scratch_folders(data: Path) -> list[Path]:
    scratch = data / layout.SCRATCH
    return list(scratch.iterdir()) if scratch.exists() else []


def client(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)

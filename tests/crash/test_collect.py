"""F3: the collector is killed again and again; nothing that lives goes, and one more run leaves no trace of them.

A real process, on a folder and in a bucket; storage/test_gc.py kills it at every single call, in memory.
MOORAGE_KILLS=200 is a long round, and MOORAGE_SEED repeats one, though not the very moment of each kill.
"""

import os
import random
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from storage import layout
from storage.digest import Digest
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from tests.api import in_pieces
from tests.interop.buckets import BucketLab
from tests.interop.peers import OURS, environment, write_config
from tests.s3.servers import S3Server
from tests.storage.shelf import A, B, Shelf

KILLS = max(6, int(os.environ.get("MOORAGE_KILLS", "0")) // 5)
"""Each takes a second and more."""
SEED = int(os.environ.get("MOORAGE_SEED", random.SystemRandom().randrange(1 << 32)))
IMAGES = 12
"""That die, for each kill: five lines each. A pipe of PIPE bytes holds some 40, so it cannot get far ahead of us."""
LINES, PIPE = 4 * IMAGES, 4096
BEGINNING = 0.8
"""Seconds, about, in which it starts, lists and marks: an early kill is somewhere there."""
COLLECT = ("garbage-collect", "-m", "--grace", "0s")
PURGING = {"uploadpurging": {"enabled": True, "age": "1ms"}}


@pytest.fixture(params=["filesystem", "s3"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Shelf, Path]]:
    """A store, and the configuration for it."""
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("seaweedfs")
        lab = BucketLab.new(tmp_path, server)
        settings = S3Settings.parse(server.parameters(*lab.place))
        shelf = Shelf(S3Driver(settings, RestBucket(settings)))
        storage = lab.storage(maintenance=PURGING)
    else:
        shelf = Shelf(FilesystemDriver(tmp_path / "data", scratch=layout.SCRATCH))
        storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}, "maintenance": PURGING}
    yield shelf, write_config(tmp_path, tmp_path / "data", 1, storage=storage)
    await shelf.content.aclose()


@pytest.mark.slow
async def test_kill_9_of_the_collector(place: tuple[Shelf, Path]) -> None:
    rng = random.Random(SEED)
    print(f"\n{KILLS} kills, seed {SEED}", file=sys.stderr)
    shelf, config = place
    children = await push_what_lives(shelf)
    lives = await shelf.keys()
    await push_what_dies(shelf, children)
    left = [len(await shelf.keys())]
    for number in range(KILLS):
        begin_and_kill(config, rng, early=number % 3 == 0)
        assert lives <= await shelf.keys()
        left.append(len(await shelf.keys()))
    print(f"objects left: {left}, of which {len(lives)} live", file=sys.stderr)
    assert any(left[0] > count > len(lives) for count in left), "no run died in the middle of its work"
    assert run(*COLLECT, str(config)) == 0
    assert await shelf.keys() == lives
    assert run("doctor", "--deep", str(config)) == 0


async def push_what_lives(shelf: Shelf) -> list[Digest]:
    """Returns the images of the index."""
    children = [await shelf.image(A, b"child %d" % n, b"shared") for n in range(2)]
    await shelf.index(A, *children, tag="multi")
    subject = await shelf.image(B, b"shared", tag="plain")
    await shelf.image(B, b"signature", subject=subject)
    return children


async def push_what_dies(shelf: Shelf, children: list[Digest]) -> None:
    """Images that share a layer with those that live: some are signed, and some had a tag that the index has now.

    And uploads that nobody goes on with.
    """
    repository = shelf.content.repository(B)
    for number in range(KILLS * IMAGES):
        tag = "multi" if number % 4 == 0 else ""
        image = await shelf.image(A, b"one %d" % number, b"other %d" % number, b"shared", tag=tag)
        if number % 4 == 1:
            await shelf.image(A, b"signature %d" % number, subject=image)
    await shelf.index(A, *children, tag="multi")
    for _ in range(KILLS):
        await repository.append_upload(await repository.start_upload(), in_pieces(b"abandoned"))


def begin_and_kill(config: Path, rng: random.Random, *, early: bool) -> None:
    args = [str(OURS.path), *COLLECT, str(config)]
    at_once = environment() | {"PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        args, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=at_once, pipesize=PIPE
    ) as process:
        assert process.stdout is not None
        if early:
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.random() * BEGINNING)
        else:
            for _ in range(rng.randint(1, LINES)):
                process.stdout.readline()
        process.kill()


def run(*args: str) -> int:
    return subprocess.run([str(OURS.path), *args], check=False, env=environment()).returncode

"""F3: the collector is killed again and again; nothing that lives goes, and the run that is let alone finishes.

A real process and a real folder; storage/test_gc.py kills it at every single call, in memory. MOORAGE_KILLS=200 is a
long round, and MOORAGE_SEED repeats one, though not the very moment of each kill. Links to what a killed run has
swept are left to `doctor --fix`, which can tell that no manifest needs them.
"""

import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from storage import layout
from storage.drivers.filesystem import FilesystemDriver
from tests.api import in_pieces
from tests.interop.peers import OURS, environment, write_config
from tests.storage.shelf import A, B, Shelf, age

KILLS = max(6, int(os.environ.get("MOORAGE_KILLS", "0")) // 5)
"""Each takes a second and more."""
SEED = int(os.environ.get("MOORAGE_SEED", random.SystemRandom().randrange(1 << 32)))
IMAGES = 12
"""That die, for each kill: five lines each. A pipe of PIPE bytes holds some 40, so it cannot get far ahead of us."""
LINES, PIPE = 4 * IMAGES, 4096
BEGINNING = 0.8
"""Seconds, about, in which it starts, lists and marks: an early kill is somewhere there."""


@pytest.mark.slow
async def test_kill_9_of_the_collector(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    print(f"\n{KILLS} kills, seed {SEED}", file=sys.stderr)
    data = tmp_path / "data"
    config = write_config(tmp_path, data, 1)
    shelf = Shelf(FilesystemDriver(data, scratch=layout.SCRATCH))
    await push_what_lives(shelf)
    lives = await shelf.keys()
    await push_what_dies(shelf)
    age(shelf.driver)
    left = [len(await shelf.keys())]
    for number in range(KILLS):
        begin_and_kill(config, rng, early=number % 3 == 0)
        assert lives <= await shelf.keys()
        left.append(len(await shelf.keys()))
    print(f"objects left: {left}, of which {len(lives)} live", file=sys.stderr)
    assert any(left[0] > count > len(lives) for count in left), "no run died in the middle of its work"
    assert run("garbage-collect", "-m", str(config)) == 0
    left_over = await shelf.keys() - lives
    assert {key for key in left_over if not key.startswith(f"{layout.repository(A)}/_layers/")} == set()
    assert lives <= await shelf.keys()
    assert run("doctor", "--deep", "--fix", str(config)) == 0
    assert await shelf.keys() == lives
    await shelf.content.aclose()


async def push_what_lives(shelf: Shelf) -> None:
    children = [await shelf.image(A, b"child %d" % n, b"shared") for n in range(2)]
    await shelf.index(A, *children, tag="multi")
    subject = await shelf.image(B, b"shared", tag="plain")
    await shelf.image(B, b"signature", subject=subject)


async def push_what_dies(shelf: Shelf) -> None:
    """Images without a tag, which share a layer with those that live, and uploads that nobody goes on with."""
    repository = shelf.content.repository(B)
    for number in range(KILLS * IMAGES):
        await shelf.image(A, b"one %d" % number, b"other %d" % number, b"shared")
    for _ in range(KILLS):
        await repository.append_upload(await repository.start_upload(), in_pieces(b"abandoned"))


def begin_and_kill(config: Path, rng: random.Random, *, early: bool) -> None:
    args = [str(OURS.path), "garbage-collect", "-m", str(config)]
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

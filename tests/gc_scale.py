"""How long the collector and the doctor take over a large store, and with how much memory; distribution's beside ours.

    python -m tests.gc_scale [--manifests 20000] [--repositories 200] [--s3] [--folder /var/tmp/x]

Fills a folder with small images of their own config and layer (three blobs for each manifest, itself included), of
which every tenth has no tag; with --s3 a bucket of SeaweedFS with the same. Prints a line for each command: seconds,
and MB of memory at its peak. Each real collection has a store of its own.
"""

import argparse
import asyncio
import json
import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.store import Store
from storage import layout
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.parallel import for_each
from tests.interop.buckets import BucketLab
from tests.interop.peers import OURS, PEERS, Program, environment, write_config
from tests.s3.servers import S3Server, seaweedfs_server

DISTRIBUTION = next(each for each in PEERS if each.name == "distribution-3")
READING = (("garbage-collect", "-m", "--dry-run", "--grace", "0s"), ("doctor",), ("doctor", "--deep"))
COLLECTING = ("garbage-collect", "-m", "-q", "--grace", "0s")


def fill(root: Path, manifests: int, repositories: int) -> None:
    store = Store(root)
    for number in range(manifests):
        name = f"team/app{number % repositories}"
        layer = store.add_blob(name, b"layer %d" % number * 20)
        tags = () if number % 10 == 9 else (f"v{number}",)
        store.add_image(name, [layer], *tags, config=json.dumps({"number": number}).encode())


async def upload(root: Path, parameters: dict[str, Any]) -> None:
    settings = S3Settings.parse(parameters)
    driver = S3Driver(settings, RestBucket(settings))

    async def put(path: Path) -> None:
        await driver.put(str(path.relative_to(root)), path.read_bytes())

    async def paths() -> AsyncIterator[Path]:
        for path in (root / layout.ROOT).rglob("*"):
            if path.is_file():
                yield path

    try:
        await for_each(paths(), put)
    finally:
        await driver.aclose()


def measure(program: Program, *command: str) -> None:
    assert program.path is not None
    begun, peak = time.monotonic(), 0
    with subprocess.Popen([program.path, *command], stdout=subprocess.DEVNULL, env=environment()) as process:
        while (ended := os.wait4(process.pid, os.WNOHANG))[0] == 0:
            peak = max(peak, peak_of(process.pid))
            time.sleep(0.02)
    _, status, used = ended
    process.returncode = os.waitstatus_to_exitcode(status)
    words = " ".join(word for word in command if not word.endswith(".yml"))
    print(
        f"{program.name:16} {words:48} {time.monotonic() - begun:7.1f} s"
        f" {used.ru_utime + used.ru_stime:7.1f} s of CPU {peak / 1000:6.0f} MB  exit {process.returncode}",
        flush=True,
    )


def peak_of(pid: int) -> int:
    """kB at most so far. Not ru_maxrss, which counts what the parent had when it forked."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


@contextmanager
def filled(options: argparse.Namespace, server: S3Server | None) -> Iterator[str]:
    """A configuration with a new store of that size."""
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        fill(folder / "data", options.manifests, options.repositories)
        if server is None:
            yield str(write_config(folder, folder / "data", 1))
            return
        lab = BucketLab.new(folder, server)
        asyncio.run(upload(folder / "data", server.parameters(*lab.place)))
        yield str(write_config(folder, folder / "unused", 1, storage=lab.storage()))


def compare(options: argparse.Namespace, server: S3Server | None) -> None:
    with filled(options, server) as config:
        for command in READING:
            measure(OURS, *command, config)
        if server is None:
            measure(DISTRIBUTION, "garbage-collect", "-m", "--dry-run", config)
        measure(OURS, *COLLECTING, config)
    if server is None:
        with filled(options, server) as config:
            measure(DISTRIBUTION, "garbage-collect", "-m", config)


def main(options: argparse.Namespace) -> None:
    print(f"{options.manifests} manifests in {options.repositories} repositories, {3 * options.manifests} blobs")
    if options.s3:
        with seaweedfs_server(options.folder) as server:
            compare(options, server)
    else:
        compare(options, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manifests", type=int, default=20_000)
    parser.add_argument("--repositories", type=int, default=200)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--folder", type=Path, default=None, help="where it is filled; default: that of TMPDIR")
    main(parser.parse_args())

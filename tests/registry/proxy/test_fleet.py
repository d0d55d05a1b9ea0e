"""F36: 200 clients on one uncached blob, real processes: one question upstream, all whole, little memory.

Small for `make test`; MOORAGE_FLEET=268435456 (bytes) for the size that fleets have.
"""

import os
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.api import digest_of
from tests.security.process import MIB, Process, serving

from .fleet import Fleet, gate

SIZE = int(os.environ.get("MOORAGE_FLEET", str(8 * MIB)))
CLIENTS = 200

pytestmark = pytest.mark.slow


def pushed(url: str, data: bytes) -> None:
    with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
        begun = http.post("/v2/a/b/blobs/uploads/")
        where = httpx.URL(begun.headers["Location"]).copy_add_param("digest", digest_of(data))
        assert http.put(where, content=data).status_code == 201


def tree(process: Process) -> list[int]:
    """The process and its workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [process.pid, *map(int, children)]


def memory(process: Process, *, peak: bool = False) -> int:
    return sum(
        each.peak() if peak else each.memory()
        for each in (Process(pid, process.address, process.scheme, process.log) for pid in tree(process))
    )


def check(upstream: str, folder: Path, data: bytes, workers: int = 1) -> None:
    """The fetch is held in its middle until all are there and the client that caused it has left."""
    folder.mkdir()
    half = len(data) // 2
    with gate(upstream, half) as way:
        config = {"storage": {"filesystem": {"rootdirectory": str(folder / "data")}}, "proxy": {"remoteurl": way.url}}
        program = ("-m", "registry", "serve", *(("--workers", str(workers)) if workers > 1 else ()))
        with serving(folder, config, program=program) as process:
            before = memory(process)
            fleet = Fleet((process.host, process.port), f"/v2/a/b/blobs/{digest_of(data)}", data)
            began = time.monotonic()
            fleet.join(1)
            fleet.read(1)
            fleet.join(CLIENTS - 1)
            fleet.read(half - MIB)
            fleet.leave(1)
            way.open.set()
            fleet.read(len(data))
            took = time.monotonic() - began
            used = memory(process, peak=True) - before
            fleet.leave(len(fleet.clients))
            assert way.gets == 1
            rate = CLIENTS * len(data) / took / 1e6
            print(
                f"\n{CLIENTS} clients, {len(data) / MIB:.0f} MiB, {workers} workers: {took:.1f} s, {rate:.0f} MB/s, "
                f"{used / MIB:.0f} MiB more at the peak",
                file=sys.stderr,
            )
            assert used < 64 * MIB * workers


@pytest.mark.parametrize("workers", [1, 2])
def test_many_clients_one_question(tmp_path: Path, workers: int) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "upstream").mkdir()
    with serving(
        tmp_path / "upstream", {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "hosted")}}}
    ) as upstream:
        pushed(upstream.url, data)
        check(upstream.url, tmp_path / "cache", data, workers)

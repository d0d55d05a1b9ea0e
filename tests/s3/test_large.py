"""A blob of any size goes in and out in a bounded memory: made on the fly, never held, compared by its digest.

The size is MOORAGE_LARGE (96MiB unless said otherwise). `make s3` takes 6 GiB, more than S3 copies in one request, and
needs 13 GiB of disk for SeaweedFS; the data goes with it.
"""

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api import with_query
from tests.interop.content import answered
from tests.interop.peers import OURS, started, write_config
from tests.ports import free_port
from tests.s3.relay import relaying
from tests.s3.servers import S3Server, seaweedfs_server

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = int(os.environ.get("MOORAGE_LARGE", "96MiB").removesuffix("MiB")) * MIB
BOUND = 72 * MIB
"""Bytes by which the registry may grow over one blob, whatever its size: less than the smallest that is tried."""

PART = 10 * MIB
AT_ONCE = 6
SLOW = 8e6
"""Bytes a second that the store takes on each connection: every upload has its two parts full then."""

NAME = "team/large"
COPIED_AT_ONCE = 32 * MIB
"""storage.s3.multipartcopythresholdsize: above it a copy is made in parts."""


class Source:
    """The same bytes each time they are asked for, and different in every MiB."""

    def __init__(self, seed: bytes, size: int = SIZE) -> None:
        self.size = size
        self._block = hashlib.shake_256(seed).digest(MIB)
        self.digest = f"sha256:{self._hash()}"

    def _hash(self) -> str:
        whole = hashlib.sha256()
        for piece in self.pieces():
            whole.update(piece)
        return whole.hexdigest()

    def pieces(self) -> Iterator[bytes]:
        for number in range(self.size // MIB):
            yield number.to_bytes(8, "big") + self._block[8:]


@pytest.fixture
def server(seaweedfs: S3Server) -> Iterator[S3Server]:
    """One of its own for a large size, whose disk is free again at the end."""
    if SIZE <= 256 * MIB:
        yield seaweedfs
        return
    needed, free = int(2.2 * SIZE), shutil.disk_usage(tempfile.gettempdir()).free
    if free < needed:
        pytest.skip(f"needs {needed >> 30} GiB of disk, {free >> 30} are free")
    with seaweedfs_server() as own:
        yield own


@pytest.fixture(params=["known", "streamed"])
def push(request: pytest.FixtureRequest) -> Callable[[httpx.Client, Source], None]:
    return push_known if request.param == "known" else push_streamed


def push_known(http: httpx.Client, source: Source) -> None:
    """The digest comes with the bytes."""
    location = answered(http.post(f"/v2/{NAME}/blobs/uploads/"), 202).headers["Location"]
    headers = {"Content-Length": str(source.size)}
    answered(http.put(with_query(location, digest=source.digest), content=source.pieces(), headers=headers), 201)


def push_streamed(http: httpx.Client, source: Source) -> None:
    """The digest comes last, and the length never, as from docker."""
    location = answered(http.post(f"/v2/{NAME}/blobs/uploads/"), 202).headers["Location"]
    location = answered(http.patch(location, content=source.pieces()), 202).headers["Location"]
    answered(http.put(with_query(location, digest=source.digest)), 201)


def pull(http: httpx.Client, source: Source) -> None:
    found, size = hashlib.sha256(), 0
    with http.stream("GET", f"/v2/{NAME}/blobs/{source.digest}") as answer:
        assert answer.headers["Content-Length"] == str(SIZE)
        for piece in answer.iter_raw(MIB):
            found.update(piece)
            size += len(piece)
    assert (size, f"sha256:{found.hexdigest()}") == (SIZE, source.digest)


def peak_of(process: Any) -> int:
    """VmHWM: the most memory that it has had so far, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert found
    return int(found[1]) << 10


def test_memory_is_bounded(
    server: S3Server,
    push: Callable[[httpx.Client, Source], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, port = Source(push.__name__.encode()), free_port()
    bucket, root = server.new_root()
    with relaying(server.endpoint) as relay:
        storage = {
            "s3": server.parameters(bucket, root, endpoint=relay.endpoint),
            "redirect": {"disable": True},
        }
        config = write_config(tmp_path, tmp_path, port, storage=storage)
        with (
            started(OURS, config, port, tmp_path / "registry.log") as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=1800) as http,
        ):
            begun, idle = time.monotonic(), peak_of(process)
            push(http, source)
            pushed, after_push = time.monotonic(), peak_of(process)
            pull(http, source)
            pulled, peak = time.monotonic(), peak_of(process)
        calls = dict(relay.counts())
    with capsys.disabled():
        print(
            f"\n{SIZE // MIB} MiB, {push.__name__}: push {pushed - begun:.1f} s, pull {pulled - pushed:.1f} s; "
            f"peak memory {idle // MIB} MiB idle, {after_push // MIB} after the push, {peak // MIB} after the pull; "
            f"{calls}"
        )
    check_bucket(server, bucket, root, source)
    assert (calls.get("UploadPartCopy", 0) > 1) == (push is push_streamed and SIZE > COPIED_AT_ONCE)
    assert peak - idle < BOUND


def test_each_upload_takes_two_parts(
    seaweedfs: S3Server,
    tmp_path: Path,
    push: Callable[[httpx.Client, Source], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The difference between one upload and several side by side, over a store that is slower than the clients."""
    size, port = 4 * PART, free_port()
    sources = [Source(f"{push.__name__} {number}".encode(), size) for number in range(AT_ONCE + 1)]
    bucket, root = seaweedfs.new_root()
    with relaying(seaweedfs.endpoint, rate=SLOW) as relay:
        storage = {"s3": seaweedfs.parameters(bucket, root, endpoint=relay.endpoint) | {"chunksize": PART}}
        config = write_config(tmp_path, tmp_path, port, storage=storage)
        with (
            started(OURS, config, port, tmp_path / "registry.log") as process,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=600) as http,
            ThreadPoolExecutor(AT_ONCE) as pool,
        ):
            push(http, sources.pop())
            one = peak_of(process)
            for done in [pool.submit(push, http, source) for source in sources]:
                done.result()
            each = (peak_of(process) - one) / (AT_ONCE - 1)
    with capsys.disabled():
        print(
            f"\n{AT_ONCE} uploads at once, {push.__name__}: {each / MIB:.1f} MiB for each; one: {one // MIB} MiB in all"
        )
    assert each < 3.2 * PART  # with what the sockets and the heap take besides


def check_bucket(server: S3Server, bucket: str, root: str, source: Source) -> None:
    """The blob, whole, and nothing besides of that size or unfinished."""
    hex = source.digest.removeprefix("sha256:")
    key = f"{root}/docker/registry/v2/blobs/sha256/{hex[:2]}/{hex}/data"
    assert server.client().head_object(Bucket=bucket, Key=key)["ContentLength"] == SIZE
    assert not [name for name in server.keys_of(bucket, root) if "/_uploads/" in name]
    assert not [name for name in server.open_uploads(bucket) if name.startswith(root)]
    server.client().delete_object(Bucket=bucket, Key=key)

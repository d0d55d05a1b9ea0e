"""A read-only replica: it may Get and List, and nothing else; it asks the bucket only when a client asks it."""

import asyncio
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api import IMAGE, Api, digest_of, error_of, image
from tests.interop.peers import OURS, started, write_config
from tests.ports import free_port
from tests.s3.calls import GET, READS
from tests.s3.registries import config_of, serving
from tests.s3.relay import Relay, relaying
from tests.s3.servers import S3Server

NAME = "team/app"
LAYERS = (b"layer one " * 1000, b"layer two " * 2000)
LARGE = bytes(range(1, 252)) * 46_000  # 11 MiB
IDLE_SECONDS = 3.0
START_SECONDS = 1.0
"""Of CPU, which is what a start takes where nobody else is busy."""


@pytest.fixture
async def place(seaweedfs: S3Server) -> tuple[str, str]:
    """Bucket and folder with an image `t`, and a large blob."""
    bucket, root = seaweedfs.new_root()
    async with serving(config_of(seaweedfs.parameters(bucket, root))) as writer:
        await writer.push_image(NAME, "t", LAYERS)
        await writer.push_blob(NAME, LARGE)
    return bucket, root


@contextmanager
def replica(
    folder: Path, parameters: dict[str, Any], *, port: int | None = None, redirects: bool = False
) -> Iterator[tuple[httpx.Client, Any]]:
    """`registry serve` as a process; a client, and the process. Its health check is switched on, as in registry:3."""
    port = port or free_port()
    storage = {
        "s3": parameters,
        "delete": {"enabled": True},
        "redirect": {"disable": not redirects},
        "maintenance": {"readonly": {"enabled": True}},
    }
    config = write_config(folder, folder, port, storage=storage)
    with (
        started(OURS, config, port, folder / f"replica-{port}.log") as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http,
    ):
        yield http, process


def cpu_of(process: Any) -> float:
    """Seconds that it has taken so far: what its start takes, whoever else is busy."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def pull(http: httpx.Client) -> None:
    """The whole image, by tag, as a client does it."""
    head = http.head(f"/v2/{NAME}/manifests/t", headers={"Accept": IMAGE})
    assert head.headers["Docker-Content-Digest"] == digest_of(image(b"{}", LAYERS))
    assert http.get(f"/v2/{NAME}/manifests/{digest_of(image(b'{}', LAYERS))}").content == image(b"{}", LAYERS)
    for data in (b"{}", *LAYERS):
        assert http.get(f"/v2/{NAME}/blobs/{digest_of(data)}", follow_redirects=True).content == data


@pytest.mark.slow
def test_it_serves_with_get_and_list_alone_and_asks_nothing_when_idle(
    place: tuple[str, str], seaweedfs: S3Server, tmp_path: Path
) -> None:
    with relaying(seaweedfs.endpoint) as relay:
        parameters = seaweedfs.parameters(*place, keys=seaweedfs.reader, endpoint=relay.endpoint)
        began = time.monotonic()
        with replica(tmp_path, parameters) as (http, process):
            seconds = time.monotonic() - began
            print(f"\nread-only replica on S3: first answer after {seconds:.2f} s, {cpu_of(process):.2f} s of CPU")
            time.sleep(IDLE_SECONDS)
            looks = [(call.operation, call.key.rpartition("/")[2]) for call in relay.calls]
            assert looks == [(GET, "secret")], "it looked at the bucket's health for the first request, and no more"
            pull(http)
            assert http.get(f"/v2/{NAME}/tags/list").json()["tags"] == ["t"]
            assert http.get("/v2/_catalog").json()["repositories"] == [NAME]
            assert http.get(f"/v2/{NAME}/referrers/{digest_of(LAYERS[0])}").json()["manifests"] == []
            assert http.get(f"/v2/{NAME}/manifests/none").status_code == 404
            assert error_of(http.post(f"/v2/{NAME}/blobs/uploads/"))[0] == 405
            assert error_of(http.put(f"/v2/{NAME}/manifests/u", content=image(b"{}", LAYERS)))[0] == 405
            assert error_of(http.delete(f"/v2/{NAME}/manifests/t"))[0] == 405
            with relay.counting() as idle:
                time.sleep(IDLE_SECONDS)
            assert idle == []
        assert {call.operation for call in relay.calls} <= READS
        assert not [call for call in relay.calls if call.status not in (200, 206, 404)]


@pytest.mark.slow
def test_it_starts_in_under_a_second(seaweedfs: S3Server, tmp_path: Path) -> None:
    """The best of three."""
    starts = []
    for _ in range(3):
        with replica(tmp_path, seaweedfs.parameters(*seaweedfs.new_root(), keys=seaweedfs.reader)) as (_, process):
            starts.append(cpu_of(process))
    assert min(starts) < START_SECONDS


async def test_it_starts_no_task_that_could_call(place: tuple[str, str], seaweedfs: S3Server) -> None:
    """Counting for a while shows no timer that is longer than the while."""
    async with Relay(seaweedfs.endpoint) as relay:
        parameters = seaweedfs.parameters(*place, keys=seaweedfs.reader, endpoint=relay.endpoint)
        before = asyncio.all_tasks()
        async with serving(config_of(parameters, read_only=True)) as api:
            assert relay.calls == []
            assert new_tasks(before) == []
            await pull_in_process(api)
            assert new_tasks(before) == []


def new_tasks(before: "set[asyncio.Task[Any]]") -> list[str]:
    """Neither the application's own, which waits for the end, nor the relay's, nor the end of a generator (no name)."""
    tasks = (task for task in asyncio.all_tasks() - before if not task.done())
    names = [getattr(task.get_coro(), "__qualname__", "") for task in tasks]
    return [name for name in names if name and not name.endswith(".__call__") and name != "Connection.serve"]


async def pull_in_process(api: Api) -> None:
    assert (await api.get(f"/v2/{NAME}/manifests/t")).status_code == 200
    for data in (b"{}", *LAYERS):
        assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")).content == data


@pytest.mark.slow
def test_its_redirects_are_signed_with_its_own_keys(
    place: tuple[str, str], seaweedfs: S3Server, tmp_path: Path
) -> None:
    with relaying(seaweedfs.endpoint) as relay:
        parameters = seaweedfs.parameters(*place, keys=seaweedfs.reader, endpoint=relay.endpoint)
        with replica(tmp_path, parameters, redirects=True) as (http, _):
            answer = http.get(f"/v2/{NAME}/blobs/{digest_of(LARGE)}")
            assert answer.status_code == 307
            assert httpx.get(answer.headers["Location"], trust_env=False).content == LARGE
            part = httpx.get(answer.headers["Location"], headers={"Range": "bytes=5-9"}, trust_env=False)
            assert (part.status_code, part.content) == (206, LARGE[5:10])
            asked = {"Range": "bytes=-7"}  # of us: a client sends it along, and the store answers it
            part = http.get(f"/v2/{NAME}/blobs/{digest_of(LARGE)}", headers=asked, follow_redirects=True)
            assert (part.status_code, part.content, len(part.history)) == (206, LARGE[-7:], 1)
            head = http.head(f"/v2/{NAME}/blobs/{digest_of(LARGE)}", follow_redirects=True)
            assert (head.status_code, head.headers["Content-Length"]) == (200, str(len(LARGE)))
            assert [answer.status_code for answer in head.history] == [307]
            pull(http)
        assert {call.operation for call in relay.calls} <= READS


@pytest.mark.slow
def test_it_can_be_killed_in_the_middle_of_a_pull(place: tuple[str, str], seaweedfs: S3Server, tmp_path: Path) -> None:
    """It keeps nothing: started again, it goes on where the client is."""
    parameters, port = seaweedfs.parameters(*place, keys=seaweedfs.reader), free_port()
    path, got = f"/v2/{NAME}/blobs/{digest_of(LARGE)}", bytearray()

    def read_until_killed(http: httpx.Client, process: Any) -> None:
        with http.stream("GET", path) as answer:
            for piece in answer.iter_raw(1 << 16):
                got.extend(piece)
                if len(got) < len(LARGE) // 4 <= len(got) + (1 << 16):
                    process.kill()
                    process.wait()

    with replica(tmp_path, parameters, port=port) as (http, process), pytest.raises(httpx.TransportError):
        read_until_killed(http, process)
    assert 0 < len(got) < len(LARGE)
    with replica(tmp_path, parameters, port=port) as (http, _):
        rest = http.get(path, headers={"Range": f"bytes={len(got)}-"})
        assert rest.status_code == 206
        assert f"sha256:{hashlib.sha256(bytes(got) + rest.content).hexdigest()}" == digest_of(LARGE)
        pull(http)

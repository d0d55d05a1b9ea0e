"""F5 with a real full disk: a tmpfs of a few megabytes. Needs root, to mount it."""

import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from storage import layout
from tests.api import IMAGE, Api, digest_of, error_of, image, with_query

NAME = "full/disk"
LAYER = b"layer " * 20_000
OLD = image(b"{}", (LAYER,))
NEW = image(b"{}", (LAYER,), annotations={"is": "new"})
MIB = 1 << 20

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small filesystem"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """4 MiB, and few inodes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m,nr_inodes=400", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this root may not mount: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.fixture
async def api(disk: Path) -> AsyncIterator[Api]:
    """A registry on the disk, holding an image with the tag `t`."""
    storage = StorageConfig(
        driver="filesystem", parameters={"rootdirectory": str(disk)}, delete=DeleteConfig(enabled=True)
    )
    app = create_app(Config(storage=storage))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        api = Api(client)
        await api.push_blob(NAME, b"{}")
        await api.push_blob(NAME, LAYER)
        await api.push_manifest(NAME, OLD, "t")
        yield api


def fill(disk: Path) -> Path:
    """Take what space is left."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return filler


def use_up_inodes(disk: Path) -> list[Path]:
    made = []
    try:
        for n in range(10_000):
            path = disk / f"lost+found-{n}"
            path.touch()
            made.append(path)
    except OSError:
        return made
    raise AssertionError("there is no end of inodes")


async def everything_pulls(api: Api) -> None:
    assert (await api.get(f"/v2/{NAME}/manifests/t")).content == OLD
    assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(LAYER)}")).content == LAYER
    assert await api.tags(NAME) == ["t"]
    assert await api.referrers(NAME, digest_of(OLD)) == []
    assert (await api.get("/v2/_catalog")).json() == {"repositories": [NAME]}


def scratch_files(disk: Path) -> list[str]:
    return [path.name for path in (disk / layout.SCRATCH).glob("*/*")]


async def test_pushes_to_a_full_disk_are_refused_and_pulls_go_on(api: Api, disk: Path) -> None:
    location = await api.start(NAME)
    filler = fill(disk)
    big = os.urandom(MIB)
    digest = digest_of(big)
    for response in (
        await api.http.patch(location, content=big),
        await api.http.put(with_query(location, digest=digest), content=big),
        await api.http.post(f"/v2/{NAME}/blobs/uploads/?digest={digest}", content=big),
        await api.http.post(f"/v2/{NAME}/blobs/uploads/"),
        await api.http.put(f"/v2/{NAME}/manifests/t", content=NEW, headers={"Content-Type": IMAGE}),
    ):
        assert error_of(response) == (507, "UNAVAILABLE"), response.request
        assert "Retry-After" in response.headers
        await everything_pulls(api)
        assert (await api.get(f"/v2/{NAME}/blobs/{digest}")).status_code == 404
        assert scratch_files(disk) == ["lock"]
    filler.unlink()
    # the session that met the full disk goes on where it stood, and everything else succeeds, too
    status = await api.http.get(location)
    assert status.status_code == 204
    assert status.headers["Range"] == "0-0"
    finished = await api.http.put(with_query(status.headers["Location"], digest=digest), content=big)
    assert finished.status_code == 201
    await api.push_manifest(NAME, NEW, "t")
    assert (await api.get(f"/v2/{NAME}/manifests/t")).content == NEW


async def test_a_disk_that_fills_during_an_upload(api: Api, disk: Path) -> None:
    """More than fits, in one body: what was stored of it is given back."""
    location = await api.start(NAME)
    before = free(disk)
    response = await api.http.patch(location, content=os.urandom(6 * MIB))
    assert error_of(response) == (507, "UNAVAILABLE")
    await everything_pulls(api)
    status = await api.http.get(location)
    assert (await api.http.delete(status.headers["Location"])).status_code == 204
    assert free(disk) >= before
    at_once = await api.http.post(f"/v2/{NAME}/blobs/uploads/?digest={digest_of(b'x')}", content=os.urandom(6 * MIB))
    assert at_once.status_code == 507
    assert free(disk) >= before  # nobody knows that session's Location, so it is gone by itself
    await everything_pulls(api)


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_what_did_not_fit_takes_no_room_from_others(api: Api, disk: Path, method: str) -> None:
    """A client that gives up, as docker does, leaves its upload behind: nobody else's push shall fail for it."""
    location, before = await api.start(NAME), free(disk)
    url = with_query(location, digest=digest_of(b"never whole")) if method == "PUT" else location
    refused = await api.http.request(method, url, content=megabytes(6))
    assert error_of(refused) == (507, "UNAVAILABLE")
    assert free(disk) >= before
    await api.push_blob(NAME, os.urandom(2 * MIB))
    finished = await api.http.put(with_query(location, digest=digest_of(b"x")), content=b"x")
    assert finished.status_code == 201


async def test_what_was_acknowledged_stays(api: Api, disk: Path) -> None:
    location, first = await api.start(NAME), os.urandom(MIB)
    accepted = await api.http.patch(location, content=first)
    assert accepted.status_code == 202
    assert (await api.http.patch(accepted.headers["Location"], content=megabytes(6))).status_code == 507
    status = await api.http.get(accepted.headers["Location"])
    assert int(status.headers["Range"].removeprefix("0-")) >= MIB - 1


@pytest.mark.parametrize("used_up", [fill, use_up_inodes])
async def test_a_registry_starts_on_a_full_disk(
    api: Api, disk: Path, used_up: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    used_up(disk)
    app = create_app(Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(disk)})))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        again = Api(client)
        await everything_pulls(again)
        assert (await again.get("/readyz")).status_code == 200
        assert error_of(await client.post(f"/v2/{NAME}/blobs/uploads/"))[0] == 507
    assert "registry garbage-collect" in caplog.text


async def test_deleting_makes_room_on_a_full_disk(api: Api, disk: Path) -> None:
    fill(disk)
    deleted = await api.http.delete(f"/v2/{NAME}/manifests/t")
    assert deleted.status_code == 202
    assert await api.tags(NAME) == []
    assert (await api.http.delete(f"/v2/{NAME}/manifests/{digest_of(OLD)}")).status_code == 202
    assert (await api.http.delete(f"/v2/{NAME}/blobs/{digest_of(LAYER)}")).status_code == 202


async def test_no_inodes_left(api: Api, disk: Path) -> None:
    location = await api.start(NAME)
    files = use_up_inodes(disk)
    refused = await api.http.put(f"/v2/{NAME}/manifests/t", content=NEW, headers={"Content-Type": IMAGE})
    assert error_of(refused) == (507, "UNAVAILABLE")
    assert error_of(await api.http.post(f"/v2/{NAME}/blobs/uploads/"))[0] == 507
    await everything_pulls(api)
    for path in files:
        path.unlink()
    done = await api.http.put(with_query(location, digest=digest_of(b"x")), content=b"x")
    assert done.status_code == 201
    await api.push_manifest(NAME, NEW, "t")


async def megabytes(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield os.urandom(MIB)


def free(disk: Path) -> int:
    status = os.statvfs(disk)
    return status.f_bfree * status.f_bsize

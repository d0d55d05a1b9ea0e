"""Blobs that clients fetch from the store themselves, and what a whole pull and push ask of a store, over HTTP."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import (
    CacheConfig,
    DeleteConfig,
    HTTPConfig,
    MaintenanceConfig,
    ReadOnlyConfig,
    RedirectConfig,
    StorageConfig,
    UploadsConfig,
)
from registry.serving.lifespan import lifespan
from storage import drivers, layout
from storage.digest import Digest
from tests.api import Api, digest_of, error_of, image, with_query
from tests.storage.spying import NAME, Counted, DearWithUrls, Record

DATA, MORE, CONFIG = b"the bytes of a layer", b"and of another", b"{}"
DIGEST = digest_of(DATA)
BLOB = f"/v2/{NAME}/blobs/{DIGEST}"

Serve = Callable[[Config], AbstractAsyncContextManager[Api]]


def config(
    *, disable: bool = False, read_only: bool = False, deletes: bool = False, linkttl: float | None = None
) -> Config:
    storage = StorageConfig(
        driver="dear",
        parameters={},
        redirect=RedirectConfig(disable=disable),
        delete=DeleteConfig(enabled=deletes),
        maintenance=MaintenanceConfig(readonly=ReadOnlyConfig(enabled=read_only)),
    )
    return Config(storage=storage, http=HTTPConfig(secret="s"), cache=CacheConfig(linkttl=linkttl))


@pytest.fixture
def serve(record: Record, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Registries over one store whose calls are counted."""
    store = DearWithUrls()
    monkeypatch.setitem(drivers._BUILT_IN, "dear", lambda parameters: Counted(store, record))

    @asynccontextmanager
    async def serving(config: Config) -> AsyncIterator[Api]:
        app = create_app(config)
        transport = httpx.ASGITransport(app)
        async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
            record.taken()
            yield Api(client)

    return serving


@pytest.fixture
def record() -> Record:
    return Record()


async def test_a_redirect_for_each_method(serve: Serve) -> None:
    async with serve(config()) as api:
        await api.push_blob(NAME, DATA)
        for method in ("GET", "HEAD"):
            response = await api.http.request(method, BLOB, headers={"Range": "bytes=0-1"})
            assert (response.status_code, response.content) == (307, b"")
            key = layout.blob_data(Digest.parse(DIGEST))
            assert response.headers["Location"] == f"https://store.test/{key}?method={method}&expires=1200"
            assert response.headers["Docker-Content-Digest"] == DIGEST
            assert response.headers["ETag"] == f'"{DIGEST}"'
            assert response.headers["Cache-Control"] == "private, max-age=60", "shorter than the address is good for"
            response = await api.http.request(method, BLOB, headers={"If-None-Match": f'"{DIGEST}"'})
            assert response.status_code == 304
            response = await api.http.request(method, f"/v2/{NAME}/blobs/{digest_of(b'none')}")
            assert response.status_code == 404
        assert error_of(await api.get(f"/v2/other/blobs/{DIGEST}")) == (404, "BLOB_UNKNOWN")


async def test_redirects_can_be_disabled(serve: Serve) -> None:
    async with serve(config(disable=True)) as api:
        await api.push_blob(NAME, DATA)
        response = await api.get(BLOB, Range="bytes=4-8")
        assert (response.status_code, response.content) == (206, DATA[4:9])
        response = await api.http.head(BLOB)
        assert (response.status_code, response.headers["Content-Length"]) == (200, str(len(DATA)))


@pytest.mark.parametrize("redirects", [True, False])
async def test_calls_of_a_pull_through_a_cold_replica(serve: Serve, record: Record, redirects: bool) -> None:
    """2 with redirects, 3 + L without; again, by tag and digest: 1, and one for each blob that we send."""
    async with serve(config()) as api:
        await api.push_image(NAME, "v1", (DATA, MORE))
    blobs = (CONFIG, DATA, MORE)
    async with serve(config(disable=not redirects, read_only=True)) as api:
        for manifests in (2, 1):
            digest = (await api.http.head(f"/v2/{NAME}/manifests/v1")).headers["Docker-Content-Digest"]
            assert (await api.get(f"/v2/{NAME}/manifests/{digest}")).content == image(CONFIG, (DATA, MORE))
            for data in blobs:
                response = await api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")
                assert response.status_code == (307 if redirects else 200)
            assert len(record.taken()) == manifests + (0 if redirects else len(blobs))


async def test_calls_of_a_push(serve: Serve, record: Record) -> None:
    async with serve(config()) as api:
        await api.push_image(NAME, "v1", (DATA,))
        assert len(record.taken()) == 12
        for data in (b"at once", b""):
            response = await api.http.post(f"/v2/{NAME}/blobs/uploads/?digest={digest_of(data)}", content=data)
            assert response.status_code == 201
            assert len(record.taken()) == 2
        started = await api.http.post(f"/v2/{NAME}/blobs/uploads/")
        patched = await api.http.patch(started.headers["Location"], content=b"streamed")
        closing = with_query(patched.headers["Location"], digest=digest_of(b"streamed"))
        assert (await api.http.put(closing)).status_code == 201
        assert len(record.taken()) == 8, "seven, and a part"


async def test_what_deletes_believes_nothing(serve: Serve, record: Record) -> None:
    """Whatever cache.linkttl says: the delete may have happened in another worker."""
    async with serve(config(disable=True, deletes=True, linkttl=600.0)) as one:
        await one.push_image(NAME, "v1", (DATA,))
        async with serve(config(disable=True, deletes=True, linkttl=600.0)) as worker:
            assert (await worker.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
            assert (await worker.get(BLOB)).status_code == 200
            assert (await one.http.delete(BLOB)).status_code == 202
            assert (await worker.get(BLOB)).status_code == 404


@pytest.mark.parametrize(
    ("made", "calls"),
    [
        (config(disable=True), 4),
        (config(disable=True, linkttl=600.0), 2),
        (config(disable=True, read_only=True), 2),
        (config(disable=True, read_only=True, linkttl=0.0), 4),
        (config(disable=True, read_only=True, deletes=True), 4),
        (config(disable=True, read_only=True, deletes=True, linkttl=60.0), 2),
    ],
)
async def test_how_long_links_are_believed(serve: Serve, record: Record, made: Config, calls: int) -> None:
    async with serve(config()) as api:
        await api.push_image(NAME, "v1", (DATA,))
    async with serve(made) as api:
        await api.get(f"/v2/{NAME}/manifests/v1")
        record.taken()
        for data in (CONFIG, DATA):
            assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")).content == data
        assert len(record.taken()) == calls


async def test_a_shareable_session_is_in_the_store_from_its_start(serve: Serve, record: Record) -> None:
    made = config()
    async with serve(Config(storage=made.storage, http=made.http, uploads=UploadsConfig(shareable=True))) as api:
        await api.start(NAME)
        assert sorted(verb for verb, _ in record.taken()) == ["begin", "put"]

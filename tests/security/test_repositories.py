"""S4 to S7, S12 and S22: what is in one repository is no business of another, and no trick makes it so."""

import base64
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from tests.api import IMAGE, Api, digest_of, error_of, image, with_query
from tests.conftest import read_only
from tests.security.conftest import without_users

DATA = b"the bytes of alice"
DA = digest_of(DATA)
SHA512 = digest_of(DATA, "sha512")


@pytest.fixture(params=["inmemory", "filesystem"])
def storage_config(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> StorageConfig:
    """Here both drivers: what one repository shows of another is a matter of storage."""
    folder = str(tmp_path_factory.mktemp("store") / "data")
    parameters = {"rootdirectory": folder} if request.param == "filesystem" else {}
    return StorageConfig(driver=request.param, parameters=parameters, delete=DeleteConfig(enabled=True))


@pytest.fixture
async def open_api(secured: Config) -> AsyncIterator[Api]:
    """A registry without users."""
    app = create_app(without_users(secured))
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        yield Api(client)


async def is_unknown(api: Api, name: str, digest: str = DA) -> None:
    assert (await api.http.head(f"/v2/{name}/blobs/{digest}")).status_code == 404
    assert error_of(await api.get(f"/v2/{name}/blobs/{digest}")) == (404, "BLOB_UNKNOWN")
    assert error_of(await api.get(f"/v2/{name}/blobs/{digest}", Range="bytes=0-3")) == (404, "BLOB_UNKNOWN")
    assert error_of(await api.get(f"/v2/{name}/blobs/{digest}", If_None_Match=f'"{digest}"')) == (404, "BLOB_UNKNOWN")


async def test_s4_a_blob_deleted_here_stays_deleted_though_it_is_read_there(open_api: Api) -> None:
    for name in ("a/x", "b/y"):
        await open_api.push_blob(name, DATA)
        assert (await open_api.get(f"/v2/{name}/blobs/{DA}")).content == DATA
    assert (await open_api.http.delete(f"/v2/a/x/blobs/{DA}")).status_code == 202
    for _ in range(3):
        assert (await open_api.get(f"/v2/b/y/blobs/{DA}")).content == DATA
        await is_unknown(open_api, "a/x")


ROWS = ["tag", "manifest", "blob"]


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("mode", ["deletes-off", "read-only", "read-only-with-deletes-off"])
async def test_s5_deletes_that_are_off(secured: Config, mode: str, row: str) -> None:
    """tests/test_live.py looks at a read-only registry over data that is there; here every path must refuse."""
    storage = replace(secured.storage, delete=DeleteConfig(enabled=mode == "read-only"))
    config = without_users(replace(secured, storage=storage if mode == "deletes-off" else read_only(storage)))
    app = create_app(config)
    transport = httpx.ASGITransport(app)
    async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        api = Api(client)
        digest = digest_of(image())
        if mode == "deletes-off":
            digest = await api.push_image("a", "v1")
            await api.push_blob("a", DATA)
        path = {"tag": "manifests/v1", "manifest": f"manifests/{digest}", "blob": f"blobs/{DA}"}[row]
        assert error_of(await client.delete(f"/v2/a/{path}")) == (405, "UNSUPPORTED")
        if mode == "deletes-off":
            assert await api.tags("a") == ["v1"]
            assert (await client.head(f"/v2/a/{path}")).status_code == 200
            location = await api.start("a")
            assert (await client.delete(location)).status_code == 204, "to cancel an upload is no delete"


# S6


async def test_s6_no_blob_of_another_repository_by_digest(alice: Api, bob: Api) -> None:
    await alice.push_blob("a/x", DATA)
    await is_unknown(bob, "b/y")
    await is_unknown(bob, "b/y", SHA512)


@pytest.mark.parametrize(
    "query", [f"?mount={DA}", f"?mount={DA}&from=", f"?mount={DA}&from=b/z", f"?mount={DA}&from=UPPER"]
)
async def test_s6_no_mount_of_what_the_named_source_does_not_have(alice: Api, bob: Api, query: str) -> None:
    await alice.push_blob("a/x", DATA)
    response = await bob.http.post(f"/v2/b/y/blobs/uploads/{query}")
    assert response.status_code == 202
    await is_unknown(bob, "b/y")


@pytest.mark.parametrize("body", [b"", b"wrong", DATA[:-1], DATA + b"x"], ids=["empty", "wrong", "short", "long"])
async def test_s6_uploading_needs_all_the_bytes(alice: Api, bob: Api, body: bytes) -> None:
    await alice.push_blob("a/x", DATA)
    response = await bob.http.post(f"/v2/b/y/blobs/uploads/?digest={DA}", content=body)
    assert error_of(response) == (400, "DIGEST_INVALID")
    location = await bob.start("b/y")
    response = await bob.http.put(with_query(location, digest=DA), content=body)
    assert error_of(response) == (400, "DIGEST_INVALID")
    await is_unknown(bob, "b/y")
    assert (await alice.get(f"/v2/a/x/blobs/{DA}")).content == DATA


async def test_s6_a_manifest_cannot_name_what_is_elsewhere(alice: Api, bob: Api) -> None:
    await alice.push_image("a/x", "v1", (DATA,))
    for body in (image(b"{}", (DATA,)), image()):
        response = await bob.http.put("/v2/b/y/manifests/v1", content=body, headers={"Content-Type": IMAGE})
        assert error_of(response) == (400, "MANIFEST_BLOB_UNKNOWN")
    digest = digest_of(image(b"{}", (DATA,)))
    assert error_of(await bob.get(f"/v2/b/y/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")
    assert error_of(await bob.http.delete(f"/v2/b/y/manifests/{digest}")) == (404, "MANIFEST_UNKNOWN")
    assert await bob.referrers("b/y", digest) == []


# S7


@pytest.mark.parametrize(
    "query",
    [
        f"mount={DA}&from=b/y&from=a/x",
        f"mount={DA}&from=a/x&from=b/y",
        f"mount={SHA512}&mount={DA}&from=a/x",
        f"mount={DA}&%66rom=b/y&from=a/x",
        f"digest={DA}&digest={digest_of(b'x')}",
        "digest-algorithm=sha256&digest-algorithm=sha512",
        "ns=a&ns=b",
    ],
)
async def test_s7_a_parameter_given_twice_is_refused(alice: Api, bob: Api, query: str) -> None:
    await alice.push_blob("a/x", DATA)
    response = await bob.http.post(f"/v2/b/y/blobs/uploads/?{query}", content=DATA)
    assert response.status_code == 400
    await is_unknown(bob, "b/y")


async def test_s7_of_an_upload(alice: Api) -> None:
    location = await alice.start("a/x")
    for query in (f"&digest={DA}&digest={DA}", f"&digest={DA}&_state=x", f"&digest={DA}&%5Fstate=x"):
        assert (await alice.http.put(location + query, content=DATA)).status_code == 400
    assert (await alice.http.put(f"{location}&digest={DA}", content=DATA)).status_code == 201


async def test_s7_semicolons_do_not_part_parameters(alice: Api, bob: Api) -> None:
    await alice.push_blob("a/x", DATA)
    response = await bob.http.post(f"/v2/b/y/blobs/uploads/?mount={DA};from=a/x")
    assert response.status_code == 202
    await is_unknown(bob, "b/y")


async def test_s7_only_tag_may_repeat(alice: Api) -> None:
    await alice.push_blob("a", b"{}")
    path = f"/v2/a/manifests/{digest_of(image())}?tag=x&tag=y"
    assert (await alice.http.put(path, content=image(), headers={"Content-Type": IMAGE})).status_code == 201
    assert await alice.tags("a") == ["x", "y"]


# S12 and S22


async def test_s12_an_upload_belongs_to_its_repository(alice: Api, bob: Api) -> None:
    location = await alice.start("a/x")
    response = await alice.http.patch(location, content=DATA[:5])
    location = response.headers["Location"]
    stolen = location.replace("/a/x/", "/b/y/")
    assert stolen != location
    bare = stolen.partition("?")[0]
    for target, method in itertools.product((stolen, bare), ("GET", "PATCH", "PUT", "DELETE")):
        response = await bob.http.request(method, with_query(target, digest=DA), content=DATA)
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN"), (method, target)
    assert (await alice.http.get(location)).headers["Range"] == "0-4"
    response = await alice.http.patch(location, content=DATA[5:], headers={"Content-Range": f"5-{len(DATA) - 1}"})
    assert response.status_code == 202
    response = await alice.http.put(with_query(response.headers["Location"], digest=DA))
    assert response.status_code == 201
    assert (await alice.get(f"/v2/a/x/blobs/{DA}")).content == DATA
    await is_unknown(bob, "b/y")


async def test_s22_a_tampered_location(alice: Api) -> None:
    """The table of all the ways is in tests/registry/test_upload_state.py; here they meet the API."""
    mine, other = await alice.start("a/b"), await alice.start("a/b")
    path, state = mine.split("?_state=")
    raw = base64.urlsafe_b64decode(httpx.QueryParams(f"s={state}")["s"])
    tampered = {
        "no-state": path,
        "empty": f"{path}?_state=",
        "truncated": f"{path}?_state={state[:-9]}",
        "of-another-session": f"{path}?_state={other.split('?_state=')[1]}",
        "another-offset": path
        + "?_state="
        + base64.urlsafe_b64encode(raw.replace(b'"Offset":0', b'"Offset":9')).decode(),
        "name-parted-elsewhere": mine.replace("/v2/a/b/blobs", "/v2/a/blobs"),
        "junk": f"{path}?_state={'A' * 200}",
        "not-a-session": f"/v2/a/b/blobs/uploads/other?_state={state}",
        "long": f"{path}?_state={'A' * 20000}",
    }
    for what, target in tampered.items():
        for method in ("GET", "PATCH", "PUT", "DELETE"):
            response = await alice.http.request(method, with_query(target, digest=DA), content=DATA)
            assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN"), (what, method)
    assert (await alice.http.put(with_query(mine, digest=DA), content=DATA)).status_code == 201


async def test_s22_another_registrys_secret(secured: Config, alice: Api) -> None:
    """Two registries with secrets of their own over one store take each other's sessions for unknown."""
    states: list[str] = []
    for secret in ("one", "two"):
        app = create_app(without_users(replace(secured, http=replace(secured.http, secret=secret))))
        transport = httpx.ASGITransport(app)
        async with lifespan(app), httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
            if states:
                assert error_of(await client.get(states[0])) == (404, "BLOB_UPLOAD_UNKNOWN")
            states.append(await Api(client).start("a/b"))


# C3


async def test_c3_blobs_are_no_manifests_and_manifests_no_blobs(alice: Api) -> None:
    digest = await alice.push_image("a", "v1", (DATA,))
    await alice.push_blob("a", image(annotations={"a": "blob that looks like a manifest"}))
    lookalike = digest_of(image(annotations={"a": "blob that looks like a manifest"}))
    for blob in (DA, digest_of(b"{}"), lookalike):
        assert error_of(await alice.get(f"/v2/a/manifests/{blob}")) == (404, "MANIFEST_UNKNOWN")
        assert error_of(await alice.http.delete(f"/v2/a/manifests/{blob}")) == (404, "MANIFEST_UNKNOWN")
    await is_unknown(alice, "a", digest)
    assert error_of(await alice.http.delete(f"/v2/a/blobs/{digest}")) == (404, "BLOB_UNKNOWN")


async def test_c3_a_tag_that_looks_like_a_digest(alice: Api) -> None:
    digest = await alice.push_image("a", "v1", (DATA,))
    other = image(annotations={"other": "one"})
    for tag in (digest.replace(":", "-"), digest.replace(":", "."), digest.partition(":")[2], "sha256"):
        await alice.push_manifest("a", other, tag)
        assert (await alice.get(f"/v2/a/manifests/{tag}")).content == other
    assert (await alice.get(f"/v2/a/manifests/{digest}")).content == image(b"{}", (DATA,))
    response = await alice.http.put(f"/v2/a/manifests/{digest}", content=other, headers={"Content-Type": IMAGE})
    assert error_of(response) == (400, "DIGEST_INVALID")

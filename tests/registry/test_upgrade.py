"""F41: what one version has stored and handed to clients, every later one serves, and an earlier one beside it, too.

frozen/VERSION.json is a store as that version's own server has written it over HTTP, in full, and an upload that a
client had begun there (its expiry set far away). It is never written anew: a release that stores something in another
way adds a file of its own. Its content is the same in all of them, so that one test asks for it.
"""

import base64
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import DeleteConfig, StorageConfig
from registry.serving.lifespan import lifespan
from registry.stores import manifest_rules
from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.doctor.examine import Examiner
from storage.drivers.filesystem import FilesystemDriver
from storage.garbage.collect import Collector, Options
from tests.api import IMAGE, INDEX, Api, descriptor, digest_of, image, index, with_query
from tests.storage.shelf import DAY, Told, age

VERSIONS = sorted(path.stem for path in (Path(__file__).parent / "frozen").iterdir())
NAME, UPLOADED = "team/app", b"begun and ended"
FIRST, CHILD = image(b"{}"), image(b"{}", (b"layer",))
LATEST = index(descriptor(CHILD, IMAGE, platform={"os": "linux", "architecture": "amd64"}))
REFERRER = image(b"{}", artifactType="application/vnd.test", subject=descriptor(LATEST, INDEX))
UNNAMED = {Digest.of(b"of sha512", "sha512")}


@pytest.fixture(params=VERSIONS)
def frozen(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Lays the store out in tmp_path; returns where the client's upload goes on."""
    stored = json.loads((Path(__file__).parent / "frozen" / f"{request.param}.json").read_text())
    lay_out(tmp_path, stored["objects"])
    upload: str = stored["upload"]
    return upload


def lay_out(root: Path, objects: Mapping[str, str]) -> None:
    for key, content in objects.items():
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def config_of(root: Path) -> Config:
    """No http.secret: it is the one in the store."""
    parameters = {"rootdirectory": str(root)}
    return Config(storage=StorageConfig(driver="filesystem", parameters=parameters, delete=DeleteConfig(enabled=True)))


@asynccontextmanager
async def serving(root: Path) -> AsyncIterator[Api]:
    app = create_app(config_of(root))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        yield Api(client)


@pytest.mark.slow
async def test_f41_what_an_older_version_has_stored_lives_on(tmp_path: Path, frozen: str) -> None:
    async with serving(tmp_path) as api:
        await all_is_served(api)
        await upload_goes_on(api, frozen)
    await all_is_whole(tmp_path, UNNAMED | {Digest.of(UPLOADED)})
    async with serving(tmp_path) as api:
        await all_is_served(api)
        moved = await api.push_image(NAME, "latest", (b"layer", UPLOADED))
        assert (await api.http.get(f"/v2/{NAME}/manifests/latest")).headers["Docker-Content-Digest"] == moved
    await all_is_whole(tmp_path, UNNAMED)


async def test_f41_what_a_newer_version_has_added_disturbs_nobody(tmp_path: Path, frozen: str) -> None:
    repository = f"{layout.REPOSITORIES}/{NAME}"
    session, _, query = frozen.partition("?")
    id = session.rpartition("/")[2]
    of_the_upload = f"{repository}/_uploads/{id}/newer"
    added = [
        f"{layout.ROOT}/_moorage/newer/state",
        f"{repository}/_newer/sha256/{'0' * 64}/link",
        f"{repository}/_manifests/newer",
        of_the_upload,
    ]
    lay_out(tmp_path, dict.fromkeys(added, "?"))
    secret = (tmp_path / layout.SECRET).read_text()
    async with serving(tmp_path) as api:
        await all_is_served(api)
        await upload_goes_on(api, f"{session}?_state={quote(of_a_newer_version(query, secret))}")
    await all_is_whole(tmp_path, UNNAMED | {Digest.of(UPLOADED)})
    assert {key for key in added if not (tmp_path / key).exists()} == {of_the_upload}


def of_a_newer_version(query: str, secret: str) -> str:
    """The state of an upload with a higher version, and a claim that we do not know."""
    raw = base64.urlsafe_b64decode(parse_qs(query)["_state"][0])
    body = json.dumps(json.loads(raw[32:]) | {"v": 2, "newer": ["?"]}).encode()
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), body, "sha256") + body).decode()


async def all_is_served(api: Api) -> None:
    start = f"/v2/{NAME}"
    assert (await api.http.get("/v2/_catalog")).json() == {"repositories": [NAME]}
    assert (await api.http.get(f"{start}/tags/list")).json() == {"name": NAME, "tags": ["latest"]}
    for reference, body in (("latest", LATEST), *((digest_of(each), each) for each in (FIRST, CHILD, REFERRER))):
        assert (await api.http.get(f"{start}/manifests/{reference}")).content == body
    for data, algorithm in ((b"{}", "sha256"), (b"layer", "sha256"), (b"of sha512", "sha512")):
        assert (await api.http.get(f"{start}/blobs/{digest_of(data, algorithm)}")).content == data
    referrers = (await api.http.get(f"{start}/referrers/{digest_of(LATEST)}")).json()["manifests"]
    assert [each["digest"] for each in referrers] == [digest_of(REFERRER)]


async def upload_goes_on(api: Api, location: str) -> None:
    answer = await api.http.patch(location, content=UPLOADED.removeprefix(b"begun "))
    assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{len(UPLOADED) - 1}")
    answer = await api.http.put(with_query(answer.headers["Location"], digest=digest_of(UPLOADED)))
    assert answer.status_code == 201
    assert (await api.http.get(answer.headers["Location"])).content == UPLOADED


async def all_is_whole(root: Path, garbage: set[Digest]) -> None:
    """The doctor finds nothing, and the collector, were it to run in a year, no more than that."""
    content = ContentStore(FilesystemDriver(root, scratch=layout.SCRATCH))
    age(content.driver)
    examined = await Examiner(content, manifest_rules(config_of(root)), idle=DAY, deep=True).examine()
    assert (examined.findings, examined.manifests >= 4) == ([], True)
    told = Told()
    await Collector(content, Options(grace=DAY, dry_run=True), told).run()
    assert set(told.blobs) == garbage
    await content.aclose()

"""`platforms` of an upstream: which images of an index are fetched, and that no digest breaks."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.proxy.platforms import PlatformDenied, Platforms
from registry.serving.lifespan import lifespan
from storage.digest import Digest
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST, parse_stored
from storage.names import RepositoryName
from storage.repository import StoredManifest
from tests.api import digest_of, error_of

from . import scripted as act
from .scripted import Scripted

NAME = RepositoryName("team/app")
CONFIG = "application/vnd.oci.image.config.v1+json"
AMD, ARM, S390 = "linux/amd64", "linux/arm64", "linux/s390x"


def platform(text: str) -> dict[str, str]:
    return dict(zip(("os", "architecture", "variant"), text.split("/"), strict=False))


def entry(digest: object, text: str = "", **more: Any) -> dict[str, Any]:
    found = {"mediaType": IMAGE_MANIFEST, "digest": str(digest), "size": 7, **more}
    return {**found, "platform": platform(text)} if text else found


def index_of(*entries: dict[str, Any]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": list(entries)}).encode()


def attested(digest: object, image: object) -> dict[str, Any]:
    return entry(digest, "unknown/unknown", annotations={"vnd.docker.reference.digest": str(image)})


def digest(number: int) -> Digest:
    return Digest.of(b"%d" % number)


@pytest.mark.parametrize(
    ("names", "found", "wanted"),
    [
        ([], "plan9/mips", True),
        ([AMD], "linux/amd64", True),
        ([AMD], "linux/amd64/v3", True),
        ([AMD], "windows/amd64", False),
        ([AMD, ARM], "linux/arm64/v8", True),
        ([AMD, ARM], "linux/arm/v7", False),
        (["linux/arm"], "linux/arm/v6", True),
        (["linux/arm/v7"], "linux/arm/v6", False),
        (["linux/arm/v7"], "linux/arm", True),
        (["linux/arm64/v8"], "linux/arm64", True),
        (["linux/amd64/v2"], "linux/amd64", False),
        ([AMD], "unknown/unknown", True),
    ],
)
def test_wants(names: list[str], found: str, wanted: bool) -> None:
    assert Platforms(names).wants(found) == wanted


def test_of_an_index() -> None:
    body = index_of(
        entry(digest(1), AMD),
        entry(digest(2), S390),
        attested(digest(3), digest(1)),
        attested(digest(4), digest(2)),
        entry(digest(5)),
        entry(digest(6), "linux/arm/v5"),
        entry(digest(6), AMD),
        entry("sha999:0", S390),
        entry(digest(7), "linux/\x1b[31m"),
        {"digest": 7, "platform": [], "annotations": "none"},
    )
    assert Platforms([AMD]).unwanted(body) == {digest(2): S390, digest(4): S390}
    assert Platforms([]).unwanted(body) == {}


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{", b"null", b'{"manifests": {}}', b'{"manifests": [1, null]}', b"[" * 99999]
)
def test_what_is_no_index_is_wanted(body: bytes) -> None:
    assert Platforms([AMD]).unwanted(body) == {}


def test_it_is_known_for_each_repository() -> None:
    platforms = Platforms([AMD])
    body = index_of(entry(digest(1), S390))
    platforms.served(NAME, StoredManifest(Digest.of(body), IMAGE_INDEX, body))
    platforms.check(RepositoryName("other"), digest(1))
    with pytest.raises(PlatformDenied, match=r"for linux/s390x, and only images for linux/amd64 .*setting: platforms"):
        platforms.check(NAME, digest(1))


@pytest.mark.parametrize(
    ("config", "media_type", "looked"),
    [
        (b"{}", CONFIG, True),
        (b"{}", "application/vnd.cncf.helm.config.v1+json", False),
        (b"x" * (2 << 20), CONFIG, False),
    ],
)
def test_whose_config_is_looked_at(config: bytes, media_type: str, looked: bool) -> None:
    body = json.dumps({"config": {"mediaType": media_type, "digest": digest_of(config), "size": len(config)}}).encode()
    assert (Platforms([AMD]).config_of(parse_stored(body)) is not None) == looked
    assert Platforms([]).config_of(parse_stored(body)) is None


@pytest.mark.parametrize("config", [b"{}", b"[]", b"{", b'{"os": 1, "architecture": "s390x"}', b'{"os": "linux"}'])
def test_a_config_that_says_nothing(config: bytes) -> None:
    Platforms([AMD]).check_config(NAME, digest(1), config)


# Over HTTP


class Images:
    """An index of two images and their attestations, at the hub."""

    def __init__(self, hub: Scripted) -> None:
        self.hub = hub
        self.amd, self.s390 = self.image(AMD), self.image(S390)
        self.amd_proof, self.s390_proof = self.image("unknown/unknown", b"1"), self.image("unknown/unknown", b"2")
        self.body = index_of(
            entry(self.amd, AMD),
            entry(self.s390, S390),
            attested(self.amd_proof, self.amd),
            attested(self.s390_proof, self.s390),
        )
        self.index = hub.image(NAME, "v1", self.body)

    def image(self, text: str, layer: bytes = b"") -> Digest:
        config = json.dumps({**platform(text), "rootfs": {}}).encode()
        layer = layer or text.encode()
        body = {
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "config": {"mediaType": CONFIG, "digest": str(self.hub.blob(NAME, config)), "size": len(config)},
            "layers": [{"mediaType": "x", "digest": str(self.hub.blob(NAME, layer)), "size": len(layer)}],
        }
        return self.hub.image(NAME, f"only-{text.replace('/', '-')}", json.dumps(body).encode())


def registry(hub: Scripted, folder: Path, *platforms: str) -> Any:
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(folder)})
    upstream = UpstreamConfig(url=hub.url, name="hub", default=True, platforms=platforms)
    return create_app(Config(storage=storage, upstreams=(upstream,)))


def client(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://cache")


async def test_only_the_chosen_ones_are_fetched(hub: Scripted, tmp_path: Path) -> None:
    images = Images(hub)
    app = registry(hub, tmp_path, AMD)
    async with lifespan(app), client(app) as http:
        found = await http.get(f"/v2/{NAME}/manifests/v1")
        assert (found.content, found.headers["Docker-Content-Digest"]) == (images.body, str(images.index))
        for wanted in (images.amd, images.amd_proof):
            assert (await http.get(f"/v2/{NAME}/manifests/{wanted}")).status_code == 200
        before = len(hub.requests)
        for unwanted in (images.s390, images.s390_proof):
            refused = await http.get(f"/v2/{NAME}/manifests/{unwanted}")
            assert error_of(refused) == (403, "DENIED")
            assert "linux/s390x" in refused.json()["errors"][0]["message"]
            assert "setting: platforms" in refused.json()["errors"][0]["message"]
        assert len(hub.requests) == before


async def test_another_process_has_served_the_index(hub: Scripted, tmp_path: Path) -> None:
    """A second worker or replica looks at the config, once."""
    images = Images(hub)
    first, second = registry(hub, tmp_path, AMD), registry(hub, tmp_path, AMD)
    async with lifespan(first), lifespan(second), client(first) as one, client(second) as two:
        assert (await one.get(f"/v2/{NAME}/manifests/v1")).status_code == 200
        for _ in range(2):
            assert error_of(await two.get(f"/v2/{NAME}/manifests/{images.s390}")) == (403, "DENIED")
        assert (await two.get(f"/v2/{NAME}/manifests/{images.amd}")).status_code == 200
        assert hub.count("GET", f"/v2/{NAME}/manifests/{images.s390}") == 1
        assert hub.count("GET", f"/v2/{NAME}/blobs/{digest_of(S390.encode())}") == 0


async def test_what_a_tag_names_without_an_index_is_served(hub: Scripted, tmp_path: Path) -> None:
    """There is no other to choose; by its digest as well, as clients ask once they know the tag's."""
    images = Images(hub)
    app = registry(hub, tmp_path, AMD)
    async with lifespan(app), client(app) as http:
        for reference in ("only-linux-s390x", str(images.s390)):
            assert (await http.get(f"/v2/{NAME}/manifests/{reference}")).status_code == 200


async def test_without_its_config_it_is_served(hub: Scripted, tmp_path: Path) -> None:
    images = Images(hub)
    hub.on("*", f"/v2/{NAME}/blobs/", act.error(404, "BLOB_UNKNOWN"))
    app = registry(hub, tmp_path, AMD)
    async with lifespan(app), client(app) as http:
        assert (await http.get(f"/v2/{NAME}/manifests/{images.s390}")).status_code == 200

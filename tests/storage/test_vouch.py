"""For which blobs a manifest vouches: the table of what it must not."""

import json
from typing import Any

import pytest

from storage import layout
from storage.digest import Digest
from storage.linkcache import LinkCache
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST
from storage.names import parse_name
from storage.repository import StoredManifest
from storage.vouch import Vouchers, vouched_blobs
from tests.api import CONFIG, DOCKER_IMAGE, IMAGE, LAYER, descriptor, image, index

SECRET = b"another repository's"
WANTED = descriptor(SECRET)


def stored(body: bytes, media_type: str = IMAGE_MANIFEST) -> StoredManifest:
    return StoredManifest(Digest.of(body), media_type, body)


def with_layer(**more: Any) -> bytes:
    return image(b"{}", layers=()).replace(b'"layers": []', b'"layers": ' + json.dumps([{**WANTED, **more}]).encode())


def test_for_config_and_layers() -> None:
    body = image(b"{}", (b"one", b"two", b"one"))
    assert vouched_blobs(stored(body)) == (Digest.of(b"{}"), Digest.of(b"one"), Digest.of(b"two"))


def test_without_a_media_type_of_its_own() -> None:
    body = image(b"{}", (b"one",), mediaType=None)
    assert Digest.of(b"one") in vouched_blobs(stored(body))


@pytest.mark.parametrize(
    "body",
    [
        with_layer(urls=["https://elsewhere.example/x"]),
        with_layer(mediaType="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"),
        with_layer(mediaType="application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", urls=["https://x.example"]),
        with_layer(mediaType=IMAGE),
        with_layer(mediaType=DOCKER_IMAGE),
        with_layer(digest=str(Digest.of(SECRET, "sha512"))),
        image(subject=descriptor(SECRET, IMAGE)),
        image(annotations={"x": str(Digest.of(SECRET))}),
        # what two readers could take for different things: the last of two keys, or the one in the right case
        image().replace(b'"layers": []', b'"layers": ' + json.dumps([WANTED]).encode() + b', "layers": []'),
        image().replace(b'"layers": []', b'"layers": [], "layers": ' + json.dumps([WANTED]).encode()),
        image().replace(b'"layers": []', b'"layers": [], "Layers": ' + json.dumps([WANTED]).encode()),
        image().replace(b'"layers": []', b'"Layers": ' + json.dumps([WANTED]).encode()),
        image(manifests=[WANTED]),
        b"",
        b"[]",
        b"{",
    ],
)
def test_not_for(body: bytes) -> None:
    assert Digest.of(SECRET) not in vouched_blobs(stored(body))
    assert Digest.of(SECRET, "sha512") not in vouched_blobs(stored(body))


def test_not_for_the_children_of_an_index() -> None:
    body = index(descriptor(SECRET, IMAGE), descriptor(SECRET, LAYER), descriptor(SECRET, CONFIG))
    assert vouched_blobs(stored(body, IMAGE_INDEX)) == ()


async def test_each_in_its_repository_alone() -> None:
    links = LinkCache(60.0)
    vouchers, body = Vouchers(links), image(b"{}", (b"one",))
    here, there = parse_name("a/b"), parse_name("a")
    await vouchers.vouch(here, stored(body), links.clock())
    assert links.get(layout.layer_link(here, Digest.of(b"one"))) is not None
    assert links.get(layout.layer_link(there, Digest.of(b"one"))) is None


async def test_large_ones_in_a_thread_and_no_more_than_so_many() -> None:
    links = LinkCache(60.0)
    vouchers = Vouchers(links, limit=500)
    for mark in range(3):
        body = image(b"{}", tuple(f"{mark}-{n}".encode() for n in range(450)))
        assert len(body) > 64 << 10
        for _ in range(2):
            await vouchers.vouch(parse_name("a"), stored(body), links.clock())
        assert vouchers._count == 452
    assert links.get(layout.layer_link(parse_name("a"), Digest.of(b"2-449"))) is not None

"""Stores for the benchmarks, written straight to disk in distribution's layout, so that large ones take no hours."""

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage import layout
from storage.digest import Digest
from storage.names import parse_name, parse_tag

BLOCK = 1 << 20
IMAGE = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


@dataclass(frozen=True)
class Blob:
    """A blob or a manifest that is in the store."""

    digest: str
    size: int

    @classmethod
    def of(cls, content: bytes) -> "Blob":
        return cls(str(Digest.of(content)), len(content))


def blocks(size: int) -> Iterator[bytes]:
    """Bytes that no file system folds: a random block, numbered."""
    block = os.urandom(BLOCK)
    for number in range(-(-size // BLOCK)):
        numbered = number.to_bytes(8, "big") + block[8:]
        yield numbered[: min(BLOCK, size - number * BLOCK)]


class Store:
    """One registry's data below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def add_blob(self, repository: str, content: bytes | Iterator[bytes]) -> Blob:
        pieces = iter([content]) if isinstance(content, bytes) else content
        beside = self.root / "seeding"
        beside.parent.mkdir(parents=True, exist_ok=True)
        running, size = hashlib.sha256(), 0
        with beside.open("wb") as file:
            for piece in pieces:
                file.write(piece)
                running.update(piece)
                size += len(piece)
        digest = Digest.parse(f"sha256:{running.hexdigest()}")
        target = self.root / layout.blob_data(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.replace(target)
        self._link(layout.layer_link(parse_name(repository), digest), str(digest))
        return Blob(str(digest), size)

    def add_manifest(self, repository: str, body: bytes, *tags: str) -> Blob:
        """Tags are added to those that the repository has."""
        digest, name = Digest.of(body), parse_name(repository)
        target = self.root / layout.blob_data(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(body)
        self._link(layout.revision_link(name, digest), str(digest))
        for tag in map(parse_tag, tags):
            self._link(layout.tag_link(name, tag), str(digest))
            self._link(layout.tag_index_link(name, tag, digest), str(digest))
        return Blob(str(digest), len(body))

    def add_image(self, repository: str, layers: list[Blob], *tags: str, config: bytes | None = None) -> Blob:
        described = json.dumps({"os": "linux", "architecture": "amd64"}).encode() if config is None else config
        stored = self.add_blob(repository, described)
        body = {
            "schemaVersion": 2,
            "mediaType": IMAGE,
            "config": {"mediaType": CONFIG, "digest": stored.digest, "size": stored.size},
            "layers": [{"mediaType": LAYER, "digest": layer.digest, "size": layer.size} for layer in layers],
        }
        return self.add_manifest(repository, json.dumps(body, indent=1).encode(), *tags)

    def _link(self, key: str, content: str) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)

    def drop_pushed(self, larger_than: int) -> None:
        """Free the disk of blobs that were pushed. Their folders stay: a server may know that it has made them."""
        for data in (self.root / layout.BLOBS).glob("*/*/*/data"):
            if data.stat().st_size > larger_than:
                data.unlink()


def small_image(store: Store, repository: str, *tags: str, layers: int = 10) -> Blob:
    """An image with a manifest of common size (about 2 kB) and layers of 1 kB."""
    return store.add_image(repository, [store.add_blob(repository, os.urandom(1000)) for _ in range(layers)], *tags)

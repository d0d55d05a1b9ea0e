"""A store for tests of the collector and the doctor: filled by pushes, aged through the back door, looked into."""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest
from storage.driver import StorageDriver
from storage.drivers.filesystem import FilesystemDriver
from storage.drivers.memory import MemoryDriver
from storage.errors import NotFound
from storage.garbage.collect import Collected, Collector, Options
from storage.garbage.watch import Watcher
from storage.names import RepositoryName, parse_name, parse_tag
from tests.api import CONFIG, DOCKER_LIST, IMAGE, INDEX, LAYER, image, index
from tests.storage.spying import push_blob, read_blob

DAY = 24 * 3600.0
A, B = parse_name("a"), parse_name("b/c")


def behind(driver: StorageDriver) -> StorageDriver:
    """The driver within all those that only watch."""
    while hasattr(driver, "inner"):
        driver = driver.inner
    return driver


def age(driver: StorageDriver, seconds: float = 30 * DAY, *keys: str) -> None:
    """Let objects (without keys: all that there are) have been written that long ago."""
    driver = behind(driver)
    if isinstance(driver, MemoryDriver):
        for key, found in driver._objects.items():
            if not keys or key in keys:
                found.modified -= seconds
        for growing in driver._stages.values():
            growing.modified -= seconds
    else:
        assert isinstance(driver, FilesystemDriver)
        root = Path(driver._tree.root)
        for path in [root / key for key in keys] or [p for p in root.rglob("*") if p.is_file()]:
            status = path.stat()
            os.utime(path, (status.st_atime, status.st_mtime - seconds))


def descriptor_of(digest: Digest, size: int, media_type: str = LAYER, **more: Any) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": str(digest), "size": size, **more}


@dataclass
class Shelf:
    """driver: what pushes and collections go through."""

    driver: StorageDriver
    sizes: dict[Digest, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.content = ContentStore(self.driver)

    # Pushing

    async def blob(self, name: RepositoryName, data: bytes, algorithm: str = "sha256") -> Digest:
        return await push_blob(self.content.repository(name), data, algorithm)

    async def manifest(
        self, name: RepositoryName, body: bytes, tag: str = "", media_type: str = IMAGE, algorithm: str = "sha256"
    ) -> Digest:
        digest = Digest.of(body, algorithm)
        self.sizes[digest] = len(body)
        reference = parse_tag(tag) if tag and algorithm == "sha256" else digest
        tags = () if reference != digest or not tag else (parse_tag(tag),)
        await self.content.repository(name).put_manifest(reference, media_type, body, tags)
        return digest

    async def image(self, name: RepositoryName, *layers: bytes, tag: str = "", **more: Any) -> Digest:
        """more: fields of the manifest; `subject` may be a digest that was pushed here."""
        for data in (b"{}", *layers):
            await self.blob(name, data)
        return await self.manifest(name, image(b"{}", layers, **self._fields(more)), tag)

    async def index(self, name: RepositoryName, *children: Digest, tag: str = "", **more: Any) -> Digest:
        named = [descriptor_of(child, self.sizes[child], IMAGE) for child in children]
        return await self.manifest(name, index(*named, **self._fields(more)), tag, INDEX)

    def _fields(self, more: dict[str, Any]) -> dict[str, Any]:
        subject = more.get("subject")
        if isinstance(subject, Digest):
            more = {**more, "subject": descriptor_of(subject, self.sizes.get(subject, 2), IMAGE)}
        return more

    async def untag(self, name: RepositoryName, tag: str) -> None:
        await self.content.repository(name).delete_tag(parse_tag(tag))

    async def delete(self, name: RepositoryName, digest: Digest) -> None:
        await self.content.repository(name).delete_manifest(digest)

    # Looking

    async def keys(self, prefix: str = layout.ROOT) -> set[str]:
        return {info.key async for info in behind(self.driver).list_objects(prefix)}

    async def digests(self) -> set[Digest]:
        """Of every blob that is stored, whoever names it."""
        return {Digest(key.split("/")[4], key.split("/")[6]) for key in await self.keys(layout.BLOBS)}

    async def has(self, name: RepositoryName, data: bytes, algorithm: str = "sha256") -> bool:
        try:
            return await read_blob(self.content.repository(name), Digest.of(data, algorithm)) == data
        except NotFound:
            return False

    async def pulls(self, name: RepositoryName, digest: Digest) -> bool:
        """Can the manifest be pulled by digest?"""
        try:
            return (await ContentStore(self.driver).repository(name).get_manifest(digest)).digest == digest
        except NotFound:
            return False

    # Collecting

    async def collect(self, *, watcher: Watcher | None = None, **options: Any) -> Collected:
        return await Collector(self.content, Options(**{"grace": DAY, **options}), watcher).run()


@dataclass
class Told(Watcher):
    """What a collection has said."""

    manifests: list[tuple[RepositoryName, Digest]] = field(default_factory=list)
    blobs: list[Digest] = field(default_factory=list)
    links: list[tuple[RepositoryName, Digest]] = field(default_factory=list)
    phases: list[str] = field(default_factory=list)

    def phase(self, what: str, total: int | None = None) -> None:
        self.phases.append(what)

    def manifest(self, name: RepositoryName, digest: Digest) -> None:
        self.manifests.append((name, digest))

    def blob(self, digest: Digest, size: int) -> None:
        self.blobs.append(digest)

    def link(self, name: RepositoryName, digest: Digest) -> None:
        self.links.append((name, digest))


def docker_list(children: Iterable[dict[str, Any]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": list(children)}).encode()


def config_of(digest: Digest, size: int) -> dict[str, Any]:
    return descriptor_of(digest, size, CONFIG)

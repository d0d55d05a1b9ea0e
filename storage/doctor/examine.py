"""Examine a whole store, and repair it: blobs, with `deep` every byte, then repository by repository, then uploads.

A cache lacks what nobody has asked for: images of an index, layers that were not fetched yet, or that were evicted.
That is no damage, and what is damaged goes, unless a repository that is pushed to has it as well.

Memory: 17 bytes for each blob, what one repository takes (repository.py), and the findings. `deep` reads as many blobs
side by side as there are cores, a piece at a time.
"""

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from storage import layout
from storage.content import ContentStore
from storage.digest import Digest, RunningHash
from storage.doctor.findings import Finding, Kind
from storage.doctor.repairs import DAMAGED, Repairs
from storage.doctor.repository import RepositoryDoctor, count
from storage.driver import ObjectInfo, Unfinished
from storage.errors import ObjectNotFound, Unavailable
from storage.garbage.links import blobs, digest_of_data, repository_names
from storage.garbage.table import HELD, NEEDED, BlobTable
from storage.garbage.watch import Watcher
from storage.names import RepositoryName
from storage.parallel import for_each
from storage.purge import last_change, unfinished
from storage.rules import ManifestRules

_MOST_GONE = 10
"""More manifests without bytes than this, and more than half of all: then a disk is not mounted, rather."""


class TooMuchIsGone(Unavailable):
    def __init__(self, gone: int, manifests: int) -> None:
        super().__init__(
            f"the bytes of {gone} of {manifests} manifests are gone: is all of the storage there, and mounted?"
            " Nothing was repaired, since that would remove them for good"
        )


@dataclass(slots=True)
class Examined:
    """What was looked at, and found. Bytes: of blobs that were read."""

    repositories: int = 0
    manifests: int = 0
    blobs: int = 0
    bytes: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def left(self) -> list[Finding]:
        """What is not fixed."""
        return [finding for finding in self.findings if not finding.fixed]


class Examiner:
    """idle: seconds after which an upload is abandoned; None: never.   caches: is a repository a cache of another's?"""

    def __init__(
        self,
        content: ContentStore,
        rules: ManifestRules,
        *,
        idle: float | None,
        caches: Callable[[RepositoryName], bool] = lambda name: False,
        deep: bool = False,
        watcher: Watcher | None = None,
    ) -> None:
        self._content = content
        self._driver = content.driver
        self._rules = rules
        self._idle = idle
        self._caches = caches
        self._deep = deep
        self._watch = watcher or Watcher()
        self._repairs = Repairs(self._driver)
        self._table = BlobTable(with_sizes=True)
        self._damaged: dict[Digest, Finding] = {}
        self.done = Examined()

    async def examine(self) -> Examined:
        """Raises Unavailable."""
        now = await self._driver.now()
        await self._blobs()
        if self._deep:
            self._watch.phase("reading blobs", total=self.done.blobs)
            await for_each(blobs(self._driver), self._read, width=os.cpu_count() or 1)
        names = await repository_names(self._driver)
        self._watch.phase("examining repositories", total=len(names))
        for name in names:
            doctor = RepositoryDoctor(
                name,
                self._driver,
                self._table,
                self._rules,
                now=now,
                deep=self._deep,
                cached=self._caches(name),
                damaged=self._damaged,
                report=self.done.findings.append,
            )
            await doctor.examine()
            self.done.repositories += 1
            self.done.manifests += doctor.manifests
            self._watch.step()
        for digest, finding in self._damaged.items():
            finding.cached = self._is_cached(digest)
        if self._idle is not None:
            await self._uploads(now - self._idle)
        return self.done

    async def repair(self) -> None:
        """Raises TooMuchIsGone with nothing repaired; Unavailable."""
        gone = count(self.done.findings, Kind.MANIFEST_MISSING)
        if gone > _MOST_GONE and gone * 2 > self.done.manifests:
            raise TooMuchIsGone(gone, self.done.manifests)
        self._watch.phase("repairing", total=len(self.done.findings))
        for finding in self.done.findings:
            if finding.repair is not None:
                finding.fixed = await finding.repair()
            self._watch.step()

    async def _blobs(self) -> None:
        self._watch.phase("listing blobs")
        async for info in self._driver.list_objects(layout.BLOBS):
            digest = digest_of_data(info.key)
            if digest is None:
                if info.key.endswith("/data"):
                    self.done.findings.append(Finding(Kind.BLOB_STRAY, f"{info.key} is no blob of the layout"))
                continue
            self._table.add(digest, info.size)
            self.done.blobs += 1
            if info.size == 0 and digest != Digest.of(b"", digest.algorithm):
                self._aside(Kind.BLOB_EMPTY, f"blob {digest} is empty", digest, info)
            self._watch.step()

    def _aside(self, kind: Kind, what: str, digest: Digest, info: ObjectInfo) -> None:
        finding = Finding(kind, what, digest=str(digest), repair=partial(self._clear, digest, info))
        self._damaged[digest] = finding
        self.done.findings.append(finding)

    async def _clear(self, digest: Digest, info: ObjectInfo) -> bool:
        if self._is_cached(digest):
            return await self._repairs.drop(info)
        return await self._repairs.set_aside(info, digest)

    def _is_cached(self, digest: Digest) -> bool:
        """Has a cache got it, and nobody else?"""
        place = self._table.find(digest)
        return place is not None and self._table.is_marked(place, NEEDED) and not self._table.is_marked(place, HELD)

    async def _read(self, item: tuple[Digest, ObjectInfo]) -> None:
        digest, info = item
        running = RunningHash(digest.algorithm)
        try:
            async with await self._driver.open(info.key) as reader:
                async for chunk in reader.chunks():
                    await asyncio.to_thread(running.update, chunk)
        except ObjectNotFound:
            return  # collected meanwhile
        self.done.bytes += running.offset
        if running.digest != digest and info.size:
            self._aside(Kind.BLOB_DAMAGED, f"blob {digest} holds other bytes", digest, info)
        self._watch.step()

    async def _uploads(self, limit: float) -> None:
        staged = set()
        for name in await self._content.repositories_with(layout.UPLOADS_FOLDER):
            for id in await self._driver.list_folders(layout.uploads(name)):
                staged.add(layout.upload_data(name, id))
                changed, held = await last_change(self._content, name, id)
                if changed is not None and changed <= limit:
                    what = f"upload {id} with {held} bytes has been idle for long"
                    repair = partial(self._remove_upload, layout.upload_data(name, id), layout.upload(name, id))
                    self.done.findings.append(Finding(Kind.UPLOAD_ABANDONED, what, name, repair=repair))

        for left in await unfinished(self._content, limit, staged):
            what = f"a write of {left.key} was never finished, and holds {left.offset} bytes"
            repair = partial(self._drop_unfinished, left)
            self.done.findings.append(Finding(Kind.UPLOAD_ABANDONED, what, repair=repair))

    async def _drop_unfinished(self, left: Unfinished) -> bool:
        await self._driver.drop_unfinished(left)
        return True

    async def _remove_upload(self, data: str, folder: str) -> bool:
        await self._driver.abort(await self._driver.find_stage(data))
        await self._driver.delete_tree(folder)
        return True


__all__ = ["DAMAGED", "Examined", "Examiner", "TooMuchIsGone"]

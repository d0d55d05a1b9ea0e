"""`registry prefetch`: fetch images into the cache before somebody needs them.

It works on the store itself, as the registry that runs beside it does: what one fetches, both have. Each tag is
compared with its upstream's, whatever `ttl` says; what is cached already is not fetched.

Ends with 0 where all is cached, 1 where an image is not, 2 where it could not begin.
"""

import asyncio
import sys
import time
from argparse import Namespace
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from registry.app import make_mirrors
from registry.commands.common import bytes_text, counted, seconds_text
from registry.commands.progress import Progress
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.config.upstreams import HUB_NAMES
from registry.errors import RegistryError
from registry.proxy.images import Image, parse_image
from registry.proxy.mirrors import Mirrors
from registry.proxy.platforms import Platforms
from registry.proxy.pull_through import PullThrough
from registry.proxy.upstream import Upstream
from registry.stale import StaleManifest
from registry.stores import open_driver
from storage.content import ContentStore
from storage.digest import Digest
from storage.errors import StorageError
from storage.manifest import MANIFEST_TYPES, Descriptor, parse_stored, required_blobs
from storage.names import Reference, RepositoryName
from storage.parallel import for_each

T = TypeVar("T")

COULD_NOT_BEGIN = 2

_SIDE_BY_SIDE = 4
"""Images looked up at the same time; blobs, unless told otherwise."""

MAX_MANIFESTS = 1000
"""Of one image: an index may name indexes without end."""


class Failed(Exception):
    """Why an image is not cached: a sentence."""


_REASONS = (StorageError, RegistryError, Failed)


@dataclass
class Plan:
    """One image: what it is made of, and what of that is missing."""

    image: Image
    repository: PullThrough | None = None
    manifests: set[Digest] = field(default_factory=set)
    blobs: dict[Digest, int] = field(default_factory=dict)
    missing: set[Digest] = field(default_factory=set)
    error: str = ""


@dataclass
class Done:
    """blobs: fetched now, of all images.   size: of what the upstreams sent, in bytes."""

    plans: list[Plan]
    blobs: int
    size: int
    seconds: float


def run(config: Config, options: Namespace) -> int:
    """Raises Refusal."""
    if config.storage.driver == "inmemory":
        raise Refusal(
            "prefetch: the inmemory storage lives inside the serving process, and goes with it", COULD_NOT_BEGIN
        )
    if not config.proxy.remoteurl and not config.upstreams:
        raise Refusal("prefetch: there is nothing to fetch from; set upstreams or proxy.remoteurl", COULD_NOT_BEGIN)
    images = _images(options.images, options.file)
    progress = Progress(quiet=options.quiet)
    try:
        done = asyncio.run(_prefetch(config, images, options, progress))
    finally:
        progress.clear()
    for plan in done.plans:
        if plan.error:
            sys.stderr.write(f"registry: prefetch: {plan.image.text}: {plan.error}\n")
    if not options.quiet:
        sys.stdout.write(f"{summary(done)}\n")
    return 1 if any(plan.error for plan in done.plans) else 0


def _images(texts: Sequence[str], file: str | None) -> list[Image]:
    """file: one name a line, "-" for stdin; a line that begins with # is none."""
    lines = list(texts)
    if file is not None:
        try:
            text = sys.stdin.read() if file == "-" else Path(file).read_text()
        except (OSError, UnicodeDecodeError) as exc:
            raise Refusal(f"prefetch: cannot read {file}: {exc}", COULD_NOT_BEGIN) from exc
        lines += [line.strip() for line in text.splitlines()]
    try:
        images = [parse_image(line) for line in dict.fromkeys(lines) if line and not line.startswith("#")]
    except ValueError as exc:
        raise Refusal(f"prefetch: {exc}", COULD_NOT_BEGIN) from exc
    if not images:
        raise Refusal("prefetch: name at least one image, or a --file of them", COULD_NOT_BEGIN)
    return images


async def _prefetch(config: Config, images: Sequence[Image], options: Namespace, progress: Progress) -> Done:
    began = time.monotonic()
    asked = replace(config, upstreams=tuple(replace(each, ttl=0.0) for each in config.upstreams))
    content = ContentStore(open_driver(asked))
    try:
        mirrors = make_mirrors(content, asked)
        if mirrors is None:
            raise Refusal("prefetch: there is nothing to fetch from", COULD_NOT_BEGIN)
        try:
            work = Prefetch(mirrors, tuple(options.platform or ()), progress)
            plans = await work.run(images, options.parallel)
        finally:
            await mirrors.aclose()
    finally:
        await content.aclose()
    tallies = [each.tally for each in mirrors.upstreams]
    return Done(
        plans,
        blobs=sum(each.fills_kept for each in tallies),
        size=sum(each.fetched_bytes for each in tallies),
        seconds=time.monotonic() - began,
    )


class Prefetch:
    """platforms: those wanted of an index; none: what the upstream's setting says."""

    def __init__(self, mirrors: Mirrors, platforms: Sequence[str], progress: Progress) -> None:
        self._mirrors, self._platforms, self._progress = mirrors, platforms, progress

    async def run(self, images: Sequence[Image], parallel: int) -> list[Plan]:
        """parallel: blobs that are fetched side by side."""
        plans = [Plan(image) for image in images]
        self._progress.phase("looking up images", len(images))
        await for_each(_each(plans), self._look_up, width=_SIDE_BY_SIDE)
        missing: dict[tuple[RepositoryName, Digest], list[Plan]] = {}
        for plan in plans:
            if plan.repository is not None and not plan.error:
                for digest in plan.missing:
                    missing.setdefault((plan.repository.name, digest), []).append(plan)
        total = sum(needed_by[0].blobs[digest] for (_, digest), needed_by in missing.items())
        self._progress.phase(f"fetching {counted(len(missing), 'blob')}", total, bytes_text)
        await for_each(_each(missing.items()), self._fill, width=parallel)
        return plans

    # Manifests

    async def _look_up(self, plan: Plan) -> None:
        try:
            await self._walk(plan)
        except _REASONS as exc:
            plan.error = str(exc)
        self._progress.step()

    async def _walk(self, plan: Plan) -> None:
        """What the image is made of; its manifests are cached then."""
        image = plan.image
        upstream, found = self._find(image)
        plan.repository = found
        platforms = Platforms(self._platforms or upstream.config.platforms)
        waiting: list[Reference] = [image.reference]
        while waiting:
            manifest = await found.get_manifest(waiting.pop())
            if isinstance(manifest, StaleManifest):
                raise Failed(f"{manifest.why}; it is {seconds_text(manifest.age)} old")
            plan.manifests.add(manifest.digest)
            parsed = parse_stored(manifest.body)
            unwanted = platforms.unwanted(manifest.body)
            children = [child for child in parsed.children if child.digest not in unwanted]
            if parsed.children and not children:
                raise Failed(f"it has no image for {', '.join(platforms.names)}")
            inner = [child.digest for child in children if child.media_type in MANIFEST_TYPES]
            waiting += [digest for digest in inner if digest not in plan.manifests and digest not in waiting]
            if len(plan.manifests) + len(waiting) > MAX_MANIFESTS:
                raise Failed(f"it is made of more than {MAX_MANIFESTS} manifests")
            blobs = (*required_blobs(parsed), *(child for child in children if child.media_type not in MANIFEST_TYPES))
            await self._note(plan, found, blobs)

    async def _note(self, plan: Plan, repository: PullThrough, blobs: Iterable[Descriptor]) -> None:
        for blob in blobs:
            if blob.digest not in plan.blobs:
                plan.blobs[blob.digest] = blob.size
                if not await repository.has_blob(blob.digest):
                    plan.missing.add(blob.digest)

    def _find(self, image: Image) -> tuple[Upstream, PullThrough]:
        """Whose the image is, and its place in the cache. Raises Failed, and what clients would get as an error."""
        found = self._mirrors.repository(image.name, self._namespace(image))
        if not isinstance(found, PullThrough):
            raise Failed(f"no upstream is meant: begin it with one of {self._names()}")
        return next(each for each in self._mirrors.upstreams if each.name == found.namespace), found

    def _namespace(self, image: Image) -> str | None:
        """The upstream that a client means, as `?ns=` would say it; None: the default one, or the name begins with it.

        A name without a host means Docker Hub, as it does everywhere.
        """
        upstreams = self._mirrors.upstreams
        if not image.host:
            first = image.name.partition("/")[0]
            named = any(first == each.name for each in upstreams)
            return None if named else next((each.name for each in upstreams if each.config.is_hub), None)
        for each in upstreams:
            hosts = {each.name, urlsplit(each.config.url).netloc.lower()} | (HUB_NAMES if each.config.is_hub else set())
            if image.host in hosts:
                return each.name
        raise Failed(f"no upstream is called {image.host}; there are {self._names()}")

    def _names(self) -> str:
        return ", ".join(each.name for each in self._mirrors.upstreams)

    # Blobs

    async def _fill(self, blob: tuple[tuple[RepositoryName, Digest], list[Plan]]) -> None:
        """blob: with the images that need it, which are all of one repository."""
        (_, digest), plans = blob
        assert plans[0].repository is not None
        try:
            await plans[0].repository.fill(digest, self._progress.step)
        except _REASONS as exc:
            for plan in plans:
                plan.error = plan.error or str(exc)


async def _each(items: Iterable[T]) -> AsyncIterator[T]:
    for item in items:
        yield item


def summary(done: Done) -> str:
    good = [plan for plan in done.plans if not plan.error]
    manifests = len({digest for plan in good for digest in plan.manifests})
    blobs = {digest: size for plan in good for digest, size in plan.blobs.items()}
    cached = (
        f"{counted(len(good), 'image')} cached: {counted(manifests, 'manifest')},"
        f" {counted(len(blobs), 'blob')} ({bytes_text(sum(blobs.values()))})"
    )
    fetched = f"fetched {counted(done.blobs, 'blob')} ({bytes_text(done.size)}) in {seconds_text(done.seconds)}"
    failed = len(done.plans) - len(good)
    return f"{cached}; {fetched}" + (f"; {counted(failed, 'image')} failed" if failed else "")

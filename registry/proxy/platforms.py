"""Which images of an index are fetched: those for the upstream's `platforms`. Pure, but for what it remembers.

An index is served as it is, or its digest would not hold; the images in it that are for other platforms are refused
when somebody asks for them. An attestation, which BuildKit lists as unknown/unknown, goes with the image that it names.
What does not say what it is for (an artifact, an index within the index) is fetched, and so is what a tag names without
an index. What is cached is served.

Which image belongs to which index is known by whoever has served the index: a client asks for that first. Where that
was another process, the image's config says what it is for.
"""

import json
import re
from collections.abc import Iterable, Sequence

from registry.errors import Denied, RegistryError
from registry.proxy.freshness import Recent
from storage.digest import Digest
from storage.errors import DigestInvalid
from storage.manifest import INDEX_TYPES, Manifest
from storage.names import RepositoryName
from storage.repository import StoredManifest

CONFIGS = frozenset({"application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"})
"""Configs that say what an image is for."""

MAX_CONFIG = 1 << 20

_BELONGS_TO = "vnd.docker.reference.digest"
_SAYS = re.compile(r"[A-Za-z0-9._/-]{1,100}")
"""What may stand in a message, and in a terminal."""

_USUAL = {"arm64": "v8", "arm": "v7"}
"""The variant that is meant where none is said, as containerd has it."""


class PlatformDenied(Denied):
    """For a platform that `platforms` does not name."""

    def __init__(self, wanted: Iterable[str], found: str) -> None:
        what = f"this image is for {found}, and only images for {', '.join(wanted)} are fetched from this upstream"
        RegistryError.__init__(self, f"{what} (setting: platforms)")


class Platforms:
    """The platforms of one upstream, such as linux/amd64 or linux/arm/v7; none: all. Shared by its repositories."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._indexes: Recent[bool] = Recent(1_024)
        self._unwanted: Recent[str] = Recent(65_536)

    def served(self, name: RepositoryName, manifest: StoredManifest) -> None:
        """Somebody gets that index, and knows now what is in it."""
        if not self.names or manifest.media_type not in INDEX_TYPES:
            return
        if self._indexes.get((name, str(manifest.digest))) is None:
            self._indexes.keep((name, str(manifest.digest)), True)
            for digest, platform in self.unwanted(manifest.body).items():
                self._unwanted.keep((name, str(digest)), platform)

    def check(self, name: RepositoryName, digest: Digest) -> None:
        """Raises PlatformDenied for what is in an index that was served, and unwanted."""
        if (found := self._unwanted.get((name, str(digest)))) is not None:
            raise PlatformDenied(self.names, found)

    def check_config(self, name: RepositoryName, digest: Digest, config: bytes) -> None:
        """config: of the image of that digest. Raises PlatformDenied."""
        platform = _platform(_object(config))
        if platform and not self.wants(platform):
            self._unwanted.keep((name, str(digest)), platform)
            raise PlatformDenied(self.names, platform)

    def config_of(self, manifest: Manifest) -> Digest | None:
        """The config that would say what the image is for; None: nobody needs to look."""
        if not self.names or not manifest.blobs:
            return None
        config = manifest.blobs[0]
        return config.digest if config.media_type in CONFIGS and config.size <= MAX_CONFIG else None

    def wants(self, platform: str) -> bool:
        """platform: os/architecture, and a variant where one is said. One without says no platform, is wanted."""
        if not self.names or platform.startswith("unknown/"):
            return True
        os, architecture, variant = _parts(platform)
        for name in self.names:
            wanted = _parts(name)
            if wanted[:2] == (os, architecture) and wanted[2] in ("", variant or _USUAL.get(architecture, "")):
                return True
        return False

    def unwanted(self, body: bytes) -> dict[Digest, str]:
        """What of an index is not to be fetched, and for which platform it is."""
        entries = [_object_of(entry) for entry in _list(_object(body).get("manifests"))]
        found: dict[Digest, str] = {}
        wanted: set[Digest] = set()  # one image may be there for several platforms
        for entry in entries:
            if (digest := _digest(entry.get("digest"))) is not None:
                platform = _platform(_object_of(entry.get("platform")))
                if platform and not self.wants(platform):
                    found[digest] = platform
                else:
                    wanted.add(digest)
        found = {digest: platform for digest, platform in found.items() if digest not in wanted}
        for entry in entries:
            image = _digest(_object_of(entry.get("annotations")).get(_BELONGS_TO))
            if image in found and (digest := _digest(entry.get("digest"))) is not None:
                found[digest] = found[image]
        return found


def _parts(platform: str) -> tuple[str, str, str]:
    os, _, rest = platform.partition("/")
    architecture, _, variant = rest.partition("/")
    return os, architecture, variant


def _platform(fields: dict[str, object]) -> str:
    """As it is written in settings; "" where it does not say."""
    os, architecture, variant = (fields.get(key) for key in ("os", "architecture", "variant"))
    if not (isinstance(os, str) and isinstance(architecture, str) and os and architecture):
        return ""
    found = f"{os}/{architecture}/{variant}" if isinstance(variant, str) and variant else f"{os}/{architecture}"
    return found if _SAYS.fullmatch(found) else ""


def _digest(value: object) -> Digest | None:
    try:
        return Digest.parse(value if isinstance(value, str) else "")
    except DigestInvalid:
        return None


def _object(body: bytes) -> dict[str, object]:
    try:
        return _object_of(json.loads(body))
    except (ValueError, RecursionError):
        return {}


def _object_of(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []

"""Manifests and indexes: what a push must look like, and what the registry needs to know of one. Pure.

Two readers. `parse` is for a push, and refuses whatever two readers could take for different things. `parse_stored` is
for bytes that are stored already, perhaps by another registry: it never raises, and reads as Go does, so that what can
be pulled elsewhere is known here too.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol
from urllib.parse import urlsplit

from storage import strict_json
from storage.descriptor import MANIFEST_FIELDS, MAX_SIZE, SPELLING, Descriptor, Fields, Platform, shown
from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestInvalid

__all__ = [
    "DOCKER_LIST",
    "DOCKER_MANIFEST",
    "DOCKER_SCHEMA1",
    "DOCKER_SCHEMA1_SIGNED",
    "IMAGE_INDEX",
    "IMAGE_MANIFEST",
    "INDEX_TYPES",
    "MANIFEST_TYPES",
    "NONDISTRIBUTABLE",
    "Descriptor",
    "Manifest",
    "Platform",
    "Searchable",
    "parse",
    "parse_index_lenient",
    "parse_stored",
    "referrer_descriptor",
    "required_blobs",
    "required_children",
    "sniff",
    "url_violations",
]

IMAGE_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
IMAGE_INDEX: Final = "application/vnd.oci.image.index.v1+json"
DOCKER_MANIFEST: Final = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST: Final = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_SCHEMA1: Final = "application/vnd.docker.distribution.manifest.v1+json"
DOCKER_SCHEMA1_SIGNED: Final = "application/vnd.docker.distribution.manifest.v1+prettyjws"

INDEX_TYPES = frozenset({IMAGE_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({IMAGE_MANIFEST, DOCKER_MANIFEST}) | INDEX_TYPES
"""What can be pushed."""

_SCHEMA1_REFUSED = "Docker image manifest version 2, schema 1 is not supported: push with a client that writes schema 2"
_WITHDRAWN = {
    DOCKER_SCHEMA1: _SCHEMA1_REFUSED,
    DOCKER_SCHEMA1_SIGNED: _SCHEMA1_REFUSED,
    # Release candidates of OCI 1.1 had it; distribution and zot refuse it too.
    "application/vnd.oci.artifact.manifest.v1+json": (
        "image-spec 1.1 has no artifact manifest any more: use an image manifest with artifactType"
    ),
}

NONDISTRIBUTABLE = frozenset(
    {
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    }
)
"""Layers whose licence forbids to push them: clients fetch them from their `urls`."""

MAX_VIOLATIONS = 10

_NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")

# Served back as the Content-Type of what another registry has stored: no type that a browser would show.
_SERVABLE = re.compile(r"application/[A-Za-z0-9][A-Za-z0-9!#$&^_.-]{0,126}\+(?:json|prettyjws)")


class Searchable(Protocol):
    """A compiled pattern, whoever compiled it."""

    def search(self, text: str, /) -> object | None: ...


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest or an index.

    blobs: config, then layers.   children: the manifests of an index; clients also put blobs there (BuildKit's cache).
    artifact_type: as a listing of referrers shows it: of a manifest without one, its config's media type.
    """

    media_type: str
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    subject: Descriptor | None = None
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None


# A push


def parse(body: bytes, content_type: str | None) -> Manifest:
    """Read what a client pushes. content_type: the request's header. Raises ManifestInvalid."""
    sent = content_type.partition(";")[0].strip().lower() if content_type else ""
    if sent:
        _check_known(sent)
    top = Fields(strict_json.loads(body), "", MANIFEST_FIELDS)
    version = top.value.get("schemaVersion")
    if version == 1 and type(version) is int:
        raise ManifestInvalid(_SCHEMA1_REFUSED)
    media_type = _agreed_type(sent, top)
    if type(version) is not int or version != 2:
        raise ManifestInvalid("schemaVersion must be 2")
    blobs: tuple[Descriptor, ...] = ()
    children: tuple[Descriptor, ...] = ()
    config = None
    if media_type in INDEX_TYPES:
        top.refuse("config", "layers", because="this is an index")
        if top.value.get("manifests") is None and ("manifests" not in top.value or "mediaType" not in top.value):
            # null only beside a mediaType: distribution would serve the stored bytes as an image manifest.
            raise ManifestInvalid("an index needs an array `manifests`")
        children = top.descriptors("manifests")
    else:
        top.refuse("manifests", because="this is an image manifest")
        config = top.descriptor("config")
        if config is None:
            raise ManifestInvalid("an image manifest needs a descriptor `config`")
        blobs = (config, *top.descriptors("layers"))
    return Manifest(
        media_type=media_type,
        blobs=blobs,
        children=children,
        subject=top.descriptor("subject"),
        artifact_type=top.string("artifactType") or (config.media_type if config else None),
        annotations=top.annotations(),
    )


def _agreed_type(sent: str, top: Fields) -> str:
    """The one media type that header and body name. Raises ManifestInvalid where they do not (CVE-2021-41190)."""
    declared = top.string("mediaType")
    if declared is not None:
        _check_known(declared)
    media_type = sent or declared
    if media_type is None:
        raise ManifestInvalid("neither Content-Type nor the field mediaType says what it is")
    if declared is None and media_type in (DOCKER_MANIFEST, DOCKER_LIST):
        raise ManifestInvalid(f"{media_type} needs its field mediaType")
    if declared is not None and declared != media_type:
        raise ManifestInvalid(f"its mediaType is {declared}, but Content-Type says {media_type}")
    return media_type


def _check_known(media_type: str) -> None:
    if media_type in _WITHDRAWN:
        raise ManifestInvalid(_WITHDRAWN[media_type])
    if media_type not in MANIFEST_TYPES:
        raise ManifestInvalid(
            f"media type {shown(media_type)} is not a manifest's: expected {IMAGE_MANIFEST}, {IMAGE_INDEX}, "
            f"{DOCKER_MANIFEST} or {DOCKER_LIST}"
        )


# What a push needs


def required_blobs(manifest: Manifest) -> tuple[Descriptor, ...]:
    """The blobs that must be in the repository: all but nondistributable layers that say where else they are."""
    layers = (layer for layer in manifest.blobs[1:] if not (layer.urls and layer.media_type in NONDISTRIBUTABLE))
    return (*manifest.blobs[:1], *layers)


def required_children(manifest: Manifest, platforms: Collection[Platform] | None = None) -> tuple[Descriptor, ...]:
    """The children that must be in the repository, as manifests or as blobs (BuildKit's cache index lists blobs).

    platforms: only those for one of them, as `validation.manifests.indexes.platformlist` says; None: all.
    """
    if platforms is None:
        return manifest.children
    return tuple(child for child in manifest.children if child.platform in platforms)


def url_violations(manifest: Manifest, allow: Searchable | None = None, deny: Searchable | None = None) -> list[str]:
    """Sentences about the `urls` that are not http(s), have a fragment, miss `allow` or match `deny`; ten at most.

    The patterns search, they are not anchored (distribution, `validation.manifests.urls`). Nothing is ever fetched.
    """
    found = (
        f"{path}.urls: {shown(url)} is not allowed here"
        for path, descriptor in _named(manifest)
        for url in descriptor.urls
        if not _url_holds(url, allow, deny)
    )
    return list(islice(found, MAX_VIOLATIONS))


def _named(manifest: Manifest) -> Iterator[tuple[str, Descriptor]]:
    """Every descriptor, with its path."""
    for index, blob in enumerate(manifest.blobs):
        yield f"layers[{index - 1}]" if index else "config", blob
    for index, child in enumerate(manifest.children):
        yield f"manifests[{index}]", child
    if manifest.subject is not None:
        yield "subject", manifest.subject


def _url_holds(url: str, allow: Searchable | None, deny: Searchable | None) -> bool:
    if _NOT_IN_URL.search(url):
        return False  # urlsplit drops some of these, clients may drop others
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or parts.fragment:
        return False
    return (allow is None or allow.search(url) is not None) and (deny is None or deny.search(url) is None)


# Referrers


def referrer_descriptor(manifest: Manifest, digest: Digest, size: int) -> Descriptor:
    """How a listing of referrers shows the manifest of that digest and size."""
    return Descriptor(
        media_type=manifest.media_type,
        digest=digest,
        size=size,
        artifact_type=manifest.artifact_type,
        annotations=manifest.annotations,
    )


# What is stored


def _stored_integer(digits: str) -> int:
    return int(digits) if len(digits) <= strict_json.MAX_DIGITS else -1


_DECODER = json.JSONDecoder(parse_int=_stored_integer)  # once: a pull makes no other


def sniff(body: bytes) -> str:
    """The media type of stored bytes: `mediaType`, else index if `manifests` is there, else image manifest."""
    return _stored_type(_stored_document(body))


def parse_stored(body: bytes) -> Manifest:
    """Read stored bytes. What is unusable is left out; never raises. Layers of schema 1 are not among its blobs."""
    top = _stored_document(body)
    config = _stored_descriptor(top.get("config"))
    return Manifest(
        media_type=_stored_type(top),
        blobs=((config,) if config else ()) + _stored_descriptors(top.get("layers")),
        children=_stored_descriptors(top.get("manifests")),
        subject=_stored_descriptor(top.get("subject")),
        artifact_type=_text(top.get("artifactType")) or (config.media_type if config else None) or None,
        annotations=_stored_annotations(top.get("annotations")),
    )


def parse_index_lenient(body: bytes) -> tuple[Descriptor, ...]:
    """The usable descriptors of an index that a client keeps under a fallback tag; never raises."""
    return tuple(child for child in parse_stored(body).children if child.media_type and child.size)


def _stored_document(body: bytes) -> dict[str, object]:
    """The object, its known keys in their right case; empty where there is none."""
    try:
        value: object = _DECODER.decode(body.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return _as_spelled(value)


def _as_spelled(value: object) -> dict[str, object]:
    pairs: dict[str, object] = value if isinstance(value, dict) else {}
    return {SPELLING.get(key.casefold(), key): item for key, item in pairs.items()}


def _stored_type(top: Mapping[str, object]) -> str:
    declared = top.get("mediaType")
    if isinstance(declared, str) and _SERVABLE.fullmatch(declared):
        return declared
    if top.get("schemaVersion") == 1:
        return DOCKER_SCHEMA1_SIGNED if "signatures" in top else DOCKER_SCHEMA1
    return IMAGE_INDEX if top.get("manifests") is not None else IMAGE_MANIFEST


def _stored_descriptors(value: object) -> tuple[Descriptor, ...]:
    items = value if isinstance(value, list) else []
    return tuple(found for item in items if (found := _stored_descriptor(item)) is not None)


def _stored_descriptor(value: object) -> Descriptor | None:
    """None without a digest that we could have stored; media type "" and size 0 where it does not say."""
    fields = _as_spelled(value)
    try:
        digest = Digest.parse(str(fields.get("digest")))
    except DigestInvalid:
        return None
    size = fields.get("size")
    return Descriptor(
        media_type=_text(fields.get("mediaType")),
        digest=digest,
        size=size if type(size) is int and 0 <= size <= MAX_SIZE else 0,
        artifact_type=_text(fields.get("artifactType")) or None,
        annotations=_stored_annotations(fields.get("annotations")),
    )


def _stored_annotations(value: object) -> Mapping[str, str] | None:
    if not isinstance(value, dict):
        return None
    return {_text(key): _text(text) for key, text in value.items() if isinstance(text, str)}


def _text(value: object) -> str:
    """A string, with U+FFFD for half a surrogate pair, as Go reads it: what a listing shows must encode. Else ""."""
    if not isinstance(value, str):
        return ""
    return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

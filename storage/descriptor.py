"""Descriptors: what they say, and how those of a push are read. Pure.

Strict: no key in the wrong case, a size that is an integer, a digest that we can compute. A complaint carries a path
such as `layers[3].digest`. null stands for "not there" where Go writes it for an empty list, map or object, and nowhere
else. Unknown fields are left alone, whatever they hold.

Every digest must be of an algorithm that we compute, also where nothing has to be present: a layer that could never be
stored here, or a subject whose referrers could never be listed, is told to the client at once.
"""

import binascii
from collections.abc import Mapping
from dataclasses import dataclass

from storage.digest import Digest
from storage.errors import DigestInvalid, ManifestInvalid

MAX_SIZE = (1 << 63) - 1
"""A size is an int64 (image-spec, descriptor.md)."""

MANIFEST_FIELDS = frozenset(
    {"schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations"}
)
_DESCRIPTOR_FIELDS = frozenset(
    {"mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform"}
)
_PLATFORM_FIELDS = frozenset({"architecture", "os", "os.version", "os.features", "variant"})

SPELLING = {name.casefold(): name for name in MANIFEST_FIELDS | _DESCRIPTOR_FIELDS | _PLATFORM_FIELDS}
"""Each known key by its case-folded form. Go matches keys so: it takes U+017F for an s, too."""


@dataclass(frozen=True, slots=True)
class Platform:
    """What an index says of a child; "" where it does not say."""

    os: str
    architecture: str


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A reference to content (image-spec, descriptor.md). size in bytes; data: the content itself, checked."""

    media_type: str
    digest: Digest
    size: int
    artifact_type: str | None = None
    annotations: Mapping[str, str] | None = None
    urls: tuple[str, ...] = ()
    data: bytes | None = None
    platform: Platform | None = None

    def to_json(self) -> dict[str, object]:
        """As a listing of referrers shows it."""
        shown: dict[str, object] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size}
        if self.artifact_type:
            shown["artifactType"] = self.artifact_type
        if self.annotations:
            shown["annotations"] = dict(self.annotations)
        return shown


class Fields:
    """One JSON object, read field by field. Complaints carry the path, such as `layers[3].digest`."""

    __slots__ = ("_path", "value")

    def __init__(self, value: object, path: str, known: frozenset[str]) -> None:
        if not isinstance(value, dict):
            raise ManifestInvalid(f"{path or 'the top level'} must be an object")
        self.value: dict[str, object] = value
        self._path = path
        for key in value.keys() - known:
            if SPELLING.get(key.casefold()) in known:
                # Go would read it as that field, we and others would not.
                raise ManifestInvalid(f"{self._at(shown(key))} must be spelled {SPELLING[key.casefold()]}")

    def _at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def refuse(self, *keys: str, because: str) -> None:
        for key in keys:
            if key in self.value:
                raise ManifestInvalid(f"{self._at(key)} must not be there: {because}")

    def string(self, key: str) -> str | None:
        if key not in self.value:
            return None
        if not isinstance(text := self.value[key], str):
            raise ManifestInvalid(f"{self._at(key)} must be a string")
        return text

    def required(self, key: str) -> str:
        if not (text := self.string(key)):
            raise ManifestInvalid(f"{self._at(key)} must be a string that is not empty")
        return text

    def array(self, key: str) -> list[object]:
        items = self.value.get(key)
        if items is None:
            return []
        if not isinstance(items, list):
            raise ManifestInvalid(f"{self._at(key)} must be an array")
        return items

    def annotations(self) -> Mapping[str, str] | None:
        pairs = self.value.get("annotations")
        if pairs is None:
            return None
        if not isinstance(pairs, dict):
            raise ManifestInvalid(f"{self._at('annotations')} must be an object")
        for key, text in pairs.items():
            if not isinstance(text, str):
                raise ManifestInvalid(f"{self._at('annotations')}[{shown(key)}] must be a string")
        return pairs

    def descriptors(self, key: str) -> tuple[Descriptor, ...]:
        return tuple(read_descriptor(item, f"{self._at(key)}[{index}]") for index, item in enumerate(self.array(key)))

    def descriptor(self, key: str) -> Descriptor | None:
        value = self.value.get(key)
        return None if value is None else read_descriptor(value, self._at(key))

    def digest(self) -> Digest:
        try:
            return Digest.parse(self.required("digest"))
        except DigestInvalid as exc:
            raise ManifestInvalid(f"{self._at('digest')}: {exc}") from exc

    def size(self) -> int:
        size = self.value.get("size")
        if type(size) is not int or not 0 <= size <= MAX_SIZE:
            raise ManifestInvalid(f"{self._at('size')} must be an integer from 0 to {MAX_SIZE}")
        return size

    def urls(self) -> tuple[str, ...]:
        found = self.array("urls")
        if not all(isinstance(url, str) for url in found):
            raise ManifestInvalid(f"{self._at('urls')} must be an array of strings")
        return tuple(str(url) for url in found)

    def data(self, digest: Digest, size: int) -> bytes | None:
        if self.value.get("data") is None:
            return None
        try:
            data = binascii.a2b_base64((self.string("data") or "").encode(), strict_mode=True)
        except binascii.Error as exc:
            raise ManifestInvalid(f"{self._at('data')} must be base64") from exc
        if len(data) != size or Digest.of(data, digest.algorithm) != digest:
            raise ManifestInvalid(f"{self._at('data')} does not have the size and digest beside it")
        return data

    def platform(self) -> Platform | None:
        if self.value.get("platform") is None:
            return None
        inner = Fields(self.value["platform"], self._at("platform"), _PLATFORM_FIELDS)
        return Platform(os=inner.string("os") or "", architecture=inner.string("architecture") or "")


def read_descriptor(value: object, path: str) -> Descriptor:
    fields = Fields(value, path, _DESCRIPTOR_FIELDS)
    digest, size = fields.digest(), fields.size()
    return Descriptor(
        media_type=fields.required("mediaType"),
        digest=digest,
        size=size,
        artifact_type=fields.string("artifactType") or None,
        annotations=fields.annotations(),
        urls=fields.urls(),
        data=fields.data(digest, size),
        platform=fields.platform(),
    )


def shown(text: str) -> str:
    """What a client sent, short and in ASCII, to be quoted in a message."""
    return ascii(text[:100])

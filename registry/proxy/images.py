"""Names of images as clients write them: alpine, ghcr.io/team/app:v1, hub.lan:5000/app@sha256:... Pure.

Docker's grammar: what stands before the first slash is a host if it has a dot or a colon, or is `localhost`.
"""

from dataclasses import dataclass

from storage.digest import Digest
from storage.errors import DigestInvalid, NameInvalid, TagInvalid
from storage.names import Reference, RepositoryName, Tag, parse_name, parse_tag


@dataclass(frozen=True, slots=True)
class Image:
    """text: as it was written.   host: in lower case, "" where none is written."""

    text: str
    host: str
    name: RepositoryName
    reference: Reference


def parse_image(text: str) -> Image:
    """Of tag and digest the digest counts; without both it is `latest`. Raises ValueError, with a sentence."""
    rest, at, digest = text.partition("@")
    first, slash, tail = rest.partition("/")
    host = first.lower() if slash and ("." in first or ":" in first or first == "localhost") else ""
    name, colon, tag = (tail if host else rest).partition(":")
    try:
        chosen = parse_tag(tag) if colon else Tag("latest")
        return Image(text, host, parse_name(name), Digest.parse(digest) if at else chosen)
    except (NameInvalid, TagInvalid, DigestInvalid) as exc:
        raise ValueError(f"{text!r} is not the name of an image, such as alpine:3 or ghcr.io/team/app:v1") from exc

"""Names of repositories, tags and references: grammar and parse (distribution-spec, "Pulling manifests"). Pure.

Always `fullmatch`: `$` would accept a trailing newline. The types mark strings that went through the check.
"""

import re
from typing import NewType

from storage.digest import Digest
from storage.errors import NameInvalid, TagInvalid

RepositoryName = NewType("RepositoryName", str)
Tag = NewType("Tag", str)
Reference = Tag | Digest

MAX_NAME = 255
"""Characters. Clients limit host and name to 255 together, and so does a file system per component."""

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_NAME = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


def parse_name(text: str) -> RepositoryName:
    """Raises NameInvalid."""
    if len(text) > MAX_NAME or not _NAME.fullmatch(text):
        raise NameInvalid(text)
    return RepositoryName(text)


def parse_tag(text: str) -> Tag:
    """Raises TagInvalid."""
    if not _TAG.fullmatch(text):
        raise TagInvalid(text)
    return Tag(text)


def parse_reference(text: str) -> Reference:
    """A colon makes it a digest: no tag has one. Raises DigestInvalid or TagInvalid."""
    return Digest.parse(text) if ":" in text else parse_tag(text)

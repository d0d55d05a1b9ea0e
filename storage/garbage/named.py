"""What a stored manifest names: every digest in it, however it is built. Pure.

A collector must not depend on what a parser knows of a format. So it takes every string of the document that is a
digest, wherever it stands: config, layers and children, `fsLayers` of schema 1, `blobs` of withdrawn drafts, and what
will come. Left out are `subject`, since a referrer does not keep what it is about, and annotations, which are prose. Of
a key that occurs twice both values count, and of bytes that are no JSON everything that looks like a digest.
"""

import json
import re
from collections.abc import Iterator

from storage.descriptor import SPELLING
from storage.digest import Digest
from storage.errors import DigestInvalid

_LOOKS_LIKE_ONE = re.compile(rb"sha256:[0-9a-f]{64}(?![0-9a-f])|sha512:[0-9a-f]{128}(?![0-9a-f])")
_NOT_NAMED = frozenset({"subject", "annotations"})


def named_digests(body: bytes) -> frozenset[Digest]:
    """Never raises."""
    try:
        document: object = _DECODER.decode(body.decode("utf-8", "replace"))
        found = frozenset(_walk(document))
    except (ValueError, RecursionError):
        return frozenset(Digest.parse(text.decode("ascii")) for text in _LOOKS_LIKE_ONE.findall(body))
    return found


class _Pairs(list[tuple[str, object]]):
    """An object with all of its keys, also those that occur twice."""


_DECODER = json.JSONDecoder(object_pairs_hook=_Pairs, parse_int=str, parse_float=str)
"""Numbers stay text: Python refuses to convert very long ones."""


def _walk(value: object) -> Iterator[Digest]:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if isinstance(value, _Pairs):
            waiting.extend(item for key, item in value if SPELLING.get(key.casefold(), key) not in _NOT_NAMED)
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and value.startswith("sha"):
            try:
                yield Digest.parse(value)
            except DigestInvalid:
                continue

"""A manifest within the link of its revision: a store that keeps notes (put_noted) gives both in one call.

The link is what gates a manifest, and has to be read anyway; so there is nothing to go out of step. Whoever deletes the
link, distribution too, deletes the copy with it; a link that distribution has written has none, and then the bytes are
read from the blob, which counts. What does not agree with the digest is as if it were not there. Only a registry that
writes nothing reads the copy: others are asked by who may push or fetch again what is lost.
"""

import zlib
from base64 import b64decode, b64encode
from binascii import Error

from storage.digest import Digest
from storage.driver import LARGEST_NOTE

_LARGEST = 16 << 10
"""Bytes of a manifest; none that is longer fits a note, as digests do not compress (25 layers take about 5 kB)."""


def enclose(body: bytes) -> str:
    """The note for a manifest; "" for one that does not fit."""
    note = b64encode(zlib.compress(body, 9)).decode() if len(body) <= _LARGEST else ""
    return note if len(note) <= LARGEST_NOTE else ""


def enclosed(note: str, digest: Digest) -> bytes | None:
    """The manifest of that digest, if the note has it."""
    if not note:
        return None
    inflating = zlib.decompressobj()
    try:
        body = inflating.decompress(b64decode(note, validate=True), _LARGEST)
    except (Error, ValueError, zlib.error):
        return None
    return body if inflating.eof and Digest.of(body, digest.algorithm) == digest else None

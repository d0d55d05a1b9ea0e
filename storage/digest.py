"""Digests: their grammar, the algorithms we compute, and hashing. Pure.

Grammar (OCI image-spec, descriptor.md): algorithm ::= component (separator component)*, component ::= [a-z0-9]+,
separator ::= [+._-]; encoded ::= [a-zA-Z0-9=_-]+. For registered algorithms the encoded part is lower-case hex of
full length.
"""

import hashlib
import re
from dataclasses import dataclass

from storage.errors import DigestInvalid, DigestMismatch, DigestUnsupported

SHA256 = "sha256"
HEX_LENGTH = {SHA256: 64, "sha512": 128}
"""The algorithms that we compute, with the length of their encoded part."""

_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_HEX = re.compile(r"[0-9a-f]+")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A checked digest. Made by `parse`, `of` or a RunningHash; `str` gives `<algorithm>:<hex>`."""

    algorithm: str
    hex: str

    @classmethod
    def parse(cls, text: str) -> "Digest":
        """Raises DigestInvalid, and its subclass DigestUnsupported for a well-formed digest of another algorithm."""
        if _SHA256.fullmatch(text):  # nearly all
            return cls(SHA256, text[len("sha256:") :])
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise DigestInvalid(f"malformed digest {text[:200]!r}: expected <algorithm>:<hex>, as in sha256:e3b0...")
        algorithm, encoded = match.groups()
        if algorithm not in HEX_LENGTH:
            raise DigestUnsupported(algorithm)
        if len(encoded) != HEX_LENGTH[algorithm] or not _HEX.fullmatch(encoded):
            raise DigestInvalid(f"malformed digest: {algorithm} takes {HEX_LENGTH[algorithm]} lower-case hex digits")
        return cls(algorithm, encoded)

    @classmethod
    def of(cls, data: bytes, algorithm: str = SHA256) -> "Digest":
        return cls(algorithm, hashlib.new(algorithm, data).hexdigest())

    def verify(self, data: bytes) -> None:
        """Raises DigestMismatch when data does not have this digest."""
        if (actual := Digest.of(data, self.algorithm)) != self:
            raise DigestMismatch(self, actual)

    def __str__(self) -> str:
        return f"{self.algorithm}:{self.hex}"


def check_algorithm(name: str) -> str:
    """Returns the name of an algorithm that we compute. Raises DigestUnsupported."""
    if name not in HEX_LENGTH:
        raise DigestUnsupported(name)
    return name


class RunningHash:
    """The hash of bytes 0 to `offset` of something that is still growing.

    It is a cache, never the record: hashlib cannot save it, so it is trusted only while `offset` is the stored length.
    """

    __slots__ = ("_hash", "algorithm", "offset")

    def __init__(self, algorithm: str = SHA256) -> None:
        self._hash = hashlib.new(check_algorithm(algorithm))
        self.algorithm = algorithm
        self.offset = 0

    def copy(self) -> "RunningHash":
        """One that goes its own way from here."""
        made = RunningHash(self.algorithm)
        made._hash, made.offset = self._hash.copy(), self.offset
        return made

    def update(self, data: bytes | memoryview) -> None:
        """Releases the interpreter lock for 2 KiB and more, so call it in a thread."""
        self._hash.update(data)
        self.offset += len(data)

    @property
    def digest(self) -> Digest:
        return Digest(self.algorithm, self._hash.hexdigest())

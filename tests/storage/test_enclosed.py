"""Manifests within links: which fit, and that what is not of the digest is nothing."""

import random
import zlib
from base64 import b64encode

import pytest

from storage.digest import Digest
from storage.driver import LARGEST_NOTE
from storage.enclosed import enclose, enclosed
from tests.api import image

BODY = image(b"{}", (b"one", b"two"))


def layers(count: int) -> tuple[bytes, ...]:
    return tuple(random.Random(number).randbytes(8) for number in range(count))


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_manifest_comes_out_as_it_went_in(algorithm: str) -> None:
    assert enclosed(enclose(BODY), Digest.of(BODY, algorithm)) == BODY


@pytest.mark.parametrize("count", [0, 1, 10, 25])
def test_the_manifests_of_most_images_fit(count: int) -> None:
    body = image(b"{}", layers(count))
    note = enclose(body)
    assert 0 < len(note) <= LARGEST_NOTE
    assert note.isascii()
    assert enclosed(note, Digest.of(body)) == body


@pytest.mark.parametrize("body", [image(b"{}", layers(60)), b" " * 20_000 + BODY], ids=["many layers", "long"])
def test_what_does_not_fit_is_left_out(body: bytes) -> None:
    assert enclose(body) == ""


@pytest.mark.parametrize(
    "note",
    [
        "",
        "no base64!",
        "é",
        b64encode(b"not deflated").decode(),
        enclose(BODY)[:40],
        b64encode(zlib.compress(BODY)[:-3]).decode(),
        b64encode(zlib.compress(BODY + b" ")).decode(),
        b64encode(zlib.compress(bytes(10 << 20), 9)).decode(),
    ],
)
def test_what_is_not_of_the_digest_is_nothing(note: str) -> None:
    assert enclosed(note, Digest.of(BODY)) is None

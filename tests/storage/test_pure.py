"""Digests, names, ranges and keys: grammars as tables, the rest as properties (behaviour rows 1 to 33, 1d)."""

import hashlib
import re
import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import layout
from storage.digest import HEX_LENGTH, Digest, RunningHash, check_algorithm
from storage.driver import check_key
from storage.errors import (
    DigestInvalid,
    DigestMismatch,
    DigestUnsupported,
    Invalid,
    NameInvalid,
    RangeNotSatisfiable,
    TagInvalid,
)
from storage.names import MAX_NAME, RepositoryName, Tag, parse_name, parse_reference, parse_tag
from storage.ranges import ByteRange, RangeRequest
from tests.properties import steady

HEX = "0123456789abcdef" * 4
SHA256 = f"sha256:{HEX}"
SHA512 = f"sha512:{HEX}{HEX}"

# Digests


@pytest.mark.parametrize("text", [SHA256, SHA512, "sha256:" + "0" * 64, str(Digest.of(b""))])
def test_digest(text: str) -> None:
    found = Digest.parse(text)
    assert str(found) == text
    assert f"{found.algorithm}:{found.hex}" == text


MALFORMED_DIGESTS = [
    "",
    ":",
    "sha256",
    "sha256:",
    f":{HEX}",
    HEX,
    "sha256:baddigeststring",
    SHA256[:-1],
    SHA256 + "0",
    SHA256[:-1] + "g",
    SHA256[:-1] + "A",
    SHA256.upper(),
    "SHA256:" + HEX,
    "Sha256:" + HEX,
    SHA256 + "\n",
    "\n" + SHA256,
    SHA256 + " ",
    SHA256 + "\x00",
    SHA256[:-1] + "\x00",
    "sha256:" + "\u0660" * 64,  # Arabic digits
    "sha256:" + "\uff10" * 64,  # full-width digits
    "\u017fha256:" + HEX,
    SHA256 + ":" + HEX,
    "a:b:c",
    "sha256:../../../../etc/passwd",
    "sha256:" + "../" * 21 + "a",
    "sha256/../sha256:" + HEX,
    "sha256::" + HEX,
    "sha256++b64:" + HEX,
    "+sha256:" + HEX,
    "sha256+:" + HEX,
    "sha 256:" + HEX,
    "sha512:" + HEX,
    "sha256:" + HEX + HEX,
    "blake3:",
    "blake3:a/b",
    "blake3:\u00e9",
]


@pytest.mark.parametrize("text", MALFORMED_DIGESTS, ids=ascii)
def test_malformed_digest(text: str) -> None:
    with pytest.raises(DigestInvalid, match="malformed digest") as caught:
        Digest.parse(text)
    assert not isinstance(caught.value, DigestUnsupported)


UNSUPPORTED_DIGESTS = [
    "md5:d41d8cd98f00b204e9800998ecf8427e",
    "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709",
    "sha384:" + HEX,
    "sha256+b64u:LCa0a2j_xo_5m0U8HTBBNBNCLXBkg7-g-YpeiGJm564",
    "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8",
    "blake3:" + HEX,
    "a.b-c_d+e:=",
    "0:0",
]


@pytest.mark.parametrize("text", UNSUPPORTED_DIGESTS)
def test_unsupported_digest(text: str) -> None:
    with pytest.raises(DigestUnsupported, match="is not supported: use sha256 or sha512"):
        Digest.parse(text)


@pytest.mark.parametrize("name", ["md5", "SHA256", "sha256 ", "", "sha256\n", "shake_128", "sha3_256"])
def test_unsupported_algorithm(name: str) -> None:
    with pytest.raises(DigestUnsupported):
        check_algorithm(name)
    with pytest.raises(DigestUnsupported):
        RunningHash(name)


@given(st.text())
@steady
def test_a_digest_is_itself_or_refused(text: str) -> None:
    with suppress(DigestInvalid):
        assert str(Digest.parse(text)) == text


def test_messages_stay_short() -> None:
    for parse in (Digest.parse, parse_name, parse_tag, parse_reference, check_algorithm):
        for text in ("A" * 100_000 + "!", "a" * 100_000 + ":b", "\x00\n" * 50_000):
            with pytest.raises(Invalid) as caught:
                parse(text)
            assert len(str(caught.value)) < 1500
            assert str(caught.value).isprintable()


@pytest.mark.parametrize("algorithm", HEX_LENGTH)
@given(chunks=st.lists(st.binary(max_size=100)))
@steady
def test_hashing(algorithm: str, chunks: list[bytes]) -> None:
    data = b"".join(chunks)
    expected = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    running = RunningHash(algorithm)
    for chunk in chunks:
        running.update(memoryview(chunk))
    assert running.offset == len(data)
    assert str(running.digest) == str(Digest.of(data, algorithm)) == expected
    running.digest.verify(data)
    with pytest.raises(DigestMismatch, match=r"does not match its digest: expected .* got"):
        running.digest.verify(data + b"\x00")


def test_a_running_hash_goes_on_after_it_was_asked() -> None:
    running = RunningHash()
    assert running.digest == Digest.of(b"")
    running.update(b"a")
    assert running.digest == Digest.of(b"a")
    running.update(b"b")
    assert (running.digest, running.offset) == (Digest.of(b"ab"), 2)


def test_digests_of_two_algorithms_differ_and_are_ordered() -> None:
    digests = {Digest.of(data, algorithm) for data in (b"a", b"b") for algorithm in HEX_LENGTH}
    assert len(digests) == 4
    assert [str(d) for d in sorted(digests)] == sorted(map(str, digests))


# Names and tags

NAMES = [
    "a",
    "0",
    "a/b/c",
    "a.b",
    "a_b",
    "a__b",
    "a-b",
    "a-----b",
    "a.b_c__d-e/f",
    "a/blobs/uploads",
    "a/manifests/b",
    "tags/list",
    "con",
    "a/referrers",
    "v2/v2",
    "a" * 255,
    "a/" * 127 + "a",
]


@pytest.mark.parametrize("text", NAMES, ids=lambda text: text[:20])
def test_name(text: str) -> None:
    assert parse_name(text) == text


INVALID_NAMES = [
    "",
    "UPPER",
    "a/B",
    "a..b",
    ".a",
    "a.",
    "-a",
    "a-",
    "_a",
    "a_",
    "a___b",
    "a.-b",
    "a._b",
    "a_-b",
    "a//b",
    "/a",
    "a/",
    "/",
    "a/../b",
    "..",
    "../../etc",
    "a/./b",
    "a\x00b",
    "a\n",
    "\na",
    "a\nb",
    "a b",
    "é",
    "a\u0660",
    "\u212aelvin",
    "\u017f",
    "a%2fb",
    "a\\b",
    "a:b",
    "a@b",
    "a?b",
    "a/_layers",
    "_catalog",
    "a" * 256,
    "a/" * 127 + "aa",
    "a/" * 131,
    "a" * 8000,
]


@pytest.mark.parametrize("text", INVALID_NAMES, ids=lambda text: ascii(text)[:20])
def test_invalid_name(text: str) -> None:
    with pytest.raises(NameInvalid, match="invalid repository name"):
        parse_name(text)


TAGS = ["a", "A", "0", "_", "__", "latest", "v1.0.0-rc.1", "a..b", "a-", "a.", "sha256", "sha256-" + HEX, "a" * 128]
INVALID_TAGS = [
    "",
    ".",
    "..",
    ".a",
    "-a",
    "a b",
    "a/b",
    "a\n",
    "a\x00",
    "é",
    "a\u0660",
    "a+b",
    "a@b",
    "a" * 129,
    "a%20",
    "\u017f",
]


@pytest.mark.parametrize("text", TAGS, ids=lambda text: text[:20])
def test_tag(text: str) -> None:
    assert parse_tag(text) == text
    assert parse_reference(text) == text


@pytest.mark.parametrize("text", INVALID_TAGS, ids=lambda text: ascii(text)[:20])
def test_invalid_tag(text: str) -> None:
    for parse in (parse_tag, parse_reference):
        with pytest.raises(TagInvalid, match="invalid tag"):
            parse(text)


def test_a_colon_makes_a_reference_a_digest() -> None:
    assert parse_reference(SHA512) == Digest.parse(SHA512)
    with pytest.raises(DigestInvalid):
        parse_reference("a:b\n")
    with pytest.raises(DigestUnsupported):
        parse_reference("a:b")
    with pytest.raises(TagInvalid):
        parse_tag(SHA256)


@pytest.mark.parametrize("text", ["a" * 200_000, "a/" * 20_000, "a-" * 100_000, "a" + "-" * 100_000, "a._" * 50_000])
def test_long_hostile_names_are_refused_at_once(text: str) -> None:
    started = time.process_time()
    for parse in (parse_name, parse_tag, Digest.parse):
        with pytest.raises(Invalid):
            parse(text)
    assert time.process_time() - started < 1  # of exponential work nobody would see the end


SPEC_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
SPEC_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")


@given(st.text(alphabet="ab0._-/A\n", max_size=12))
@steady
def test_names_and_tags_are_the_specs(text: str) -> None:
    for parse, spec, error in ((parse_name, SPEC_NAME, NameInvalid), (parse_tag, SPEC_TAG, TagInvalid)):
        try:
            accepted = parse(text) == text
        except error:
            accepted = False
        assert accepted is (spec.fullmatch(text) is not None)


# Ranges

POSITIONS = st.integers(0, 12)
REQUESTS = st.one_of(
    st.builds(RangeRequest, start=POSITIONS, stop=st.one_of(st.none(), POSITIONS)),
    st.builds(RangeRequest, suffix=POSITIONS),
)


@given(REQUESTS, st.integers(0, 10))
@steady
def test_resolve_is_slicing(request: RangeRequest, size: int) -> None:
    content = list(range(size))
    if request.suffix is not None:
        expected = content[-request.suffix :] if request.suffix else []
    else:
        expected = content[request.start : request.stop]
    try:
        found = request.resolve(size)
    except RangeNotSatisfiable as exc:
        assert expected == []
        assert exc.size == size  # noqa: PT017 -- one of two right outcomes
    else:
        assert content[found.start : found.stop] == expected != []
        assert 0 <= found.start < found.stop <= size
        assert len(found) == len(expected)


def test_a_request_for_everything() -> None:
    assert RangeRequest().resolve(5) == ByteRange(0, 5)
    with pytest.raises(RangeNotSatisfiable):
        RangeRequest().resolve(0)


def test_positions_beyond_any_size() -> None:
    huge = 10**30
    assert RangeRequest(start=1, stop=huge).resolve(5) == ByteRange(1, 5)
    assert RangeRequest(suffix=huge).resolve(5) == ByteRange(0, 5)
    with pytest.raises(RangeNotSatisfiable):
        RangeRequest(start=huge).resolve(5)


# Keys

NAME = RepositoryName("team/app")
TAG = Tag("v1.0")
D256 = Digest.parse(SHA256)
D512 = Digest.parse(SHA512)
REPOSITORY = "docker/registry/v2/repositories/team/app"
HEX512 = HEX + HEX

# distribution's, byte for byte (drop-in.md 1.1), and ours beside it (1.6).
KEYS = {
    layout.blob_data(D256): f"docker/registry/v2/blobs/sha256/01/{HEX}/data",
    layout.blob_data(D512): f"docker/registry/v2/blobs/sha512/01/{HEX512}/data",
    layout.repository(NAME): REPOSITORY,
    layout.layer_link(NAME, D256): f"{REPOSITORY}/_layers/sha256/{HEX}/link",
    layout.layer_link(NAME, D512): f"{REPOSITORY}/_layers/sha512/{HEX512}/link",
    layout.manifests(NAME): f"{REPOSITORY}/_manifests",
    layout.revisions(NAME): f"{REPOSITORY}/_manifests/revisions",
    layout.revision(NAME, D256): f"{REPOSITORY}/_manifests/revisions/sha256/{HEX}",
    layout.revision_link(NAME, D256): f"{REPOSITORY}/_manifests/revisions/sha256/{HEX}/link",
    layout.tags(NAME): f"{REPOSITORY}/_manifests/tags",
    layout.tag(NAME, TAG): f"{REPOSITORY}/_manifests/tags/v1.0",
    layout.tag_link(NAME, TAG): f"{REPOSITORY}/_manifests/tags/v1.0/current/link",
    layout.tag_index_link(NAME, TAG, D512): f"{REPOSITORY}/_manifests/tags/v1.0/index/sha512/{HEX512}/link",
    layout.referrers(NAME): f"{REPOSITORY}/_referrers",
    layout.referrers_of(NAME, D256): f"{REPOSITORY}/_referrers/sha256/{HEX}",
    layout.referrer_link(NAME, D256, D512): f"{REPOSITORY}/_referrers/sha256/{HEX}/sha512/{HEX512}/link",
    layout.referrers_scanned(NAME): f"{REPOSITORY}/_referrers/scanned",
    layout.uploads(NAME): f"{REPOSITORY}/_uploads",
    layout.upload(NAME, "some-id"): f"{REPOSITORY}/_uploads/some-id",
    layout.upload_data(NAME, "some-id"): f"{REPOSITORY}/_uploads/some-id/data",
    layout.upload_started(NAME, "some-id"): f"{REPOSITORY}/_uploads/some-id/startedat",
    layout.SCRATCH: "docker/registry/v2/_moorage/scratch",
    layout.SECRET: "docker/registry/v2/_moorage/secret",
}


@pytest.mark.parametrize(("key", "expected"), KEYS.items())
def test_key(key: str, expected: str) -> None:
    assert key == expected
    assert check_key(key) == key


@pytest.mark.parametrize("name", [name for name in NAMES if len(name) < MAX_NAME])
def test_no_repository_stands_in_anothers_folders(name: str) -> None:
    """What is ours below a repository begins with an underscore, and no component of a name does."""
    inner = layout.repository(RepositoryName("a"))
    ours = [layout.tags, layout.referrers, layout.uploads, layout.revisions]
    for key in (layout.repository(parse_name(name)), layout.repository(parse_name(f"a/{name}"))):
        assert not any(key.startswith(make(RepositoryName("a"))) for make in ours)
        assert not key.startswith(f"{inner}/_")


DIGEST_FOLDERS = [
    (layout.layer_link(NAME, D512), D512),
    (layout.revision_link(NAME, D256), D256),
    (layout.tag_index_link(NAME, TAG, D512), D512),
    (layout.referrer_link(NAME, D256, D512), D512),
]


@pytest.mark.parametrize(("key", "digest"), DIGEST_FOLDERS)
def test_digest_of_folder(key: str, digest: Digest) -> None:
    assert layout.digest_of_folder(key) == digest


NO_DIGEST_FOLDERS = [
    layout.blob_data(D256),
    layout.referrers_scanned(NAME),
    layout.tag_link(NAME, TAG),
    layout.upload_data(NAME, "some-id"),
    f"{layout.revisions(NAME)}/sha256/{HEX[:-1]}/link",
    f"{layout.revisions(NAME)}/sha256/link",
    f"{layout.revisions(NAME)}/sha256/{HEX}/tmp/link",
    "sha256/link",
    "link",
    "",
]


@pytest.mark.parametrize("key", NO_DIGEST_FOLDERS)
def test_other_folders_are_of_no_digest(key: str) -> None:
    with pytest.raises(DigestInvalid):
        layout.digest_of_folder(key)

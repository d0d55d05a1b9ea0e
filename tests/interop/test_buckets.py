"""One bucket, several registries: what one wrote the others serve and keep, and write the same, byte for byte."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.api import digest_of, with_query
from tests.s3.servers import S3Server

from .buckets import BucketLab
from .content import Content, answered, check_blob, referrers_of
from .corpora import noise, push_common, push_ours
from .peers import OURS, V3, Program
from .scenarios import Collection, check_ours_is_kept, delete_with_ours, delete_with_theirs, push_in_turns

pytestmark = [pytest.mark.interop, pytest.mark.slow]

FOREIGN = ("_moorage", "_referrers", "_uploads")
LARGE = noise("large", 23_000_000)


@pytest.fixture
def bucket(tmp_path: Path, seaweedfs: S3Server) -> Iterator[BucketLab]:
    yield BucketLab.new(tmp_path, seaweedfs)
    for log in islice(sorted(tmp_path.glob("*.log")), 4):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")


def push_large(http: httpx.Client, content: Content, name: str) -> None:
    """Blobs of several parts, by the ways that clients take: PATCH and PUT, POST and PUT."""
    location = answered(http.post(f"/v2/{name}/blobs/uploads/"), 202).headers["Location"]
    location = answered(http.patch(location, content=LARGE), 202).headers["Location"]
    answered(http.put(with_query(location, digest=digest_of(LARGE))), 201)
    content.of(name).blobs[digest_of(LARGE)] = LARGE
    content.blob(http, name, LARGE[1:])
    content.image(http, name, LARGE, LARGE[1:], tag="large")


def test_a_peer_serves_what_we_pushed(bucket: BucketLab, peer: Program) -> None:
    content = Content()
    with bucket.serving(OURS) as ours:
        push_common(ours, content)
        push_ours(ours, content)
        push_large(ours, content, "library/large")
        content.check(ours)
        with bucket.serving(peer) as theirs:
            content.check(theirs)
    assert not bucket.open_uploads()


def test_we_serve_what_a_peer_pushed(bucket: BucketLab, peer: Program) -> None:
    """A read-only replica of ours too, whose user may Get and List alone: it leaves nothing behind."""
    content = Content()
    with bucket.serving(peer) as theirs:
        push_common(theirs, content, empty=peer.recent)
        push_large(theirs, content, "library/large")
        content.check(theirs)
        with bucket.serving(OURS) as ours:
            content.check(ours)
    before = bucket.objects()
    readonly = bucket.storage(keys=bucket.server.reader, maintenance={"readonly": {"enabled": True}})
    with bucket.serving(OURS, storage=readonly) as ours:
        content.check(ours)
        assert referrers_of(ours, "library/plain", digest_of(b"nothing")) == set()
    assert bucket.objects() == before


@pytest.mark.parametrize("three", [pytest.param(V3, id=V3.name)])
def test_we_serve_the_aliases_of_3(bucket: BucketLab, three: Program) -> None:
    """What is pushed to it as sha512 it stores as sha256, and links by both names."""
    content = Content()
    data, name = noise("alias", 4000), "library/alias"
    with bucket.serving(three) as theirs, bucket.serving(OURS) as ours:
        alias = content.blob(theirs, name, data, "sha512")
        content.of(name).blobs[digest_of(data)] = data
        assert not [key for key in bucket.listed() if key.startswith("blobs/sha512/")]
        content.check(ours)
        content.check(theirs)
        # an alias is never multiplied: its data would go with the sha256 name. So the client sends the bytes
        answered(ours.post(f"/v2/mounted/blobs/uploads/?mount={alias}&from={name}"), 202)
        content.blob(ours, "mounted", data, "sha512")
        assert [key for key in bucket.listed() if key.startswith("blobs/sha512/")]
        content.check(ours)
        content.check(theirs)


def test_both_write_the_same_keys(tmp_path: Path, seaweedfs: S3Server, peer: Program) -> None:
    buckets = {program: BucketLab.new(tmp_path / program.name, seaweedfs) for program in (OURS, peer)}
    for program, own in buckets.items():
        with own.serving(program) as http:
            push_common(http, Content(), empty=peer.recent)
            push_large(http, Content(), "library/large")
    assert buckets[OURS].objects(*FOREIGN) == buckets[peer].objects(*FOREIGN)
    assert not [key for key in buckets[OURS].listed() if "/_uploads/" in key]
    assert not buckets[OURS].open_uploads()


def test_pushes_to_both_in_turns_make_one_registry(bucket: BucketLab, peer: Program) -> None:
    with bucket.serving(OURS) as ours, bucket.serving(peer) as theirs:
        push_in_turns(Content(), ours, theirs)


@pytest.mark.parametrize("large", [False, True], ids=["small", "parts"])
def test_the_same_blob_pushed_to_both_is_one(bucket: BucketLab, peer: Program, large: bool) -> None:
    """Whoever comes second finds it and only links it."""
    data = LARGE if large else noise("small", 5000)
    content = Content()
    with bucket.serving(OURS) as ours, bucket.serving(peer) as theirs:
        content.blob(ours, "first/ours", data)
        content.blob(theirs, "second/theirs", data)
        content.blob(theirs, "first/theirs", data[1:])
        content.blob(ours, "second/ours", data[1:])
        for name in content.held:
            content.image(ours, name, *content.of(name).blobs.values(), tag="t")
        content.check(ours)
        content.check(theirs)
    assert not bucket.open_uploads()


def test_what_we_delete_is_gone_for_the_peer(tmp_path: Path, moto: S3Server, peer: Program) -> None:
    """On moto: SeaweedFS goes on listing a folder whose last object is gone, and 2.8 believes that there is a tag."""
    bucket = BucketLab.new(tmp_path, moto)
    with bucket.serving(OURS) as ours, bucket.serving(peer) as theirs:
        delete_with_ours(Content(), ours, theirs)
    assert not [key for key in bucket.listed() if key.startswith("repositories/a/_manifests/tags/")]


def test_what_a_peer_deletes_is_gone_for_us(bucket: BucketLab, peer: Program) -> None:
    with bucket.serving(OURS) as ours, bucket.serving(peer) as theirs:
        delete_with_theirs(Content(), ours, theirs, tags=peer.recent)


def test_both_send_clients_to_the_same_objects(bucket: BucketLab, peer: Program) -> None:
    content = Content()
    redirecting = bucket.storage(redirects=True)
    with bucket.serving(OURS, storage=redirecting) as ours, bucket.serving(peer, storage=redirecting) as theirs:
        content.image(ours, "by/us", noise("us", 5000), tag="t")
        content.image(theirs, "by/them", noise("them", 5000), tag="t")
        objects = set()
        for name, held in content.held.items():
            for digest, data in held.blobs.items():
                for http in (ours, theirs):
                    sent = answered(http.get(f"/v2/{name}/blobs/{digest}"), 307)
                    objects.add((digest, httpx.URL(sent.headers["Location"]).path))
                    assert httpx.get(sent.headers["Location"], trust_env=False).content == data
        assert len(objects) == len({digest for digest, _ in objects})


# distribution's garbage-collect, for real


def test_their_collector_keeps_all_that_lives(bucket: BucketLab, peer: Program) -> None:
    content = Content()
    with bucket.serving(OURS) as ours:
        push_large(ours, content, "library/large")
        collection = Collection(content, ours)
    before = bucket.objects()
    assert "eligible for deletion" in bucket.garbage_collect(peer)
    check_ours_is_kept(before, bucket.objects())
    with bucket.serving(OURS) as ours, bucket.serving(peer) as theirs:
        collection.check(ours, theirs)


def test_after_our_deletes_their_collector_frees_the_space(bucket: BucketLab, peer: Program) -> None:
    content = Content()
    with bucket.serving(OURS) as ours:
        content.image(ours, "a", noise("both", 100), noise("kept", 100), tag="kept")
        content.image(ours, "a", noise("both", 100), noise("gone", 100), tag="gone")
        content.without_manifest(ours, "a", content.of("a").tags["gone"])
        bucket.garbage_collect(peer)
        del content.of("a").blobs[digest_of(noise("gone", 100))]
        content.check(ours)
        answered(ours.get(f"/v2/a/blobs/{digest_of(noise('gone', 100))}"), 404)
    datas = [key for key in bucket.listed() if key.endswith("/data")]
    assert len(datas) == len(content.of("a").blobs) + len(content.of("a").manifests)


def test_an_upload_in_progress_outlives_the_peers_collector(bucket: BucketLab, peer: Program) -> None:
    """Both kinds: one that is staged, and one that goes to its key at once, whose collector comes half-way."""
    content = Content()
    with bucket.serving(OURS) as ours:
        content.image(ours, "a", noise("a", 1000), tag="t")
        location = answered(ours.post("/v2/a/blobs/uploads/"), 202).headers["Location"]
        location = answered(ours.patch(location, content=LARGE[:7_000_000]), 202).headers["Location"]
        bucket.garbage_collect(peer)
        location = answered(ours.patch(location, content=LARGE[7_000_000:]), 202).headers["Location"]
        answered(ours.put(with_query(location, digest=digest_of(LARGE))), 201)
        check_blob(ours, "a", digest_of(LARGE), LARGE)

        direct, opened = LARGE[1:], list[str]()
        with collected_half_way(bucket, peer, direct, opened) as pieces:
            answered(
                ours.post(
                    f"/v2/a/blobs/uploads/?digest={digest_of(direct)}",
                    content=pieces,
                    headers={"Content-Length": str(len(direct))},
                ),
                201,
            )
        assert [key for key in opened if key.startswith("blobs/sha256/")]
        check_blob(ours, "a", digest_of(direct), direct)
        content.check(ours)
    assert not bucket.open_uploads()


@contextmanager
def collected_half_way(bucket: BucketLab, peer: Program, data: bytes, opened: list[str]) -> Iterator[Iterator[bytes]]:
    """data in two halves; between them the peer's collector runs. opened: the uploads that it met."""

    def pieces() -> Iterator[bytes]:
        half = len(data) - 1_000_000
        yield data[:half]
        deadline = time.monotonic() + 30
        while not opened and time.monotonic() < deadline:  # what was sent has still to be received
            opened.extend(bucket.open_uploads())
        bucket.garbage_collect(peer)
        yield data[half:]

    yield pieces()

"""Tests of the seeded stores: a registry serves what was written, and nothing else was assumed of the layout."""

from pathlib import Path

from benchmarks.store import Blob, Store, blocks, small_image
from storage import layout
from storage.digest import Digest
from storage.names import parse_name, parse_tag


def test_blobs_and_links(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    blob = store.add_blob("a/b", blocks(3_000_000))
    digest = Digest.parse(blob.digest)
    content = (store.root / layout.blob_data(digest)).read_bytes()
    assert Blob.of(content) == blob
    assert blob.size == 3_000_000
    assert (store.root / layout.layer_link(parse_name("a/b"), digest)).read_text() == blob.digest


def test_every_tag_names_the_manifest(tmp_path: Path) -> None:
    store = Store(tmp_path)
    manifest = small_image(store, "a/b", "v1", "v2")
    for tag in ("v1", "v2"):
        assert (tmp_path / layout.tag_link(parse_name("a/b"), parse_tag(tag))).read_text() == manifest.digest


def test_what_was_pushed_is_dropped_and_small_blobs_stay(tmp_path: Path) -> None:
    store = Store(tmp_path)
    large, small = store.add_blob("a", bytes(2000)), store.add_blob("a", b"small")
    store.drop_pushed(1000)
    assert not (tmp_path / layout.blob_data(Digest.parse(large.digest))).exists()
    assert (tmp_path / layout.blob_data(Digest.parse(small.digest))).exists()


def test_blocks_differ_from_each_other() -> None:
    made = list(blocks(2_500_000))
    assert len(set(made)) == 3
    assert sum(map(len, made)) == 2_500_000

"""The table of blobs, what a manifest names, and work side by side: the parts of the collector that need no store."""

import json
import tracemalloc

import pytest

from storage.digest import Digest
from storage.garbage.named import named_digests
from storage.garbage.table import FRESH, SWEPT, BlobTable

ONE, TWO = Digest.of(b"1"), Digest.of(b"2")
STRONG = Digest.of(b"1", "sha512")


def table_of(*digests: Digest, with_sizes: bool = False) -> BlobTable:
    table = BlobTable(with_sizes=with_sizes)
    for digest in sorted(digests):
        table.add(digest, len(digest.hex))
    return table


def test_marks() -> None:
    table = table_of(ONE, TWO, STRONG)
    place = table.find(STRONG)
    assert place is not None
    assert table.mark(place)
    assert not table.mark(place)
    assert table.mark(place, SWEPT)
    assert table.is_marked(place, FRESH | SWEPT)
    assert not table.is_marked(place, FRESH)
    assert [table.needs(digest) for digest in (ONE, TWO, STRONG, Digest.of(b"3"))] == [False, False, True, False]
    assert table.find(Digest.of(b"3")) is None
    assert len(table) == 3


def test_sizes() -> None:
    table = table_of(ONE, STRONG, with_sizes=True)
    assert [table.size(place) for d in (ONE, STRONG) if (place := table.find(d)) is not None] == [64, 128]
    without = table_of(ONE)
    place = without.find(ONE)
    assert place is not None
    with pytest.raises(ValueError, match="no sizes"):
        without.size(place)


def test_namesakes_live_and_die_together() -> None:
    """Two blobs whose digests begin alike: one keeps the other, and never the other way round."""
    first, second = Digest("sha256", "ab" * 8 + "0" * 48), Digest("sha256", "ab" * 8 + "1" * 48)
    table = table_of(first, second)
    place = table.find(second)
    assert place is not None
    table.mark(place)
    assert table.needs(first)


def test_blobs_come_in_order() -> None:
    table = table_of(ONE, TWO)
    with pytest.raises(ValueError, match="in order"):
        table.add(Digest("sha256", "0" * 64), 1)


@pytest.mark.slow
@pytest.mark.parametrize(("with_sizes", "most"), [(False, 10.5), (True, 19.5)])
def test_bytes_for_each_blob(with_sizes: bool, most: float) -> None:
    """docs/operations.md: 9, and 17 for the doctor; a growing array has some room to spare."""
    count = 50_000
    tracemalloc.start()
    try:
        table = BlobTable(with_sizes=with_sizes)
        for number in range(count):
            table.add(Digest("sha256", f"{number:016x}{0:048x}"), number)
        assert tracemalloc.get_traced_memory()[0] / count < most
    finally:
        tracemalloc.stop()
    assert len(table) == count


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"layers": [{"digest": str(ONE)}], "config": {"digest": str(STRONG)}}),
        json.dumps({"fsLayers": [{"blobSum": str(ONE)}], "what": {"ever": [[str(STRONG)]]}}),
        f'{{"config": "{ONE}", "config": "{STRONG}"}}',
        f"neither {ONE} nor {STRONG}, but no JSON",
        f'{{"a": "{str(ONE).replace(":", chr(92) + "u003a")}", "b": "{STRONG}"}}',
        f'{{"size": {"9" * 5000}, "a": "{ONE}", "b": "{STRONG}"}}',
        "[" * 200_000 + f'"{ONE}", "{STRONG}"',
    ],
    ids=["image", "anything", "twice", "text", "escaped", "long number", "deep"],
)
def test_what_a_manifest_names(body: str) -> None:
    assert named_digests(body.encode()) == {ONE, STRONG}


def test_what_it_does_not_name() -> None:
    body = {
        "subject": {"digest": str(ONE)},
        "Subject": {"digest": str(ONE)},
        "annotations": {"org.opencontainers.image.base.digest": str(ONE)},
        "manifests": [{"digest": str(TWO), "annotations": {"x": str(ONE)}}],
        "text": f"see {ONE}",
        "id": "sha256:short",
    }
    assert named_digests(json.dumps(body).encode()) == {TWO}
    assert named_digests(b"") == frozenset()

"""A cache that is far too small, under pulls, pushes and evictors that are killed: on a folder and on a bucket.

CNCF distribution is the upstream; see tests/eviction_load.py.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.eviction_load import Load, put_under_load
from tests.s3.servers import S3Server

from .peers import V3, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SECONDS = 60.0


def loaded(folder: Path, grace: str, **more: Any) -> Load:
    load = asyncio.run(put_under_load(folder, SECONDS, clients=6, seed=3, grace=grace, **more))
    print(*(f"{what}: {count}" for what, count in sorted(load.counts.items())), sep="\n")
    return load


def check(load: Load) -> None:
    assert load.lost == []
    for what in ("blobs evicted", "manifests evicted", "evictors killed", "images pushed", "images pulled"):
        assert load.counts[what] > 3, what


@pytest.mark.parametrize("upstream", [pytest.param(V3, id=V3.name)])
def test_on_a_folder(upstream: Program, tmp_path: Path) -> None:
    check(loaded(tmp_path, "4s"))


@pytest.mark.parametrize("upstream", [pytest.param(V3, id=V3.name)])
@pytest.mark.parametrize("redirects", [True, False])
def test_on_a_bucket(upstream: Program, seaweedfs: S3Server, tmp_path: Path, redirects: bool) -> None:
    """Redirects are followed to objects that an evictor may delete."""
    bucket, root = seaweedfs.new_root()
    storage = {
        "s3": seaweedfs.parameters(bucket, root),
        "redirect": {"disable": not redirects},
        "delete": {"enabled": True},
    }
    check(loaded(tmp_path, "12s", storage=storage))

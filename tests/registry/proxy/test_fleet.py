"""F36: 200 clients on one uncached blob, real processes: one question upstream, all whole, little memory.

Small for `make test`; MOORAGE_FLEET=268435456 (bytes) for the size that fleets have.
"""

import os
from pathlib import Path

import pytest

from tests.security.process import serving

from .fleet import SIZE, check, pushed

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [1, 2])
def test_many_clients_one_question(tmp_path: Path, workers: int) -> None:
    data = os.urandom(SIZE)
    (tmp_path / "upstream").mkdir()
    with serving(
        tmp_path / "upstream", {"storage": {"filesystem": {"rootdirectory": str(tmp_path / "hosted")}}}
    ) as upstream:
        pushed(upstream.url, data)
        check(upstream.url, tmp_path / "cache", data, workers)

"""A pytest fixture for other projects: a running registry.

    def test_push(oci_registry):
        subprocess.run(["crane", "copy", source, f"{oci_registry.host}:{oci_registry.port}/a/b:v1"], check=True)

Installed with the package and found by pytest by itself. Nothing is imported before a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# the driver contract that the package ships fails with explanations, as tests do
pytest.register_assert_rewrite("storage.testing")

if TYPE_CHECKING:
    from registry.serving.server import RunningServer


@pytest.fixture
def oci_registry() -> Iterator[RunningServer]:
    """An empty registry in memory, in a thread, on a free port of localhost, with deletes on; gone after the test."""
    from registry.app import create_app
    from registry.config import Config
    from registry.config.model import DeleteConfig, StorageConfig
    from registry.serving.server import running

    storage = StorageConfig(driver="inmemory", parameters={}, delete=DeleteConfig(enabled=True))
    config = Config(storage=storage)
    with running(create_app(config), config) as server:
        yield server

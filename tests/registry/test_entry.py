"""Whom root becomes in the image. That it happens is seen in a container: tests/image."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from registry import entry
from registry.config import Config
from registry.config.model import HTTPConfig, StorageConfig


def over(folder: Path) -> Config:
    return Config(storage=StorageConfig(driver="filesystem", parameters={"rootdirectory": str(folder)}))


def test_the_folder_is_the_closest_that_exists(tmp_path: Path) -> None:
    assert entry.store_folder(over(tmp_path)) == tmp_path
    assert entry.store_folder(over(tmp_path / "not" / "yet")) == tmp_path


def test_a_store_that_is_no_folder() -> None:
    config = Config(storage=StorageConfig(driver="s3", parameters={"bucket": "images", "rootdirectory": "/folder"}))
    assert entry.store_folder(config) is None
    assert entry.capabilities(config, 0, None) == frozenset()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to others")
def test_the_tree_says_who_wrote(tmp_path: Path) -> None:
    os.chown(tmp_path, 4711, 4712)
    assert entry.owner(tmp_path) == (4711, 4712)
    (tmp_path / entry.TREE).mkdir(parents=True)
    assert entry.owner(tmp_path) == (0, 0)
    assert entry.capabilities(Config(), 0, tmp_path) == {entry.CAP_DAC_OVERRIDE}
    assert entry.capabilities(Config(), 4711, tmp_path) == frozenset()


@pytest.mark.parametrize(
    ("http", "kept"),
    [
        (HTTPConfig(addr=":443"), {entry.CAP_NET_BIND_SERVICE}),
        (HTTPConfig(addr="[::1]:1023"), {entry.CAP_NET_BIND_SERVICE}),
        (HTTPConfig(addr=":1024"), set()),
        (HTTPConfig(addr=":0"), set()),
        (HTTPConfig(net="unix", addr="/run/a:1"), set()),
    ],
)
def test_ports_that_are_roots(
    http: HTTPConfig, kept: set[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(entry, "_first_free_port", lambda: 1024)
    assert entry.capabilities(replace(Config(), http=http), os.getuid(), tmp_path) == kept

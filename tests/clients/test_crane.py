"""crane: what build pipelines use; it also validates a pushed image layer by layer."""

import json
import tarfile
from pathlib import Path

import pytest

from .api import Registry
from .images import GREETING, HERE, OTHER, Layout, sha256
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients


def crane(shell: Shell, *arguments: str | Path) -> str:
    """Run crane; it speaks plain HTTP to localhost unasked."""
    return shell("crane", *arguments).out.strip()


def test_push_and_pull_index(
    shell: Shell, registry: Registry, repository: str, layout: Layout, published: str, folder: Path
) -> None:
    image = f"{registry.host}/{repository}:all"
    # The whole layout goes as one index: two images, and the index of both again, nested.
    pushed = sha256((layout.path / "index.json").read_bytes())
    assert crane(shell, "push", "--index", layout.path, image) == f"{registry.host}/{repository}@{pushed}"
    assert registry.check_complete(repository, "all") == pushed
    assert crane(shell, "digest", image) == pushed
    crane(shell, "validate", "--remote", image)

    crane(shell, "pull", "--format", "oci", f"{registry.host}/{published}:multi", folder)
    assert layout.has_copy(folder, "multi")


def test_pull_one_platform(shell: Shell, registry: Registry, layout: Layout, published: str, folder: Path) -> None:
    image = f"{registry.host}/{published}:multi"
    assert crane(shell, "digest", "--platform", f"linux/{OTHER}", image) == layout.digests[OTHER]
    assert crane(shell, "digest", image) == layout.digests["multi"]
    assert json.loads(crane(shell, "config", "--platform", f"linux/{OTHER}", image))["architecture"] == OTHER
    crane(shell, "pull", "--platform", f"linux/{HERE}", image, folder / "image.tar")
    crane(shell, "validate", "--tarball", folder / "image.tar")
    crane(shell, "export", "--platform", f"linux/{HERE}", image, folder / "files.tar")
    with tarfile.open(folder / "files.tar") as files:
        greeting, random = files.extractfile("greeting"), files.extractfile("random.bin")
        assert greeting is not None
        assert random is not None
        assert greeting.read() == GREETING.encode()
        assert sha256(random.read()) == layout.random_digest


def test_copy_tag_list(shell: Shell, registry: Registry, repository: str, layout: Layout, published: str) -> None:
    image = f"{registry.host}/{repository}"
    crane(shell, "copy", f"{registry.host}/{published}:multi", f"{image}:one")
    crane(shell, "tag", f"{image}:one", "two")
    for tag in ("one", "two"):
        assert registry.check_complete(repository, tag) == layout.digests["multi"]
    assert crane(shell, "ls", image).splitlines() == registry.tags(repository) == ["one", "two"]
    assert repository in crane(shell, "catalog", registry.host).splitlines()

    crane(shell, "copy", "--all-tags", image, f"{image}/all")
    assert registry.tags(f"{repository}/all") == ["one", "two"]
    assert registry.check_complete(f"{repository}/all", "two") == layout.digests["multi"]


def test_change_and_index(shell: Shell, registry: Registry, repository: str, published: str) -> None:
    source, image = f"{registry.host}/{published}", f"{registry.host}/{repository}"
    changed = crane(shell, "mutate", "--label", "changed=yes", "--tag", f"{image}:changed", f"{source}:{HERE}")
    assert registry.check_complete(repository, "changed") == changed.partition("@")[2]
    assert json.loads(crane(shell, "config", f"{image}:changed"))["config"]["Labels"]["changed"] == "yes"

    parts = ("--manifest", f"{image}:changed", "--manifest", f"{source}:{OTHER}")
    crane(shell, "index", "append", *parts, "--tag", f"{image}:multi")
    assert registry.check_complete(repository, "multi") == crane(shell, "digest", f"{image}:multi")
    platforms = {m["platform"]["architecture"] for m in registry.manifest(repository, "multi").json["manifests"]}
    assert platforms == {HERE, OTHER}


def test_delete(shell: Shell, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE)
    image = f"{registry.host}/{repository}"
    crane(shell, "delete", f"{image}@{layout.digests[HERE]}")
    assert not registry.has(repository, layout.digests[HERE])
    assert "MANIFEST_UNKNOWN" in shell.refused("crane", "manifest", f"{image}:{HERE}").err


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, layout: Layout, folder: Path) -> None:
    image = f"{secured.host}/{repository}:all"
    trusted = {"SSL_CERT_FILE": str(secured.authority)}  # crane has no option for it
    push = ("push", "--index", layout.path, image)
    assert "401 Unauthorized" in fresh_shell.refused("crane", *push, env=trusted).err
    login = ("auth", "login", secured.host, "--username", USER, "--password-stdin")
    fresh_shell("crane", *login, env=trusted, stdin=PASSWORD.encode())
    fresh_shell("crane", *push, env=trusted)
    assert secured.registry.check_complete(repository, "all") == sha256((layout.path / "index.json").read_bytes())
    fresh_shell("crane", "validate", "--remote", image, env=trusted)
    assert "certificate" in fresh_shell.refused("crane", "digest", image).err

"""skopeo: copies between a layout on disk, a folder and repositories."""

import json
from pathlib import Path

import pytest

from .api import Registry
from .images import DOCKER_LIST, DOCKER_MANIFEST, HERE, OTHER, Layout, sha256
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients

PLAIN_SOURCE = "--src-tls-verify=false"
PLAIN_TARGET = "--dest-tls-verify=false"
PLAIN = "--tls-verify=false"


def test_copy_index_in_and_out(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    image = f"docker://{registry.host}/{repository}:multi"
    shell("skopeo", "copy", "--all", "--preserve-digests", PLAIN_TARGET, f"oci:{layout.path}:multi", image)
    assert registry.check_complete(repository, "multi") == layout.digests["multi"]
    raw = shell("skopeo", "inspect", "--raw", PLAIN, image).out
    assert sha256(raw.encode()) == layout.digests["multi"]
    assert json.loads(shell("skopeo", "inspect", PLAIN, image).out)["Digest"] == layout.digests["multi"]

    shell("skopeo", "copy", "--all", "--preserve-digests", PLAIN_SOURCE, image, f"oci:{folder}:multi")
    assert layout.has_copy(folder, "multi")


def test_copy_between_repositories(
    shell: Shell, registry: Registry, repository: str, published: str, layout: Layout
) -> None:
    source, target = (f"docker://{registry.host}/{name}" for name in (published, repository))
    plain = ("--preserve-digests", PLAIN_SOURCE, PLAIN_TARGET)
    shell("skopeo", "copy", "--all", *plain, f"{source}:multi", f"{target}:multi")
    assert registry.check_complete(repository, "multi") == layout.digests["multi"]
    shell("skopeo", "copy", *plain, f"{source}@{layout.digests[OTHER]}", f"{target}:one")
    assert registry.check_complete(repository, "one") == layout.digests[OTHER]


def test_docker_format(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    image = f"docker://{registry.host}/{repository}:v2s2"
    digest_file = folder / "digest"
    as_docker = ("--all", "--format", "v2s2", "--digestfile", digest_file, PLAIN_TARGET)
    shell("skopeo", "copy", *as_docker, f"oci:{layout.path}:multi", image)
    assert registry.check_complete(repository, "v2s2") == digest_file.read_text()
    index = registry.manifest(repository, "v2s2")
    assert index.media_type == DOCKER_LIST
    for child in index.json["manifests"]:
        assert registry.manifest(repository, child["digest"]).media_type == DOCKER_MANIFEST

    shell("skopeo", "copy", PLAIN_SOURCE, image, f"dir:{folder}/dir")  # the one for this machine
    [here] = [m["digest"] for m in index.json["manifests"] if m["platform"]["architecture"] == HERE]
    assert sha256((folder / "dir" / "manifest.json").read_bytes()) == here


def test_sync_tags_delete(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    registry.push_layout(repository, layout, HERE, OTHER)
    image = f"{registry.host}/{repository}"
    tags = json.loads(shell("skopeo", "list-tags", PLAIN, f"docker://{image}").out)["Tags"]
    assert sorted(tags) == sorted([HERE, OTHER])
    shell("skopeo", "sync", "--src", "docker", "--dest", "dir", "--all", PLAIN_SOURCE, image, folder)
    found = {sha256(path.read_bytes()) for path in folder.rglob("manifest.json")}
    assert found == {layout.digests[HERE], layout.digests[OTHER]}

    shell("skopeo", "delete", PLAIN, f"docker://{image}:{OTHER}")
    assert not registry.has(repository, layout.digests[OTHER])
    assert registry.tags(repository) == [HERE]
    assert "manifest unknown" in shell.refused("skopeo", "inspect", PLAIN, f"docker://{image}:{OTHER}").err


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, layout: Layout, folder: Path) -> None:
    image = f"docker://{secured.host}/{repository}:{HERE}"
    login = ("--username", USER, "--password-stdin", "--cert-dir", secured.certificates, secured.host)
    fresh_shell("skopeo", "login", *login, stdin=PASSWORD.encode())
    copy = ("copy", "--preserve-digests")
    fresh_shell("skopeo", *copy, "--dest-cert-dir", secured.certificates, f"oci:{layout.path}:{HERE}", image)
    assert secured.registry.check_complete(repository, HERE) == layout.digests[HERE]
    fresh_shell("skopeo", *copy, "--src-cert-dir", secured.certificates, image, f"oci:{folder}/clean:{HERE}")
    assert layout.has_copy(folder / "clean", HERE)
    assert "certificate" in fresh_shell.refused("skopeo", "inspect", image).err
    fresh_shell("skopeo", "logout", secured.host)
    refused = fresh_shell.refused("skopeo", "inspect", "--cert-dir", secured.certificates, image)
    assert "unauthorized" in refused.err

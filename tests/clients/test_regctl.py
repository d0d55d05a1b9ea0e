"""regctl: copies, indexes, artifacts, tag deletes, sha512."""

import json
from pathlib import Path

import pytest

from .api import Registry
from .images import HERE, OTHER, Layout
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients

SBOM = "application/vnd.example.sbom"


class Regctl:
    """The regctl command, told to speak plain HTTP to the registry under test."""

    def __init__(self, shell: Shell, registry: Registry) -> None:
        self._shell = shell
        self("registry", "set", "--tls", "disabled", registry.host)

    def __call__(self, *arguments: str | Path, stdin: bytes = b"") -> str:
        return self._shell("regctl", *arguments, stdin=stdin).out.strip()

    def refused(self, *arguments: str | Path) -> str:
        return self._shell.refused("regctl", *arguments).err


@pytest.fixture
def regctl(fresh_shell: Shell, registry: Registry) -> Regctl:
    return Regctl(fresh_shell, registry)


def test_copy_index_in_and_out(
    regctl: Regctl, registry: Registry, repository: str, layout: Layout, folder: Path
) -> None:
    image = f"{registry.host}/{repository}:multi"
    regctl("image", "copy", f"ocidir://{layout.path}:multi", image)
    assert registry.check_complete(repository, "multi") == layout.digests["multi"]
    assert regctl("image", "digest", image) == layout.digests["multi"]
    assert regctl("image", "digest", "--platform", f"linux/{OTHER}", image) == layout.digests[OTHER]
    assert regctl("manifest", "head", image) == layout.digests["multi"]

    regctl("image", "copy", image, f"{registry.host}/{repository}/copy:multi")
    assert registry.check_complete(f"{repository}/copy", "multi") == layout.digests["multi"]
    regctl("image", "copy", f"{registry.host}/{repository}/copy:multi", f"ocidir://{folder}/clean:multi")
    assert layout.has_copy(folder / "clean", "multi")


def test_artifacts(regctl: Regctl, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE)
    subject, image = layout.digests[HERE], f"{registry.host}/{repository}:{HERE}"
    put = (
        "artifact",
        "put",
        "--artifact-type",
        SBOM,
        "--subject",
        image,
        "--format",
        "{{.Manifest.GetDescriptor.Digest}}",
    )
    digest = regctl(*put, stdin=b'{"packages": []}')
    assert registry.check_complete(repository, digest) == digest
    assert [entry["digest"] for entry in registry.referrers(repository, subject)] == [digest]
    listed = json.loads(regctl("artifact", "list", "--filter-artifact-type", SBOM, "--format", "{{json .}}", image))
    assert [entry["digest"] for entry in listed["descriptors"]] == [digest]
    assert digest in regctl("artifact", "tree", image)
    assert regctl("artifact", "get", "--subject", image, "--filter-artifact-type", SBOM) == '{"packages": []}'
    if registry.has_referrers_api():
        assert registry.tags(repository) == [HERE]  # no list under a tag: the registry told that it keeps one

    target = f"{repository}/target"
    regctl("image", "copy", "--referrers", image, f"{registry.host}/{target}:{HERE}")
    assert [entry["digest"] for entry in registry.referrers(target, subject)] == [digest]
    # --referrers matters with a registry without the referrers API only: regctl then edits the list under the tag.
    regctl("manifest", "delete", "--referrers", f"{registry.host}/{repository}@{digest}")
    assert registry.referrers(repository, subject) == []


def test_make_index(regctl: Regctl, registry: Registry, repository: str, published: str, layout: Layout) -> None:
    image = f"{registry.host}/{repository}:multi"
    parts = [option for name in (HERE, OTHER) for option in ("--ref", f"{registry.host}/{published}:{name}")]
    regctl("index", "create", *parts, image)
    assert registry.check_complete(repository, "multi") == regctl("image", "digest", image)
    children = {entry["digest"] for entry in registry.manifest(repository, "multi").json["manifests"]}
    assert children == {layout.digests[HERE], layout.digests[OTHER]}


def test_tags(regctl: Regctl, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE, OTHER)
    image = f"{registry.host}/{repository}"
    regctl("image", "copy", f"{image}:{HERE}", f"{image}:again")
    assert regctl("tag", "ls", image).split() == sorted([HERE, OTHER, "again"])
    assert repository in regctl("repo", "ls", registry.host).split()

    regctl("tag", "delete", f"{image}:again")  # the tag alone: its manifest has another one
    assert registry.tags(repository) == sorted([HERE, OTHER])
    assert registry.digest(repository, HERE) == layout.digests[HERE]
    regctl("manifest", "delete", f"{image}@{layout.digests[OTHER]}")
    assert registry.tags(repository) == [HERE]
    assert "not found" in regctl.refused("manifest", "get", f"{image}:{OTHER}")


def test_sha512(regctl: Regctl, registry: Registry, repository: str, published: str) -> None:
    if not registry.has_referrers_api():
        pytest.skip("the registry is not ours and older than OCI 1.1: CNCF distribution answers sha512 as sha256")
    image = f"{registry.host}/{repository}:sha512"
    regctl("image", "mod", "--digest-algo", "sha512", "--create", image, f"{registry.host}/{published}:multi")
    digest = regctl("image", "digest", image)
    assert registry.check_complete(repository, "sha512") == digest
    for child in registry.manifest(repository, "sha512").json["manifests"]:
        image_manifest = registry.manifest(repository, child["digest"]).json
        layers = [layer["digest"] for layer in image_manifest["layers"]]
        for each in (digest, child["digest"], image_manifest["config"]["digest"], *layers):
            assert each.startswith("sha512:")


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, layout: Layout, folder: Path) -> None:
    image = f"{secured.host}/{repository}:multi"
    fresh_shell("regctl", "registry", "set", "--skip-check", "--cacert", secured.authority.read_text(), secured.host)
    copy = ("image", "copy", f"ocidir://{layout.path}:multi", image)
    assert "unauthorized" in fresh_shell.refused("regctl", *copy).err
    login = ("registry", "login", "--user", USER, "--pass-stdin", secured.host)
    fresh_shell("regctl", *login, stdin=PASSWORD.encode())
    fresh_shell("regctl", *copy)
    assert secured.registry.check_complete(repository, "multi") == layout.digests["multi"]
    fresh_shell("regctl", "image", "copy", image, f"ocidir://{folder}/clean:multi")
    assert layout.has_copy(folder / "clean", "multi")

"""oras: files as artifacts, referrers, recursive copies."""

import json
from pathlib import Path
from typing import Any

import pytest

from .api import Registry
from .images import HERE, Layout
from .secured import PASSWORD, USER, Secured
from .shell import CommandFailed, Shell

pytestmark = pytest.mark.clients

PLAIN = "--plain-http"
SBOM = "application/vnd.example.sbom"
SIGNATURE = "application/vnd.example.signature"


def oras(shell: Shell, *arguments: str | Path) -> dict[str, Any]:
    """Run an oras command that can answer in JSON."""
    said: dict[str, Any] = json.loads(shell("oras", *arguments, PLAIN, "--format", "json").out)
    return said


def referrers_mode(registry: Registry) -> str:
    """Pin how oras finds referrers, so that it does not fall back silently to tags."""
    return "--distribution-spec=v1.1-referrers-" + ("api" if registry.has_referrers_api() else "tag")


def test_push_and_pull_files(shell: Shell, registry: Registry, repository: str, folder: Path) -> None:
    files = {"notes.txt": b"hello\n", "empty.bin": b"", "large.bin": bytes(range(256)) * 40_000}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    image = f"{registry.host}/{repository}"
    typed = [f"{name}:application/vnd.example.{name.rpartition('.')[2]}" for name in files]
    push = ("push", PLAIN, "--format", "json", "--artifact-type", SBOM, f"{image}:v1", *typed)
    digest = json.loads(shell("oras", *push, cwd=folder).out)["digest"]
    assert registry.check_complete(repository, "v1") == digest
    assert registry.manifest(repository, "v1").json["artifactType"] == SBOM
    assert shell("oras", "resolve", PLAIN, f"{image}:v1").out.strip() == digest

    shell("oras", "pull", PLAIN, "--output", folder / "clean", f"{image}@{digest}")
    assert {path.name: path.read_bytes() for path in (folder / "clean").iterdir()} == files


def test_attach_list_delete(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    registry.push_layout(repository, layout, HERE)
    subject, image = layout.digests[HERE], f"{registry.host}/{repository}:{HERE}"
    mode = referrers_mode(registry)
    (folder / "sbom.json").write_text('{"packages": []}')
    file = f"{folder}/sbom.json:application/json"
    attached = {
        kind: oras(shell, "attach", mode, "--disable-path-validation", "--artifact-type", kind, image, file)["digest"]
        for kind in (SBOM, SIGNATURE)
    }
    assert {entry["digest"] for entry in registry.referrers(repository, subject)} == set(attached.values())
    for kind, digest in attached.items():
        assert registry.check_complete(repository, digest) == digest
        found = oras(shell, "discover", mode, "--artifact-type", kind, image)
        assert [entry["digest"] for entry in found["referrers"]] == [digest]
        assert [entry["artifactType"] for entry in found["referrers"]] == [kind]

    if registry.has_referrers_api():
        # The answer to the push named the subject, so oras had no reason to keep a list under a tag.
        assert registry.tags(repository) == [HERE]
    shell("oras", "manifest", "delete", PLAIN, "--force", mode, f"{registry.host}/{repository}@{attached[SBOM]}")
    assert not registry.has(repository, attached[SBOM])
    assert [entry["digest"] for entry in registry.referrers(repository, subject)] == [attached[SIGNATURE]]


def test_copy_with_referrers(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    source, target = f"{repository}/source", f"{repository}/target"
    mode = referrers_mode(registry).removeprefix("--distribution-spec=")
    both = (f"--from-distribution-spec={mode}", f"--to-distribution-spec={mode}")
    plain = ("--from-plain-http", "--to-plain-http")
    shell(
        "oras", "cp", "--from-oci-layout", "--to-plain-http", f"{layout.path}:multi", f"{registry.host}/{source}:multi"
    )
    assert registry.check_complete(source, "multi") == layout.digests["multi"]
    (folder / "note").write_text("a note\n")
    attach = ("attach", referrers_mode(registry), "--disable-path-validation", "--artifact-type", SBOM)
    note = oras(shell, *attach, f"{registry.host}/{source}:multi", f"{folder}/note")["digest"]

    shell(
        "oras", "cp", "--recursive", *both, *plain, f"{registry.host}/{source}:multi", f"{registry.host}/{target}:multi"
    )
    assert registry.check_complete(target, "multi") == layout.digests["multi"]
    assert [entry["digest"] for entry in registry.referrers(target, layout.digests["multi"])] == [note]

    clean = folder / "clean"
    shell("oras", "cp", "--from-plain-http", "--to-oci-layout", f"{registry.host}/{target}:multi", f"{clean}:multi")
    assert layout.has_copy(clean, "multi")


def test_list_and_delete(shell: Shell, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE, "multi")
    image = f"{registry.host}/{repository}"
    assert sorted(shell("oras", "repo", "tags", PLAIN, image).out.split()) == sorted([HERE, "multi"])
    assert repository in shell("oras", "repo", "ls", PLAIN, registry.host).out.split()
    shell("oras", "tag", PLAIN, f"{image}:{HERE}", "renamed")
    assert registry.digest(repository, "renamed") == layout.digests[HERE]

    shell("oras", "manifest", "delete", PLAIN, "--force", f"{image}:multi")
    assert registry.tags(repository) == sorted([HERE, "renamed"])
    config = layout.manifest(HERE)["config"]["digest"]
    assert shell("oras", "blob", "fetch", PLAIN, "--output", "-", f"{image}@{config}").out.encode() == layout.blob(
        config
    )
    shell("oras", "blob", "delete", PLAIN, "--force", f"{image}@{config}")
    assert registry.status(f"/v2/{repository}/blobs/{config}") == 404


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, folder: Path) -> None:
    image, trusted = f"{secured.host}/{repository}:v1", ("--ca-file", secured.authority)
    (folder / "notes.txt").write_text("hello\n")
    push = ("oras", "push", *trusted, "--format", "json", "--artifact-type", SBOM, image, "notes.txt")
    with pytest.raises(CommandFailed, match=r"basic credential not found|401"):
        fresh_shell(*push, cwd=folder)
    login = ("login", *trusted, "--username", USER, "--password-stdin", secured.host)
    fresh_shell("oras", *login, stdin=PASSWORD.encode())
    digest = json.loads(fresh_shell(*push, cwd=folder).out)["digest"]
    assert secured.registry.check_complete(repository, "v1") == digest
    fresh_shell("oras", "pull", *trusted, "--output", folder / "clean", image)
    assert (folder / "clean" / "notes.txt").read_text() == "hello\n"
    assert "certificate" in fresh_shell.refused("oras", "resolve", image).err

"""podman: build, push, pull, run; manifest lists; search over the catalogue."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from .api import Registry
from .containers import PLAIN, ContainersTool
from .images import GREETING, HERE, OTHER, Layout, write_context
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients


def podman_in(shell: Shell, folder: Path) -> ContainersTool:
    """podman that keeps everything in the folder."""
    # Without systemd there is neither its cgroup manager nor its journal.
    no_systemd = ("--cgroup-manager", "cgroupfs", "--events-backend", "none")
    return ContainersTool(shell, "podman", folder / "podman", *no_systemd, "--tmpdir", str(folder / "libpod"))


@pytest.fixture
def podman(fresh_shell: Shell, folder: Path) -> Iterator[ContainersTool]:
    podman = podman_in(fresh_shell, folder)
    yield podman
    podman.forget_everything()


def run(podman: ContainersTool, image: str, *command: str) -> str:
    # podman raises both limits for a container, which a root without CAP_SYS_RESOURCE (a CI machine) may not.
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024")
    return podman("run", "--rm", "--network", "none", *limits, image, *command).out


def test_build_push_pull_run(podman: ContainersTool, registry: Registry, repository: str, folder: Path) -> None:
    random_digest = write_context(folder / "context")
    image = f"{registry.host}/{repository}:v1"
    podman("build", "--network", "none", "--tag", image, folder / "context")
    pushed = podman.push(image)
    assert registry.check_complete(repository, "v1") == pushed

    podman.forget_everything()
    assert podman.pull(image) == pushed
    assert run(podman, image) == GREETING
    assert run(podman, image, "sha256sum", "/random.bin").split()[0] == random_digest.removeprefix("sha256:")
    podman.forget_everything()
    assert podman.pull(f"{registry.host}/{repository}@{pushed}") == pushed


def test_pull_index(podman: ContainersTool, registry: Registry, published: str, layout: Layout) -> None:
    image = f"{registry.host}/{published}:multi"
    podman.pull(image)
    assert run(podman, image, "cat", "/platform") == f"linux/{HERE}\n"
    names = podman("image", "inspect", "--format", "{{json .RepoDigests}}", image).out
    assert f"{registry.host}/{published}@{layout.digests['multi']}" in json.loads(names)


def test_push_manifest_list(
    podman: ContainersTool, registry: Registry, repository: str, published: str, layout: Layout
) -> None:
    image = f"{registry.host}/{repository}:multi"
    podman("manifest", "create", image)
    for architecture in (HERE, OTHER):
        podman("manifest", "add", PLAIN, image, f"docker://{registry.host}/{published}:{architecture}")
    pushed = podman.push_list(image)
    assert registry.check_complete(repository, "multi") == pushed
    children = {entry["digest"] for entry in registry.manifest(repository, "multi").json["manifests"]}
    assert children == {layout.digests[HERE], layout.digests[OTHER]}


def test_search_and_delete(podman: ContainersTool, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE)
    image = f"{registry.host}/{repository}"
    found = json.loads(podman("search", "--list-tags", "--format", "json", PLAIN, image).out)
    assert found == [{"Name": image, "Tags": [HERE]}]
    assert image in podman("search", "--format", "{{.Name}}", PLAIN, image).out.split()  # reads /v2/_catalog

    registry.delete(repository, layout.digests[HERE])  # podman itself has no command for it
    assert "manifest unknown" in podman.refused("pull", PLAIN, f"{image}:{HERE}").err


def test_login_over_tls(podman: ContainersTool, secured: Secured, repository: str, folder: Path) -> None:
    write_context(folder / "context")
    image, trusted = f"{secured.host}/{repository}:v1", ("--cert-dir", str(secured.certificates))
    podman("build", "--network", "none", "--tag", image, folder / "context")
    podman.refused("push", *trusted, image)
    podman.login(secured.host, USER, PASSWORD, *trusted)
    pushed = podman.push(image, *trusted)
    assert secured.registry.check_complete(repository, "v1") == pushed
    podman.forget_everything()
    assert podman.pull(image, *trusted) == pushed
    podman.forget_everything()
    podman("logout", secured.host)
    assert "unauthorized" in podman.refused("pull", *trusted, image).err

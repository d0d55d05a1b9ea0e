"""buildah: an image made step by step, a multi-platform build, and pulls."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .api import Registry
from .containers import PLAIN, ContainersTool
from .images import DOCKER_MANIFEST, GREETING, HERE, OTHER, Layout, write_context
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients


@pytest.fixture
def buildah(fresh_shell: Shell, folder: Path) -> Iterator[ContainersTool]:
    buildah = ContainersTool(fresh_shell, "buildah", folder / "buildah")
    yield buildah
    buildah("rm", "--all")
    buildah.forget_everything()


def test_commit_push_pull(buildah: ContainersTool, registry: Registry, repository: str, folder: Path) -> None:
    write_context(folder / "context")
    image = f"{registry.host}/{repository}:v1"
    container = buildah("from", "scratch").out.strip()
    buildah("copy", container, folder / "context" / "root", "/")
    buildah("copy", container, folder / "context" / "greeting", "/")
    buildah("copy", container, folder / "context" / "random.bin", "/")
    buildah("config", "--env", "PATH=/bin", container)
    buildah("commit", "--format", "docker", "--rm", container, image)
    pushed = buildah.push(image)
    assert registry.check_complete(repository, "v1") == pushed
    assert registry.manifest(repository, "v1").media_type == DOCKER_MANIFEST

    buildah.forget_everything()
    assert buildah.pull(image) == pushed
    container = buildah("from", PLAIN, image).out.strip()
    assert buildah("run", "--isolation", "chroot", container, "cat", "/greeting").out == GREETING


def test_build_for_two_platforms(buildah: ContainersTool, registry: Registry, repository: str, folder: Path) -> None:
    write_context(folder / "context")
    image = f"{registry.host}/{repository}:multi"
    both = f"linux/{HERE},linux/{OTHER}"
    buildah("build", "--format", "oci", "--platform", both, "--manifest", image, folder / "context")
    pushed = buildah.push_list(image)
    assert registry.check_complete(repository, "multi") == pushed
    platforms = {m["platform"]["architecture"] for m in registry.manifest(repository, "multi").json["manifests"]}
    assert platforms == {HERE, OTHER}


def test_pull_from_index(buildah: ContainersTool, registry: Registry, published: str, layout: Layout) -> None:
    buildah.pull(f"{registry.host}/{published}:multi")
    container = buildah("from", PLAIN, f"{registry.host}/{published}@{layout.digests['multi']}").out.strip()
    assert buildah("run", "--isolation", "chroot", container, "cat", "/platform").out == f"linux/{HERE}\n"


def test_login_over_tls(buildah: ContainersTool, secured: Secured, repository: str, folder: Path) -> None:
    write_context(folder / "context")
    image, trusted = f"{secured.host}/{repository}:v1", ("--cert-dir", str(secured.certificates))
    buildah("build", "--tag", image, folder / "context")
    buildah.refused("push", *trusted, image)
    buildah.login(secured.host, USER, PASSWORD, *trusted)
    pushed = buildah.push(image, *trusted)
    assert secured.registry.check_complete(repository, "v1") == pushed
    buildah.forget_everything()
    assert buildah.pull(image, *trusted) == pushed
    buildah.forget_everything()
    buildah("logout", secured.host)
    assert "unauthorized" in buildah.refused("pull", *trusted, image).err

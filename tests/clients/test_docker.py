"""docker and dockerd, as most people meet a registry."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .api import Registry
from .images import GREETING, HERE, OTHER, Layout, write_context
from .secured import PASSWORD, USER, Secured
from .shell import CommandFailed, Output, Shell

pytestmark = pytest.mark.clients


class Docker:
    """The docker command against the private daemon."""

    def __init__(self, shell: Shell, host: str) -> None:
        self._shell = shell
        # A buildx plugin would want a builder container from the internet; the daemon's own builder does.
        self._env = {"DOCKER_HOST": host, "DOCKER_BUILDKIT": "0", "DOCKER_CLI_EXPERIMENTAL": "enabled"}

    def __call__(self, *arguments: str | Path) -> Output:
        return self._shell("docker", *arguments, env=self._env)

    def refused(self, *arguments: str | Path) -> Output:
        return self._shell.refused("docker", *arguments, env=self._env)

    def login(self, host: str, user: str, password: str) -> None:
        self._shell(
            "docker", "login", "--username", user, "--password-stdin", host, env=self._env, stdin=password.encode()
        )

    def push(self, reference: str) -> tuple[str, str]:
        """Push; returns the digest that docker reports, and everything that it said."""
        said = self("push", reference).out
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
        assert found is not None
        return found.group(1), said

    def pull(self, reference: str, *options: str) -> str:
        """Pull; returns the digest that docker reports."""
        found = re.search(r"Digest: (sha256:[0-9a-f]{64})", self("pull", *options, reference).out)
        assert found is not None
        return found.group(1)

    def run(self, reference: str, *command: str) -> str:
        return self("run", "--rm", "--network", "none", reference, *command).out

    def forget_everything(self) -> None:
        """Empty the image store, so that the next pull has to fetch every layer."""
        self("image", "prune", "--all", "--force")
        assert self("images", "--all", "--quiet").out == ""


@pytest.fixture
def docker(shell: Shell, docker_host: str) -> Iterator[Docker]:
    docker = Docker(shell, docker_host)
    yield docker
    docker.forget_everything()


def test_build_push_pull_run(docker: Docker, registry: Registry, repository: str, folder: Path) -> None:
    random_digest = write_context(folder)
    image = f"{registry.host}/{repository}:v1"
    docker("build", "--network", "none", "--tag", image, folder)
    pushed, _ = docker.push(image)
    assert registry.check_complete(repository, "v1") == pushed
    assert registry.tags(repository) == ["v1"]

    docker.forget_everything()
    assert docker.pull(image) == pushed
    assert docker.run(image) == GREETING
    assert docker.run(image, "sha256sum", "/random.bin").split()[0] == random_digest.removeprefix("sha256:")
    named = f"{registry.host}/{repository}@{pushed}"
    assert docker("image", "inspect", "--format", "{{index .RepoDigests 0}}", image).out.strip() == named

    docker.forget_everything()
    assert docker.pull(named) == pushed
    assert docker.run(named) == GREETING


def test_push_again_and_mount(docker: Docker, registry: Registry, repository: str, folder: Path) -> None:
    write_context(folder)
    first, second = f"{repository}/a", f"{repository}/b"
    docker("build", "--network", "none", "--tag", f"{registry.host}/{first}:v1", folder)
    pushed, _ = docker.push(f"{registry.host}/{first}:v1")
    again, said = docker.push(f"{registry.host}/{first}:v1")
    assert again == pushed
    assert "Layer already exists" in said

    docker("tag", f"{registry.host}/{first}:v1", f"{registry.host}/{second}:v1")
    mounted, said = docker.push(f"{registry.host}/{second}:v1")
    assert f"Mounted from {first}" in said
    assert mounted == pushed == registry.check_complete(second, "v1")


def test_pull_index(docker: Docker, registry: Registry, published: str, layout: Layout) -> None:
    image = f"{registry.host}/{published}:multi"
    assert docker.pull(image) == layout.digests["multi"]
    assert docker.run(image, "cat", "/platform") == f"linux/{HERE}\n"
    assert docker.run(image, "sha256sum", "/random.bin").split()[0] == layout.random_digest.removeprefix("sha256:")
    docker.forget_everything()
    docker.pull(image, "--platform", f"linux/{OTHER}")
    assert docker("image", "inspect", "--format", "{{.Architecture}}", image).out.strip() == OTHER


def test_push_manifest_list(
    docker: Docker, registry: Registry, repository: str, published: str, layout: Layout
) -> None:
    parts = []
    for architecture in (HERE, OTHER):
        image = f"{registry.host}/{repository}:{architecture}"
        docker.pull(f"{registry.host}/{published}:{architecture}", "--platform", f"linux/{architecture}")
        docker("tag", f"{registry.host}/{published}:{architecture}", image)
        docker.push(image)
        parts.append(image)
    listed = f"{registry.host}/{repository}:multi"
    docker("manifest", "create", "--insecure", listed, *parts)
    pushed = docker("manifest", "push", "--insecure", "--purge", listed).out.strip()
    assert registry.check_complete(repository, "multi") == pushed
    platforms = {
        entry["platform"]["architecture"] for entry in registry.manifest(repository, "multi").json["manifests"]
    }
    assert platforms == {HERE, OTHER}

    docker.forget_everything()
    assert docker.pull(listed) == pushed
    assert docker.run(listed) == GREETING


def test_delete(docker: Docker, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE)
    image = f"{registry.host}/{repository}:{HERE}"
    assert docker.pull(image) == layout.digests[HERE]
    docker.forget_everything()
    registry.delete(repository, layout.digests[HERE])  # docker itself has no command for it
    assert "manifest unknown" in docker.refused("pull", image).err


@pytest.fixture
def trusted_by_docker(secured: Secured) -> Iterator[None]:
    """Put the authority where dockerd looks for it; it knows no other place."""
    folder = Path("/etc/docker/certs.d") / secured.host
    new = next(path for path in [*reversed(folder.parents), folder] if not path.exists())
    folder.mkdir(parents=True)
    shutil.copy(secured.authority, folder)
    yield
    shutil.rmtree(new)


@pytest.mark.usefixtures("trusted_by_docker")
def test_login_over_tls(fresh_shell: Shell, docker_host: str, secured: Secured, repository: str, folder: Path) -> None:
    docker = Docker(fresh_shell, docker_host)
    write_context(folder / "context")
    image = f"{secured.host}/{repository}:v1"
    docker("build", "--network", "none", "--tag", image, folder / "context")
    assert "no basic auth credentials" in docker.refused("push", image).err
    with pytest.raises(CommandFailed, match=r"401 Unauthorized|unauthorized"):
        docker.login(secured.host, USER, "wrong")
    docker.login(secured.host, USER, PASSWORD)
    pushed, _ = docker.push(image)
    assert secured.registry.check_complete(repository, "v1") == pushed
    docker.forget_everything()
    assert docker.pull(image) == pushed
    docker("logout", secured.host)
    docker.forget_everything()
    assert "no basic auth credentials" in docker.refused("pull", image).err

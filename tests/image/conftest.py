"""Fixtures of the image's tests: a private dockerd, the image built in it, an image to push.

Deselected unless asked for (`make image-test`). A command that is missing fails the run before the first test.
"""

import io
import itertools
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import daemons
from tests.clients.shell import Shell
from tests.clients.tools import find

from . import base, compose

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COMMANDS = ("docker", "dockerd", "containerd", "ctr", "runc", "docker-registry")
NUMBERS = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "image: builds and runs the image (make image-test)")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(HERE) and item.get_closest_marker("image")]
    if not ours:
        return
    if config.option.markexpr != "image":
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]
        return
    missing = [command for command in COMMANDS if find(command) is None]
    if not compose.command():
        missing.append("docker-compose")
    if not base.given() and find("mmdebstrap") is None:
        missing.append("mmdebstrap (or MOORAGE_IMAGE_BASE=python:3.13-slim where docker can pull it)")
    if missing:
        raise pytest.UsageError(f"not installed: {', '.join(missing)}; `make clients-packages` installs them")
    if os.geteuid() != 0:
        raise pytest.UsageError("dockerd needs root: sudo make image-test")


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """Short: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as folder:
        Path(folder).chmod(0o755)  # volumes below it are used by several users
        yield Path(folder)


@pytest.fixture(scope="session")
def docker(workspace: Path) -> Iterator[Shell]:
    """A shell whose `docker` talks to a daemon of its own."""
    shell = Shell(workspace / "home")
    with (
        daemons.containerd(shell, workspace / "containerd", workspace / "containerd.log") as address,
        daemons.dockerd(shell, workspace / "dockerd", workspace / "dockerd.log", address) as host,
    ):
        shell.env["DOCKER_HOST"] = host
        yield shell


@pytest.fixture(scope="session")
def bases(docker: Shell, workspace: Path) -> str:
    """The name of the image that ours stands on."""
    if base.given():
        return base.given()
    archive = workspace / "base.tar"
    base.make(archive)
    docker("docker", "import", archive, "base")
    archive.unlink()
    return "base"


@pytest.fixture(scope="session")
def image(docker: Shell, bases: str) -> str:
    """Our image, built by the classic builder: BuildKit is asked for nothing."""
    arguments = [f"--build-arg=BASE={bases}", f"--build-arg=PIP_CERT={base.CERTIFICATES}"]
    if index := os.environ.get("PIP_INDEX_URL"):
        arguments.append(f"--build-arg=PIP_INDEX_URL={index}")
    command = ["docker", "build", "--network", "host", *arguments, "--tag", "moorage"]
    # By itself: the packages may take longer than any client's command is given.
    done = subprocess.run([*command, ROOT], env=docker.env | {"DOCKER_BUILDKIT": "0"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return "moorage"


@pytest.fixture
def small(docker: Shell, workspace: Path) -> str:
    """An image of one file, to be pushed. Each test's is another: docker asks for no layer that it has."""
    content = b"hello %d" % next(NUMBERS)
    archive = workspace / "small.tar"
    with tarfile.open(archive, "w") as tar:
        entry = tarfile.TarInfo("hello")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    docker("docker", "import", archive, "small")
    return "small"

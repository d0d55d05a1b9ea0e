"""deploy/compose/s3.yaml as it is, started: a push to the writer is pulled from each replica, which takes no push.

Two things stand in for what a machine without a registry of images lacks: an image of SeaweedFS is made from
its wheel, and the ports are free ones.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.clients.shell import Output, Shell
from tests.clients.tools import ROOT
from tests.s3.servers import BIN

from .test_image import pull

COMPOSE = ROOT / ".tools" / "bin" / "docker-compose"
pytestmark = [
    pytest.mark.image,
    pytest.mark.skipif(not COMPOSE.exists(), reason="docker-compose is not built: make .tools/bin/docker-compose"),
]

FILE = ROOT / "deploy" / "compose" / "s3.yaml"
REGISTRIES = ("writer", "replica1", "replica2", "replica3")
START_SECONDS = 60.0

# As the public image does it: as many volumes as the disk has room for. The default, 8, is less than two buckets need.
SEAWEEDFS = """\
FROM {base}
COPY weed /usr/bin/weed
ENTRYPOINT ["/bin/sh", "-c", "exec weed \\"$@\\" -volume.max=0 -master.volumeSizeLimitMB=1024", "weed"]
"""


@pytest.fixture(scope="module")
def seaweedfs_image(docker: Shell, bases: str, workspace: Path) -> str:
    context = workspace / "seaweedfs"
    context.mkdir()
    shutil.copy(BIN / "weed", context)
    (context / "Dockerfile").write_text(SEAWEEDFS.format(base=bases))
    docker("docker", "build", "--network", "none", "--tag", "seaweedfs", context, env={"DOCKER_BUILDKIT": "0"})
    return "seaweedfs"


@pytest.fixture(scope="module")
def compose(docker: Shell, image: str, seaweedfs_image: str, workspace: Path) -> Iterator[Callable[..., Output]]:
    """The command, of a project that is up."""
    ports = workspace / "ports.yaml"
    ports.write_text(
        "services:\n" + "".join(f"  {name}: {{ports: !override ['127.0.0.1::5000']}}\n" for name in REGISTRIES)
    )
    command = partial(
        docker,
        "docker-compose",
        *("--project-name", "moorage", "--file", FILE, "--file", ports),
        env={"MOORAGE_IMAGE": image, "SEAWEEDFS_IMAGE": seaweedfs_image},
    )
    try:
        command("up", "--detach", "--pull", "never")
        yield command
    finally:
        command("down", "--volumes", "--timeout", "20")


@pytest.fixture(scope="module")
def addresses(compose: Callable[..., Output]) -> dict[str, str]:
    """Where each registry is, once it is ready: it has reached the bucket with the keys of the file."""
    found = {name: compose("port", name, "5000").out.strip().replace("127.0.0.1", "localhost") for name in REGISTRIES}
    try:
        for address in found.values():
            wait_until_ready(f"http://{address}/readyz")
    finally:
        compose("logs", "--no-color")  # into what a failing test shows
    return found


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            answer = httpx.get(url, trust_env=False)
        except httpx.TransportError as exc:
            said = repr(exc)
        else:
            if answer.status_code == 200:
                return
            said = answer.text
        assert time.monotonic() < deadline, f"{url}: {said}"
        time.sleep(0.2)  # what is behind the port cannot tell us when it starts


def test_pushed_to_the_writer_pulled_from_each_replica(docker: Shell, addresses: dict[str, str], small: str) -> None:
    name = f"{addresses['writer']}/me/small:1"
    docker("docker", "tag", small, name)
    docker("docker", "push", name)
    docker("docker", "rmi", name)
    for replica in REGISTRIES[1:]:
        pull(docker, small, f"{addresses[replica]}/me/small:1")


def test_a_replica_takes_no_push(docker: Shell, addresses: dict[str, str], small: str) -> None:
    name = f"{addresses['replica1']}/me/other:1"
    docker("docker", "tag", small, name)
    assert "read-only" in docker.refused("docker", "push", name).both
    docker("docker", "rmi", name)

"""deploy/compose/s3.yaml as it is, started: a push to the writer is pulled from each replica, which takes no push.

An image of SeaweedFS is made from its wheel, where no registry of images has it; and the ports are free ones. The other
file needs a bucket on AWS: it is read.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from tests.clients.shell import Output, Shell
from tests.clients.tools import ROOT
from tests.s3.servers import BIN

from . import compose as composes
from .containers import pull, push

pytestmark = pytest.mark.image

FILES = ROOT / "deploy" / "compose"
REGISTRIES = ("writer", "replica1", "replica2", "replica3")
START_SECONDS = 60.0


@pytest.fixture(scope="module")
def seaweedfs_image(docker: Shell, bases: str, workspace: Path) -> str:
    context = workspace / "seaweedfs"
    context.mkdir()
    shutil.copy(BIN / "weed", context)
    (context / "Dockerfile").write_text(f"FROM {bases}\nCOPY weed /usr/bin/weed\n")
    docker("docker", "build", "--network", "none", "--tag", "seaweedfs", context, env={"DOCKER_BUILDKIT": "0"})
    return "seaweedfs"


@pytest.fixture(scope="module")
def compose(docker: Shell, image: str, seaweedfs_image: str, workspace: Path) -> Iterator[Callable[..., Output]]:
    """The command, of a project that is up."""
    whole = yaml.safe_load((FILES / "s3.yaml").read_text())
    for name in REGISTRIES:
        assert whole["services"][name]["ports"] == [f"127.0.0.1:{5000 + REGISTRIES.index(name)}:5000"]
        whole["services"][name]["ports"] = ["127.0.0.1::5000"]
    path = workspace / "s3.yaml"
    path.write_text(yaml.safe_dump(whole))
    command = partial(
        docker,
        *composes.command(),
        *("--project-name", "moorage", "--file", path),
        env={"MOORAGE_IMAGE": image, "SEAWEEDFS_IMAGE": seaweedfs_image},
    )
    try:
        command("up", "--detach")
        yield command
    finally:
        command("down", "--volumes", "--timeout", "2")  # SeaweedFS would take 15 s


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
    push(docker, small, f"{addresses['writer']}/me/small:1")
    for replica in REGISTRIES[1:]:
        pull(docker, small, f"{addresses[replica]}/me/small:1")


def test_a_replica_takes_no_push(docker: Shell, addresses: dict[str, str], small: str) -> None:
    name = f"{addresses['replica1']}/me/other:1"
    docker("docker", "tag", small, name)
    assert "read-only" in docker.refused("docker", "push", name).both
    docker("docker", "rmi", name)


def test_the_file_for_aws(docker: Shell) -> None:
    shown = docker(
        *composes.command(),
        *("--file", FILES / "aws.yaml", "config"),
        env={"REGION": "eu-central-1", "BUCKET": "images", "HTTP_SECRET": "secret"},
    ).out
    assert set(yaml.safe_load(shown)["services"]) == {"replica", "writer"}

"""The image over S3: it needs no folder, whoever it runs as, and no right but to reach the bucket."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.clients import daemons
from tests.clients.shell import Shell
from tests.clients.tools import ROOT
from tests.ports import free_port
from tests.s3.servers import S3Server

from .containers import no_capabilities, pull, push, running, status, stop

pytestmark = pytest.mark.image

READ_ONLY = {"REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": true}'}
NOBODY = ("--user", "12345", "--cap-drop", "ALL")
"""Not root, not the owner of anything in the image, its volume included."""


def variables(parameters: Mapping[str, Any]) -> dict[str, str]:
    """`storage.s3` of a configuration, as the environment."""
    as_json = {name: value if isinstance(value, str) else json.dumps(value) for name, value in parameters.items()}
    return {"REGISTRY_STORAGE": "s3", **{f"REGISTRY_STORAGE_S3_{name.upper()}": as_json[name] for name in as_json}}


@pytest.fixture
def reading(seaweedfs: S3Server) -> dict[str, str]:
    """Settings of a replica, over a bucket of the test's own."""
    return variables(seaweedfs.parameters(seaweedfs.new_bucket(), keys=seaweedfs.reader)) | READ_ONLY


@pytest.fixture
def writer(docker: Shell, image: str, seaweedfs: S3Server, reading: dict[str, str]) -> Iterator[tuple[str, str]]:
    """A container that writes to the same bucket, and its address. It sends blobs itself: caches follow no redirect to
    a private address.
    """
    environ = variables(seaweedfs.parameters(reading["REGISTRY_STORAGE_S3_BUCKET"]))
    environ["REGISTRY_STORAGE_REDIRECT_DISABLE"] = "true"
    with running(docker, image, "--cap-drop", "ALL", environ=environ) as found:
        yield found


@pytest.fixture
def pushed(docker: Shell, writer: tuple[str, str], small: str) -> str:
    """The name, behind the address, of an image in the bucket."""
    push(docker, small, f"{writer[1]}/team/small:1")
    return "team/small:1"


def test_root_without_capabilities_may_write(docker: Shell, writer: tuple[str, str], pushed: str, small: str) -> None:
    """It cannot become the owner of the volume, and does not need to: the store is elsewhere."""
    container, address = writer
    found = status(docker, container)
    assert found["Uid"] == ["0"] * 4
    assert no_capabilities(found)
    pull(docker, small, f"{address}/{pushed}")


def test_a_replica_that_may_write_nowhere(
    docker: Shell, image: str, reading: dict[str, str], pushed: str, small: str
) -> None:
    with running(docker, image, *NOBODY, environ=reading) as (container, address):
        assert status(docker, container)["Uid"] == ["12345"] * 4
        for folder in ("/", "/tmp", "/var/lib/registry"):
            docker.refused("docker", "exec", container, "touch", f"{folder}/file")
        pull(docker, small, f"{address}/{pushed}")
        stop(docker, container)


def test_several_workers_need_no_more(
    docker: Shell, image: str, reading: dict[str, str], pushed: str, small: str
) -> None:
    arguments = ("serve", "--workers", "2", "/etc/docker/registry/config.yml")
    with running(docker, image, *NOBODY, environ=reading, arguments=arguments) as (container, address):
        pull(docker, small, f"{address}/{pushed}")
        stop(docker, container)


def test_a_cache_needs_a_folder(
    docker: Shell, image: str, seaweedfs: S3Server, writer: tuple[str, str], pushed: str, small: str
) -> None:
    environ = variables(seaweedfs.parameters(seaweedfs.new_bucket()))
    environ["REGISTRY_PROXY_REMOTEURL"] = f"http://{writer[1]}"
    options = [*NOBODY, "--read-only", "--network", "host", *(f"--env={k}={v}" for k, v in environ.items())]
    said = docker.refused("docker", "run", "--rm", *options, image).err
    assert "proxy.remoteurl" in said
    assert "--tmpfs /tmp" in said
    with running(docker, image, *NOBODY, "--tmpfs", "/tmp", environ=environ) as (container, address):
        pull(docker, small, f"{address}/{pushed}")
        stop(docker, container)


def test_user_data(
    docker: Shell, image: str, reading: dict[str, str], pushed: str, small: str, workspace: Path
) -> None:
    """The unit of deploy/aws/user-data.sh. A real instance has AWS's endpoint, an instance role and port 5000."""
    script = (ROOT / "deploy" / "aws" / "user-data.sh").read_text()
    written = re.search(r"/etc/moorage/environment <<EOF\n(.*?)^EOF", script, re.DOTALL | re.MULTILINE)
    unit = re.search(r"^ExecStart=(.*?)^ExecStop=(.*?)$", script, re.DOTALL | re.MULTILINE)
    assert written
    assert unit
    port = free_port()
    settings = dict(line.split("=", 1) for line in written[1].splitlines())
    assert settings["REGISTRY_HTTP_ADDR"] == "localhost:5000"
    assert settings["REGISTRY_STORAGE_MAINTENANCE_READONLY"] == READ_ONLY["REGISTRY_STORAGE_MAINTENANCE_READONLY"]
    settings |= reading | {"REGISTRY_HTTP_ADDR": f"localhost:{port}"}
    environment = workspace / "environment"
    environment.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    start, stopping = (shlex.split(line.replace("\\\\\n", "").replace("$IMAGE", image)) for line in unit.groups())
    assert start[0] == stopping[0] == "/usr/bin/docker"
    assert start[-2] == "/etc/moorage/environment"
    command: list[str | Path] = [daemons.required("docker"), *start[1:-2], environment, start[-1]]

    def ready() -> bool:
        return daemons.succeeds(docker, "docker", "exec", "moorage", "registry", "healthcheck", "--ready")

    with daemons.daemon(docker, command, workspace / "user-data.log", ready):
        found = status(docker, "moorage")
        assert found["Uid"] == ["10001"] * 4
        assert no_capabilities(found)
        assert found["NoNewPrivs"] == ["1"]
        pull(docker, small, f"localhost:{port}/{pushed}")
        docker("docker", *stopping[1:])

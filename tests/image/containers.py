"""Containers of the image, and what docker does with the registry in them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.clients.shell import Shell
from tests.ports import free_port

# Of a compose file for registry:2, but for the port.
REGISTRY_2 = {
    "REGISTRY_STORAGE_DELETE_ENABLED": "true",
    "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/var/lib/registry",
    "REGISTRY_STORAGE_CACHE_BLOBDESCRIPTOR": "inmemory",
    "REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled": false}',
    "REGISTRY_HTTP_SECRET": "the same text on every one",
    "REGISTRY_LOG_LEVEL": "info",
}


@contextmanager
def running(
    docker: Shell,
    image: str,
    *options: str,
    environ: Mapping[str, str] = REGISTRY_2,
    arguments: tuple[str, ...] = (),
) -> Iterator[tuple[str, str]]:
    """A container that has turned healthy, by its own health check; yields its id and host:port."""
    port = free_port()
    fixed = ("--detach", "--network", "host", "--read-only", "--health-interval", "1s", "--health-start-period", "0s")
    variables = [f"--env={name}={value}" for name, value in {**environ, "REGISTRY_HTTP_ADDR": f":{port}"}.items()]
    container = docker("docker", "run", *fixed, *variables, *options, image, *arguments).out.strip()
    try:
        wait_until_healthy(docker, container)
        yield container, f"localhost:{port}"
    finally:
        docker("docker", "logs", container)  # into what a failing test shows
        docker("docker", "rm", "--force", "--volumes", container)


def wait_until_healthy(docker: Shell, container: str) -> None:
    deadline = time.monotonic() + 60
    while inspect(docker, container, ".State.Health.Status") != "healthy":
        assert inspect(docker, container, ".State.Running") == "true", docker("docker", "logs", container).both
        assert time.monotonic() < deadline, inspect(docker, container, "json .State.Health")
        time.sleep(0.2)  # docker has no command that waits for it


def inspect(docker: Shell, container: str, what: str) -> str:
    return docker("docker", "inspect", "--format", f"{{{{{what}}}}}", container).out.strip()


def status(docker: Shell, container: str) -> dict[str, list[str]]:
    """Of the registry's process, from the kernel."""
    lines = docker("docker", "exec", container, "cat", "/proc/1/status").out.splitlines()
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def no_capabilities(found: dict[str, list[str]]) -> bool:
    return all(int(found[name][0], 16) == 0 for name in ("CapPrm", "CapEff", "CapInh", "CapBnd", "CapAmb"))


def push_and_pull(docker: Shell, small: str, address: str) -> None:
    name = f"{address}/team/small:1"
    push(docker, small, name)
    pull(docker, small, name)


def push(docker: Shell, small: str, name: str) -> None:
    docker("docker", "tag", small, name)
    docker("docker", "push", name)
    docker("docker", "rmi", name)


def pull(docker: Shell, small: str, name: str) -> None:
    """All of it, so what docker has of it goes before."""
    docker("docker", "rmi", small)
    assert "Pull complete" in docker("docker", "pull", name).out
    docker("docker", "tag", name, small)
    docker("docker", "rmi", name)


def stop(docker: Shell, container: str) -> None:
    docker("docker", "stop", "--time", "30", container)
    assert inspect(docker, container, ".State.ExitCode") == "0"

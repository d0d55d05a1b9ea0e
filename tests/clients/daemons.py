"""Private daemons: containerd, dockerd and the registry itself, each in its own folder, each ended whatever happens.

Rules: nothing outside the given folder is used (sockets, state, configuration), but for the key.json that a dockerd
before version 23 puts into /etc/docker; a daemon dies with the process that started it, even when that is killed; what
it logs goes to a file that a failing test prints.
"""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port

from .shell import CommandFailed, Shell
from .tools import find

# Another registry that reads distribution's configuration, such as "docker-registry serve", shows what a test expects
# of any registry.
REGISTRY_COMMAND = shlex.split(os.environ.get("REGISTRY_COMMAND", "")) or [
    str(Path(sys.executable).with_name("registry")),
    "serve",
]
START_SECONDS = 60.0
STOP_SECONDS = 30.0


@contextmanager
def daemon(shell: Shell, argv: list[str | Path], log: Path, ready: Callable[[], bool]) -> Iterator[None]:
    """Run a process for the time of the block; it is up when `ready` says so."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            # The parent-death signal covers what `finally` cannot: a pytest that is killed itself.
            ["setpriv", "--pdeathsig", "TERM", *map(str, argv)],
            env=shell.env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_until_ready(process, ready, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        try:
            process.wait(0.1)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        raise CommandFailed(f"did not start: {process.args!r}\n{tail(log)}")


def tail(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


@contextmanager
def registry(
    shell: Shell, folder: Path, log: Path, *, host: str = "127.0.0.1", more: Mapping[str, Any] | None = None
) -> Iterator[int]:
    """Run the registry under test, with deletes on; yields its port. host: where it listens; more: more settings."""
    port = free_port()
    folder.mkdir(parents=True)
    settings: dict[str, Any] = {
        "version": 0.1,
        "storage": {"filesystem": {"rootdirectory": f"{folder}/data"}, "delete": {"enabled": True}},
        **(more or {}),
    }
    settings["http"] = {"addr": f"{host}:{port}", **settings.get("http", {})}
    config = folder / "config.yml"
    config.write_text(yaml.safe_dump(settings))
    with daemon(shell, [*REGISTRY_COMMAND, config], log, lambda: accepts(host, port)):
        yield port
    assert "Traceback" not in log.read_text(), tail(log)  # whatever the clients made of it


@contextmanager
def containerd(shell: Shell, folder: Path, log: Path) -> Iterator[Path]:
    """Run containerd; yields its socket."""
    folder.mkdir(parents=True)
    address = folder / "containerd.sock"
    config = folder / "config.toml"
    config.write_text(
        f'version = 2\nroot = "{folder}/root"\nstate = "{folder}/state"\n'
        # Kubernetes' parts would look for networks and listen on paths of the machine.
        'disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images",'
        ' "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"]\n'
        f'[grpc]\naddress = "{address}"\n'
        f'[plugins."io.containerd.internal.v1.opt"]\npath = "{folder}/opt"\n'
    )
    ctr = ("ctr", "--address", address)

    def ready() -> bool:
        return address.exists() and succeeds(shell, *ctr, "version")

    try:
        with daemon(shell, [required("containerd"), "--config", config, "--log-level", "warn"], log, ready):
            try:
                yield address
            finally:
                end_containers(shell, address)
    finally:
        unmount(folder)


def end_containers(shell: Shell, address: Path) -> None:
    """Kill what a failed test left running: containers outlive their containerd."""
    for namespace in shell("ctr", "--address", address, "namespaces", "ls", "-q").out.split():
        ctr = ("ctr", "--address", str(address), "--namespace", namespace)
        for task in shell(*ctr, "tasks", "ls", "-q").out.split():
            shell(*ctr, "tasks", "rm", "--force", task)


@contextmanager
def dockerd(
    shell: Shell,
    folder: Path,
    log: Path,
    containerd_address: Path,
    *,
    settings: Mapping[str, Any] | None = None,
    namespace: str = "moby",
) -> Iterator[str]:
    """Run dockerd over a containerd of ours; yields the address for DOCKER_HOST.

    settings: daemon.json.   namespace: of containerd, one for each dockerd.
    """
    folder.mkdir(parents=True)
    host = f"unix://{folder}/docker.sock"
    config = folder / "daemon.json"  # an /etc/docker/daemon.json would clash with our flags
    config.write_text(json.dumps(settings or {}))
    command: list[str | Path] = [
        required("dockerd"),
        *("--config-file", config, "--host", host, "--containerd", containerd_address),
        *("--containerd-namespace", namespace, "--containerd-plugins-namespace", f"plugins.{namespace}"),
        *("--data-root", folder / "data", "--exec-root", folder / "exec", "--pidfile", folder / "docker.pid"),
        # No rule of the machine's firewall is touched and no bridge is made: containers run with `--network none`.
        *("--iptables=false", "--ip6tables=false", "--bridge=none"),
    ]
    try:
        with daemon(shell, command, log, lambda: succeeds(shell, "docker", "--host", host, "version")):
            yield host
    finally:
        unmount(folder)


def required(command: str) -> str:
    path = find(command)
    assert path is not None, command  # conftest.py has checked tools.CLIENTS
    return path


def succeeds(shell: Shell, command: str, *arguments: str | Path) -> bool:
    try:
        shell(command, *arguments)
    except CommandFailed:
        return False
    return True


def unmount(folder: Path) -> None:
    """Unmount what a daemon left below a folder (dockerd leaves its network namespace), so that it can be removed."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in sorted((m for m in mounts if Path(m).is_relative_to(folder)), reverse=True):
        subprocess.run(["umount", "--lazy", mount], check=True)

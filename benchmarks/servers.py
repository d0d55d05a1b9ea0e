"""Who is measured: Moorage, its peers, and nginx as the limit of sending files. Each at its best, each a process.

Peers run without access log and tracing, with their cache of blob descriptors in memory. Rule: a server that cannot be
had is named with its reason (`missing`), never left out silently.
"""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.ports import free_port

from .clients import ROOT, LoadFailed
from .clients.http import connect, read_head, request, status_of

START_SECONDS = 60.0
STOP_SECONDS = 60.0
SEARCH_PATH = os.pathsep.join([str(ROOT / ".tools/bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"])
VERSION = re.compile(r"v?[0-9]+[.][0-9]+[0-9A-Za-z.+-]*")
BLOBS = "docker/registry/v2/blobs/sha256"


class DidNotStart(Exception):
    """A server ended, or did not answer in time; the text has the end of its log."""


@dataclass(frozen=True)
class Server:
    """One that can be started. install: what brings it; an empty command: it cannot be had, and `install` says why."""

    name: str
    title: str
    command: str
    install: str
    arguments: tuple[str, ...] = ("serve",)
    version_option: str = "--version"
    registry: bool = True

    @property
    def path(self) -> str | None:
        return shutil.which(self.command, path=SEARCH_PATH) if self.command else None

    def version(self) -> str:
        assert self.path is not None
        done = subprocess.run([self.path, self.version_option], capture_output=True, text=True, check=False)
        words = (done.stdout + done.stderr).strip().splitlines()[0].split()
        return next((word for word in words if VERSION.fullmatch(word)), words[-1])


OURS = Server("moorage", "Moorage", str(Path(sys.executable).with_name("registry")), "make .venv/.installed")
V3 = Server("distribution-3", "distribution v3", "distribution", "make .tools/bin/distribution")
V2 = Server("distribution-2.8", "distribution 2.8", "docker-registry", "make bench-packages")
NGINX = Server("nginx", "nginx", "nginx", "make bench-packages", arguments=("-c",), version_option="-v", registry=False)
ZOT = Server("zot", "zot", "", "not built: the Go module proxy refuses its module (403 Forbidden)")
SEAWEEDFS = Server(
    "seaweedfs",
    "SeaweedFS itself",
    str(Path(sys.executable).with_name("weed")),
    "make .venv/.installed",
    version_option="version",
    registry=False,
)

REGISTRIES = (OURS, V3, V2)
FILE_SERVERS = (*REGISTRIES, NGINX)
ALL = (OURS, V3, V2, ZOT, NGINX, SEAWEEDFS)


def missing(servers: Sequence[Server] = ALL) -> dict[str, str]:
    """Server name to what would bring it."""
    return {server.name: server.install for server in servers if server.path is None}


def present(servers: Sequence[Server]) -> list[Server]:
    return [server for server in servers if server.path is not None]


@dataclass(frozen=True)
class Running:
    """A server that answers. root: the folder that holds its store."""

    server: Server
    process: "subprocess.Popen[bytes]"
    port: int
    root: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def blob_path(self, repository: str, digest: str) -> str:
        """nginx knows no registry: there it is the plain file."""
        encoded = digest.removeprefix("sha256:")
        if not self.server.registry:
            return f"/{BLOBS}/{encoded[:2]}/{encoded}/data"
        return f"/v2/{repository}/blobs/{digest}"


@contextmanager
def running(
    server: Server,
    root: Path,
    folder: Path,
    storage: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> Iterator[Running]:
    """Serve the store below root, or the one of these settings; configuration and log go into folder.

    more: sections of a registry's configuration.
    """
    port = free_port()
    with running_as(server, configuration(server, root, folder, port, storage, more), root, folder, port) as served:
        yield served


@contextmanager
def running_as(server: Server, text: str, root: Path, folder: Path, port: int) -> Iterator[Running]:
    """Serve with this configuration, which listens on that port."""
    process, log = started(server, text, folder)
    try:
        wait_until_it_answers(process, port, log)
        yield Running(server, process, port, root)
        if process.poll() is not None:
            raise DidNotStart(f"{server.name} ended under load, with {process.returncode}: {tail(log)}")
    finally:
        stop(process)


@contextmanager
def all_running(servers: Sequence[Server], root: Path, folder: Path) -> Iterator[list[Running]]:
    """Those that are present, over one store: what one has read is in the page cache for all."""
    with ExitStack() as stack:
        yield [stack.enter_context(running(server, root, folder)) for server in present(servers)]


def launch(
    server: Server, root: Path, folder: Path, storage: dict[str, Any] | None = None
) -> tuple["subprocess.Popen[bytes]", int, Path]:
    """Start the process and return at once: process, port, log. storage: instead of the file system at root."""
    port = free_port()
    process, log = started(server, configuration(server, root, folder, port, storage), folder)
    return process, port, log


def started(server: Server, text: str, folder: Path) -> tuple["subprocess.Popen[bytes]", Path]:
    """The process and its log, at once. text: the configuration."""
    assert server.path is not None, server.install
    folder.mkdir(parents=True, exist_ok=True)
    config, log = folder / f"{server.name}.conf", folder / f"{server.name}.log"
    config.write_text(text)
    # a REGISTRY_* variable of the caller would be read as a setting
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OTEL_"))}
    with log.open("wb") as output:
        process = subprocess.Popen(
            # the parent-death signal covers what `finally` cannot: a harness that is killed itself
            ["setpriv", "--pdeathsig", "TERM", server.path, *server.arguments, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=environment | {"OTEL_TRACES_EXPORTER": "none"},
        )
    return process, log


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def configuration(
    server: Server,
    root: Path,
    folder: Path,
    port: int,
    storage: dict[str, Any] | None = None,
    more: dict[str, Any] | None = None,
) -> str:
    if server is NGINX:
        return nginx_configuration(root, folder, port)
    storage = dict(storage) if storage else {"filesystem": {"rootdirectory": str(root)}}
    storage.setdefault("maintenance", {"uploadpurging": {"enabled": False}})
    if server is not OURS:
        storage["cache"] = {"blobdescriptor": "inmemory"}
    return yaml.safe_dump(
        {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": storage,
            "http": {"addr": f"127.0.0.1:{port}", "secret": "of a benchmark"},
            **(more or {}),
        }
    )


def nginx_configuration(root: Path, folder: Path, port: int, lines: str = "") -> str:
    """lines: more of the server's block."""
    temporary = "".join(f"  {kind}_temp_path {folder}/nginx-{kind};\n" for kind in ("client_body", "proxy", "fastcgi"))
    more = "".join(f"  {kind}_temp_path {folder}/nginx-{kind};\n" for kind in ("uwsgi", "scgi"))
    return (
        # root: a worker of another user may not enter the work folder
        f"user root;\ndaemon off;\nworker_processes auto;\npid {folder}/nginx.pid;\nerror_log stderr;\n"
        "events { worker_connections 1024; }\nhttp {\n"
        f"{temporary}{more}"
        "  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  open_file_cache max=1000;\n"
        "  keepalive_requests 1000000000;\n  default_type application/octet-stream;\n"
        f"  server {{\n    listen 127.0.0.1:{port};\n    root {root};\n"
        f"    location = /v2/ {{ return 200 '{{}}'; }}\n{lines}  }}\n}}\n"
    )


def wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path, pause: float = 0.02) -> None:
    """A port that is bound is not yet a server that answers. Raises DidNotStart."""
    deadline = time.monotonic() + START_SECONDS
    while not answers(port):
        try:
            process.wait(pause)
        except subprocess.TimeoutExpired:
            if time.monotonic() < deadline:
                continue
        raise DidNotStart(f"{log.stem} did not start: {tail(log)}")


def answers(port: int) -> bool:
    try:
        with connect(port) as sock:
            sock.sendall(request("GET", "/v2/", port, "Connection: close"))
            return status_of(read_head(sock)[0]) == 200
    except (OSError, LoadFailed):
        return False


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]

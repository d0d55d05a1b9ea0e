"""Which clients there are, where their commands are found, and what to say when one is missing.

Rule: a required client that is missing fails the run before the first test; any other is named in one line and its
tests are deselected.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# `make tools` builds into .tools/bin; dockerd and its like live in sbin, which is not on everyone's PATH.
SEARCH_PATH = os.pathsep.join([str(ROOT / ".tools" / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client: its tests are tests/clients/test_<name>.py."""

    name: str
    commands: tuple[str, ...]
    """Every command that its tests start; the first one is asked for the version."""
    version: tuple[str, ...] = ("--version",)
    required: bool = False
    install: str
    """The make target that brings it."""

    def missing(self) -> list[str]:
        """The commands that are not on this machine."""
        return [command for command in self.commands if find(command) is None]


CLIENTS = {
    client.name: client
    for client in (
        Client(
            name="docker",
            commands=("docker", "dockerd", "containerd", "ctr", "runc", "busybox"),
            required=True,
            install="clients-packages",
        ),
        Client(
            name="containerd",
            commands=("containerd", "ctr", "runc", "busybox"),
            required=True,
            install="clients-packages",
        ),
        Client(name="skopeo", commands=("skopeo", "busybox"), required=True, install="clients-packages"),
        Client(name="podman", commands=("podman", "runc", "busybox"), install="clients-packages"),
        Client(name="buildah", commands=("buildah", "busybox"), install="clients-packages"),
        Client(name="crane", commands=("crane", "busybox"), version=("version",), required=True, install="tools"),
        Client(name="oras", commands=("oras", "busybox"), version=("version",), required=True, install="tools"),
        Client(name="regctl", commands=("regctl", "busybox"), version=("version",), required=True, install="tools"),
        Client(name="helm", commands=("helm",), version=("version", "--short"), install="tools"),
        Client(name="cosign", commands=("cosign", "busybox"), version=("version",), install="tools"),
    )
}


def find(command: str) -> str | None:
    """The path of a command, or None."""
    return shutil.which(command, path=SEARCH_PATH)


def complaints(names: set[str]) -> tuple[list[str], list[str]]:
    """What to say about the missing ones of these clients: (lines that fail the run, lines about skipped clients)."""
    fatal: list[str] = []
    skipped: list[str] = []
    for name in sorted(names):
        client = CLIENTS[name]
        missing = client.missing()
        if not missing:
            continue
        line = f"{name}: not installed ({', '.join(missing)}); `make {client.install}` brings it"
        (fatal if client.required else skipped).append(line)
    return fatal, skipped

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

BUILT = {"crane", "oras", "regctl", "helm", "cosign", "distribution"}
"""Built by `make tools`; everything else is a Debian package."""


@dataclass(frozen=True, kw_only=True)
class Client:
    """One client: its tests are tests/clients/test_<name>.py."""

    name: str
    commands: tuple[str, ...]
    """Every command that its tests start."""
    versions: tuple[tuple[str, ...], ...]
    """The command lines that tell its version; more than one where client and daemon differ."""
    required: bool = False

    def missing(self) -> list[str]:
        """The commands that are not on this machine."""
        return [command for command in self.commands if find(command) is None]


CLIENTS = {
    client.name: client
    for client in (
        Client(
            name="docker",
            commands=("docker", "dockerd", "containerd", "ctr", "runc", "busybox"),
            versions=(("docker", "--version"), ("dockerd", "--version")),
            required=True,
        ),
        Client(
            name="containerd",
            commands=("containerd", "ctr", "runc", "busybox"),
            versions=(("containerd", "--version"),),
            required=True,
        ),
        Client(
            name="skopeo",
            versions=(("skopeo", "--version"),),
            commands=("skopeo", "busybox"),
            required=True,
        ),
        Client(
            name="podman",
            versions=(("podman", "--version"),),
            commands=("podman", "runc", "busybox"),
        ),
        Client(
            name="buildah",
            versions=(("buildah", "--version"),),
            commands=("buildah", "busybox"),
        ),
        Client(
            name="crane",
            versions=(("crane", "version"),),
            commands=("crane", "busybox"),
            required=True,
        ),
        Client(
            name="oras",
            versions=(("oras", "version"),),
            commands=("oras", "busybox"),
            required=True,
        ),
        Client(
            name="regctl",
            versions=(("regctl", "version"),),
            commands=("regctl", "busybox"),
            required=True,
        ),
        Client(
            name="helm",
            versions=(("helm", "version", "--short"),),
            commands=("helm",),
        ),
        Client(
            name="replicas",  # a fleet on one bucket, by docker and containerd
            versions=(("dockerd", "--version"), ("containerd", "--version")),
            commands=("docker", "dockerd", "containerd", "ctr", "runc", "busybox"),
            required=True,
        ),
        Client(
            name="proxy",  # the pull-through cache, by docker, containerd and podman
            versions=(("dockerd", "--version"), ("containerd", "--version")),
            commands=("docker", "dockerd", "containerd", "ctr", "runc", "busybox", "distribution"),
            required=True,
        ),
        Client(
            name="cosign",
            versions=(("cosign", "version"),),
            commands=("cosign", "busybox"),
        ),
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
        target = "tools" if BUILT.intersection(missing) else "clients-packages"
        line = f"{name}: not installed ({', '.join(missing)}); `make {target}` brings it"
        (fatal if client.required else skipped).append(line)
    return fatal, skipped

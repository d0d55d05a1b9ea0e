"""What podman and buildah have in common: a private store, plain HTTP, and the digest file."""

import json
from pathlib import Path

from .shell import Output, Shell

PLAIN = "--tls-verify=false"


class ContainersTool:
    """podman or buildah over a store of its own."""

    def __init__(self, shell: Shell, command: str, folder: Path, *options: str) -> None:
        self._shell = shell
        self._command = command
        self._digest_file = folder / "digest"
        # vfs works on every file system, this one and the overlay of a CI container.
        store = ("--root", str(folder / "root"), "--runroot", str(folder / "run"), "--storage-driver", "vfs")
        self._options = (*store, *options)

    def __call__(self, *arguments: str | Path) -> Output:
        return self._shell(self._command, *self._options, *arguments)

    def refused(self, *arguments: str | Path) -> Output:
        return self._shell.refused(self._command, *self._options, *arguments)

    def login(self, host: str, user: str, password: str, *options: str) -> None:
        arguments = ("login", *options, "--username", user, "--password-stdin", host)
        self._shell(self._command, *self._options, *arguments, stdin=password.encode())

    def push(self, image: str, *options: str) -> str:
        """Push, by plain HTTP unless options say how; returns the digest that the client reports."""
        self("push", *(options or (PLAIN,)), "--digestfile", self._digest_file, image)
        return self._digest_file.read_text()

    def push_list(self, image: str) -> str:
        """Push a manifest list or index with all its images; returns the digest that the client reports."""
        self("manifest", "push", "--all", PLAIN, "--digestfile", self._digest_file, image, f"docker://{image}")
        return self._digest_file.read_text()

    def pull(self, image: str, *options: str) -> str:
        """Pull, by plain HTTP unless options say how; returns the digest of what is stored."""
        self("pull", *(options or (PLAIN,)), image)
        [stored] = json.loads(self("images", "--json" if self._command == "buildah" else "--format=json", image).out)
        digest: str = stored.get("digest") or stored["Digest"]
        return digest

    def forget_everything(self) -> None:
        self("rmi", "--all", "--force")
        assert self("images", "--all", "--quiet").out == ""

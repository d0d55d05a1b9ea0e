"""Whole images by the clients that people use: what remains of a registry's speed when docker or containerd pulls.

An image of 12 layers, half of whose content compresses, so that unpacking costs what it costs with real ones. The fetch
without unpacking shows where the rest of the time goes.
"""

import hashlib
import json
import os
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from typing import TextIO

from benchmarks.clients import LoadFailed
from benchmarks.lab import Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, all_running
from benchmarks.store import Blob, Store, blocks
from tests.clients import daemons, tools
from tests.clients.images import HERE
from tests.clients.shell import CommandFailed, Output, Shell

from .pull import check_digest

REPOSITORY = "bench/whole"
TAG = "v1"
SHARES = (30, 20, 15, 10, 7.5, 5, 4, 3, 2.5, 1.5, 1, 0.5)
"""Per cent of the image's bytes in each of its 12 layers: a few are large, as in most images."""
ROUNDS = 3

Pull = Callable[[Running], None]


class Whole:
    name = "whole"
    about = "docker pull and ctr pull of a 2 GB image of 12 layers (full runs only, as root)"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        if not lab.scale.image_bytes:
            return
        fatal, _ = tools.complaints({"docker", "containerd"})
        if fatal or os.geteuid() != 0:
            why = "; ".join(fatal) or "needs root"
            yield Case("docker and ctr", "s", notes=dict.fromkeys((s.name for s in self.servers), why))
            return
        with lab.store(self.name) as store, lab.folder("whole") as folder:
            try:
                yield from self._cases(lab, store, folder)
            except (CommandFailed, subprocess.TimeoutExpired) as exc:
                raise LoadFailed(first_line(exc)) from exc

    def _cases(self, lab: Lab, store: Store, folder: Path) -> Iterator[Case]:
        image, layers = seed_image(store, lab.scale.image_bytes)
        with ExitStack() as stack:
            log = stack.enter_context((folder / "commands.log").open("w"))
            shell = QuietShell(folder / "home", log)
            address = stack.enter_context(daemons.containerd(shell, folder / "containerd", folder / "containerd.log"))
            host = stack.enter_context(daemons.dockerd(shell, folder / "dockerd", folder / "dockerd.log", address))
            servers = stack.enter_context(all_running(self.servers, store.root, folder / "servers"))
            docker, ctr = Docker(shell, host, image.digest), Ctr(shell, address, image.digest)
            size = sum(layer.size for layer in layers)

            def read_once(server: Running) -> Load:
                for layer in layers:
                    check_digest(server, layer, REPOSITORY)
                return Load({})

            kinds = (
                ("docker pull", docker.pull, docker.forget),
                ("ctr pull", ctr.pull, ctr.forget),
                ("ctr fetch, nothing unpacked", ctr.fetch, ctr.forget),
            )
            for name, pull, forget in kinds:
                measure = timed(pull, forget, size)
                rounds = min(ROUNDS, lab.scale.rounds)
                yield lab.case(name, "s", servers, measure, warm=read_once, rounds=rounds)


def timed(pull: Pull, forget: Callable[[], None], size: int) -> Measure:
    def measure(server: Running) -> Load:
        os.sync()
        try:
            start = time.perf_counter()
            pull(server)
            seconds = time.perf_counter() - start
            forget()
        except (CommandFailed, subprocess.TimeoutExpired) as exc:
            raise LoadFailed(first_line(exc)) from exc
        return Load({"s": seconds}, bytes=size)

    return measure


def first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0]


class QuietShell(Shell):
    """What the commands print goes into a file."""

    def __init__(self, home: Path, log: TextIO) -> None:
        super().__init__(home)
        self._log = log

    def __call__(
        self,
        command: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> Output:
        with redirect_stdout(self._log):
            return super().__call__(command, *arguments, env=env, stdin=stdin, cwd=cwd)


class Docker:
    """The docker command against a dockerd of our own."""

    def __init__(self, shell: Shell, host: str, digest: str) -> None:
        self._shell = shell
        self._env = {"DOCKER_HOST": host}
        self._digest = digest

    def pull(self, server: Running) -> None:
        """Raises LoadFailed when docker has got another image."""
        out = self._shell("docker", "pull", reference(server), env=self._env).out
        if self._digest not in out:
            raise LoadFailed(f"docker pulled something else: {out[-300:]}")

    def forget(self) -> None:
        self._shell("docker", "image", "prune", "--all", "--force", env=self._env)


class Ctr:
    """The ctr command against a containerd of our own."""

    def __init__(self, shell: Shell, address: Path, digest: str) -> None:
        self._shell = shell
        self._ctr = ("--address", str(address))
        self._digest = digest

    def pull(self, server: Running) -> None:
        self._shell("ctr", *self._ctr, "images", "pull", "--plain-http", reference(server))
        self._check()

    def fetch(self, server: Running) -> None:
        self._shell("ctr", *self._ctr, "content", "fetch", "--plain-http", reference(server))
        self._check()

    def _check(self) -> None:
        out = self._shell("ctr", *self._ctr, "content", "ls", "--quiet").out
        if self._digest not in out:
            raise LoadFailed("containerd does not have the image that it was to pull")

    def forget(self) -> None:
        for image in self._shell("ctr", *self._ctr, "images", "ls", "--quiet").out.split():
            self._shell("ctr", *self._ctr, "images", "rm", "--sync", image)
        if left := self._shell("ctr", *self._ctr, "content", "ls", "--quiet").out.split():
            raise LoadFailed(f"containerd keeps {len(left)} blobs: the next pull would not fetch them")


def reference(server: Running) -> str:
    return f"127.0.0.1:{server.port}/{REPOSITORY}:{TAG}"


def seed_image(store: Store, size: int) -> tuple[Blob, list[Blob]]:
    """Write the image; its manifest and its layers, which have `size` bytes together (compressed, about)."""
    layers, differences = [], []
    for number, share in enumerate(SHARES):
        layer = Layer(f"layer-{number}", int(size * share / 100))
        layers.append(store.add_blob(REPOSITORY, layer.packed()))
        differences.append(f"sha256:{layer.difference.hexdigest()}")
    config = {
        "os": "linux",
        "architecture": HERE,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": differences},
        "history": [{"created_by": "benchmarks/suites/whole.py"} for _ in SHARES],
    }
    return store.add_image(REPOSITORY, layers, TAG, config=json.dumps(config).encode()), layers


class Layer:
    """A tar of one file, packed while it is made: blocks of noise, each followed by as many zeros."""

    def __init__(self, name: str, packed_size: int) -> None:
        self._header = tarfile.TarInfo(name)
        self._noise = packed_size
        self._header.size = packed_size * 2
        self.difference = hashlib.sha256()

    def packed(self) -> Iterator[bytes]:
        packer = zlib.compressobj(1, zlib.DEFLATED, 31)
        for piece in self._tar():
            self.difference.update(piece)
            yield packer.compress(piece)
        yield packer.flush()

    def _tar(self) -> Iterator[bytes]:
        yield self._header.tobuf()
        for block in blocks(self._noise):
            yield block
            yield bytes(len(block))
        padding = -self._header.size % tarfile.BLOCKSIZE
        yield bytes(padding + 2 * tarfile.BLOCKSIZE)  # a tar ends with two blocks of zeros

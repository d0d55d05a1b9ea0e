"""A fleet: one writer and read-only replicas on one bucket, docker and containerd pulling while pushes go on.

The replicas' user may Get and List alone, and their way to the store can be made narrow, so that a pull has a middle in
which its replica can be killed.
"""

import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from tests.s3.calls import GET
from tests.s3.relay import Relay, relaying
from tests.s3.replicas import Replica
from tests.s3.servers import S3Server

from .api import Registry
from .images import HERE, OCI_MANIFEST, Files, Layout, add_image, add_layer, root_files, sha256
from .shell import CommandFailed, Shell
from .test_containerd import Ctr
from .test_docker import Docker

pytestmark = pytest.mark.clients

READERS = 4
ROUNDS = 3
FRESH_SIZE = 1_500_000
NARROW = 5e6
"""Bytes a second: a layer of 30 MB takes some seconds."""
PATIENCE = 60.0


@dataclass
class Fleet:
    """relay: between the replicas (and whom they redirect) and the store."""

    redirects: bool
    writer: Replica
    readers: list[Replica]
    relay: Relay

    def registry(self, replica: Replica) -> Registry:
        return Registry(f"localhost:{replica.port}", replica.http)


@pytest.fixture(scope="module", params=[False, True], ids=["bodies", "redirects"])
def fleet(request: pytest.FixtureRequest, workspace: Path, seaweedfs: S3Server) -> Iterator[Fleet]:
    redirects: bool = request.param
    place, folder = seaweedfs.new_root(), workspace / f"fleet-{request.param}"
    with relaying(seaweedfs.endpoint) as relay, ExitStack() as stack:
        common = {"redirect": {"disable": not redirects}}
        reading = seaweedfs.parameters(*place, keys=seaweedfs.reader, endpoint=relay.endpoint)
        readonly = {"s3": reading, "maintenance": {"readonly": {"enabled": True}}, **common}
        writer = Replica(folder, {"s3": seaweedfs.parameters(*place), **common})
        readers = [Replica(folder, readonly) for _ in range(READERS)]
        for replica in (writer, *readers):
            replica.start()
            stack.callback(replica.stop)
        yield Fleet(redirects, writer, readers, relay)
        for replica in (writer, *readers):
            assert "Traceback" not in replica.log.read_text(), replica.log.read_text()[-4000:]


@pytest.fixture
def repository(run_name: str, request: pytest.FixtureRequest) -> str:
    """A repository of the test's own: the name with its parameters."""
    words = "".join(letter if letter.isalnum() else " " for letter in request.node.name.removeprefix("test_"))
    return f"{run_name}/replicas/{'-'.join(words.split())}"


@pytest.fixture
def docker(shell: Shell, docker_host: str) -> Iterator[Docker]:
    docker = Docker(shell, docker_host)
    yield docker
    docker.forget_everything()


@pytest.fixture
def ctr(shell: Shell, containerd_address: Path, folder: Path, fleet: Fleet) -> Iterator[Ctr]:
    ctr = Ctr(shell, containerd_address, folder / "certs.d")
    for replica in fleet.readers:
        ctr.add_host(f"localhost:{replica.port}", f"http://localhost:{replica.port}")
    yield ctr
    ctr.forget_everything()


@dataclass
class Pusher:
    """Pushes images under new tags, and `latest` with each; asks every replica for both as soon as they are there."""

    fleet: Fleet
    repository: str
    layout: Layout
    newest: str = ""
    contents: dict[str, str] = field(default_factory=dict)
    """Tag to digest of its /random.bin."""

    def push(self, tag: str) -> None:
        content = os.urandom(FRESH_SIZE)
        own: Files = {"random.bin": content}
        layers = [add_layer(self.layout.path, files) for files in (root_files(), own)]
        digest = add_image(self.layout.path, HERE, layers)["digest"]
        self.layout.digests[tag] = digest
        writer = self.fleet.writer
        self.fleet.registry(writer).push_layout(self.repository, self.layout, tag)
        body = self.layout.blob(digest)
        latest = f"/v2/{self.repository}/manifests/latest"
        put = writer.http.put(latest, content=body, headers={"Content-Type": OCI_MANIFEST})
        assert put.status_code == 201, put.text
        for replica in self.fleet.readers:
            for name in (tag, "latest"):
                assert self.fleet.registry(replica).digest(self.repository, name) == digest, f"{name} at {replica.port}"
        self.contents[tag] = sha256(content)
        self.newest = tag

    def push_until(self, stop: threading.Event) -> None:
        for number in count():
            if stop.is_set():
                return
            self.push(f"v{number}")


@contextmanager
def pushing(pusher: Pusher) -> Iterator[None]:
    """All through the block; what failed there fails here."""
    stop = threading.Event()
    pusher.push("first")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(pusher.push_until, stop)
        try:
            yield
        finally:
            stop.set()
            done.result()


def test_pulls_go_on_while_tags_are_pushed(
    fleet: Fleet, docker: Docker, ctr: Ctr, repository: str, folder: Path
) -> None:
    pusher = Pusher(fleet, repository, Layout(folder / "layout", {}, ""))
    pulled: list[tuple[str, str, str]] = []

    def pull(pull_one: Callable[[str], str], replica: Replica) -> None:
        tag = pusher.newest
        image = f"localhost:{replica.port}/{repository}:{tag}"
        pulled.append((image, pull_one(image), pusher.layout.digests[tag]))

    with pushing(pusher), ThreadPoolExecutor(READERS) as pool:
        for turn in range(ROUNDS):
            turned = fleet.readers[turn:] + fleet.readers[:turn]
            pulls = [docker.pull, ctr.pull] * (READERS // 2)
            for future in [pool.submit(pull, *pair) for pair in zip(pulls, turned, strict=True)]:
                future.result()
    assert len(pulled) == ROUNDS * READERS
    assert [(image, got) for image, got, _ in pulled] == [(image, digest) for image, _, digest in pulled]
    tags = list(pusher.layout.digests)
    assert len(tags) > ROUNDS
    for image, _, _ in pulled:
        if image in docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").out.split():
            found = docker.run(image, "sha256sum", "/random.bin").split()[0]
            assert f"sha256:{found}" == pusher.contents[image.rpartition(":")[2]]
    for replica in fleet.readers:
        registry = fleet.registry(replica)
        assert registry.tags(repository) == sorted([*tags, "latest"])
        assert registry.check_complete(repository, tags[-1]) == pusher.layout.digests[tags[-1]]
        assert {tag: registry.digest(repository, tag) for tag in tags} == pusher.layout.digests
    print(f"fleet: {len(tags)} tags pushed and seen by {READERS} replicas at once; {len(pulled)} pulls right meanwhile")


@pytest.mark.parametrize("client", ["docker", "containerd"])
def test_a_replica_is_killed_in_the_middle_of_a_pull(
    fleet: Fleet, client: str, docker: Docker, ctr: Ctr, repository: str, layout: Layout
) -> None:
    """The pull, or the next try of it, succeeds at the same replica when it is back."""
    fleet.registry(fleet.writer).push_layout(repository, layout, HERE)
    replica = fleet.readers[1]
    image = f"localhost:{replica.port}/{repository}:{HERE}"
    pull = docker.pull if client == "docker" else ctr.pull
    large = max(layout.manifest(HERE)["layers"], key=size_of)["digest"].removeprefix("sha256:")

    def bodies() -> int:
        return sum(
            call.operation == GET and f"/{large}/" in call.key and call.status in (200, 206)
            for call in fleet.relay.calls
        )

    fleet.relay.forget()
    fleet.relay.rate = NARROW
    try:
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(pull, image)
            wait_for(lambda: bodies() > 0, first)
            replica.kill()
            assert not first.done()
            met = bodies()
            replica.restart()
            fleet.relay.rate = None
            try:
                digest, tries = first.result(), 1
            except CommandFailed:
                digest, tries = pull(image), 2
    finally:
        fleet.relay.rate = None
    assert digest == layout.digests[HERE]
    assert fleet.redirects or bodies() > met, "the layer was whole before the replica was killed"
    if client == "docker":
        found = docker.run(image, "sha256sum", "/random.bin").split()[0]
        assert f"sha256:{found}" == layout.random_digest
    else:
        assert set(layout.below(HERE)) <= ctr.stored()
    print(f"fleet: killed in a pull by {client}: right at try {tries} of the command")


def size_of(descriptor: dict[str, Any]) -> int:
    size: int = descriptor["size"]
    return size


def wait_for(condition: Callable[[], bool], pull: "Future[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert not pull.done(), "the pull was over before it could be met"
        assert time.monotonic() < deadline
        time.sleep(0.01)

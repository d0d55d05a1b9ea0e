"""Every request of a push goes to one of two replicas at random, as a load balancer sends it that remembers nothing.

What a client has been told stays true wherever it asks next: how far an upload is, that a blob is there. That holds
too when a replica is killed between two requests or in the middle of one, and started again.

MOORAGE_ROUTES sets how many pushes a round has, MOORAGE_SEED where it starts; a push that fails says its seed.
"""

import os
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api import digest_of, with_query
from tests.interop.content import answered, path_of
from tests.s3.replicas import Replica
from tests.s3.servers import S3Server

PUSHES = int(os.environ.get("MOORAGE_ROUTES", "6"))
SEED = int(os.environ.get("MOORAGE_SEED", "0"))
CHUNK = 5 << 20
BUFFERED = 256 << 10
"""Bytes in which a body that breaks off is sent."""


class Push:
    """One blob on its way; what it needs to know is what the registry has told its client."""

    def __init__(self, seed: int, replicas: list[Replica], *, kills: bool) -> None:
        self.chance = random.Random(seed)
        self.replicas = replicas
        self.name = f"routed/s{seed}"
        self.kills = kills
        self.pieces = [self.chance.randbytes(self._size()) for _ in range(self.chance.randint(1, 4))]
        self.data = b"".join(self.pieces)
        self.digest = digest_of(self.data)
        self.broke = False
        self.story: list[str] = []

    def _size(self) -> int:
        special = [1, CHUNK - 1, CHUNK, CHUNK + 1]
        return self.chance.choice([*special, int(2 ** self.chance.uniform(0, 23.5)), self.chance.randint(1, 12 << 20)])

    def any(self) -> Replica:
        return self.chance.choice(self.replicas)

    def send(self, method: str, url: str, status: int, **more: Any) -> httpx.Response:
        """To whichever replica it is."""
        if self.kills and self.chance.random() < 0.1:
            victim = self.any()
            self.story.append(f"kill {victim.port}")
            victim.kill()
            victim.restart()
        replica = self.any()
        self.story.append(f"{method} at {replica.port}, {len(more.get('content', b''))} bytes")
        return answered(replica.http.request(method, url, **more), status)

    def run(self) -> None:
        uploads = f"/v2/{self.name}/blobs/uploads/"
        if self.chance.random() < 0.15:
            self.send("POST", with_query(uploads, digest=self.digest), 201, content=self.data)
            return
        location, offset = path_of(self.send("POST", uploads, 202).headers["Location"]), 0
        if self.chance.random() < 0.2:
            self.send("PUT", with_query(location, digest=self.digest), 201, content=self.data)
            return
        closing = self.pieces.pop() if self.chance.random() < 0.3 else b""
        for piece in self.pieces:
            location = self.asked(location, offset)
            if self.kills and len(piece) > BUFFERED and self.chance.random() < 0.5:
                location = self.broken_off(location, offset, piece)
            else:
                location = self.patched(location, offset, piece)
            offset += len(piece)
        location = self.asked(location, offset)
        self.send("PUT", with_query(location, digest=self.digest), 201, content=closing)

    def asked(self, location: str, offset: int) -> str:
        """Sometimes, how far the upload is: any number of times, anywhere."""
        while self.chance.random() < 0.3:
            status = self.send("GET", location, 204)
            assert status.headers["Range"] == f"0-{max(offset - 1, 0)}"
            location = path_of(status.headers["Location"])
        return location

    def patched(self, location: str, offset: int, piece: bytes) -> str:
        headers = {}
        if self.chance.random() < 0.5:
            headers["Content-Range"] = f"{offset}-{offset + len(piece) - 1}"
        sent = self.send("PATCH", location, 202, content=piece, headers=headers)
        assert sent.headers["Range"] == f"0-{offset + len(piece) - 1}"
        return path_of(sent.headers["Location"])

    def broken_off(self, location: str, offset: int, piece: bytes) -> str:
        """A PATCH whose replica dies half-way: any replica tells from where to send again."""
        victim, self.broke = self.any(), True
        self.story.append(f"PATCH broken off at {victim.port}")
        with pytest.raises(httpx.TransportError):
            victim.http.patch(location, content=half_and_killed(piece, victim))
        victim.restart()
        status = self.send("GET", location, 204)
        last = int(status.headers["Range"].partition("-")[2])
        stored = last + 1 if last else min(offset, 1)  # 0-0 is one byte, or none
        assert offset <= stored <= offset + len(piece), "more than was sent, or less than was acknowledged"
        return self.patched(path_of(status.headers["Location"]), stored, self.data[stored : offset + len(piece)])

    def check(self) -> None:
        for replica in self.replicas:
            found = answered(replica.http.get(f"/v2/{self.name}/blobs/{self.digest}"), 200)
            assert found.content == self.data
            head = answered(replica.http.head(f"/v2/{self.name}/blobs/{self.digest}"), 200)
            assert head.headers["Content-Length"] == str(len(self.data))


def half_and_killed(piece: bytes, victim: Replica) -> Iterator[bytes]:
    half = len(piece) // 2
    for start in range(0, half, BUFFERED):
        yield piece[start : min(start + BUFFERED, half)]
    victim.kill()
    yield piece[half:]


@contextmanager
def pair(folder: Path, parameters: dict[str, Any]) -> Iterator[list[Replica]]:
    storage = {"s3": parameters, "redirect": {"disable": True}}
    replicas = [Replica(folder, storage), Replica(folder, storage)]
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        yield replicas


@pytest.mark.slow
@pytest.mark.parametrize("kills", [False, True], ids=["both-live", "some-killed"])
def test_each_request_goes_anywhere(seaweedfs: S3Server, tmp_path: Path, kills: bool) -> None:
    bucket, root = seaweedfs.new_root()
    parameters = seaweedfs.parameters(bucket, root) | {"chunksize": CHUNK}
    pushes = []
    with pair(tmp_path, parameters) as replicas:
        for seed in range(SEED, SEED + PUSHES):
            push = Push(seed, replicas, kills=kills)
            try:
                push.run()
                push.check()
            except BaseException:
                print(f"seed {seed}: {len(push.data)} bytes", *push.story, sep="\n")
                raise
            pushes.append(push)
        for push in pushes:
            push.check()
    store = f"{root}/docker/registry/v2"
    opened = [key for key in seaweedfs.open_uploads(bucket) if key.startswith(root)]
    assert not [key for key in opened if key.startswith(f"{store}/blobs/")]
    # what a broken connection leaves is the purger's; whoever met none leaves nothing
    left = [*opened, *(key for key in seaweedfs.keys_of(bucket, f"{store}/repositories/") if "/_uploads/" in key)]
    tidy = [f"{store}/repositories/{push.name}/" for push in pushes if not push.broke]
    assert not [key for key in left if key.startswith(tuple(tidy))]
    killed, broken = sum(replica.kills for replica in replicas), sum(push.broke for push in pushes)
    print(f"random routing: {len(pushes)} pushes read back through both replicas; {killed} kills, {broken} in a PATCH")
    assert killed or not kills

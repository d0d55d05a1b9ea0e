"""A client that stops reading holds S3 back: what is on its way to it is bounded, and comes whole when it goes on."""

import hashlib
import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.api import digest_of, with_query
from tests.interop.content import answered, path_of
from tests.s3.relay import Relay, relaying
from tests.s3.replicas import Replica
from tests.s3.servers import S3Server

pytestmark = pytest.mark.slow

NAME = "team/slow"
DATA = os.urandom(1 << 20) * 96
ON_THE_WAY = 32 << 20
"""Bytes that the kernel's buffers of four sockets and the registry's own may hold."""

QUIET = 1.0
"""Seconds without a byte from the store: then nothing more comes."""


@pytest.fixture
def relay(seaweedfs: S3Server) -> Iterator[Relay]:
    with relaying(seaweedfs.endpoint) as relay:
        yield relay


@pytest.fixture
def replica(seaweedfs: S3Server, relay: Relay, tmp_path: Path) -> Iterator[Replica]:
    parameters = seaweedfs.parameters(*seaweedfs.new_root(), endpoint=relay.endpoint)
    replica = Replica(tmp_path, {"s3": parameters, "redirect": {"disable": True}})
    replica.start()
    location = path_of(answered(replica.http.post(f"/v2/{NAME}/blobs/uploads/"), 202).headers["Location"])
    answered(replica.http.put(with_query(location, digest=digest_of(DATA)), content=DATA), 201)
    yield replica
    replica.stop()


def test_it_holds_the_store_back(relay: Relay, replica: Replica) -> None:
    relay.forget()
    memory = memory_of(replica.pid)
    with closing(socket.socket()) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        client.settimeout(60)
        client.connect(("127.0.0.1", replica.port))
        client.sendall(f"GET /v2/{NAME}/blobs/{digest_of(DATA)} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head, _, body = received(client, 1 << 20).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
        held = until_quiet(relay)
        grown = memory_of(replica.pid) - memory
        print(f"\nslow client: took {len(body)} bytes, the store gave {held}, memory grew by {grown}")
        assert len(body) <= held < ON_THE_WAY
        assert grown < ON_THE_WAY
        rest = received(client, len(DATA) - len(body))
    assert hashlib.sha256(body + rest).digest() == hashlib.sha256(DATA).digest()


def received(client: socket.socket, size: int) -> bytes:
    got = bytearray()
    while len(got) < size and (piece := client.recv(min(size - len(got), 1 << 20))):
        got += piece
    return bytes(got)


def until_quiet(relay: Relay) -> int:
    """Bytes of the object that the store has given when no more come."""
    given, since = -1, time.monotonic()
    while time.monotonic() - since < QUIET:
        now = sum(call.delivered for call in relay.calls)
        if now != given:
            given, since = now, time.monotonic()
        time.sleep(0.02)
    return given


def memory_of(pid: int) -> int:
    """Bytes in memory, of the whole process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

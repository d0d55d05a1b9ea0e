"""S1 and S2: what a request may cost in memory, measured in a process of its own."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import rawsocket
from tests.security.process import MIB, Process, serving


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with serving(tmp_path_factory.mktemp("memory"), {"storage": {"inmemory": {}}}) as process:
        # what is loaded at the first request of a kind is no growth
        for target in ("/v2/", "/v2/_catalog?n=5", "/v2/a/tags/list?n=5"):
            ask(process, rawsocket.request("GET", target))
        yield process


def ask(process: Process, data: bytes) -> rawsocket.Response:
    with rawsocket.connected(process.host, process.port) as client:
        client.send_until_closed(data)
        return client.response()


@pytest.mark.slow
@pytest.mark.parametrize("n", ["2147483647", "10000000000000000000", "9" * 4000])
@pytest.mark.parametrize("path", ["/v2/_catalog", "/v2/a/tags/list"])
def test_s1_a_huge_n_costs_nothing(process: Process, path: str, n: str) -> None:
    process.reset_peak()
    before = process.memory()
    for _ in range(20):
        assert ask(process, rawsocket.request("GET", f"{path}?n={n}")).status in (200, 400, 404)
    assert process.peak() - before < 10 * MIB


@pytest.mark.slow
def test_s2_an_announced_body_is_refused_without_reading(process: Process) -> None:
    process.reset_peak()
    before = process.memory()
    head = b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n"
    assert ask(process, head).status == 413, "answered though no byte of the body was sent"
    assert ask(process, head + bytes(900_000)).status == 413, "and before a part of it that was"
    assert process.peak() - before < 8 * MIB


@pytest.mark.slow
def test_s2_a_chunked_body_is_refused_at_the_limit(process: Process) -> None:
    process.reset_peak()
    before = process.memory()
    head = b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
    with rawsocket.connected(process.host, process.port) as client:
        client.send(head)
        for _ in range(5):  # the limit, and what is read and dropped behind it, is less than this
            client.send_until_closed(chunk)
        response = client.response()
    assert response.status == 413
    assert process.peak() - before < 8 * MIB


@pytest.mark.slow
def test_s2_many_at_once_cost_no_more_than_their_limits(process: Process) -> None:
    process.reset_peak()
    before = process.memory()
    head = b"PUT /v2/a/manifests/v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 104857600\r\n\r\n"
    for _ in range(50):
        assert ask(process, head).status == 413
    assert process.memory() - before < 8 * MIB
    assert process.peak() - before < 8 * MIB


@pytest.mark.slow
def test_s2_a_blob_is_never_held_as_a_whole(tmp_path: Path) -> None:
    """128 MiB through a registry on a disk, pushed and pulled."""
    block, blocks = bytes(range(256)) * 4096, 128
    digest = hashlib.sha256(block * blocks).hexdigest()
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}}
    with serving(tmp_path, {"storage": storage}) as process:
        ask(process, rawsocket.request("POST", "/v2/a/blobs/uploads/"))
        process.reset_peak()
        before = process.memory()
        with rawsocket.connected(process.host, process.port) as client:
            client.send(
                rawsocket.request(
                    "POST", f"/v2/a/blobs/uploads/?digest=sha256:{digest}", f"Content-Length: {len(block) * blocks}"
                )
            )
            for _ in range(blocks):
                client.send(block)
            assert client.response().status == 201
            client.send(rawsocket.request("GET", f"/v2/a/blobs/sha256:{digest}"))
            assert hashlib.sha256(client.response().body).hexdigest() == digest
        assert process.peak() - before < 32 * MIB

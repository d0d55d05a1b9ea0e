"""Every bad request of this folder at once, to one server: no 5xx, the process lives, and good requests work.

Row 57 and 124 to 126a are the server class's, in tests/registry/serving/test_protocol.py; a few of them run along here.
"""

import asyncio
import json
import random

from registry.errors import SPEC_CODES
from tests import rawsocket
from tests.api import digest_of
from tests.behaviour import (
    test_deletes,
    test_lists,
    test_manifests,
    test_names,
    test_pull,
    test_references,
    test_uploads,
)
from tests.behaviour.table import MANIFEST_DIGEST, NAME, Bad, Wire, check_error

CORPUS: list[Bad] = [
    *test_names.CORPUS,
    *test_references.CORPUS,
    *test_uploads.CORPUS,
    *test_manifests.CORPUS,
    *test_pull.CORPUS,
    *test_lists.CORPUS,
    *test_deletes.CORPUS,
]

SEED = 20261122
AT_ONCE = 16
"""Connections that send at the same time."""

GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    rawsocket.request("PUT", f"/v2/{NAME}/manifests/v1", "Transfer-Encoding: chunked", "Content-Length: 5")
    + b"0\r\n\r\n",
    rawsocket.request("PUT", f"/v2/{NAME}/manifests/v1", "Transfer-Encoding: chunked") + b"F" * 18 + b"\r\n",
    rawsocket.request("GET", "/v2/", "X: " + "a" * 70_000),
    rawsocket.request("GET", "/v2/?" + "a" * 1_000_000),
]


async def test_everything_at_once(wire: Wire) -> None:
    """In an order that is random and the same each time."""
    before = await wire.world.seen()
    cases = [*CORPUS]
    random.Random(SEED).shuffle(cases)
    slots = asyncio.Semaphore(AT_ONCE)

    async def send(case: Bad) -> None:
        async with slots:
            response = await asyncio.to_thread(wire.ask, case.raw(), case.method)
        assert response.status < 500, case
        check_error(response.status, response.headers, response.body, case)

    async def send_garbage(data: bytes) -> None:
        async with slots:
            response = await asyncio.to_thread(wire.ask, data)
        assert 400 <= response.status < 500
        assert json.loads(response.body)["errors"][0]["code"] in SPEC_CODES

    async def pull() -> None:
        for _ in range(20):
            async with slots:
                response = await wire.api.get(f"/v2/{NAME}/manifests/v1")
            assert (response.status_code, response.headers["Docker-Content-Digest"]) == (200, MANIFEST_DIGEST)

    async def push(n: int) -> None:
        data = b"pushed meanwhile %d" % n
        async with slots:
            digest = await wire.api.push_blob("meanwhile", data)
        assert digest == digest_of(data)
        assert (await wire.api.get(f"/v2/meanwhile/blobs/{digest}")).content == data

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(send(case))
        for data in GARBAGE * 3:
            group.create_task(send_garbage(data))
        for n in range(10):
            group.create_task(push(n))
        group.create_task(pull())
    after = await wire.world.seen()
    meanwhile = {path for path in after["files"] if "/blobs/" in path or "/meanwhile/" in path}
    assert (after["files"] ^ before["files"]) - meanwhile == frozenset()
    assert {k: v for k, v in after.items() if k != "files"} == {k: v for k, v in before.items() if k != "files"}


async def test_a_connection_survives_refusals(wire: Wire) -> None:
    """What the application refuses does not end the connection: the next request on it is answered."""
    cases = [case for case in CORPUS if not case.body and case.status in (400, 404, 405) and len(case.target) < 8000]
    closing = ("connect", "unknown-method", "raw-utf8")  # refused by the parser
    with rawsocket.connected(wire.server.host, wire.server.port) as client:
        for case in cases:
            if case.what in closing or case.method == "CONNECT":
                continue
            client.send(case.raw())
            response = client.response(case.method)
            check_error(response.status, response.headers, response.body, case)
        client.send(rawsocket.request("GET", f"/v2/{NAME}/tags/list"))
        assert client.response().status == 200

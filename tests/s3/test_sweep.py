"""Every operation, with a fault at every call that it makes to the store, one after the other (F7 to F12).

The registry may get over a fault, or answer 503 with Retry-After; it never takes a fault for "not found", never
delivers wrong bytes, loses nothing that it has acknowledged, and goes on as soon as the fault is over.

`make test` sweeps a few ways to fail, MOORAGE_SWEEP=all (`make crash-bucket`) all of them.
"""

import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from tests.api import Api, digest_of
from tests.faults.operations import NAME, OPERATIONS, Client, Operation, pulls
from tests.s3.registries import config_of, quick_retries, serving
from tests.s3.relay import FOREVER, Fault, Relay, denied, expired, no_bucket, slow_down
from tests.s3.servers import S3Server

LARGE = bytes(range(1, 252)) * 46_000  # 11 MiB: three parts of 5 MiB
CHUNK = 5 << 20


async def push_large(client: Client) -> None:
    location = (await client.send("POST", f"/v2/{NAME}/blobs/uploads/", 202)).headers["Location"]
    await client.upload(location, LARGE, closing=digest_of(LARGE))
    await pulls(client, LARGE)


async def push_large_streamed(client: Client) -> None:
    """As docker does."""
    location = (await client.send("POST", f"/v2/{NAME}/blobs/uploads/", 202)).headers["Location"]
    location = (await client.upload(location, LARGE)).headers["Location"]
    await client.upload(location, b"", closing=digest_of(LARGE), offset=len(LARGE))
    await pulls(client, LARGE)


async def prepare_large(client: Client) -> None:
    await client.api.push_blob(NAME, LARGE)


async def pull_large(client: Client) -> None:
    blob = f"/v2/{NAME}/blobs/{digest_of(LARGE)}"
    assert (await client.send("GET", blob, 200)).content == LARGE
    part = await client.send("GET", blob, 206, headers={"Range": f"bytes={CHUNK - 9}-{CHUNK + 9}"})
    assert part.content == LARGE[CHUNK - 9 : CHUNK + 10]


SMALL = {operation.name: operation for operation in OPERATIONS}
LARGE_ONES = [
    Operation("push-large", push_large),
    Operation("push-large-streamed", push_large_streamed),
    Operation("pull-large", pull_large, prepare_large, reads=True, keeps=False),
]


def told(fault: Fault) -> Fault:
    """Not by HEAD: there S3 says 404 and no more, which is "no such object" where the bucket was there before."""
    return replace(fault, where=lambda call: call.method != "HEAD")


WAYS: dict[str, Callable[[int], Fault]] = {
    "slow-down": slow_down,
    "error-after": lambda call: Fault("answer-after", call, status=500, code="InternalError"),
    "reset-before": lambda call: Fault("reset-before", call),
    "reset-after": lambda call: Fault("reset-after", call),
    "stall": lambda call: Fault("stall", call),
    "stall-after": lambda call: Fault("stall-after", call),
    "stall-body": lambda call: Fault("stall-body", call),
    "short": lambda call: Fault("short", call),
    "broken": lambda call: Fault("broken", call),
    "cut": lambda call: Fault("cut", call),
    "dead": lambda call: Fault("dead", call),
    "denied": denied,
    "expired": expired,
    "skewed": lambda call: denied(call, code="RequestTimeTooSkewed"),
    "no-bucket": lambda call: told(no_bucket(call)),
    "outage-slow-down": lambda call: slow_down(call, FOREVER),
    "outage-reset": lambda call: Fault("reset-before", call, FOREVER),
    "outage-lost": lambda call: Fault("reset-after", call, FOREVER),
    "outage-error-after": lambda call: Fault("answer-after", call, FOREVER, status=500, code="InternalError"),
    "outage-broken": lambda call: Fault("broken", call, FOREVER),
    "outage-cut": lambda call: Fault("cut", call, FOREVER),
    "outage-denied": lambda call: denied(call, FOREVER),
    "outage-expired": lambda call: expired(call, FOREVER),
    "outage-no-bucket": lambda call: told(no_bucket(call, FOREVER)),
}
ALL = os.environ.get("MOORAGE_SWEEP") == "all"
SHORT = [
    ("push-with-put", "outage-lost"),
    ("push-chunks", "outage-lost"),
    ("put-by-tag", "reset-after"),
    ("pull", "outage-no-bucket"),
    ("delete", "outage-denied"),
    ("push-large", "cut"),
]
STEP = 1 if ALL else 5
"""Every how-manieth call fails."""
CASES = (
    [(name, way) for name in [*SMALL, *(operation.name for operation in LARGE_ONES)] for way in WAYS] if ALL else SHORT
)


class Way:
    """The way to the store, as the operations' client wants it."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay

    @property
    def fault(self) -> Any:
        return self.relay.faults[0] if self.relay.faults else None

    @fault.setter
    def fault(self, fault: Any) -> None:
        self.relay.faults[:] = [fault] if fault is not None else []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "way"), CASES)
async def test_a_fault_at_every_call(name: str, way: str, seaweedfs: S3Server) -> None:
    operation = {**SMALL, **{operation.name: operation for operation in LARGE_ONES}}[name]
    with quick_retries():
        async with Relay(seaweedfs.endpoint) as relay:
            calls = 0
            while await meets_fault(operation, WAYS[way](calls + 1), seaweedfs, relay):
                calls += STEP
    assert calls >= 2, "the sweep has swept nothing"
    print(f"S3 fault sweep: {name}, {way}: calls 1 to {calls} failed, one after the other")


async def meets_fault(operation: Operation, fault: Fault, server: S3Server, relay: Relay) -> bool:
    """Run the operation with the fault; was it met?"""
    bucket, root = server.new_root()
    more: dict[str, Any] = {"chunksize": CHUNK, "readtimeout": 1 if fault.kind.startswith("stall") else 30}
    through = config_of(server.parameters(bucket, root, endpoint=relay.endpoint) | more)
    direct = config_of(server.parameters(bucket, root) | more)
    relay.clear()
    way = Way(relay)
    async with AsyncExitStack() as stack:
        if operation.prepare is not None:
            async with serving(direct) as api:
                await operation.prepare(Client(api.http, api, way, operation))
        met = await stack.enter_async_context(serving(through))
        calm = await stack.enter_async_context(httpx.AsyncClient(transport=Calm(met, way), base_url="http://registry"))
        client = Client(met.http, Api(calm), way, operation, heals=True)
        relay.forget()
        way.fault = fault
        try:
            await operation.run(client)
            way.fault = None
            other = await stack.enter_async_context(serving(direct))
            await Client(other.http, other, way, operation).check_whole()
        except BaseException:
            print(f"fault {fault}\n" + "\n".join(map(str, relay.calls)))
            raise
    return fault.fired > 0


class Calm(httpx.AsyncBaseTransport):
    """Requests to the same registry that pass while the fault waits."""

    def __init__(self, api: Api, way: Way) -> None:
        self._http, self._way = api.http, way

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault, self._way.fault = self._way.fault, None
        try:
            return await self._http._transport.handle_async_request(request)
        finally:
            self._way.fault = fault

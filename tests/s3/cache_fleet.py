"""Replicas of a cache as processes, forked from one that has imported everything: `python -m tests.s3.cache_fleet`.

    in    a job per line, as JSON: {id, parameters, hub, name, digest, readers, ttl, patience}
    out   {"id": of the job, "pid": 1} when its process has begun, {"id": ..., "sha": [...]} when its clients have read

Each job is one replica that fetches one blob for some clients, with leases as short as the test likes.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import traceback
from typing import Any

from registry.config.upstreams import UpstreamConfig
from registry.proxy.fetches import Fetches
from registry.proxy.lease import Terms
from registry.proxy.leases import Leases
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage import layout
from storage.digest import Digest
from storage.driver import ObjectReader
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from storage.names import parse_name
from tests.s3.registries import QUICK


async def replica(job: dict[str, Any]) -> list[str]:
    settings, digest = S3Settings.parse(job["parameters"]), Digest.parse(job["digest"])
    driver = S3Driver(settings, RestBucket(settings, retries=QUICK))
    leases = Leases(driver, waits=True, terms=Terms(ttl=job["ttl"], patience=job["patience"]))
    fetches = Fetches(driver, fresh=3600.0, leases=leases)
    upstream = Upstream(UpstreamConfig(url=job["hub"], name="hub"))
    name = parse_name(job["name"])
    source = UpstreamRepository(upstream, name)

    async def read() -> str:
        reader: ObjectReader | None = await fetches.open(source, name, digest)
        async with reader or await driver.open(layout.blob_data(digest)) as found:
            whole = hashlib.sha256()
            async for chunk in found.chunks():
                whole.update(chunk)
        return whole.hexdigest()

    try:
        found = await asyncio.gather(*(read() for _ in range(job["readers"])))
        await fetches.ended(digest)
        return found
    finally:
        await fetches.aclose()
        await upstream.aclose()
        await driver.aclose()


def say(**what: Any) -> None:
    """One write, so that lines of several processes stay whole."""
    os.write(1, json.dumps(what).encode() + b"\n")


def main() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        job = json.loads(line)
        if os.fork():
            continue
        say(id=job["id"], pid=os.getpid())
        found = ["failed"]
        try:
            found = asyncio.run(replica(job))
        finally:
            if found == ["failed"]:
                traceback.print_exc()
            say(id=job["id"], sha=found)
            os._exit(0)


if __name__ == "__main__":
    main()

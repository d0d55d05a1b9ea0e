"""What is asked instead of counted: once a second in each worker, and right before a page is made.

- How late the event loop is: four times a second, by a sleep that ends late.
- Connections and their bytes, of the server; requests that run (requests.py); upstreams (upstreams.py).
- What caches in memory have been asked.
"""

import asyncio
import time
from collections.abc import Callable

from registry.metrics import catalogue
from registry.metrics.numbers import Numbers
from registry.serving.lifespan import Hosting
from storage.lookups import Lookups

TICK = 0.25
TICKS = 4
"""Between two samples."""


async def sample_for_ever(numbers: Numbers, sample: Callable[[], None]) -> None:
    numbers.place(catalogue.LAG, ())  # on the page from the first moment
    while True:
        sample()
        for _ in range(TICKS):
            began = time.monotonic()
            await asyncio.sleep(TICK)
            numbers.observe(catalogue.LAG, (), max(0.0, time.monotonic() - began - TICK))


def sample_server(numbers: Numbers, hosting: Hosting) -> None:
    watch = hosting.watch
    received, sent = watch.traffic()
    numbers.set(catalogue.WORKERS, (), 1)
    numbers.set(catalogue.CONNECTIONS, (), len(watch.connections))
    numbers.set(catalogue.CONNECTIONS_LIMIT, (), hosting.limit)
    numbers.total(catalogue.ACCEPTED, (), watch.accepted)
    numbers.total(catalogue.REFUSED, (), watch.refused)
    numbers.total(catalogue.RECEIVED, (), received)
    numbers.total(catalogue.SENT, (), sent)


def sample_caches(numbers: Numbers, lookups: Lookups) -> None:
    for cache, asked in (("manifests", lookups.manifests), ("sizes", lookups.sizes), ("links", lookups.links)):
        numbers.total(catalogue.CACHE_REQUESTS, (cache,), asked.requests)
        numbers.total(catalogue.CACHE_HITS, (cache,), asked.hits)
        for kind, count in (("Request", asked.requests), ("Hit", asked.hits), ("Miss", asked.requests - asked.hits)):
            numbers.total(catalogue.CACHE, (kind, cache), count)

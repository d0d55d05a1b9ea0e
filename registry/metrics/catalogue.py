"""Every number that is exported: its name, kind, labels, and what it means. Pure.

Names and labels are distribution's wherever it has them, since operators have dashboards on them; a label more
(`upstream`, `worker`) leaves sums as they were. Labels have few values: endpoints, methods and codes that we know,
upstreams of the configuration; names of repositories only up to the number that the configuration asks for.
"""

from dataclasses import dataclass
from typing import Literal

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 60.0)
"""Of requests; distribution's."""

CALL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Of calls to the store: distribution's, and three below, where most calls of a filesystem are."""

LAG_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

SIZES = tuple(float(1024 << power) for power in range(22))
"""1 KiB to 2 GiB; distribution's."""

Kind = Literal["counter", "gauge", "histogram"]
Merge = Literal["sum", "max", "min"]


@dataclass(frozen=True, slots=True)
class Family:
    """name: of a counter without `_total`. merge: what several workers' gauges make together; the others add up."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = "sum"

    @property
    def width(self) -> int:
        """Numbers that one series takes: of a histogram each bucket, the one above all, and the sum."""
        return len(self.buckets) + 2 if self.buckets else 1


# Requests

REQUESTS = Family(
    "registry_http_requests",
    "counter",
    "Requests, by endpoint, status (0: the client left before there was any) and method.",
    ("handler", "code", "method"),
)
DURATION = Family(
    "registry_http_request_duration_seconds",
    "histogram",
    "Seconds from a request's head to the end of its answer, the client's pace included.",
    ("handler", "method"),
    SECONDS,
)
REQUEST_SIZE = Family(
    "registry_http_request_size_bytes", "histogram", "Bytes of requests' bodies.", ("handler",), SIZES
)
RESPONSE_SIZE = Family(
    "registry_http_response_size_bytes", "histogram", "Bytes of answers' bodies, as begun.", ("handler",), SIZES
)
IN_FLIGHT = Family("registry_http_in_flight_requests", "gauge", "Requests that are being answered.", ("handler",))
UPLOADS = Family("registry_http_uploads_in_progress", "gauge", "Requests that are bringing bytes of a blob.")
BROKEN = Family(
    "registry_http_broken_responses", "counter", "Answers that the store broke off in the middle.", ("handler",)
)
CONNECTIONS = Family("registry_http_connections", "gauge", "Open connections of clients.")
CONNECTIONS_LIMIT = Family("registry_http_connections_limit", "gauge", "limits.maxconnections, of all workers.")
ACCEPTED = Family("registry_http_connections_accepted", "counter", "Connections that clients have opened.")
REFUSED = Family("registry_http_connections_refused", "counter", "Of those, closed because the limit was reached.")
RECEIVED = Family("registry_http_received_bytes", "counter", "Bytes that came from clients, heads included.")
SENT = Family("registry_http_sent_bytes", "counter", "Bytes that were sent to clients, heads included.")

# Repositories, as many as the configuration asks for

PULLS = Family("registry_repository_pulls", "counter", "Manifests sent.", ("repository",))
PUSHES = Family("registry_repository_pushes", "counter", "Manifests stored.", ("repository",))
REPOSITORY_SENT = Family("registry_repository_sent_bytes", "counter", "Bytes of bodies sent.", ("repository",))
REPOSITORY_RECEIVED = Family("registry_repository_received_bytes", "counter", "Bytes received.", ("repository",))

# The store

ACTION_SECONDS = Family(
    "registry_storage_action_seconds",
    "histogram",
    "Seconds that a verb of the storage driver takes; those that wait for a client's bytes are left out.",
    ("driver", "action"),
    CALL_SECONDS,
)
ACTIONS = Family(
    "registry_storage_actions",
    "counter",
    "Verbs of the storage driver, by outcome: ok, missing, refused (a condition), full, failed, interrupted.",
    ("driver", "action", "outcome"),
)
CALL = Family(
    "registry_storage_call_seconds",
    "histogram",
    "Seconds of each request that the driver sends to its store (S3), repeats too.",
    ("driver", "call"),
    CALL_SECONDS,
)
CALLS = Family(
    "registry_storage_calls",
    "counter",
    "Requests that the driver has sent to its store (S3), repeats too, by status (0: no answer).",
    ("driver", "call", "code"),
)

# Caches in memory: distribution's has one, so that it needs no name

CACHE_REQUESTS = Family(
    "registry_storage_cache_requests", "counter", "Questions to a cache in memory, ahead of the store.", ("cache",)
)
CACHE_HITS = Family("registry_storage_cache_hits", "counter", "Of these, answered by it.", ("cache",))
CACHE = Family(
    "registry_storage_cache",
    "counter",
    "The same as distribution 2.8 has it: Request, Hit, Miss.",
    ("type", "cache"),
)

# Upstreams; the first six are distribution's, where there is but one upstream

PROXY_REQUESTS = Family(
    "registry_proxy_requests", "counter", "Manifests and blobs asked for by clients.", ("type", "upstream")
)
PROXY_HITS = Family("registry_proxy_hits", "counter", "Of these, answered from the cache.", ("type", "upstream"))
PROXY_MISSES = Family("registry_proxy_misses", "counter", "Of these, fetched for the client.", ("type", "upstream"))
PROXY_PULLED = Family(
    "registry_proxy_pulled_bytes", "counter", "Bytes of manifests and blobs that came.", ("type", "upstream")
)
PROXY_PUSHED = Family(
    "registry_proxy_pushed_bytes",
    "counter",
    "Bytes of manifests and blobs for clients, as begun.",
    ("type", "upstream"),
)
PROXY_HIT_BYTES = Family("registry_proxy_hit_bytes", "counter", "Bytes of blobs found in the cache.", ("upstream",))
PROXY_STALE = Family(
    "registry_proxy_stale", "counter", "Manifests served though the upstream could not be asked.", ("upstream",)
)
PROXY_REVALIDATIONS = Family(
    "registry_proxy_revalidations", "counter", "Questions whether a cached tag is still so.", ("upstream",)
)
PROXY_FILLS = Family(
    "registry_proxy_fills", "counter", "Fetches of whole blobs that ended: kept or failed.", ("upstream", "outcome")
)
PROXY_FILLING = Family("registry_proxy_fills_in_progress", "gauge", "Fetches of whole blobs.", ("upstream",))
PROXY_EVICTED = Family(
    "registry_proxy_evicted", "counter", "Removed from the cache to keep its bounds.", ("type", "upstream")
)
PROXY_EVICTED_BYTES = Family("registry_proxy_evicted_bytes", "counter", "Bytes of these.", ("upstream",))
UPSTREAM_REQUESTS = Family("registry_upstream_requests", "counter", "Requests sent to the upstream.", ("upstream",))
UPSTREAM_FAULTS = Family("registry_upstream_faults", "counter", "Of these, no answer, 429, or 5xx.", ("upstream",))
UPSTREAM_LIMITED = Family("registry_upstream_limited", "counter", "Of these, 429: too many requests.", ("upstream",))
UPSTREAM_REACHABLE = Family(
    "registry_upstream_reachable",
    "gauge",
    "0: the last request failed, or it is left alone after several. Not there before the first request.",
    ("upstream",),
    merge="min",
)
UPSTREAM_LEFT_ALONE = Family(
    "registry_upstream_left_alone",
    "gauge",
    "1: it failed several times in a row and is not asked for a moment.",
    ("upstream",),
    merge="max",
)
BUDGET_LIMIT = Family(
    "registry_upstream_ratelimit_limit", "gauge", "Pulls that the upstream allows us.", ("upstream",), merge="max"
)
BUDGET_REMAINING = Family(
    "registry_upstream_ratelimit_remaining",
    "gauge",
    "Of these, left when it last said so (RateLimit-Remaining).",
    ("upstream",),
    merge="min",
)

# The process; process_* come from Prometheus' client

LAG = Family(
    "registry_event_loop_lag_seconds",
    "histogram",
    "Seconds that the event loop was late, asked four times a second.",
    (),
    LAG_SECONDS,
)
WORKERS = Family("registry_workers", "gauge", "Workers that answer.")
BUILD = "registry_build_info"
"""Of the page itself: version and python as labels, 1 as the value."""

FAMILIES = {each.name: each for each in list(globals().values()) if isinstance(each, Family)}

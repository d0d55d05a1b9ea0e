"""Copies what upstreams keep themselves: their tallies, whether they answer, and what is left of their rate limits."""

from collections.abc import Sequence
from math import nan
from typing import TYPE_CHECKING

from registry.metrics import catalogue
from registry.metrics.numbers import Numbers

if TYPE_CHECKING:  # its packages are an extra of their own
    from registry.proxy.upstream import Upstream


def sample_upstreams(numbers: Numbers, upstreams: "Sequence[Upstream]") -> None:
    for upstream in upstreams:
        _sample_tally(numbers, upstream)
        _sample_state(numbers, upstream)


def _sample_tally(numbers: Numbers, upstream: "Upstream") -> None:
    tally, only = upstream.tally, (upstream.name,)
    of_manifests, fetched = tally.fetched_manifest_bytes, tally.fetched_bytes
    for kind, hits, misses, pulled, pushed, evicted in (
        (
            "manifest",
            tally.manifest_hits,
            tally.manifest_misses,
            of_manifests,
            tally.sent_manifest_bytes,
            tally.evicted_manifests,
        ),
        (
            "blob",
            tally.blob_hits,
            tally.blob_misses,
            fetched - of_manifests,
            tally.sent_blob_bytes,
            tally.evicted_blobs,
        ),
    ):
        labels = (kind, upstream.name)
        numbers.total(catalogue.PROXY_REQUESTS, labels, hits + misses)
        numbers.total(catalogue.PROXY_HITS, labels, hits)
        numbers.total(catalogue.PROXY_MISSES, labels, misses)
        numbers.total(catalogue.PROXY_PULLED, labels, pulled)
        numbers.total(catalogue.PROXY_PUSHED, labels, pushed)
        numbers.total(catalogue.PROXY_EVICTED, labels, evicted)
    for family, value in (
        (catalogue.PROXY_HIT_BYTES, tally.hit_bytes),
        (catalogue.PROXY_STALE, tally.stale),
        (catalogue.PROXY_REVALIDATIONS, tally.revalidations),
        (catalogue.PROXY_EVICTED_BYTES, tally.evicted_bytes),
        (catalogue.UPSTREAM_REQUESTS, tally.requests),
        (catalogue.UPSTREAM_FAULTS, tally.faults),
        (catalogue.UPSTREAM_LIMITED, tally.limited),
    ):
        numbers.total(family, only, value)
    numbers.total(catalogue.PROXY_FILLS, (upstream.name, "kept"), tally.fills_kept)
    numbers.total(catalogue.PROXY_FILLS, (upstream.name, "failed"), tally.fills_ended - tally.fills_kept)
    numbers.set(catalogue.PROXY_FILLING, only, tally.fills_begun - tally.fills_ended)


def _sample_state(numbers: Numbers, upstream: "Upstream") -> None:
    state, only = upstream.state(), (upstream.name,)
    budget = state.rate_limit
    numbers.set(catalogue.UPSTREAM_REACHABLE, only, nan if state.reachable is None else float(state.reachable))
    numbers.set(catalogue.UPSTREAM_LEFT_ALONE, only, float(upstream.left_alone))
    numbers.set(catalogue.BUDGET_LIMIT, only, nan if budget is None or budget.limit is None else budget.limit)
    remaining = None if budget is None else budget.remaining
    numbers.set(catalogue.BUDGET_REMAINING, only, nan if remaining is None else remaining)

"""Metrics for Prometheus: what is counted (catalogue), where it is kept (numbers), who counts it, and the page.

    requests.py      ASGI: every request, its bytes and its time          ┐
    actions.py       every call to the store (registry/watching/)         ├─> numbers.py ─> page.py ─> GET /metrics
    sampler.py       once a second: the loop, connections, upstreams      ┘

Only page.py imports Prometheus' client. What counts writes plain numbers at fixed places, so that a small request costs
as good as nothing more; without `http.debug.prometheus.enabled` nothing of this is imported or wrapped around anything.
"""

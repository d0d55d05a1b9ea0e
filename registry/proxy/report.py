"""What a running registry tells of its upstreams (`/debug/upstreams`): a JSON document, and the sum over workers. Pure.

    {"upstreams": [{"name": "ghcr.io", "url": "https://ghcr.io", "reachable": true, "held": null,
                    "ratelimit": {"limit": 100, "remaining": 76, "window": 21600, "source": "192.0.2.7"},
                    "counts": {"requests": 12, ...}}]}

reachable: null as long as it was not asked. held: seconds for which it is not asked, after a 429. ratelimit: null where
nothing is known. counts: as in tally.py. No secret is in it, and no user's name.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, fields
from typing import Any

from registry.proxy.tally import Tally
from registry.proxy.upstream import Upstream
from registry.watching.debug import Answer, Debug

PATH = "/debug/upstreams"


def add_page(debug: Debug, upstreams: Iterable[Upstream]) -> None:
    async def page() -> Answer:
        return Answer(report(upstreams))

    debug.add(PATH, page, lambda answers: Answer(join([answer.body for answer in answers])))


def report(upstreams: Iterable[Upstream]) -> bytes:
    """Of this process."""
    return _document([_entry(each) for each in upstreams])


def join(parts: Sequence[bytes]) -> bytes:
    """Of all workers. parts: of each; they have the same upstreams."""
    return _document(
        [_joined(entries) for entries in zip(*(json.loads(part)["upstreams"] for part in parts), strict=True)]
    )


def _document(entries: list[dict[str, Any]]) -> bytes:
    return json.dumps({"upstreams": entries}).encode("ascii")


def _entry(upstream: Upstream) -> dict[str, Any]:
    state = upstream.state()
    return {
        "name": state.name,
        "url": state.origin,
        "reachable": state.reachable,
        "held": state.left,
        "ratelimit": None if state.rate_limit is None else asdict(state.rate_limit),
        "counts": asdict(upstream.tally),
    }


def _joined(entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the worker knows that is worst off; the counts are added."""
    answers = [entry["reachable"] for entry in entries if entry["reachable"] is not None]
    limits = [entry["ratelimit"] for entry in entries if entry["ratelimit"] is not None]
    return {
        **entries[0],
        "reachable": all(answers) if answers else None,
        "held": max((entry["held"] for entry in entries if entry["held"] is not None), default=None),
        "ratelimit": min(limits, key=_remaining, default=None),
        "counts": {each.name: sum(entry["counts"][each.name] for entry in entries) for each in fields(Tally)},
    }


def _remaining(limit: dict[str, Any]) -> float:
    return float("inf") if limit["remaining"] is None else float(limit["remaining"])

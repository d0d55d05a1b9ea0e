"""`registry upstreams`: a table of the upstreams: reachable, logged in as whom, pulls left, certificate, cache hits.

It asks each of them itself, without spending a pull; how often the cache could answer is known by the registry that
runs, which tells it at `http.debug.addr`.

Ends with 0 where all can be used, 1 where one cannot, 2 where it could not ask.
"""

import asyncio
import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from registry.commands.common import seconds_text
from registry.commands.healthcheck import EVERY, TIMEOUT
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.config.upstreams import UpstreamConfig, from_proxy
from registry.proxy.directory import folder_of
from registry.proxy.limits import WINDOW
from registry.proxy.probe import PREVIEW, Probed, probe
from registry.proxy.report import PATH
from registry.proxy.tally import Tally
from registry.proxy.trust import Trusts
from registry.proxy.upstream import Upstream
from registry.serving.listeners import split_address
from registry.stores import open_driver
from storage.content import ContentStore
from storage.errors import StorageError
from storage.names import RepositoryName, Tag

COULD_NOT_ASK = 2
SOON = 14
"""Days: a certificate that ends so soon is pointed at."""


@dataclass(frozen=True, slots=True)
class Row:
    """running: what the registry that runs tells of it; None: nothing."""

    config: UpstreamConfig
    probed: Probed
    running: dict[str, Any] | None

    @property
    def rate_limit(self) -> dict[str, Any] | None:
        """As it was told to us now, else to the registry."""
        if self.probed.rate_limit is not None:
            return asdict(self.probed.rate_limit)
        return self.running["ratelimit"] if self.running else None

    @property
    def tally(self) -> Tally | None:
        return Tally(**self.running["counts"]) if self.running else None


def run(config: Config, options: Namespace) -> int:
    """Raises Refusal."""
    upstreams = (from_proxy(config.proxy),) if config.proxy.remoteurl else config.upstreams
    if not upstreams:
        raise Refusal("upstreams: there are none; set upstreams or proxy.remoteurl", COULD_NOT_ASK)
    rows = asyncio.run(_ask(config, upstreams))
    sys.stdout.write(document(rows) if options.json else table(rows, config.http.debug.addr, datetime.now(UTC)))
    return 1 if any(row.probed.fault for row in rows) else 0


async def _ask(config: Config, upstreams: Sequence[UpstreamConfig]) -> list[Row]:
    running = {each["name"]: each for each in await _running(config.http.debug.addr)}
    content = None if config.storage.driver == "inmemory" else ContentStore(open_driver(config))
    try:
        images = [await _image(content, each, mirror=bool(config.proxy.remoteurl)) for each in upstreams]
    finally:
        if content is not None:
            await content.aclose()
    trusts = Trusts()
    probes = (_probe(each, trusts, image) for each, image in zip(upstreams, images, strict=True))
    probed = await asyncio.gather(*probes)
    return [Row(each, found, running.get(each.called)) for each, found in zip(upstreams, probed, strict=True)]


async def _probe(config: UpstreamConfig, trusts: Trusts, image: tuple[RepositoryName, Tag] | None) -> Probed:
    upstream = Upstream(config, trusts=trusts)
    try:
        return await probe(upstream, image)
    finally:
        await upstream.aclose()


async def _image(
    content: ContentStore | None, upstream: UpstreamConfig, *, mirror: bool
) -> tuple[RepositoryName, Tag] | None:
    """One to be asked for by HEAD, which tells the rate limit: Docker Hub's own for that, else one that is cached."""
    if upstream.is_hub:
        return PREVIEW
    above = "" if mirror else f"{folder_of(upstream)}/"
    with suppress(StorageError):
        for name in (await content.list_repositories(above.rstrip("/"), 1)).names if content else ():
            tags = (await content.repository(name).list_tags("", 1)).names if content else []
            if name.startswith(above) and tags:
                return RepositoryName(name.removeprefix(above)), Tag(tags[0])
    return None


async def _running(addr: str) -> list[dict[str, Any]]:
    """What the registry that runs tells at its debug address; nothing where none answers."""
    if not addr:
        return []
    with suppress(OSError, httpx.HTTPError, ValueError, KeyError, TypeError):
        host, port = split_address(addr)
        host = EVERY.get(host, host)
        async with httpx.AsyncClient(trust_env=False, timeout=TIMEOUT) as client:
            answer = await client.get(f"http://{f'[{host}]' if ':' in host else host}:{port}{PATH}")
        found: list[dict[str, Any]] = answer.json()["upstreams"]
        return found
    return []


# What was found


def table(rows: Sequence[Row], debug: str, now: datetime) -> str:
    lines = [("UPSTREAM", "ANSWERS", "LOGIN", "PULLS LEFT", "CERTIFICATE", "CACHE HITS")]
    notes = []
    for row in rows:
        probed = row.probed
        answers = f"{probed.latency * 1000:.0f} ms" if probed.latency is not None and not probed.fault else "no"
        lines.append((row.config.called, answers, probed.username or "-", _pulls(row), _until(probed), _hits(row)))
        if probed.fault:
            notes.append(f"{row.config.called}: {probed.fault}")
        if probed.expires is not None and (left := probed.expires - now).days < SOON:
            notes.append(f"{row.config.called}: its certificate ends in {max(left.days, 0)} days")
    if not all(row.running for row in rows):
        missing = f"no registry tells them at http.debug.addr ({debug})" if debug else "set http.debug.addr"
        notes.append(f"cache hits are known by the registry that runs: {missing}")
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    drawn = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*drawn, *(["", *notes] if notes else []), ""])


def _pulls(row: Row) -> str:
    if (found := row.rate_limit) is None or found["remaining"] is None:
        return "-"
    of = "" if found["limit"] is None else f" of {found['limit']}"
    return f"{found['remaining']}{of} in {seconds_text(found['window'] or WINDOW)}"


def _until(probed: Probed) -> str:
    return "-" if probed.expires is None else f"until {probed.expires:%Y-%m-%d}"


def _hits(row: Row) -> str:
    if (tally := row.tally) is None or (rate := tally.hit_rate) is None:
        return "-"
    return f"{rate:.0%} of {tally.hits + tally.misses}"


def document(rows: Sequence[Row]) -> str:
    entries = [
        {
            "name": row.config.called,
            "url": row.config.base,
            "usable": not row.probed.fault,
            "fault": row.probed.fault or None,
            "latency": row.probed.latency,
            "username": row.probed.username or None,
            "ratelimit": row.rate_limit,
            "certificateexpires": row.probed.expires.isoformat() if row.probed.expires else None,
            "hitrate": row.tally.hit_rate if row.tally else None,
            "counts": asdict(row.tally) if row.tally else None,
        }
        for row in rows
    ]
    return json.dumps({"upstreams": entries}, indent=2) + "\n"

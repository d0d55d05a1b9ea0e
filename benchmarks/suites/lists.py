"""Tag lists and catalogs: one page, of stores that grow. The time should follow the page, not the store."""

import json
import time
from collections.abc import Iterator
from typing import NamedTuple

from benchmarks.ask import ask
from benchmarks.clients.wrk import wrk
from benchmarks.lab import Lab, Load, Measure
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, all_running
from benchmarks.store import Store, small_image

REPOSITORY = "bench/tags"
PAGES = (100, 1000)
PER_TEAM = 100
LONGEST = 30
"""Seconds of one sample."""


class Lists:
    name = "lists"
    about = "pages of tag lists and catalogs of up to 10,000 entries"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        for entries in lab.scale.entries:
            with lab.store(self.name) as store, lab.folder("servers") as folder:
                small_image(store, REPOSITORY, *(f"v1.{number:05}" for number in range(entries)), layers=1)
                with all_running(self.servers, store.root, folder) as servers:
                    yield from cases(
                        lab, servers, f"tags of {entries:,}", f"/v2/{REPOSITORY}/tags/list", "tags", entries
                    )
            with lab.store(self.name) as store, lab.folder("servers") as folder:
                seed_catalog(store, entries)
                with all_running(self.servers, store.root, folder) as servers:
                    yield from cases(lab, servers, f"catalog of {entries:,}", "/v2/_catalog", "repositories", entries)


def seed_catalog(store: Store, entries: int) -> None:
    """Repositories in folders of a hundred, as teams have them, with one image each: all the same one."""
    for number in range(entries):
        repository = f"team-{number // PER_TEAM:03}/app-{number % PER_TEAM:02}"
        store.add_image(repository, [store.add_blob(repository, b"the one layer")], "latest")


def cases(lab: Lab, servers: list[Running], name: str, path: str, key: str, entries: int) -> Iterator[Case]:
    for page in PAGES:
        if page > entries:
            continue
        sizes = {server.server.name: first_page(server, f"{path}?n={page}", key) for server in servers}
        measure = listing(f"{path}?n={page}", sizes, lab.scale.seconds)
        # the first pages have warmed them
        case = lab.case(f"{name}, a page of {page:,}", "ms", servers, measure, warm=lambda _: Load({}))
        for server, answer in sizes.items():
            if answer.entries != page:
                case.notes[server] = f"answered {answer.entries:,} entries"
        yield case


class Page(NamedTuple):
    """What a server answers to one request. size: bytes; seconds: how long it took the first time."""

    entries: int
    size: int
    seconds: float


def first_page(server: Running, path: str, key: str) -> Page:
    """Raises LoadFailed."""
    start = time.perf_counter()
    answer = ask(server, "GET", path)
    return Page(len(json.loads(answer.body)[key]), answer.size, time.perf_counter() - start)


def listing(path: str, pages: dict[str, Page], seconds: int) -> Measure:
    def measure(server: Running) -> Load:
        page = pages[server.server.name]
        # at least some answers of one that takes seconds for each
        enough = max(seconds, min(LONGEST, round(page.seconds * 3)))
        seen = wrk(server.url + path, 1, enough, page.size)
        return Load({"ms": seen["p50_ms"], "req_s": seen["req_s"]}, requests=seen["requests"])

    return measure

"""From the start of the process to its first answer, and the memory of one that has answered a few requests."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks import processes
from benchmarks.lab import Lab, line_of, say
from benchmarks.results import Case
from benchmarks.servers import REGISTRIES, ZOT, Running, Server, answers, launch, present, stop, wait_until_it_answers
from benchmarks.stats import Sample
from benchmarks.store import small_image

POLL = 0.002
FEW_REQUESTS = 20


class Start:
    name = "start"
    about = "time to the first answer, memory at rest"
    servers = (*REGISTRIES, ZOT)

    def run(self, lab: Lab) -> Iterator[Case]:
        with lab.store(self.name) as store, lab.folder("servers") as folder:
            small_image(store, "bench/start", "v1")
            yield from starts(lab, self.servers, store.root, folder)


def starts(
    lab: Lab, servers: Sequence[Server], root: Path, folder: Path, storage: dict[str, Any] | None = None
) -> Iterator[Case]:
    """storage: instead of the file system at root."""
    first, rest = Case("first answer", "s"), Case("memory at rest", "rest_mb")
    for number in range(lab.scale.starts + 1):
        for server in present(servers):
            began = time.perf_counter()
            process, port, log = launch(server, root, folder, storage)
            try:
                wait_until_it_answers(process, port, log, POLL)
                seconds = time.perf_counter() - began
                memory = at_rest(Running(server, process, port, root))
            finally:
                stop(process)
            if number:  # the first start fills caches
                first.samples.setdefault(server.name, []).append({"s": seconds})
                rest.samples.setdefault(server.name, []).append(memory)
    for case in (first, rest):
        say(f"  {case.name}: {line_of(case)}")
        yield case


def at_rest(server: Running) -> Sample:
    for _ in range(FEW_REQUESTS):
        answers(server.port)
    return {"rest_mb": processes.pss_mb(server.pid), "peak_mb": processes.peak_mb(server.pid)}

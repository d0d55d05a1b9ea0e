"""The bench: how large, where, and the one way in which every case takes its samples.

Rules: one server is under load at a time; rounds interleave the servers (A B C, A B C); each is warmed before its first
sample; CPU time and peak memory are read around every sample, of the server's whole process tree.
"""

import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from . import processes
from .clients import LoadFailed
from .results import Case
from .servers import Running
from .stats import METRICS, Sample, shown
from .store import Store

KB = 1000
MIB = 1 << 20
ENOUGH_BYTES = 32 * MIB
ENOUGH_REQUESTS = 200
"""Below, a hundredth of a second of CPU time (the clock's tick) would be most of the figure."""


@dataclass(frozen=True)
class Scale:
    """How much is measured. seconds: of a run of wrk; volume: bytes of a sample of large pulls, at least."""

    name: str
    rounds: int
    seconds: int
    volume: int
    blobs: dict[str, int]
    clients: tuple[int, ...]
    push_bytes: int
    starts: int
    entries: tuple[int, ...]
    """How many tags or repositories the stores of the lists have."""
    image_bytes: int
    """Of the whole-image pulls; 0: not in this scale."""


FULL = Scale(
    name="full",
    rounds=3,
    seconds=3,
    volume=4096 * MIB,
    blobs={"1 kB": KB, "1 MiB": MIB, "100 MiB": 100 * MIB, "1 GiB": 1024 * MIB},
    clients=(1, 4, 16, 64),
    push_bytes=256 * MIB,
    starts=11,
    entries=(100, 1000, 10_000),
    image_bytes=2_000_000_000,
)
QUICK = Scale(
    name="quick",
    rounds=3,
    seconds=2,
    volume=1024 * MIB,
    blobs={"1 kB": KB, "1 MiB": MIB, "1 GiB": 1024 * MIB},
    clients=(1, 16),
    push_bytes=128 * MIB,
    starts=5,
    entries=(100, 10_000),
    image_bytes=0,
)
# To see that the harness works: its figures mean nothing.
TINY = Scale(
    name="tiny",
    rounds=1,
    seconds=1,
    volume=16 * MIB,
    blobs={"1 kB": KB, "1 MiB": MIB, "1 GiB": 16 * MIB},
    clients=(1, 4),
    push_bytes=4 * MIB,
    starts=1,
    entries=(100, 200),
    image_bytes=20_000_000,
)
SCALES = {scale.name: scale for scale in (FULL, QUICK, TINY)}


@dataclass(frozen=True)
class Load:
    """What one sample did, and what the client saw of it."""

    sample: Sample
    bytes: float = 0
    requests: float = 0


Measure = Callable[[Running], Load]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@dataclass
class Lab:
    """One run's scale and work folder. failed: the cases in which a server answered wrongly, as `<case>: <server>`."""

    scale: Scale
    work: Path
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """A folder on the disk for the time of a suite."""
        path = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.work))
        try:
            yield path
        finally:
            shutil.rmtree(path)

    @contextmanager
    def store(self, name: str) -> Iterator[Store]:
        with self.folder(name) as path:
            yield Store(path / "store")

    def case(
        self,
        name: str,
        metric: str,
        servers: Sequence[Running],
        measure: Measure,
        *,
        warm: Measure | None = None,
        rounds: int | None = None,
    ) -> Case:
        """Take the samples of one row. A server that answers wrongly is noted and left out of this row."""
        case = Case(name, metric)
        able = [server for server in servers if self._warmed(case, server, warm or measure)]
        for _ in range(rounds or self.scale.rounds):
            for server in list(able):
                try:
                    sample = observed(server, measure)
                except LoadFailed as exc:
                    self._fail(case, server, exc)
                    able.remove(server)
                else:
                    case.samples.setdefault(server.server.name, []).append(sample)
        say(f"  {name}: {line_of(case)}")
        return case

    def _warmed(self, case: Case, server: Running, warm: Measure) -> bool:
        try:
            warm(server)
        except LoadFailed as exc:
            self._fail(case, server, exc)
            return False
        return True

    def _fail(self, case: Case, server: Running, exc: LoadFailed) -> None:
        case.notes[server.server.name] = f"failed: {exc}"
        # half a row would be compared as if it were a whole one
        case.samples.pop(server.server.name, None)
        self.failed.append(f"{case.name}: {server.server.name}: {exc}")


def observed(server: Running, measure: Measure) -> Sample:
    """Measure, with what it cost the server."""
    processes.reset_peak(server.pid)
    before = processes.cpu_seconds(server.pid)
    load = measure(server)
    cpu = processes.cpu_seconds(server.pid) - before
    sample = {**load.sample, "peak_mb": processes.peak_mb(server.pid)}
    if load.bytes >= ENOUGH_BYTES:
        sample["cpu_s_gb"] = cpu / load.bytes * 1e9
    elif load.requests >= ENOUGH_REQUESTS:
        sample["cpu_s_kreq"] = cpu / load.requests * 1000
    return sample


def line_of(case: Case) -> str:
    """One line for whoever watches the run."""
    metric = METRICS[case.metric]
    figures = [
        f"{server} {shown(figure.median, metric.digits)}"
        for server in case.samples
        if (figure := case.figure(server)) is not None
    ]
    notes = [f"{server} {note}" for server, note in case.notes.items()]
    return f"{', '.join(figures)} {metric.unit}" + "".join(f"; {note}" for note in notes)

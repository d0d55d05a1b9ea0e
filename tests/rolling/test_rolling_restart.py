"""F39: two replicas over one store are restarted in turn behind a balancer, and no client notices.

Real processes, a balancer that knows nothing but /readyz, and clients that push and pull whole images all the time,
some so slowly that a restart comes in the middle of a body.
"""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.rolling.balancer import PERIOD, Balancer, balancing
from tests.rolling.load import MIB, Client, Counts
from tests.s3.servers import S3Server
from tests.security.process import PATIENCE, Process, serving

REPLICAS = 2
ROUNDS = 2
SECRET = "the same on all"
DELAY = 5 * PERIOD
"""Seconds in which every balancer has asked, also on a machine that has other things to do."""

pytestmark = pytest.mark.slow


class Fleet:
    """Replicas in the balancer's slots."""

    def __init__(self, folder: Path, storage: dict[str, Any], balancer: Balancer) -> None:
        self._folder, self._balancer = folder, balancer
        self._config = {
            "storage": storage,
            "http": {"secret": SECRET, "shutdowndelay": f"{DELAY}s", "draintimeout": "20s"},
        }
        self._stacks = [ExitStack() for _ in range(REPLICAS)]
        self._processes: dict[int, Process] = {}
        self.logs: list[str] = []

    def start(self, number: int) -> None:
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        process = self._stacks[number].enter_context(serving(folder, self._config))
        self._processes[number] = process
        self._balancer.backends[number] = process.port
        assert self._balancer.ready[number].wait(PATIENCE)

    def stop(self, number: int) -> None:
        """By SIGTERM; it has to end with exit code 0."""
        self._stacks[number].close()
        self.logs.append(self._processes[number].log.read_text())


@pytest.fixture(params=["filesystem", "seaweedfs"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    if request.param == "filesystem":
        return {"filesystem": {"rootdirectory": str(tmp_path / "data")}}
    server: S3Server = request.getfixturevalue("seaweedfs")
    return {"s3": server.parameters(*server.new_root()), "redirect": {"disable": True}}


@contextmanager
def load(url: str, counts: Counts) -> Iterator[None]:
    stop = threading.Event()
    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        futures = []
        for kind in ("push", "pull"):
            for slow in (False, True):
                size = 4 * MIB if slow else MIB // 2
                name = f"rolling/{'slow' if slow else 'quick'}"
                client = stack.enter_context(closing(Client(url, name, size, counts, slow=slow)))
                futures.append(pool.submit(client.run, getattr(client, kind), stop))
        try:
            yield
        finally:
            stop.set()
            for future in futures:
                future.result()


def test_f39_no_client_notices_a_rolling_restart(tmp_path: Path, storage: dict[str, Any]) -> None:
    counts, seen = Counts(), list[tuple[int, int]]()
    with balancing(REPLICAS) as balancer:
        fleet = Fleet(tmp_path, storage, balancer)
        for number in range(REPLICAS):
            fleet.start(number)
        with load(f"http://127.0.0.1:{balancer.port}", counts):
            for _ in range(ROUNDS):
                for number in range(REPLICAS):
                    fleet.stop(number)
                    fleet.start(number)
                    seen.append((counts.pushed, counts.pulled))
        for number in range(REPLICAS):
            fleet.stop(number)
    print(f"{counts.pushed} pushes, {counts.pulled} pulls, repeated: {counts.repeated}")
    assert counts.failed == []
    assert balancer.refused == 0
    pushes, pulls = zip(*seen, strict=True)
    assert list(pushes) == sorted(set(pushes)), "nothing was pushed between two restarts"
    assert list(pulls) == sorted(set(pulls)), "nothing was pulled between two restarts"
    under_way = [log for log in fleet.logs if "stopping; 0 requests" not in log]
    assert under_way, "no restart came in the middle of anything"
    assert all("stopped; all requests have finished" in log for log in fleet.logs)

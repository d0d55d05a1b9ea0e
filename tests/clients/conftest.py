"""Fixtures of the client tests: the registry under test, the daemons, one work folder that is gone afterwards.

The tests run with `make clients` (`pytest -m clients`) and are deselected otherwise. They drive this work tree's
`registry serve`, or what listens at REGISTRY_UNDER_TEST=localhost:PORT (it must allow deletes), or what the command
REGISTRY_COMMAND starts when a configuration file is put behind it.
"""

import os
import secrets
import tempfile
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from . import daemons, images, table, tools
from .api import Registry
from .images import Layout
from .secured import Secured, secured_registry
from .shell import Shell

HERE = Path(__file__).parent
OURS = not (os.environ.get("REGISTRY_UNDER_TEST") or os.environ.get("REGISTRY_COMMAND"))
LOGS = pytest.StashKey[dict[str, Path]]()
DESELECTED = pytest.StashKey[int]()
SKIPPED = pytest.StashKey[Sequence[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LOGS] = {}


@pytest.hookimpl(trylast=True)  # after -m and -k have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect all unless asked for; with `make clients`, what needs a client that is not installed."""
    ours = {item: table.client_of(item.path) for item in items if item.path.is_relative_to(HERE)}
    if config.option.markexpr != "clients":
        dropped = set(ours)
        config.stash[DESELECTED] = len(dropped)
    else:
        fatal, skipped = tools.complaints(set(ours.values()))
        config.stash[SKIPPED] = skipped
        if fatal:
            raise pytest.UsageError("required clients are missing\n  " + "\n  ".join(fatal))
        if os.geteuid() != 0:
            raise pytest.UsageError("dockerd and containerd need root: sudo make clients")
        dropped = {item for item, client in ours.items() if tools.CLIENTS[client].missing()}
    if dropped:
        config.hook.pytest_deselected(items=list(dropped))
        items[:] = [item for item in items if item not in dropped]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    count = config.stash.get(DESELECTED, 0)
    return [f"clients: {count} tests with real clients deselected; `make clients` runs them"] if count else []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show with a failing test what the daemons logged that it uses."""
    report = yield
    if report.failed and item.path.is_relative_to(HERE):
        for fixture, log in item.config.stash[LOGS].items():
            if fixture in getattr(item, "fixturenames", ()) and log.exists():
                report.sections.append((f"end of the log of {log.stem}", daemons.tail(log)))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if SKIPPED in config.stash:
        terminalreporter.section("real clients")
        for line in table.render(terminalreporter.stats, config.stash[SKIPPED]):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def workspace() -> Iterator[Path]:
    """A folder for everything. Short: a Unix socket's path has at most 107 bytes, podman's --runroot 50."""
    with tempfile.TemporaryDirectory(prefix="moorage-") as folder:
        yield Path(folder)


@pytest.fixture
def folder(workspace: Path) -> Path:
    """An empty folder for one test."""
    return Path(tempfile.mkdtemp(prefix="", dir=workspace))


@pytest.fixture(scope="session")
def shell(workspace: Path) -> Shell:
    return Shell(workspace / "home")


@pytest.fixture(scope="session")
def logs(workspace: Path, pytestconfig: pytest.Config) -> dict[str, Path]:
    """Fixture to log file of the daemon that it starts."""
    logs = pytestconfig.stash[LOGS]
    for fixture in ("registry_url", "secured", "containerd_address", "docker_host"):
        logs[fixture] = workspace / f"{fixture}.log"
    return logs


@pytest.fixture(scope="session")
def registry_url(workspace: Path, shell: Shell, logs: dict[str, Path]) -> Iterator[str]:
    """Where the registry under test listens."""
    elsewhere = os.environ.get("REGISTRY_UNDER_TEST")
    if elsewhere:
        yield f"http://{elsewhere}"
        return
    with daemons.registry(shell, workspace / "registry", logs["registry_url"]) as port:
        yield f"http://localhost:{port}"


@pytest.fixture(scope="session")
def registry(registry_url: str) -> Iterator[Registry]:
    with httpx.Client(base_url=registry_url, timeout=60, trust_env=False) as http:
        registry = Registry(registry_url.removeprefix("http://"), http)
        # A registry of others may lack it (CNCF distribution does); ours may not.
        assert registry.has_referrers_api() or not OURS
        yield registry


@pytest.fixture(scope="session")
def secured(workspace: Path, shell: Shell, logs: dict[str, Path]) -> Iterator[Secured]:
    """The registry with TLS and passwords."""
    with secured_registry(shell, workspace / "secured", logs["secured"]) as secured:
        yield secured


@pytest.fixture
def fresh_shell(folder: Path) -> Shell:
    """A shell for a user who has logged in nowhere."""
    return Shell(folder / "home")


@pytest.fixture(scope="session")
def run_name() -> str:
    """Different in every run, so that a registry which is kept has nothing of it yet."""
    return f"clients-{secrets.token_hex(4)}"


@pytest.fixture
def repository(run_name: str, request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    test = request.node.name.removeprefix("test_").replace("_", "-")
    return f"{run_name}/{table.client_of(request.path)}/{test}"


@pytest.fixture(scope="session")
def layout(workspace: Path) -> Layout:
    """An OCI image layout: an index `multi` of two platforms, 30 MB of random bytes in a layer."""
    return images.write_layout(workspace / "layout")


@pytest.fixture(scope="session")
def published(registry: Registry, layout: Layout, run_name: str) -> str:
    """A repository that holds the layout, pushed by plain HTTP: what every client pulls as somebody else's image."""
    repository = f"{run_name}/published"
    registry.push_layout(repository, layout, *layout.digests)
    assert registry.check_complete(repository, "multi") == layout.digests["multi"]
    return repository


@pytest.fixture(scope="session")
def containerd_address(workspace: Path, shell: Shell, logs: dict[str, Path]) -> Iterator[Path]:
    with daemons.containerd(shell, workspace / "containerd", logs["containerd_address"]) as address:
        yield address


@pytest.fixture(scope="session")
def docker_host(workspace: Path, shell: Shell, logs: dict[str, Path], containerd_address: Path) -> Iterator[str]:
    with daemons.dockerd(shell, workspace / "dockerd", logs["docker_host"], containerd_address) as host:
        yield host

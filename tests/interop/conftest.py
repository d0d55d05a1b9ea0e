"""Fixtures of the interop tests. They run with `make interop` (`pytest -m interop`) and are deselected otherwise.

A test that takes a `peer` runs with each distribution that is installed; of the other, one line says that it is not,
and how many tests that cost.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from .peers import PEERS, Lab, Program

HERE = Path(__file__).parent
LINES = pytest.StashKey[list[str]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "peer" in metafunc.fixturenames:
        metafunc.parametrize("peer", [pytest.param(peer, id=peer.name) for peer in PEERS])


@pytest.hookimpl(trylast=True)  # after -m and -k have chosen
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.is_relative_to(HERE)]
    lines = config.stash.setdefault(LINES, [])
    if config.option.markexpr != "interop":
        dropped = ours
        if dropped:
            lines.append(f"interop: {len(dropped)} tests with CNCF distribution deselected; `make interop` runs them")
    else:
        dropped = []
        for program in PEERS:
            if program.path is None:
                lacking = [item for item in ours if program in needed_by(item)]
                lines.append(
                    f"interop: {program.name} is not installed ({program.install}): {len(lacking)} tests deselected"
                )
                dropped += lacking
    if dropped:
        config.hook.pytest_deselected(items=dropped)
        items[:] = [item for item in items if item not in dropped]


def needed_by(item: pytest.Item) -> list[Program]:
    """The programs that a test was parametrized with, alone or in a tuple."""
    values = item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    flat = [part for value in values for part in (value if isinstance(value, tuple) else (value,))]
    return [value for value in flat if isinstance(value, Program)]


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    return config.stash.get(LINES, [])


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A folder for one test; what the registries logged there is printed when the test fails."""
    lab = Lab(tmp_path)
    yield lab
    for log in islice(sorted(tmp_path.glob("*.log")), 4):
        print(f"--- {log.name}\n{log.read_text(errors='replace')[-4000:]}")

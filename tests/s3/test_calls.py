"""How many calls to S3 each request of a client costs, counted at the wire, against what we promise.

The tables of docs/s3.md are these numbers: a test fails when they are out of date. distribution v3 is counted in the
same way beside it by `make s3`, which sets MOORAGE_S3.
"""

import asyncio
import json
import os
import re
from pathlib import Path

import pytest

from storage.drivers.s3 import errors
from storage.drivers.s3.errors import Operation
from tests.interop.peers import ROOT, V3
from tests.s3.counting import PULLS, PUSHES, Case, Cost, Counted, count_both, tables
from tests.s3.servers import S3Server

pytestmark = pytest.mark.slow

PEERS = bool(os.environ.get("MOORAGE_S3"))
DOCUMENT = ROOT / "docs" / "s3.md"
OPERATIONS = {found.name: found for found in vars(errors).values() if isinstance(found, Operation)}


@pytest.fixture(scope="module")
def counts(seaweedfs: S3Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Counted, Counted | None]:
    if PEERS:
        assert V3.path, V3.install
    return asyncio.run(count_both(seaweedfs, tmp_path_factory.mktemp("peers"), peers=PEERS))


@pytest.fixture(scope="module")
def counted(counts: tuple[Counted, Counted | None]) -> Counted:
    return counts[0]


@pytest.mark.parametrize("case", PULLS, ids=lambda case: case.title)
def test_a_pull_costs_what_we_promise(counted: Counted, case: Case) -> None:
    """Of a read-only replica, and no more than reads."""
    for redirects, goal in ((False, case.goal), (True, case.redirected)):
        cost = counted.cost(case, redirects=redirects)
        assert goal is not None
        assert cost == Cost(writes=0, reads=goal, deletes=0, parts=0), f"redirects: {redirects}"


@pytest.mark.parametrize("case", [case for case in PUSHES if case.goal is not None], ids=lambda case: case.title)
def test_a_push_costs_no_more_than_we_promise(counted: Counted, case: Case) -> None:
    """The parts of large blobs come on top."""
    assert case.goal is not None
    cost = counted.cost(case)
    assert cost.calls <= case.goal + cost.parts


def test_the_policies_allow_what_is_called_and_nothing_else(counted: Counted) -> None:
    needed = {name: {f"s3:{word}" for word in _permissions(operation)} for name, operation in OPERATIONS.items()}
    assert actions("iam-writer.json") == set().union(*needed.values())
    replicas = {case.title for case in PULLS + PUSHES if case.by == "replica"}
    for (title, _), calls in counted.found.items():
        for name in calls:
            assert needed[name] <= actions("iam-reader.json" if title in replicas else "iam-writer.json"), (title, name)


def _permissions(operation: Operation) -> list[str]:
    return re.findall(r"s3:(\w+)", operation.permission)


def actions(policy: str) -> set[str]:
    found: set[str] = set()
    for statement in json.loads((ROOT / "deploy/aws" / policy).read_text("utf-8"))["Statement"]:
        found |= {statement["Action"]} if isinstance(statement["Action"], str) else set(statement["Action"])
    return found


def test_every_push_costs_less_than_with_distribution(counts: tuple[Counted, Counted | None]) -> None:
    ours, theirs = counts
    if theirs is None:
        pytest.skip("counted by `make s3`")
    for case in PUSHES:
        if "blob of" in case.title or "image of 1" in case.title:
            assert 2 * ours.cost(case).calls < theirs.cost(case).calls, case.title


def test_the_document_has_these_numbers(
    counts: tuple[Counted, Counted | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Columns that were not counted now are left out of the comparison."""
    measured = dict(zip(("pulls", "pushes"), tables(*counts), strict=True))
    with capsys.disabled():
        for name, rows in measured.items():
            print(f"\n--- calls to S3, {name}", *("| " + " | ".join(row) + " |" for row in rows), sep="\n")
    for name, rows in measured.items():
        shown = [row[: len(rows[0])] for row in documented(name)]
        assert shown == rows, f"{DOCUMENT.name} is not what was counted"


def documented(name: str) -> list[list[str]]:
    """Rows of the table behind `<!-- counted: NAME -->`, without its head."""
    text = Path(DOCUMENT).read_text("utf-8")
    found = re.search(rf"<!-- counted: {name} -->\n((?:\|.*\n)+)", text)
    assert found, f"{DOCUMENT.name} has no table `{name}`"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()[2:]]

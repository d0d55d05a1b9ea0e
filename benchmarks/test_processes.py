"""Tests of reading /proc, on processes of our own."""

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks import processes

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "print('up', flush=True); input()"], stdin=subprocess.PIPE)
input()
child.communicate(b"")
"""


@pytest.fixture
def parent() -> Iterator["subprocess.Popen[str]"]:
    """A process with one child; both run, for the child has said so on the output that they share."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.communicate("\n")


def test_tree_has_parent_and_child(parent: "subprocess.Popen[str]") -> None:
    found = list(processes.tree(parent.pid))
    assert found[0] == parent.pid
    assert len(found) == 2


def test_memory_of_the_tree(parent: "subprocess.Popen[str]") -> None:
    processes.reset_peak(parent.pid)
    assert 1 < processes.pss_mb(parent.pid) <= processes.peak_mb(parent.pid) < 200


def test_cpu_of_ourselves_is_what_the_system_says() -> None:
    before = os.times()
    seen = processes.cpu_seconds(os.getpid())
    after = os.times()
    rounding = 8 / processes.TICKS  # four figures, each cut to a tick by both
    assert sum(before[:4]) - rounding <= seen <= sum(after[:4]) + rounding


def test_a_process_that_has_gone_costs_nothing() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert processes.cpu_seconds(process.pid) == 0
    assert processes.peak_mb(process.pid) == 0

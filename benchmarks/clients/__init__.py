"""The load: each module is a process of its own that reads a spec (JSON) from standard input and prints what it saw.

Rules: the same client for every server; connections are open before the clock starts; status and length of every answer
are checked, content is not (the suites compare digests once, outside the clock); one wrong answer fails the run.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class LoadFailed(Exception):
    """A server answered something else than the benchmark expects, or a client could not run."""


def run(module: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Run benchmarks.clients.<module> and return what it printed. Raises LoadFailed."""
    return finish(start(module, spec))


def start(module: str, spec: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start one and hand it the spec. Its standard input stays open, for those that run until it is closed."""
    process = subprocess.Popen(
        [sys.executable, "-m", f"benchmarks.clients.{module}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(spec) + "\n")
    process.stdin.flush()
    return process


def finish(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Close its input, wait for it and return what it printed. Raises LoadFailed."""
    out, err = process.communicate()
    if process.returncode != 0:
        last = err.strip().splitlines()[-1] if err.strip() else f"exit code {process.returncode}"
        raise LoadFailed(last.removeprefix("benchmarks.clients.LoadFailed: "))
    said: dict[str, Any] = json.loads(out)
    return said


def read_spec() -> dict[str, Any]:
    """In the client process: what it was handed."""
    spec: dict[str, Any] = json.loads(sys.stdin.readline())
    return spec


def report(result: dict[str, Any]) -> None:
    """In the client process: hand back what was seen."""
    sys.stdout.write(json.dumps(result))

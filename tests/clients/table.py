"""The table at the end of a run: client, version, what ran."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import tools

VERSION = re.compile(r"\d+\.\d+(\.\d+)?[-+.\w]*")


def client_of(path: Path) -> str:
    """The client that a test file is about: tests/clients/test_<client>.py."""
    return path.stem.removeprefix("test_")


def render(stats: Mapping[str, Sequence[Any]], skipped: Sequence[str]) -> list[str]:
    """The lines of the table, from pytest's reports by outcome; one line for each client that is not installed."""
    ran: dict[str, list[str]] = {}
    for outcome, mark in (("passed", ""), ("failed", "FAILED "), ("error", "ERROR ")):
        for report in stats.get(outcome, []):
            file, _, name = report.nodeid.partition("::")
            if (client := client_of(Path(file))) in tools.CLIENTS and (report.when == "call" or mark):
                ran.setdefault(client, []).append(mark + name.removeprefix("test_").replace("_", " "))
    rows = [(client, version(tools.CLIENTS[client]), ran[client]) for client in tools.CLIENTS if client in ran]
    lines = [f"{client:<11}{number:<24}{'; '.join(tests)}" for client, number, tests in rows]
    return [f"{'client':<11}{'version':<24}what ran", *lines, *(f"SKIPPED {line}" for line in skipped)]


def version(client: tools.Client) -> str:
    """What the client says about itself, and its daemon."""
    return " / ".join(told(*command_line) for command_line in client.versions)


def told(command: str, *arguments: str) -> str:
    path = tools.find(command)
    assert path is not None
    said = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=30)
    found = VERSION.search(said.stdout)
    return found.group() if found else "?"

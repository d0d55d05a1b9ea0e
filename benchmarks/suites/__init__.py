"""The suites. A new one is a module with a Suite in it and a line here; its goals go into goals.py."""

from collections.abc import Iterator
from typing import Protocol

from benchmarks.lab import Lab
from benchmarks.results import Case
from benchmarks.servers import Server

from . import beside, lists, proxy, pull, push, ranges, s3, small, start, whole


class Suite(Protocol):
    """A group of cases that can be run alone: make bench ONLY=<name>."""

    @property
    def name(self) -> str: ...

    @property
    def about(self) -> str: ...

    @property
    def servers(self) -> tuple[Server, ...]:
        """All that it compares, the missing ones too."""

    def run(self, lab: Lab) -> Iterator[Case]:
        """Take the samples, one case after the other."""


SUITES: tuple[Suite, ...] = (
    pull.Pull(),
    ranges.Ranges(),
    small.Small(),
    push.PushSuite(),
    lists.Lists(),
    start.Start(),
    beside.Beside(),
    s3.S3(),
    proxy.Proxy(),
    whole.Whole(),
)

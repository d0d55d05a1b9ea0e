"""The results file: one entry per suite, so that a run of some suites replaces those and leaves the others.

{"suites": {<suite>: {"date", "scale", "machine": {...}, "versions": {...}, "missing": {...}, "cases": [...]}}}

Rule: what a run says about machine, versions and missing peers stands in each suite that it ran, because the suites of
one file may come from different days.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .stats import Sample, Summary, paired_ratio, summary

OURS = "moorage"


@dataclass
class Case:
    """One row of the table: the samples of each server, by round. notes: what a reader must know, by server."""

    name: str
    metric: str
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def values(self, server: str, metric: str) -> list[float]:
        return [sample[metric] for sample in self.samples.get(server, []) if metric in sample]

    def figure(self, server: str, metric: str | None = None) -> Summary | None:
        values = self.values(server, metric or self.metric)
        return summary(values) if values else None

    def ratio(self, peer: str, metric: str | None = None) -> Summary | None:
        """Ours divided by the peer's."""
        key = metric or self.metric
        return paired_ratio(self.values(OURS, key), self.values(peer, key))


@dataclass
class SuiteResult:
    """What one run of one suite found. scale: quick or full."""

    suite: str
    date: str
    scale: str
    machine: dict[str, str]
    versions: dict[str, str]
    missing: dict[str, str]
    cases: list[Case] = field(default_factory=list)

    def case(self, name: str) -> Case | None:
        return next((case for case in self.cases if case.name == name), None)


class Results:
    """All suites that were ever run into one folder."""

    def __init__(self, suites: dict[str, SuiteResult] | None = None) -> None:
        self.suites = suites or {}

    def case(self, suite: str, name: str) -> Case | None:
        result = self.suites.get(suite)
        return result.case(name) if result else None

    def cases(self) -> Iterator[tuple[str, Case]]:
        for result in self.suites.values():
            for case in result.cases:
                yield result.suite, case

    def save(self, path: Path) -> None:
        """Write the file whole, or leave the old one."""
        document = {"suites": {name: asdict(result) for name, result in self.suites.items()}}
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(document, indent=1) + "\n")
        beside.replace(path)


def load(path: Path) -> Results:
    if not path.exists():
        return Results()
    document: dict[str, Any] = json.loads(path.read_text())
    suites = {}
    for name, fields in document["suites"].items():
        cases = [Case(**case) for case in fields.pop("cases")]
        suites[name] = SuiteResult(**fields, cases=cases)
    return Results(suites)

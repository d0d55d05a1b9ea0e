"""Reading numbers as Prometheus would see them, by its client's own parser."""

from prometheus_client.parser import text_string_to_metric_families

from registry.metrics.numbers import Numbers
from registry.metrics.page import render

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(page: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def samples(numbers: Numbers) -> Samples:
    return parse(render(numbers, "1.2.3").decode())


def value(found: Samples, name: str, **labels: str) -> float | None:
    """None where there is no such series."""
    return found.get((name, frozenset(labels.items())))


def total(found: Samples, name: str, **labels: str) -> float:
    """Of all series that have these labels."""
    wanted = set(labels.items())
    return sum(number for (each, having), number in found.items() if each == name and wanted <= having)

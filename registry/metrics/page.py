"""The page for Prometheus, in its text format, of all workers together. The only module that imports its client."""

import platform
from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from registry.metrics import catalogue
from registry.metrics.catalogue import Family
from registry.metrics.numbers import Numbers, Series

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def render(numbers: Numbers, version: str) -> bytes:
    """version: Moorage's. From any thread."""
    registry = CollectorRegistry()
    for collector in (_Counted(numbers), _Processes(numbers), _Build(version)):
        registry.register(collector)
    return generate_latest(registry)


class _Counted(Collector):
    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        found: dict[str, list[Series]] = {}
        for series in self._numbers.merged():
            found.setdefault(series.family.name, []).append(series)
        for family in catalogue.FAMILIES.values():
            if family.name in found:
                yield _metric(family, found[family.name])

    def describe(self) -> Iterator[Metric]:
        return iter(())  # else it would be collected once more, to see its names


def _metric(family: Family, some: list[Series]) -> Metric:
    match family.kind:
        case "histogram":
            histogram = HistogramMetricFamily(family.name, family.help, labels=family.labels)
            bounds = [*(str(bound) for bound in family.buckets), "+Inf"]
            for each in some:
                *counts, total = each.values
                histogram.add_metric(each.labels, list(zip(bounds, accumulate(counts), strict=True)), total)
            return histogram
        case "counter":
            counter = CounterMetricFamily(family.name, family.help, labels=family.labels)
            for each in some:
                counter.add_metric(each.labels, each.values[0])
            return counter
        case "gauge":
            gauge = GaugeMetricFamily(family.name, family.help, labels=family.labels)
            for each in some:
                gauge.add_metric(each.labels, each.values[0])
            return gauge


class _Processes(Collector):
    """process_*, as every client has them, of each worker."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        found: dict[str, Metric] = {}
        for worker, pid in self._numbers.pids():
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                known = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    known.add_sample(sample.name, {"worker": str(worker)}, sample.value)
        yield from found.values()

    def describe(self) -> Iterator[Metric]:
        return iter(())


class _Build(Collector):
    def __init__(self, version: str) -> None:
        self._version = version

    def collect(self) -> Iterator[Metric]:
        build = GaugeMetricFamily(catalogue.BUILD, "1, for its labels.", labels=("version", "python"))
        build.add_metric((self._version, platform.python_version()), 1)
        yield build

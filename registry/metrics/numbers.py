"""Numbers in memory that all workers share: each writes its own part, and whoever answers a scrape reads them all.

    part      [bytes of names in use][process id][names: a JSON line a series, in the order of the values][values]

Prometheus' client has a way for several processes, too, with files in a folder: they stay behind after a crash, need a
place to write where a container has none, know no collectors, and cost five times as much for each request.

Rules:
- A number is written by one event loop alone, so there is no lock; it is eight bytes in one place, so a reader sees the
  old or the new.
- A worker that dies leaves its part to its successor, which goes on counting: a sum never falls. Gauges start anew.
- A name is written before the count of bytes that makes it visible.
- A part that is full takes no more names: what they count is lost, with one line in the log.
"""

import json
import logging
import math
import mmap
import os
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from registry.metrics.catalogue import FAMILIES, Family

log = logging.getLogger(__name__)

_HEAD = 16
_USED, _PID = 0, 1
_NAMES = (1 << 19) - _HEAD
_VALUES = 1 << 16
_PART = _HEAD + _NAMES + 8 * _VALUES
"""Bytes, of which those cost memory that are used."""

_NOWHERE = _VALUES - 64
"""Where what has no place is counted; longer than any series."""

Labels = tuple[str, ...]


_JOINS: dict[str, Callable[[Sequence[float]], float]] = {"sum": sum, "max": max, "min": min}


class Series(NamedTuple):
    """labels: values, in the order of the family's names. values: as many as the family is wide."""

    family: Family
    labels: Labels
    values: list[float]


class Numbers:
    """workers: how many there will be. Made before they are forked; each calls `enter` before it counts."""

    def __init__(self, workers: int = 1) -> None:
        memory = memoryview(mmap.mmap(-1, workers * _PART))  # anonymous and shared: gone with the last process
        self._parts = [memory[at : at + _PART] for at in range(0, workers * _PART, _PART)]

    def enter(self, worker: int) -> None:
        """This process is that worker from now on: it goes on with the counters of the one before it."""
        part = self._parts[worker]
        self._head, self._names, self.values = _views(part)
        self._head[_PID] = os.getpid()
        self._places: dict[tuple[str, Labels], int] = {}
        self._bases: dict[int, float] = {}
        self._next, self._full = 0, False
        for name, labels in _read_names(part):
            family = FAMILIES[name]
            self._places[name, labels] = self._next
            if family.kind == "gauge":
                self.values[self._next] = math.nan
            self._next += family.width

    def place(self, family: Family, labels: Labels = ()) -> int:
        """Where its numbers begin in `values`; it is made, with zeros, when it is asked for first."""
        found = self._places.get((family.name, labels))
        return self._make(family, labels) if found is None else found

    def _make(self, family: Family, labels: Labels) -> int:
        line = json.dumps([family.name, *labels]).encode() + b"\n"
        place, start = self._next, self._head[_USED]
        if start + len(line) > _NAMES or place + family.width > _NOWHERE:
            if not self._full:
                log.warning("there are too many metrics: from %s on, new ones are not counted", family.name)
            self._full, place = True, _NOWHERE
        else:
            self._names[start : start + len(line)] = line
            self._head[_USED] = start + len(line)
            self._next += family.width
        self._places[family.name, labels] = place
        return place

    def add(self, family: Family, labels: Labels, amount: float = 1.0) -> None:
        self.values[self.place(family, labels)] += amount

    def set(self, family: Family, labels: Labels, value: float) -> None:
        """A gauge. NaN: it is not known."""
        self.values[self.place(family, labels)] = value

    def total(self, family: Family, labels: Labels, value: float) -> None:
        """A counter that somebody else keeps. value: since this process began."""
        place = self.place(family, labels)
        base = self._bases.setdefault(place, self.values[place])
        self.values[place] = base + value

    def observe(self, family: Family, labels: Labels, value: float) -> None:
        """Into a histogram."""
        place = self.place(family, labels)
        self.values[place + bisect_left(family.buckets, value)] += 1
        self.values[place + len(family.buckets) + 1] += value

    def merged(self) -> list[Series]:
        """All workers together. From any thread."""
        found: dict[tuple[str, Labels], Series] = {}
        for part in self._parts:
            for each in _read(part):
                known = found.setdefault((each.family.name, each.labels), each)
                if known is not each:
                    known.values[:] = _merge(each.family, known.values, each.values)
        return list(found.values())

    def pids(self) -> Iterator[tuple[int, int]]:
        """(worker, process id) of those that have entered."""
        for worker, part in enumerate(self._parts):
            if pid := _views(part)[0][_PID]:
                yield worker, pid


def _views(part: memoryview) -> "tuple[memoryview, memoryview, memoryview[float]]":
    """Head, names, values."""
    return part[:_HEAD].cast("Q"), part[_HEAD : _HEAD + _NAMES], part[_HEAD + _NAMES :].cast("d")


def _read_names(part: memoryview) -> Iterator[tuple[str, Labels]]:
    head, names, _ = _views(part)
    for line in bytes(names[: head[_USED]]).splitlines():
        name, *labels = json.loads(line)
        yield name, tuple(labels)


def _read(part: memoryview) -> Iterator[Series]:
    """What one worker has counted; gauges that are not known are left out."""
    values, place = _views(part)[2], 0
    for name, labels in _read_names(part):
        family = FAMILIES[name]
        found = list(values[place : place + family.width])
        place += family.width
        if not math.isnan(found[0]):
            yield Series(family, labels, found)


def _merge(family: Family, one: list[float], other: list[float]) -> list[float]:
    join = _JOINS[family.merge]
    return [join(pair) for pair in zip(one, other, strict=True)]

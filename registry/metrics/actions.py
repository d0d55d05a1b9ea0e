"""Counts what a driver does: each verb by outcome, with its time, and each request that goes to its store."""

from bisect import bisect_left

from registry.metrics import catalogue
from registry.metrics.catalogue import CALL_SECONDS
from registry.metrics.numbers import Numbers

_STORING = ("Append", "Commit", "Move", "Publish", "PutContent", "WriteContent")
_READING = ("GetContent", "List", "Reader", "Stat")

_PACED = frozenset(("Append", "WriteContent"))
"""Last as long as a client likes, whose bytes they take: counted, not timed."""


class Actions:
    """label: what metrics call the driver."""

    def __init__(self, numbers: Numbers, label: str) -> None:
        self._numbers, self._label = numbers, label
        self._places: dict[tuple[str, str], tuple[int, int]] = {}

    def expect(self) -> None:
        """Make the counters of faults: Prometheus sees an increase only of what was there before."""
        for outcome, actions in (("failed", _STORING + _READING), ("full", _STORING)):
            for action in actions:
                self._numbers.place(catalogue.ACTIONS, (self._label, action, outcome))

    def note(self, action: str, outcome: str, seconds: float) -> None:
        if action in _PACED:
            self._numbers.add(catalogue.ACTIONS, (self._label, action, outcome))
            return
        count, histogram = self._places.get((action, outcome)) or self._find_places(action, outcome)
        values = self._numbers.values
        values[count] += 1
        values[histogram + bisect_left(CALL_SECONDS, seconds)] += 1
        values[histogram + len(CALL_SECONDS) + 1] += seconds

    def _find_places(self, action: str, outcome: str) -> tuple[int, int]:
        places = self._places[action, outcome] = (
            self._numbers.place(catalogue.ACTIONS, (self._label, action, outcome)),
            self._numbers.place(catalogue.ACTION_SECONDS, (self._label, action)),
        )
        return places

    def note_call(self, call: str, status: int, seconds: float) -> None:
        self._numbers.add(catalogue.CALLS, (self._label, call, str(status)))
        self._numbers.observe(catalogue.CALL, (self._label, call), seconds)

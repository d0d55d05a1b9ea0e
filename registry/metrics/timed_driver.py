"""TimedDriver(driver): the same driver, whose calls are counted by outcome and timed.

Rules:
- A new verb of StorageDriver needs its line here, or its default would run over ours: a test compares them.
- Objects that are open are not wrapped: they are read past Python where they can be.
- What takes a client's bytes (append, write_content) lasts as long as the client likes: counted, not timed.
"""

import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from math import inf
from typing import Any, ParamSpec, TypeVar

from registry.metrics import catalogue
from registry.metrics.catalogue import CALL_SECONDS
from registry.metrics.numbers import Numbers
from storage.driver import CallSeen, ObjectInfo, ObjectReader, Stage, StageInfo, StorageDriver, Tap, Unfinished
from storage.errors import (
    NotFound,
    OffsetMismatch,
    PreconditionFailed,
    RangeNotSatisfiable,
    StorageFull,
    Unavailable,
    UpstreamUnavailable,
)
from storage.ranges import RangeRequest

P = ParamSpec("P")
T = TypeVar("T")

_STORING = ("Append", "Commit", "Move", "Publish", "PutContent", "WriteContent")
_READING = ("GetContent", "List", "Reader", "Stat")

_OUTCOMES: tuple[tuple[type[BaseException], str], ...] = (
    (NotFound, "missing"),
    (PreconditionFailed, "refused"),
    (OffsetMismatch, "refused"),
    (RangeNotSatisfiable, "refused"),
    (StorageFull, "full"),
    (UpstreamUnavailable, "interrupted"),  # it came out of the chunks that were to be stored
    (Unavailable, "failed"),
    (GeneratorExit, "ok"),  # whoever listed has seen enough
)


def outcome_of(exc: BaseException) -> str:
    """Of what a verb has raised. What is no error of storage was raised by the chunks, or is a cancellation."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(exc, kind)), "interrupted")


class TimedDriver(StorageDriver):
    """label: what metrics call the driver, as distribution does."""

    def __init__(self, driver: StorageDriver, numbers: Numbers, label: str) -> None:
        self.name, self.offers_urls = driver.name, driver.offers_urls
        self.stages_are_hidden, self.calls_are_dear = driver.stages_are_hidden, driver.calls_are_dear
        self._driver, self._numbers, self._label = driver, numbers, label
        self._places: dict[tuple[str, str], tuple[int, int]] = {}
        driver.watch_calls(self._note_call)

    # Counting

    def expect(self) -> None:
        """Make the counters of faults: Prometheus sees an increase only of what was there before."""
        for outcome, actions in (("failed", _STORING + _READING), ("full", _STORING)):
            for action in actions:
                self._numbers.place(catalogue.ACTIONS, (self._label, action, outcome))

    async def _timed(self, action: str, verb: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        began = time.monotonic()
        try:
            result = await verb(*args, **kwargs)
        except BaseException as exc:
            self._note(action, outcome_of(exc), time.monotonic() - began)
            raise
        self._note(action, "ok", time.monotonic() - began)
        return result

    async def _counted(self, action: str, verb: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs) -> T:
        outcome = "ok"
        try:
            return await verb(*args, **kwargs)
        except BaseException as exc:
            outcome = outcome_of(exc)
            raise
        finally:
            self._numbers.add(catalogue.ACTIONS, (self._label, action, outcome))

    def _note(self, action: str, outcome: str, seconds: float) -> None:
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

    def _note_call(self, call: str, status: int, seconds: float) -> None:
        self._numbers.add(catalogue.CALLS, (self._label, call, str(status)))
        self._numbers.observe(catalogue.CALL, (self._label, call), seconds)

    # Reading

    def open(self, key: str, range: RangeRequest | None = None) -> Coroutine[Any, Any, ObjectReader]:
        return self._timed("Reader", self._driver.open, key, range)

    def read(self, key: str, limit: int = 16 << 20) -> Coroutine[Any, Any, bytes]:
        return self._timed("GetContent", self._driver.read, key, limit)

    def head(self, key: str) -> Coroutine[Any, Any, ObjectInfo]:
        return self._timed("Stat", self._driver.head, key)

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Timed without what the caller does between two objects."""
        found, spent, outcome = self._driver.list_objects(prefix, after), 0.0, "ok"
        try:
            while True:
                began = time.monotonic()
                try:
                    each = await anext(found, None)
                finally:
                    spent += time.monotonic() - began
                if each is None:
                    return
                yield each
        except BaseException as exc:
            outcome = outcome_of(exc)
            raise
        finally:
            self._note("List", outcome, spent)

    def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> Coroutine[Any, Any, list[str]]:
        return self._timed("List", self._driver.list_folders, prefix, after=after, limit=limit, containing=containing)

    def find_folders(
        self, prefix: str, marker: str, *, hidden: str = "_", after: str = "", limit: int | None = None
    ) -> Coroutine[Any, Any, list[str]]:
        return self._timed("Walk", self._driver.find_folders, prefix, marker, hidden=hidden, after=after, limit=limit)

    def url(self, key: str, method: str, expires: float) -> Coroutine[Any, Any, str | None]:
        return self._timed("RedirectURL", self._driver.url, key, method, expires)

    def now(self) -> Coroutine[Any, Any, float]:
        return self._timed("Now", self._driver.now)

    # Writing

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> Coroutine[Any, Any, str]:
        return self._timed(
            "PutContent", self._driver.put, key, data, if_absent=if_absent, if_version=if_version, private=private
        )

    def conditions_hold(self) -> Coroutine[Any, Any, bool]:
        return self._driver.conditions_hold()

    def put_content(
        self, key: str, data: bytes, *, sha256: bytes | None = None, fresh: float = inf
    ) -> Coroutine[Any, Any, None]:
        return self._timed("PutContent", self._driver.put_content, key, data, sha256=sha256, fresh=fresh)

    def write_content(
        self,
        key: str,
        chunks: AsyncIterator[bytes],
        *,
        staging: str,
        tap: Tap,
        verify: Callable[[], None],
        length: int | None = None,
        sha256: bytes | None = None,
        fresh: float = inf,
    ) -> Coroutine[Any, Any, int]:
        return self._counted(
            "WriteContent",
            self._driver.write_content,
            key,
            chunks,
            staging=staging,
            tap=tap,
            verify=verify,
            length=length,
            sha256=sha256,
            fresh=fresh,
        )

    def publish(
        self, stage: Stage, source: str, target: str, size: int, *, fresh: float = inf
    ) -> Coroutine[Any, Any, None]:
        return self._timed("Publish", self._driver.publish, stage, source, target, size, fresh=fresh)

    def delete(self, key: str, *, if_version: str | None = None) -> Coroutine[Any, Any, None]:
        return self._timed("Delete", self._driver.delete, key, if_version=if_version)

    def delete_tree(self, prefix: str) -> Coroutine[Any, Any, None]:
        return self._timed("Delete", self._driver.delete_tree, prefix)

    def move(self, source: str, target: str, size: int) -> Coroutine[Any, Any, None]:
        return self._timed("Move", self._driver.move, source, target, size)

    def touch(self, key: str) -> Coroutine[Any, Any, None]:
        return self._timed("Touch", self._driver.touch, key)

    # Stages

    def begin(self, key: str) -> Coroutine[Any, Any, Stage]:
        return self._timed("Begin", self._driver.begin, key)

    def find_stage(self, key: str) -> Coroutine[Any, Any, Stage]:
        return self._timed("FindStage", self._driver.find_stage, key)

    def append(
        self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._counted("Append", self._driver.append, stage, offset, chunks, tap)

    def stage_info(self, stage: Stage) -> Coroutine[Any, Any, StageInfo]:
        return self._timed("Stat", self._driver.stage_info, stage)

    def complete(self, stage: Stage, size: int) -> Coroutine[Any, Any, None]:
        return self._timed("Commit", self._driver.complete, stage, size)

    def abort(self, stage: Stage) -> Coroutine[Any, Any, None]:
        return self._timed("Cancel", self._driver.abort, stage)

    def list_unfinished(self, prefix: str, before: float) -> Coroutine[Any, Any, list[Unfinished]]:
        return self._timed("ListUnfinished", self._driver.list_unfinished, prefix, before)

    def drop_unfinished(self, found: Unfinished) -> Coroutine[Any, Any, None]:
        return self._timed("Cancel", self._driver.drop_unfinished, found)

    # Life

    def watch_calls(self, seen: CallSeen) -> None:
        self._driver.watch_calls(seen)

    async def check_writable(self) -> None:
        await self._driver.check_writable()

    async def check_present(self) -> None:
        await self._driver.check_present()

    async def aclose(self) -> None:
        await self._driver.aclose()

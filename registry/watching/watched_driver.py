"""WatchedDriver(driver): the same driver, whose calls are counted and timed (metrics), and are spans of traces.

Rules:
- A new verb of StorageDriver needs its line here, or its default would run over ours: a test compares them.
- Objects that are open are not wrapped: they are read past Python where they can be.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from registry.watching.spans import STORAGE, Span, begin_span
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

if TYPE_CHECKING:  # where there are no metrics, nothing of them is imported
    from registry.metrics.actions import Actions

P = ParamSpec("P")
T = TypeVar("T")

_LABELS = {"s3": "s3aws"}
"""What distribution calls a driver, where that is not its name in the configuration."""

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

_FAULTS = frozenset(("full", "failed"))


def label_of(name: str) -> str:
    """What metrics and traces call a driver. name: in the configuration."""
    return _LABELS.get(name, name)


def outcome_of(exc: BaseException) -> str:
    """Of what a verb has raised. What is no error of storage was raised by the chunks, or is a cancellation."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(exc, kind)), "interrupted")


class WatchedDriver(StorageDriver):
    """label: as in label_of.   actions: where calls are counted; None: nowhere.   traced: do spans go anywhere?"""

    def __init__(self, driver: StorageDriver, label: str, actions: "Actions | None", *, traced: bool) -> None:
        self.name, self.offers_urls = driver.name, driver.offers_urls
        self.stages_are_hidden, self.calls_are_dear = driver.stages_are_hidden, driver.calls_are_dear
        self._driver, self._label, self._actions, self._traced = driver, label, actions, traced
        driver.watch_calls(self._note_call)

    # Watching

    async def _watch(
        self, action: str, key: str, verb: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        span = self._begin(action, key) if self._traced else None
        began, outcome = time.monotonic(), "ok"
        try:
            if span is None:
                return await verb(*args, **kwargs)
            with span.current():
                return await verb(*args, **kwargs)
        except BaseException as exc:
            outcome = outcome_of(exc)
            raise
        finally:
            self._end(span, action, outcome, time.monotonic() - began)

    def _begin(self, action: str, key: str) -> Span:
        attributes = {f"{STORAGE}driver.name": self._label}
        if key:
            attributes[f"{STORAGE}path"] = f"/{key}"
        return begin_span(action, attributes)

    def _end(self, span: Span | None, action: str, outcome: str, seconds: float) -> None:
        if self._actions is not None:
            self._actions.note(action, outcome, seconds)
        if span is not None:
            span.set(f"{STORAGE}outcome", outcome)
            if outcome in _FAULTS:
                span.fail(outcome)
            span.end()

    def _note_call(self, call: str, status: int, seconds: float) -> None:
        if self._actions is not None:
            self._actions.note_call(call, status, seconds)
        if self._traced:
            span = begin_span(call, {f"{STORAGE}driver.name": self._label}, client=True, ago=seconds)
            span.set("http.response.status_code", status)
            if not status or status >= 500:
                span.fail(str(status))
            span.end()

    # Reading

    def open(self, key: str, range: RangeRequest | None = None) -> Coroutine[Any, Any, ObjectReader]:
        return self._watch("Reader", key, self._driver.open, key, range)

    def read(self, key: str, limit: int = 16 << 20) -> Coroutine[Any, Any, bytes]:
        return self._watch("GetContent", key, self._driver.read, key, limit)

    def head(self, key: str) -> Coroutine[Any, Any, ObjectInfo]:
        return self._watch("Stat", key, self._driver.head, key)

    async def list_objects(self, prefix: str, after: str = "") -> AsyncIterator[ObjectInfo]:
        """Timed without what the caller does between two objects. What it asks the store is no child of its span, which
        would be the caller's at each `yield`.
        """
        span = self._begin("List", prefix) if self._traced else None
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
            self._end(span, "List", outcome, spent)

    def list_folders(
        self, prefix: str, *, after: str = "", limit: int | None = None, containing: str = ""
    ) -> Coroutine[Any, Any, list[str]]:
        return self._watch(
            "List", prefix, self._driver.list_folders, prefix, after=after, limit=limit, containing=containing
        )

    def find_folders(
        self, prefix: str, marker: str, *, hidden: str = "_", after: str = "", limit: int | None = None
    ) -> Coroutine[Any, Any, list[str]]:
        return self._watch(
            "Walk", prefix, self._driver.find_folders, prefix, marker, hidden=hidden, after=after, limit=limit
        )

    def url(self, key: str, method: str, expires: float) -> Coroutine[Any, Any, str | None]:
        return self._watch("RedirectURL", key, self._driver.url, key, method, expires)

    def now(self) -> Coroutine[Any, Any, float]:
        return self._watch("Now", "", self._driver.now)

    # Writing

    def put(
        self, key: str, data: bytes, *, if_absent: bool = False, if_version: str | None = None, private: bool = False
    ) -> Coroutine[Any, Any, str]:
        return self._watch(
            "PutContent", key, self._driver.put, key, data, if_absent=if_absent, if_version=if_version, private=private
        )

    def put_noted(self, key: str, data: bytes, note: str) -> Coroutine[Any, Any, None]:
        return self._watch("PutContent", key, self._driver.put_noted, key, data, note)

    def conditions_hold(self) -> Coroutine[Any, Any, bool]:
        return self._driver.conditions_hold()

    def put_content(
        self, key: str, data: bytes, *, sha256: bytes | None = None, fresh: float = inf
    ) -> Coroutine[Any, Any, None]:
        return self._watch("PutContent", key, self._driver.put_content, key, data, sha256=sha256, fresh=fresh)

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
        return self._watch(
            "WriteContent",
            key,
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
        return self._watch("Publish", target, self._driver.publish, stage, source, target, size, fresh=fresh)

    def delete(self, key: str, *, if_version: str | None = None) -> Coroutine[Any, Any, None]:
        return self._watch("Delete", key, self._driver.delete, key, if_version=if_version)

    def delete_tree(self, prefix: str) -> Coroutine[Any, Any, None]:
        return self._watch("Delete", prefix, self._driver.delete_tree, prefix)

    def move(self, source: str, target: str, size: int) -> Coroutine[Any, Any, None]:
        return self._watch("Move", target, self._driver.move, source, target, size)

    def touch(self, key: str) -> Coroutine[Any, Any, None]:
        return self._watch("Touch", key, self._driver.touch, key)

    # Stages

    def begin(self, key: str) -> Coroutine[Any, Any, Stage]:
        return self._watch("Begin", key, self._driver.begin, key)

    def find_stage(self, key: str) -> Coroutine[Any, Any, Stage]:
        return self._watch("FindStage", key, self._driver.find_stage, key)

    def append(
        self, stage: Stage, offset: int, chunks: AsyncIterator[bytes], tap: Tap | None = None
    ) -> Coroutine[Any, Any, int]:
        return self._watch("Append", stage, self._driver.append, stage, offset, chunks, tap)

    def stage_info(self, stage: Stage) -> Coroutine[Any, Any, StageInfo]:
        return self._watch("Stat", stage, self._driver.stage_info, stage)

    def complete(self, stage: Stage, size: int) -> Coroutine[Any, Any, None]:
        return self._watch("Commit", stage, self._driver.complete, stage, size)

    def abort(self, stage: Stage) -> Coroutine[Any, Any, None]:
        return self._watch("Cancel", stage, self._driver.abort, stage)

    def list_unfinished(self, prefix: str, before: float) -> Coroutine[Any, Any, list[Unfinished]]:
        return self._watch("ListUnfinished", prefix, self._driver.list_unfinished, prefix, before)

    def drop_unfinished(self, found: Unfinished) -> Coroutine[Any, Any, None]:
        return self._watch("Cancel", found.key, self._driver.drop_unfinished, found)

    # Life

    def watch_calls(self, seen: CallSeen) -> None:
        self._driver.watch_calls(seen)

    async def check_writable(self) -> None:
        await self._driver.check_writable()

    async def check_present(self) -> None:
        await self._driver.check_present()

    async def aclose(self) -> None:
        await self._driver.aclose()

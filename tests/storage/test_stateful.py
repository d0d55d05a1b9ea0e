"""The filesystem driver against a dict: random verbs, after each of which both must tell the same."""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from storage.driver import Stage
from storage.drivers.filesystem import FilesystemDriver
from storage.errors import ObjectNotFound, OffsetMismatch, PreconditionFailed, RangeNotSatisfiable
from storage.ranges import RangeRequest

T = TypeVar("T")

KEYS = ["a", "b/-", "b/c", "b/c-d/e", "b/c.d/e", "b/d/e", "b/d/f/g", "b-/x", "c/d", "s/c/x"]
"""Some share folders, some sort oddly, one is neighbour of the scratch folder; none lies below another."""

FOLDERS = ["", "b", "b/c-d", "b/d", "b/d/f", "b-", "c", "s", "none"]

keys = st.sampled_from(KEYS)
folders = st.sampled_from(FOLDERS)
data = st.binary(max_size=20)


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class DriverAgainstDict(RuleBasedStateMachine):
    """On a filesystem a stage is the file at its key, so one dict holds both."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.root = Path(tempfile.mkdtemp())
        self.driver = FilesystemDriver(self.root, scratch="s/scratch", threads=2)
        self.model: dict[str, bytes] = {}
        self.versions: dict[str, str] = {}

    def teardown(self) -> None:
        self.run(self.driver.aclose())
        self.runner.close()
        shutil.rmtree(self.root)

    def run(self, verb: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(verb)

    def stored(self, key: str, value: bytes | None) -> None:
        """Something has happened to a key: what was known of its version is void."""
        self.versions.pop(key, None)
        if value is None:
            self.model.pop(key, None)
        else:
            self.model[key] = value

    # Writing

    @rule(key=keys, value=data, private=st.booleans())
    def put(self, key: str, value: bytes, private: bool) -> None:
        version = self.run(self.driver.put(key, value, private=private))
        assert version != self.versions.get(key)
        self.stored(key, value)
        self.versions[key] = version

    @rule(key=keys, value=data)
    def put_if_absent(self, key: str, value: bytes) -> None:
        if key in self.model:
            with pytest.raises(PreconditionFailed):
                self.run(self.driver.put(key, value, if_absent=True))
        else:
            version = self.run(self.driver.put(key, value, if_absent=True))
            self.stored(key, value)
            self.versions[key] = version

    @rule(key=keys, value=data)
    def put_over_what_is_known(self, key: str, value: bytes) -> None:
        known = self.versions.get(key)
        if known is None:
            with pytest.raises(PreconditionFailed):
                self.run(self.driver.put(key, value, if_version="of something else"))
        else:
            version = self.run(self.driver.put(key, value, if_version=known))
            self.stored(key, value)
            self.versions[key] = version
            with pytest.raises(PreconditionFailed):
                self.run(self.driver.put(key, b"late", if_version=known))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        self.run(self.driver.delete(key))
        self.stored(key, None)

    @rule(prefix=folders)
    def delete_tree(self, prefix: str) -> None:
        self.run(self.driver.delete_tree(prefix))
        for key in self.below(prefix):
            self.stored(key, None)

    @rule(source=keys, goal=keys, error=st.sampled_from([0, 0, 0, 1]))
    def move(self, source: str, goal: str, error: int) -> None:
        size = len(self.model.get(source, b"")) + error
        if source not in self.model:
            with pytest.raises(ObjectNotFound):
                self.run(self.driver.move(source, goal, size))
        elif error:
            with pytest.raises(OffsetMismatch):
                self.run(self.driver.move(source, goal, size))
        else:
            self.run(self.driver.move(source, goal, size))
            value = self.model[source]
            self.stored(source, None)
            self.stored(goal, value)

    @rule(key=keys)
    def touch(self, key: str) -> None:
        if key in self.model:
            self.run(self.driver.touch(key))
            self.versions.pop(key, None)
        else:
            with pytest.raises(ObjectNotFound):
                self.run(self.driver.touch(key))

    # Stages

    @rule(key=keys)
    def begin(self, key: str) -> None:
        assert self.run(self.driver.begin(key)) == key
        self.stored(key, b"")

    @rule(key=keys, chunks=st.lists(data, max_size=4), error=st.sampled_from([0, 0, 0, -1, 1]))
    def append(self, key: str, chunks: list[bytes], error: int) -> None:
        offset = len(self.model.get(key, b"")) + error
        tapped = bytearray()
        appending = self.driver.append(Stage(key), offset, pieces(*chunks), tapped.extend)
        if key not in self.model:
            with pytest.raises(ObjectNotFound):
                self.run(appending)
        elif error:
            with pytest.raises(OffsetMismatch) as caught:
                self.run(appending)
            assert caught.value.expected == offset - error
        else:
            value = self.model[key] + b"".join(chunks)
            assert self.run(appending) == len(value)
            assert tapped == b"".join(chunks)
            self.stored(key, value)

    @rule(key=keys)
    def complete(self, key: str) -> None:
        if key in self.model:
            self.run(self.driver.complete(Stage(key), len(self.model[key])))
        else:
            with pytest.raises(ObjectNotFound):
                self.run(self.driver.complete(Stage(key), 0))

    @rule(key=keys)
    def abort(self, key: str) -> None:
        self.run(self.driver.abort(Stage(key)))
        self.stored(key, None)

    @rule()
    def restart(self) -> None:
        self.run(self.driver.aclose())
        self.driver = FilesystemDriver(self.root, scratch="s/scratch", threads=2)

    # Reading

    @rule(key=keys, start=st.integers(0, 25), length=st.integers(1, 25))
    def read_range(self, key: str, start: int, length: int) -> None:
        async def read() -> bytes:
            async with await self.driver.open(key, RangeRequest(start, start + length)) as reader:
                return await reader.read(100)

        if key not in self.model:
            with pytest.raises(ObjectNotFound):
                self.run(read())
        elif start >= len(self.model[key]):
            with pytest.raises(RangeNotSatisfiable):
                self.run(read())
        else:
            assert self.run(read()) == self.model[key][start : start + length]

    @precondition(lambda self: self.model)
    @rule(prefix=folders, after=st.sampled_from([*KEYS, "b/", "b/c", "b/d/f", "z"]))
    def list_objects(self, prefix: str, after: str) -> None:
        async def listed() -> list[str]:
            return [info.key async for info in self.driver.list_objects(prefix, after)]

        assert self.run(listed()) == [key for key in self.below(prefix) if key > after]

    @rule(
        prefix=folders,
        after=st.sampled_from(["", "a", "b", "c", "d"]),
        limit=st.sampled_from([None, 0, 1, 2]),
        containing=st.sampled_from(["", "e", "f/g", "x"]),
    )
    def list_folders(self, prefix: str, after: str, limit: int | None, containing: str) -> None:
        start = len(prefix) + 1 if prefix else 0
        names = {key[start:].split("/")[0] for key in self.below(prefix) if "/" in key[start:]}
        if containing:
            names = {name for name in names if f"{prefix}/{name}/{containing}".lstrip("/") in self.model}
        expected = sorted(name for name in names if name > after)[:limit]
        found = self.driver.list_folders(prefix, after=after, limit=limit, containing=containing)
        assert self.run(found) == expected

    @invariant()
    def nothing_else_is_there(self) -> None:
        files = {str(path.relative_to(self.root)): path for path in self.root.rglob("*") if path.is_file()}
        found = {key: path.read_bytes() for key, path in files.items() if not key.startswith("s/scratch/")}
        assert found == self.model
        assert [key for key in files if key not in found and not key.endswith("/lock")] == []

    @invariant()
    def no_folder_is_left_empty(self) -> None:
        left = [
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.is_dir() and not any(path.iterdir())
        ]
        assert [path for path in left if path != "s/scratch"] == []

    def below(self, prefix: str) -> list[str]:
        return sorted(key for key in self.model if not prefix or key.startswith(f"{prefix}/"))


TestDriverAgainstDict = pytest.mark.slow(DriverAgainstDict.TestCase)
TestDriverAgainstDict.settings = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=30,
    stateful_step_count=40,
    suppress_health_check=[HealthCheck.too_slow],  # it syncs to a disk
)

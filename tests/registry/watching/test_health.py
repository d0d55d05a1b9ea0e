"""Checks against a clock that the tests turn, and what Health makes of them."""

import asyncio
import json
import logging
from typing import Any

import pytest

from registry.watching import health
from registry.watching.debug import Answer
from registry.watching.health import OK, Check, Health, Unwell, join_status
from storage.errors import Unavailable


class Subject:
    """What is checked: it fails as long as there is something to say. looks: how often it was asked."""

    def __init__(self) -> None:
        self.looks, self.now = 0, 1000.0
        self.said = ""
        self.cause: Exception | None = None
        self.answering = asyncio.Event()
        self.answering.set()

    async def ask(self) -> None:
        self.looks += 1
        await self.answering.wait()
        if self.said:
            raise Unwell(self.said) from self.cause

    def check(self, threshold: int = 1, interval: float = 10.0, name: str = "subject") -> Check:
        return Check(f"health.{name}", name, self.ask, interval=interval, threshold=threshold, clock=lambda: self.now)


async def test_one_look_an_interval_however_many_ask() -> None:
    subject = Subject()
    check = subject.check()
    assert await asyncio.gather(*(check.now() for _ in range(100))) == [OK] * 100
    subject.now += 9.9
    assert await check.now() == OK
    assert subject.looks == 1
    subject.now += 0.1
    subject.said = "broken"
    assert await check.now() == "broken"
    assert subject.looks == 2


async def test_nobody_asks_nobody_looks() -> None:
    subject = Subject()
    check = subject.check()
    subject.now += 1000
    await asyncio.sleep(0)
    assert (subject.looks, check.failure) == (0, "")


async def test_it_has_failed_after_as_many_failures_in_a_row(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    subject = Subject()
    check, seen = subject.check(threshold=2), []
    for said in ("a", "", "b", "c", "d", ""):
        subject.said = said
        await check.now()
        seen.append(check.failure)
        subject.now += 10
    assert seen == ["", "", "", "c", "d", ""]
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["the check health.subject fails: c", "the check health.subject succeeds again"]


async def test_a_threshold_of_0_is_1() -> None:
    subject = Subject()
    subject.said = "broken"
    check = subject.check(threshold=0)
    await check.now()
    assert check.failure == "broken"


async def test_a_look_without_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who ask wait for it together and for so long only; it is not begun again while it lasts."""
    monkeypatch.setattr(health, "PATIENCE", 0.01)
    subject = Subject()
    subject.answering.clear()
    check = subject.check(threshold=2)
    asked = [asyncio.create_task(check.now()) for _ in range(3)]
    await asyncio.sleep(0)
    subject.now += 3
    assert [await task for task in asked] == ["no answer for 3 seconds"] * 3
    assert check.failure == ""
    subject.now += 17
    assert await check.now() == "no answer for 20 seconds"
    assert check.failure == "no answer for 20 seconds"
    assert subject.looks == 1
    subject.answering.set()
    subject.now += 1
    await check.now()
    await asyncio.sleep(0)
    assert (await check.now(), check.failure) == (OK, "")
    await check.aclose()


async def test_only_operators_see_the_cause() -> None:
    async def ask() -> None:
        raise Unavailable("the storage does not answer") from OSError("10.0.0.1 refused")

    check = Check("health.storagedriver", "storagedriver_s3", ask, interval=10, threshold=1)
    assert await check.now() == "the storage does not answer"
    assert check.failure == "the storage does not answer (10.0.0.1 refused)"


async def test_a_cause_that_the_message_has_is_said_once() -> None:
    async def ask() -> None:
        raise Unwell("10.0.0.1:80: refused") from OSError("refused")

    check = Check("health.tcp.0", "10.0.0.1:80", ask, interval=10, threshold=1)
    await check.now()
    assert check.failure == "10.0.0.1:80: refused"


# Health.


@pytest.fixture
def subject() -> Subject:
    return Subject()


def said(answer: Answer) -> tuple[int, Any]:
    return answer.status, json.loads(answer.body)


async def test_live_whatever_fails(subject: Subject) -> None:
    subject.said = "broken"
    both = Health(subject.check(), [subject.check()], gating=True)
    both.stop()
    assert said(await both.live()) == (200, {"live": True})
    assert subject.looks == 0


async def test_ready(subject: Subject) -> None:
    alone = Health(subject.check(), [], gating=False)
    assert said(await alone.ready()) == (200, {"ready": True, "checks": {"serving": "ok", "storage": "ok"}})
    alone.stop()
    assert said(await alone.ready()) == (503, {"ready": False, "checks": {"serving": "stopping", "storage": "ok"}})


async def test_not_ready_without_storage_and_without_a_failed_check(subject: Subject) -> None:
    """A single failure of the storage is enough here; whoever asks counts for himself."""
    subject.said = "broken"
    alone = Health(subject.check(threshold=3), [], gating=True)
    assert said(await alone.ready()) == (503, {"ready": False, "checks": {"serving": "ok", "storage": "broken"}})
    assert alone.failing() == {}
    assert not Health(subject.check(), [], gating=False).gated


async def test_what_anybody_is_told_and_what_operators_are(subject: Subject) -> None:
    page = Subject()
    page.said = "http://10.0.0.1/up: connection refused"
    polled = page.check(name="http.0")
    both = Health(subject.check(), [polled], gating=False)
    async with both.watching():
        await polled.now()
        checks = {"serving": "ok", "storage": "ok", "health.http.0": "fails"}
        assert said(await both.ready()) == (503, {"ready": False, "checks": checks})
        assert said(await both.ready_in_full()) == (
            503,
            {"ready": False, "checks": checks | {"health.http.0": page.said}},
        )
        assert said(await both.status()) == (503, {"http.0": page.said})


async def test_paths_are_for_operators_alone(subject: Subject) -> None:
    subject.said, subject.cause = "permission denied", PermissionError("/srv/registry")
    health = Health(subject.check(), [], gating=False)
    for answer, storage in (
        (await health.ready(), "permission denied"),
        (await health.ready_in_full(), "permission denied (/srv/registry)"),
    ):
        assert said(answer)[1]["checks"]["storage"] == storage


async def test_status_is_distributions(subject: Subject) -> None:
    well = Health(subject.check(name="storagedriver_s3"), [], gating=True)
    assert said(await well.status()) == (200, {})
    subject.said = "broken"
    subject.now += 10
    assert said(await well.status()) == (503, {"storagedriver_s3": "broken"})
    assert said(await Health(subject.check(), [], gating=False).status()) == (200, {})


async def test_a_request_has_the_storage_looked_at_for_the_next_one(subject: Subject) -> None:
    subject.said = "broken"
    gating = Health(subject.check(), [], gating=True)
    assert gating.failing() == {}
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gating.failing() == {"subject": "broken"}
    assert subject.looks == 1
    other = Health(subject.check(), [], gating=False)
    assert (other.failing(), subject.looks) == ({}, 1)


async def test_configured_checks_are_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, slept = Subject(), list[float]()
    enough = asyncio.Event()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            enough.set()
            await asyncio.Event().wait()

    monkeypatch.setattr("registry.watching.health.asyncio.sleep", sleep)
    polled = Health(Subject().check(), [subject.check(interval=7)], gating=False)
    async with polled.watching():
        await enough.wait()
    assert (subject.looks, slept) == (3, [7, 7, 7])


@pytest.mark.parametrize(
    ("bodies", "joined"),
    [
        (["{}", "{}"], (200, {})),
        (["{}", '{"a": "x"}', '{"a": "x", "b": "y"}'], (503, {"a": "x", "b": "y"})),
    ],
)
def test_what_all_workers_say(bodies: list[str], joined: tuple[int, object]) -> None:
    assert said(join_status([Answer(body.encode()) for body in bodies])) == joined

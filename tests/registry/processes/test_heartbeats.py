"""Heartbeats, looked at without a process."""

import asyncio

import pytest

from registry.processes import heartbeats
from registry.processes.heartbeats import Heartbeats, keep_beating


def test_a_silence_is_counted_in_looks() -> None:
    beats = Heartbeats(2)
    beats.beat(0)
    assert [beats.silence(0), beats.silence(0), beats.silence(0)] == [0, 1, 2]
    beats.beat(0)
    assert [beats.silence(0), beats.silence(0)] == [0, 1]
    assert beats.silence(1) == 1


def test_a_count_begins_anew_behind_the_last_number() -> None:
    beats = Heartbeats(1)
    for _ in range(600):
        beats.beat(0)
        assert beats.silence(0) == 0


async def test_a_loop_that_turns_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeats, "BEAT", 0.0)
    beaten, enough = list[int](), asyncio.Event()

    def beat() -> None:
        beaten.append(1)
        if len(beaten) == 3:
            enough.set()

    keep_beating(beat)
    assert len(beaten) == 1
    await asyncio.wait_for(enough.wait(), 5)

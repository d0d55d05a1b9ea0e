"""The supervisor alone, in a child process: what becomes of workers that do not live."""

import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

SUPERVISED = """
import logging, os, signal, sys, time
from mmap import mmap
from registry.processes import supervisor
supervisor.STEADY, supervisor.LOOK, supervisor.LOOKS = 0.05, 0.02, 50
lives, ended = mmap(-1, 2), []
{before}
def beating(beat):
    while not ended:
        beat()
        time.sleep(0.01)
def work(number, up, beat):
    lives[number] += 1
    signal.signal(signal.SIGTERM, lambda *_: ended.append(1))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])
    {body}
def say(*words):
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # whole: print writes in pieces, and others between
watch = supervisor.Supervisor(
    2,
    work,
    up=lambda: say("up"),
    failed=lambda exc: say("failed", exc),
    stopping=lambda: say("stopping"),
    ending=4.0,
)
try:
    say("returned", watch.run())
except supervisor.WorkersFailed as exc:
    say(exc)
"""


def supervised(body: str, before: str = "", **options: object) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SUPERVISED.format(body=body, before=before)],
        stdout=subprocess.PIPE,
        text=True,
        timeout=20,
        check=True,
        **options,  # type: ignore[call-overload]
    )
    lines: list[str] = done.stdout.splitlines()
    return lines


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os._exit(7)", ["stopping", "returned 7"]),
        ("1/0", ["failed division by zero", "stopping", "returned 1"]),
        ("return", ["stopping", "the first worker ended with exit code 0 before it answered"]),
        ("os.kill(os.getpid(), 9)", ["stopping", "the first worker was killed by SIGKILL before it answered"]),
    ],
)
def test_first_worker_that_does_not_start(body: str, said: list[str]) -> None:
    """Once, by the first of two; with a code above 0 it has said why itself."""
    assert supervised(body) == said


@pytest.mark.parametrize("number", [0, 1])
def test_worker_that_does_not_live(number: int) -> None:
    """The other one ends well."""
    body = f"up(); number == {number} and os._exit(3); signal.pause(); say('ended')"
    *before, ended, verdict = supervised(body)
    assert verdict == f"worker {number} ended at once 5 times in a row, the last time it ended with exit code 3"
    assert ended == "ended"
    assert "stopping" in before


def test_worker_that_hangs_is_replaced() -> None:
    """Stopped, so that not even a signal reaches it; its successor has the parent end."""
    body = "up(); number and lives[1] == 1 and os.kill(os.getpid(), signal.SIGSTOP)"
    body += "; number and os.kill(os.getppid(), signal.SIGTERM); beating(beat); say('ended', lives[number])"
    said = supervised(body)
    assert said[:2] == ["up", "stopping"]
    assert sorted(said[2:4]) == ["ended 1", "ended 2"]
    assert said[4:] == ["returned 0"]


def test_worker_that_answers_when_its_silence_was_said_lives_on() -> None:
    """As where all have waited for somebody to read the log."""
    before = """
read = mmap(-1, 2)
class Log(logging.Handler):
    def emit(self, record):
        read[0] = 1
        while "not answered" in record.msg and not read[1]:
            time.sleep(0.001)
logging.getLogger().addHandler(Log())
def waiting(beat):
    while not read[0]:
        time.sleep(0.001)
    beat()
    read[1] = 1
    for _ in range(10):
        beat()
        time.sleep(0.01)
    os.kill(os.getppid(), signal.SIGTERM)
"""
    said = supervised("up(); number and waiting(beat); beating(beat); say('ended', lives[number])", before=before)
    assert said == ["up", "stopping", "ended 1", "ended 1", "returned 0"]


def test_a_parent_that_was_stopped_goes_on() -> None:
    """And takes its awakening for no signal, late as it is for the next look."""
    before = """
def stopping(parent):
    time.sleep(0.1)
    os.kill(parent, signal.SIGSTOP)
    time.sleep(0.2)
    os.kill(parent, signal.SIGCONT)
    time.sleep(0.1)
    say('going on')
    os.kill(parent, signal.SIGTERM)
"""
    said = supervised("up(); number and stopping(os.getppid()); beating(beat); say('ended')", before=before)
    assert said == ["up", "going on", "stopping", "ended", "ended", "returned 0"]


def test_worker_that_does_not_end_is_killed() -> None:
    body = "up(); number and os.kill(os.getppid(), signal.SIGTERM)"
    body += "; number and os.kill(os.getpid(), signal.SIGSTOP); beating(beat)"
    assert supervised(body)[-2:] == ["stopping", "returned 1"]


def test_it_can_wait_where_children_are_ignored() -> None:
    """A parent's SIG_IGN for SIGCHLD is inherited, and children would vanish unseen."""
    assert supervised("os._exit(7)", preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) == [
        "stopping",
        "returned 7",
    ]

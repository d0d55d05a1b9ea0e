"""A parent that forks workers, waits, and replaces those that die or hang. What a worker does is its caller's affair.

- It has no loop and no thread, so that a fork copies nothing that is half done.
- Its signals are blocked and waited for, and a worker unblocks them once it can act on them: none gets lost.
- SIGALRM means that there may be something to do. It is the parent's own.
- SIGCHLD means "look at your workers". A worker sends one to say that it answers, and the kernel when it has died.
- SIGHUP reloads the parent first, whose next workers begin with what it has, and then the workers.
- The first worker starts alone, so that what keeps all of them from starting is said once.
- A worker whose loop has stood still for a minute is killed (heartbeats.py), and so is one that has not ended when it
  should have.
"""

import ctypes
import logging
import math
import mmap
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

from registry.processes.heartbeats import LOOK, LOOKS, Heartbeats
from registry.processes.reload import Terminal

log = logging.getLogger(__name__)

STEADY = 1.0
"""Seconds. Who ends sooner is restarted only after as many, and the like in a row is counted."""
QUICK_DEATHS = 5
"""Of one worker in a row, after which the next would not live either."""

ENDING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*ENDING, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h; Python has no name for it

Work = Callable[[int, Callable[[], None], Callable[[], None]], None]
"""(number, up, beat): what a worker does, from its start to its end. It calls `up` once it answers, and from then on
`beat` every second."""


class WorkersFailed(RuntimeError):
    """Workers do not live. The message says which and how it ended; why, it has said itself."""


@dataclass
class Worker:
    """pid: None while it waits for its (re)start at `due`. deaths: quick ones, in a row."""

    number: int
    pid: int | None = None
    began: float = 0.0
    due: float = 0.0
    deaths: int = 0


class Supervisor:
    """Keeps workers running until a signal.

    up: called once, when all of them answer. failed: called in a worker, with what ended it.
    stopping: called once, when no worker is restarted any more.
    hangup: called at SIGHUP; shall the workers have it, too?
    ending: seconds in which a worker ends that shall.
    """

    def __init__(
        self,
        count: int,
        work: Work,
        *,
        up: Callable[[], None],
        failed: Callable[[Exception], None],
        stopping: Callable[[], None],
        hangup: Callable[[], bool] = bool,
        ending: float = math.inf,
    ) -> None:
        self._work, self._up, self._failed, self._on_stop, self._on_hangup = work, up, failed, stopping, hangup
        self._terminal = Terminal()
        self._workers = [Worker(number) for number in range(count)]
        self._answering = mmap.mmap(-1, count)  # a byte that each worker sets and the parent reads
        self._heartbeats = Heartbeats(count)
        self._look_due = 0.0
        self._ending, self._kill_due = ending, math.inf
        self._announced = self._stopping = False
        self._status = 0
        self._verdict: WorkersFailed | None = None
        self._pid = os.getpid()
        self._prctl = ctypes.CDLL(None, use_errno=True).prctl  # found before the fork, like all that is imported

    def run(self) -> int:
        """Returns the exit code: 0, a worker's that ended badly, or 128 and the second signal."""
        with _blocked_signals():
            try:
                return self._supervise()
            finally:
                self._kill()

    def _supervise(self) -> int:
        while True:
            if not self._stopping:
                self._start_due()
            elif not self._running():
                if self._verdict:
                    raise self._verdict
                return self._status
            came = _next_signal(self._patience())
            if came not in (signal.SIGCHLD, signal.SIGALRM) and self._obey(came):
                return 128 + came
            self._reap()
            self._announce()
            self._end_hanging()

    def _obey(self, signum: int) -> bool:
        """Returns whether to end at once."""
        if signum == signal.SIGHUP and not self._terminal.is_gone():
            if not self._stopping and self._on_hangup():
                self._signal(signal.SIGHUP)
            return False
        if self._stopping:
            return True
        self._stop()
        return False

    def _running(self) -> list[int]:
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def _waiting(self) -> list[Worker]:
        """Those to start, now or later; the first one alone until it has answered."""
        if self._stopping:
            return []
        some = self._workers if self._announced or self._answering[0] else self._workers[:1]
        return [worker for worker in some if worker.pid is None]

    def _patience(self) -> float:
        """Seconds until there is something to do."""
        due = min(self._look_due, self._kill_due, *(worker.due for worker in self._waiting()))
        return max(0.0, due - time.monotonic())

    def _start_due(self) -> None:
        now = time.monotonic()
        for worker in self._waiting():
            if worker.due <= now and not self._stopping:
                worker.began = now
                try:
                    worker.pid = self._fork(worker.number)
                except OSError as exc:
                    self._ended(worker, f"could not be forked: {exc.strerror}")

    def _fork(self, number: int) -> int:
        sys.stdout.flush()  # or the worker would write once more what waits there
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            self._become(number)
        return pid

    def _become(self, number: int) -> NoReturn:
        """The life of a worker. Nothing of the parent's, such as the end of its contexts, may run here."""
        status = 1
        try:
            self._prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != self._pid:  # it died before it could be asked for
                os._exit(status)
            self._work(number, lambda: self._answer(number), lambda: self._heartbeats.beat(number))
            status = 0
        except Exception as exc:  # noqa: BLE001 - a process ends here, and says why
            self._failed(exc)
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)

    def _answer(self, number: int) -> None:
        self._heartbeats.beat(number)  # before anybody counts on from its predecessor's silence
        self._answering[number] = 1
        os.kill(os.getppid(), signal.SIGCHLD)  # to whoever adopted it, this says nothing

    def _announce(self) -> None:
        if not self._announced and not self._stopping and all(self._answering[:]):
            self._announced = True
            self._up()

    def _reap(self) -> None:
        while self._running():
            pid, status = os.waitpid(-1, os.WNOHANG)  # any: process 1 of a container adopts others, too
            if pid == 0:
                return
            for worker in self._workers:
                if worker.pid == pid:
                    worker.pid = None
                    code = os.waitstatus_to_exitcode(status)
                    self._ended(worker, _how(code), code)

    def _end_hanging(self) -> None:
        now = time.monotonic()
        if now >= self._kill_due:
            self._kill_due = math.inf
            for worker in self._workers:
                if worker.pid is not None:
                    os.kill(worker.pid, signal.SIGKILL)
                    log.error("worker %d has not ended in time and is killed", worker.number)
        if now >= self._look_due:
            for worker in self._workers:
                if worker.pid is not None and self._answering[worker.number]:
                    self._judge(worker.number, worker.pid, self._heartbeats.silence(worker.number))
            self._look_due = time.monotonic() + LOOK

    def _judge(self, number: int, pid: int, silence: int) -> None:
        """Killed is who is still silent after it was said: where a log that nobody reads has stopped all, it stops us
        as well, and the workers have answered by the time we go on.
        """
        if silence == LOOKS:
            log.error("worker %d has not answered for %.0f seconds and is killed unless it does", number, LOOK * LOOKS)
        elif silence > LOOKS:
            os.kill(pid, signal.SIGKILL)

    def _ended(self, worker: Worker, how: str, code: int = -1) -> None:
        """code: above 0 when the worker has said itself what was wrong."""
        lived = time.monotonic() - worker.began
        answered, self._answering[worker.number] = self._answering[worker.number], 0
        if self._stopping:
            if code:
                log.error("worker %d %s while it stopped", worker.number, how)
                self._status = 1
            return
        if not self._announced and worker.number == 0 and not answered:
            self._status = code
            self._verdict = None if code > 0 else WorkersFailed(f"the first worker {how} before it answered")
            self._stop()
            return
        quick = not answered or lived < STEADY
        worker.deaths = worker.deaths + 1 if quick else 0
        worker.due = time.monotonic() + (STEADY if quick else 0.0)
        log.error("worker %d %s; it is replaced", worker.number, how, extra={"lived": round(lived, 3)})
        if worker.deaths >= QUICK_DEATHS:
            times = f"{worker.deaths} times in a row"
            self._verdict = WorkersFailed(f"worker {worker.number} ended at once {times}, the last time it {how}")
            self._stop()

    def _stop(self) -> None:
        self._stopping, self._kill_due = True, time.monotonic() + self._ending
        self._on_stop()
        self._signal(signal.SIGTERM)

    def _signal(self, signum: signal.Signals) -> None:
        for pid in self._running():
            os.kill(pid, signum)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.pid is not None:
                os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)
                worker.pid = None


def _how(code: int) -> str:
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _next_signal(patience: float) -> int:
    """SIGALRM: none has come within so many seconds.

    Not sigtimedwait: where SIGCONT comes behind its deadline, Python returns a number that nobody has set.
    """
    signal.setitimer(signal.ITIMER_REAL, max(patience, 1e-6))  # 0 would be never
    return signal.sigwaitinfo(SIGNALS).si_signo


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Inside, signals wait until somebody asks for them; what nobody has asked for by the end is dropped."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # who starts us may have it ignored, and then nobody can wait
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        while signal.sigtimedwait(SIGNALS, 0):
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

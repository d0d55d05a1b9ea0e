"""Several processes that serve one address: a parent makes the listeners, and a supervisor forks workers for them.

    parent  listens, forks, waits (registry/processes/supervisor.py)
     ├ worker 0   its own listener (SO_REUSEPORT; a unix socket is shared), loop, threads and connections
     └ worker 1   the same; only worker 0 purges abandoned uploads, and answers at the debug address

- The parent keeps every listener open: connections that wait for a worker which died are its successor's. It closes
  them when it stops, or the kernel would go on accepting for nobody.
- A worker takes any number of SIGTERM and SIGINT as one. A terminal and systemd signal every process, and the parent
  passes the signal on: the second one is no sign of impatience. Impatience reaches the parent, which kills.
"""

import signal
from asyncio import Runner
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from socket import socket

from registry.application import Application
from registry.config import Config
from registry.processes.heartbeats import keep_beating
from registry.processes.reload import Reloader
from registry.processes.siblings import Siblings
from registry.processes.supervisor import ENDING, SIGNALS, Supervisor
from registry.serving.limits import Limits
from registry.serving.listeners import listening_each, printable
from registry.serving.server import (
    LoopFactory,
    Server,
    best_loop,
    debug_server,
    drain_of,
    limits_of,
    within_descriptors,
)
from registry.serving.tls import ServerContext, server_context
from registry.watching.debug import debug_listening

AFTER_DRAIN = 45.0
"""Seconds that a worker may take for the rest of its end: what it aborts, what it closes. Spans for a collector that is
away take 30 of them (OpenTelemetry gives up then), and who waits for that does not hang."""


def run(
    create: Callable[[Config], Application],
    config: Config,
    count: int,
    *,
    started: Callable[[list[str]], None],
    failed: Callable[[Exception], None],
    reload: Reloader | None = None,
    loop_factory: LoopFactory | None = None,
) -> int:
    """Serve in `count` processes until a signal. Returns the exit code.

    create: makes the application; called here, once for each kind of worker, before any of them is forked.
    started: called with the bound addresses once all workers answer.
    failed: called in a worker, with what ended it.   reload: called at SIGHUP, here and in each worker.
    Raises as registry.serving.server.run does; WorkersFailed when workers do not live.
    """
    limits = within_descriptors(limits_of(config))
    apps = [create(each) for each in (config, without_chores(config))]
    # One for all, so that a TLS session of one worker is resumed by another.
    context, factory = server_context(config.http.tls), loop_factory or best_loop()
    with (
        listening_each(config.http.net, config.http.addr, count, unacknowledged=limits.stall_timeout) as listeners,
        debug_listening(config) as debug_sockets,
        closing(Siblings(count if debug_sockets else 0)) as siblings,
    ):
        addresses = [printable(sock) for sock in listeners[0]]
        heritage = Heritage(config, limits, apps, context, factory, listeners, debug_sockets, siblings, reload)
        supervisor = Supervisor(
            count,
            heritage.work,
            up=lambda: started(addresses),
            failed=failed,
            stopping=lambda: _close([*listeners, debug_sockets]),
            hangup=lambda: reload is not None and reload(context),
            ending=config.http.shutdowndelay + drain_of(config) + AFTER_DRAIN,
        )
        return supervisor.run()


@dataclass(frozen=True, slots=True)
class Heritage:
    """What the parent has made before it forks, and a worker finds in its memory.

    apps: the first worker's, and that of all others.   listeners: of each worker.
    debug_sockets: empty without a debug address.
    """

    config: Config
    limits: Limits
    apps: list[Application]
    context: ServerContext | None
    loop_factory: LoopFactory
    listeners: list[list[socket]]
    debug_sockets: list[socket]
    siblings: Siblings
    reload: Reloader | None

    def work(self, number: int, up: Callable[[], None], beat: Callable[[], None]) -> None:
        """The life of a worker: serves until a signal."""
        _close(self.listeners, but=self.listeners[number])
        app = self.apps[min(number, 1)]
        server = Server(
            app,
            self.listeners[number],
            self.context,
            self.limits,
            drain_of(self.config),
            self._beside(number, app),
            worker=number,
            health=app.health,
            delay=self.config.http.shutdowndelay,
        )
        for signum in ENDING:
            signal.signal(signum, lambda *_: server.stop())
        reload = self.reload
        if reload is not None:
            reload.quiet = True
        signal.signal(signal.SIGHUP, lambda *_: server.call(partial(reload, self.context) if reload else int))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)

        def answering() -> None:
            up()
            keep_beating(beat)

        with Runner(loop_factory=self.loop_factory) as runner:
            runner.run(server.serve(answering))

    def _beside(self, number: int, app: Application) -> Callable[[], AbstractAsyncContextManager[None]]:
        """What goes on beside the server: the first worker answers at the debug address, and asks the others."""
        if not self.debug_sockets:
            return nullcontext
        if number == 0:
            return debug_server(app.debug.app(self.siblings.ask), self.debug_sockets)
        _close([self.debug_sockets])
        return lambda: self.siblings.answering(number, app.debug)


def without_chores(config: Config) -> Config:
    """The same without what one worker does for all: to purge abandoned uploads."""
    maintenance = config.storage.maintenance
    purging = replace(maintenance.uploadpurging, enabled=False)
    return replace(config, storage=replace(config.storage, maintenance=replace(maintenance, uploadpurging=purging)))


def _close(listeners: list[list[socket]], but: list[socket] | None = None) -> None:
    for sockets in listeners:
        if sockets is not but:
            for sock in sockets:
                sock.close()

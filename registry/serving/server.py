"""Runs an ASGI application: sockets, TLS, the event loop, signals, and an end without broken transfers.

The first SIGTERM or SIGINT has `/readyz` say no and, after `http.shutdowndelay`, closes the listeners and idle
connections and lets running requests finish within `http.draintimeout`; the second ends the process at once. SIGHUP
reloads (registry/processes/reload.py). `running` is the same server in a thread, for tests.
"""

import asyncio
import functools
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from types import FrameType
from typing import Any

from starlette.types import ASGIApp
from uvicorn import Config as UvicornConfig
from uvicorn.server import ServerState

from registry.config import Config
from registry.processes.reload import Reload, Terminal
from registry.serving.filesend import FileSender
from registry.serving.lifespan import Hosting, lifespan
from registry.serving.limits import Limits
from registry.serving.listeners import BACKLOG, listening, printable
from registry.serving.protocol import RegistryProtocol
from registry.serving.stalls import Watch
from registry.serving.tls import ServerContext, server_context
from registry.watching.debug import LIMITS as DEBUG_LIMITS
from registry.watching.debug import Debug, debug_listening
from registry.watching.health import Health

logger = logging.getLogger(__name__)

DRAIN_TIMEOUT = 30.0
"""For `draintimeout: 0`, distribution's default, which there means that nothing is waited for."""
AFTER_ABORT = 1.0
"""What an application has, once its clients are gone, to end by itself before it is cancelled."""
DEBUG_DRAIN = 1.0
"""The same for the debug address, once the registry has ended."""
SETTLING = 8
"""Turns of the loop in which what has arrived already is still accepted and read, instead of being reset."""
DESCRIPTORS_EACH = 3
"""That a connection may need: its socket, the same once more, and a file."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


def run(
    app: ASGIApp,
    config: Config,
    *,
    started: Callable[[list[str]], None],
    debug: Debug | None = None,
    health: Health | None = None,
    reload: Reload | None = None,
    loop_factory: LoopFactory | None = None,
) -> None:
    """Serve until a signal. started: called with the bound addresses once requests are answered.

    debug: the pages of http.debug.addr.   health: is told when the end begins.   reload: called at SIGHUP, in the loop.

    Raises OSError (errno kept) when an address cannot be bound or a TLS file not be read, ConfigError for TLS
    settings that cannot be, and whatever app raises when it starts.
    """
    limits = within_descriptors(limits_of(config))
    with (
        listening(config.http.net, config.http.addr, unacknowledged=limits.stall_timeout) as sockets,
        debug_listening(config) as debug_sockets,
    ):
        beside = debug_server(debug.app() if debug else None, debug_sockets)
        context = server_context(config.http.tls)
        server = Server(
            app, sockets, context, limits, drain_of(config), beside, health=health, delay=config.http.shutdowndelay
        )

        def hangup() -> None:
            if reload is not None:
                server.call(lambda: reload(context))

        with handling_signals(server.stop, hangup), asyncio.Runner(loop_factory=loop_factory or best_loop()) as runner:
            runner.run(server.serve(lambda: started([printable(sock) for sock in sockets])))


@dataclass(frozen=True)
class RunningServer:
    """url: without a slash at the end."""

    url: str
    host: str
    port: int

    @property
    def address(self) -> str:
        """As image names have it: host:port."""
        return self.url.partition("://")[2]


@contextmanager
def running(
    app: ASGIApp,
    config: Config | None = None,
    *,
    addr: str = "127.0.0.1:0",
    limits: Limits | None = None,
    drain: float = 1.0,
    loop_factory: LoopFactory | None = None,
) -> Iterator[RunningServer]:
    """Serve in a thread, on a free port, until the context ends. Raises whatever kept the server from starting.

    config: its TLS and limits count, its address does not. drain: seconds that requests have which still run then.
    """
    config = config or Config()
    limits = limits or limits_of(config)
    with listening("tcp", addr, unacknowledged=limits.stall_timeout) as sockets:
        context = server_context(config.http.tls)
        server = Server(app, sockets, context, limits, drain)
        up, failures = threading.Event(), list[BaseException]()

        def main() -> None:
            try:
                with asyncio.Runner(loop_factory=loop_factory or best_loop()) as runner:
                    runner.run(server.serve(up.set))
            except BaseException as exc:  # noqa: BLE001 - the other thread raises it
                failures.append(exc)
            finally:
                up.set()

        thread = threading.Thread(target=main, name="registry-server")
        thread.start()
        up.wait()
        try:
            if not failures:
                host, port = sockets[0].getsockname()[:2]
                where = f"[{host}]" if ":" in host else host
                yield RunningServer(f"{'https' if context else 'http'}://{where}:{port}", host, port)
        finally:
            server.stop()
            thread.join()
        if failures:
            raise failures[0]


def debug_server(app: ASGIApp | None, sockets: list[socket.socket]) -> Callable[[], AbstractAsyncContextManager[None]]:
    """For Server.beside: inside, the pages of the debug address are answered, if there are any."""
    if app is None or not sockets:
        return nullcontext
    server = Server(app, sockets, None, DEBUG_LIMITS, DEBUG_DRAIN)

    @asynccontextmanager
    async def answering() -> AsyncIterator[None]:
        up = asyncio.Event()
        run, wait = asyncio.create_task(server.serve(up.set)), asyncio.create_task(up.wait())
        await asyncio.wait({run, wait}, return_when=asyncio.FIRST_COMPLETED)
        logger.info("the debug address is %s", " and ".join(map(printable, sockets)))
        try:
            yield
        finally:
            wait.cancel()
            server.stop()
            await run

    return answering


def limits_of(config: Config) -> Limits:
    """The limits that have a setting, as configured."""
    return Limits(
        head_timeout=config.limits.headtimeout,
        stall_timeout=config.limits.stalltimeout,
        min_rate=config.limits.minrate,
        keep_alive=config.limits.keepalive,
        max_connections=config.limits.maxconnections,
        max_head=config.limits.headsize,
        max_fields=config.limits.headerfields,
    )


def drain_of(config: Config) -> float:
    """Seconds that requests have which still run at the end."""
    return config.http.draintimeout or DRAIN_TIMEOUT


def within_descriptors(limits: Limits) -> Limits:
    """Takes all the descriptors that the system lets us have (as Go programs do), and no more connections than fit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    fitting = max(1, (hard - 100) // DESCRIPTORS_EACH)
    if hard == resource.RLIM_INFINITY or limits.max_connections <= fitting:
        return limits
    logger.warning("limits.maxconnections is lowered to %d: this process may open %d files", fitting, hard)
    return replace(limits, max_connections=fitting)


def best_loop() -> LoopFactory:
    """uvloop where it is installed: up to 1.6 times as many small requests (docs/server.md)."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop
    factory: LoopFactory = uvloop.new_event_loop
    return factory


@contextmanager
def handling_signals(stop: Callable[[], None], hangup: Callable[[], None]) -> Iterator[None]:
    """Inside, the first SIGTERM or SIGINT calls stop, the second ends the process, even if the loop is stuck.

    SIGHUP calls hangup; but where it says that the terminal is gone, stop.
    """
    stopping, terminal = False, Terminal()

    def handle(signum: int, frame: FrameType | None) -> None:
        nonlocal stopping
        if signum == signal.SIGHUP and not terminal.is_gone():
            hangup()
            return
        if stopping:
            os._exit(128 + signum)  # as shells report it; a re-raised signal would be ignored in process 1
        stopping = True
        stop()

    before = {each: signal.signal(each, handle) for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@dataclass(eq=False)
class Server:
    """One run of an application on listening sockets. `drain` in seconds.

    beside: entered once the application has started and before a request is answered, left after the last one.
    health: is told when the end begins.   delay: seconds for which all goes on then.
    worker: which of several processes this is.
    """

    app: ASGIApp
    sockets: list[socket.socket]
    tls: ServerContext | None
    limits: Limits
    drain: float
    beside: Callable[[], AbstractAsyncContextManager[None]] = nullcontext
    worker: int = 0
    health: Health | None = None
    delay: float = 0.0
    state: ServerState = field(default_factory=ServerState)
    loop: asyncio.AbstractEventLoop | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    stop_early: bool = False
    ending: bool = False

    @property
    def connections(self) -> list[RegistryProtocol]:
        """Those that are open now."""
        return [each for each in self.state.connections if isinstance(each, RegistryProtocol)]

    def stop(self) -> None:
        """End serve() gracefully. From any thread or signal handler, at any time."""
        self.stop_early = True
        self.call(self.stopping.set)

    def call(self, callback: Callable[[], object]) -> None:
        """In the loop, if there is one. From any thread or signal handler, at any time."""
        if self.loop and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(callback)

    async def serve(self, up: Callable[[], None]) -> None:
        """up: called once requests are answered."""
        self.loop = asyncio.get_running_loop()
        self.watch = Watch(self.loop, self.limits.sweep_interval)
        self.files = FileSender(self.loop)
        if self.stop_early:
            return
        hosting = Hosting(self.worker, self.watch, self.limits.max_connections)
        async with lifespan(self.app, hosting) as app_state, self.beside():
            config = self.uvicorn_config()
            servers = [await self.listen(sock, config, app_state) for sock in self.sockets]
            self.refresh_date()
            try:
                up()
                await self.stopping.wait()
                await self.turn_away()
            finally:
                await self.end_listening(servers)
                await self.end_requests()
                self.date_timer.cancel()
                self.files.close()

    def uvicorn_config(self) -> UvicornConfig:
        """Only what RegistryProtocol reads of it. The rest is done here, or not at all."""
        config = UvicornConfig(
            self.app,
            http=RegistryProtocol,
            interface="asgi3",
            ws="none",
            proxy_headers=False,  # uvicorn trusts X-Forwarded-For from localhost, where every client may come from
            server_header=False,
            access_log=False,
            log_config=None,
            lifespan="off",
        )
        config.load()
        return config

    async def listen(self, sock: socket.socket, config: UvicornConfig, app_state: dict[str, object]) -> asyncio.Server:
        assert self.loop is not None
        loop = self.loop

        def protocol() -> RegistryProtocol:
            made = RegistryProtocol(
                config, self.state, app_state, loop, limits=self.limits, watch=self.watch, files=self.files
            )
            made.ending = self.ending
            return made

        create: Any = loop.create_server
        if sock.family == socket.AF_UNIX:
            create = loop.create_unix_server
            if sys.version_info >= (3, 13):
                # Its file belongs to whoever made the socket, and other workers still listen on it.
                create = functools.partial(create, cleanup_socket=False)
        handshake = (self.limits.head_timeout or None) if self.tls else None
        goodbye = self.limits.discard_timeout if self.tls else None
        server: asyncio.Server = await create(
            protocol,
            sock=sock,
            ssl=self.tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=handshake,
            ssl_shutdown_timeout=goodbye,
        )
        return server

    def refresh_date(self) -> None:
        assert self.loop is not None
        self.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self.date_timer = self.loop.call_later(1, self.refresh_date)

    async def turn_away(self) -> None:
        """Say no to probes. For the delay go on, but have clients connect anew, which leads them elsewhere."""
        if self.health is not None:
            self.health.stop()
            methods = [method for connection in self.connections if (method := connection.method)]
            logger.info(
                "stopping; %d requests are running, %d of them uploads",
                len(methods),
                sum(method in ("POST", "PUT", "PATCH") for method in methods),
                extra={"shutdowndelay": f"{self.delay:g}s", "draintimeout": f"{self.drain:g}s"},
            )
        if self.delay:
            self.ending = True
            for connection in self.connections:
                connection.end_soon()
            await asyncio.sleep(self.delay)

    async def end_listening(self, servers: list[asyncio.Server]) -> None:
        """Accept no more. asyncio drops connections that it is just accepting when its Server closes (up to 3.13)."""
        assert self.loop is not None
        for sock in self.sockets:
            self.loop.remove_reader(sock)
        for _ in range(SETTLING):
            await asyncio.sleep(0)
        for server in servers:
            server.close()

    async def end_requests(self) -> None:
        """Let what runs finish, then end it: connections first, which most applications notice, then their tasks."""
        for connection in list(self.state.connections):
            connection.shutdown()
        if await self.all_done(self.drain):
            if self.health:
                logger.info("stopped; all requests have finished")
            return
        logger.warning("draintimeout is over; ending %d connections", len(self.state.connections))
        for connection in list(self.state.connections):
            connection.transport.abort()
        if not await self.all_done(AFTER_ABORT):
            for task in list(self.state.tasks):
                task.cancel()
            await self.all_done(AFTER_ABORT)

    async def all_done(self, timeout: float) -> bool:
        """Wait until no connection is open and no request runs."""
        try:
            async with asyncio.timeout(timeout):
                await self.watch.empty.wait()
                while self.state.tasks:
                    await asyncio.wait(self.state.tasks)
        except TimeoutError:
            return False
        return True

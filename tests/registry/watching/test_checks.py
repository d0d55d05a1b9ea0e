"""The checks of health.*, each against the real thing, and with distribution's names and words."""

import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from registry.config import Config
from registry.config.model import (
    FileCheckConfig,
    HealthConfig,
    HTTPCheckConfig,
    StorageCheckConfig,
    StorageConfig,
    TCPCheckConfig,
)
from registry.config.upstreams import ProxyConfig
from registry.watching.checks import file_is_absent, health_of, page_answers, port_accepts
from registry.watching.health import Unwell
from storage.drivers.memory import MemoryDriver
from storage.errors import Unavailable


async def problem(ask: Callable[[], Awaitable[None]]) -> str:
    try:
        await ask()
    except Unwell as exc:
        return str(exc)
    return ""


async def test_file(tmp_path: Path) -> None:
    ask = file_is_absent(FileCheckConfig(file=str(tmp_path / "down")))
    assert await problem(ask) == ""
    (tmp_path / "down").touch()
    assert await problem(ask) == "file exists"
    assert "Not a directory" in await problem(file_is_absent(FileCheckConfig(file=str(tmp_path / "down" / "x"))))


class Page(BaseHTTPRequestHandler):
    seen: list[tuple[str, str, str | None]]

    def do_HEAD(self) -> None:
        self.seen.append((self.command, self.path, self.headers["X-Asked"]))
        self.send_response({"/moved": 302, "/gone": 410}.get(self.path, 200))
        if self.path == "/moved":
            self.send_header("Location", "/up")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def page() -> Iterator[tuple[str, list[tuple[str, str, str | None]]]]:
    handler = type("Seeing", (Page,), {"seen": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler.seen  # type: ignore[attr-defined]
        finally:
            server.shutdown()
            thread.join()


async def test_page() -> None:
    with page() as (url, seen):
        assert await problem(page_answers(HTTPCheckConfig(uri=f"{url}/up?x=1", headers={"X-Asked": ("a", "b")}))) == ""
        assert seen == [("HEAD", "/up?x=1", "a, b")]
        assert await problem(page_answers(HTTPCheckConfig(uri=f"{url}/moved"))) == ""
        assert await problem(page_answers(HTTPCheckConfig(uri=f"{url}/gone", statuscode=410))) == ""
        for status in (0, 200, 404):
            said = await problem(page_answers(HTTPCheckConfig(uri=f"{url}/gone", statuscode=status)))
            assert said == f"{url}/gone: downstream service returned unexpected status: 410"
    assert (await problem(page_answers(HTTPCheckConfig(uri=url)))).startswith(f"{url}: error while checking: ")


async def test_page_that_never_comes() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        assert await problem(page_answers(HTTPCheckConfig(uri=url, timeout=0.05))) == (
            f"{url}: error while checking: timed out"
        )


async def test_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        assert await problem(port_accepts(TCPCheckConfig(addr=f"127.0.0.1:{port}"))) == ""
        assert await problem(port_accepts(TCPCheckConfig(addr=f":{port}"))) == ""
    said = await problem(port_accepts(TCPCheckConfig(addr=f"127.0.0.1:{port}")))
    assert said.startswith(f"127.0.0.1:{port}: connection failed: ")


async def test_names_and_numbers_of_distribution() -> None:
    async def reach() -> None:
        raise Unavailable("no")

    checks = HealthConfig(
        storagedriver=StorageCheckConfig(enabled=True, interval=0.0, threshold=0),
        file=(FileCheckConfig(file="/"),),
        tcp=(TCPCheckConfig(addr="127.0.0.1:0", interval=0.0),),
    )
    store = MemoryDriver()
    found = health_of(Config(health=checks), reach, store)
    async with found.watching():
        await found.ready()
        assert (await found.status()).status == 503
        for check in found._polled:
            await check.now()
    assert set(found.failing()) == {"storagedriver_filesystem", "/", "127.0.0.1:0"}
    assert health_of(Config(), reach, store).gated
    assert not health_of(Config(proxy=ProxyConfig(remoteurl="https://upstream.example")), reach, store).gated
    memory = StorageConfig(driver="inmemory", parameters={})
    assert not health_of(Config(storage=memory), reach, store).gated
    assert health_of(Config(storage=memory, health=HealthConfig(file=checks.file)), reach, store).gated

"""The debug address: its pages, alone and with other workers, and as the command line serves it."""

import asyncio
import json
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from registry.config import Config
from registry.processes import siblings
from registry.processes.siblings import Siblings
from registry.watching.debug import Answer, Ask, Debug, Silent, debug_listening
from tests.registry.processes.test_workers import PATIENCE, Registry, serving, start, wait_until


def joined(answers: Sequence[Answer]) -> Answer:
    return Answer(b" ".join(answer.body for answer in answers), "text/plain")


def debug_of(body: bytes) -> Debug:
    async def page() -> Answer:
        return Answer(body, "text/plain", 201)

    async def broken() -> Answer:
        raise LookupError("a bug")

    made = Debug()
    made.add("/debug/joined", page, joined)
    made.add("/debug/alone", page)
    made.add("/debug/broken", broken, joined)
    return made


def client(debug: Debug, ask: Ask | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(debug.app(ask)), base_url="http://debug")


async def test_pages() -> None:
    async with client(debug_of(b"one")) as http:
        found = await http.get("/debug/joined?any=query")
        assert (found.status_code, found.text, found.headers["content-type"]) == (
            201,
            "one",
            "text/plain; charset=utf-8",
        )
        assert found.headers["cache-control"] == "no-store"
        assert (await http.head("/debug/alone")).status_code == 201
        assert (await http.post("/debug/alone")).status_code == 405
        for path in ("/debug/alone/", "/debug", "/", "/v2/"):
            assert (await http.get(path)).status_code == 404


async def test_all_workers_are_asked_at_once_and_joined_in_their_order() -> None:
    workers = [debug_of(body) for body in (b"zero", b"one", bytes(200_000))]
    made = Siblings(3)
    async with made.answering(1, workers[1]), made.answering(2, workers[2]), client(workers[0], made.ask) as http:
        found = await http.get("/debug/joined")
        assert (found.status_code, found.content) == (200, b"zero one " + bytes(200_000))
        assert (await http.get("/debug/alone")).content == b"zero"
    made.close()


async def test_a_sum_that_lacks_a_part_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that is being replaced: connections wait for its successor, and nobody waits for ever."""
    monkeypatch.setattr(siblings, "PATIENCE", 0.05)
    made = Siblings(2)
    async with client(debug_of(b"zero"), made.ask) as http:
        found = await http.get("/debug/joined")
        assert (found.status_code, found.text) == (503, "worker 1 does not answer\n")
    made.close()


async def test_a_page_that_fails_in_another_worker_is_silence(caplog: pytest.LogCaptureFixture) -> None:
    made = Siblings(2)
    async with made.answering(1, debug_of(b"one")):
        with pytest.raises(Silent, match="worker 1 does not answer"):
            await made.ask("/debug/broken")
    assert "a bug" in caplog.text
    made.close()


@pytest.mark.parametrize("line", [b"\n", b"guess /debug/joined\n", b"\xff\xff\n", b"x" * 100_000])
async def test_others_on_this_machine_hear_nothing(line: bytes) -> None:
    made = Siblings(2)
    async with made.answering(1, debug_of(b"one")):
        reader, writer = await asyncio.open_unix_connection(made._sockets[1].getsockname())
        writer.write(line)
        try:
            assert await reader.read() == b""
        except ConnectionResetError:
            assert len(line) > 1000, "what nobody reads is answered with a reset"
        writer.close()
    made.close()


def test_without_an_address_there_is_no_socket() -> None:
    with debug_listening(Config()) as sockets:
        assert sockets == []


# As the command line serves it.


def debug_place(registry: Registry) -> str:
    found = re.search(r"the debug address is (127\.0\.0\.1:\d+)", registry.errors.read_text())
    assert found
    return found[1]


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_served_beside_the_registry(tmp_path: Path, workers: str, loop: str) -> None:
    with serving(tmp_path, "--workers", workers, loop=loop, REGISTRY_HTTP_DEBUG_ADDR="127.0.0.1:0") as registry:
        place = debug_place(registry)
        with httpx.Client(base_url=f"http://{place}") as http:
            assert http.get("/debug/health").json() == {}
            assert http.get("/readyz").json()["ready"]
            assert http.get("/livez").json() == {"live": True}
            assert http.get("/v2/").status_code == 404
            if workers == "2":
                before = registry.workers()
                for pid in before:
                    os.kill(pid, 9)
                wait_until(lambda: len(registry.workers() - before) == 2)
                with httpx.Client(base_url=f"http://{place}", timeout=PATIENCE) as again:
                    assert again.get("/debug/health").json() == {}
        registry.process.terminate()
        assert registry.ended() == 0


@pytest.mark.slow
def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
        with start(tmp_path, errors="errors", REGISTRY_HTTP_DEBUG_ADDR=addr) as child:
            out, _ = child.communicate(timeout=PATIENCE)
    said = (tmp_path / "errors").read_text()
    assert (child.returncode, out) == (1, "")
    assert said.startswith(f"registry: cannot listen on {addr}: stop the process that holds it")
    assert said.endswith("or choose another with REGISTRY_HTTP_DEBUG_ADDR\n")


@pytest.mark.slow
def test_a_failed_check_of_any_worker(tmp_path: Path) -> None:
    """And of a registry that is up already: the file is looked for at once."""
    down = tmp_path / "down"
    down.touch()
    checks = json.dumps([{"file": str(down), "interval": "50ms"}])
    environ = {"REGISTRY_HTTP_DEBUG_ADDR": "127.0.0.1:0", "REGISTRY_HEALTH_FILECHECKERS": checks}
    with (
        serving(tmp_path, "--workers", "2", **environ) as registry,
        httpx.Client(base_url=f"http://{debug_place(registry)}") as http,
    ):
        wait_until(lambda: http.get("/debug/health").status_code == 503)
        assert http.get("/debug/health").json() == {str(down): "file exists"}
        down.unlink()
        wait_until(lambda: http.get("/debug/health").status_code == 200)

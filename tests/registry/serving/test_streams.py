"""Started with its standard streams closed, or with nobody at their other end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from storage import layout
from storage.digest import Digest

REGISTRY = [sys.executable, "-m", "registry"]
CLOSED = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]


def environ(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")} | more


@contextmanager
def unread() -> Iterator[int]:
    """A pipe whose reader has left."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        yield writer
    finally:
        os.close(writer)


def serves_and_ends_well(command: list[str], folder: Path, stdout: int | None = None) -> None:
    path = folder / "registry.sock"
    settings = environ(
        REGISTRY_HTTP_NET="unix",
        REGISTRY_HTTP_ADDR=str(path),
        REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=str(folder / "data"),
    )
    with (
        subprocess.Popen(command, env=settings, stdout=stdout) as process,
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://registry") as client,
    ):
        try:
            wait_for(path, process)
            for _ in range(3):
                assert client.post("/v2/a/b/blobs/uploads/").status_code == 202
            client.close()
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        finally:
            process.kill()


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    """Once it is there, a client waits for its answer."""
    deadline = time.monotonic() + 20
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.slow
@pytest.mark.parametrize("count", ["1", "2"])
def test_it_serves_with_all_of_them_closed(tmp_path: Path, count: str) -> None:
    """Else sockets have their numbers, and uvloop aborts when it closes one."""
    serves_and_ends_well([*CLOSED, *REGISTRY, "serve", "--workers", count], tmp_path)


@pytest.mark.slow
def test_it_serves_when_nobody_reads_its_banner(tmp_path: Path) -> None:
    with unread() as writer:
        serves_and_ends_well([*REGISTRY, "serve"], tmp_path, writer)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["check-config"], ["--version"], ["doctor"]])
def test_a_command_ends_quietly_when_nobody_reads_it(tmp_path: Path, arguments: list[str]) -> None:
    settings = environ(REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY=str(tmp_path))
    blob = tmp_path / layout.blob_data(Digest.of(b""))  # an empty store would be worth a line on stderr
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"")
    with unread() as writer:
        done = subprocess.run(
            [*REGISTRY, *arguments], env=settings, stdout=writer, stderr=subprocess.PIPE, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (141, "")

"""Start one registry for one run, and end it.

Any registry that reads distribution's config.yml will do: REGISTRY_COMMAND names another one than ours, and gets the
path of the configuration as its last argument.
"""

import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import yaml

START_SECONDS = 30.0
STOP_SECONDS = 15.0


class ServerFailed(Exception):
    """The registry did not start, or was gone before it was stopped."""


def configuration(address: str, storage: dict[str, object], *, read_only: bool) -> dict[str, object]:
    storage = storage | {"delete": {"enabled": True}}
    if read_only:
        storage["maintenance"] = {"readonly": {"enabled": True}}
    return {
        "version": "0.1",
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "http": {"addr": address},
        "storage": storage,
        # The suite's option `sparse` wants manifests accepted whose blobs were never pushed; ours refuses by default.
        "validation": {"manifests": {"sparse": True}},
    }


@contextmanager
def running(storage: dict[str, object], folder: Path, *, read_only: bool = False) -> Iterator[str]:
    """Serve `storage` until the block ends; yields host:port. Configuration and log go into `folder`."""
    address = f"127.0.0.1:{_free_port()}"
    config = folder / "config.yml"
    config.write_text(yaml.safe_dump(configuration(address, storage, read_only=read_only), sort_keys=False))
    log = folder / "server.log"
    with log.open("wb") as output:
        # A REGISTRY_* variable of the caller would be read as a setting.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
        process = subprocess.Popen([*_command(), str(config)], stdout=output, stderr=output, env=environment)
    try:
        _wait_until_it_answers(process, address, log)
        yield address
        if process.poll() is not None:
            raise ServerFailed(f"the registry ended during the run, with {process.returncode}: {_last_line(log)}")
    finally:
        _stop(process)


def _command() -> list[str]:
    if command := os.environ.get("REGISTRY_COMMAND"):
        return shlex.split(command)
    return [str(Path(sys.executable).with_name("registry")), "serve"]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerFailed(f"the registry did not start, it ended with {process.returncode}: {_last_line(log)}")
        with suppress(httpx.TransportError):
            httpx.get(f"http://{address}/v2/", timeout=5)
            return
        time.sleep(0.05)
    raise ServerFailed(f"the registry did not answer within {START_SECONDS:.0f} s: {_last_line(log)}")


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{log} is empty"


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"  the registry did not end within {STOP_SECONDS:.0f} s of SIGTERM: killed", flush=True)
        process.kill()
        process.wait()

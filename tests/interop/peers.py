"""The registries that share a folder here: ours, and the two distributions. Each runs as a process of its own.

All are started with one and the same configuration file: it has keys of every kind, some that only one of them knows.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.ports import free_port

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 60.0
STOP_SECONDS = 30.0
SECRET = "the same for all, as replicas have it"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A registry that can be started. install: what brings it. recent: does it have what came with v3?"""

    name: str
    command: str
    install: str
    recent: bool = True

    @property
    def path(self) -> str | None:
        return shutil.which(self.command, path=os.pathsep.join([str(ROOT / ".tools/bin"), os.environ.get("PATH", "")]))


OURS = Program(name="moorage", command=str(Path(sys.executable).with_name("registry")), install="make .venv/.installed")
V3 = Program(name="distribution-3", command="distribution", install="make .tools/bin/distribution")
V2 = Program(
    name="distribution-2.8", command="docker-registry", install="apt-get install docker-registry", recent=False
)
PEERS = (V2, V3)


def settings(root: Path, port: int, more: dict[str, Any]) -> dict[str, Any]:
    """What every one of them reads. A map in `more` replaces the one here, key by key at the top level."""
    return {
        "version": 0.1,
        "log": {"level": "warn", "formatter": "text", "fields": {"service": "registry"}},
        "storage": {
            "filesystem": {"rootdirectory": str(root), "maxthreads": 100},
            "delete": {"enabled": True},
            "cache": {"blobdescriptor": ""},
            "maintenance": {
                "uploadpurging": {"enabled": True, "age": "168h", "interval": "24h", "dryrun": False},
                "readonly": {"enabled": False},
            },
        },
        "http": {
            "addr": f"127.0.0.1:{port}",
            "secret": SECRET,
            "headers": {"X-Content-Type-Options": ["nosniff"]},
            "draintimeout": "5s",
        },
        "health": {"storagedriver": {"enabled": True, "interval": "10s", "threshold": 3}},
        **more,
    }


def write_config(folder: Path, root: Path, port: int, **more: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"config-{port}.yml"
    path.write_text(yaml.safe_dump(settings(root, port, more)))
    return path


def environment() -> dict[str, str]:
    """Without what they would read besides the file: 2.8 does not even start where AWS_CA_BUNDLE is set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("REGISTRY_", "OTEL_", "AWS_"))}
    return kept | {"OTEL_TRACES_EXPORTER": "none"}


@contextmanager
def started(program: Program, config: Path, port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """The process, once it answers; ended afterwards, whatever happened."""
    assert program.path is not None, program.install
    with log.open("ab") as output:
        process = subprocess.Popen(
            # the parent-death signal covers what `finally` cannot: a pytest that is killed itself
            ["setpriv", "--pdeathsig", "KILL", program.path, "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(),
        )
    try:
        wait_until_it_answers(process, port, log)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            # a port that is bound already is not yet a registry that answers
            answer = httpx.get(f"http://127.0.0.1:{port}/v2/", timeout=START_SECONDS, trust_env=False)
            if answer.status_code != 401:  # it may want a login
                answer.raise_for_status()
        except httpx.TransportError:
            try:
                process.wait(0.02)
            except subprocess.TimeoutExpired:
                if time.monotonic() < deadline:
                    continue
            raise AssertionError(
                f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-4000:]}"
            ) from None
        return


@dataclass(frozen=True)
class Lab:
    """One test's folder. Registries started here share its `data`."""

    folder: Path

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def store(self) -> Path:
        return self.data / "docker/registry/v2"

    @contextmanager
    def serving(self, program: Program, data: Path | None = None, **more: Any) -> Iterator[httpx.Client]:
        """A client of the program, which serves `data`. more: top-level settings."""
        port = free_port()
        config = write_config(self.folder, data or self.data, port, **more)
        with (
            started(program, config, port, self.folder / f"{program.name}.log"),
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http,
        ):
            yield http

    def garbage_collect(self, peer: Program, *options: str, **more: Any) -> str:
        """Run the peer's collector for real on the folder; what it printed. more: top-level settings."""
        assert peer.path is not None
        config = write_config(self.folder, self.data, 1, **more)
        done = subprocess.run(
            [peer.path, "garbage-collect", *options, str(config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=environment(),
        )
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def files(self, *ignored: str) -> dict[str, bytes]:
        """Every file of the store but those below folders called `ignored`."""
        return {
            str(path.relative_to(self.store)): path.read_bytes()
            for path in sorted(self.store.rglob("*"))
            if path.is_file() and not set(ignored).intersection(path.relative_to(self.store).parts)
        }

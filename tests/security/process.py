"""The registry as a process of its own, as `registry serve` runs it: for memory, logs, signals and TLS."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 30.0
MIB = 1 << 20


@dataclass
class Process:
    """address: host:port, or the path of a unix socket.   log: what it has said, both streams."""

    pid: int
    address: str
    scheme: str
    log: Path

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.address}"

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def reset_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def memory(self) -> int:
        """Bytes that it holds."""
        return self._status("VmRSS")

    def peak(self) -> int:
        """The most bytes that it has held since reset_peak."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+) kB$", Path(f"/proc/{self.pid}/status").read_text(), re.MULTILINE)
        assert found is not None
        return int(found[1]) << 10


@contextmanager
def serving(
    folder: Path,
    config: Mapping[str, object],
    *,
    program: tuple[str, ...] = ("-m", "registry", "serve"),
    **environ: str,
) -> Iterator[Process]:
    """Start it with that config.yml (JSON is YAML), on a free port unless the config says where; end it by SIGTERM."""
    http = {"addr": "127.0.0.1:0", **dict(config.get("http", {}))}  # type: ignore[call-overload]
    file, log = folder / "config.yml", folder / "registry.log"
    file.write_text(json.dumps({"version": 0.1, **config, "http": http}))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("REGISTRY_")}
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-W", "error", *program, str(file)],
            stdout=subprocess.PIPE,
            stderr=out,
            env={**clean, "PYTHONPATH": os.getcwd(), "PYTHONUNBUFFERED": "1", **environ},
        )
        assert child.stdout is not None
        try:
            said = b""
            while (found := re.search(rb"listening +(unix:|https?://)(\S+?)/?\n", said)) is None:
                line = child.stdout.readline()
                assert line, f"it did not start: {said.decode()}{log.read_text()}"
                said += line
            scheme, address = found[1].decode(), found[2].decode()
            yield Process(child.pid, address, scheme.partition(":")[0], log)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
            rest, _ = child.communicate(timeout=PATIENCE)
            with log.open("ab") as more:
                more.write(said + rest)
    assert child.returncode == 0, log.read_text()[-4000:]

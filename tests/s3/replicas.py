"""Registries on S3 as processes that can be killed, and come back at the same port."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.interop.peers import OURS, started, write_config
from tests.ports import free_port


@dataclass
class Replica:
    """storage: of its configuration; more: other sections of it.

    http: a client of it, which follows redirects; a new one after each start.
    """

    folder: Path
    storage: dict[str, Any]
    port: int = field(default_factory=free_port)
    kills: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    def start(self) -> None:
        config = write_config(self.folder, self.folder, self.port, storage=self.storage, **self.more)
        with ExitStack() as stack:
            self._process = stack.enter_context(started(OURS, config, self.port, self.log))
            client = httpx.Client(
                base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=60, follow_redirects=True
            )
            self.http = stack.enter_context(client)
            self._stack = stack.pop_all()

    @property
    def log(self) -> Path:
        return self.folder / f"replica-{self.port}.log"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        """SIGKILL; returns when it is dead."""
        self.kills += 1
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._stack.close()

    def restart(self) -> None:
        self.stop()
        self.start()

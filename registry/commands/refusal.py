"""Refusal: what stops a command, and which errors of the parts are one."""

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from registry.config import ConfigError, Loaded


class Refusal(Exception):
    """The text tells the user, in one line, what to do. status: with which the process ends."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def explained(exc: Exception, loaded: "Loaded") -> Refusal | None:
    """What the user can do about it; None: a bug."""
    from registry.config import ConfigError
    from storage.errors import StorageError

    if isinstance(exc, ConfigError):
        return of_setting(exc, loaded)
    if isinstance(exc, StorageError):
        return Refusal(f"the {loaded.config.storage.driver} storage cannot be used: {exc}")
    supervisor = sys.modules.get("registry.processes.supervisor")  # nobody else raises it
    return Refusal(str(exc)) if supervisor and isinstance(exc, supervisor.WorkersFailed) else None


def of_setting(exc: "ConfigError", loaded: "Loaded") -> Refusal:
    """The parts that take a Config do not know where it came from."""
    origin = "" if exc.origin else loaded.origin(exc.path)
    return Refusal(f"{exc} ({origin})" if origin else str(exc))


def one_line(text: str) -> str:
    return "".join(char if char.isprintable() else " " if char.isspace() else ascii(char)[1:-1] for char in text)

"""Run a client's command line in an environment of its own: no login, cache or setting of the user who runs the tests.

Every command and its output is printed, so a failing test shows the whole conversation.
"""

import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .tools import SEARCH_PATH, find


class CommandFailed(AssertionError):
    """A command ended with another exit code than the test expects."""


@dataclass(frozen=True)
class Output:
    """What a command wrote."""

    out: str
    err: str

    @property
    def both(self) -> str:
        return self.out + self.err


class Shell:
    """`shell("crane", "digest", ref)` raises unless the command succeeds, `shell.refused(...)` unless it fails."""

    def __init__(self, home: Path) -> None:
        for folder in ("docker", "runtime", "tmp"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        (home / "runtime").chmod(0o700)
        self._home = home
        (home / "docker" / "config.json").write_text("{}")  # buildah does not start with a DOCKER_CONFIG without it
        self.env = {
            "PATH": SEARCH_PATH,
            "HOME": str(home),
            "TMPDIR": str(home / "tmp"),
            "LANG": "C.UTF-8",
            # Here podman, skopeo and buildah keep logins. REGISTRY_AUTH_FILE would say it, too, but distribution,
            # which gets this environment as well, reads that as its setting auth.file.
            "XDG_RUNTIME_DIR": str(home / "runtime"),
            "DOCKER_CONFIG": str(home / "docker"),
        }

    def __call__(
        self,
        command: str,
        *arguments: str | Path,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> Output:
        """Run a command that must succeed."""
        code, output = self._run(command, arguments, env or {}, stdin, cwd)
        if code != 0:
            raise CommandFailed(f"exit code {code} of: {shown(command, arguments)}\n{output.both}")
        return output

    def refused(self, command: str, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Output:
        """Run a command that must fail."""
        code, output = self._run(command, arguments, env or {})
        if code == 0:
            raise CommandFailed(f"succeeded, but should not: {shown(command, arguments)}\n{output.both}")
        return output

    def _run(
        self,
        command: str,
        arguments: tuple[str | Path, ...],
        env: Mapping[str, str],
        stdin: bytes = b"",
        cwd: Path | None = None,
    ) -> tuple[int, Output]:
        path = find(command)
        assert path is not None, command  # conftest.py has checked tools.CLIENTS
        print("$", shown(command, arguments))
        done = subprocess.run(
            [path, *map(str, arguments)],
            env=self.env | dict(env),
            input=stdin,
            cwd=cwd or self._home,
            capture_output=True,
            timeout=180,
        )
        output = Output(done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))
        print(output.both, end="" if output.both.endswith("\n") else "\n")
        return done.returncode, output


def shown(command: str, arguments: tuple[str | Path, ...]) -> str:
    return shlex.join([command, *map(str, arguments)])

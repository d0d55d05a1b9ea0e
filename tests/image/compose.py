"""The command that reads compose files: docker's plugin where there is one, else `docker-compose` of any age."""

import subprocess
from functools import cache

from tests.clients.tools import find


@cache
def command() -> tuple[str, ...]:
    """Empty: there is none."""
    docker = find("docker")
    if docker and subprocess.run([docker, "compose", "version"], capture_output=True).returncode == 0:
        return "docker", "compose"
    return ("docker-compose",) if find("docker-compose") else ()

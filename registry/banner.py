"""What a person wants to see at a start: where the registry listens, on what storage, in which mode, what to try."""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from registry.config import Config, Loaded


def banner(loaded: Loaded, addresses: Sequence[str]) -> dict[str, str]:
    """addresses: as bound, such as "0.0.0.0:5000" or "unix:/run/registry.sock"."""
    config = loaded.config
    return {
        "listening": " and ".join(_url(config, address) for address in addresses),
        "storage": _storage(config),
        "mode": _mode(config),
        "config": loaded.source,
        "try": _try(config, addresses[0]),
    }


def _scheme(config: Config) -> str:
    return "https" if config.http.tls.certificate else "http"


def _url(config: Config, address: str) -> str:
    return address if address.startswith("unix:") else f"{_scheme(config)}://{address}{config.http.prefix}"


def _storage(config: Config) -> str:
    root = config.storage.parameters.get("rootdirectory") if config.storage.driver == "filesystem" else None
    return f"{config.storage.driver} in {Path(str(root)).absolute()}" if root else config.storage.driver


def _mode(config: Config) -> str:
    if config.storage.maintenance.readonly.enabled:
        writing = "read-only"
    else:
        writing = f"read and write, deletes {'on' if config.storage.delete.enabled else 'off'}"
    return f"{writing}, {'users from htpasswd' if config.auth.htpasswd else 'no authentication: open to everyone'}"


def _try(config: Config, address: str) -> str:
    """A command that works as it stands. docker knows neither unix sockets nor a path before /v2/."""
    if address.startswith("unix:"):
        return f"curl --unix-socket {address.removeprefix('unix:')} http://localhost{config.http.prefix or '/'}v2/"
    port = address.rpartition(":")[2]
    is_here = address.startswith(("0.0.0.0:", "127.", "[::]:", "[::1]:"))
    name = urlsplit(config.http.host).netloc or (f"localhost:{port}" if is_here else address)
    if config.http.prefix:
        return f"curl {_scheme(config)}://{name}{config.http.prefix}v2/"
    login = [f"docker login {name}"] if config.auth.htpasswd else []
    if config.storage.maintenance.readonly.enabled:
        return " && ".join([*login, f"docker pull {name}/NAME:TAG"])
    push = ["docker pull alpine", f"docker tag alpine {name}/alpine", f"docker push {name}/alpine"]
    return " && ".join([*login, *push])

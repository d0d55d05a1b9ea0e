"""Are the files and folders there that the settings name? Asked at a start, before anything is opened for good.

load() does not ask: it reads the configuration alone. Whether a certificate fits its key: registry/serving/tls.py.
"""

import os
import tempfile
from pathlib import Path

from storage import layout

from .errors import ConfigError
from .load import Loaded
from .model import Config, TLSConfig


def check_files(loaded: Loaded) -> None:
    """Raises ConfigError for the first that is missing, unreadable or unfit; its text says what to do."""
    config = loaded.config
    if config.auth.htpasswd:
        _htpasswd(config.auth.htpasswd.path, loaded.origin("auth.htpasswd.path"))
    if config.http.tls.certificate:
        _tls(config.http.tls, loaded)
    if config.storage.driver == "filesystem":
        root = Path(str(config.storage.parameters["rootdirectory"]))
        writing = not config.storage.maintenance.readonly.enabled
        _folder(root, loaded.origin("storage.filesystem.rootdirectory"), writing=writing)
    elif config.proxy.remoteurl or config.upstreams:
        _scratch("proxy.remoteurl" if config.proxy.remoteurl else "upstreams")


def doubt(config: Config) -> str:
    """What to say of a folder in which no registry has been: it is a new one's, or its volume is missing. Else ""."""
    if config.storage.driver != "filesystem" or config.proxy.remoteurl or config.upstreams:
        return ""
    root = Path(str(config.storage.parameters["rootdirectory"])).absolute()
    if os.path.exists(root / layout.ROOT):
        return ""
    if config.storage.maintenance.readonly.enabled:
        return (
            f"{root} holds no images, and nothing can be pushed here: mount its volume, or name the right folder in"
            " storage.filesystem.rootdirectory"
        )
    return f"{root} holds no images: a new registry begins here; if it is not new, its volume is not mounted"


def _readable(setting: str, path: str, origin: str, advice: str) -> None:
    try:
        with Path(path).open("rb"):
            pass
    except OSError as exc:
        raise ConfigError(setting, f"cannot read {path}: {exc.strerror}; {advice}", origin) from None


def _htpasswd(path: str, origin: str) -> None:
    """distribution makes a missing file with a random password in its log; a typing error should not do that."""
    # a folder is what the configuration of Debian's docker-registry names
    file = f"{path}/htpasswd" if os.path.isdir(path) else path
    advice = f"make it with `htpasswd -Bc {file} USER` (Debian: apache2-utils)"
    if file != path:
        advice += f" and name {file}"
    _readable("auth.htpasswd.path", path, origin, advice)


def _tls(tls: TLSConfig, loaded: Loaded) -> None:
    files = [("http.tls.certificate", tls.certificate), ("http.tls.key", tls.key)]
    files += [("http.tls.clientcas", path) for path in tls.clientcas]
    for setting, path in files:
        _readable(setting, path, loaded.origin(setting), "check the path and who may read it")


def _folder(root: Path, origin: str, *, writing: bool) -> None:
    """It is made when missing, so what counts then is the closest folder above that exists."""
    setting = "storage.filesystem.rootdirectory"
    found = root.absolute()
    while not os.path.exists(found) and found != found.parent:  # Path.exists raises where it may not look
        found = found.parent
    if not found.is_dir():
        raise ConfigError(setting, f"{found} is not a folder", origin)
    if not os.access(found, os.R_OK | os.X_OK | (os.W_OK if writing else 0)):
        user, may = os.getuid(), "written to" if writing else "read"
        advice = f"`chown -R {user} {found}`, or name another folder in REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"
        raise ConfigError(setting, f"{found} cannot be {may} by user {user}: {advice}", origin)


def _scratch(setting: str) -> None:
    """What a cache fetches lies in files without names until it is stored, where the store cannot have what grows."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        problem = "what a cache fetches lies in a folder until it is stored, and there is none that can be written to"
        advice = f"mount one at /tmp (docker's `--tmpfs /tmp` is memory), or name one of user {os.getuid()} in TMPDIR"
        raise ConfigError(setting, f"{problem}: {advice}") from None

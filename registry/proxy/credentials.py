"""Where the credentials of an upstream come from, and for how long they are kept.

    Fixed           user and password of the configuration (which variables can set, too)
    PasswordFile    the password stands in a file, as secrets of Kubernetes and Docker do; a rotated one is seen
    DockerConfig    docker's config.json: auths, credHelpers, credsStore
    Helper          a program docker-credential-X
    registry/proxy/ecr.py    the role of the instance

`Keeper` stands before each of them: it asks once for all who wait, keeps the answer for its lifetime, and asks again
when an upstream has refused it. Files and programs are read off the event loop. A source that fails raises
UpstreamUnavailable: an upstream that has credentials is never asked as nobody because a program failed.
"""

import asyncio
import json
import logging
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from registry.config.upstreams import HUB_NAMES, UpstreamConfig
from registry.proxy.challenge import ANONYMOUS, ChallengeInvalid, Credentials, parse_basic
from storage.errors import UpstreamUnavailable
from storage.once import Once

log = logging.getLogger(__name__)

FILE_LIFETIME = 60.0
HELPER_TIMEOUT = 20.0
MAX_FILE = 1 << 20
HUB_KEY = "https://index.docker.io/v1/"
"""Under which docker keeps the credentials of Docker Hub."""

NOT_FOUND = "credentials not found"
"""What a helper prints where it has none (docker-credential-helpers, ErrCredentialsNotFound)."""

TOKEN_USER = "<token>"  # noqa: S105 -- the user name by which a helper says that its secret is an identity token


@dataclass(frozen=True, slots=True)
class Found:
    """lifetime: seconds for which the credentials may be kept; None: until they are refused."""

    credentials: Credentials
    lifetime: float | None = None


class Source(Protocol):
    """Gives credentials. Raises UpstreamUnavailable where it should have some and cannot get at them."""

    async def find(self) -> Found: ...


class Keeper:
    """Keeps what a source gave. clock: monotonic seconds."""

    def __init__(self, source: Source, clock: Callable[[], float], *, forgiving: float = 30.0) -> None:
        self._source, self._clock, self._forgiving = source, clock, forgiving
        self._found: Credentials | None = None
        self._until: float | None = None
        self._asked = 0.0
        self._once: Once[str, Credentials] = Once()

    async def get(self) -> Credentials:
        """Raises UpstreamUnavailable."""
        if self._found is not None and (self._until is None or self._clock() < self._until):
            return self._found
        return await self._once.run("", self._ask)

    def refused(self, credentials: Credentials) -> None:
        """The upstream did not take them: ask the source again, but not at every request."""
        if credentials == self._found and self._clock() >= self._asked + self._forgiving:
            self._until = self._clock()

    @property
    def username(self) -> str:
        """As whom we log in, as far as that is known."""
        found = self._found
        return "" if found is None else found.username or ("(token)" if not found.anonymous else "")

    async def _ask(self) -> Credentials:
        found = await self._source.find()
        self._asked = self._clock()
        self._found = found.credentials
        self._until = None if found.lifetime is None else self._asked + found.lifetime
        return found.credentials

    async def aclose(self) -> None:
        await self._once.aclose()


class Fixed:
    def __init__(self, credentials: Credentials = ANONYMOUS) -> None:
        self._credentials = credentials

    async def find(self) -> Found:
        return Found(self._credentials)


class PasswordFile:
    """The first line of the file is the password."""

    def __init__(self, username: str, path: Path) -> None:
        self._username, self._path = username, path

    async def find(self) -> Found:
        text = await asyncio.to_thread(_read, self._path, "passwordfile")
        password = text.split("\n", 1)[0].rstrip("\r")
        if not password:
            raise _failed(f"passwordfile {self._path} is empty")
        return Found(Credentials(self._username, password), FILE_LIFETIME)


class Helper:
    """Runs `<command> get` with the server's name on stdin (docker-credential-helpers). lifetime: as in Found."""

    def __init__(
        self, command: str, server: str, lifetime: float | None = 300.0, timeout: float = HELPER_TIMEOUT
    ) -> None:
        self._command, self._server = command, server
        self._lifetime, self._timeout = lifetime, timeout

    async def find(self) -> Found:
        status, output = await self._run()
        if status != 0:
            if NOT_FOUND in output.lower():
                return Found(ANONYMOUS, self._lifetime)
            raise _failed(f"{self._command} get ended with status {status}")  # its output may hold a secret
        try:
            answer = json.loads(output)
            user, password = answer["Username"], answer["Secret"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise _failed(f"{self._command} get printed no Username and Secret") from None
        if not isinstance(user, str) or not isinstance(password, str) or not password:
            raise _failed(f"{self._command} get printed no Username and Secret")
        if user in (TOKEN_USER, ""):
            return Found(Credentials(identity_token=password), self._lifetime)
        return Found(Credentials(user, password), self._lifetime)

    async def _run(self) -> tuple[int, str]:
        """Status and stdout. The program has its own process group, so that its children end with it."""
        try:
            process = await asyncio.create_subprocess_exec(
                self._command,
                "get",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                limit=MAX_FILE,
            )
        except OSError as exc:
            raise _failed(f"{self._command} cannot be run: {exc.strerror}") from exc
        try:
            async with asyncio.timeout(self._timeout):
                output, _ = await process.communicate(self._server.encode())
        except TimeoutError:
            raise _failed(f"{self._command} get did not end within {self._timeout:g} s") from None
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        return process.returncode or 0, output[:MAX_FILE].decode("utf-8", "replace")


class DockerConfig:
    """docker's config.json. server: host and port of the upstream. text: the file itself, where a variable holds it."""

    def __init__(self, server: str, path: Path | None, text: str | None = None) -> None:
        self._server, self._path, self._text = server, path, text

    async def find(self) -> Found:
        text = self._text
        if text is None:
            if self._path is None:
                return Found(ANONYMOUS, FILE_LIFETIME)
            text = await asyncio.to_thread(_read, self._path, "dockerconfig")
        try:
            config = json.loads(text)
            if not isinstance(config, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError):
            raise _failed("dockerconfig is not a JSON object") from None
        if (helper := self._helper(config)) is not None:
            name, key = helper
            found = await Helper(f"docker-credential-{name}", key).find()
            # docker, too, falls back to what stands in the file
            return found if not found.credentials.anonymous else Found(self._stored(config), found.lifetime)
        return Found(self._stored(config), FILE_LIFETIME)

    def _keys(self) -> list[str]:
        """The names under which docker and its kin keep credentials of this server, best first."""
        if self._server in HUB_NAMES:
            return [HUB_KEY, "index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
        schemes = ("", "https://", "http://")
        return [f"{scheme}{self._server}{tail}" for scheme in schemes for tail in ("", "/", "/v1/", "/v2/")]

    def _helper(self, config: Mapping[str, object]) -> tuple[str, str] | None:
        """(the helper's name, the server's name to give it)."""
        helpers = config.get("credHelpers")
        if isinstance(helpers, dict):
            for key in self._keys():
                if isinstance(name := helpers.get(key), str):
                    return _checked_helper(name), key
        if isinstance(name := config.get("credsStore"), str) and name:
            return _checked_helper(name), self._keys()[0]
        return None

    def _stored(self, config: Mapping[str, object]) -> Credentials:
        auths = config.get("auths")
        if not isinstance(auths, dict):
            return ANONYMOUS
        entry: Mapping[str, object] = next((auths[key] for key in self._keys() if isinstance(auths.get(key), dict)), {})
        texts = {key: value for key, value in entry.items() if isinstance(value, str) and value}
        basic = ANONYMOUS
        if "auth" in texts:
            try:
                basic = parse_basic(texts["auth"])
            except ChallengeInvalid as exc:
                raise _failed(f"dockerconfig: the auth of {self._server} cannot be read: {exc}") from None
        return Credentials(
            username=texts.get("username", basic.username),
            password=texts.get("password", basic.password),
            identity_token=texts.get("identitytoken", ""),
            registry_token=texts.get("registrytoken", ""),
        )


def _checked_helper(name: str) -> str:
    if not name or not all(char.isalnum() or char in "._-" for char in name) or name.startswith((".", "-")):
        raise _failed("dockerconfig names a credential helper that cannot be one")
    return name


def docker_config(server: str, setting: str, environ: Mapping[str, str]) -> DockerConfig:
    """setting: a file, a folder, or "auto": DOCKER_AUTH_CONFIG (the text itself), DOCKER_CONFIG, ~/.docker."""
    if setting == "auto":
        if text := environ.get("DOCKER_AUTH_CONFIG"):
            return DockerConfig(server, None, text)
        folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME", "/")) / ".docker")
        path = Path(folder) / "config.json"
        return DockerConfig(server, path if path.is_file() else None)
    path = Path(setting)
    return DockerConfig(server, path / "config.json" if path.is_dir() else path)


def source_for(config: UpstreamConfig, environ: Mapping[str, str]) -> Source:
    """The source that the settings of an upstream name."""
    origin = config.origin
    server = origin.host if origin.port in (80, 443) else f"{origin.host}:{origin.port}"
    if config.username:
        if config.passwordfile:
            return PasswordFile(config.username, Path(config.passwordfile))
        return Fixed(Credentials(config.username, config.password))
    if config.dockerconfig:
        return docker_config(server, config.dockerconfig, environ)
    if config.helper:
        # distribution's proxy.exec names the whole program
        command = (
            config.helper if config.helper.startswith("docker-credential-") else f"docker-credential-{config.helper}"
        )
        return Helper(command, HUB_KEY if config.is_hub else server, config.helperlifetime)
    if config.ecr:
        from registry.proxy.ecr import EcrLogin

        return EcrLogin.of(origin.host)
    return Fixed()


def _read(path: Path, setting: str) -> str:
    try:
        with path.open("rb") as file:
            found = file.read(MAX_FILE + 1)
        if len(found) > MAX_FILE:
            raise _failed(f"{setting} {path} is larger than {MAX_FILE} bytes")
        return found.decode("utf-8")
    except OSError as exc:
        raise _failed(f"{setting} {path} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError:
        raise _failed(f"{setting} {path} is not a text file in UTF-8") from None


def _failed(reason: str) -> UpstreamUnavailable:
    """reason: for the operator; it names files and programs, never a secret."""
    log.error("no credentials for an upstream: %s", reason)
    return UpstreamUnavailable("this registry cannot get at its credentials for the upstream")

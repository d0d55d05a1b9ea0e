"""Where credentials come from: files, docker's config, helpers, ECR. Helpers are real programs."""

import asyncio
import base64
import json
import logging
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from registry.config.errors import ConfigError
from registry.config.upstreams import UpstreamConfig
from registry.proxy.challenge import ANONYMOUS, Credentials
from registry.proxy.credentials import (
    HUB_KEY,
    DockerConfig,
    Fixed,
    Found,
    Helper,
    Keeper,
    PasswordFile,
    docker_config,
    source_for,
)
from registry.proxy.ecr import EcrLogin
from storage.errors import UpstreamUnavailable

from .conftest import Clock

MakeHelper = Callable[[str, str], Path]


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeHelper:
    """Writes docker-credential-<name>, a shell script, on PATH. It notes each run in `calls`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(name: str, script: str) -> Path:
        path = tmp_path / f"docker-credential-{name}"
        path.write_text(f'#!/bin/sh\nserver=$(cat)\necho "$1 $server" >> {tmp_path}/calls\n{script}\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return tmp_path / "calls"

    return make


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def docker(server: str, **config: object) -> DockerConfig:
    return DockerConfig(server, None, json.dumps(config))


# docker's config.json

CONFIGS: dict[str, tuple[str, dict[str, object], Credentials]] = {
    "auth": ("ghcr.io", {"auths": {"ghcr.io": {"auth": encoded("u:p:w")}}}, Credentials("u", "p:w")),
    "with scheme": ("ghcr.io", {"auths": {"https://ghcr.io": {"auth": encoded("u:p")}}}, Credentials("u", "p")),
    "with path": ("ghcr.io", {"auths": {"https://ghcr.io/v2/": {"auth": encoded("u:p")}}}, Credentials("u", "p")),
    "with port": ("hub.lan:5000", {"auths": {"hub.lan:5000": {"auth": encoded("u:p")}}}, Credentials("u", "p")),
    "hub": ("registry-1.docker.io", {"auths": {HUB_KEY: {"auth": encoded("u:p")}}}, Credentials("u", "p")),
    "plain": ("ghcr.io", {"auths": {"ghcr.io": {"username": "u", "password": "p"}}}, Credentials("u", "p")),
    "identity": (
        "x.azurecr.io",
        {"auths": {"x.azurecr.io": {"auth": encoded("0:"), "identitytoken": "t"}}},
        Credentials("0", "", identity_token="t"),
    ),
    "registry token": ("x.io", {"auths": {"x.io": {"registrytoken": "t"}}}, Credentials(registry_token="t")),
    "another's": ("ghcr.io", {"auths": {"evil.ghcr.io": {"auth": encoded("u:p")}}}, ANONYMOUS),
    "another port": ("hub.lan:5000", {"auths": {"hub.lan": {"auth": encoded("u:p")}}}, ANONYMOUS),
    "empty entry": ("ghcr.io", {"auths": {"ghcr.io": {}}}, ANONYMOUS),
    "nothing": ("ghcr.io", {}, ANONYMOUS),
    "wrong shapes": ("ghcr.io", {"auths": [], "credHelpers": 7, "credsStore": 7}, ANONYMOUS),
}


@pytest.mark.parametrize("name", CONFIGS)
async def test_docker_config(name: str) -> None:
    server, config, expected = CONFIGS[name]
    assert (await docker(server, **config).find()).credentials == expected


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"auths": {"ghcr.io": {"auth": "!!"}}}'])
async def test_docker_config_that_cannot_be_read(text: str) -> None:
    with pytest.raises(UpstreamUnavailable):
        await DockerConfig("ghcr.io", None, text).find()


async def test_where_docker_looks(tmp_path: Path) -> None:
    (tmp_path / ".docker").mkdir()
    config = tmp_path / ".docker" / "config.json"
    config.write_text(json.dumps({"auths": {"ghcr.io": {"auth": encoded("u:home")}}}))
    found = await docker_config("ghcr.io", "auto", {"HOME": str(tmp_path)}).find()
    assert found.credentials == Credentials("u", "home")
    found = await docker_config("ghcr.io", "auto", {"DOCKER_CONFIG": str(config.parent)}).find()
    assert found.credentials == Credentials("u", "home")
    text = json.dumps({"auths": {"ghcr.io": {"auth": encoded("u:variable")}}})
    found = await docker_config("ghcr.io", "auto", {"DOCKER_AUTH_CONFIG": text, "HOME": str(tmp_path)}).find()
    assert found.credentials == Credentials("u", "variable")
    assert (await docker_config("ghcr.io", "auto", {"HOME": "/nonexistent"}).find()).credentials == ANONYMOUS
    for setting in (config, config.parent):
        assert not (await docker_config("ghcr.io", str(setting), {}).find()).credentials.anonymous
    with pytest.raises(UpstreamUnavailable):  # named, and not there: never quietly nobody
        await docker_config("ghcr.io", str(tmp_path / "none.json"), {}).find()


# Helpers


async def test_helper(helper: MakeHelper) -> None:
    calls = helper("x", """echo '{"ServerURL": "ghcr.io", "Username": "u", "Secret": "p"}'""")
    assert await Helper("docker-credential-x", "ghcr.io", 7.0).find() == Found(Credentials("u", "p"), 7.0)
    assert calls.read_text() == "get ghcr.io\n"


async def test_helper_with_an_identity_token(helper: MakeHelper) -> None:
    helper("x", """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert (await Helper("docker-credential-x", "x").find()).credentials == Credentials(identity_token="t")


async def test_helper_that_has_none(helper: MakeHelper) -> None:
    helper("x", "echo credentials not found in native keychain; exit 1")
    assert (await Helper("docker-credential-x", "x").find()).credentials == ANONYMOUS


@pytest.mark.parametrize(
    "script",
    ["exit 1", "echo canary-secret; exit 2", "echo {}", "echo []", "echo", """echo '{"Username": "u", "Secret": 7}'"""],
)
async def test_helper_that_fails(helper: MakeHelper, script: str, caplog: pytest.LogCaptureFixture) -> None:
    """Never asked as nobody then, and what it printed stays unsaid."""
    helper("x", script)
    with pytest.raises(UpstreamUnavailable) as caught, caplog.at_level(logging.DEBUG):
        await Helper("docker-credential-x", "x").find()
    assert "canary" not in caplog.text + repr(caught.value)
    assert "docker-credential-x" in caplog.text


async def test_helper_that_is_not_there() -> None:
    with pytest.raises(UpstreamUnavailable):
        await Helper("docker-credential-none-such", "x").find()


async def test_helper_that_hangs_is_ended_with_its_children(helper: MakeHelper, tmp_path: Path) -> None:
    """Both hold a pipe open: it ends when they have."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    helper("x", f"exec 3> {pipe}; sleep 600 & wait")
    with pytest.raises(UpstreamUnavailable):
        await Helper("docker-credential-x", "x", timeout=0.2).find()
    os.set_blocking(reading, True)
    assert await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), 10) == b""
    os.close(reading)


async def test_docker_config_names_helpers(helper: MakeHelper) -> None:
    helper("store", """echo '{"Username": "store", "Secret": "p"}'""")
    calls = helper("own", """echo '{"Username": "own", "Secret": "p"}'""")
    config = {"credsStore": "store", "credHelpers": {"ghcr.io": "own"}}
    assert (await docker("ghcr.io", **config).find()).credentials.username == "own"
    assert (await docker("registry-1.docker.io", **config).find()).credentials.username == "store"
    assert calls.read_text().splitlines() == ["get ghcr.io", f"get {HUB_KEY}"]


async def test_docker_config_falls_back_to_the_file(helper: MakeHelper) -> None:
    helper("store", "echo credentials not found in native keychain; exit 1")
    found = await docker("ghcr.io", credsStore="store", auths={"ghcr.io": {"auth": encoded("u:p")}}).find()
    assert found.credentials == Credentials("u", "p")


@pytest.mark.parametrize("name", ["../x", "a/b", "-x", "a b", ".x"])
async def test_docker_config_names_no_program_elsewhere(name: str) -> None:
    with pytest.raises(UpstreamUnavailable):
        await docker("ghcr.io", credHelpers={"ghcr.io": name}).find()


# Files


async def test_password_file(tmp_path: Path, clock: Clock) -> None:
    """A rotated one is seen after a minute, or when the old one is refused."""
    path = tmp_path / "password"
    path.write_text("one\n")
    keeper = Keeper(PasswordFile("u", path), clock)
    assert await keeper.get() == Credentials("u", "one")
    path.write_text("two\r\nrest")
    assert await keeper.get() == Credentials("u", "one")
    clock.now += 61
    assert await keeper.get() == Credentials("u", "two")
    path.write_text("three")
    clock.now += 31
    keeper.refused(Credentials("u", "two"))
    assert await keeper.get() == Credentials("u", "three")


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff", b"x" * (2 << 20)])
async def test_password_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UpstreamUnavailable):
        await PasswordFile("u", path).find()


# Keeping


class Counting:
    """A source that can be held up, and says how often it was asked."""

    def __init__(self, lifetime: float | None = None) -> None:
        self.calls, self.lifetime, self.go = 0, lifetime, asyncio.Event()
        self.go.set()

    async def find(self) -> Found:
        self.calls += 1
        await self.go.wait()
        return Found(Credentials("u", f"p{self.calls}"), self.lifetime)


async def test_kept_for_its_lifetime(clock: Clock) -> None:
    source = Counting(100.0)
    keeper = Keeper(source, clock)
    assert keeper.username == ""
    for _ in range(3):
        await keeper.get()
    assert (source.calls, keeper.username) == (1, "u")
    clock.now += 100
    await keeper.get()
    assert source.calls == 2


async def test_one_asks_for_all_and_may_leave(clock: Clock) -> None:
    source = Counting()
    source.go.clear()
    keeper = Keeper(source, clock)
    first, second = asyncio.create_task(keeper.get()), asyncio.create_task(keeper.get())
    await asyncio.sleep(0)
    first.cancel()
    source.go.set()
    assert (await second).password == "p1"
    assert source.calls == 1
    await keeper.aclose()


async def test_refused_credentials_are_not_asked_for_all_the_time(clock: Clock) -> None:
    source = Counting()
    keeper = Keeper(source, clock)
    for _ in range(5):
        keeper.refused(await keeper.get())
    assert source.calls == 1
    clock.now += 31
    keeper.refused(Credentials("u", "of another time"))
    await keeper.get()
    assert source.calls == 1
    keeper.refused(await keeper.get())
    await keeper.get()
    assert source.calls == 2


# What the settings name


async def test_sources(tmp_path: Path, helper: MakeHelper) -> None:
    helper("x", """echo '{"Username": "helped", "Secret": "p"}'""")
    (tmp_path / "password").write_text("filed")
    url = "https://ghcr.io"
    rows: list[tuple[UpstreamConfig, Credentials]] = [
        (UpstreamConfig(url=url), ANONYMOUS),
        (UpstreamConfig(url=url, username="u", password="p"), Credentials("u", "p")),
        (
            UpstreamConfig(url=url, username="u", passwordfile=str(tmp_path / "password")),
            Credentials("u", "filed"),
        ),
        (UpstreamConfig(url=url, helper="x"), Credentials("helped", "p")),
        (UpstreamConfig(url=url, helper="docker-credential-x"), Credentials("helped", "p")),
        (UpstreamConfig(url=url, dockerconfig="auto"), Credentials("u", "v")),
    ]
    environ = {"DOCKER_AUTH_CONFIG": json.dumps({"auths": {"ghcr.io": {"auth": encoded("u:v")}}})}
    for config, expected in rows:
        assert (await source_for(config, environ).find()).credentials == expected
    assert isinstance(source_for(UpstreamConfig(url=url), {}), Fixed)


# ECR


NOW = datetime(2026, 11, 22, tzinfo=UTC)


async def test_ecr() -> None:
    asked: list[tuple[str, str]] = []

    async def authorize(region: str, account: str) -> tuple[str, datetime]:
        asked.append((region, account))
        return encoded("AWS:secret"), NOW + timedelta(hours=12)

    config = UpstreamConfig(url="https://123456789012.dkr.ecr.eu-west-1.amazonaws.com", ecr=True)
    assert isinstance(source_for(config, {}), EcrLogin)
    source = EcrLogin("eu-west-1", "123456789012", authorize, lambda: NOW)
    assert await source.find() == Found(Credentials("AWS", "secret"), 6 * 3600.0)
    assert asked == [("eu-west-1", "123456789012")]


def test_ecr_is_not_logged_by_the_sdk() -> None:
    assert not logging.getLogger("botocore.parsers").isEnabledFor(logging.DEBUG)


async def test_ecr_answers_nonsense() -> None:
    async def authorize(region: str, account: str) -> tuple[str, datetime]:
        return "!!", NOW

    with pytest.raises(UpstreamUnavailable):
        await EcrLogin("r", "1", authorize, lambda: NOW).find()


@pytest.mark.parametrize(
    "host",
    [
        "123456789012.dkr.ecr.eu-west-1.amazonaws.com",
        "123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn",
        "123456789012.dkr.ecr-fips.us-east-1.amazonaws.com",
        "123456789012.dkr-ecr.us-east-1.on.aws",
    ],
)
def test_ecr_hosts(host: str) -> None:
    EcrLogin.of(host)


@pytest.mark.parametrize("host", ["ghcr.io", "x.dkr.ecr.eu-west-1.amazonaws.com.evil.example", "public.ecr.aws"])
def test_not_ecr(host: str) -> None:
    with pytest.raises(ConfigError):
        EcrLogin.of(host)

"""S17 to S19: with users configured nobody else sees or does anything, on whatever path, and a user must be one."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from registry.app import create_app
from registry.config import Config, ConfigError
from registry.config.model import AuthConfig, HtpasswdConfig
from registry.dispatch import OPERATIONS
from registry.serving.server import RunningServer, running
from tests import rawsocket
from tests.api import IMAGE, Api, digest_of, error_of, image
from tests.security.conftest import USERS

SECRET_DATA = b"the bytes that nobody may see"
DIGEST = digest_of(SECRET_DATA)
MANIFEST = image(b"{}", (SECRET_DATA,), annotations={"secret": "nobody may see this"})
MANIFEST_DIGEST = digest_of(MANIFEST)
NAME = "private/app"


class Ask(NamedTuple):
    method: str
    path: str


ARGUMENTS = {
    "blob": f"blobs/{DIGEST}",
    "uploads": "blobs/uploads/",
    "upload": "blobs/uploads/c0ffee00-0000-4000-8000-000000000001",
    "manifest": "manifests/v1",
    "tags": "tags/list",
    "referrers": f"referrers/{MANIFEST_DIGEST}",
}
MATRIX = [
    Ask("GET", "/v2/"),
    Ask("GET", "/v2"),
    Ask("GET", "/v2/_catalog"),
    *(
        Ask(method, f"/v2/{NAME}/{ARGUMENTS[endpoint]}")
        for endpoint, operations in OPERATIONS.items()
        for method in operations
    ),
]
"""Every endpoint with every method that it offers: a new one joins by itself, or the look-up above fails."""


def ids(asks: list[Ask]) -> list[str]:
    return [f"{ask.method}-{ask.path}" for ask in asks]


async def push_secret(api: Api) -> None:
    for data in (b"{}", SECRET_DATA):
        await api.push_blob(NAME, data)
    await api.push_manifest(NAME, MANIFEST, "v1")


def tells_nothing(text: str, asked: str = "") -> bool:
    """Nothing of the image is in there but what the request itself has said."""
    words = (SECRET_DATA.decode(), "nobody may see", NAME, DIGEST, MANIFEST_DIGEST)
    return not any(word in text for word in words if word not in asked)


@pytest.mark.parametrize("ask", MATRIX, ids=ids(MATRIX))
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Basic"},
        {"Authorization": "Bearer x"},
        {"Authorization": "Basic YWxpY2U6d3Jvbmc="},
        {"X-WEBAUTH-USER": "alice", "X-Forwarded-User": "alice", "X-Remote-User": "alice"},
        {"Range": "bytes=0-3", "If-None-Match": f'"{DIGEST}"'},
    ],
    ids=["nobody", "empty", "scheme-alone", "bearer", "wrong-password", "forwarded-user", "range-and-etag"],
)
async def test_s17_nobody_is_told_anything(anon: Api, alice: Api, ask: Ask, headers: dict[str, str]) -> None:
    await push_secret(alice)
    response = await anon.http.request(ask.method, ask.path, headers={"Content-Type": IMAGE, **headers}, content=b"x")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == 'Basic realm="Registry"'
    assert tells_nothing(response.text + str(response.headers), ask.path)
    assert not {"Docker-Content-Digest", "ETag", "Location", "Link"} & set(response.headers)
    if ask.method != "HEAD":
        assert error_of(response) == (401, "UNAUTHORIZED")
    assert (await alice.get(f"/v2/{NAME}/blobs/{DIGEST}")).content == SECRET_DATA
    assert await alice.tags(NAME) == ["v1"]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("ask", MATRIX, ids=ids(MATRIX))
async def test_s17_whoever_has_logged_in_gets_an_answer(anon: Api, alice: Api, user: str, ask: Ask) -> None:
    await push_secret(alice)
    response = await anon.http.request(
        ask.method, ask.path, auth=(user, USERS[user]), headers={"Content-Type": IMAGE}, content=b""
    )
    assert response.status_code not in (401, 403, 500)


VARIANTS = [
    "/v2/_catalog/",
    "//v2/_catalog",
    "/v2//_catalog",
    "/v2/./_catalog",
    "/v2/../v2/_catalog",
    "/v2/%5Fcatalog",
    "/v2/%5fcatalog",
    "/v2%2F_catalog",
    "/%76%32/_catalog",
    "/v2/_catalog%00",
    "/v2/_catalog;a=b",
    "/v2/_catalog?n=5&n=6",
    "/v2/_catalog?access_token=x",
    "/V2/_catalog",
    "/v2/_CATALOG",
    "/v2/_catalog#x",
    "http://anywhere/v2/_catalog",
    "http://anywhere//v2/_catalog",
    f"/v2/{NAME.replace('/', '%2F')}/manifests/v1",
    f"/v2/{NAME}/manifests/v1?ns=docker.io",
    f"/v2/{NAME}/manifests/v1?ns=",
    f"/v2/{NAME}/manifests/%76%31",
    f"/v2/{NAME}/manifests/v1/",
    f"/v2/{NAME}//manifests/v1",
    f"/v2/x/../{NAME}/manifests/v1",
    f"/v2/{NAME}/blobs/{DIGEST.replace(':', '%3A')}",
    f"/v2/{NAME}/tags/list/",
    f"/v2/{NAME}/tags%2Flist",
    f"http://anywhere/v2/{NAME}/blobs/{DIGEST}",
    "/v2/",
    "/v2",
    "/v2/%2e",
    "/v2?",
    "/metrics",
    "/debug/health",
    "/debug/pprof/",
    "*",
]


@pytest.mark.parametrize("prefix", ["", "/registry/"], ids=["plain", "prefix"])
async def test_s17_path_variants(secured: Config, prefix: str) -> None:
    """All of them on one registry, as bytes on the wire: 401, or an answer that tells nothing; never data."""
    config = replace(secured, http=replace(secured.http, prefix=prefix))
    with running(create_app(config), config) as server:
        async with httpx.AsyncClient(base_url=server.url, auth=("alice", USERS["alice"]), verify=False) as client:
            client.event_hooks["request"] = [below(prefix.rstrip("/"))]
            await push_secret(Api(client))
        for target in VARIANTS:
            for method in ("GET", "HEAD", "OPTIONS", "POST"):
                path = prefix.rstrip("/") + target if target.startswith("/") else target
                status, text = ask_raw(server, rawsocket.request(method, path), method)
                assert 400 <= status < 500, (method, target, status)
                assert tells_nothing(text, target), (method, target, text)
                if "catalog" in target and status == 404:
                    assert "repositories" not in text


def below(prefix: str) -> Callable[[httpx.Request], Awaitable[None]]:
    """Lets a client that knows no prefix ask below one."""

    async def hook(request: httpx.Request) -> None:
        if not request.url.path.startswith(f"{prefix}/v2/"):
            request.url = request.url.copy_with(raw_path=prefix.encode() + request.url.raw_path)

    return hook


def ask_raw(server: RunningServer, data: bytes, method: str = "GET") -> tuple[int, str]:
    with rawsocket.connected(server.host, server.port) as client:
        client.send_until_closed(data)
        response = client.response(method)
        return response.status, str(response.headers) + response.body.decode("utf-8", "replace")


HOSTS = ["a/?x=", "a/v2/", "127.0.0.1:5000/", "registry", "anon@registry", "a#", "[::1]", "a:99999"]


async def test_1d_the_host_header_decides_nothing(live: RunningServer) -> None:
    """CVE-2026-48710: Host became part of request.url.path, on which middleware decided."""
    for host in HOSTS:
        for target in ("/v2/_catalog", f"/v2/{NAME}/tags/list", "/v2/"):
            status, text = ask_raw(live, rawsocket.request("GET", target, host=host))
            assert status in (400, 401), (host, target, status)
            assert tells_nothing(text, target)


@pytest.mark.parametrize("method", ["FOO", "__INIT__", "__init__", "get", "TRACE", "CONNECT", "PROPFIND"])
async def test_1d_methods_that_are_none(live: RunningServer, method: str) -> None:
    status, _ = ask_raw(live, rawsocket.request(method, f"/v2/{NAME}/tags/list"), method)
    assert status in (400, 405)


async def test_s18_known_and_unknown_users_get_the_same_answer(anon: Api) -> None:
    answers = []
    for user in ("alice", "mallory"):
        for word in ("wrong", "w" * 73, "", "\0", "é"):
            response = await anon.http.get("/v2/", auth=(user, word))
            del response.headers["X-Request-Id"]  # the number of the request, whoever it is
            answers.append((response.status_code, dict(response.headers), response.content))
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][0] == 401


async def test_s18_the_memory_of_logins_gives_nobody_else_in(anon: Api, alice: Api) -> None:
    assert (await alice.get("/v2/")).status_code == 200
    for user, word in [("alice", "x"), ("mallory", USERS["alice"]), ("bob", USERS["alice"]), ("ALICE", USERS["alice"])]:
        assert (await anon.http.get("/v2/", auth=(user, word))).status_code == 401


@pytest.fixture
def users(tmp_path: Path, htpasswd: Path) -> Path:
    """A file that a test may change."""
    path = tmp_path / "own-htpasswd"
    path.write_bytes(htpasswd.read_bytes())
    return path


async def test_s10_a_removed_user_is_out_at_the_next_request(secured: Config, users: Path) -> None:
    config = replace(secured, auth=AuthConfig(htpasswd=HtpasswdConfig(path=str(users))))
    transport = httpx.ASGITransport(create_app(config))
    async with httpx.AsyncClient(transport=transport, base_url="http://registry", auth=("bob", USERS["bob"])) as client:
        assert (await client.get("/v2/")).status_code == 200
        users.write_text(users.read_text().splitlines()[0] + "\n")
        assert (await client.get("/v2/")).status_code == 401


def test_s19_authentication_without_a_file_does_not_start(secured: Config, tmp_path: Path) -> None:
    for path, text in [
        (tmp_path / "missing", r"there is no file .*htpasswd -Bc"),
        (tmp_path, "cannot use"),
    ]:
        config = replace(secured, auth=AuthConfig(htpasswd=HtpasswdConfig(path=str(path))))
        with pytest.raises(ConfigError, match=text):
            create_app(config)
    assert not (tmp_path / "missing").exists(), "distribution makes one with a user of its own"


def test_s19_a_file_that_is_none_does_not_start(secured: Config, tmp_path: Path) -> None:
    (tmp_path / "broken").write_text("alice\n")
    config = replace(secured, auth=AuthConfig(htpasswd=HtpasswdConfig(path=str(tmp_path / "broken"))))
    with pytest.raises(ConfigError, match="line 1 is not user:hash"):
        create_app(config)


async def test_s19_no_user_is_built_in(secured: Config, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("")
    config = replace(secured, auth=AuthConfig(htpasswd=HtpasswdConfig(path=str(tmp_path / "empty"))))
    transport = httpx.ASGITransport(create_app(config))
    async with httpx.AsyncClient(transport=transport, base_url="http://registry") as client:
        for user, word in [("admin", "admin"), ("docker", "docker"), ("admin", ""), ("", ""), ("admin", "Harbor12345")]:
            assert (await client.get("/v2/", auth=(user, word))).status_code == 401

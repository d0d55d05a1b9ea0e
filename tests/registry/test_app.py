"""create_app: a plain ASGI app, alone, below another, behind a prefix, under a name of its own."""

import logging
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.routing import Mount
from starlette.types import ASGIApp

from registry.app import create_app
from registry.config import Config, ConfigError, HTTPConfig, LogConfig, StorageConfig
from registry.config.model import AccessLogConfig, GarbageConfig, ManifestRulesConfig, URLRulesConfig, ValidationConfig
from registry.serving.lifespan import lifespan
from storage.errors import Unavailable
from tests.api import Api, digest_of, with_query
from tests.conftest import read_only
from tests.storage.shelf import DAY

MEMORY = StorageConfig(driver="inmemory", parameters={})


@asynccontextmanager
async def client(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as http:
        yield http


async def push_blob(http: httpx.AsyncClient, root: str) -> tuple[httpx.Response, httpx.Response]:
    """The answers to POST and PUT, following Location as a client does."""
    started = await http.post(f"{root}/v2/a/b/blobs/uploads/")
    assert started.status_code == 202, started.text
    location = httpx.URL(started.headers["Location"]).raw_path.decode()
    done = await http.put(with_query(location, digest=digest_of(b"data")), content=b"data")
    assert done.status_code == 201, done.text
    return started, done


async def test_mounted_below_another_app() -> None:
    outer = Starlette(routes=[Mount("/images", create_app(Config(storage=MEMORY)))])
    async with client(outer) as http:
        started, done = await push_blob(http, "/images")
        assert started.headers["Location"].startswith("/images/v2/a/b/blobs/uploads/")
        assert (await http.get(done.headers["Location"])).content == b"data"
        assert (await http.get("/v2/")).status_code == 404


async def test_behind_a_prefix() -> None:
    async with client(create_app(Config(storage=MEMORY, http=HTTPConfig(prefix="/some/where/")))) as http:
        _, done = await push_blob(http, "/some/where")
        assert done.headers["Location"].startswith("/some/where/v2/a/b/blobs/sha256:")
        assert (await http.get(done.headers["Location"])).content == b"data"
        assert (await http.get("/v2/")).status_code == 404


async def test_under_a_name_of_its_own() -> None:
    config = Config(storage=MEMORY, http=HTTPConfig(host="https://registry.example.com:8443"))
    async with client(create_app(config)) as http:
        started, done = await push_blob(http, "")
        for answer in (started, done):
            assert answer.headers["Location"].startswith("https://registry.example.com:8443/v2/a/b/blobs/")


async def test_headers_of_every_answer() -> None:
    config = Config(storage=MEMORY, http=HTTPConfig(headers={"X-Frame-Options": ("DENY",)}))
    async with client(create_app(config)) as http:
        for path in ("/v2/", "/v2/a/tags/list", "/nope"):
            answer = await http.get(path)
            assert answer.headers["X-Frame-Options"] == "DENY"
            assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_two_apps_share_nothing() -> None:
    one, two = (create_app(Config(storage=MEMORY)) for _ in range(2))
    async with client(one) as first, client(two) as second:
        await Api(first).push_image("a/b", "v1")
        assert (await second.get("/v2/a/b/manifests/v1")).status_code == 404


async def test_without_an_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    config = Config(storage=MEMORY)
    async with client(create_app(config)) as http:
        await http.get("/v2/")
    assert "GET /v2/ 200" in caplog.text
    caplog.clear()
    async with client(create_app(replace(config, log=LogConfig(accesslog=AccessLogConfig(disabled=True))))) as http:
        await http.get("/v2/")
    assert "registry.access" not in [record.name for record in caplog.records]


async def test_a_client_that_leaves_within_its_body_made_no_mistake(caplog: pytest.LogCaptureFixture) -> None:
    """A status of its own tells it in logs and metrics from what a client has done wrong."""
    caplog.set_level(logging.INFO, "registry.access")

    async def cut() -> AsyncIterator[bytes]:
        yield b"a part"
        raise ClientDisconnect

    async with client(create_app(Config(storage=MEMORY))) as http:
        location = (await http.post("/v2/a/b/blobs/uploads/")).headers["Location"]
        assert (await http.patch(location, content=cut())).status_code == 499
        assert (await http.get(location)).headers["Range"] == "0-5"
    assert "PATCH" in caplog.text
    assert " 499" in caplog.text


def test_no_htpasswd_file_says_how_to_make_one(tmp_path: Path) -> None:
    from registry.config.model import AuthConfig, HtpasswdConfig

    auth = AuthConfig(htpasswd=HtpasswdConfig(path=str(tmp_path / "none")))
    with pytest.raises(ConfigError, match="htpasswd -Bc"):
        create_app(Config(storage=MEMORY, auth=auth))


@pytest.mark.parametrize(
    "storage",
    [
        StorageConfig(driver="nosuch", parameters={}),
        StorageConfig(driver="filesystem", parameters={"rootdirectory": "/x", "nosuch": 1}),
    ],
)
def test_a_driver_that_cannot_be_made(storage: StorageConfig) -> None:
    with pytest.raises(ConfigError, match="nosuch"):
        create_app(Config(storage=storage))


async def test_a_folder_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path / "file" / "data")})
    with pytest.raises(Unavailable):
        async with lifespan(create_app(Config(storage=storage))):
            pass


def test_patterns_are_of_re2() -> None:
    urls = URLRulesConfig(allow=(r"^https?://([^/]+\.)*example\.com/",), deny=())
    create_app(Config(storage=MEMORY, validation=ValidationConfig(manifests=ManifestRulesConfig(urls=urls))))


@pytest.mark.parametrize("readonly", [False, True])
async def test_only_a_registry_that_takes_pushes_renews_blobs(tmp_path: Path, readonly: bool) -> None:
    """And writes nothing else for a HEAD; garbage.grace says when."""
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(tmp_path)})
    async with client(create_app(Config(storage=storage))) as http:
        await push_blob(http, "")
    (blob,) = tmp_path.rglob("blobs/**/data")
    (link,) = tmp_path.rglob("_layers/**/link")
    for path in (blob, link):
        os.utime(path, (1e9, 1e9))
    config = Config(storage=read_only(storage) if readonly else storage)
    for grace, renewed in ((0.0, False), (DAY, not readonly)):
        async with client(create_app(replace(config, garbage=GarbageConfig(grace=grace)))) as http:
            assert (await http.head(f"/v2/a/b/blobs/{digest_of(b'data')}")).status_code == 200
        assert (blob.stat().st_mtime > 1e9) is renewed
        assert link.stat().st_mtime == 1e9


_BARE = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"aiobotocore", "aiohttp", "botocore", "httpcore", "httpx", "re2"}:
            raise ImportError(name)

sys.meta_path.insert(0, Missing())
import registry.cli
from registry.app import create_app
from registry.config import Config, ConfigError, StorageConfig
from registry.config.upstreams import UpstreamConfig

storage = StorageConfig(driver="inmemory", parameters={})
create_app(Config(storage=storage))
try:
    create_app(Config(storage=storage, upstreams=(UpstreamConfig(url="https://registry.example"),)))
except ConfigError as exc:
    print(exc)
"""


@pytest.mark.slow
def test_extras_are_needed_by_those_who_ask_for_them_alone() -> None:
    done = subprocess.run([sys.executable, "-c", _BARE], check=True, capture_output=True, text=True)
    assert "pip install 'moorage[proxy]'" in done.stdout

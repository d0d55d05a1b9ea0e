"""/livez, /readyz and the 503 of failed checks, on the registry's own port."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from registry.app import create_app
from registry.application import Application
from registry.config import Config
from registry.config.model import (
    AuthConfig,
    FileCheckConfig,
    HealthConfig,
    HtpasswdConfig,
    HTTPConfig,
    MaintenanceConfig,
    ReadOnlyConfig,
    StorageCheckConfig,
    StorageConfig,
)
from registry.serving.lifespan import lifespan
from registry.watching import checks
from registry.watching.logs import ACCESS
from storage import layout
from tests.api import error_of

READY = {"ready": True, "checks": {"serving": "ok", "storage": "ok"}}


@asynccontextmanager
async def client(app: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as http,
    ):
        yield http


async def test_probes(config: Config) -> None:
    app = create_app(config)
    async with client(app) as http:
        for path, body in (("/livez", {"live": True}), ("/readyz", READY)):
            response = await http.get(path)
            assert (response.status_code, response.json()) == (200, body)
            assert response.headers["cache-control"] == "no-store"
            assert (await http.head(path)).status_code == 200
            assert error_of(await http.post(path)) == (404, "UNSUPPORTED")
        app.health.stop()
        assert (await http.get("/readyz")).status_code == 503
        assert (await http.get("/livez")).status_code == 200
        assert (await http.get("/v2/")).status_code == 200


async def test_root_is_what_balancers_before_distribution_ask(config: Config, tmp_path: Path) -> None:
    """The charts of registry:2 do, too."""
    checks = HealthConfig(file=(FileCheckConfig(file=str(tmp_path), interval=0.001),))
    for settings, status in ((config, 200), (replace(config, health=checks), 503)):
        async with client(create_app(settings)) as http:
            response = await http.get("/") if status == 200 else await answered(http, status, "/")
            assert (response.status_code, response.content) == (status, b"")
            assert (await http.head("/")).status_code == status
            assert error_of(await http.put("/")) == ((404, "UNSUPPORTED") if status == 200 else (503, "UNAVAILABLE"))


async def test_names_that_look_like_probes(config: Config) -> None:
    async with client(create_app(config)) as http:
        assert error_of(await http.get("/v2/livez/manifests/readyz")) == (404, "MANIFEST_UNKNOWN")
        assert error_of(await http.get("/livez/")) == (404, "UNSUPPORTED")
        assert error_of(await http.get("/v2/livez")) == (404, "UNSUPPORTED")


async def test_prefix(config: Config) -> None:
    async with client(create_app(replace(config, http=HTTPConfig(prefix="/some/where/")))) as http:
        for path in ("/livez", "/readyz", "/some/where/livez", "/some/where/readyz"):
            assert (await http.get(path)).status_code == 200


async def test_below_another_application(config: Config) -> None:
    app = Starlette(routes=[Mount("/images", create_app(config))])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as http:
        assert (await http.get("/images/readyz")).json() == READY


async def test_neither_login_nor_log(config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "users").write_text("")
    auth = AuthConfig(htpasswd=HtpasswdConfig(path=str(tmp_path / "users")))

    def logged() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name == ACCESS]

    async with client(create_app(replace(config, auth=auth))) as http:
        caplog.set_level(logging.INFO)
        assert (await http.get("/v2/")).status_code == 401
        assert (await http.get("/readyz")).status_code == 200
        assert logged() == ["GET /v2/ 401"]
        caplog.set_level(logging.DEBUG)
        await http.get("/livez")
        assert logged()[1:] == ["GET /livez 200"]


async def test_storage_that_does_not_answer(tmp_path: Path) -> None:
    """A link in the place of the root that leads to itself: every call fails, and not for want of an object."""
    root = tmp_path / "data"
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(root)})
    checks = HealthConfig(storagedriver=StorageCheckConfig(enabled=True))
    app = create_app(Config(storage=storage, health=checks))
    async with client(app) as http:
        root.rename(tmp_path / "away")
        root.symlink_to(root)
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["storage"] not in ("ok", "")
        assert str(tmp_path) not in response.text
        refused = await http.get("/v2/")
        assert error_of(refused) == (503, "UNAVAILABLE")
        root.unlink()
        (tmp_path / "away").rename(root)


async def test_a_folder_that_is_gone_is_no_empty_store(tmp_path: Path) -> None:
    data = tmp_path / "data"
    storage = StorageConfig(driver="filesystem", parameters={"rootdirectory": str(data)})
    at_once = HealthConfig(storagedriver=StorageCheckConfig(interval=1e-9))
    async with client(create_app(Config(storage=storage, health=at_once))) as http:
        assert (await http.get("/readyz")).json() == READY
        data.rename(tmp_path / "elsewhere")
        response = await http.get("/readyz")
        assert response.status_code == 503
        assert response.json()["checks"]["storage"].endswith("is gone: is its volume mounted?")
        (tmp_path / "elsewhere").rename(data)
        assert (await http.get("/readyz")).json() == READY


async def test_a_store_that_is_away_is_not_empty(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link stands for the mount of another volume. Clients get no 404 for what may be there, and push nowhere."""
    monkeypatch.setattr(checks, "_PRESENCE", 0.0)
    data = tmp_path / "data"
    parameters = {"rootdirectory": str(data)}
    storage = StorageConfig(driver="filesystem", parameters=parameters)
    async with client(create_app(replace(config, storage=storage))) as http:
        fresh = await http.get("/v2/_catalog")
        assert (fresh.status_code, fresh.json()) == (200, {"repositories": []})
        data.rename(tmp_path / "elsewhere")
        for there in (False, True):
            if there:
                data.symlink_to("/proc")
            for method, path in (
                ("GET", "/v2/_catalog"),
                ("GET", "/v2/a/manifests/b"),
                ("POST", "/v2/a/blobs/uploads/"),
            ):
                away = await http.request(method, path)
                assert error_of(away) == (503, "UNAVAILABLE")
                assert away.headers["retry-after"]
        data.unlink()
        (tmp_path / "elsewhere").rename(data)
        assert error_of(await http.get("/v2/a/manifests/b")) == (404, "MANIFEST_UNKNOWN")


async def test_a_read_only_registry_without_images_is_not_ready(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, as the writer's first push may come yet."""
    monkeypatch.setattr(checks, "_PRESENCE", 0.0)
    storage = StorageConfig(
        driver="filesystem",
        parameters={"rootdirectory": str(tmp_path)},
        maintenance=MaintenanceConfig(readonly=ReadOnlyConfig(enabled=True)),
    )
    health = HealthConfig(storagedriver=StorageCheckConfig(enabled=True))
    async with client(create_app(replace(config, storage=storage, health=health))) as http:
        response = await http.get("/readyz")
        said = "this read-only registry's storage holds no images: is its volume mounted?"
        assert (response.status_code, response.json()["checks"]["storage"]) == (503, said)
        assert error_of(await http.get("/v2/a/manifests/b")) == (404, "MANIFEST_UNKNOWN")
        pushed = tmp_path / layout.REPOSITORIES / "a" / "link"
        pushed.parent.mkdir(parents=True)
        pushed.touch()
        assert (await http.get("/readyz")).json() == READY
        pushed.unlink()
        assert (await http.get("/readyz")).json() == READY  # deleted: it has had some


async def answered(http: httpx.AsyncClient, status: int, path: str = "/v2/") -> httpx.Response:
    """The first answer of that status."""
    for _ in range(10_000):
        response = await http.get(path)
        if response.status_code == status:
            return response
        await asyncio.sleep(0.001)  # httpx alone never lets the loop turn
    raise AssertionError("it never came")


async def test_clients_are_turned_away_while_a_check_fails(config: Config, tmp_path: Path) -> None:
    checks = HealthConfig(file=(FileCheckConfig(file=str(tmp_path / "down"), interval=0.001),))
    async with client(create_app(replace(config, health=checks))) as http:
        assert (await http.get("/v2/")).status_code == 200
        (tmp_path / "down").touch()
        refused = await answered(http, 503)
        assert error_of(refused) == (503, "UNAVAILABLE")
        assert refused.json()["errors"][0]["detail"] == "health check failed: please see /debug/health"
        assert refused.headers["retry-after"] == "5"
        assert refused.headers["docker-distribution-api-version"] == "registry/2.0"
        assert (await http.get("/livez")).status_code == 200
        checked = (await http.get("/readyz")).json()["checks"]
        assert checked == {"serving": "ok", "storage": "ok", "health.file.0": "fails"}
        (tmp_path / "down").unlink()
        await answered(http, 200)


@pytest.mark.parametrize(
    ("key", "read_only", "status"), [(layout.SECRET, True, 200), (layout.SECRET, False, 503), (layout.BLOBS, True, 503)]
)
async def test_what_it_has_to_read(tmp_path: Path, key: str, read_only: bool, status: int) -> None:
    """The secret is the writer's, whose user a replica need not be. It is a loop here, as root may read all else."""
    pushed = tmp_path / layout.REPOSITORIES / "a" / "link"
    pushed.parent.mkdir(parents=True)
    pushed.touch()
    loop = tmp_path / key
    loop.parent.mkdir(exist_ok=True)
    loop.symlink_to(loop.name)
    maintenance = MaintenanceConfig(readonly=ReadOnlyConfig(enabled=read_only))
    storage = StorageConfig(parameters={"rootdirectory": str(tmp_path)}, maintenance=maintenance)
    async with client(create_app(Config(storage=storage))) as http:
        assert (await http.get("/readyz")).status_code == status

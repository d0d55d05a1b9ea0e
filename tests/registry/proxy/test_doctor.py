"""`registry doctor` beside a registry that caches an upstream: what it drops, the next pull fetches."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import cli
from registry.app import create_app
from registry.config import load
from registry.serving.lifespan import lifespan
from storage import layout
from storage.digest import Digest
from storage.names import parse_name, parse_tag
from tests.api import IMAGE, INDEX, image, index

from .scripted import Scripted

CONFIG, LAYER = b"{}", b"the layer of an image " * 100
LOCAL = {"upstreams": "hub/team/app", "proxy": "team/app"}


def descriptor(body: bytes) -> dict[str, Any]:
    return {"mediaType": IMAGE, "digest": str(Digest.of(body)), "size": len(body)}


@pytest.fixture(params=["upstreams", "proxy"])
def setup(request: pytest.FixtureRequest, hub: Scripted, tmp_path: Path) -> tuple[str, Path, str]:
    """A configuration, its folder, and the name of the repository in it."""
    (tmp_path / "data").mkdir()
    cache = f"upstreams: [{{name: hub, url: '{hub.url}'}}]"
    if request.param == "proxy":
        cache = f"proxy: {{remoteurl: '{hub.url}', ttl: 0s}}"
    config = tmp_path / "config.yml"
    storage = f"{{filesystem: {{rootdirectory: {tmp_path}/data}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\nstorage: {storage}\n{cache}\n")
    return str(config), tmp_path / "data", LOCAL[request.param]


async def doctor(config: str, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, dict[str, Any]]:
    status = await asyncio.to_thread(cli.main, ["doctor", "--json", *options, config])
    return status, json.loads(capsys.readouterr().out)


@pytest.mark.slow
async def test_what_the_doctor_drops_the_next_pull_fetches(
    setup: tuple[str, Path, str], hub: Scripted, capsys: pytest.CaptureFixture[str]
) -> None:
    config, data, name = setup
    pulled, other = image(CONFIG, (LAYER,)), image(CONFIG, (b"other",))
    body = index(descriptor(pulled), descriptor(other))
    for blob in (CONFIG, LAYER):
        hub.blob("team/app", blob)
    hub.image("team/app", "v1", body)
    hub.image("team/app", "amd64", pulled)
    app = create_app(load(Path(config), {}).config)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://registry/v2/{name}/") as http,
    ):

        async def pull() -> None:
            accept = {"Accept": f"{INDEX}, {IMAGE}"}
            assert (await http.get("manifests/v1", headers=accept)).content == body
            assert (await http.get(f"manifests/{Digest.of(pulled)}", headers=accept)).content == pulled
            assert (await http.get(f"blobs/{Digest.of(LAYER)}")).content == LAYER

        await pull()
        status, found = await doctor(config, capsys, "--deep")
        assert (status, found["findings"], found["manifests"]) == (0, [], 2)

        (data / layout.blob_data(Digest.of(pulled))).write_bytes(pulled.replace(b"{", b"[", 1))
        (data / layout.blob_data(Digest.of(LAYER))).write_bytes(LAYER.upper())
        (data / layout.tag_link(parse_name(name), parse_tag("v1"))).write_bytes(b"")
        status, found = await doctor(config, capsys, "--deep", "--fix")
        assert (status, found["clean"]) == (0, True)
        assert {each["kind"] for each in found["findings"]} == {"damaged blob", "damaged manifest", "damaged tag"}
        await pull()
        assert (await doctor(config, capsys, "--deep"))[1]["findings"] == []

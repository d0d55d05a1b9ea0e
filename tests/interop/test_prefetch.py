"""`registry prefetch` and `registry upstreams`, with a real registry as the upstream, which wants a login by tokens."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import cli
from tests.api import INDEX, index
from tests.ports import free_port
from tests.registry.proxy.scripted import scripted

from .content import ACCEPT, Content
from .corpora import noise
from .peers import OURS, Lab, Program, started, write_config
from .test_upstreams import PASSWORD, USER, Signer, token_peer

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def platform(entry: dict[str, Any], architecture: str) -> dict[str, Any]:
    return {**entry, "platform": {"os": "linux", "architecture": architecture}}


async def typed(*words: str) -> int:
    return await asyncio.to_thread(cli.main, list(words))


def all_pulled(http: httpx.Client, content: Content, wanted: set[str]) -> None:
    """The image of that digest, with all its blobs."""
    for digest in wanted:
        _, body = content.of("a/b").manifests[digest]
        assert http.get(f"/v2/peer/a/b/manifests/{digest}", headers=ACCEPT).content == body
        manifest = json.loads(body)
        for blob in (manifest["config"], *manifest["layers"]):
            assert http.get(f"/v2/peer/a/b/blobs/{blob['digest']}").content == content.of("a/b").blobs[blob["digest"]]


async def test_beside_a_running_registry(
    lab: Lab, peer: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is fetched is there for the registry that runs on the same folder, also when the upstream is down."""
    content, signer, port = Content(), Signer(lab.folder), free_port()
    async with scripted() as tokens:
        login = {"username": USER, "password": PASSWORD, "realms": [f"127.0.0.1:{tokens.port}"]}
        with token_peer(lab, peer, signer, tokens) as upstream:
            amd = content.image(upstream, "a/b", noise("amd", 3_000_000), tag="amd")
            arm = content.image(upstream, "a/b", noise("arm", 3_000_000), tag="arm")
            content.manifest(upstream, "a/b", index(platform(amd, "amd64"), platform(arm, "arm64")), INDEX, tag="v1")
            upstreams = [{"url": str(upstream.base_url).rstrip("/"), "name": "peer", **login}]
            http = {"addr": f"127.0.0.1:{port}", "debug": {"addr": f"127.0.0.1:{free_port()}"}}
            config = write_config(tmp_path, tmp_path / "cache", port, upstreams=upstreams, http=http)
            with (
                started(OURS, config, port, lab.folder / "moorage.log"),
                httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as client,
            ):
                assert await typed("prefetch", "--platform", "linux/amd64", str(config), "peer/a/b:v1") == 0
                said = capsys.readouterr().out
                assert said.startswith("1 image cached: 2 manifests, 2 blobs (3.0 MB); fetched 2 blobs")
                assert client.get("/v2/peer/a/b/manifests/v1", headers=ACCEPT).status_code == 200
                all_pulled(client, content, {amd["digest"]})
                assert await typed("upstreams", str(config)) == 0
                told = capsys.readouterr().out
                assert told.splitlines()[1].endswith("100% of 4")
                assert USER in told
                assert PASSWORD not in told
        assert await typed("upstreams", str(config)) == 1
        assert "peer: the upstream registry cannot be reached: " in capsys.readouterr().out
        with lab.serving(OURS, tmp_path / "cache", upstreams=upstreams) as client:
            all_pulled(client, content, {amd["digest"]})
            assert client.get(f"/v2/peer/a/b/manifests/{arm['digest']}", headers=ACCEPT).status_code == 502

"""`registry prefetch`, as a user types it, beside a scripted upstream."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from registry import cli
from storage.digest import Digest
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST

from . import scripted as act
from .scripted import Scripted

CONFIG = "application/vnd.oci.image.config.v1+json"
AMD, ARM = "linux/amd64", "linux/arm64"
LAYER = bytes(range(256)) * 800

Run = Callable[..., Awaitable[int]]


def image(hub: Scripted, name: str, platform: str = AMD, *layers: bytes) -> Digest:
    os, architecture = platform.split("/")
    config = json.dumps({"os": os, "architecture": architecture}).encode()
    body = {
        "schemaVersion": 2,
        "mediaType": IMAGE_MANIFEST,
        "config": {"mediaType": CONFIG, "digest": str(hub.blob(name, config)), "size": len(config)},
        "layers": [{"mediaType": "x", "digest": str(hub.blob(name, layer)), "size": len(layer)} for layer in layers],
    }
    return hub.image(name, "v1", json.dumps(body).encode())


def index(hub: Scripted, name: str, tag: str = "v1") -> dict[str, Digest]:
    images = {AMD: image(hub, name, AMD, LAYER, b"amd"), ARM: image(hub, name, ARM, LAYER, b"arm")}
    entries = [
        {
            "mediaType": IMAGE_MANIFEST,
            "digest": str(digest),
            "size": 1,
            "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
        }
        for platform, digest in images.items()
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": entries}).encode()
    return {**images, "index": hub.image(name, tag, body)}


def settings(tmp_path: Path, *upstreams: dict[str, Any], **more: Any) -> str:
    storage = {"filesystem": {"rootdirectory": str(tmp_path / "data")}}
    path = tmp_path / "config.yml"
    path.write_text(
        json.dumps({"version": 0.1, "log": {"level": "error"}, "storage": storage, "upstreams": upstreams, **more})
    )
    return str(path)


@pytest.fixture
def prefetch(hub: Scripted, tmp_path: Path) -> Run:
    """As typed, for an upstream named hub."""

    async def run(*words: str, **upstream: Any) -> int:
        config = settings(tmp_path, {"url": hub.url, "name": "hub.lan", **upstream})
        return await asyncio.to_thread(cli.main, ["prefetch", *words[:-1], config, *words[-1:]])

    return run


async def test_once_and_then_nothing(hub: Scripted, prefetch: Run, capsys: pytest.CaptureFixture[str]) -> None:
    index(hub, "team/app")
    assert await prefetch("hub.lan/team/app:v1") == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 image cached: 3 manifests, 5 blobs (205 kB); fetched 5 blobs (206 kB) in ")
    assert err == ""
    assert hub.count("GET", "/v2/team/app/blobs/") == 5
    hub.requests.clear()
    assert await prefetch("hub.lan/team/app:v1") == 0
    assert [(seen.method, seen.target) for seen in hub.requests] == [("HEAD", "/v2/team/app/manifests/v1")]
    assert "fetched 0 blobs (0 B)" in capsys.readouterr().out


async def test_a_tag_that_moved_and_its_time(hub: Scripted, prefetch: Run) -> None:
    """`ttl` is for clients; who prefetches wants what is there now."""
    image(hub, "team/app", AMD, b"old")
    assert await prefetch("hub.lan/team/app:v1", ttl="24h") == 0
    image(hub, "team/app", AMD, b"new")
    assert await prefetch("hub.lan/team/app:v1", ttl="24h") == 0
    assert hub.count("GET", f"/v2/team/app/blobs/{Digest.of(b'new')}") == 1


@pytest.mark.parametrize("by", ["option", "setting"])
async def test_only_the_chosen_platforms(hub: Scripted, prefetch: Run, by: str) -> None:
    images = index(hub, "team/app")
    if by == "option":
        assert await prefetch("--platform", ARM, "hub.lan/team/app:v1") == 0
    else:
        assert await prefetch("hub.lan/team/app:v1", platforms=[ARM]) == 0
    assert hub.count("GET", f"/v2/team/app/manifests/{images[ARM]}") == 1
    assert hub.count("GET", f"/v2/team/app/manifests/{images[AMD]}") == 0
    assert hub.count("GET", f"/v2/team/app/blobs/{Digest.of(b'amd')}") == 0


async def test_a_platform_that_is_not_there(hub: Scripted, prefetch: Run, capsys: pytest.CaptureFixture[str]) -> None:
    index(hub, "team/app")
    assert await prefetch("--platform", "linux/s390x", "hub.lan/team/app:v1") == 1
    out, err = capsys.readouterr()
    assert err == "registry: prefetch: hub.lan/team/app:v1: it has no image for linux/s390x\n"
    assert out.startswith("0 images cached: 0 manifests, 0 blobs (0 B); fetched 0 blobs")
    assert out.endswith("; 1 image failed\n")


async def test_platforms_that_exclude_each_other(
    hub: Scripted, prefetch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    index(hub, "team/app")
    assert await prefetch("--platform", ARM, "hub.lan/team/app:v1", platforms=[AMD]) == 1
    assert "setting: platforms" in capsys.readouterr().err


async def test_one_fails_and_the_others_do_not(
    hub: Scripted, prefetch: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image(hub, "good", AMD, b"good")
    image(hub, "bad", AMD, b"bad")
    hub.on("GET", f"/v2/bad/blobs/{Digest.of(b'bad')}", act.body(b"bat"))
    names = tmp_path / "images.txt"
    names.write_text("# a comment\n\nhub.lan/good:v1\nhub.lan/bad:v1\nhub.lan/missing:v1\nelsewhere.lan/x\n")
    assert await prefetch("--file", str(names), "hub.lan/good:v1") == 1
    out, err = capsys.readouterr()
    assert out.startswith("1 image cached: 1 manifest, 2 blobs")
    assert out.endswith("; 3 images failed\n")
    assert [line.split(": ")[2] for line in err.splitlines() if line.startswith("registry: ")] == [
        "hub.lan/bad:v1",
        "hub.lan/missing:v1",
        "elsewhere.lan/x",
    ]
    assert "no upstream is called elsewhere.lan; there are hub.lan" in err


async def test_what_cannot_be_compared_has_failed(
    hub: Scripted, prefetch: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    image(hub, "team/app")
    assert await prefetch("-q", "hub.lan/team/app:v1") == 0
    hub.on("*", "/", act.error(429, "TOOMANYREQUESTS"))
    assert await prefetch("-q", "hub.lan/team/app:v1") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "served from the cache: the upstream registry's rate limit is reached; it is 0" in err


async def test_many_blobs_at_once(hub: Scripted, prefetch: Run) -> None:
    """As many as were asked for, and no more."""
    image(hub, "team/app", AMD, *(b"%d" % number for number in range(9)))
    running = most = 0
    go = asyncio.Event()

    async def gated(exchange: act.Exchange) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        if running == 3:
            go.set()
        await go.wait()
        await asyncio.sleep(0)
        running -= 1
        await act.serve(exchange)

    hub.on("GET", "/v2/team/app/blobs/", gated)
    assert await prefetch("--parallel", "3", "hub.lan/team/app:v1") == 0
    assert most == 3


@pytest.mark.parametrize(
    ("written", "setting"),
    [
        ("team/app:v1", {"default": True}),
        ("hub.lan/team/app:v1", {}),
        ("other/team/app:v1", {"name": "other"}),
        ("127.0.0.1:{port}/team/app:v1", {"name": "other"}),
    ],
)
async def test_names_as_clients_write_them(hub: Scripted, prefetch: Run, written: str, setting: dict[str, Any]) -> None:
    image(hub, "team/app")
    assert await prefetch(written.format(port=hub.port), **setting) == 0
    assert hub.count("GET", "/v2/team/app/manifests/v1") == 1


async def test_the_mirror_of_one(hub: Scripted, tmp_path: Path) -> None:
    image(hub, "team/app")
    config = settings(tmp_path, proxy={"remoteurl": hub.url})
    assert await asyncio.to_thread(cli.main, ["prefetch", config, "team/app:v1"]) == 0
    assert (tmp_path / "data/docker/registry/v2/repositories/team/app/_manifests/tags/v1").is_dir()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["Alpine"], "'Alpine' is not the name of an image"),
        ([], "name at least one image"),
        (["--file", "/nowhere/images.txt"], "cannot read /nowhere/images.txt"),
    ],
)
def test_what_cannot_begin(words: list[str], problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = settings(tmp_path, {"url": "http://127.0.0.1:1", "name": "hub.lan"})
    assert cli.main(["prefetch", config, *words]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize(
    ("upstreams", "storage", "problem"),
    [
        ([], "filesystem", "there is nothing to fetch from"),
        ([{"url": "http://127.0.0.1:1"}], "inmemory", "the inmemory storage lives inside the serving process"),
    ],
)
def test_where_there_is_nothing_to_do(
    upstreams: list[Any], storage: str, problem: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parameters = {"rootdirectory": str(tmp_path)} if storage == "filesystem" else {}
    config = settings(tmp_path, *upstreams, storage={storage: parameters})
    assert cli.main(["prefetch", config, "alpine"]) == 2
    assert problem in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--platform", "amd64"], ["--parallel", "0"], ["--parallel", "1000"]])
def test_arguments_that_are_wrong(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["prefetch", *words, "config.yml", "alpine"])
    assert "expected a" in capsys.readouterr().err


def test_names_from_stdin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", StringIO("# nothing but a comment\n"))
    config = settings(tmp_path, {"url": "http://127.0.0.1:1", "name": "hub.lan"})
    assert cli.main(["prefetch", "--file", "-", config]) == 2
    assert "name at least one image" in capsys.readouterr().err

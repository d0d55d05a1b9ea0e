"""`registry upstreams`, as a user types it, and what a running registry tells it."""

import asyncio
import json
import socket
import ssl
from collections.abc import Callable
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme

from registry import cli
from registry.app import create_app
from registry.commands.upstreams import Row, document, table
from registry.config import Config
from registry.config.model import StorageConfig
from registry.config.upstreams import UpstreamConfig
from registry.proxy.limits import RateLimit
from registry.proxy.probe import Probed
from registry.proxy.report import join, report
from registry.proxy.tally import Tally
from registry.proxy.upstream import Upstream
from registry.serving.lifespan import lifespan
from storage.names import Tag

from . import scripted as act
from .conftest import Ask
from .scripted import Scripted, scripted
from .test_prefetch import image, settings

CANARY = "canary: a Pa55word"
NOW = datetime(2026, 11, 23, tzinfo=UTC)


async def asked(config: str, *words: str) -> int:
    return await asyncio.to_thread(cli.main, ["upstreams", *words, config])


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


# What it finds


async def test_one_that_answers(hub: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"})) == 0
    title, row, blank, note = capsys.readouterr().out.splitlines()
    assert cells(title) == ["UPSTREAM", "ANSWERS", "LOGIN", "PULLS LEFT", "CERTIFICATE", "CACHE HITS"]
    name, answers, *rest = cells(row)
    assert (name, rest, blank) == ("hub.lan", ["-"] * 4, "")
    assert answers.endswith(" ms")
    assert note == "cache hits are known by the registry that runs: set http.debug.addr"
    assert {seen.path for seen in hub.requests} == {"/v2/"}


async def test_tls_and_a_login(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_after=datetime.now(UTC) + timedelta(days=3, hours=1)).configure_cert(context)
    async with scripted(context, login="bearer", users={"carol": CANARY}, anonymous=False) as hub:
        login = {"username": "carol", "password": CANARY, "tls": {"ca": str(tmp_path / "ca.pem")}}
        config = settings(tmp_path, {"url": hub.url, "name": "hub.lan", **login})
        assert await asked(config) == 0
        out = capsys.readouterr().out
        assert cells(out.splitlines()[1])[2] == "carol"
        assert f"until {datetime.now(UTC) + timedelta(days=3, hours=1):%Y-%m-%d}" in out
        assert "hub.lan: its certificate ends in 3 days" in out
        assert hub.issued == 1
        hub.users["carol"] = "another"
        assert await asked(config, "--json") == 1
        (found,) = json.loads(capsys.readouterr().out)["upstreams"]
        assert found["usable"] is False
        assert found["username"] == "carol"
        assert "does not take the credentials" in found["fault"]
        untrusted = settings(tmp_path, {"url": hub.url, "name": "hub.lan"})
        assert await asked(untrusted) == 1
        assert "certificate verify failed" in capsys.readouterr().out
        unchecked = settings(tmp_path, {"url": hub.url, "name": "hub.lan", "tls": {"skipverify": True}})
        assert await asked(unchecked) == 0
        assert "until" not in capsys.readouterr().out


async def test_no_secret_is_told(hub: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub.login, hub.users = "basic", {"carol": "right"}
    upstream = {"url": hub.url, "name": "hub.lan", "username": "carol", "password": CANARY}
    for words in ([], ["--json"]):
        assert await asked(settings(tmp_path, upstream), *words) == 1
        out, err = capsys.readouterr()
        assert CANARY not in out + err


async def test_one_that_is_down(hub: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The others are told all the same."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        down = f"http://127.0.0.1:{taken.getsockname()[1]}"
        config = settings(tmp_path, {"url": hub.url, "name": "hub.lan"}, {"url": down, "name": "down.lan"})
        assert await asked(config) == 1
    out = capsys.readouterr().out
    assert cells(out.splitlines()[1])[1].endswith(" ms")
    assert cells(out.splitlines()[2])[:2] == ["down.lan", "no"]
    assert "down.lan: the upstream registry cannot be reached: " in out
    hub.on("*", "/v2/", act.status(500))
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"})) == 1
    assert "hub.lan: the upstream registry answered with status 500" in capsys.readouterr().out


async def test_nobody_may_ask_for_v2_and_for_images(
    hub: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.on("GET", "/v2/", act.error(401, "UNAUTHORIZED"))
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"})) == 0
    assert "ms" in capsys.readouterr().out


@pytest.mark.parametrize("mirror", [False, True])
async def test_pulls_left_without_spending_one(
    hub: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str], mirror: bool
) -> None:
    """By a HEAD of what is cached already."""
    image(hub, "team/app")
    hub.rate = {"RateLimit_Limit": "100;w=21600", "RateLimit_Remaining": "76;w=21600"}
    upstream = {"url": hub.url, "name": "hub.lan"}
    config = settings(tmp_path, proxy={"remoteurl": hub.url}) if mirror else settings(tmp_path, upstream)
    name = "team/app:v1" if mirror else "hub.lan/team/app:v1"
    assert await asyncio.to_thread(cli.main, ["prefetch", "-q", config, name]) == 0
    hub.requests.clear()
    assert await asked(config) == 0
    assert "76 of 100 in 6 h 0 min" in capsys.readouterr().out
    assert [seen.target for seen in hub.requests if seen.path != "/v2/"] == ["/v2/team/app/manifests/v1"]
    assert {seen.method for seen in hub.requests if seen.path != "/v2/"} == {"HEAD"}


async def test_what_the_running_registry_tells(
    hub: Scripted, other: Scripted, connect: Callable[..., Upstream], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upstream = connect(hub, name="hub.lan")
    upstream.tally.manifest_hits, upstream.tally.blob_misses = 9, 3
    other.on("GET", "/debug/upstreams", act.status(200, report([upstream])))
    http = {"debug": {"addr": f"127.0.0.1:{other.port}"}}
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"}, http=http)) == 0
    out = capsys.readouterr().out
    assert cells(out.splitlines()[1])[-1] == "75% of 12"
    assert len(out.splitlines()) == 2
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"}, http=http), "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["upstreams"]
    assert found["hitrate"] == 0.75
    assert found["counts"]["manifest_hits"] == 9


@pytest.mark.parametrize("answer", [act.status(404), act.status(200, b"[]"), act.reset(), act.html(200)])
async def test_no_registry_runs(
    hub: Scripted, other: Scripted, tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: act.Act
) -> None:
    other.on("GET", "/debug/", answer)
    http = {"debug": {"addr": f"127.0.0.1:{other.port}"}}
    assert await asked(settings(tmp_path, {"url": hub.url, "name": "hub.lan"}, http=http)) == 0
    assert f"no registry tells them at http.debug.addr (127.0.0.1:{other.port})" in capsys.readouterr().out


def test_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["upstreams", settings(tmp_path)]) == 2
    assert "there are none" in capsys.readouterr().err


# How it is written


def row(probed: Probed, running: dict[str, Any] | None = None) -> Row:
    return Row(UpstreamConfig(url="https://ghcr.io"), probed, running)


def test_the_table() -> None:
    probed = Probed(latency=0.0831, expires=NOW + timedelta(days=40), username="carol", rate_limit=RateLimit(None, 7))
    title, line, _, note = table([row(probed)], ":5001", NOW).splitlines()
    assert line == "ghcr.io   83 ms    carol  7 in 6 h 0 min  until 2027-01-02  -"
    assert title == "UPSTREAM  ANSWERS  LOGIN  PULLS LEFT      CERTIFICATE       CACHE HITS"
    assert note.endswith("(:5001)")


def test_what_the_registry_was_told_counts_where_we_were_not() -> None:
    told = {"ratelimit": {"limit": 100, "remaining": 5, "window": 60, "source": ""}, "counts": {}}
    assert "5 of 100 in 1 min 0 s" in table([row(Probed(), told)], "", NOW)
    assert json.loads(document([row(Probed(fault="why"))]))["upstreams"][0]["fault"] == "why"


# What a registry tells


async def test_the_debug_page(hub: Scripted) -> None:
    storage = StorageConfig(driver="inmemory", parameters={})
    app = create_app(
        Config(storage=storage, upstreams=(UpstreamConfig(url=hub.url, name="hub.lan", password="", ttl=1.0),))
    )
    async with lifespan(app):
        found = json.loads((await app.debug.answer("/debug/upstreams")).body)
    assert [each["name"] for each in found["upstreams"]] == ["hub.lan"]
    plain = create_app(Config(storage=storage))
    with pytest.raises(KeyError):
        await plain.debug.answer("/debug/upstreams")


async def test_the_sum_of_workers(hub: Scripted, ask: Ask) -> None:
    hub.image("a/b", "latest")
    first, second = ask(hub), ask(hub)
    assert join([report([r._upstream]) for r in (first, second)]) == report([first._upstream])
    hub.rate = {"RateLimit_Limit": "100", "RateLimit_Remaining": "8"}
    await first.get_manifest(Tag("latest"))
    hub.rate = {"RateLimit_Limit": "100", "RateLimit_Remaining": "7"}
    await second.get_manifest(Tag("latest"))
    (found,) = json.loads(join([report([r._upstream]) for r in (first, second)]))["upstreams"]
    assert found["reachable"] is True
    assert found["held"] is None
    assert found["ratelimit"]["remaining"] == 7
    assert found["counts"]["requests"] == 2
    assert found["counts"]["fetched_bytes"] == 2 * len(act.EMPTY)
    assert set(found["counts"]) == {each.name for each in fields(Tally)}

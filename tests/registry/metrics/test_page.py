"""The page of a registry that serves: what happened is on it, from whichever worker."""

import asyncio
import os
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from registry.app import create_app
from registry.application import Application
from registry.config import Config, ConfigError, StorageConfig
from registry.config.model import DebugConfig, HTTPConfig, PrometheusConfig
from registry.config.upstreams import UpstreamConfig
from registry.metrics import catalogue
from registry.serving.server import running
from tests.s3.servers import S3Server
from tests.waiting import wait_until

from .serving import BLOB, LAYER, MANIFEST, ask, pull, push, workers
from .tools import Samples, parse, total, value


def measured(storage: StorageConfig, **settings: Any) -> Config:
    """Of the debug address only its being there counts here: `running` serves none."""
    debug = DebugConfig(addr="127.0.0.1:0", prometheus=PrometheusConfig(enabled=True))
    return Config(storage=storage, http=HTTPConfig(debug=debug), **settings)


def folder(path: Path) -> StorageConfig:
    return StorageConfig(driver="filesystem", parameters={"rootdirectory": str(path)})


def page_of(app: Application) -> Samples:
    answer = asyncio.run(app.debug.answer("/metrics"))
    assert answer.media_type.startswith("text/plain; version=0.0.4")
    return parse(answer.body.decode())


until = partial(wait_until, patience=30.0)
"""What ends behind an answer, such as its connection, shows a moment later."""


@pytest.mark.slow
def test_a_push_and_pulls(tmp_path: Path) -> None:
    app = create_app(measured(folder(tmp_path)))
    with running(app) as server:
        push(server.url)
        pull(server.url)
        assert ask(server.url, "GET", "/v2/a/b/blobs/uploads")[0] == 405
        assert ask(server.url, "GET", "/nowhere")[0] == 404
        until(lambda: value(page_of(app), "registry_http_connections") == 0)
        found = page_of(app)
    requests = "registry_http_requests_total"
    assert value(found, requests, handler="blob_upload", code="202", method="post") == 1
    assert value(found, requests, handler="blob_upload_chunk", code="201", method="put") == 1
    assert value(found, requests, handler="manifest", code="200", method="get") == 1
    assert value(found, requests, handler="blob", code="200", method="get") == 1
    assert total(found, requests, handler="unknown", code="404") == 1
    # past the loop, both ways: by an inlet, and by sendfile
    assert value(found, "registry_http_request_size_bytes_sum", handler="blob_upload_chunk") == len(BLOB)
    assert value(found, "registry_http_response_size_bytes_sum", handler="blob") == len(BLOB)
    sent, received = (value(found, f"registry_http_{way}_bytes_total") or 0 for way in ("sent", "received"))
    assert len(BLOB) < sent < len(BLOB) + 10_000
    assert len(BLOB) < received < len(BLOB) + 10_000
    assert value(found, "registry_http_connections_accepted_total") == 7
    assert total(found, "registry_storage_actions_total", driver="filesystem", outcome="ok") > 5
    assert total(found, "registry_storage_actions_total", outcome="failed") == 0
    assert value(found, "registry_workers") == 1
    assert total(found, "registry_build_info") == 1
    assert value(found, "process_open_fds", worker="0")
    assert (value(found, "process_resident_memory_bytes", worker="0") or 0) > 1e6


@pytest.mark.slow
def test_a_cache(tmp_path: Path) -> None:
    with running(create_app(Config(storage=folder(tmp_path / "upstream")))) as origin:
        push(origin.url, "library/app")
        upstream = UpstreamConfig(url=origin.url, name="hub.test")
        app = create_app(measured(folder(tmp_path / "cache"), upstreams=(upstream,)))
        with running(app) as server:
            pull(server.url, "hub.test/library/app")
            until(lambda: total(page_of(app), "registry_proxy_fills_total", outcome="kept") == 1)
            pull(server.url, "hub.test/library/app")
            found = page_of(app)
    name = upstream.called
    for kind in ("manifest", "blob"):
        counts = [
            value(found, f"registry_proxy_{each}_total", type=kind, upstream=name)
            for each in ("requests", "hits", "misses")
        ]
        assert counts == [2, 1, 1]
    assert value(found, "registry_proxy_fills_total", upstream=name, outcome="kept") == 1
    for kind, body in (("manifest", MANIFEST), ("blob", BLOB)):
        assert value(found, "registry_proxy_pulled_bytes_total", type=kind, upstream=name) == len(body)
        assert value(found, "registry_proxy_pushed_bytes_total", type=kind, upstream=name) == 2 * len(body)
    assert value(found, "registry_upstream_reachable", upstream=name) == 1
    assert value(found, "registry_upstream_left_alone", upstream=name) == 0


@pytest.mark.slow
def test_requests_to_s3(moto: S3Server) -> None:
    storage = StorageConfig(driver="s3", parameters=moto.parameters(moto.new_bucket()))
    config = measured(storage)
    app = create_app(replace(config, http=replace(config.http, secret="the same everywhere")))
    with running(app) as server:
        push(server.url)
        pull_of_redirects = ask(server.url, "GET", f"/v2/a/b/blobs/{LAYER}")[0]
        assert ask(server.url, "GET", "/v2/a/b/manifests/none")[0] == 404
        found = page_of(app)
    assert pull_of_redirects == 307
    assert total(found, "registry_storage_calls_total", driver="s3aws", call="PutObject", code="200") >= 1
    assert total(found, "registry_storage_calls_total", driver="s3aws", code="404") >= 1
    assert total(found, "registry_storage_call_seconds_count", driver="s3aws") == total(
        found, "registry_storage_calls_total", driver="s3aws"
    )
    assert value(found, "registry_http_requests_total", handler="blob", code="307", method="get") == 1


def test_without_a_reader_nothing_is_counted() -> None:
    memory = StorageConfig(driver="inmemory", parameters={})
    config = measured(memory)
    for debug in (
        replace(config.http.debug, addr=""),
        replace(config.http.debug, prometheus=PrometheusConfig(enabled=False)),
    ):
        app = create_app(replace(config, http=replace(config.http, debug=debug)))
        with pytest.raises(KeyError):
            asyncio.run(app.debug.answer("/metrics"))


def test_the_extra_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("registry.metrics.", "prometheus_client"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"moorage\[metrics\]"):
        create_app(measured(StorageConfig(driver="inmemory", parameters={})))


def scraped(debug: str) -> Samples:
    status, headers, body = ask(debug, "GET", "/metrics")
    assert status == 200
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(body.decode())


def pids(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
def test_numbers_of_several_workers_add_up_and_survive_them(tmp_path: Path) -> None:
    asked = 0

    def ask_some(url: str) -> None:
        nonlocal asked
        for _ in range(40):  # a connection each, so that every worker gets some
            assert ask(url, "GET", "/v2/")[0] == 200
            asked += 1

    def count() -> float | None:
        return value(scraped(debug), "registry_http_requests_total", handler="base", code="200", method="get")

    with workers(3, tmp_path) as (url, debug, parent):
        ask_some(url)
        found = scraped(debug)
        assert count() == asked
        assert value(found, "registry_workers") == 3
        assert value(found, "registry_http_connections_limit") == 12000
        seen = {dict(labels)["worker"] for name, labels in found if name == "process_resident_memory_bytes"}
        assert seen == {"0", "1", "2"}
        before = pids(parent.pid)
        os.kill(before[-1], signal.SIGKILL)
        until(lambda: pids(parent.pid) != before and len(pids(parent.pid)) == 3)
        assert count() == asked
        ask_some(url)
        assert count() == asked


@pytest.mark.slow
def test_every_family_is_exported_by_somebody(tmp_path: Path) -> None:
    """What the catalogue promises and no registry exports would be a hole in a dashboard."""
    with running(create_app(Config(storage=folder(tmp_path / "upstream")))) as origin:
        push(origin.url, "library/app")
        config = measured(folder(tmp_path / "cache"), upstreams=(UpstreamConfig(url=origin.url, name="hub.test"),))
        prometheus = replace(config.http.debug.prometheus, repositories=10)
        config = replace(config, http=replace(config.http, debug=replace(config.http.debug, prometheus=prometheus)))
        app = create_app(config)
        with running(app) as server:
            push(server.url)
            pull(server.url, "hub.test/library/app")
            found = page_of(app)
    names = {name.removesuffix("_total").removesuffix("_bucket") for name, _ in found}
    budgets = {catalogue.BUDGET_LIMIT.name, catalogue.BUDGET_REMAINING.name}  # of upstreams that tell theirs
    calls = {catalogue.CALL.name, catalogue.CALLS.name}  # of S3
    assert set(catalogue.FAMILIES) - names == budgets | calls

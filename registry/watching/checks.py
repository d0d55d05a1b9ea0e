"""The checks of `health.*`, as distribution has them: its names, its words, its thresholds."""

import asyncio
import os
from collections.abc import Awaitable, Callable

from registry.config import Config
from registry.config.model import FileCheckConfig, HealthConfig, HTTPCheckConfig, TCPCheckConfig
from registry.serving.listeners import split_address
from registry.watching.health import Check, Health, Unwell
from storage import layout
from storage.driver import StorageDriver

_DEFAULT = FileCheckConfig().interval
_TIMEOUT = TCPCheckConfig().timeout

_PRESENCE = 1.0
"""Seconds for which a store that was there is believed to be there."""


def health_of(config: Config, reach: Callable[[], Awaitable[None]], store: StorageDriver) -> Health:
    """reach: asks the storage something; raises StorageError."""
    checks, driver = config.health, config.storage.driver
    storage = Check(
        "health.storagedriver",
        f"storagedriver_{driver}",
        reach,
        interval=checks.storagedriver.interval or _DEFAULT,
        threshold=checks.storagedriver.threshold,
    )
    presence = images = None
    is_cache = bool(config.proxy.remoteurl or config.upstreams)  # which goes on without its store
    if driver == "filesystem" and not is_cache:
        name = "storage.filesystem.rootdirectory"
        presence = Check(name, name, store.check_present, interval=_PRESENCE, threshold=1)
        if config.storage.maintenance.readonly.enabled:
            images = Check(name, name, holds_images(store), interval=_PRESENCE, threshold=1)
    gating = checks.storagedriver.enabled
    return Health(storage, _polled(checks), gating=gating, presence=presence, images=images)


def holds_images(store: StorageDriver) -> Callable[[], Awaitable[None]]:
    """Of a registry that nobody can push to: without a single image it has the wrong folder, or no volume yet."""
    seen = False

    async def ask() -> None:
        nonlocal seen
        seen = seen or bool(await store.list_folders(layout.REPOSITORIES, limit=1))
        if not seen:
            raise Unwell("this read-only registry's storage holds no images: is its volume mounted?")

    return ask


def _polled(checks: HealthConfig) -> list[Check]:
    """Those with a list in the configuration."""
    asked: list[tuple[str, str, Callable[[], Awaitable[None]], FileCheckConfig | HTTPCheckConfig | TCPCheckConfig]] = [
        *((f"health.file.{n}", each.file, file_is_absent(each), each) for n, each in enumerate(checks.file)),
        *((f"health.http.{n}", each.uri, page_answers(each), each) for n, each in enumerate(checks.http)),
        *((f"health.tcp.{n}", each.addr, port_accepts(each), each) for n, each in enumerate(checks.tcp)),
    ]
    return [
        Check(setting, name, ask, interval=each.interval or _DEFAULT, threshold=each.threshold)
        for setting, name, ask, each in asked
    ]


def file_is_absent(config: FileCheckConfig) -> Callable[[], Awaitable[None]]:
    path = os.path.abspath(config.file)

    async def ask() -> None:
        try:
            await asyncio.to_thread(os.stat, path)
        except FileNotFoundError:
            return
        except OSError as exc:
            raise Unwell(str(exc)) from exc
        raise Unwell("file exists")

    return ask


def page_answers(config: HTTPCheckConfig) -> Callable[[], Awaitable[None]]:
    import http.client  # here, as few registries have such a check, and all want to start quickly
    import urllib.error
    import urllib.request

    request = urllib.request.Request(config.uri, method="HEAD")  # noqa: S310 - values.http_url: it is http or https
    for name, given in config.headers.items():
        request.add_header(name, ", ".join(given))

    def status() -> int:
        try:
            with urllib.request.urlopen(request, timeout=config.timeout or _TIMEOUT) as response:  # noqa: S310 - as above
                return int(response.status)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code

    async def ask() -> None:
        try:
            found = await asyncio.to_thread(status)
        except (OSError, http.client.HTTPException) as exc:
            raise Unwell(f"{config.uri}: error while checking: {exc}") from exc
        if found != (config.statuscode or 200):
            raise Unwell(f"{config.uri}: downstream service returned unexpected status: {found}")

    return ask


def port_accepts(config: TCPCheckConfig) -> Callable[[], Awaitable[None]]:
    host, port = split_address(config.addr)

    async def ask() -> None:
        try:
            async with asyncio.timeout(config.timeout or _TIMEOUT):
                _, writer = await asyncio.open_connection(host or "localhost", port)
        except OSError as exc:
            raise Unwell(f"{config.addr}: connection failed: {str(exc) or 'it took too long'}") from exc
        writer.close()

    return ask

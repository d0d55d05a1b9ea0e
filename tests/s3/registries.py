"""Registries on an S3 server: in this process, with retries that do not keep a test waiting."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx

from registry.app import create_app
from registry.config import Config
from registry.config.model import (
    DeleteConfig,
    HTTPConfig,
    MaintenanceConfig,
    ReadOnlyConfig,
    RedirectConfig,
    StorageConfig,
)
from registry.serving.lifespan import lifespan
from storage import drivers
from storage.drivers.s3.calls import Retries
from storage.drivers.s3.driver import S3Driver
from storage.drivers.s3.rest import RestBucket
from storage.drivers.s3.settings import S3Settings
from tests.api import Api

QUICK = Retries(total=3, base=0.001, cap=0.002)
SECRET = "the same for all replicas"


@contextmanager
def quick_retries() -> Iterator[None]:
    """The s3 driver repeats its calls at once."""

    def make(parameters: Any) -> S3Driver:
        settings = S3Settings.parse(parameters)
        return S3Driver(settings, RestBucket(settings, retries=QUICK))

    usual, drivers._BUILT_IN["s3"] = drivers._BUILT_IN["s3"], make
    try:
        yield
    finally:
        drivers._BUILT_IN["s3"] = usual


def config_of(
    parameters: dict[str, Any], *, read_only: bool = False, deletes: bool = True, redirects: bool = False
) -> Config:
    storage = StorageConfig(
        driver="s3",
        parameters=parameters,
        delete=DeleteConfig(enabled=deletes),
        maintenance=MaintenanceConfig(readonly=ReadOnlyConfig(enabled=read_only)),
        redirect=RedirectConfig(disable=not redirects),
    )
    return Config(http=HTTPConfig(secret=SECRET), storage=storage)


@asynccontextmanager
async def serving(config: Config) -> AsyncIterator[Api]:
    """A registry that knows what is in the bucket, and nothing else."""
    app = create_app(config)
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as http,
    ):
        yield Api(http)

"""From the configuration to a store: the driver and the rules for manifests. For the server and for every command.

Imports no web framework, so that `registry garbage-collect` starts quickly.
"""

from collections.abc import Sequence

from registry.config import Config, ConfigError
from storage import layout
from storage.driver import StorageDriver
from storage.drivers import create
from storage.manifest import Platform
from storage.rules import AnyOf, ManifestRules


def open_driver(config: Config) -> StorageDriver:
    """Whoever asked closes it. Raises ConfigError."""
    parameters = dict(config.storage.parameters)
    if config.storage.driver == "filesystem":
        parameters["scratch"] = layout.SCRATCH
    try:
        return create(config.storage.driver, parameters)
    except ValueError as exc:
        raise ConfigError(f"storage.{config.storage.driver}", str(exc)) from exc


def manifest_rules(config: Config) -> ManifestRules:
    """Raises ConfigError for patterns that cannot be compiled."""
    manifests = config.validation.manifests
    listed = tuple(Platform(os=p.os, architecture=p.architecture) for p in manifests.indexes.platformlist)
    return ManifestRules(
        sparse=manifests.sparse,
        platforms={"all": None, "none": (), "list": listed}[manifests.indexes.platforms],
        allow=_url_patterns(manifests.urls.allow),
        deny=_url_patterns(manifests.urls.deny),
    )


def _url_patterns(patterns: Sequence[str]) -> AnyOf | None:
    """Compiled by RE2, as in distribution: Python's own take time without end for some URL and a harmless pattern."""
    if not patterns:
        return None
    try:
        import re2
    except ImportError as exc:
        how = "needs the package google-re2: pip install 'moorage[urls]'"
        raise ConfigError("validation.manifests.urls", how) from exc
    options = re2.Options()
    options.log_errors = False  # on stderr, past the log
    try:
        return AnyOf(tuple(re2.compile(pattern, options) for pattern in patterns))
    except re2.error as exc:
        raise ConfigError("validation.manifests.urls", f"a pattern is no regular expression of RE2: {exc}") from exc

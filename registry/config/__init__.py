"""The settings: frozen dataclasses, one loader, all checks of them.

load(path, environ) -> Loaded
    tree.py     YAML with a line number at every node
    environ.py  REGISTRY_* variables over it
    legacy.py   old names
    build.py    tree -> Config, by model.py (the settings), values.py (their types), status.py (keys without a field)
    rules.py    what must hold between settings
"""

from .errors import ConfigError
from .load import Loaded, load
from .model import (
    Config,
    HtpasswdConfig,
    HTTPConfig,
    LimitsConfig,
    LogConfig,
    ManifestRulesConfig,
    StorageConfig,
    TLSConfig,
    ValidationConfig,
)

__all__ = [
    "Config",
    "ConfigError",
    "HTTPConfig",
    "HtpasswdConfig",
    "LimitsConfig",
    "Loaded",
    "LogConfig",
    "ManifestRulesConfig",
    "StorageConfig",
    "TLSConfig",
    "ValidationConfig",
    "load",
]

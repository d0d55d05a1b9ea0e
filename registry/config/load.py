"""load(): file, variables, rules, in this order."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from . import legacy, rules
from .build import Builder
from .environ import CONFIGURATION_PATH, overlay
from .errors import ConfigError
from .model import Config
from .tree import Scalar, Table, read_file

VERSION = "0.1"  # of the file's format, as distribution counts


@dataclass(frozen=True, slots=True)
class Loaded:
    """origins: for each setting, dotted: "default", "config.yml:7" or the variable's name. source: what was read."""

    config: Config
    origins: Mapping[str, str]
    warnings: tuple[str, ...]
    source: str

    def origin(self, path: str) -> str:
        """Of a setting, or of the first below a level that somebody has set; "" for a default."""
        below = [path, *(each for each in self.origins if each.startswith(f"{path}."))]
        return next((found for each in below if (found := self.origins.get(each, "default")) != "default"), "")


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """path: None means REGISTRY_CONFIGURATION_PATH, or else the defaults; variables count in every case.

    Reads no other file, checks none that the settings name (see files.py). Raises ConfigError.
    """
    if path is None and environ.get(CONFIGURATION_PATH):
        path = Path(environ[CONFIGURATION_PATH])
    root, warnings = (Table(), []) if path is None else read_file(path)
    if path is not None:
        _check_version(root, path)
    builder = Builder()
    builder.warnings += warnings
    overlay(root, environ, builder.unknown)
    builder.warnings += legacy.rewrite(root)
    config, more = rules.apply(builder.config(root), builder.origins)
    return Loaded(
        config=config,
        origins=MappingProxyType(builder.origins),
        warnings=(*builder.warnings, *more),
        source="built-in defaults" if path is None else str(path),
    )


def _check_version(root: Table, path: Path) -> None:
    found = root.entries.pop("version", None)
    if not isinstance(found, Scalar) or found.text != VERSION:
        said = f"found {found.text[:20]!r}" if isinstance(found, Scalar) else "found nothing"
        raise ConfigError(
            "version",
            f"expected `version: {VERSION}` at the top of the file, {said}",
            found.origin if found else str(path),
        )

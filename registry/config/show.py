"""The settings as text, for `registry check-config`: what holds, and where each came from. No secret is in it."""

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass

from . import values
from .load import Loaded
from .model import DRIVERS, AuthConfig, StorageConfig
from .secrets import show


def lines(loaded: Loaded) -> list[str]:
    """One aligned line per setting: path, value, origin."""
    rows = [(path, show(path, value), _origin(path, loaded.origins)) for path, value in settings(loaded.config)]
    wide = [min(max(len(row[column]) for row in rows), 60) for column in (0, 1)]
    return [f"{path:<{wide[0]}}  {value:<{wide[1]}}  {origin}" for path, value, origin in rows]


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """A setting that came with its level (`storage: inmemory`) has the level's origin."""
    while path:
        if path in origins:
            return origins[path]
        path = path.rpartition(".")[0]
    return "default"


def settings(level: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(dotted path as in the file, value) of every setting below a dataclass of model.py."""
    for field in fields(level):  # type: ignore[arg-type]
        path, value = prefix + field.name, getattr(level, field.name)
        if isinstance(level, StorageConfig) and field.name in ("driver", "parameters"):
            if field.name == "driver":
                yield from _parameters(f"{prefix}{level.driver}", level.parameters)
        elif isinstance(level, AuthConfig) and value is None:
            yield prefix.rstrip("."), None
        elif is_dataclass(value):
            yield from settings(value, f"{path}.")
        elif isinstance(value, tuple) and value and is_dataclass(value[0]):
            for number, item in enumerate(value):
                yield from settings(item, f"{path}.{number}.")
        elif isinstance(value, Mapping):
            yield from _parameters(path, value)
        else:
            yield path, values.go_duration(value) if isinstance(value, float) else value


def _parameters(path: str, parameters: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    if not parameters:
        yield path, {}
    for key, value in parameters.items():
        ours = path.rpartition(".")[2] in DRIVERS  # a third party's number may mean anything
        yield f"{path}.{key}", values.go_duration(value) if ours and isinstance(value, float) else value

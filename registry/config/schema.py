"""What model.py says about each level: which keys there are, and what stands below each.

`storage` and `auth` are read as the file writes them: the driver's or method's name is itself a key.
"""

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass

from . import model, values


@dataclass(frozen=True, slots=True)
class Entry:
    """One field: its annotation, and how a value is read (None for a level of its own)."""

    name: str
    hint: object
    reader: Callable[..., object] | None


def entries_of(level: type) -> dict[str, Entry]:
    hints = typing.get_type_hints(level)
    found = {}
    for field in fields(level):
        hint = _without_none(hints[field.name])
        found[field.name] = Entry(field.name, hint, field.metadata.get("reader") or _reader(hint))
    if level is model.StorageConfig:
        del found["driver"], found["parameters"]
    return found


def _without_none(hint: object) -> object:
    if isinstance(hint, types.UnionType):
        (hint,) = (each for each in typing.get_args(hint) if each is not type(None))
    return hint


def _reader(hint: object) -> Callable[..., object] | None:
    if is_dataclass(hint) or (element_of(hint) is not None and is_dataclass(element_of(hint))):
        return None
    readers: dict[object, Callable[..., object]] = {
        bool: values.boolean,
        int: values.integer,
        str: values.text,
        float: values.duration,
        tuple[str, ...]: values.strings,
        Mapping[str, object]: values.free_map,
        Mapping[str, tuple[str, ...]]: values.header_map,
    }
    return readers[hint]


def is_list(hint: object) -> bool:
    return typing.get_origin(hint) is tuple


def element_of(hint: object) -> object | None:
    """What stands in a list or map: of tuple[X, ...] and Mapping[str, X] the X."""
    match typing.get_origin(hint), typing.get_args(hint):
        case (origin, (element, _)) if origin is tuple:
            return typing.cast("object", element)
        case (_, (_, element)):
            return typing.cast("object", element)
    return None


def below(level: type, key: str) -> object | None:
    """The annotation under a key of a level; `object` where anything may stand; None if there is no such key."""
    if key in entries_of(level):
        return entries_of(level)[key].hint
    if level is model.StorageConfig:
        return model.DRIVERS.get(key, object)
    return object if level is model.AuthConfig else None


def known_paths() -> list[str]:
    """Every level and setting, dotted, as in the file."""
    found: list[str] = []

    def visit(level: type, prefix: str) -> None:
        for name, entry in entries_of(level).items():
            found.append(prefix + name)
            if isinstance(entry.hint, type) and is_dataclass(entry.hint):
                visit(entry.hint, f"{prefix}{name}.")

    visit(model.Config, "")
    for driver, parameters in model.DRIVERS.items():
        found.append(f"storage.{driver}")
        visit(parameters, f"storage.{driver}.")
    return found

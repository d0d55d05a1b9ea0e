"""The tree becomes a Config. What has no field is looked up in status.py: ignored, refused, or unknown."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import is_dataclass, replace
from importlib import metadata
from types import MappingProxyType
from typing import TypeVar, cast

from . import model, schema, status
from .environ import PREFIX, named_block
from .errors import ConfigError
from .secrets import MASK, is_secret
from .tree import Items, Node, Scalar, Table, is_empty, plain
from .values import Wrong, duration, is_bare_number, positive_duration

DRIVER_GROUP = "moorage.drivers"

_PLACEHOLDER = re.compile(r"\$\{\w+\}")
_KEY_AND_COLON = re.compile(r"(\w+)(?:\s*:\S|\s+:)")


T = TypeVar("T")


class Builder:
    """One pass over one tree. Afterwards `origins` knows each setting's source, and `warnings` what was odd."""

    def __init__(self) -> None:
        self.origins: dict[str, str] = {}
        self.warnings: list[str] = []
        self._warned: set[str] = set()

    def config(self, root: Table) -> model.Config:
        return self.level(model.Config, root, "")

    def level(self, kind: type[T], node: Node | None, path: str) -> T:
        """One dataclass. Fields that the tree lacks, or leaves empty, keep their defaults."""
        known = schema.entries_of(kind)
        table = self.table(node, path, known)
        for key, value in table.entries.items():
            if key not in known:
                _refuse_colon(path, key, known, value.origin)
                self.foreign(_join(path, key.partition(":")[0]), value)  # behind it may be a secret
        found = {name: self.field(entry, table, _join(path, name)) for name, entry in known.items()}
        return kind(**{name: value for name, value in found.items() if value is not _DEFAULT})

    def table(self, node: Node | None, path: str, known: Iterable[str]) -> Table:
        if node is None or (isinstance(node, Scalar) and is_empty(node)):
            return Table()
        if not isinstance(node, Table):
            if isinstance(node, Scalar):
                _refuse_colon(path, node.text, known, node.origin)
            problem = f"expected a map such as {{{_an_example(known)}: ...}}, found {shown(path, node)}"
            raise ConfigError(path, problem + _instead(path, node, known), node.origin)
        return node

    def field(self, entry: schema.Entry, table: Table, path: str) -> object:
        node = table.entries.get(entry.name)
        if entry.hint is model.StorageConfig:
            return self.storage(node, path)
        if entry.hint is model.AuthConfig:
            return self.auth(node, path)
        if is_dataclass(entry.hint):
            return self.level(cast("type[object]", entry.hint), node, path)
        if node is None or (isinstance(node, Scalar) and is_empty(node)):
            self.origins[path] = "default"
            return _DEFAULT
        self.origins[path] = node.origin
        self.warn_of_placeholders(node, path)
        if entry.reader is None:
            return self.levels(cast("type[object]", schema.element_of(entry.hint)), node, path)
        if isinstance(node, Table):
            self.origins |= {_join(path, key): value.origin for key, value in node.entries.items()}
        if entry.reader in (duration, positive_duration) and is_bare_number(node) and cast("Scalar", node).text != "0":
            number = cast("Scalar", node).text
            self.warnings.append(f"{path}: {number} means nanoseconds; for seconds write {number}s ({node.origin})")
        return read(entry.reader, node, path)

    def warn_of_placeholders(self, node: Node, path: str) -> None:
        if (
            isinstance(node, Scalar)
            and not node.origin.startswith(PREFIX)
            and (found := _PLACEHOLDER.search(node.text))
        ):
            variable = _variable(path)
            what = "${...}" if is_secret(path) else found[0]  # which may be part of a password
            self.warnings.append(
                f"{path}: nothing fills in {what}; to have it from the environment set {variable} ({node.origin})"
            )

    def levels(self, kind: type[object], node: Node, path: str) -> tuple[object, ...]:
        if not isinstance(node, Items):
            raise ConfigError(path, f"expected a list of maps, found {shown(path, node)}", node.origin)
        return tuple(self.level(kind, item, f"{path}.{number}") for number, item in enumerate(node.items))

    def storage(self, node: Node | None, path: str) -> model.StorageConfig:
        settings = schema.entries_of(model.StorageConfig).keys()
        table = self.table(None if node is None else named_block(node), path, [*model.DRIVERS, *settings])
        drivers = {}
        for key, value in table.entries.items():
            row = status.find_row(_join(path, key))
            if key not in settings and not (row and row.status is status.Status.IGNORED):
                drivers[key] = value
        if len(drivers) > 1:
            for key, value in drivers.items():
                self.refuse_unknown_driver(key, value, _join(path, key))
            origins = ", ".join(f"{key} from {value.origin}" for key, value in drivers.items())
            hint = f"keep one, or choose with {PREFIX}STORAGE=NAME, which replaces all that the file says of storage"
            raise ConfigError(path, f"expected one driver, found {len(drivers)}: {origins}; {hint}")
        name, parameters = next(iter(drivers.items()), ("filesystem", None))
        rest = Table({key: value for key, value in table.entries.items() if key not in drivers}, table.origin)
        built = self.level(model.StorageConfig, rest, path)
        return replace(built, driver=name, parameters=self.parameters(name, parameters, _join(path, name)))

    def parameters(self, driver: str, node: Node | None, path: str) -> Mapping[str, object]:
        if driver in model.DRIVERS:
            kind = model.DRIVERS[driver]
            built: object = self.level(kind, node, path)
            return MappingProxyType({name: getattr(built, name) for name in schema.entries_of(kind)})
        self.refuse_unknown_driver(driver, node or Table(), path)
        table = self.table(node, path, ())
        self.origins |= {path: table.origin} | {_join(path, key): each.origin for key, each in table.entries.items()}
        return MappingProxyType(cast("dict[str, object]", plain(table)))

    def refuse_unknown_driver(self, driver: str, node: Node, path: str) -> None:
        if driver in model.DRIVERS:
            return
        self.refuse_not_built(path, node)
        if driver not in {point.name for point in metadata.entry_points(group=DRIVER_GROUP)}:
            here = [*schema.entries_of(model.StorageConfig), *model.DRIVERS, *_keys_of_rows(path.rpartition(".")[0])]
            close = difflib.get_close_matches(driver, here, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            problem = f"is neither a setting of storage nor a driver that is installed{hint}"
            raise ConfigError(path, problem, node.origin)

    def auth(self, node: Node | None, path: str) -> model.AuthConfig:
        table = self.table(None if node is None else named_block(node), path, schema.entries_of(model.AuthConfig))
        if len(table.entries) > 1:
            found = ", ".join(table.entries)
            raise ConfigError(path, f"expected one method, found {len(table.entries)}: {found}; keep one", table.origin)
        self.origins[path] = table.origin or "default"
        if "htpasswd" in table.entries:
            return model.AuthConfig(
                htpasswd=self.level(model.HtpasswdConfig, table.entries["htpasswd"], _join(path, "htpasswd"))
            )
        for key, value in table.entries.items():
            if key.lower() != "none":  # distribution's own way to say that everyone may do everything
                self.refuse_not_built(_join(path, key), value)
                self.foreign(_join(path, key), value)
        return model.AuthConfig()

    def refuse_not_built(self, path: str, node: Node) -> None:
        """For keys that choose something by being there, even without a value."""
        if (row := status.find_row(path)) and row.status is status.Status.STOPS:
            raise ConfigError(path, row.why, node.origin)

    def foreign(self, path: str, node: Node) -> None:
        """A key without a field: by its row, or unknown. A level that has rows below it is looked at key by key."""
        row = status.find_row(path)
        if isinstance(node, Table) and status.is_above_row(path):
            for key, value in node.entries.items():
                self.foreign(_join(path, key), value)
        elif row is None:
            self.unknown(path, node.origin)
        elif not is_empty(node):
            if row.status is status.Status.STOPS:
                raise ConfigError(path, row.why, _first_origin(node))
            if row.key not in self._warned:
                self._warned.add(row.key)
                self.warnings.append(f"{row.key} has no effect: {row.why} ({_first_origin(node)})")

    def unknown(self, path: str, origin: str) -> None:
        """origin: a file's line, or the variable whose name leads nowhere."""
        near = nearest(path)
        is_variable = origin.startswith(PREFIX)
        said = _variable(near) if near and is_variable else near
        hint = f"; did you mean {said}?" if near else ""
        if status.is_protected(path):
            known = ", ".join(_siblings(path))
            raise ConfigError(
                path, f"is not a setting, and may be meant to protect{hint or f'; there are: {known}'}", origin
            )
        if near and status.must_hold(near) and _is_meant(path, near, in_file=not is_variable):
            raise ConfigError(path, f"is not a setting, and may be meant to choose what is served{hint}", origin)
        self.warnings.append(f"{path} is not a setting, and has no effect{hint} ({origin})")


class _Default:
    """Stands for "keep the field's default"."""


_DEFAULT = _Default()


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _variable(path: str) -> str:
    return PREFIX + path.upper().replace(".", "_")


def _is_meant(path: str, near: str, *, in_file: bool) -> bool:
    """Is the near key more than one of a like name elsewhere? `x-...` holds anchors; other software has variables."""
    if "." not in path:
        return in_file and not path.startswith("x-")
    return near.startswith(f"{path.partition('.')[0]}.")


def _known() -> list[str]:
    return [*schema.known_paths(), *(row.key for row in status.ROWS)]


def _siblings(path: str) -> list[str]:
    level = path.rpartition(".")[0]
    return [each for each in _known() if each.rpartition(".")[0] == level]


def _an_example(known: Iterable[str]) -> str:
    return next(iter(known), "key")


def _instead(path: str, node: Node, known: Iterable[str]) -> str:
    """`readonly: true` means `readonly: {enabled: true}`."""
    if not (isinstance(node, Scalar) and isinstance(node.value, bool) and "enabled" in known):
        return ""
    if node.origin.startswith(PREFIX):
        return f"; write {_variable(path)}_ENABLED={node.text}"
    return f"; write {{enabled: {node.text}}}"


def _refuse_colon(path: str, text: str, known: Iterable[str], origin: str) -> None:
    """`key:value` and `key :value` are one text to YAML. The value is not shown, as it may be a secret."""
    found = _KEY_AND_COLON.match(text)
    if found and found[1] in known:
        raise ConfigError(path, f"write `{found[1]}: ...`, with a space behind the colon and none before it", origin)


def _keys_of_rows(level: str) -> list[str]:
    """The keys right below a level that the table of status.py knows."""
    return [
        row.key.removeprefix(f"{level}.").partition(".")[0] for row in status.ROWS if row.key.startswith(f"{level}.")
    ]


def _first_origin(node: Node) -> str:
    """A table that variables made says less than the value in it."""
    while isinstance(node, Table) and node.entries:
        node = next(iter(node.entries.values()))
    return node.origin


def read(reader: Callable[..., object], node: Node, path: str) -> object:
    try:
        return reader(node)
    except Wrong as exc:
        blamed = exc.node or node
        raise ConfigError(path, f"expected {exc.expected}, found {shown(path, blamed)}", blamed.origin) from None


def shown(path: str, node: Node) -> str:
    match node:
        case Table():
            return "a map"
        case Items():
            return "a list"
    if is_secret(path):
        return MASK
    return repr(node.text[:60] + ("..." if len(node.text) > 60 else ""))


def nearest(path: str) -> str | None:
    """The known key that was probably meant: a sibling first, then one of such a name elsewhere."""
    key = path.rpartition(".")[2]
    for candidates in (_siblings(path), _known()):
        names = {each.rpartition(".")[2]: each for each in reversed(candidates)}
        if close := difflib.get_close_matches(key, names, n=1, cutoff=0.7):
            return names[close[0]]
    return None

"""REGISTRY_* variables, laid over the tree of the file by distribution's rules (configuration/parser.go).

1. The rest of a name, split at "_", is the path: REGISTRY_HTTP_TLS_KEY is http.tls.key.
2. Variables apply in the lexical order of their names. So REGISTRY_STORAGE=s3 first replaces the whole map,
   then REGISTRY_STORAGE_S3_BUCKET fills it.
3. A value is YAML. Where it is a map, it replaces the whole map that was there.
4. A number is a list's index, at most one past its end.
5. In a map, a key is found without regard to case, and made in lower case.
6. Missing levels are made. (distribution panics over some: REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED.)
7. What names no setting is reported, never fatal here: other software sets REGISTRY_* as well.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass

from . import model, schema, status
from .errors import ConfigError
from .tree import STR, Items, Node, Scalar, Table, read_text

PREFIX = "REGISTRY_"
CONFIGURATION_PATH = "REGISTRY_CONFIGURATION_PATH"
NOT_SETTINGS = (
    CONFIGURATION_PATH,
    "REGISTRY_VERSION",  # belongs to the file
    "REGISTRY_AUTH_FILE",  # podman, skopeo and buildah find their own passwords by it
)

# Kubernetes announces a service called "registry" (or "registry-auth") to every container in such variables.
_SERVICE_NAME = re.compile(r"(^|_)(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$")
_SERVICE_VALUE = re.compile(r"(tcp|udp|sctp)://")


class _NoSuchSetting(Exception):
    """path: up to and with the first level that is not known."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def overlay(root: Table, environ: Mapping[str, str], report: Callable[[str, str], None]) -> None:
    """Change the tree in place. report(path, variable) hears of what names no setting. Raises ConfigError."""
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in NOT_SETTINGS or _is_of_kubernetes(name, environ[name]):
            continue
        segments = name.removeprefix(PREFIX).lower().split("_")
        try:
            if "" in segments:
                raise _NoSuchSetting("_".join(segments))
            _Variable(name, environ[name]).put(root, model.Config, segments, "")
        except _NoSuchSetting as exc:
            report(exc.path, name)


def _is_of_kubernetes(name: str, value: str) -> bool:
    rest = name.removeprefix(PREFIX)
    return bool(_SERVICE_NAME.search(rest)) or (rest.endswith("PORT") and bool(_SERVICE_VALUE.match(value)))


class _Variable:
    """One variable on its way down the tree."""

    def __init__(self, name: str, payload: str) -> None:
        self.name, self.payload = name, payload

    def put(self, node: Node | None, hint: object, segments: list[str], path: str) -> Node:
        """Returns what stands at `path` afterwards; a node that is there is changed, not copied."""
        if not segments:
            return self.value(hint, path)
        row = status.find_row(path)
        if isinstance(node, Items) or (schema.is_list(hint) and not isinstance(node, Table)):
            return self.put_into_list(node, hint, segments, path, free=row is not None)
        if hint is not object and not is_dataclass(hint) and schema.element_of(hint) is None:
            raise _NoSuchSetting(_join(path, segments[0]))
        return self.put_into_table(node, hint, segments, path, free=row is not None)

    def put_into_table(self, node: Node | None, hint: object, segments: list[str], path: str, *, free: bool) -> Node:
        head, rest = segments[0], segments[1:]
        file_name = status.GO_NAMES.get(re.sub(r"\.\d+\b", ".*", _join(path, head)), head)
        if not file_name and rest:
            return self.put(node, hint, rest, path)
        head = file_name or head
        below = self.hint_below(hint, head, path)
        table = self.as_table(_block(node, hint), path, free=free)
        key = next((key for key in table.entries if key.lower() == head), head)
        table.entries[key] = self.put(table.entries.get(key), below, rest, _join(path, head))
        if not is_dataclass(hint):
            table.origin = _also(table.origin, self.name)
        return table

    def hint_below(self, hint: object, key: str, path: str) -> object:
        if isinstance(hint, type) and is_dataclass(hint):
            found = schema.below(hint, key)
            if found is None and (status.find_row(_join(path, key)) or status.is_above_row(_join(path, key))):
                found = object
            if found is None:
                raise _NoSuchSetting(_join(path, key))
            return found
        return schema.element_of(hint) or object

    def as_table(self, node: Node | None, path: str, *, free: bool) -> Table:
        match node:
            case Table():
                return node
            case Scalar() if not node.is_null and not free:
                raise ConfigError(
                    path, f"holds a single value ({node.origin}), so nothing can be set below it", self.name
                )
        return Table(origin=self.name)

    def put_into_list(self, node: Node | None, hint: object, segments: list[str], path: str, *, free: bool) -> Node:
        found = node if isinstance(node, Items) else Items([], "")
        index = int(segments[0]) if re.fullmatch(r"[0-9]{1,6}", segments[0]) else None
        if index is None or index > len(found.items):
            if free:
                return Items([self.value(object, path)], self.name)  # below a row nobody reads it
            problem = f"the next index of this list is {len(found.items)}, found {segments[0]!r}"
            raise ConfigError(path, problem, self.name)
        item = self.put(
            found.items[index] if index < len(found.items) else None,
            schema.element_of(hint) or object,
            segments[1:],
            f"{path}.{index}",
        )
        found.items[index : index + 1] = [item]
        found.origin = _also(found.origin, self.name)
        return found

    def value(self, hint: object, path: str) -> Node:
        try:
            node, _ = read_text(self.payload, self.name)
        except ConfigError as exc:
            if hint is str:  # "[::1]:5000", or a secret that starts with "@": distribution wants quotes, we need none
                return Scalar(self.payload, STR, self.name, self.payload)
            example = '["..."]' if schema.is_list(hint) else '"..."'
            advice = f"in a variable quotes are part of the value: {example}"
            raise ConfigError(path, f"{exc.problem}; {advice}", self.name) from None
        return node


def _block(node: Node | None, hint: object) -> Node | None:
    return named_block(node) if node and hint in (model.StorageConfig, model.AuthConfig) else node


def named_block(node: Node) -> Node:
    """`storage: inmemory` is short for `storage: {inmemory: {}}`; the same holds for auth."""
    if isinstance(node, Scalar) and not node.is_null and node.text:
        return Table({node.text: Table(origin=node.origin)}, node.origin)
    return node


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _also(origin: str, name: str) -> str:
    return f"{origin}, {name}" if origin and name not in origin else origin or name

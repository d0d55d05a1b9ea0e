"""YAML text as a tree whose every node knows where it came from.

Scalars keep their text besides their value, because a string setting takes the text: the secret `0123` is four
characters, the region `no` is not False. (Go's YAML does the same, and so do replicas that share a secret with it.)
Only the first document of a file counts, and of a key that is given twice, the last.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from .errors import ConfigError

MAX_DEPTH = 64
MAX_NODES = 20_000  # an alias may repeat a tree that holds aliases; a configuration of this size is a mistake

NULL, STR = "tag:yaml.org,2002:null", "tag:yaml.org,2002:str"


@dataclass(slots=True)
class Scalar:
    text: str
    tag: str
    origin: str
    value: object

    @property
    def is_null(self) -> bool:
        return self.tag == NULL


@dataclass(slots=True)
class Items:
    items: "list[Node]"
    origin: str


@dataclass(slots=True)
class Table:
    entries: "dict[str, Node]" = field(default_factory=dict)
    origin: str = ""


Node: TypeAlias = Scalar | Items | Table


def plain(node: Node) -> object:
    """What YAML itself makes of it: dicts, lists, strings, numbers."""
    match node:
        case Table(entries):
            return {key: plain(value) for key, value in entries.items()}
        case Items(items):
            return [plain(item) for item in items]
        case Scalar():
            return node.value


def is_empty(node: Node) -> bool:
    """Says nothing: null, "", a list or map of such, or a block that is switched off by `disabled: true`.

    Compose files set variables to "" for "not used"; a disabled block is kept for later.
    """
    match node:
        case Table(entries):
            switch = entries.get("disabled")
            if isinstance(switch, Scalar) and switch.value is True:
                return True
            return all(is_empty(value) for value in entries.values())
        case Items(items):
            return all(is_empty(item) for item in items)
        case Scalar():
            return node.is_null or node.text == ""


class _Reader:
    """One YAML text to one tree. `lines` tells whether a line number means something to the reader of an error."""

    def __init__(self, text: str, source: str, *, lines: bool) -> None:
        self.source, self.lines = source, lines
        self.loader = yaml.SafeLoader(text)
        self.nodes = 0
        self.warnings: list[str] = []

    def read(self) -> Node:
        try:
            root = self.loader.get_node() if self.loader.check_node() else None
            return Scalar("", NULL, self.source, None) if root is None else self.convert(root, 0)
        finally:
            self.loader.dispose()

    def origin(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.lines else self.source

    def convert(self, node: yaml.Node, depth: int) -> Node:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            raise ConfigError("", "is nested too deeply, or too large, for a configuration", self.origin(node))
        origin = self.origin(node)
        if isinstance(node, yaml.MappingNode):
            return Table(self.entries(node, depth), origin)
        if isinstance(node, yaml.SequenceNode):
            return Items([self.convert(item, depth + 1) for item in node.value], origin)
        assert isinstance(node, yaml.ScalarNode)
        return Scalar(node.value, node.tag, origin, self.value(node))

    def entries(self, node: yaml.MappingNode, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        own = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for twice in {key for key in own if own.count(key) > 1}:
            self.warnings.append(f"{twice}: given more than once in one map; the last one counts ({self.origin(node)})")
        self.loader.flatten_mapping(node)  # "<<: *anchor"
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError("", "a key must be a word, not a list or map", self.origin(key))
            found.pop(key.value, None)
            found[key.value] = self.convert(value, depth + 1)
        return found

    def value(self, node: yaml.ScalarNode) -> object:
        try:
            return self.loader.construct_object(node)
        except (yaml.YAMLError, ValueError):
            return node.value  # an unknown tag, or a date that does not exist: its text


def read_text(text: str, source: str, *, lines: bool = False) -> tuple[Node, list[str]]:
    """Returns the tree and warnings. Raises ConfigError, which never quotes the text: it may be a secret."""
    try:
        reader = _Reader(text, source, lines=lines)
        return reader.read(), reader.warnings
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark and lines else source
        hint = "" if lines else "; put the value into quotes"
        problem = re.sub(r"(alias|anchor|handle) '.*?'", r"\1", exc.problem or "it cannot be read")
        raise ConfigError("", f"is not valid YAML: {problem}{hint}", where) from None
    except yaml.YAMLError:
        raise ConfigError("", "is not valid YAML: it holds a character that YAML does not allow", source) from None


def read_file(path: Path) -> tuple[Table, list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("", "is not a text file in UTF-8", str(path)) from None
    except OSError as exc:
        raise ConfigError("", f"cannot read the configuration: {exc.strerror}", str(path)) from exc
    root, warnings = read_text(text, str(path), lines=True)
    if isinstance(root, Scalar) and root.is_null:
        root = Table(origin=str(path))
    if not isinstance(root, Table):
        raise ConfigError("", "is not a configuration: expected `version: 0.1` and settings below it", str(path))
    return root, warnings

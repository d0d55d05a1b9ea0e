"""YAML text as a tree whose every node knows where it came from.

Scalars keep their text besides their value, because a string setting takes the text: the secret `0123` is four
characters, the region `no` is not False. (Go's YAML does the same, and so do replicas that share a secret with it.)
A text is one document, as nothing would read a second. Of a key that is given twice, the last counts.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import yaml

from .errors import ConfigError
from .explain import explain

MAX_DEPTH = 64
MAX_NODES = 20_000  # an alias may repeat a tree that holds aliases; a configuration of this size is a mistake

_EXPECTED = "`version: 0.1` and the settings, each at the start of its line"

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


class _Loader(yaml.SafeLoader):
    """Takes a tab where Go's parser does: between the tokens of a line, not where its indentation is."""

    def scan_to_next_token(self) -> None:
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()


class _Reader:
    """One YAML text to one tree. `lines` tells whether a line number means something to the reader of an error."""

    def __init__(self, text: str, source: str, *, lines: bool) -> None:
        self.source, self.lines = source, lines
        self.subject = _subject(lines=lines)
        self.loader = _Loader(text)
        self.nodes = 0
        self.warnings: list[str] = []

    def read(self) -> Node:
        try:
            root = self.loader.get_node() if self.loader.check_node() else None
            self.refuse_more()
            return Scalar("", NULL, self.source, None) if root is None else self.convert(root, 0)
        finally:
            self.loader.dispose()

    def refuse_more(self) -> None:
        """A second document may be what protects. One that says nothing may end the text."""
        while self.loader.check_node():
            node = self.loader.get_node()
            assert node is not None
            if not isinstance(node, yaml.ScalarNode) or node.value:
                problem = "has a second document here, which nothing would read: remove the --- before it"
                raise ConfigError("", self.subject + problem, self.origin(node))

    def origin(self, node: yaml.Node) -> str:
        return f"{self.source}:{node.start_mark.line + 1}" if self.lines else self.source

    def convert(self, node: yaml.Node, depth: int) -> Node:
        self.nodes += 1
        if depth > MAX_DEPTH or self.nodes > MAX_NODES:
            problem = f"{self.subject}is nested too deeply, or too large"
            raise ConfigError("", problem, self.origin(node))
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
                problem = "a key must be a word, not a list or map; is a {{ template }} not filled in?"
                raise ConfigError("", problem, self.origin(key))
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
        problem, mark = explain(exc)
        where = f"{source}:{mark.line + 1}:{mark.column + 1}" if mark and lines else source
    except yaml.reader.ReaderError as exc:
        problem = f"the character U+{exc.character:04X} is not allowed"
        line = text.count("\n", 0, exc.position) + 1
        where = f"{source}:{line}" if lines else source
    raise ConfigError("", f"{_subject(lines=lines)}is not valid YAML: {problem}", where)


def _subject(*, lines: bool) -> str:
    """A variable's error begins with the path of its setting."""
    return "the configuration " if lines else ""


def read_file(path: Path) -> tuple[Table, list[str]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError("", "the configuration is not a text file in UTF-8: save it as one", str(path)) from None
    except OSError as exc:
        raise ConfigError("", _unreadable(exc), str(path)) from exc
    root, warnings = read_text(text, str(path), lines=True)
    if isinstance(root, Scalar) and root.is_null:
        raise ConfigError("", f"the configuration is empty: expected {_EXPECTED}", str(path))
    if not isinstance(root, Table):
        raise ConfigError("", f"the configuration is no map of settings: expected {_EXPECTED}", root.origin)
    return root, warnings


def _unreadable(exc: OSError) -> str:
    match exc:
        case FileNotFoundError():
            return "there is no such configuration: check the path, and in a container the volume that it should be in"
        case IsADirectoryError():
            return (
                "the configuration is a folder: name the file in it; docker makes such a folder where the file of"
                " a volume is missing on the host"
            )
        case PermissionError():
            return (
                f"user {os.geteuid()} may not read the configuration: let that user read the file and enter its"
                " folders, or start the registry as the owner"
            )
    return f"cannot read the configuration: {exc.strerror}"

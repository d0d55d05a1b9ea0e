"""How one node of the tree becomes one value. Each reader takes a Node and returns the value, or raises Wrong.

Scalars are read as Go's YAML reads them, because the files are distribution's: a string takes the text as written,
a duration is "1h30m", and a bare number of it means nanoseconds. Where distribution is stricter than it must be
(a quoted "true"), we are not.
"""

import re
from collections.abc import Callable
from types import MappingProxyType
from urllib.parse import urlsplit

from .tree import Items, Node, Scalar, Table, plain

UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_CAPACITY = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(?:([kmgtp])(i)?)?b?", re.IGNORECASE)
_INTEGER = re.compile(r"[-+]?(0x[0-9a-fA-F]+|0o?[0-7]+|[1-9][0-9_]*|0)")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token


class Wrong(Exception):
    """expected: completes the sentence "expected ..."."""

    def __init__(self, expected: str, node: Node | None = None) -> None:
        super().__init__(expected)
        self.expected, self.node = expected, node


def _scalar(node: Node, expected: str) -> Scalar:
    if not isinstance(node, Scalar):
        raise Wrong(expected, node)
    return node


def text(node: Node) -> str:
    found = _scalar(node, "text").text
    if _CONTROL.search(found):
        raise Wrong("text without line breaks and control characters", node)
    return found


def non_empty(node: Node) -> str:
    """An empty text never arrives here: it means "not set" (see build.py)."""
    if not (found := text(node)).strip():
        raise Wrong("text", node)
    return found


def boolean(node: Node) -> bool:
    found = _scalar(node, "true or false")
    match found.text.lower():
        case "true" | "yes" | "on" | "y":
            return True
        case "false" | "no" | "off" | "n":
            return False
    raise Wrong("true or false", node)


def integer(node: Node) -> int:
    found = _scalar(node, "a whole number")
    if not _INTEGER.fullmatch(found.text):
        raise Wrong("a whole number", node)
    digits = found.text.replace("_", "")
    if re.fullmatch(r"[-+]?0[0-7]+", digits):
        return int(digits, 8)
    return int(digits, 0)


def positive(node: Node) -> int:
    if (found := integer(node)) < 1:
        raise Wrong("a whole number, 1 or more", node)
    return found


def size(node: Node) -> int:
    if (found := integer(node)) < 0:
        raise Wrong("a whole number, 0 or more", node)
    return found


def capacity(node: Node) -> int:
    """Bytes, bare or with a unit of 1000 (GB) or of 1024 (GiB); the B may be left out."""
    expected = 'a size such as "500MB", "50GiB" or "2TB"'
    found = _CAPACITY.fullmatch(_scalar(node, expected).text)
    if found is None:
        raise Wrong(expected, node)
    base = 1024 if found[3] else 1000
    return int(float(found[1]) * base ** " kmgtp".index((found[2] or " ").lower()))


def percent(node: Node) -> int:
    if not 0 <= (found := integer(node)) <= 100:
        raise Wrong("a whole number from 0 to 100", node)
    return found


def entries(default: int, *, negative: bool) -> Callable[[Node], int]:
    """A page size of distribution's: 0 means the default; a negative one too (catalog), or is refused (tags)."""

    def read(node: Node) -> int:
        found = integer(node)
        if found < 0 and not negative:
            raise Wrong("a whole number, 0 or more", node)
        return found if found > 0 else default

    return read


def duration(node: Node) -> float:
    """Seconds, from Go's notation (time.ParseDuration). Negative ones make no sense in any setting."""
    expected = 'a duration such as "30s", "10m" or "1h30m"'
    found = _scalar(node, expected).text
    if is_bare_number(node):
        nanoseconds = integer(node)
        if nanoseconds < 0:
            raise Wrong(expected, node)
        return nanoseconds / 1e9
    body = found.removeprefix("+")
    parts = _DURATION.findall(body)
    if not parts or "".join(number + unit for number, unit in parts) != body:
        raise Wrong(expected, node)
    return float(sum(float(number) * UNITS[unit] for number, unit in parts))


def go_duration(seconds: float) -> str:
    """The other way round, as a file would say it."""
    for unit in ("h", "m"):
        if seconds and seconds % UNITS[unit] == 0:
            return f"{seconds / UNITS[unit]:.0f}{unit}"
    return f"{seconds:.9f}".rstrip("0").rstrip(".") + "s"


def positive_duration(node: Node) -> float:
    if not (found := duration(node)) > 0:
        raise Wrong("a duration above 0", node)
    return found


def is_bare_number(node: Node) -> bool:
    return isinstance(node, Scalar) and _INTEGER.fullmatch(node.text) is not None


def one_of(*choices: str) -> Callable[[Node], str]:
    """Case does not count."""
    expected = f"one of {', '.join(choices)}"

    def read(node: Node) -> str:
        found = _scalar(node, expected).text.lower()
        if found not in choices:
            raise Wrong(expected, node)
        return found

    return read


def strings(node: Node) -> tuple[str, ...]:
    if not isinstance(node, Items):
        raise Wrong("a list such as [a, b]", node)
    return tuple(text(item) for item in node.items)


def patterns(node: Node) -> tuple[str, ...]:
    """Regular expressions of RE2, which Go means by them. Without the package, app.py refuses to start."""
    found = strings(node)
    if not found:
        return found
    try:
        import re2
    except ImportError:
        return found
    options = re2.Options()
    options.log_errors = False  # on stderr, past the log
    for number, pattern in enumerate(found):
        try:
            re2.compile(pattern, options)
        except re2.error as exc:
            reason = exc.args[0].decode("utf-8", "replace") if exc.args else "it cannot be read"
            raise Wrong(f"regular expressions as RE2 and Go have them; item {number}: {reason}", node) from None
    return found


def free_map(node: Node) -> MappingProxyType[str, object]:
    if not isinstance(node, Table):
        raise Wrong("a map such as {key: value}", node)
    return MappingProxyType({key: plain(value) for key, value in node.entries.items()})


def header_map(node: Node) -> MappingProxyType[str, tuple[str, ...]]:
    if not isinstance(node, Table):
        raise Wrong("a map of header names to lists, such as {X-Content-Type-Options: [nosniff]}", node)
    for name in node.entries:
        if not _HEADER_NAME.fullmatch(name):
            raise Wrong(f"a header name, not {name!r}", node.entries[name])
    found = {}
    for name, value in node.entries.items():
        try:
            found[name] = strings(value)
        except Wrong as exc:
            raise Wrong(f"a list as the value of {name}, such as [nosniff]", exc.node) from None
    for name, payload in found.items():
        if not all(each.isascii() for each in payload):
            raise Wrong("a header value in ASCII", node.entries[name])
    return MappingProxyType(found)


def base_url(node: Node) -> str:
    found = text(node)
    try:
        parts = urlsplit(found)
        good = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc and not parts.query
        _ = parts.port
    except ValueError:
        good = False
    if not good or "#" in found:
        raise Wrong("a URL such as https://registry.example.com", node)
    return found


def url_prefix(node: Node) -> str:
    """ "/a/b/": with both slashes, whether they were written or not."""
    found = text(node).strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~/-]*", found) or "//" in found:
        raise Wrong("a path such as /my/registry/", node)
    return f"/{found}/" if found else ""


def http_url(node: Node) -> str:
    """Of a page that is asked for; unlike base_url it may have a query. A login goes into the check's headers."""
    found = text(node)
    try:
        parts = urlsplit(found)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
        _ = parts.port
    except ValueError:
        good = False
    if not good or " " in found:
        raise Wrong("a URL such as http://localhost:8080/status", node)
    return found


def debug_path(node: Node) -> str:
    """Of a page at the debug address, beside those that are there."""
    found = text(node)
    taken = found.startswith("/debug/") or found in ("/livez", "/readyz")
    if taken or not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", found):
        raise Wrong("a path such as /metrics that is not taken, as /debug/* is", node)
    return found


def realm(node: Node) -> str:
    """It stands in quotes in WWW-Authenticate."""
    found = text(node)
    if not found or '"' in found or "\\" in found:
        raise Wrong("a name without quotes and backslashes", node)
    return found

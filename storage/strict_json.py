"""JSON as a manifest must be: one meaning for every reader, and bounded work. Pure.

Parsers disagree about sloppy JSON (CVE-2021-41190 was such a disagreement), so what they disagree about is refused:
bytes other than UTF-8 without a mark, duplicate keys, NaN and infinities, numbers too long for a machine, surrogates
without their other half (Python keeps them and cannot encode them; Go replaces them), more than 100 levels (Python 3.11
stops at 1,000, 3.13 at 5,000: replicas would disagree). Floats are read; who wants an integer asks for one.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

from storage.errors import ManifestInvalid

MAX_DEPTH = 100
"""Levels. Real manifests have about 6."""

MAX_CONTAINERS = 100_000
"""Objects and arrays. Each costs a Python call; the smallest descriptors fill 4 MiB with about 35,000."""

MAX_DIGITS = 30
"""Characters of a number. Python raises ValueError at 4,300; no field of ours needs more than 19."""

_MAX_PATH = 200
_NOT_STRUCTURE = bytes(set(range(256)) - set(b'"[]{}'))
_STEPS = bytes.maketrans(b"[]{}", b"\x01\x02\x01\x02")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,40}")


def loads(body: bytes) -> object:
    """The value of a JSON text. Raises ManifestInvalid, which says what is wrong and where."""
    text = _decode(body)
    _check_nesting(body)
    reader = _Reader()
    try:
        value: object = json.loads(
            text,
            object_pairs_hook=reader.object,
            parse_int=reader.integer,
            parse_float=reader.real,
            parse_constant=reader.constant,
        )
    except json.JSONDecodeError as exc:
        raise ManifestInvalid(
            f"not JSON: {exc.msg.removesuffix(' at')} at line {exc.lineno}, column {exc.colno}"
        ) from exc
    if (reader.flawed or _SURROGATE_ESCAPE.search(body)) and (message := _first_flaw(value)):
        raise ManifestInvalid(message)
    return value


class _Flaw:
    """Stands where a value was that we do not take, until its path is known: the parser's hooks are not told it."""

    def __init__(self, what: str) -> None:
        self.what = what


class _Doubled(dict[str, object]):
    """An object in which `key` stands more than once."""

    key = ""


class _Reader:
    """The parser's hooks. `flawed`: something was put aside, and a walk will find out where."""

    flawed = False

    def object(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        value = dict(pairs)
        if len(value) == len(pairs):
            return value
        self.flawed = True
        doubled = _Doubled(value)
        doubled.key = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        return doubled

    def _put_aside(self, what: str) -> _Flaw:
        self.flawed = True
        return _Flaw(what)

    def integer(self, digits: str) -> int | _Flaw:
        if len(digits) > MAX_DIGITS:
            return self._put_aside(f"a number of more than {MAX_DIGITS} digits")
        return int(digits)

    def real(self, digits: str) -> float | _Flaw:
        if len(digits) > MAX_DIGITS:
            return self._put_aside(f"a number of more than {MAX_DIGITS} digits")
        value = float(digits)
        return value if math.isfinite(value) else self._put_aside(f"{digits}, which is too large for a number")

    def constant(self, name: str) -> _Flaw:
        return self._put_aside(f"{name}, which is not JSON")


def _decode(body: bytes) -> str:
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise ManifestInvalid("it starts with a byte order mark: send UTF-8 without one")
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ManifestInvalid(f"not UTF-8 at byte {exc.start}") from exc


def _check_nesting(body: bytes) -> None:
    """Refuse what would make the parser go deep or wide, before it runs.

    Up to its first mistake a text is cut into strings here exactly as the parser cuts it, and there the parser stops.
    """
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return  # also counts those inside strings: nearly every manifest ends here
    # Pairs of backslashes first, so that what is left before a quote escapes it. Then quotes and brackets only. Quotes
    # side by side are dropped, which changes for no bracket whether it is in a string. What is left between the first
    # quote and the second, the third and the fourth, and so on, are the brackets in strings.
    text = body.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_STRUCTURE).replace(b'""', b"")
    brackets = b"".join(text.split(b'"')[::2]).translate(_STEPS, _NOT_BRACKETS)
    if len(brackets) > 2 * MAX_CONTAINERS:
        raise ManifestInvalid(f"it has more than {MAX_CONTAINERS} objects and arrays")
    if max(accumulate((1 if step == 1 else -1 for step in brackets), initial=0)) > MAX_DEPTH:
        raise ManifestInvalid(f"it is nested deeper than {MAX_DEPTH} levels")


def _first_flaw(value: object) -> str | None:
    """What is wrong with the value or the first part of it, after its path."""
    for path, part in _walk(value, ""):
        if what := _flaw(part):
            return f"{path.removeprefix('.') or 'the top level'} {what}"
    return None


def _flaw(value: object) -> str | None:
    if isinstance(value, _Flaw):
        return f"is {value.what}"
    if isinstance(value, _Doubled):
        return f"has the key {_shown(value.key)} twice"
    texts = value if isinstance(value, dict) else (value,) if isinstance(value, str) else ()
    return "has half of a surrogate pair" if any(_SURROGATE.search(text) for text in texts) else None


def _walk(value: object, path: str) -> Iterator[tuple[str, object]]:
    # Recursion as deep as _check_nesting lets values be. Paths are cut, or long keys would be copied at every level.
    path = path[:_MAX_PATH]
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _walk(item, f"{path}.{key}" if _PLAIN_KEY.fullmatch(key) else f"{path}[{_shown(key)}]")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _walk(item, f"{path}[{index}]")


def _shown(key: str) -> str:
    return ascii(key[:60])

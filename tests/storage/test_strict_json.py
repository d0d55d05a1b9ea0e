"""One meaning for every reader, and bounded work (behaviour C2, rows 68 to 75 and 90)."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage.errors import ManifestInvalid
from storage.strict_json import MAX_CONTAINERS, MAX_DEPTH, MAX_DIGITS, loads
from tests.properties import steady

# What is cut out of a text to find its nesting, beside what is not: where a scan could go wrong.
TRICKY = st.text(alphabet='[]{}",:\\/ \n\tnub0é\u2028\U0001f600')
TEXTS = st.one_of(TRICKY, st.text(alphabet=st.characters(exclude_categories=["Cs"])))
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(min_value=-(10 ** (MAX_DIGITS - 2)), max_value=10 ** (MAX_DIGITS - 1)),
    st.floats(allow_nan=False, allow_infinity=False),
    TEXTS,
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(TEXTS, inner, max_size=5))
)


@pytest.mark.slow
@steady
@given(VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_reads_what_json_reads(value: Any, ascii_only: bool, indent: int | None) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode()
    assert loads(body) == json.loads(body)


def depth(value: Any) -> int:
    """Levels of nesting, by walking."""
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if items is None else 1 + max(map(depth, items), default=0)


@pytest.mark.slow
@steady
@given(VALUES, st.integers(MAX_DEPTH - 5, MAX_DEPTH + 5), st.booleans())
def test_counts_levels_outside_of_strings_only(value: Any, levels: int, in_object: bool) -> None:
    for _ in range(levels):
        value = {"[[\\": value} if in_object else [value]
    # The neighbours make more brackets than levels are allowed, so that counting them alone decides nothing.
    body = json.dumps([*[{}] * MAX_DEPTH, value]).encode()
    if 1 + depth(value) > MAX_DEPTH:
        with pytest.raises(ManifestInvalid, match="nested deeper than 100 levels"):
            loads(body)
    else:
        assert loads(body) == json.loads(body)


@steady
@given(st.one_of(st.binary(), TRICKY.map(str.encode), st.lists(TRICKY).map(lambda texts: '"'.join(texts).encode())))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    padded = b"[" + b"[]," * MAX_DEPTH + body + b"]"
    for attempt in (body, padded):
        try:
            loads(attempt)
        except ManifestInvalid as exc:
            assert len(str(exc)) < 500  # noqa: PT017 -- the message is what is bounded


REFUSED = {
    "empty": (b"", "not JSON: Expecting value at line 1, column 1"),
    "word": (b"hello", "not JSON"),
    "cut": (b'{"a": [1, 2', "not JSON"),
    "cut string": (b'{"a": "b', "not JSON: Unterminated string starting at line 1, column 7"),
    "trailing garbage": (b"{} {}", "not JSON: Extra data at line 1, column 4"),
    "trailing bracket": (b"{}]", "not JSON"),
    "trailing NUL": (b"{}\x00", "not JSON"),
    "single quotes": (b"{'a': 1}", "not JSON"),
    "comment": (b"{} // x", "not JSON"),
    "raw newline in a string": (b'"a\nb"', "not JSON"),
    "hexadecimal": (b"0x10", "not JSON"),
    "plus": (b"+1", "not JSON"),
    "no digit before the dot": (b".5", "not JSON"),
    "leading zero": (b"01", "not JSON"),
    "no-break space": ("\u00a0{}".encode(), "not JSON"),
    "bad escape": (rb'"\x41"', "not JSON"),
    "mark": (b"\xef\xbb\xbf{}", "byte order mark"),
    "UTF-16 with mark": ("{}".encode("utf-16"), "byte order mark"),
    "UTF-16 big endian with mark": (b"\xfe\xff\x00{\x00}", "byte order mark"),
    "UTF-16": ("{}".encode("utf-16-le"), "not JSON"),
    "UTF-16 big endian": ("{}".encode("utf-16-be"), "not JSON"),
    "UTF-32": ("{}".encode("utf-32-le"), "not JSON"),
    "Latin-1": (b'{"a": "\xe9"}', "not UTF-8 at byte 7"),
    "overlong": (b'"\xc0\xaf"', "not UTF-8 at byte 1"),
    "surrogate in UTF-8": (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
    "duplicate": (b'{"a": 1, "a": 1}', "the top level has the key 'a' twice"),
    "duplicate below": (b'{"a": {"b": [0, {"c": 1, "c": 2}]}}', r"a.b\[1\] has the key 'c' twice"),
    "duplicate by escape": (rb'{"a": 1, "\u0061": 2}', "the top level has the key 'a' twice"),
    "flaw below a duplicate": (b'{"a": NaN, "a": 1}', "the top level has the key 'a' twice"),
    "NaN": (b'{"a": NaN}', "a is NaN"),
    "infinity": (b'{"a b": [Infinity]}', r"\['a b'\]\[0\] is Infinity"),
    "minus infinity": (b"-Infinity", "the top level is -Infinity"),
    "too large": (b"[1e999]", r"\[0\] is 1e999, which is too large"),
    "too small": (b"[-1e999]", r"\[0\] is -1e999, which is too large"),
    "31 digits": (b"[" + b"1" * 31 + b"]", r"\[0\] is a number of more than 30 digits"),
    "5000 digits": (b'{"size": ' + b"9" * 5000 + b"}", "size is a number of more than 30 digits"),
    "5000 decimals": (b"[0." + b"3" * 5000 + b"]", r"\[0\] is a number of more than 30 digits"),
    "high surrogate": (rb'{"a": ["\ud800"]}', r"a\[0\] has half of a surrogate pair"),
    "low surrogate": (rb'{"a": "x\uDFFFx"}', "a has half of a surrogate pair"),
    "pair in the wrong order": (rb'["\ude00\ud83d"]', r"\[0\] has half of a surrogate pair"),
    "surrogate in a key": (rb'{"a": {"\ud83d": 1}}', "a has half of a surrogate pair"),
    "101 levels": (b"[" * 101 + b"]" * 101, "nested deeper than 100 levels"),
    "100,000 levels": (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 100 levels"),
    "open for ever": (b'{"a":' * 90_000, "nested deeper than 100 levels"),
    "levels behind a tricky string": (rb'["\\", ' + b"[" * 101 + b"]" * 101 + b"]", "nested deeper"),
    "too many containers": (b"[" + b"{}," * MAX_CONTAINERS + b"1]", "more than 100000 objects and arrays"),
    "closing brackets only": (b"[" * 101 + b"]" * 300_000, "more than 100000 objects and arrays"),
}


@pytest.mark.parametrize(("body", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(body: bytes, message: str) -> None:
    with pytest.raises(ManifestInvalid, match=message):
        loads(body)


ACCEPTED: dict[str, tuple[bytes, object]] = {
    "null": (b"null", None),
    "30 digits": (b"1" * 30, int("1" * 30)),
    "a float": (b" 1.5 ", 1.5),
    "tiny": (b"1e-999", 0.0),
    "an escaped pair": (rb'"\ud83d\ude00"', "\U0001f600"),
    "a backslash, then what looks like an escape": (rb'"\\ud800"', r"\ud800"),
    "NUL by escape": (rb'"\u0000"', "\x00"),
    "100 levels": (b"[" * 100 + b"]" * 100, None),
    "brackets in a string": (b'"' + b"[" * 500 + b'"', "[" * 500),
    "brackets behind an escaped quote": (rb'"\"' + b"{[" * 500 + b'"', '"' + "{[" * 500),
    "brackets behind escaped backslashes": (rb'["\\\\","' + b"[" * 500 + b'"]', ["\\\\", "[" * 500]),
    "same key in two objects": (b'[{"a": 1}, {"a": 1}]', [{"a": 1}, {"a": 1}]),
    "keys that differ in case": (b'{"a": 1, "A": 2}', {"a": 1, "A": 2}),
    "empty key": (b'{"": {"": 1}}', {"": {"": 1}}),
}


@pytest.mark.parametrize(("body", "value"), ACCEPTED.values(), ids=ACCEPTED)
def test_accepted(body: bytes, value: object) -> None:
    found = loads(body)
    assert value is None or found == value


def test_a_path_and_a_key_are_cut() -> None:
    key = "k" * 10_000
    with pytest.raises(ManifestInvalid) as caught:
        loads(json.dumps({key: {key: math.inf}}).encode())
    assert len(str(caught.value)) < 300


def test_the_walk_to_a_flaw_is_cheap_under_long_keys() -> None:
    value: object = {"flaw": [0] * 20_000}
    for _ in range(90):
        value = {"k" * 60: value}
    body = json.dumps(value).encode().replace(b"0]", b"NaN]")
    with pytest.raises(ManifestInvalid) as caught:
        loads(body)
    assert len(str(caught.value)) < 300

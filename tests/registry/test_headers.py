"""Headers, queries and paths as tables (behaviour rows 4 to 7, 44 to 51, 104 to 120, S1, S7; RFC 9110 13 and 14)."""

import email
import email.policy
from contextlib import suppress
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.headers import (
    MAX_PARAMETERS,
    MAX_RANGES,
    MAX_WARNING,
    PathInvalid,
    QueryInvalid,
    QueryTooLong,
    TooManyRanges,
    UploadRangeInvalid,
    UploadRangeReversed,
    content_range,
    decode_path,
    etag,
    format_link,
    if_none_match_holds,
    if_range_holds,
    multipart_end,
    multipart_head,
    multipart_length,
    parse_content_range,
    parse_digits,
    parse_etags,
    parse_query,
    parse_range,
    resolve_ranges,
    unsatisfied_range,
    upload_range,
    warning,
)
from storage.digest import Digest
from storage.errors import Invalid, RangeNotSatisfiable
from storage.ranges import ByteRange, RangeRequest
from tests.properties import steady

# Range

RANGES: dict[str, tuple[RangeRequest, ...] | None] = {
    "bytes=0-1": (RangeRequest(start=0, stop=2),),
    "bytes=500-": (RangeRequest(start=500),),
    "bytes=-500": (RangeRequest(suffix=500),),
    "bytes=-0": (RangeRequest(suffix=0),),
    "bytes=007-010": (RangeRequest(start=7, stop=11),),
    "BYTES=0-0": (RangeRequest(start=0, stop=1),),
    "  bytes=0-0\t": (RangeRequest(start=0, stop=1),),
    "bytes= 0-0 ": (RangeRequest(start=0, stop=1),),
    "bytes=0-0,-1": (RangeRequest(start=0, stop=1), RangeRequest(suffix=1)),
    "bytes=0-0 ,\t4-5": (RangeRequest(start=0, stop=1), RangeRequest(start=4, stop=6)),
    "bytes=,0-0,,": (RangeRequest(start=0, stop=1),),
    "bytes=500-0": (RangeRequest(start=500, stop=1),),
    f"bytes=0-{'9' * 20}": (RangeRequest(start=0, stop=10**19 + 1),),
    f"bytes={'9' * 20}-": (RangeRequest(start=10**19),),
    f"bytes=-{'9' * 5000}": (RangeRequest(suffix=10**19),),
    f"bytes={'0' * 5000}5-": (RangeRequest(start=5),),
    "": None,
    "bytes": None,
    "bytes=": None,
    "bytes=,": None,
    "bytes=-": None,
    "bytes=a-b": None,
    "bytes=0x1-2": None,
    "bytes=+1-2": None,
    "bytes=1_0-20": None,
    "bytes=1.0-2": None,
    "bytes=0 - 1": None,
    "bytes=0-1-2": None,
    "bytes=--1": None,
    "bytes=0-1;": None,
    "bytes=0-1\n": None,
    "bytes=\u0660-\u0664": None,
    "bytes=0-1,a": None,
    "bytes =0-1": None,
    "bytes:0-1": None,
    "0-1": None,
    "items=0-1": None,
    "items=" + "0-," * 100: None,
    "byte\u017f=0-1": None,
}


@pytest.mark.parametrize(("value", "expected"), RANGES.items(), ids=lambda value: ascii(value)[:24])
def test_range(value: str, expected: tuple[RangeRequest, ...] | None) -> None:
    assert parse_range(value) == expected


def test_16_ranges_are_parsed_and_more_refused() -> None:
    assert len(parse_range("bytes=" + ",".join(f"{n}-{n}" for n in range(0, 2 * MAX_RANGES, 2))) or ()) == MAX_RANGES
    for many in ("bytes=" + ",".join(["0-0"] * (MAX_RANGES + 1)), "bytes=" + "0-," * 100_000, "bytes=" + "," * 100):
        with pytest.raises(TooManyRanges, match="more than 16 ranges"):
            parse_range(many)


RESOLVED: dict[str, tuple[int, list[tuple[int, int]]]] = {
    "bytes=0-0": (1, [(0, 1)]),
    "bytes=500-1499": (2048, [(500, 1500)]),
    "bytes=500-": (2048, [(500, 2048)]),
    "bytes=-500": (2048, [(1548, 2048)]),
    "bytes=2000-5000": (2048, [(2000, 2048)]),
    "bytes=-5000": (2048, [(0, 2048)]),
    "bytes=-1,0-0": (2048, [(2047, 2048), (0, 1)]),
    "bytes=0-4,5-9": (2048, [(0, 5), (5, 10)]),
    "bytes=5000-,0-1,9-3,-0": (2048, [(0, 2)]),
    f"bytes=1-{'9' * 30}": (2048, [(1, 2048)]),
}


@pytest.mark.parametrize(("value", "size", "expected"), [(v, *rest) for v, rest in RESOLVED.items()])
def test_resolved(value: str, size: int, expected: list[tuple[int, int]]) -> None:
    found = resolve_ranges(parse_range(value) or (), size)
    assert [(span.start, span.stop) for span in found] == expected


@pytest.mark.parametrize(
    ("value", "size"),
    [
        ("bytes=500-0", 2048),
        ("bytes=5000-10000", 2048),
        ("bytes=2048-", 2048),
        ("bytes=-0", 2048),
        ("bytes=-0,3-2", 2048),
        (f"bytes={'9' * 30}-", 2048),
        ("bytes=0-", 0),
        ("bytes=0-0", 0),
        ("bytes=-1", 0),
    ],
)
def test_not_satisfiable(value: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        resolve_ranges(parse_range(value) or (), size)
    assert unsatisfied_range(caught.value.size) == f"bytes */{size}"


@pytest.mark.parametrize("value", ["0-,0-,0-,0-,0-,0-", "0-4,4-8", "5-9,0-5", "-1,2047-2047", "0-,9-3,-1", "1-8,2-3"])
def test_overlap_is_refused(value: str) -> None:
    with pytest.raises(TooManyRanges, match="overlap"):
        resolve_ranges(parse_range(f"bytes={value}") or (), 2048)


POSITIONS = st.integers(0, 12)
SPECS = st.one_of(
    st.tuples(POSITIONS, POSITIONS).map(lambda pair: f"{pair[0]}-{pair[1]}"),
    POSITIONS.map(lambda first: f"{first}-"),
    POSITIONS.map(lambda suffix: f"-{suffix}"),
)


def named_by(spec: str, size: int) -> list[int]:
    """The positions that one range names, byte by byte."""
    first, last = spec.split("-")
    if not first:
        return [at for at in range(size) if at >= size - int(last)]
    return [at for at in range(size) if int(first) <= at <= (int(last) if last else size)]


@given(st.lists(SPECS, min_size=1, max_size=4), st.integers(0, 10))
@steady
def test_ranges_are_the_bytes_they_name(specs: list[str], size: int) -> None:
    expected = [named for spec in specs if (named := named_by(spec, size))]
    flat = [at for named in expected for at in named]
    requests = parse_range("bytes=" + ", ".join(specs))
    assert requests is not None
    if not flat:
        with pytest.raises(RangeNotSatisfiable):
            resolve_ranges(requests, size)
    elif len(set(flat)) < len(flat):
        with pytest.raises(TooManyRanges):
            resolve_ranges(requests, size)
    else:
        found = resolve_ranges(requests, size)
        assert [list(range(span.start, span.stop)) for span in found] == expected


def test_content_range_of_a_206() -> None:
    assert content_range(ByteRange(500, 1500), 2048) == "bytes 500-1499/2048"
    assert content_range(ByteRange(0, 1), 1) == "bytes 0-0/1"


@given(st.binary(min_size=1, max_size=60), st.lists(SPECS, min_size=2, max_size=4))
@steady
def test_multipart_is_read_by_another_parser(content: bytes, specs: list[str]) -> None:
    try:
        spans = resolve_ranges(parse_range("bytes=" + ",".join(specs)) or (), len(content))
    except (RangeNotSatisfiable, TooManyRanges):
        return
    part = {"Content-Type": "application/octet-stream"}
    pieces = [multipart_head("edge", part, span, len(content)) + content[span.start : span.stop] for span in spans]
    body = b"".join(pieces) + multipart_end("edge")
    assert len(body) == multipart_length("edge", part, spans, len(content))
    sections = body.split(b"\r\n--edge")
    assert sections[0] == b""
    assert sections[-1] == b"--\r\n"
    for span, section in zip(spans, sections[1:-1], strict=True):
        head, _, data = section.partition(b"\r\n\r\n")
        fields = email.message_from_bytes(head.removeprefix(b"\r\n"), policy=email.policy.HTTP)
        assert fields.items() == [
            ("Content-Type", "application/octet-stream"),
            ("Content-Range", content_range(span, len(content))),
        ]
        assert data == content[span.start : span.stop]


# Content-Range and Range of an upload

UPLOAD_RANGES = {
    "0-0": (0, 1),
    "0-9": (0, 10),
    "5-9": (5, 10),
    " 0-9\t": (0, 10),
    "000-009": (0, 10),
    f"0-{2**63 - 2}": (0, 2**63 - 1),
}


@pytest.mark.parametrize(("value", "expected"), UPLOAD_RANGES.items())
def test_upload_range(value: str, expected: tuple[int, int]) -> None:
    span = parse_content_range(value)
    assert (span.start, span.stop) == expected
    assert len(span) == expected[1] - expected[0]


INVALID_UPLOAD_RANGES = [
    "",
    "-",
    "0-",
    "-9",
    "-1-3",
    "a-b",
    "0",
    "0-9/10",
    "bytes 0-4/5",
    "bytes=0-4",
    "bytes 0-4",
    "0-4,5-9",
    "0 - 4",
    "0--1",
    "+0-4",
    "0-4\n",
    "0x0-4",
    "1_0-20",
    "0-4.0",
    "\u0660-4",
    "0-\uff14",
    "0-" + "9" * 19,
    "0-" + "9" * 20,
    "9" * 20 + "-0",
    f"0-{2**63 - 1}",
    f"{2**63}-{2**63 + 4}",
    "9" * 5000 + "-" + "9" * 5000,
]


@pytest.mark.parametrize("value", INVALID_UPLOAD_RANGES, ids=lambda value: ascii(value)[:24])
def test_invalid_upload_range(value: str) -> None:
    with pytest.raises(UploadRangeInvalid, match="Content-Range must be <first byte>-<last byte>") as caught:
        parse_content_range(value)
    assert not isinstance(caught.value, UploadRangeReversed)
    assert len(str(caught.value)) < 250


@pytest.mark.parametrize("value", ["4-0", "1-0", f"{2**62}-0"])
def test_reversed_upload_range(value: str) -> None:
    with pytest.raises(UploadRangeReversed, match="ends before it starts"):
        parse_content_range(value)


@pytest.mark.parametrize(("offset", "expected"), [(0, "0-0"), (1, "0-0"), (2, "0-1"), (10**12, "0-999999999999")])
def test_range_of_an_upload(offset: int, expected: str) -> None:
    assert upload_range(offset) == expected


@given(st.integers(1, 10**15))
@steady
def test_the_range_of_an_upload_is_read_back(offset: int) -> None:
    assert parse_content_range(upload_range(offset)) == ByteRange(0, offset)


# Conditions

DIGEST = Digest.of(b"x")
ETAG = f'"{DIGEST}"'
OTHER = f'"{Digest.of(b"y")}"'

# header -> does If-Match hold it, does If-None-Match, does If-Range
CONDITIONS: dict[str, tuple[bool, bool, bool]] = {
    ETAG: (True, True, True),
    f"\t{ETAG} ": (True, True, True),
    f"W/{ETAG}": (False, True, False),
    f"w/{ETAG}": (False, False, False),
    f"x{ETAG}": (False, False, False),
    f"{ETAG}x": (False, False, False),
    f"{ETAG} {OTHER}": (False, False, False),
    f"{ETAG}, {OTHER[:-1]}": (False, False, False),
    f"W/{DIGEST}": (False, False, False),
    OTHER: (False, False, False),
    f"{OTHER}, {ETAG}": (True, True, False),
    f"{OTHER},{ETAG},": (True, True, False),
    f"{OTHER}, W/{ETAG}": (False, True, False),
    f'"a,b", {ETAG}': (True, True, False),
    str(DIGEST): (True, True, False),
    f"{OTHER}, {DIGEST}": (True, True, False),
    "*": (True, True, False),
    " * ": (True, True, False),
    '"*"': (False, False, False),
    f'"x", *, {OTHER}': (False, False, False),
    "": (False, False, False),
    ",": (False, False, False),
    '""': (False, False, False),
    ETAG.upper(): (False, False, False),
    ETAG[:-2] + '"': (False, False, False),
    "Sun, 22 Nov 2026 18:00:00 GMT": (False, False, False),
    "\x00": (False, False, False),
}


@pytest.mark.parametrize(("value", "expected"), CONDITIONS.items(), ids=lambda value: ascii(value)[:24])
def test_condition(value: str, expected: tuple[bool, bool, bool]) -> None:
    assert etag(DIGEST) == ETAG
    strong = bool({str(DIGEST), "*"} & parse_etags(value))  # as a precondition of a tag looks at them
    assert (strong, if_none_match_holds(value, ETAG), if_range_holds(value, ETAG)) == expected
    assert not if_none_match_holds(value, None), "nothing is there: nothing can match"


def test_no_condition() -> None:
    assert not if_none_match_holds(None, ETAG)
    assert if_range_holds(None, ETAG)


def test_strong_tags() -> None:
    assert parse_etags(f'{ETAG}, W/{OTHER}, "a", b') == {str(DIGEST), "a", "b"}
    assert parse_etags("*") == {"*"}
    assert parse_etags("") == frozenset()


@pytest.mark.parametrize("value", ['"' * 60_000, '"a ' * 20_000, "W/" * 30_000, 'W/"' * 20_000, '"' + "a" * 60_000])
def test_hostile_tags_match_nothing(value: str) -> None:
    assert not parse_etags(value) & {str(DIGEST), "*"}
    assert not if_none_match_holds(value, ETAG)


# Link and Warning


def test_link() -> None:
    url = "/v2/a/b/tags/list?" + urlencode({"n": 2, "last": "a&b=c +%>"})
    assert format_link(url) == '</v2/a/b/tags/list?n=2&last=a%26b%3Dc+%2B%25%3E>; rel="next"'
    assert format_link("https://host:5000/v2/") == '<https://host:5000/v2/>; rel="next"'


@given(st.text(st.characters(exclude_categories=["Cs"])))
@steady
def test_a_link_cannot_be_broken_out_of(text: str) -> None:
    found = format_link(f"/v2/?last={text}")
    inner = found.removeprefix("<").removesuffix('>; rel="next"')
    assert f'<{inner}>; rel="next"' == found
    assert found.isascii()
    assert found.isprintable()
    assert not set(inner) & set('<>"\\ ')
    assert unquote(inner) == unquote(f"/v2/?last={text}")


@given(st.text(max_size=40), st.integers(0, 3 * MAX_WARNING))
@steady
def test_warning(text: str, times: int) -> None:
    value = warning(text * (times // max(1, len(text)) or 1))
    assert len(value.encode("ascii")) <= MAX_WARNING
    assert value.isprintable()
    assert value.startswith('299 - "')
    quoted = value.removeprefix('299 - "')
    # An unescaped quote ends it, and that is at the end.
    assert (
        quoted.replace("\\\\", "").replace('\\"', "").find('"')
        == len(quoted.replace("\\\\", "").replace('\\"', "")) - 1
    )


WARNINGS = {
    "deprecated": '299 - "deprecated"',
    'a "b" \\c': '299 - "a \\"b\\" \\\\c"',
    "line\r\nSet-Cookie: x": '299 - "line?Set-Cookie: x"',
    "café": '299 - "caf?"',
    "": '299 - ""',
    "x" * 5000: '299 - "' + "x" * (MAX_WARNING - 11) + '..."',
    "\\" * 5000: '299 - "' + "\\" * (MAX_WARNING - 12) + '..."',
    "x" + "\\" * 5000: '299 - "x' + "\\" * (MAX_WARNING - 12) + '..."',
    '"' * 5000: '299 - "' + '\\"' * ((MAX_WARNING - 11) // 2) + '..."',
}


@pytest.mark.parametrize(("text", "expected"), WARNINGS.items(), ids=lambda text: ascii(text)[:20])
def test_warning_text(text: str, expected: str) -> None:
    assert warning(text) == expected


# Query


def test_query() -> None:
    query = parse_query(b"digest=sha256%3Aab&n=5&empty=&bare&&tag=a&tag=b&x%20y=%C3%A9&plus=a+b%2Bc&eq=a=b")
    assert query.get("digest") == "sha256:ab"
    assert query.get("n") == "5"
    assert query.get("empty") == ""
    assert query.get("bare") == ""
    assert query.get("x y") == "é"
    assert query.get("plus") == "a b+c"
    assert query.get("eq") == "a=b"
    assert query.get("absent") is None
    assert query.all("tag") == ("a", "b")
    assert query.all("n") == ("5",)
    assert query.all("absent") == ()


def test_no_query() -> None:
    assert parse_query(b"").get("n") is None
    assert parse_query(b"&&").get("") is None


@pytest.mark.parametrize(
    "name", ["digest", "mount", "from", "_state", "n", "last", "ns", "artifactType", "x", "", "Tag"]
)
def test_a_parameter_twice(name: str) -> None:
    for other in (name, "".join(f"%{ord(char):02x}" for char in name)):
        with pytest.raises(QueryInvalid, match="given more than once") as caught:
            parse_query(f"{name}=a&y=1&{other}=a".encode())
        assert caught.value.parameter == name


INVALID_QUERIES = {
    b"a=%": "percent sign",
    b"a=%2": "percent sign",
    b"a=%zz": "percent sign",
    b"%g0=a": "percent sign",
    b"last=%00": "control character",
    b"last=a%0d%0ab": "control character",
    b"last=%7f": "control character",
    b"last=%c2%85": "control character",
    b"%00=a": "control character",
    b"a=%ff": "not UTF-8",
    b"a=%c3": "not UTF-8",
    b"a=%ed%a0%80": "not UTF-8",
    b"a=%c0%af": "not UTF-8",
    b"a=\xc3\xa9": "must be percent-encoded",
    b"a=\x00": "must be percent-encoded",
    b"a=b c": "must be percent-encoded",
    b"a=b\n": "must be percent-encoded",
}


@pytest.mark.parametrize(("raw", "message"), INVALID_QUERIES.items())
def test_invalid_query(raw: bytes, message: str) -> None:
    with pytest.raises(QueryInvalid, match=f"the query .*{message}"):
        parse_query(raw)


def test_a_semicolon_separates_nothing() -> None:
    assert parse_query(b"from=a/b;from=c").get("from") == "a/b;from=c"


def test_a_query_of_many_parameters() -> None:
    tags = [b"tag=v%d" % n for n in range(MAX_PARAMETERS)]
    assert len(parse_query(b"&".join(tags)).all("tag")) == MAX_PARAMETERS
    for raw in (b"&".join([*tags, b"tag=x"]), b"&" * 1_000_000):
        with pytest.raises(QueryTooLong, match="more than 200 parameters"):
            parse_query(raw)


TEXTS = st.text(st.characters(exclude_categories=["Cc", "Cs"]))


@given(st.dictionaries(TEXTS, TEXTS, max_size=5))
@steady
def test_queries_are_read_back(values: dict[str, str]) -> None:
    for quoting in (quote, quote_plus):
        query = parse_query(urlencode(values, quote_via=quoting).encode("ascii"))
        # A name and a value that are both empty leave nothing but `=`.
        assert {name: query.get(name) for name in values} == values


@given(st.binary(max_size=40))
@steady
def test_any_query_is_read_as_python_does_or_refused(raw: bytes) -> None:
    with suppress(QueryInvalid):
        query = parse_query(raw)
        for name, value in parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict"):
            assert value in query.all(name)


# Digits

DIGITS = {"0": 0, "1": 1, "007": 7, "100": 100, "101": 100, "2147483647": 100, "9" * 19: 100}


@pytest.mark.parametrize(("value", "expected"), DIGITS.items())
def test_digits(value: str, expected: int) -> None:
    assert parse_digits(value, 100, default=50) == expected


@pytest.mark.parametrize("value", [None, ""])
def test_no_digits(value: str | None) -> None:
    assert parse_digits(value, 100, default=50) == 50


@pytest.mark.parametrize(
    "value",
    [
        "-1",
        "+5",
        "abc",
        "1.5",
        "1e3",
        "1_0",
        "0x10",
        " 1",
        "1 ",
        "1\n",
        "\u0660",
        "\u0661",
        "\uff11",
        "²",
        "9" * 20,
        "9" * 5000,
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_not_digits(value: str) -> None:
    with pytest.raises(QueryInvalid, match="is not a number") as caught:
        parse_digits(value, 100, default=50)
    assert len(str(caught.value)) < 200


# Path

PATHS = {
    b"/v2/": "/v2/",
    b"/v2/a%2Fb/tags/list": "/v2/a/b/tags/list",
    b"/v2/a%2fb/manifests/sha256%3Aab": "/v2/a/b/manifests/sha256:ab",
    b"/v2/a/../b/./c//d": "/v2/a/../b/./c//d",
    b"/v2/%2e%2e/%2e%2e/etc": "/v2/../../etc",
    b"/v2/a%252Fb": "/v2/a%2Fb",
    b"/v2/a+b": "/v2/a+b",
    b"/v2/%C3%A9": "/v2/é",
    b"/v2/a%20b": "/v2/a b",
    b"/v2/a\\b;x=y": "/v2/a\\b;x=y",
    b"/v2/a%00b%0A%1b%C2%9F": "/v2/a\x00b\n\x1b\x9f",  # the grammars refuse them, each with its own code
    b"": "",
}


@pytest.mark.parametrize(("raw", "expected"), PATHS.items())
def test_path(raw: bytes, expected: str) -> None:
    assert decode_path(raw) == expected


INVALID_PATHS = {
    b"/v2/%ff": "not UTF-8",
    b"/v2/%C3": "not UTF-8",
    b"/v2/%ED%B0%80": "not UTF-8",
    b"/v2/%zz": "percent sign",
    b"/v2/%": "percent sign",
    b"/v2/%a": "percent sign",
    b"/v2/%%41": "percent sign",
    "/v2/é".encode(): "must be percent-encoded",
    b"/v2/a b": "must be percent-encoded",
    b"/v2/\x00": "must be percent-encoded",
}


@pytest.mark.parametrize(("raw", "message"), INVALID_PATHS.items())
def test_invalid_path(raw: bytes, message: str) -> None:
    with pytest.raises(PathInvalid, match=f"the path .*{message}"):
        decode_path(raw)


@given(TEXTS)
@steady
def test_paths_are_read_back(text: str) -> None:
    assert decode_path(quote(text, safe="/").encode("ascii")) == text
    assert decode_path("".join(f"%{byte:02X}" for byte in text.encode()).encode("ascii")) == text


@given(st.binary(max_size=30), st.text(max_size=30))
@steady
def test_any_input_is_read_or_refused_with_a_short_sentence(raw: bytes, text: str) -> None:
    for parse in (decode_path, parse_query):
        with suppress(Invalid):
            parse(raw)
    for read in (parse_range, parse_content_range, parse_etags):
        try:
            read(text)
        except Invalid as exc:
            assert len(str(exc)) < 300  # noqa: PT017 -- one of two right outcomes
            assert str(exc).isprintable()  # noqa: PT017

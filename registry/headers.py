"""Headers, query and path: bytes and strings in, values out, and back. Pure; no framework, no storage.

The rules are RFC 9110's (section 14 ranges, 13 conditions, 8.8.3 entity tags) and RFC 3986's. Digits are ASCII digits,
never what `int` takes for one. What has two readings is refused, not guessed: authorisation and handler must see the
same request. Every list is bounded before it is parsed.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from urllib.parse import quote, unquote_to_bytes

from storage.digest import Digest
from storage.errors import Invalid, RangeNotSatisfiable
from storage.ranges import ByteRange, RangeRequest

MAX_RANGES = 16
"""Ranges of one header, as many as zot serves; 1,000 overlapping ones are an attack (CVE-2011-3192)."""

MAX_PARAMETERS = 200
"""Of a query; the spec wants 10 tags at least, and allows 414 above a limit."""

MAX_WARNING = 4096
"""Bytes of warning data in one answer (distribution-spec, "Warnings")."""

_BLANKS = " \t"  # RFC 9110 section 5.6.3
_MAX_DIGITS = 19  # of an int64; more is refused or means "beyond any size"
_MAX_OFFSET = (1 << 63) - 1  # an int64, and the most that Python's len() can say of a ByteRange
_RANGE = re.compile(r"(?:([0-9]+)-([0-9]*)|-([0-9]+))")
_CONTENT_RANGE = re.compile(rf"([0-9]{{1,{_MAX_DIGITS}}})-([0-9]{{1,{_MAX_DIGITS}}})")
_DIGITS = re.compile(rf"[0-9]{{1,{_MAX_DIGITS}}}")
# One element of a list of entity tags (RFC 9110 section 8.8.3). Bare digests besides: distribution takes them too.
_ENTITY_TAG = re.compile(
    r"""[ \t]*(?:(?P<weak>W/)?"(?P<quoted>[^"\x00-\x20\x7f]*)"|(?P<bare>[A-Za-z0-9:+._=-]+))?[ \t]*(?:,|\Z)"""
)
_URL_CHARACTERS = "!#$%&'()*+,/:;=?@[]~"  # beside letters, digits and `_.-`: all that a URL consists of (RFC 3986)
_PLAIN_PATH = re.compile(rb"[A-Za-z0-9/:._~@+-]*")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_NOT_URI = re.compile(rb"[^\x21-\x7e]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_NOT_QUOTABLE = re.compile(r"[^\x20-\x7e]+")


class HeaderInvalid(Invalid):
    """A header that cannot be right."""


class TooManyRanges(HeaderInvalid):
    """More ranges than we serve, or ranges that overlap: 400, on which clients ask for one at a time."""


class UploadRangeInvalid(HeaderInvalid):
    """A Content-Range of an upload that is not `<first>-<last>`."""


class UploadRangeReversed(UploadRangeInvalid):
    """A Content-Range of an upload that ends before it starts: 416."""


class QueryInvalid(Invalid):
    """parameter: the one at fault, "" where it is the query as a whole."""

    def __init__(self, message: str, parameter: str = "") -> None:
        super().__init__(message)
        self.parameter = parameter


class QueryTooLong(QueryInvalid):
    """More parameters than we read: 414."""


class PathInvalid(Invalid):
    """A path that does not decode to text."""


_PART: Mapping[type[Invalid], str] = {QueryInvalid: "query", PathInvalid: "path"}


# Ranges of a blob


def parse_range(value: str) -> tuple[RangeRequest, ...] | None:
    """What a Range header asks for; None when it is to be ignored: another unit, or malformed (RFC 9110 section 14.2).

    Raises TooManyRanges for more than 16 ranges, before parsing any.
    """
    unit, equals, ranges = value.strip(_BLANKS).partition("=")
    if not equals or unit.lower() != "bytes":
        return None
    items = ranges.split(",", MAX_RANGES)
    if len(items) > MAX_RANGES:
        raise TooManyRanges(f"more than {MAX_RANGES} ranges: ask for them one at a time")
    found: list[RangeRequest] = []
    for item in items:
        if not (text := item.strip(_BLANKS)):
            continue  # RFC 9110 section 5.6.1: empty elements of a list are ignored
        if (match := _RANGE.fullmatch(text)) is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            found.append(RangeRequest(suffix=_bounded(suffix)))
        else:
            # Reversed, as in 500-0, it has no byte: resolve() says that it cannot be satisfied.
            found.append(RangeRequest(start=_bounded(first), stop=_bounded(last) + 1 if last else None))
    return tuple(found) or None


def _bounded(digits: str) -> int:
    """A position; those beyond any size are cut, as `int` takes at most 4,300 digits."""
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _MAX_DIGITS else 10**_MAX_DIGITS


def resolve_ranges(requests: Iterable[RangeRequest], size: int) -> list[ByteRange]:
    """The bytes that they mean in an object of `size` bytes, in the order asked for.

    Those outside of it are dropped. Raises RangeNotSatisfiable when none is left; TooManyRanges when they overlap.
    """
    found = []
    for request in requests:
        try:
            found.append(request.resolve(size))
        except RangeNotSatisfiable:
            continue
    if not found:
        raise RangeNotSatisfiable(size)
    ordered = sorted(found, key=lambda range: range.start)
    if any(after.start < before.stop for before, after in pairwise(ordered)):
        raise TooManyRanges("the ranges overlap: ask for them one at a time")
    return found


def content_range(range: ByteRange, size: int) -> str:
    """Of a 206."""
    return f"bytes {range.start}-{range.stop - 1}/{size}"


def unsatisfied_range(size: int) -> str:
    """The Content-Range of a 416."""
    return f"bytes */{size}"


def multipart_head(boundary: str, part: Mapping[str, str], range: ByteRange, size: int) -> bytes:
    """What goes before the bytes of one range in a 206 with several (RFC 9110 section 14.6). part: its headers."""
    fields = {**part, "Content-Range": content_range(range, size)}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"\r\n--{boundary}\r\n{lines}\r\n".encode("ascii")


def multipart_end(boundary: str) -> bytes:
    """What goes behind the last range."""
    return f"\r\n--{boundary}--\r\n".encode("ascii")


def multipart_length(boundary: str, part: Mapping[str, str], ranges: Iterable[ByteRange], size: int) -> int:
    """Bytes of the whole body."""
    parts = sum(len(multipart_head(boundary, part, range, size)) + len(range) for range in ranges)
    return parts + len(multipart_end(boundary))


# Ranges of an upload


def parse_content_range(value: str) -> ByteRange:
    """The bytes that a chunk claims to be, `0-9` (end-5; no unit, no total).

    Raises UploadRangeInvalid, and its subclass UploadRangeReversed.
    """
    match = _CONTENT_RANGE.fullmatch(value.strip(_BLANKS))
    first, last = (int(match[1]), int(match[2])) if match else (0, _MAX_OFFSET)
    if max(first, last) >= _MAX_OFFSET:
        raise UploadRangeInvalid(f"Content-Range must be <first byte>-<last byte>, as in 0-1023, not {_shown(value)}")
    if last < first:
        raise UploadRangeReversed(f"Content-Range {first}-{last} ends before it starts")
    return ByteRange(first, last + 1)


def upload_range(offset: int) -> str:
    """The Range of an upload that holds `offset` bytes. An empty one has no way to be said: clients expect 0-0."""
    return f"0-{max(0, offset - 1)}"


# Conditions


def etag(digest: Digest) -> str:
    return f'"{digest}"'


def if_none_match_holds(value: str | None, etag: str | None) -> bool:
    """Does If-None-Match hold this tag? If so, it is 304 for a GET. etag: of what is there; None: nothing is.

    Weak comparison (section 13.1.2): a cache may have made the tag weak.
    """
    if value is None or etag is None:
        return False
    return value.strip(_BLANKS) == "*" or any(tag == etag.strip('"') for _, tag in _entity_tags(value))


def if_range_holds(value: str | None, etag: str) -> bool:
    """Does the Range beside it count? If not, the whole content is sent (section 13.1.5).

    Strong comparison, and a date never holds: we send no Last-Modified.
    """
    return value is None or value.strip(_BLANKS) == etag


def parse_etags(value: str) -> frozenset[str]:
    """The strong tags of an If-Match, without their quotes; `*` for the header that is just that."""
    if value.strip(_BLANKS) == "*":
        return frozenset({"*"})
    return frozenset(tag for is_weak, tag in _entity_tags(value) if not is_weak and tag != "*")


def _entity_tags(value: str) -> list[tuple[bool, str]]:
    """(is it weak, the tag without its quotes) of each; none where the list is malformed: then no condition matches."""
    found: list[tuple[bool, str]] = []
    at = 0
    while at < len(value):
        if (match := _ENTITY_TAG.match(value, at)) is None:
            return []
        if (tag := match["quoted"] if match["bare"] is None else match["bare"]) is not None:
            found.append((match["weak"] is not None, tag))
        at = match.end()
    return found


# Other headers


def format_link(url: str, relation: str = "next") -> str:
    """A Link (RFC 8288). What could end the URL early, or is not ASCII, is percent-encoded."""
    return f'<{quote(url, safe=_URL_CHARACTERS)}>; rel="{relation}"'


def warning(text: str) -> str:
    """A Warning header of at most 4,096 bytes. What is not printable ASCII becomes `?`."""
    head, end = '299 - "', '"'
    quoted = _NOT_QUOTABLE.sub("?", text).replace("\\", "\\\\").replace('"', '\\"')
    room = MAX_WARNING - len(head) - len(end)
    if len(quoted) > room:
        quoted = quoted[: room - 3]
        # An odd backslash at the end would escape the dots.
        quoted = quoted[: len(quoted) - (len(quoted) - len(quoted.rstrip("\\"))) % 2] + "..."
    return head + quoted + end


# Query and path


@dataclass(frozen=True, slots=True)
class Query:
    """A checked query: no parameter twice, but `tag`. The one that authorisation and handlers both look at."""

    _values: Mapping[str, tuple[str, ...]]

    def get(self, name: str) -> str | None:
        values = self._values.get(name)
        return values[0] if values else None

    def all(self, name: str) -> tuple[str, ...]:
        return self._values.get(name, ())


_NO_QUERY = Query(MappingProxyType({}))


def parse_query(raw: bytes) -> Query:
    """Raises QueryInvalid; QueryTooLong. `+` is a space, `;` is not a separator; `a` is `a=`."""
    if not raw:
        return _NO_QUERY
    _check_characters(raw, QueryInvalid)
    parts = raw.split(b"&", MAX_PARAMETERS)
    if len(parts) > MAX_PARAMETERS:
        raise QueryTooLong(f"the query has more than {MAX_PARAMETERS} parameters")
    values: dict[str, tuple[str, ...]] = {}
    for part in filter(None, parts):
        raw_name, _, raw_value = part.replace(b"+", b" ").partition(b"=")
        name = _query_text(raw_name)
        value = _query_text(raw_value, name)
        if name in values and name != "tag":
            raise QueryInvalid(f"the parameter {_shown(name)} is given more than once", name)
        values[name] = (*values.get(name, ()), value)
    return Query(MappingProxyType(values))


def parse_digits(value: str | None, maximum: int, default: int) -> int:
    """A count such as `n`, cut to maximum; default where it is not given, or empty (distribution takes `n=` so).

    Raises QueryInvalid for anything but 1 to 19 ASCII digits.
    """
    if not value:
        return default
    if not _DIGITS.fullmatch(value):
        raise QueryInvalid(f"{_shown(value)} is not a number: expected digits")
    return min(int(value), maximum)


def decode_path(raw_path: bytes) -> str:
    """The text of a path; `%2F` becomes `/`, and `..` stays what it is. Raises PathInvalid.

    Control characters pass: the grammars of names, tags and digests refuse them, each with its own code.
    """
    if _PLAIN_PATH.fullmatch(raw_path):  # nearly every one
        return raw_path.decode("ascii")
    _check_characters(raw_path, PathInvalid)
    return _decode(raw_path, PathInvalid)


def _check_characters(raw: bytes, error: type[Invalid]) -> None:
    if _NOT_URI.search(raw):
        raise error(f"the {_PART[error]} holds bytes that must be percent-encoded")


def _query_text(raw: bytes, parameter: str = "") -> str:
    """parameter: whose value this is; "" for a name."""
    try:
        text = _decode(raw, QueryInvalid)
    except QueryInvalid as exc:
        raise QueryInvalid(str(exc), parameter) from exc
    if _CONTROL.search(text):
        raise QueryInvalid("the query holds a control character", parameter)
    return text


def _decode(raw: bytes, error: type[Invalid]) -> str:
    if _BAD_ESCAPE.search(raw):
        raise error(f"the {_PART[error]} holds a percent sign without two hexadecimal digits")
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise error(f"the {_PART[error]} is not UTF-8") from exc


def _shown(text: str) -> str:
    return ascii(text[:100])

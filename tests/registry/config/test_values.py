import sys
from collections.abc import Callable

import pytest

from registry.config import values
from registry.config.tree import read_text


def read(reader: Callable[..., object], text: str) -> object:
    node, _ = read_text(text, "here")
    return reader(node)


def wrong(reader: Callable[..., object], text: str) -> str:
    with pytest.raises(values.Wrong) as caught:
        read(reader, text)
    return caught.value.expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("168h", 604800.0),
        ("1h30m", 5400.0),
        ("1.5s", 1.5),
        (".5s", 0.5),
        ("1.s", 1.0),
        ("300ms", 0.3),
        ("2us", 2e-6),
        ("2µs", 2e-6),
        ("2μs", 2e-6),
        ("3ns", 3e-9),
        ("+1m", 60.0),
        ("0", 0.0),
        ("0s", 0.0),
        ("'10s'", 10.0),
        ("1000000000", 1.0),
        ("1_000", 1e-6),
    ],
)
def test_durations_as_go_writes_them(text: str, seconds: float) -> None:
    assert read(values.duration, text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["10", "10 s", "s", "1d", "1h 30m", "-1s", "-5", "1e3s", "1,5s", "ten", "[1s]", "1.5", "10:30"]
)
def test_wrong_durations(text: str) -> None:
    if text == "10":  # nanoseconds, not wrong
        assert read(values.duration, text) == pytest.approx(1e-8)
    else:
        assert wrong(values.duration, text) == 'a duration such as "30s", "10m" or "1h30m"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(604800.0, "168h"), (5400.0, "90m"), (30.0, "30s"), (1.5, "1.5s"), (0.0, "0s"), (3e-9, "0.000000003s")],
)
def test_durations_are_shown_so_that_they_can_be_read_back(seconds: float, text: str) -> None:
    assert values.go_duration(seconds) == text
    assert read(values.duration, text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["true", "True", "yes", "ON", "y", "'true'"])
def test_true(text: str) -> None:
    assert read(values.boolean, text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "no", "off", "n", '"false"'])
def test_false(text: str) -> None:
    assert read(values.boolean, text) is False


@pytest.mark.parametrize("text", ["1", "0", "enabled", "[true]", "{}"])
def test_neither(text: str) -> None:
    assert wrong(values.boolean, text) == "true or false"


@pytest.mark.parametrize(
    ("text", "number"), [("10", 10), ("'10'", 10), ("-3", -3), ("1_000", 1000), ("0x10", 16), ("010", 8), ("0", 0)]
)
def test_whole_numbers(text: str, number: int) -> None:
    assert read(values.integer, text) == number


@pytest.mark.parametrize("text", ["1.0", "1e3", "ten", "1:30", "10k", "[1]", "0x", "09", "true", "٣"])
def test_wrong_numbers(text: str) -> None:
    assert wrong(values.integer, text) == "a whole number"


def test_numbers_within_bounds() -> None:
    assert read(values.positive, "1") == 1
    assert wrong(values.positive, "0") == "a whole number, 1 or more"
    assert read(values.size, "0") == 0
    assert wrong(values.size, "-1") == "a whole number, 0 or more"
    assert wrong(values.positive_duration, "0s") == "a duration above 0"


def test_page_sizes_as_distribution_reads_them() -> None:
    catalog, tags = values.entries(1000, negative=True), values.entries(1000, negative=False)
    assert [read(catalog, text) for text in ("-1", "0", "5")] == [1000, 1000, 5]
    assert [read(tags, text) for text in ("0", "5")] == [1000, 5]
    assert wrong(tags, "-1") == "a whole number, 0 or more"


@pytest.mark.parametrize(
    ("text", "prefix"), [("/a/", "/a/"), ("a", "/a/"), ("/my/nested/registry/", "/my/nested/registry/"), ("/", "")]
)
def test_prefixes(text: str, prefix: str) -> None:
    assert read(values.url_prefix, text) == prefix


@pytest.mark.parametrize("text", ["/a b/", "/a//b/", "/a?b", "/%41/", "/ü/"])
def test_wrong_prefixes(text: str) -> None:
    assert wrong(values.url_prefix, text) == "a path such as /my/registry/"


@pytest.mark.parametrize(
    "text", ["https://registry.example.com", "http://a:5000", "https://a/prefix", "http://[::1]:5000"]
)
def test_base_urls(text: str) -> None:
    assert read(values.base_url, f"'{text}'") == text


@pytest.mark.parametrize(
    "text",
    [
        "registry.example.com",
        "a:5000",
        "ftp://a",
        "https://",
        "https://a?b",
        "https://a#b",
        "https://u:p@a",
        "http://a:x",
        "http://[::1",
    ],
)
def test_wrong_base_urls(text: str) -> None:
    assert wrong(values.base_url, f"'{text}'") == "a URL such as https://registry.example.com"


def test_headers() -> None:
    assert read(values.header_map, "{X-A: [a, b], x-b: []}") == {"X-A": ("a", "b"), "x-b": ()}
    expected = "a list as the value of X-A, such as [nosniff]"
    assert wrong(values.header_map, "{X-A: a}") == expected
    assert wrong(values.header_map, "[a]").startswith("a map of header names to lists, such as {X-Content-Type-")
    assert wrong(values.header_map, "{'X A': [a]}") == "a header name, not 'X A'"
    assert wrong(values.header_map, "{X-A: [ü]}") == "a header value in ASCII"
    assert wrong(values.header_map, '{X-A: ["a\\r\\nSet-Cookie: b"]}') == expected


@pytest.mark.parametrize("text", ['"', "a\\b", "a\nb"])
def test_wrong_realms(text: str) -> None:
    node, _ = read_text("x", "here")
    node.text = text  # type: ignore[union-attr]
    with pytest.raises(values.Wrong):
        values.realm(node)


@pytest.mark.parametrize(
    "text", [r"['^https?://([^/]+\.)*example\.com/']", "['(?i)^HTTPS:', '[[:alpha:]]', 'a\\z']", "[]"]
)
def test_patterns_are_gos(text: str) -> None:
    read(values.patterns, text)


@pytest.mark.parametrize(
    ("text", "expected"), [("['(']", "item 0: missing ): ("), (r"[a, '(a)\1']", r"item 1: invalid escape")]
)
def test_patterns_that_go_would_refuse(text: str, expected: str) -> None:
    assert wrong(values.patterns, text).startswith(f"regular expressions as RE2 and Go have them; {expected}")


def test_without_the_package_of_re2_patterns_are_left_to_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", None)
    assert read(values.patterns, "['(']") == ("(",)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("500", 500),
        ("500B", 500),
        ("1kB", 1000),
        ("1.5MB", 1_500_000),
        ("50GB", 50_000_000_000),
        ("50GiB", 50 << 30),
        ("50 gi", 50 << 30),
        ("2T", 2 * 10**12),
        ("'1PiB'", 1 << 50),
    ],
)
def test_capacities(text: str, size: int) -> None:
    assert read(values.capacity, text) == size


@pytest.mark.parametrize("text", ["-1", "1.5.0GB", "GB", "10 elephants", "1XB", "0x10", "[1]", "1e9"])
def test_what_is_no_capacity(text: str) -> None:
    assert wrong(values.capacity, text) == 'a size such as "500MB", "50GiB" or "2TB"'

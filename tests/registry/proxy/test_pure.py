"""The rules of the proxy that need no socket, by table: realms, addresses, limits, patience, patterns, answers."""

import ast
from email.utils import formatdate
from pathlib import Path

import pytest

import registry.proxy
from registry.proxy.addresses import is_public, is_tolerable
from registry.proxy.answers import Extent, Head, error_codes, next_link, read_extent
from registry.proxy.limits import RateLimit, Throttle, parse_rate_limit, parse_retry_after
from registry.proxy.patience import Breaker, Pace, backoff
from registry.proxy.patterns import parse_patterns, permits
from registry.proxy.realms import Origin, RealmRefused, Realms

from .conftest import Clock

HUB = "https://registry-1.docker.io"


# Realms


@pytest.mark.parametrize(
    ("upstream", "listed", "realm"),
    [
        (HUB, (), "https://auth.docker.io/token"),
        (HUB, (), "https://registry-1.docker.io/token"),
        (HUB, (), "https://AUTH.docker.io:443/token"),
        ("https://ghcr.io", (), "https://ghcr.io/token"),
        ("https://quay.io", (), "https://quay.io/v2/auth"),
        ("https://nvcr.io", (), "https://nvcr.io/proxy_auth"),
        ("https://registry.gitlab.com", (), "https://gitlab.com/jwt/auth"),
        ("https://hub.lan", ("auth.lan",), "https://auth.lan/token"),
        ("https://hub.lan", ("auth.lan:8443",), "https://auth.lan:8443/token"),
        ("https://hub.lan", ("https://auth.lan/any",), "https://auth.lan/token"),
        ("http://hub.lan", ("auth.lan",), "http://auth.lan/token"),
        ("http://hub.lan", ("https://auth.lan",), "https://auth.lan/token"),
        ("http://[::1]:5000", (), "http://[::1]:5000/token"),
    ],
)
def test_realm(upstream: str, listed: tuple[str, ...], realm: str) -> None:
    assert Realms(Origin.of(upstream), listed).check(realm) == Origin.of(realm)


@pytest.mark.parametrize(
    ("upstream", "listed", "realm"),
    [
        (HUB, (), "https://auth.docker.io:444/token"),
        (HUB, (), "http://auth.docker.io/token"),
        (HUB, (), "https://auth.docker.io.evil.example/token"),
        (HUB, (), "https://auth.docker.io@evil.example/token"),
        (HUB, (), "https://evil.example/auth.docker.io"),
        (HUB, (), "https://evil.example\\@auth.docker.io/"),
        (HUB, (), "https://\u0430uth.docker.io/token"),
        (HUB, (), "https://xn--uth-5cd.docker.io/token"),
        (HUB, (), "https://auth.docker.io/\r\nX: y"),
        (HUB, (), "https://auth.docker.io:0/"),
        (HUB, (), "https://auth.docker.io:x/"),
        (HUB, (), "https://[::1/"),
        (HUB, (), "https:///token"),
        (HUB, (), "//auth.docker.io/token"),
        (HUB, (), "auth.docker.io"),
        (HUB, (), ""),
        ("https://ghcr.io", (), "https://auth.docker.io/token"),
        ("http://registry-1.docker.io", (), "http://auth.docker.io/token"),
        ("https://hub.lan", ("http://auth.lan",), "http://auth.lan/token"),
        ("https://hub.lan", ("auth.lan",), "https://sub.auth.lan/token"),
        ("http://hub.lan", (), "https://hub.lan/token"),
        ("http://127.0.0.1:5000", (), "http://127.0.0.1:5001/token"),
    ],
)
def test_realm_that_is_refused(upstream: str, listed: tuple[str, ...], realm: str) -> None:
    with pytest.raises(RealmRefused):
        Realms(Origin.of(upstream), listed).check(realm)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://X.io:443/a", "https://x.io"),
        ("http://x.io:5000", "http://x.io:5000"),
        ("http://[::1]:80/", "http://[::1]"),
    ],
)
def test_origin(url: str, text: str) -> None:
    assert str(Origin.of(url)) == text


# Addresses


@pytest.mark.parametrize("text", ["1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_public(text: str) -> None:
    assert is_public(text)
    assert is_tolerable(text)


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "198.18.0.1",
        "::1",
        "fc00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "::7f00:1",
    ],
)
def test_private(text: str) -> None:
    assert not is_public(text)
    assert is_tolerable(text)


@pytest.mark.parametrize(
    "text",
    [
        "169.254.169.254",
        "fe80::1",
        "fe80::1%eth0",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fd00:ec2::254",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff02::1",
        "2002:a9fe:a9fe::",
        "",
        "localhost",
        "127.1",
        "2130706433",
    ],
)
def test_never(text: str) -> None:
    assert not is_public(text)
    assert not is_tolerable(text)


# Limits


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"ratelimit-limit": "100;w=21600", "ratelimit-remaining": "76;w=21600"}, RateLimit(100, 76, 21600)),
        ({"ratelimit-limit": "100", "ratelimit-remaining": "0"}, RateLimit(100, 0)),
        ({"ratelimit-remaining": "7 ; w=60"}, RateLimit(None, 7, 60)),
        ({"ratelimit-limit": "100, 100;w=60"}, RateLimit(100, None)),
        ({"ratelimit-limit": "1", "docker-ratelimit-source": "192.0.2.1"}, RateLimit(1, None, None, "192.0.2.1")),
        ({"ratelimit-limit": "1", "docker-ratelimit-source": "a b\x1b"}, RateLimit(1, None)),
        ({"ratelimit-limit": "many"}, None),
        ({"ratelimit-limit": "-1"}, None),
        ({"ratelimit-limit": "9" * 5000}, None),
        ({}, None),
    ],
)
def test_rate_limit(headers: dict[str, str], expected: RateLimit | None) -> None:
    assert parse_rate_limit(headers) == expected


WALL = 1_800_000_000.0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 0 ", 0.0),
        (formatdate(WALL + 90, usegmt=True), 90.0),
        (formatdate(WALL - 90, usegmt=True), 0.0),
        (str(int(WALL) + 30), 30.0),
        ("999999999", 86400.0),
        ("9" * 18, 86400.0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after(value: str | None, expected: float | None) -> None:
    assert parse_retry_after(value, WALL) == expected


def test_throttle(clock: Clock) -> None:
    throttle = Throttle(clock)
    assert throttle.held("manifest") is None
    assert throttle.limited("manifest", 1000.0) == 1000.0
    assert throttle.held("manifest") == 1000.0
    assert throttle.held("other") is None
    clock.now += 301  # it says an hour, but may have changed its mind: asked once in five minutes
    assert throttle.held("manifest") is None
    throttle.limited("manifest", None)
    throttle.passed("manifest")
    assert throttle.held("manifest") is None
    assert throttle.limited("manifest", None) == 5.0


# Patience


def test_breaker(clock: Clock) -> None:
    breaker = Breaker(clock, lambda: 1.0, threshold=3, pause=5, longest=20)
    for _ in range(2):
        assert breaker.enter() is None
        assert not breaker.failed()
    breaker.answered()
    for _ in range(2):
        assert not breaker.failed()
    assert breaker.failed(), "the third in a row"
    assert breaker.enter() == 5.0
    assert not breaker.failed(), "one that was under way does not prolong it"
    assert breaker.enter() == 5.0
    waits = []
    for _ in range(4):
        clock.now += breaker.enter() or 0
        assert breaker.enter() is None, "one trial"
        assert breaker.enter() == 1.0, "and no second beside it"
        assert not breaker.failed()
        waits.append(breaker.enter())
    assert waits == [10.0, 20.0, 20.0, 20.0]
    clock.now += 20
    assert breaker.enter() is None
    breaker.abandoned()
    assert breaker.enter() is None
    assert breaker.answered()
    assert not breaker.open
    assert breaker.enter() is None


def test_backoff() -> None:
    assert list(backoff(4, lambda: 1.0, base=1, longest=3)) == [1.0, 2.0, 3.0]
    assert list(backoff(3, lambda: 0.0, base=1)) == [0.5, 1.0]
    assert list(backoff(1, lambda: 1.0)) == []


def test_pace() -> None:
    """1000 bytes in each 10 s that we wait; it does not matter how they are spread."""
    pace = Pace(100, 10)
    assert pace.allowance() == 10
    assert not pace.got(4, 999)
    assert pace.allowance() == 6
    assert not pace.got(6, 1)
    assert pace.allowance() == 10
    assert not pace.got(0, 5000)
    assert not pace.got(10, 0), "enough had come before"
    assert pace.got(11, 0), "but nothing since"
    assert pace.got(10, 999)


# Patterns


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [
        ("library/*", ["library/a"], ["library/a/b", "library", "x/library/a"]),
        ("team/**", ["team/a", "team/a/b"], ["teams/a", "x/team/a"]),
        ("**/base", ["base", "a/base", "a/b/base"], ["a/database", "base/a"]),
        ("**", ["a", "a/b"], []),
        ("a*c/d", ["ac/d", "abc/d"], ["a/c/d"]),
        ("a.b", ["a.b"], ["axb"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["ab", "a/xb"]),
    ],
)
def test_pattern(pattern: str, yes: list[str], no: list[str]) -> None:
    compiled = parse_patterns([pattern])
    assert all(permits(compiled, (), name) for name in yes)
    assert not any(permits(compiled, (), name) for name in no)
    assert not any(permits((), compiled, name) for name in yes)
    assert permits((), (), "anything")


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "a/", "a**", "A", "a b", "a(b", "**b/c"])
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="not a pattern"):
        parse_patterns([pattern])


# Answers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('</v2/a/tags/list?n=1&last=b>; rel="next"', "/v2/a/tags/list?n=1&last=b"),
        ("</x>; rel=next", "/x"),
        ('</p>; rel="prev", </n>; title="a, b"; rel="next"', "/n"),
        ('</x>;rel="next"', "/x"),
        ('</x>; rel="prev"', None),
        ('</x>; notrel="next"', None),
        ("garbage", None),
    ],
)
def test_next_link(value: str, expected: str | None) -> None:
    assert next_link(Head(200, (("link", value),))) == expected


def test_error_codes() -> None:
    assert error_codes(b'{"errors": [{"code": "A"}, {"code": "B"}]}') == {"A", "B"}
    for body in (b"", b"[]", b"{}", b'{"errors": 1}', b'{"errors": [1]}', b'{"errors": [{}]}', b"[" * 100_000):
        assert error_codes(body) == frozenset()


def test_extent() -> None:
    def head(status: int, **fields: str) -> Head:
        return Head(status, tuple((name.replace("_", "-"), value) for name, value in fields.items()))

    assert read_extent(head(200, content_length="7"), None) == Extent(0, 7, 7)
    assert read_extent(head(200), None) == Extent(0, None, None)
    assert read_extent(head(200, content_length="7"), (3, None)) == Extent(0, 7, 7)
    assert read_extent(head(206, content_range="bytes 3-6/7"), (3, None)) == Extent(3, 7, 7)
    assert read_extent(head(206, content_range="bytes 3-6/*"), (3, 7)) == Extent(3, 7, None)


# Who may import whom


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


MODULES = sorted(Path(registry.proxy.__path__[0]).glob("*.py"))
PURE = {"addresses", "answers", "challenge", "limits", "patience", "patterns", "realms"}
CLIENTS = {"httpx": {"asking"}, "aiohttp": {"transport"}, "yarl": {"transport"}, "aiobotocore": {"ecr"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_layers(path: Path) -> None:
    tops = {name.split(".")[0] for name in imported(path)}
    for client, allowed in CLIENTS.items():
        assert client not in tops or path.stem in allowed
    assert "starlette" not in tops
    assert not [name for name in imported(path) if name.startswith(("storage.drivers", "registry.app"))]
    if path.stem in PURE:
        assert not tops & {"asyncio", "time", "random", "socket", "os"}
        ours = {name.removeprefix("registry.proxy.") for name in imported(path) if name.startswith("registry.proxy.")}
        assert ours <= PURE

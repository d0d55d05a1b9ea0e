"""WWW-Authenticate and token answers by table."""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.proxy.challenge import (
    ANONYMOUS,
    Basic,
    Bearer,
    ChallengeInvalid,
    Credentials,
    parse_basic,
    parse_challenges,
    parse_token,
    select,
    token_request,
)

HUB = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push"'
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

HEADERS: dict[str, tuple[list[str], list[tuple[str, dict[str, str]]]]] = {
    "docker hub": (
        [HUB],
        [
            (
                "bearer",
                {
                    "realm": "https://auth.docker.io/token",
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                },
            )
        ],
    ),
    "any case": (['BEARER Realm="x"'], [("bearer", {"realm": "x"})]),
    "two in one": (
        ['Basic realm="a, b", Bearer realm="c" , service = d'],
        [("basic", {"realm": "a, b"}), ("bearer", {"realm": "c", "service": "d"})],
    ),
    "two headers": (['Basic realm="a"', 'Bearer realm="b"'], [("basic", {"realm": "a"}), ("bearer", {"realm": "b"})]),
    "escapes": (
        [r'Basic realm="a\"b\\c, Bearer realm=\"evil\""'],
        [("basic", {"realm": r'a"b\c, Bearer realm="evil"'})],
    ),
    "token68": (["Negotiate YII/a+b==, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
    "scheme alone": (["Negotiate, Basic realm=x"], [("negotiate", {}), ("basic", {"realm": "x"})]),
    "basic alone": (["Basic"], [("basic", {})]),
    "empty elements": ([', ,Basic realm="x",, charset="UTF-8"'], [("basic", {"realm": "x", "charset": "UTF-8"})]),
    "doubled parameter": (['Bearer realm="a", realm="b"'], []),
    "doubled in another case": (['Bearer realm="a", REALM="b"'], []),
    "open quote": (['Bearer realm="a'], [("bearer", {})]),
    "junk after": (['Bearer realm="a"x, b=c'], [("bearer", {})]),
    "empty": ([""], []),
    "too long": (["Bearer realm=" + "a" * (16 << 10)], []),
    "second too long": (['Basic realm="a"', "Bearer realm=" + "a" * (16 << 10)], [("basic", {"realm": "a"})]),
}


@pytest.mark.parametrize("name", HEADERS)
def test_parse(name: str) -> None:
    headers, expected = HEADERS[name]
    assert [(each.scheme, dict(each.parameters)) for each in parse_challenges(headers)] == expected


@given(st.lists(st.text(alphabet='Bearc= ,"\\x:/\t', max_size=60), max_size=4))
def test_anything_is_read_and_ends(headers: list[str]) -> None:
    for each in parse_challenges(headers):
        assert each.scheme == each.scheme.lower()


def test_quoted_strings_come_back() -> None:
    @given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=50))
    def check(text: str) -> None:
        quoted = text.replace("\\", "\\\\").replace('"', '\\"')
        (found,) = parse_challenges([f'Bearer realm="{quoted}", service=x'])
        assert dict(found.parameters) == {"realm": text, "service": "x"}

    check()


CHOICES: dict[str, tuple[list[str], Bearer | Basic | None]] = {
    "bearer before basic": (['Basic realm="x"', 'Bearer realm="y"'], Bearer("y")),
    "basic": (['Negotiate, Basic realm="x"'], Basic()),
    "nothing that we know": (["Negotiate", "NTLM"], None),
    "bearer without realm": (["Bearer service=x"], None),
    "the same twice": (['Bearer realm="y",scope="b"', 'Bearer realm="y",scope="a"'], Bearer("y", "", "a")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_select(name: str) -> None:
    headers, expected = CHOICES[name]
    assert select(parse_challenges(headers)) == expected


@pytest.mark.parametrize("second", ['Bearer realm="z"', 'Bearer realm="y",service="w"'])
def test_two_token_servers_are_refused(second: str) -> None:
    with pytest.raises(ChallengeInvalid):
        select(parse_challenges(['Bearer realm="y"', second]))


def test_token_request_by_get() -> None:
    request = token_request(Bearer("https://x/token?a=b", "s p"), ["one:pull", "two"], Credentials("ü", "p:w"))
    assert request.method == "GET"
    assert request.form is None
    query = parse_qs(urlsplit(request.url).query)
    assert query == {"a": ["b"], "service": ["s p"], "scope": ["one:pull", "two"], "account": ["ü"]}
    assert request.authorization == "Basic w7w6cDp3"


def test_token_request_of_nobody() -> None:
    request = token_request(Bearer("https://x/token"), [], ANONYMOUS)
    assert (request.url, request.authorization) == ("https://x/token", None)


def test_token_request_with_an_identity_token() -> None:
    request = token_request(Bearer("https://x/token", "s"), ["a", "b"], Credentials(identity_token="t&t"))
    assert (request.method, request.url, request.authorization) == ("POST", "https://x/token", None)
    assert parse_qs((request.form or b"").decode()) == {
        "grant_type": ["refresh_token"],
        "service": ["s"],
        "client_id": ["moorage"],
        "scope": ["a b"],
        "refresh_token": ["t&t"],
    }


def test_secrets_show_in_no_repr() -> None:
    secret = Credentials("user", "canary1", "canary2", "canary3")
    request = token_request(Bearer("https://x"), [], Credentials("user", "canary1"))
    posted = token_request(Bearer("https://x"), [], secret)
    assert "canary" not in repr(secret) + repr(request) + repr(posted)
    assert "canary" not in repr(parse_token(b'{"token": "canary"}', now=NOW))


def instant(seconds: float) -> str:
    return (NOW + timedelta(seconds=seconds)).isoformat()


LIFETIMES: dict[str, tuple[dict[str, object], float]] = {
    "default": ({}, 60),
    "said": ({"expires_in": 300}, 300),
    "quoted": ({"expires_in": "300"}, 300),
    "too short": ({"expires_in": 5}, 60),
    "negative": ({"expires_in": -5}, 60),
    "nonsense": ({"expires_in": [1]}, 60),
    "true": ({"expires_in": True}, 60),
    "not finite": ({"expires_in": "inf"}, 60),
    "for ever": ({"expires_in": 10**12}, 86400),
    "handed out again": ({"expires_in": 300, "issued_at": instant(-200)}, 100),
    "nanoseconds": ({"expires_in": 300, "issued_at": "2026-11-22T11:59:00.123456789Z"}, 300 - 59.876544),
    "from the future": ({"expires_in": 300, "issued_at": instant(5000)}, 300),
    "long ago": ({"expires_in": 300, "issued_at": instant(-5000)}, 300),
    "no date": ({"expires_in": 300, "issued_at": "yesterday"}, 300),
    "null": ({"expires_in": None, "issued_at": None}, 60),
}


@pytest.mark.parametrize("name", LIFETIMES)
def test_lifetime(name: str) -> None:
    fields, expected = LIFETIMES[name]
    grant = parse_token(json.dumps({"token": "t", **fields}).encode(), now=NOW)
    assert grant.lifetime == pytest.approx(expected)


def test_age_by_the_servers_own_clock() -> None:
    """Ours may be hours off: its Date counts."""
    issued = NOW + timedelta(hours=3)
    body = json.dumps({"token": "t", "expires_in": 300, "issued_at": issued.isoformat()}).encode()
    date = format_datetime(issued + timedelta(seconds=100), usegmt=True)
    assert parse_token(body, now=NOW, date=date).lifetime == pytest.approx(200)
    assert parse_token(body, now=NOW, date="nonsense").lifetime == 300


def test_either_name_of_the_token() -> None:
    assert parse_token(b'{"access_token": "a"}', now=NOW).token == "a"
    assert parse_token(b'{"token": "t", "access_token": "a"}', now=NOW).token == "t"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"token": 7}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\u00e9"}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "' + b"a" * 70000 + b'"}',
        b"[" * 100_000,
        b"\xff",
    ],
)
def test_no_token(body: bytes) -> None:
    with pytest.raises(ChallengeInvalid):
        parse_token(body, now=NOW)


@pytest.mark.parametrize("text", ["", "!", "dXNlcg==", "OnB3", "gGE6Yg=="])
def test_no_basic(text: str) -> None:
    with pytest.raises(ChallengeInvalid):
        parse_basic(text)


def test_basic() -> None:
    assert parse_basic("dXNlcjpwOnc=") == Credentials("user", "p:w")
    assert Credentials("user", "p:w").basic() == "Basic dXNlcjpwOnc="
    assert Credentials(identity_token="x").basic() is None
    assert ANONYMOUS.anonymous
    assert not Credentials(registry_token="x").anonymous

"""Signatures, byte for byte as botocore makes them."""

import itertools
from typing import Any
from urllib.parse import quote, urlsplit

import botocore.auth
import botocore.awsrequest
import botocore.config
import botocore.credentials
import pytest

from storage.drivers.s3.sign import Credentials, Signer, UrlCache, encode_query

NOW = [0.0, 1_700_000_000.0, 1_709_251_199.0, 1_795_383_424.9]
KEYS = ["a", "docker/registry/v2/blobs/sha256/ab/data", "a b+c&d=e/ü/%2F~_-.", "//x//", "*'()!;:@$,[]?#", "🐳/\\^`{|}"]
QUERIES: list[list[tuple[str, str]]] = [
    [],
    [("uploads", "")],
    [("partNumber", "12"), ("uploadId", "a/b+c==~ü")],
    [("list-type", "2"), ("prefix", "x y/"), ("start-after", "x y/-"), ("delimiter", "/"), ("a-", "1"), ("a", "2")],
]
CREDENTIALS = [
    Credentials("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
    Credentials("ASIA", "secret", "token/with+odd==characters"),
]
HEADERS: list[dict[str, str]] = [
    {},
    {"range": "bytes=0-1"},
    {"content-type": "application/octet-stream", "if-none-match": "*", "x-amz-checksum-crc32": "AAAAAA=="},
]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Any:
    def at(now: float) -> None:
        moment = botocore.auth.datetime.datetime.fromtimestamp(int(now), botocore.auth.datetime.timezone.utc)
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: moment)

    return at


def theirs(credentials: Credentials) -> Any:
    return botocore.credentials.Credentials(credentials.access_key, credentials.secret_key, credentials.token or None)


@pytest.mark.parametrize("credentials", CREDENTIALS, ids=["keys", "token"])
@pytest.mark.parametrize("host", ["bucket.s3.eu-west-1.amazonaws.com", "127.0.0.1:9000", "[::1]:9000"])
def test_headers(host: str, credentials: Credentials, clock: Any) -> None:
    signer = Signer("eu-west-1", host)
    unsigned = botocore.config.Config(s3={"payload_signing_enabled": False})
    for now, key, query, headers in itertools.product(NOW, KEYS, QUERIES, HEADERS):
        clock(now)
        path, encoded = "/" + quote(key, safe="/-_.~"), encode_query(query)
        url = f"https://{host}{path}" + (f"?{encoded}" if encoded else "")
        request = botocore.awsrequest.AWSRequest("PUT", url, headers=dict(headers))
        request.context["client_config"] = unsigned
        botocore.auth.S3SigV4Auth(theirs(credentials), "s3", "eu-west-1").add_auth(request)
        made = signer.headers(credentials, "PUT", path, encoded, headers, now)
        assert made.pop("host") == urlsplit(url).netloc
        assert made == {name.lower(): value for name, value in request.headers.items()}


@pytest.mark.parametrize("credentials", CREDENTIALS, ids=["keys", "token"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_urls(method: str, credentials: Credentials, clock: Any) -> None:
    host = "bucket.s3.eu-west-1.amazonaws.com"
    signer = Signer("eu-west-1", host)
    for now, key, expires in itertools.product(NOW, KEYS, [1, 1200, 604_800]):
        clock(now)
        path = "/" + quote(key, safe="/-_.~")
        request = botocore.awsrequest.AWSRequest(method, f"https://{host}{path}")
        botocore.auth.S3SigV4QueryAuth(theirs(credentials), "s3", "eu-west-1", expires).add_auth(request)
        query = signer.query(credentials, method, path, expires, now)
        assert sorted(query.split("&")) == sorted(urlsplit(request.url).query.split("&"))
        if not credentials.token:
            assert f"https://{host}{path}?{query}" == request.url


def test_the_key_of_the_day_goes_with_day_and_secret() -> None:
    signer = Signer("r", "h")
    first, second = Credentials("A", "one"), Credentials("A", "two")
    fresh = Signer("r", "h")
    for credentials, now in [(first, 0.0), (second, 0.0), (first, 86_400.0), (first, 0.0)]:
        made = signer.query(credentials, "GET", "/k", 60, now)
        assert made == Signer("r", "h").query(credentials, "GET", "/k", 60, now)
    assert fresh.query(first, "GET", "/k", 60, 0.0) != fresh.query(second, "GET", "/k", 60, 0.0)


def test_no_secret_is_shown() -> None:
    assert "secret" not in repr(CREDENTIALS[1])
    assert "token" not in repr(CREDENTIALS[1]).replace("Credentials", "")


def test_a_url_is_given_again_for_half_its_life() -> None:
    cache = UrlCache(limit=2)
    name = ("GET", "k", "A", 100.0)
    assert cache.find(name, 0.0) is None
    cache.keep(name, "https://u", now=0.0, life=100)
    assert cache.find(name, 49.9) == "https://u"
    assert cache.find(name, 50.0) is None


def test_the_oldest_urls_go() -> None:
    cache = UrlCache(limit=2)
    names = [("GET", key, "A", 100.0) for key in "abc"]
    for name in [names[0], names[1], names[0], names[2]]:
        cache.keep(name, name[1], now=0.0, life=100)
    assert [cache.find(name, 1.0) for name in names] == ["a", None, "c"]

"""The signed `_state` of an upload's Location (S22): what we sign, what distribution signs, and every way to tamper."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry import upload_state
from storage.digest import Digest
from storage.errors import UploadUnknown
from storage.names import RepositoryName, parse_name
from storage.repository import UploadSession

SECRET = b"a secret of this test"
NAME = parse_name("a/b")
NOW = 1_700_000_000.0
SESSION = UploadSession("c0ffee00-0000-4000-8000-000000000001", 10, "2026-11-22T11:47:47Z", "sha256", Digest.of(b"x"))


def read(state: str, name: str = NAME, id: str = SESSION.id, now: float = NOW, secret: bytes = SECRET) -> UploadSession:
    return upload_state.decode(secret, RepositoryName(name), id, state, now)


def state(session: UploadSession = SESSION, name: RepositoryName = NAME) -> str:
    return upload_state.encode(SECRET, name, session, NOW)


def signed(claims: object, secret: bytes = SECRET) -> str:
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    mac = hmac.new(secret, body, hashlib.sha256).digest()
    return base64.urlsafe_b64encode(mac + body).decode()


def claims_of(value: str) -> dict[str, Any]:
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(value)[32:])
    return claims


@pytest.mark.parametrize(
    "session",
    [
        SESSION,
        replace(SESSION, prefix=None),
        replace(SESSION, offset=0, prefix=None),
        replace(SESSION, offset=0, prefix=None, stored=True),
        replace(SESSION, offset=1 << 50, algorithm="sha512", prefix=Digest.of(b"", "sha512")),
    ],
)
def test_there_and_back(session: UploadSession) -> None:
    assert read(state(session)) == session


def test_it_is_distributions_with_more_keys() -> None:
    raw = base64.urlsafe_b64decode(state())
    assert hmac.digest(SECRET, raw[32:], "sha256") == raw[:32]
    assert json.loads(raw[32:]) == {
        "Name": "a/b",
        "UUID": SESSION.id,
        "Offset": 10,
        "StartedAt": "2026-11-22T11:47:47Z",
        "v": 1,
        "exp": int(NOW) + 7 * 24 * 3600,
        "alg": "sha256",
        "sum": str(Digest.of(b"x")),
    }


def test_a_session_of_distribution() -> None:
    """It knows no digest of the bytes so far, does not expire, and is in the store from its start on."""
    theirs = {"Name": "a/b", "UUID": SESSION.id, "Offset": 10, "StartedAt": SESSION.started}
    assert read(signed(theirs), now=NOW + 1e9) == replace(SESSION, prefix=None, stored=True)


def test_lifetime() -> None:
    last = NOW + upload_state.LIFETIME
    assert read(state(), now=last) == SESSION
    with pytest.raises(UploadUnknown):
        read(state(), now=last + 1)


def without(key: str) -> str:
    return signed({k: v for k, v in claims_of(state()).items() if k != key})


def with_(**changes: object) -> str:
    return signed(claims_of(state()) | changes)


RAW = base64.urlsafe_b64decode(state())


def encoded(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode()


TAMPERED = {
    "empty": "",
    "no-base64": "*" * 40,
    "not-ascii": "é" * 40,
    "a-line-feed-in-it": state()[:20] + "\n" + state()[20:],
    "padding-in-the-middle": state()[:20] + "=" + state()[20:],
    "mac-alone": encoded(RAW[:32]),
    "half-a-mac": encoded(RAW[:16]),
    "no-mac": encoded(RAW[32:]),
    "truncated": encoded(RAW[:-1]),
    "longer": encoded(RAW + b" "),
    "first-bit-of-the-mac": encoded(bytes([RAW[0] ^ 1]) + RAW[1:]),
    "last-bit-of-the-mac": encoded(RAW[:31] + bytes([RAW[31] ^ 1]) + RAW[32:]),
    "offset-changed": encoded(RAW.replace(b'"Offset":10', b'"Offset":11')),
    "digest-changed": encoded(RAW.replace(str(Digest.of(b"x")).encode(), str(Digest.of(b"y")).encode())),
    "name-changed": encoded(RAW.replace(b'"a/b"', b'"a/c"')),
    "other-secret": signed(claims_of(state()), b"another secret"),
    "empty-secret": signed(claims_of(state()), b""),
    "mac-of-zeros": encoded(bytes(32) + RAW[32:]),
    "sha512-mac": encoded(hmac.digest(SECRET, RAW[32:], "sha512")[:32] + RAW[32:]),
    # signed by somebody who has the secret, and nonsense all the same
    "no-json": signed(b"{"),
    "no-utf8": signed(b"\xff"),
    "a-list": signed([1]),
    "null": signed(None),
    "without-name": without("Name"),
    "without-uuid": without("UUID"),
    "without-offset": without("Offset"),
    "without-started": without("StartedAt"),
    "negative-offset": with_(Offset=-1),
    "offset-as-text": with_(Offset="10"),
    "offset-as-fraction": with_(Offset=10.5),
    "started-as-number": with_(StartedAt=5),
    "expires-as-text": with_(exp="9999999999"),
    "expires-null": with_(exp=None),
    "expired": with_(exp=NOW - 1),
    "unknown-algorithm": with_(alg="md5"),
    "algorithm-a-list": with_(alg=["sha256"]),
    "digest-malformed": with_(sum="sha256:xyz"),
    "digest-of-unknown-algorithm": with_(sum="md5:" + "0" * 32),
    "other-session": with_(UUID="c0ffee00-0000-4000-8000-000000000002"),
    "other-repository": with_(Name="a/c"),
}


@pytest.mark.parametrize("value", TAMPERED.values(), ids=TAMPERED)
def test_s22_tampered(value: str) -> None:
    assert value != state()
    with pytest.raises(UploadUnknown):
        read(value)


@pytest.mark.parametrize(
    ("name", "id"),
    [
        ("a", f"b/{SESSION.id}"),  # the same characters, parted elsewhere
        ("a/b/c", SESSION.id),
        ("a/c", SESSION.id),
        ("a/b", SESSION.id[:-1]),
        ("a/b", SESSION.id.upper()),
        ("a/b", ""),
    ],
)
def test_s22_of_another_repository_or_session(name: str, id: str) -> None:
    with pytest.raises(UploadUnknown):
        read(state(), name, id)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_quietly(raw: bytes) -> None:
    for value in (encoded(raw), raw.decode("latin-1")):
        with pytest.raises(UploadUnknown):
            read(value)


@given(st.integers(0, len(RAW) * 8 - 1))
def test_any_flipped_bit_is_noticed(at: int) -> None:
    changed = bytearray(RAW)
    changed[at // 8] ^= 1 << at % 8
    with pytest.raises(UploadUnknown):
        read(encoded(bytes(changed)))

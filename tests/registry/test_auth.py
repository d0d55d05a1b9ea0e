"""Logging in with HTTP Basic against an htpasswd file: what is checked, how often, and what an answer tells."""

import asyncio
import base64
import logging
from collections.abc import Mapping
from pathlib import Path

import bcrypt
import pytest

from registry.auth import Authenticator, BasicAuthenticator, Htpasswd
from registry.errors import Unauthorized
from registry.policy import ANONYMOUS, Actor

COST = 4
"""The least that bcrypt takes: these tests check what is done, not how long it takes."""


def line(user: str, password: str, cost: int = COST, prefix: bytes = b"2b") -> str:
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost))
    return f"{user}:{hashed.replace(b'$2b$', b'$%s$' % prefix).decode()}\n"


def basic(user: str, password: str | bytes) -> dict[str, str]:
    secret = password.encode() if isinstance(password, str) else password
    return {"authorization": "Basic " + base64.b64encode(user.encode() + b":" + secret).decode()}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "htpasswd"
    path.write_text(line("alice", "right") + line("bob", "b:o:b", prefix=b"2y"))
    return path


@pytest.fixture
def authenticator(file: Path) -> BasicAuthenticator:
    return BasicAuthenticator(Htpasswd(file), "Registry")


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The hashes that bcrypt was asked to check a password against."""
    asked: list[bytes] = []
    real = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        asked.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)
    return asked


async def refusal(authenticator: Authenticator, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    with pytest.raises(Unauthorized) as caught:
        await authenticator.identify(headers)
    return str(caught.value), caught.value.headers


async def test_nobody_said_who(authenticator: BasicAuthenticator, checks: list[bytes]) -> None:
    assert await authenticator.identify({}) == ANONYMOUS
    assert checks == []


@pytest.mark.parametrize(("user", "password"), [("alice", "right"), ("bob", "b:o:b")])
async def test_right(authenticator: BasicAuthenticator, user: str, password: str) -> None:
    assert await authenticator.identify(basic(user, password)) == Actor(user)


async def test_scheme_in_any_case(authenticator: BasicAuthenticator) -> None:
    value = basic("alice", "right")["authorization"].removeprefix("Basic ")
    assert await authenticator.identify({"authorization": f"bAsIc   {value}"}) == Actor("alice")


NOT_BASIC = {
    "empty": "",
    "scheme-alone": "Basic",
    "no-base64": "Basic !!!!",
    "base64-with-junk": "Basic YWxpY2U6cmlnaHQ=!",
    "base64-cut": "Basic YWxpY2U6cmlnaHQ",
    "not-ascii": "Basic Zürich",
    "no-colon": "Basic " + base64.b64encode(b"alice").decode(),
    "user-not-utf8": "Basic " + base64.b64encode(b"\xff:right").decode(),
    "bearer": "Bearer " + base64.b64encode(b"alice:right").decode(),
    "too-long": "Basic " + base64.b64encode(b"alice:" + b"x" * 8192).decode(),
}


@pytest.mark.parametrize("value", NOT_BASIC.values(), ids=NOT_BASIC)
async def test_what_is_no_basic_authorization_is_refused_without_a_check(
    authenticator: BasicAuthenticator, checks: list[bytes], value: str
) -> None:
    assert (await refusal(authenticator, {"authorization": value}))[1] == {"WWW-Authenticate": 'Basic realm="Registry"'}
    assert checks == []


async def test_s18_known_and_unknown_users_look_the_same(
    authenticator: BasicAuthenticator, checks: list[bytes]
) -> None:
    known = await refusal(authenticator, basic("alice", "wrong"))
    assert len(checks) == 1
    unknown = await refusal(authenticator, basic("mallory", "wrong"))
    assert len(checks) == 2
    assert known == unknown
    costs = [bcrypt.hashpw(b"", asked)[:7] for asked in checks]  # refuses what is no salt: the work was really done
    assert costs[0][4:] == costs[1][4:] == b"%02d$" % COST, "an unknown user must cost what a known one does"


async def test_s18_an_unknown_user_costs_the_same_at_each_try(tmp_path: Path, checks: list[bytes]) -> None:
    file = tmp_path / "htpasswd"
    file.write_text(line("alice", "a", 4) + line("bob", "b", 5) + line("carol", "c", 6))
    authenticator = BasicAuthenticator(Htpasswd(file), "Registry")
    costs: dict[str, set[bytes]] = {}
    for user in [f"user{n}" for n in range(24)] * 2:
        await refusal(authenticator, basic(user, "wrong"))
        costs.setdefault(user, set()).add(checks[-1][4:6])
    assert all(len(seen) == 1 for seen in costs.values())
    assert {b"04", b"05", b"06"} == set().union(*costs.values()), "as users of the file have them"


async def test_s18_a_file_without_users_still_costs_a_check(tmp_path: Path, checks: list[bytes]) -> None:
    (tmp_path / "htpasswd").write_text("# nobody yet\n\n")
    authenticator = BasicAuthenticator(Htpasswd(tmp_path / "htpasswd"), "Registry")
    await refusal(authenticator, basic("alice", "right"))
    assert len(checks) == 1


@pytest.mark.parametrize("user", ["alice", "mallory"])
@pytest.mark.parametrize("password", [b"r" * 73, b"right\0", b"", b"\xff\xfe", b"x" * 4000])
async def test_s18_passwords_that_bcrypt_does_not_take(
    authenticator: BasicAuthenticator, checks: list[bytes], user: str, password: bytes
) -> None:
    await refusal(authenticator, basic(user, password))
    assert len(checks) == 1


async def test_s18_a_long_password_is_never_cut(tmp_path: Path) -> None:
    (tmp_path / "htpasswd").write_text(line("alice", "x" * 72))
    authenticator = BasicAuthenticator(Htpasswd(tmp_path / "htpasswd"), "Registry")
    assert await authenticator.identify(basic("alice", "x" * 72)) == Actor("alice")
    await refusal(authenticator, basic("alice", "x" * 73))


MALFORMED = {
    "empty": "",
    "plain-text": "right",
    "md5": "$apr1$salt$hash",
    "sha1": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
    "too-short": "$2y$05$abc",
    "too-long": "$2y$05$" + "a" * 54,
    "wrong-characters": "$2y$05$" + "!" * 53,
    "cost-99": "$2y$99$" + "a" * 53,
    "cost-00": "$2y$00$" + "a" * 53,
    "cost-no-number": "$2y$xx$" + "a" * 53,
    "not-ascii": "$2y$05$" + "é" * 53,
}


@pytest.mark.parametrize("hashed", MALFORMED.values(), ids=MALFORMED)
async def test_s18_a_malformed_hash_fits_nobody_and_is_logged(
    tmp_path: Path, checks: list[bytes], caplog: pytest.LogCaptureFixture, hashed: str
) -> None:
    (tmp_path / "htpasswd").write_text(line("alice", "right") + f"eve:{hashed}\n")
    with caplog.at_level(logging.WARNING):
        authenticator = BasicAuthenticator(Htpasswd(tmp_path / "htpasswd"), "Registry")
    assert "line 2 of the htpasswd file is no bcrypt hash" in caplog.text
    assert await refusal(authenticator, basic("eve", hashed)) == await refusal(authenticator, basic("eve", "right"))
    assert len(checks) == 2, "as much work as for anybody else"
    assert await authenticator.identify(basic("alice", "right")) == Actor("alice")


@pytest.mark.parametrize("body", [b"alice\n", b":hash\n", b"\xff\xfe:x\n", b"alice:x\n\nbob"])
def test_what_is_no_htpasswd_file_does_not_start(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "htpasswd").write_bytes(body)
    with pytest.raises(ValueError, match=r"not user:hash|utf-8"):
        Htpasswd(tmp_path / "htpasswd")


def test_s19_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Htpasswd(tmp_path / "htpasswd")


def test_comments_blanks_and_the_last_of_two_lines(tmp_path: Path) -> None:
    twice = line("alice", "old") + line("alice", "new")
    (tmp_path / "htpasswd").write_text(f"# users\n\n  {twice}carol:\n{line('carol', 'x')}dave:x\r\n")
    users = Htpasswd(tmp_path / "htpasswd")
    hashed = users.hash_of("alice")
    assert hashed is not None
    assert bcrypt.checkpw(b"new", hashed)
    assert users.hash_of("carol") is not None
    assert users.hash_of("dave") is None
    assert users.costs == [COST, COST]


# The file changes


async def test_a_removed_user_is_out_at_the_next_request(authenticator: BasicAuthenticator, file: Path) -> None:
    assert await authenticator.identify(basic("alice", "right")) == Actor("alice")
    file.write_text(line("bob", "b:o:b"))
    await refusal(authenticator, basic("alice", "right"))
    assert await authenticator.identify(basic("bob", "b:o:b")) == Actor("bob")


async def test_a_changed_password_holds_at_once(authenticator: BasicAuthenticator, file: Path) -> None:
    assert await authenticator.identify(basic("alice", "right")) == Actor("alice")
    replacement = file.with_name("new")  # as editors and Kubernetes do: another file in its place
    replacement.write_text(line("alice", "other"))
    replacement.rename(file)
    await refusal(authenticator, basic("alice", "right"))
    assert await authenticator.identify(basic("alice", "other")) == Actor("alice")


@pytest.mark.parametrize("body", [b"garbage\n", b"\xff\n", None])
async def test_f40_a_broken_file_leaves_the_last_good_one(
    authenticator: BasicAuthenticator, file: Path, caplog: pytest.LogCaptureFixture, body: bytes | None
) -> None:
    if body is None:
        file.unlink()
    else:
        file.write_bytes(body)
    for _ in range(3):
        assert await authenticator.identify(basic("alice", "right")) == Actor("alice")
        await refusal(authenticator, basic("alice", "wrong"))
    assert "going on with what it said before" in caplog.text
    if body is not None:
        assert caplog.text.count("going on") == 1, "not at each request"
    file.write_text(line("carol", "new"))
    await refusal(authenticator, basic("alice", "right"))
    assert await authenticator.identify(basic("carol", "new")) == Actor("carol")


# The short memory


async def test_a_right_login_is_remembered_and_a_wrong_one_is_not(
    authenticator: BasicAuthenticator, checks: list[bytes]
) -> None:
    for _ in range(5):
        await authenticator.identify(basic("alice", "right"))
    assert len(checks) == 1
    for count in range(2, 5):
        await refusal(authenticator, basic("alice", "wrong"))
        assert len(checks) == count


async def test_it_is_forgotten_after_a_while(
    authenticator: BasicAuthenticator, checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("registry.auth.time.monotonic", lambda: clock[0])
    await authenticator.identify(basic("alice", "right"))
    clock[0] += 59
    await authenticator.identify(basic("alice", "right"))
    assert len(checks) == 1
    clock[0] += 2
    await authenticator.identify(basic("alice", "right"))
    assert len(checks) == 2


async def test_s22_what_is_remembered_is_bound_to_user_hash_and_password(
    authenticator: BasicAuthenticator, file: Path
) -> None:
    """A mark over a plain concatenation would let `alice\\0<hash>` in with half of her password."""
    await authenticator.identify(basic("alice", "right"))
    hashed = file.read_text().splitlines()[0].partition(":")[2]
    tries: list[tuple[str, str | bytes]] = [
        (f"alice\0{hashed}", "right"),
        (f"alice{hashed}", "right"),
        ("alic", b"e" + hashed.encode() + b"right"),
        ("alice", hashed.encode() + b"right"),
        ("alice\0", "right"),
    ]
    for user, password in tries:
        await refusal(authenticator, basic(user, password))


async def test_a_herd_of_first_requests_costs_one_check_for_each_slot_at_most(
    authenticator: BasicAuthenticator, checks: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that pulls 20 layers side by side has not been remembered when the other 19 arrive."""
    monkeypatch.setattr(authenticator, "_slots", asyncio.Semaphore(1))
    actors = await asyncio.gather(*(authenticator.identify(basic("alice", "right")) for _ in range(20)))
    assert set(actors) == {Actor("alice")}
    assert len(checks) == 1


async def test_the_memory_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checks: list[bytes]) -> None:
    monkeypatch.setattr("registry.auth._REMEMBERED", 2)
    (tmp_path / "htpasswd").write_text("".join(line(user, user) for user in "abc"))
    authenticator = BasicAuthenticator(Htpasswd(tmp_path / "htpasswd"), "Registry")
    for user in "abc":
        await authenticator.identify(basic(user, user))
    await authenticator.identify(basic("c", "c"))
    assert len(checks) == 3
    await authenticator.identify(basic("a", "a"))
    assert len(checks) == 4


@pytest.mark.parametrize("realm", ['a"b', "a\\b"])
def test_a_realm_cannot_end_its_quotes(file: Path, realm: str) -> None:
    assert BasicAuthenticator(Htpasswd(file), realm).challenge == 'Basic realm="ab"'

"""Logging in at an upstream, over real sockets: rows P1, P2, P3, P5, F26, F30 and F37 of the design."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from registry.config.upstreams import UpstreamTLSConfig
from registry.proxy.challenge import Credentials
from registry.proxy.credentials import Found
from registry.proxy.repository import UpstreamRepository
from registry.proxy.upstream import Upstream
from storage.digest import Digest
from storage.errors import (
    StorageError,
    TooManyRequests,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamUnavailable,
)
from storage.names import Tag, parse_name

from . import scripted as act
from .conftest import PATIENT, Ask, Clock
from .scripted import Scripted, scripted

LATEST = Tag("latest")
DATA = b"layer" * 1000
PASSWORD = "canary-Pa55word"
USER = {"username": "carol", "password": PASSWORD}


@pytest.fixture
def private(hub: Scripted) -> Scripted:
    """Wants a bearer token, and gives one to carol only."""
    hub.login, hub.users, hub.anonymous = "bearer", {"carol": PASSWORD}, False
    hub.image("a/b", "latest")
    return hub


# Getting in


async def test_basic(hub: Scripted, ask: Ask) -> None:
    hub.login, hub.users = "basic", {"carol": PASSWORD}
    digest = hub.blob("a/b", DATA)
    repository = ask(hub, **USER)
    for _ in range(3):
        assert await repository.stat_blob(digest) == len(DATA)
    assert len(hub.requests) == 4, "a 401 once, then never again"


async def test_bearer_with_one_login_for_many_requests(private: Scripted, ask: Ask) -> None:
    repository = ask(private, **USER)
    for _ in range(5):
        await repository.get_manifest(LATEST)
    assert private.count("GET", "/token") == 1
    (login,) = (seen for seen in private.requests if seen.path == "/token")
    assert login.query == {"service": ["scripted"], "scope": ["repository:a/b:pull"], "account": ["carol"]}


async def test_anonymous_bearer(hub: Scripted, ask: Ask) -> None:
    hub.login = "bearer"
    hub.image("a/b", "latest")
    await ask(hub).get_manifest(LATEST)
    assert hub.issued == 1


async def test_a_second_repository_logs_in_before_it_asks(private: Scripted, connect: Callable[..., Upstream]) -> None:
    private.image("c/d", "latest")
    upstream = connect(private, **USER)
    await UpstreamRepository(upstream, parse_name("a/b")).get_manifest(LATEST)
    await UpstreamRepository(upstream, parse_name("c/d")).get_manifest(LATEST)
    assert [seen.path for seen in private.requests][3:] == ["/token", "/v2/c/d/manifests/latest"]


async def test_identity_token_is_posted(private: Scripted, ask: Ask) -> None:
    class Docker:
        async def find(self) -> Found:
            return Found(Credentials(identity_token=PASSWORD))

    await ask(private, source=Docker()).get_manifest(LATEST)
    (login,) = (seen for seen in private.requests if seen.path == "/token")
    assert login.method == "POST"
    assert b"grant_type=refresh_token" in login.body
    assert "authorization" not in login.headers


async def test_registry_token_is_sent_as_it_is(private: Scripted, ask: Ask) -> None:
    class Docker:
        async def find(self) -> Found:
            return Found(Credentials(registry_token="given"))

    private.tokens.add("given")
    await ask(private, source=Docker()).get_manifest(LATEST)
    private.revoke()
    with pytest.raises(UpstreamDenied):
        await ask(private, source=Docker()).get_manifest(LATEST)
    assert private.count("GET", "/token") == 0


@pytest.mark.slow
async def test_fifty_at_once_log_in_once(private: Scripted, ask: Ask) -> None:
    repository = ask(private, **USER)
    await asyncio.gather(*(repository.get_manifest(LATEST) for _ in range(50)))
    assert private.issued == 1


async def test_the_login_outlives_who_asked_for_it(private: Scripted, ask: Ask) -> None:
    repository = ask(private, **USER)
    opened, arrived = asyncio.Event(), asyncio.Event()

    async def slowly(exchange: act.Exchange) -> None:
        arrived.set()
        await opened.wait()
        await act.serve(exchange)

    private.on("GET", "/token", slowly)
    first = asyncio.create_task(repository.get_manifest(LATEST))
    await arrived.wait()
    second = asyncio.create_task(repository.get_manifest(LATEST))
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    opened.set()
    await second
    assert private.count("GET", "/token") == 1


# Tokens that end


async def test_a_token_is_renewed_when_it_expires(private: Scripted, ask: Ask, clock: Clock) -> None:
    repository = ask(private, **USER)
    await repository.get_manifest(LATEST)
    clock.now += private.expires_in - 5
    await repository.get_manifest(LATEST)
    assert private.issued == 2
    assert private.count("GET", "/v2/") == 3, "without a second 401"


async def test_a_token_that_is_no_longer_taken_is_renewed_once(private: Scripted, ask: Ask) -> None:
    """F37, and a blob that goes on after its token has expired."""
    digest = private.blob("a/b", DATA)
    repository = ask(private, **USER)
    await repository.get_manifest(LATEST)
    private.revoke()
    stream = await repository.open_stream(digest, 1000)
    assert b"".join([chunk async for chunk in stream.chunks()]) == DATA[1000:]
    await stream.aclose()
    assert private.issued == 2


@pytest.mark.slow
async def test_many_with_a_token_that_is_no_longer_taken(private: Scripted, ask: Ask) -> None:
    repository = ask(private, **USER)
    await repository.get_manifest(LATEST)
    private.revoke()
    await asyncio.gather(*(repository.get_manifest(LATEST) for _ in range(20)))
    assert private.issued == 2


async def test_login_loop(private: Scripted, ask: Ask, clock: Clock) -> None:
    """Always 401, with any token, as registries answer for what does not exist: no login for each request."""
    private.on("*", "/v2/a/b/manifests/", act.challenge)
    repository = ask(private, **USER)
    for _ in range(20):
        with pytest.raises(UpstreamDenied):
            await repository.get_manifest(LATEST)
    assert private.issued == 1
    clock.now += 400
    with pytest.raises(UpstreamDenied):
        await repository.get_manifest(LATEST)
    assert private.issued == 2


# Logins that fail


async def test_wrong_password_is_not_tried_again_and_again(private: Scripted, ask: Ask, clock: Clock) -> None:
    """For no repository: it is the account that would be banned."""
    upstream = ask(private, username="carol", password="wrong")._upstream
    for number in range(20):
        with pytest.raises(UpstreamUnavailable, match="credentials"):
            await UpstreamRepository(upstream, parse_name(f"a/b{number}")).get_manifest(LATEST)
    assert private.count("GET", "/token") == 1
    clock.now += 6
    with pytest.raises(UpstreamUnavailable):
        await UpstreamRepository(upstream, parse_name("a/b")).get_manifest(LATEST)
    assert private.count("GET", "/token") == 2


async def test_wrong_basic_password(hub: Scripted, ask: Ask) -> None:
    hub.login = "basic"
    repository = ask(hub, username="carol", password="wrong")
    for _ in range(10):
        with pytest.raises((UpstreamDenied, UpstreamUnavailable)):
            await repository.get_manifest(LATEST)
    assert sum("authorization" in seen.headers for seen in hub.requests) == 1


@pytest.mark.parametrize(
    ("behaviour", "expected", "times"),
    [
        (act.status(403), UpstreamDenied, 1),
        (act.status(500), UpstreamUnavailable, 1),
        (act.status(429, Retry_After="30"), TooManyRequests, 1),
        (act.status(200, b"not json"), UpstreamUnavailable, 1),
        (act.status(200, b"{}"), UpstreamUnavailable, 1),
        (act.status(200, b'{"token": "a\\r\\nb"}'), UpstreamUnavailable, 1),
        (act.status(200, b" " * (2 << 20)), UpstreamUnavailable, 1),
        (act.endless("application/json"), UpstreamUnavailable, 1),
        (act.reset(), UpstreamUnavailable, 2),
        (act.flood(20_000), UpstreamUnavailable, 2),
    ],
    ids=["403", "500", "429", "text", "empty", "crlf", "large", "endless", "reset", "headers"],
)
async def test_a_failed_login_is_remembered(
    private: Scripted, ask: Ask, behaviour: act.Act, expected: type[StorageError], times: int
) -> None:
    private.on("GET", "/token", behaviour)
    repository = ask(private, **USER)
    for _ in range(5):
        with pytest.raises(expected):
            await repository.get_manifest(LATEST)
    assert private.count("GET", "/token") == times


# Where credentials go


EVIL_REALMS = {
    "other port": "http://127.0.0.1:{evil}/token",
    "other name of the same host": "http://localhost:{evil}/token",
    "user in front": "http://127.0.0.1:{own}@127.0.0.1:{evil}/token",
    "metadata": "http://169.254.169.254/latest",
    "ipv6": "http://[::1]:{evil}/token",
    "mapped": "http://[::ffff:127.0.0.1]:{evil}/token",
    "file": "file:///etc/passwd",
    "relative": "/token",
    "backslash": "http://127.0.0.1:{evil}\\\\@127.0.0.1:{own}/",
}


@pytest.mark.parametrize("anonymous", [True, False])
@pytest.mark.parametrize("realm", EVIL_REALMS)
async def test_realms_that_are_not_allowed(
    private: Scripted, other: Scripted, ask: Ask, realm: str, anonymous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """P1: nothing reaches the other server, and nothing is said of passwords."""
    private.realm = EVIL_REALMS[realm].format(evil=other.port, own=private.port)
    with pytest.raises(UpstreamUnavailable), caplog.at_level(logging.DEBUG):
        await ask(private, **({} if anonymous else USER)).get_manifest(LATEST)
    assert other.connections == 0
    assert private.issued == 0
    assert PASSWORD not in caplog.text


async def test_a_realm_that_is_listed(private: Scripted, other: Scripted, ask: Ask) -> None:
    other.users = private.users
    private.realm = f"{other.url}/token"
    private.tokens = other.tokens
    await ask(private, **USER, realms=(f"127.0.0.1:{other.port}",)).get_manifest(LATEST)
    assert other.issued == 1


async def test_two_challenges_with_two_realms(private: Scripted, other: Scripted, ask: Ask) -> None:
    evil = f'Bearer realm="{private.url}/token", Bearer realm="{other.url}/token"'
    private.on("GET", "/v2/", act.status(401, WWW_Authenticate=evil))
    with pytest.raises(UpstreamUnavailable):
        await ask(private, **USER).get_manifest(LATEST)
    assert not private.secrets_seen + other.secrets_seen


async def test_a_challenge_on_403_is_not_answered(private: Scripted, ask: Ask) -> None:
    private.on("GET", "/v2/", act.error(403, "DENIED", WWW_Authenticate=f'Bearer realm="{private.url}/token"'))
    with pytest.raises(UpstreamDenied):
        await ask(private, **USER).get_manifest(LATEST)
    assert not private.secrets_seen


async def test_a_redirect_of_the_token_server_is_not_followed(private: Scripted, other: Scripted, ask: Ask) -> None:
    private.on("GET", "/token", act.redirect(f"{other.url}/token"))
    with pytest.raises(UpstreamUnavailable):
        await ask(private, **USER, privatenetworks=True).get_manifest(LATEST)
    assert other.connections == 0


async def test_secrets_show_nowhere(private: Scripted, ask: Ask, caplog: pytest.LogCaptureFixture) -> None:
    """S11: neither in a log at its most talkative, nor in errors or reprs."""
    private.on("GET", "/v2/a/b/manifests/gone", act.status(500))
    repository = ask(private, **USER)
    with caplog.at_level(logging.DEBUG):
        await repository.get_manifest(LATEST)
        with pytest.raises(UpstreamUnavailable) as caught:
            await repository.get_manifest(Tag("gone"))
        private.revoke()
        private.users.clear()
        with pytest.raises(StorageError):
            await repository.get_manifest(LATEST)
    upstream = repository._upstream
    ticket = await upstream._keeper.get()
    shown = caplog.text + repr(caught.value) + repr(upstream.config) + repr(ticket) + repr(upstream.state())
    shown += repr(vars(upstream._login)) + repr([vars(record) for record in caplog.records])
    assert PASSWORD not in shown
    assert f"token-{private.port}" not in shown
    assert ticket.basic() is not None
    assert str(ticket.basic()).removeprefix("Basic ") not in shown


# Redirects


async def test_a_blob_from_a_cdn(private: Scripted, other: Scripted, ask: Ask) -> None:
    """P2: no secret, no cookie goes there; the presigned query arrives as it was written."""
    target = "/cdn/x%2Fy?X-Amz-Signature=a%2Bb/c%3D&e=1+2"
    private.on("GET", "/v2/a/b/blobs/", act.redirect(other.url + target, Set_Cookie="session=canary; Path=/"))
    private.on("GET", "/v2/a/b/blobs/", act.challenge, times=1)
    other.on("GET", "/cdn/", act.data(DATA))
    repository = ask(private, **USER, privatenetworks=True)
    for start in (0, 1000):
        stream = await repository.open_stream(Digest.of(DATA), start)
        assert b"".join([chunk async for chunk in stream.chunks()]) == DATA[start:]
        await stream.aclose()
    assert [seen.target for seen in other.requests] == [target, target]
    assert not other.secrets_seen
    assert other.requests[1].headers["range"] == "bytes=1000-"
    assert "canary" not in str(private.requests)
    assert set(other.requests[0].headers) == {"host", "accept", "accept-encoding", "user-agent"}


async def test_a_manifest_behind_a_redirect(private: Scripted, other: Scripted, ask: Ask) -> None:
    """registry.k8s.io does so. The upstream is asked once: it may count."""
    digest = other.image("a/b", "latest")
    private.login = ""
    private.on("*", "/v2/a/b/", act.redirect(f"{other.url}/v2/a/b/manifests/latest"))
    repository = ask(private, **USER, privatenetworks=True)
    assert (await repository.get_manifest(LATEST)).digest == digest
    head = await repository.head_manifest(LATEST)
    assert head is not None
    assert head.digest == digest
    assert not other.secrets_seen
    assert len(private.requests) == len(other.requests) == 2


async def test_authorization_goes_on_to_the_same_origin(private: Scripted, ask: Ask) -> None:
    private.on("GET", "/v2/a/b/blobs/", act.redirect("/v2/c/d/blobs/" + str(Digest.of(DATA)), 302))
    private.blob("c/d", DATA)
    stream = await ask(private, **USER).open_stream(Digest.of(DATA))
    assert b"".join([chunk async for chunk in stream.chunks()]) == DATA


async def test_authorization_is_not_sent_once_it_went_elsewhere(private: Scripted, other: Scripted, ask: Ask) -> None:
    digest = private.blob("a/b", DATA)
    repository = ask(private, **USER, privatenetworks=True)
    await repository.stat_blob(digest)  # a token is there
    private.on("GET", "/v2/a/b/blobs/", act.redirect(f"{other.url}/x"))
    private.on("GET", f"/v2/a/b/blobs/{digest}?back", act.serve)
    other.on("GET", "/x", act.redirect(f"{private.url}/v2/a/b/blobs/{digest}?back"))
    with pytest.raises(UpstreamUnavailable):
        await repository.open_stream(digest)
    back = next(seen for seen in private.requests if seen.target.endswith("?back"))
    assert "authorization" not in back.headers


TARGETS = {
    "loopback": "http://127.0.0.1:{port}/",
    "by name": "http://localhost:{port}/",
    "mapped": "http://[::ffff:127.0.0.1]:{port}/",
    "short form": "http://127.1:{port}/",
    "number": "http://2130706433:{port}/",
    "hexadecimal": "http://0x7f000001:{port}/",
    "metadata": "http://169.254.169.254/latest/meta-data/",
    "file": "file:///etc/passwd",
    "ftp": "ftp://127.0.0.1:{port}/",
    "user": "http://user:word@127.0.0.1:{port}/",
    "any": "http://0.0.0.0:{port}/",
    "nothing": "http://:{port}/",
    "bad port": "http://127.0.0.1:99999/",
}


@pytest.mark.parametrize("kind", ["blob", "manifest"])
@pytest.mark.parametrize("target", TARGETS)
async def test_redirects_into_the_machine(
    hub: Scripted, other: Scripted, ask: Ask, target: str, kind: str, clock: Clock
) -> None:
    """P3: no connection, a 502."""
    hub.on("GET", "/v2/", act.redirect(TARGETS[target].format(port=other.port)))
    repository = ask(hub)
    began = clock.now
    with pytest.raises(UpstreamUnavailable):
        await (repository.get_manifest(LATEST) if kind == "manifest" else repository.open_blob(Digest.of(b"")))
    assert other.connections == 0
    assert clock.now == began, "not tried again"


async def test_metadata_stays_out_of_reach_with_private_networks(hub: Scripted, ask: Ask) -> None:
    hub.on("GET", "/v2/", act.redirect("http://169.254.169.254/latest"))
    with pytest.raises(UpstreamUnavailable, match="not allowed"):
        await ask(hub, privatenetworks=True).open_blob(Digest.of(b""))


async def test_redirects_in_circles(hub: Scripted, ask: Ask) -> None:
    hub.on("GET", "/v2/", act.redirect("/v2/a/b/blobs/" + str(Digest.of(b""))))
    with pytest.raises(UpstreamUnavailable, match="circles"):
        await ask(hub).open_blob(Digest.of(b""))
    assert len(hub.requests) == 6


@pytest.mark.parametrize("status", [400, 401, 403, 410])
async def test_a_presigned_url_that_has_expired(hub: Scripted, other: Scripted, ask: Ask, status: int) -> None:
    """F30: the upstream is asked for another, once; a CDN's refusal is a fault and no 404."""
    hub.on("GET", "/v2/", act.redirect(f"{other.url}/x"))
    other.on("GET", "/x", act.data(DATA))
    challenge = 'Bearer realm="http://evil.example/token"'
    other.on("GET", "/x", act.status(status, WWW_Authenticate=challenge), times=1)
    repository = ask(hub, privatenetworks=True, **USER)
    stream = await repository.open_stream(Digest.of(DATA))
    await stream.aclose()
    assert (len(hub.requests), len(other.requests)) == (2, 2)
    other.on("GET", "/x", act.status(status, WWW_Authenticate=challenge))
    with pytest.raises(UpstreamUnavailable):
        await repository.open_stream(Digest.of(DATA))


@pytest.mark.parametrize("status", [404, 429, 500, 503])
async def test_faults_of_a_cdn_are_not_the_upstreams(hub: Scripted, other: Scripted, ask: Ask, status: int) -> None:
    """They are faults, and the upstream goes on being asked for manifests."""
    hub.image("a/b", "latest")
    hub.on("GET", "/v2/a/b/blobs/", act.redirect(f"{other.url}/x"))
    other.on("GET", "/x", act.status(status))
    repository = ask(hub, privatenetworks=True)
    for _ in range(10):
        with pytest.raises(UpstreamUnavailable) as caught:
            await repository.open_stream(Digest.of(DATA))
        assert not isinstance(caught.value, TooManyRequests)
    await repository.get_manifest(LATEST)


async def test_a_dead_cdn(hub: Scripted, ask: Ask) -> None:
    async with scripted() as gone:
        dead = gone.url
    hub.image("a/b", "latest")
    hub.on("GET", "/v2/a/b/blobs/", act.redirect(f"{dead}/x"))
    repository = ask(hub, privatenetworks=True)
    for _ in range(3):
        with pytest.raises(UpstreamUnavailable):
            await repository.open_stream(Digest.of(DATA))
    await repository.get_manifest(LATEST)


# TLS


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def bundle(ca: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return str(path)


def server_context(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return context


async def test_https(ca: trustme.CA, bundle: str, ask: Ask) -> None:
    async with scripted(server_context(ca), login="bearer") as hub:
        digest = hub.blob("a/b", DATA)
        hub.image("a/b", "latest")
        repository = ask(hub, tls=UpstreamTLSConfig(ca=bundle))
        await repository.get_manifest(LATEST)
        async with await repository.open_blob(digest) as reader:
            assert b"".join([chunk async for chunk in reader.chunks()]) == DATA


@pytest.mark.parametrize("kind", ["blob", "manifest"])
async def test_a_certificate_that_nobody_signed(ca: trustme.CA, ask: Ask, kind: str) -> None:
    async with scripted(server_context(ca)) as hub:
        digest = hub.blob("a/b", DATA)
        hub.image("a/b", "latest")
        repository = ask(hub)
        with pytest.raises(UpstreamUnavailable):
            await (repository.get_manifest(LATEST) if kind == "manifest" else repository.open_blob(digest))
        repository = ask(hub, tls=UpstreamTLSConfig(skipverify=True))
        await repository.get_manifest(LATEST)
        await (await repository.open_blob(digest)).aclose()


async def test_skipverify_covers_one_host_only(ca: trustme.CA, ask: Ask) -> None:
    """P5: neither the token server nor the CDN. They listen under another name of this machine."""
    async with scripted(server_context(ca)) as hub, scripted(server_context(ca)) as other:
        elsewhere = f"https://127.0.0.1:{other.port}"
        hub.on("GET", "/v2/a/b/blobs/", act.redirect(f"{elsewhere}/x"))
        repository = ask(hub, tls=UpstreamTLSConfig(skipverify=True), privatenetworks=True, realms=(elsewhere,), **USER)
        with pytest.raises(UpstreamUnavailable):
            await repository.open_blob(Digest.of(DATA))
        hub.login, hub.realm = "bearer", f"{elsewhere}/token"
        with pytest.raises(UpstreamUnavailable):
            await repository.get_manifest(LATEST)
        assert other.requests == []


async def test_https_is_not_left(ca: trustme.CA, bundle: str, other: Scripted, ask: Ask) -> None:
    async with scripted(server_context(ca)) as hub:
        settings = {"tls": UpstreamTLSConfig(ca=bundle), "privatenetworks": True, **USER}
        hub.on("GET", "/v2/", act.redirect(f"{other.url}/x"))
        with pytest.raises(UpstreamUnavailable, match="not allowed"):
            await ask(hub, **settings).open_blob(Digest.of(DATA))
        hub.rules.clear()
        hub.login, hub.realm = "bearer", f"{other.url}/token"
        with pytest.raises(UpstreamUnavailable):
            await ask(hub, **settings, realms=(other.url,)).get_manifest(LATEST)
        assert other.connections == 0


# Limits, faults and the breaker


async def test_429_is_passed_on_and_not_asked_again(hub: Scripted, ask: Ask, clock: Clock) -> None:
    """F26. Docker Hub counts manifests: blobs go on."""
    hub.image("a/b", "latest")
    digest = hub.blob("a/b", DATA)
    hub.on("*", "/v2/a/b/manifests/", act.error(429, "TOOMANYREQUESTS", Retry_After="90"), times=1)
    repository = ask(hub)
    for _ in range(10):
        with pytest.raises(TooManyRequests) as caught:
            await repository.get_manifest(LATEST)
        assert caught.value.retry_after == 90
    assert len(hub.requests) == 1
    assert repository._upstream.state().left == 90
    await repository.stat_blob(digest)
    clock.now += 91
    await repository.get_manifest(LATEST)


async def test_429_without_retry_after_waits_longer_each_time(hub: Scripted, ask: Ask, clock: Clock) -> None:
    hub.on("*", "/v2/a/b/manifests/", act.error(429, "TOOMANYREQUESTS"))
    repository = ask(hub)
    waits = []
    for _ in range(4):
        with pytest.raises(TooManyRequests) as caught:
            await repository.get_manifest(LATEST)
        assert caught.value.retry_after is not None
        waits.append(caught.value.retry_after)
        clock.now += caught.value.retry_after
    assert waits == [5.0, 10.0, 20.0, 40.0]


async def test_the_rate_limit_is_known(hub: Scripted, ask: Ask) -> None:
    hub.image("a/b", "latest")
    hub.rate = {
        "RateLimit_Limit": "100;w=21600",
        "RateLimit_Remaining": "76;w=21600",
        "Docker_RateLimit_Source": "192.0.2.7",
    }
    repository = ask(hub)
    await repository.head_manifest(LATEST)
    state = repository._upstream.state()
    assert state.reachable
    limit = state.rate_limit
    assert limit is not None
    assert (limit.limit, limit.remaining, limit.window, limit.source) == (100, 76, 21600, "192.0.2.7")


async def test_what_passes_is_asked_again(hub: Scripted, ask: Ask, clock: Clock) -> None:
    hub.image("a/b", "latest")
    hub.on("*", "/v2/", act.status(502), times=1)
    hub.on("*", "/v2/", act.reset(), times=1)
    began = clock.now
    await ask(hub).get_manifest(LATEST)
    assert len(hub.requests) == 3
    assert clock.now - began == pytest.approx(0.2 + 0.4)


async def test_an_upstream_that_is_down_is_left_alone(hub: Scripted, ask: Ask, clock: Clock) -> None:
    """F27: quickly refused, tried now and then, and found again."""
    hub.image("a/b", "latest")
    hub.on("*", "/v2/", act.status(500))
    repository = ask(hub)
    for _ in range(5):
        with pytest.raises(UpstreamUnavailable):
            await repository.get_manifest(LATEST)
    assert not repository._upstream.state().reachable
    before = len(hub.requests)
    with pytest.raises(UpstreamBusy) as caught:
        await repository.get_manifest(LATEST)
    assert caught.value.retry_after is not None
    assert len(hub.requests) == before
    hub.rules.clear()
    clock.now += caught.value.retry_after
    await repository.get_manifest(LATEST)
    assert repository._upstream.state().reachable


async def test_a_login_that_breaks_off_is_tried_once_more(private: Scripted, ask: Ask) -> None:
    private.on("GET", "/token", act.reset(), times=1)
    await ask(private, **USER).get_manifest(LATEST)


async def test_who_leaves_in_the_middle_leaves_nothing_behind(hub: Scripted, ask: Ask) -> None:
    """F33: a question that is cancelled ends its connection, and says nothing of the upstream."""
    arrived = asyncio.Event()

    async def hang(exchange: act.Exchange) -> None:
        arrived.set()
        await exchange.hub.release.wait()

    digest = hub.blob("a/b", DATA)
    repository = ask(hub)
    for prefix in ("/v2/a/b/manifests/", "/v2/a/b/blobs/"):
        hub.on("GET", prefix, hang, times=10)
    for _ in range(10):
        for call in (repository.get_manifest(LATEST), repository.open_blob(digest)):
            arrived.clear()
            task = asyncio.create_task(call)
            await arrived.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    async with await repository.open_blob(digest) as reader:
        assert b"".join([chunk async for chunk in reader.chunks()]) == DATA


async def test_an_upstream_that_is_not_there(ask: Ask) -> None:
    """It is made, and asked, without being there."""
    async with scripted() as hub:
        pass
    repository = ask(hub)
    for call in (repository.get_manifest(LATEST), repository.stat_blob(Digest.of(b"")), repository.all_tags()):
        with pytest.raises(UpstreamUnavailable):
            await call


async def test_a_name_that_does_not_resolve(ask: Ask, hub: Scripted) -> None:
    repository = ask(hub, url="https://moorage.invalid")
    with pytest.raises(UpstreamUnavailable):
        await repository.get_manifest(LATEST)
    with pytest.raises(UpstreamUnavailable):
        await repository.open_blob(Digest.of(b""))


@pytest.mark.slow
async def test_large_answers_do_not_count_against_the_upstream(hub: Scripted, ask: Ask) -> None:
    """Who chooses the tag must not be able to have the upstream left alone for everyone."""
    hub.on("GET", "/v2/a/b/manifests/large", act.body(b" " * (5 << 20), "application/json"))
    hub.image("a/b", "latest")
    repository = ask(hub)
    for _ in range(10):
        with pytest.raises(UpstreamUnavailable):
            await repository.get_manifest(Tag("large"))
    await repository.get_manifest(LATEST)
    assert len(hub.requests) == 11


async def test_ping(hub: Scripted, ask: Ask) -> None:
    await ask(hub)._upstream.ping()
    hub.login = "basic"
    with pytest.raises(UpstreamDenied):
        await ask(hub)._upstream.ping()
    hub.on("GET", "/v2/", act.status(404))
    with pytest.raises(UpstreamUnavailable):
        await ask(hub)._upstream.ping()


async def test_through_a_proxy(hub: Scripted, other: Scripted, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """HTTP_PROXY and NO_PROXY, for small answers and for bodies."""
    digest = hub.blob("a/b", DATA)
    monkeypatch.setenv("http_proxy", other.url)
    other.image("a/b", "latest")

    async def forward(exchange: act.Exchange) -> None:
        await act.content(exchange, DATA)

    other.on("GET", "http://upstream.example/v2/a/b/blobs/", forward)
    other.on("GET", "http://upstream.example/v2/a/b/manifests/", act.body(act.EMPTY, "application/json"))
    repository = ask(hub, url="http://upstream.example", deadlines=PATIENT)
    await repository.get_manifest(LATEST)
    stream = await repository.open_stream(digest)
    assert b"".join([chunk async for chunk in stream.chunks()]) == DATA
    await stream.aclose()
    assert hub.requests == []
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert await ask(hub).stat_blob(digest) == len(DATA)
    assert len(hub.requests) == 1

"""Credentials from botocore's chain: each source of it, refreshed while requests go on."""

import asyncio
import json
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest

from storage.drivers.s3.credentials import AHEAD, LAST, PAUSE, Chain, Fixed, Source, fetch_from_chain
from storage.drivers.s3.rest import source_of
from storage.drivers.s3.settings import S3Settings
from storage.drivers.s3.sign import Credentials
from storage.errors import Unavailable
from tests.storage.s3.metadata import Metadata, forget_this_machine, instance, text_of
from tests.storage.s3.scripted import Captured, Reply, bucket_over, fault, scripted


@pytest.fixture(autouse=True)
def nothing_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    forget_this_machine(tmp_path, monkeypatch)
    return tmp_path


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Scene:
    """A fetch that can be held, counted and told what to give."""

    def __init__(self, *gives: Credentials | Exception | None) -> None:
        self.gives, self.fetched = list(gives), 0
        self.held = threading.Event()
        self.held.set()

    def __call__(self) -> Credentials | None:
        self.fetched += 1
        assert self.held.wait(10)
        found = self.gives.pop(0) if len(self.gives) > 1 else self.gives[0]
        if isinstance(found, Exception):
            raise found
        return found


def lasting(seconds: float, name: str = "A") -> Credentials:
    return Credentials(name, "s", "t", 1_000_000.0 + seconds)


async def until_new(source: Chain, clock: Clock | None = None, step: float = 0.0) -> None:
    """The fetch ends in a thread: look again and again, while the clock goes on."""
    async with asyncio.timeout(10):
        while (await source.get()).access_key == "A":
            await asyncio.sleep(0)
            if clock is not None:
                clock.now += step


@pytest.fixture
def clock() -> Clock:
    return Clock()


def chain(scene: Scene, clock: Clock) -> Chain:
    return Chain(scene, wall=clock, monotonic=clock)


# Where they come from


async def test_keys_of_the_settings_come_first() -> None:
    settings = S3Settings.parse({"bucket": "b", "region": "r", "accesskey": "A", "secretkey": "S", "sessiontoken": "T"})
    source = source_of(settings)
    assert isinstance(source, Fixed)
    assert await source.get() == Credentials("A", "S", "T")
    assert await source.renew(await source.get()) == Credentials("A", "S", "T")
    await source.aclose()


async def test_without_keys_the_chain_is_asked() -> None:
    source: Source = source_of(S3Settings.parse({"bucket": "b", "region": "r"}))
    assert isinstance(source, Chain)
    await source.aclose()


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "A")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "S")
    assert fetch_from_chain() == Credentials("A", "S", "")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "T")
    assert fetch_from_chain() == Credentials("A", "S", "T")


def test_a_profile_and_its_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "credentials"
    file.write_text(
        "[default]\naws_access_key_id=D\naws_secret_access_key=S\n[other]\naws_access_key_id=O\naws_secret_access_key=S\n"
    )
    assert fetch_from_chain() == Credentials("D", "S")
    monkeypatch.setenv("AWS_PROFILE", "other")
    assert fetch_from_chain() == Credentials("O", "S")
    file.write_text("[other]\naws_access_key_id=O2\naws_secret_access_key=S\n")
    assert fetch_from_chain() == Credentials("O2", "S")


def test_none_at_all() -> None:
    assert fetch_from_chain() is None


async def test_the_role_of_an_instance(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    async with instance(Metadata(2_000_000_000.0), monkeypatch) as server:
        assert await Chain().get() == Credentials("ASIA1", "s", "t1", 2_000_000_000.0)
    assert [(each.method, each.path.rsplit("/", 1)[1]) for each in server.asked] == [
        ("PUT", "token"),
        ("GET", ""),
        ("GET", "the-role"),
    ]


@pytest.mark.parametrize("from_file", [False, True])
async def test_the_role_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, from_file: bool) -> None:
    """ECS and EKS pod identity: a URL and what authorises asking it, in variables or in a file that changes."""
    end = text_of(2_000_000_000.0)

    def serve(request: Captured) -> Reply:
        name = request.headers["authorization"]
        found = {"AccessKeyId": name, "SecretAccessKey": "s", "Token": "t", "Expiration": end}
        return Reply(body=json.dumps(found).encode(), headers={"Content-Type": "application/json"})

    async with scripted(serve) as server:
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://127.0.0.1:{server.port}/creds")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "first")
        if from_file:
            monkeypatch.delenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", str(tmp_path / "token"))
            (tmp_path / "token").write_text("first")
        source = Chain()
        found = await source.get()
        assert found == Credentials("first", "s", "t", 2_000_000_000.0)
        if from_file:
            (tmp_path / "token").write_text("second")
        else:
            monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "second")
        assert (await source.renew(found)).access_key == "second"


@pytest.mark.slow
async def test_a_web_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("the-identity")
    answer = (
        '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
        "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAW</AccessKeyId>"
        "<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2033-05-18T03:33:20Z</Expiration>"
        "</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    )
    renewed = answer.replace("ASIAW", "ASIAX")
    async with scripted([Reply(body=answer.encode()), Reply(body=renewed.encode())]) as sts:
        monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
        monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/puller")
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{sts.port}")
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        source = Chain()
        found = await source.get()
        assert found == Credentials("ASIAW", "s", "t", 2_000_000_000.0)
        (tmp_path / "token").write_text("the-next-one")  # as EKS does each day
        assert (await source.renew(found)).access_key == "ASIAX"
    assert b"WebIdentityToken=the-identity" in sts.asked[0].body
    assert b"WebIdentityToken=the-next-one" in sts.asked[1].body


# When they are fetched


async def test_nothing_is_fetched_before_it_is_needed_and_then_once(clock: Clock) -> None:
    scene = Scene(lasting(3600))
    source = chain(scene, clock)
    assert scene.fetched == 0
    scene.held.clear()
    askers = [asyncio.create_task(source.get()) for _ in range(10)]
    await asyncio.sleep(0)
    askers[0].cancel()
    scene.held.set()
    found = await asyncio.gather(*askers, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [lasting(3600)] * 9
    assert scene.fetched == 1


async def test_old_ones_serve_while_new_ones_are_fetched(clock: Clock) -> None:
    scene = Scene(lasting(AHEAD + 1), lasting(7200, "B"))
    source = chain(scene, clock)
    assert (await source.get()).access_key == "A"
    clock.now += 2
    scene.held.clear()
    assert [(await source.get()).access_key for _ in range(3)] == ["A"] * 3
    scene.held.set()
    await until_new(source)
    assert scene.fetched == 2
    await source.aclose()


async def test_ones_that_nobody_has_newer_of_yet_are_asked_for_now_and_then(clock: Clock) -> None:
    """An instance's service has newer keys some five minutes before the end; requests go on with the old ones."""
    scene = Scene(lasting(AHEAD - 1), lasting(AHEAD - 1), lasting(AHEAD - 1), lasting(7200, "B"))
    source = chain(scene, clock)
    for fetched in (2, 3):
        while scene.fetched < fetched or source._task is not None:
            assert (await source.get()).access_key == "A"
            await asyncio.sleep(0)
        for _ in range(50):
            assert (await source.get()).access_key == "A"
            await asyncio.sleep(0)
        assert scene.fetched == fetched
        clock.now += PAUSE
    await until_new(source)
    assert scene.fetched == 4
    await source.aclose()


async def test_the_last_seconds_of_ones_without_successors_are_used(clock: Clock) -> None:
    scene = Scene(lasting(LAST - 1))
    source = chain(scene, clock)
    assert [(await source.get()).access_key for _ in range(5)] == ["A"] * 5
    assert scene.fetched == 2


async def test_what_is_about_to_end_is_not_signed_with(clock: Clock) -> None:
    scene = Scene(lasting(LAST - 1), lasting(7200, "B"))
    source = chain(scene, clock)
    await source.get()
    assert (await source.get()).access_key == "B"


async def test_a_failed_fetch_is_not_repeated_at_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene(OSError("no route"), lasting(3600))
    source = chain(scene, clock)
    for _ in range(3):
        with pytest.raises(Unavailable, match="no credentials"):
            await source.get()
    assert (scene.fetched, caplog.text.count("no route")) == (1, 1)
    clock.now += PAUSE
    assert await source.get() == lasting(3600)


async def test_a_failed_refresh_leaves_the_old_ones(clock: Clock) -> None:
    scene = Scene(lasting(AHEAD - 1), OSError("no route"), lasting(7200, "B"))
    source = chain(scene, clock)
    assert (await source.get()).access_key == "A"
    while scene.fetched < 2:
        assert (await source.get()).access_key == "A"
        await asyncio.sleep(0)
    await until_new(source, clock, PAUSE / 100)
    await source.aclose()


async def test_an_empty_chain_says_what_to_do(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Unavailable):
        await chain(Scene(None), clock).get()
    assert "set accesskey and secretkey, or give the machine a role" in caplog.text


async def test_a_close_does_not_wait_for_a_fetch(clock: Clock) -> None:
    scene = Scene(lasting(3600))
    scene.held.clear()
    source = chain(scene, clock)
    asker = asyncio.create_task(source.get())
    await asyncio.sleep(0)
    await source.aclose()
    with pytest.raises(asyncio.CancelledError):
        await asker
    scene.held.set()


async def test_several_may_renew_the_same_ones(clock: Clock) -> None:
    scene = Scene(lasting(3600), lasting(3600, "B"))
    source = chain(scene, clock)
    old = await source.get()
    found = await asyncio.gather(*(source.renew(old) for _ in range(5)))
    assert ([each.access_key for each in found], scene.fetched) == (["B"] * 5, 2)


# Through a bucket


@pytest.mark.parametrize(
    ("status", "code"), [(400, "ExpiredToken"), (403, "InvalidAccessKeyId"), (403, "SignatureDoesNotMatch")]
)
async def test_what_is_refused_is_renewed_and_the_call_repeated(clock: Clock, status: int, code: str) -> None:
    """Expired, or replaced in a profile by its owner."""

    def store(request: Captured) -> Reply:
        if "Credential=A/" in request.headers["authorization"]:
            return fault(status, code)
        assert request.headers["x-amz-security-token"] == "t"
        return Reply(body=b"hello")

    source = chain(Scene(lasting(3600), lasting(3600, "B")), clock)
    async with bucket_over(store, source=source, accesskey="", secretkey="") as (bucket, served):
        assert (await bucket.head("k")).size == 5
    assert len(served.asked) == 2


async def test_a_token_that_stays_expired_is_a_fault(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    source = chain(Scene(lasting(3600), lasting(3600, "B")), clock)
    async with bucket_over([fault(400, "ExpiredToken")], source=source, accesskey="", secretkey="") as (bucket, served):
        with pytest.raises(Unavailable):
            await bucket.get("k")
    assert len(served.asked) == 2
    assert "temporary credentials have expired" in caplog.text


async def test_refused_ones_that_have_no_successors_are_not_asked_for_at_every_call(clock: Clock) -> None:
    scene = Scene(lasting(3600))
    source = chain(scene, clock)
    async with bucket_over([fault(400, "ExpiredToken")], source=source, accesskey="", secretkey="") as (bucket, served):
        for _ in range(5):
            with pytest.raises(Unavailable):
                await bucket.get("k")
        assert (len(served.asked), scene.fetched) == (5, 2)
        clock.now += PAUSE
        with pytest.raises(Unavailable):
            await bucket.get("k")
        assert (len(served.asked), scene.fetched) == (6, 3)


async def test_a_url_does_not_outlive_the_credentials() -> None:
    source = Fixed(Credentials("A", "s", "t", time.time() + 120.9))
    async with bucket_over([Reply()], source=source) as (bucket, _):
        url = await bucket.presign("k", "GET", 1200)
        assert 118 <= int(url.partition("X-Amz-Expires=")[2].partition("&")[0]) <= 120
        assert "X-Amz-Security-Token=t" in url
    async with bucket_over([Reply()], source=Fixed(Credentials("A", "s", "t", time.time() - 1))) as (bucket, _):
        with pytest.raises(Unavailable, match="have expired"):
            await bucket.presign("k", "GET", 1200)


async def test_nor_where_our_clock_is_an_hour_behind() -> None:
    """Credentials end by the store's clock."""
    theirs = time.time() + 3600
    source = Fixed(Credentials("A", "s", "t", theirs + 120))
    async with bucket_over([Reply(headers={"Date": formatdate(theirs, usegmt=True)})], source=source) as (bucket, _):
        await bucket.head("k")
        url = await bucket.presign("k", "GET", 1200)
        assert 115 <= int(url.partition("X-Amz-Expires=")[2].partition("&")[0]) <= 121

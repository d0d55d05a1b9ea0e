"""Credentials that end while requests go on: in the middle of a push, under load, or changed by their owner.

The store is moto, which takes any keys; a relay before it refuses those that have ended, as Amazon would.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.api import Api, digest_of, with_query
from tests.s3.calls import Call
from tests.s3.registries import config_of, serving
from tests.s3.relay import FOREVER, Fault, Relay
from tests.s3.servers import S3Server
from tests.storage.s3.metadata import Metadata, forget_this_machine, instance

pytestmark = pytest.mark.slow

NAME = "team/rotated"
PARTS = 6 << 20
CHUNK = 5 << 20
_KEY = re.compile(r"Credential=(\w+)/")


class Ends:
    """The keys of the `after`-th call from now are good for nothing from that call on."""

    def __init__(self) -> None:
        self.ended: set[str] = set()
        self.seen: set[str] = set()
        self.after = 0

    def __call__(self, call: Call) -> bool:
        found = _KEY.search(call.headers.get("authorization", ""))
        assert found, f"{call} is not signed"
        self.seen.add(found[1])
        self.after -= 1
        if self.after == 0:
            self.ended.add(found[1])
        return found[1] in self.ended


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
async def relay(moto: S3Server, ends: Ends) -> AsyncIterator[Relay]:
    async with Relay(moto.endpoint) as relay:
        relay.inject(Fault("answer", times=FOREVER, where=ends, status=400, code="ExpiredToken"))
        yield relay


@pytest.fixture
async def api(
    moto: S3Server, relay: Relay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Api, Metadata]]:
    """A registry on an instance with a role, and who gives that role its keys: others each time."""
    forget_this_machine(tmp_path, monkeypatch)
    service = Metadata(4_000_000_000.0)
    async with instance(service, monkeypatch), serving(config_of(without_keys(moto, relay))) as api:
        yield api, service


def without_keys(moto: S3Server, relay: Relay) -> dict[str, object]:
    found = moto.parameters(*moto.new_root(), endpoint=relay.endpoint) | {"chunksize": CHUNK}
    return {name: value for name, value in found.items() if name not in ("accesskey", "secretkey")}


def content(number: int, size: int) -> bytes:
    return number.to_bytes(8, "big") * (size // 8)


async def push(api: Api, data: bytes, *, streamed: bool) -> None:
    location = await api.start(NAME)
    if streamed:
        sent = await api.http.patch(location, content=data)
        assert sent.status_code == 202, sent.text
        location, data_left = sent.headers["Location"], b""
    else:
        data_left = data
    done = await api.http.put(with_query(location, digest=digest_of(data)), content=data_left)
    assert done.status_code == 201, done.text


async def pull(api: Api, data: bytes) -> None:
    found = await api.get(f"/v2/{NAME}/blobs/{digest_of(data)}")
    assert (found.status_code, found.content == data) == (200, True)


@pytest.mark.parametrize("streamed", [False, True], ids=["known", "streamed"])
async def test_at_every_call_of_a_push_and_a_pull(api: tuple[Api, Metadata], ends: Ends, streamed: bool) -> None:
    registry, service = api
    call = 0
    while ends.after <= 0:  # the last round was long enough to meet it
        call += 1
        ends.after, data = call, content(call, PARTS)
        await push(registry, data, streamed=streamed)
        await pull(registry, data)
    assert len(ends.ended) == call - 1 >= 8
    assert service.served == call, "one fetch for each that ended, and the first"


async def test_under_load_one_fetch_serves_all(api: tuple[Api, Metadata], ends: Ends) -> None:
    registry, service = api
    blobs = [content(number, 64 << 10) for number in range(100, 140)]

    async def client(mine: list[bytes]) -> None:
        for data in mine:
            await push(registry, data, streamed=False)
            if ends.after <= 0:
                ends.after = 30
            await pull(registry, data)

    await asyncio.gather(*(client(blobs[n::8]) for n in range(8)))
    assert len(ends.ended) >= 4
    assert service.served == len(ends.seen) <= len(ends.ended) + 1


async def test_keys_that_their_owner_has_changed(
    moto: S3Server, ends: Ends, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a profile, whose file has the new ones; the store does not know the old ones any more."""
    forget_this_machine(tmp_path, monkeypatch)
    profile = "[default]\naws_access_key_id={}\naws_secret_access_key=s\n"
    (tmp_path / "credentials").write_text(profile.format("OLD"))
    async with Relay(moto.endpoint) as relay:
        relay.inject(Fault("answer", times=FOREVER, where=ends, status=403, code="InvalidAccessKeyId"))
        async with serving(config_of(without_keys(moto, relay))) as api:
            await push(api, content(1, 1000), streamed=False)
            ends.ended.add("OLD")
            (tmp_path / "credentials").write_text(profile.format("NEW"))
            assert (await api.http.head(f"/v2/{NAME}/blobs/{digest_of(content(1, 1000))}")).status_code == 200
            await push(api, content(2, 1000), streamed=False)
    assert ends.seen == {"OLD", "NEW"}

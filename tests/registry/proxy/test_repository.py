"""Reading from an upstream that behaves, and from one that does not: rows P6, P7, P11, F27 to F30 of the design."""

import asyncio
import json

import pytest

from storage.digest import Digest
from storage.driver import ObjectReader
from storage.errors import (
    BlobUnknown,
    ManifestUnknown,
    RangeNotSatisfiable,
    RepositoryUnknown,
    UpstreamBusy,
    UpstreamDenied,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from storage.manifest import IMAGE_INDEX, IMAGE_MANIFEST
from storage.names import Tag, parse_tag
from storage.ranges import RangeRequest

from . import scripted as act
from .conftest import FAST, Ask
from .scripted import EMPTY, Act, Scripted, manifest

DATA = bytes(range(256)) * 40
LATEST = Tag("latest")
NOWHERE = Digest.of(b"nowhere")


async def read(reader: ObjectReader) -> bytes:
    async with reader:
        return b"".join([chunk async for chunk in reader.chunks()])


# A good upstream


@pytest.mark.parametrize("by", ["tag", "digest"])
async def test_manifest(hub: Scripted, ask: Ask, by: str) -> None:
    digest = hub.image("a/b", "latest")
    found = await ask(hub).get_manifest(LATEST if by == "tag" else digest)
    assert (found.digest, found.media_type, found.body) == (digest, IMAGE_MANIFEST, EMPTY)
    assert {IMAGE_MANIFEST, IMAGE_INDEX} <= set(hub.requests[0].headers["accept"].split(", "))
    assert hub.requests[0].headers["accept-encoding"] == "identity"


async def test_manifest_under_condition(hub: Scripted, ask: Ask) -> None:
    hub.image("a/b", "latest")
    repository = ask(hub)
    first = await repository.fetch_manifest(LATEST)
    assert first is not None
    assert await repository.fetch_manifest(LATEST, first.etag) is None
    assert await repository.head_manifest(LATEST, first.etag) is None
    moved = hub.image("a/b", "latest", manifest(1))
    head = await repository.head_manifest(LATEST, first.etag)
    assert head is not None
    assert (head.digest, head.size, head.etag) == (moved, len(manifest(1)), f'"{moved}"')


async def test_unknown_is_what_the_upstream_says(hub: Scripted, ask: Ask) -> None:
    repository = ask(hub)
    with pytest.raises(ManifestUnknown):
        await repository.get_manifest(LATEST)
    with pytest.raises(ManifestUnknown):
        await repository.head_manifest(LATEST)
    with pytest.raises(BlobUnknown):
        await repository.stat_blob(NOWHERE)
    with pytest.raises(BlobUnknown):
        await repository.open_blob(NOWHERE)
    with pytest.raises(RepositoryUnknown):
        await repository.all_tags()


async def test_blob(hub: Scripted, ask: Ask) -> None:
    digest = hub.blob("a/b", DATA)
    repository = ask(hub)
    assert await repository.stat_blob(digest) == len(DATA)
    reader = await repository.open_blob(digest)
    assert (reader.size, len(reader.span), reader.file) == (len(DATA), len(DATA), None)
    assert await read(reader) == DATA
    assert await repository.blob_url(digest, "GET") is None


RANGES = {
    "first": (RangeRequest(0, 100), DATA[:100]),
    "middle": (RangeRequest(500, 700), DATA[500:700]),
    "to the end": (RangeRequest(9000), DATA[9000:]),
    "beyond": (RangeRequest(10000, 99999), DATA[10000:]),
    "suffix": (RangeRequest(suffix=17), DATA[-17:]),
    "all": (RangeRequest(0), DATA),
}


@pytest.mark.parametrize("knows", [True, False], ids=["upstream-knows-range", "upstream-ignores-range"])
@pytest.mark.parametrize("name", RANGES)
async def test_range(hub: Scripted, ask: Ask, name: str, knows: bool) -> None:
    digest = hub.blob("a/b", DATA)
    if not knows:
        hub.on("GET", "/v2/a/b/blobs/", act.body(DATA))
    wanted, expected = RANGES[name]
    reader = await ask(hub).open_blob(digest, wanted)
    assert (reader.size, len(reader.span)) == (len(DATA), len(expected))
    assert await read(reader) == expected


@pytest.mark.parametrize("knows", [True, False])
async def test_range_outside(hub: Scripted, ask: Ask, knows: bool) -> None:
    digest = hub.blob("a/b", DATA)
    if not knows:
        hub.on("GET", "/v2/a/b/blobs/", act.body(DATA))
    with pytest.raises(RangeNotSatisfiable) as caught:
        await ask(hub).open_blob(digest, RangeRequest(len(DATA), len(DATA) + 1))
    assert caught.value.size == len(DATA)


async def test_resume(hub: Scripted, ask: Ask) -> None:
    """What a fetch needs to go on: the total, an ETag, and where the bytes begin."""
    digest = hub.blob("a/b", DATA)
    stream = await ask(hub).open_stream(digest, 4000)
    assert (stream.extent.start, stream.extent.stop, stream.extent.total) == (4000, len(DATA), len(DATA))
    assert stream.etag == '"x"'
    assert b"".join([chunk async for chunk in stream.chunks()]) == DATA[4000:]
    await stream.aclose()


async def test_empty_blob(hub: Scripted, ask: Ask) -> None:
    digest = hub.blob("a/b", b"")
    assert await read(await ask(hub).open_blob(digest)) == b""


async def test_blob_of_unknown_length(hub: Scripted, ask: Ask) -> None:
    """Chunked: its size is asked for."""
    digest = hub.blob("a/b", DATA)
    hub.on("GET", "/v2/a/b/blobs/", act.chunked(DATA))
    reader = await ask(hub).open_blob(digest)
    assert reader.size == len(DATA)
    assert await read(reader) == DATA


async def test_tags_over_pages(hub: Scripted, ask: Ask) -> None:
    tags = [f"v{number:03}" for number in range(7)]
    for tag in tags:
        hub.image("a/b", tag)
    hub.on("GET", "/v2/a/b/tags/list?n=1000", lambda exchange: act.serve_tags(_smaller(exchange), "a/b", ""))
    repository = ask(hub)
    assert await repository.all_tags() == tags
    page = await repository.list_tags("v001", 3)
    assert (page.names, page.more) == (["v002", "v003", "v004"], True)
    assert not (await repository.list_tags("v003", 3)).more


def _smaller(exchange: act.Exchange) -> act.Exchange:
    seen = exchange.seen
    target = seen.target.replace("n=1000", "n=3")
    return act.Exchange(
        exchange.hub, act.Seen(seen.method, target, seen.headers, seen.body, seen.connection), exchange.writer
    )


async def test_tags_that_nobody_could_pull_are_left_out(hub: Scripted, ask: Ask) -> None:
    hub.on("GET", "/v2/a/b/tags", act.body(b'{"tags": ["b", "../x", 7, "a", null, "a"]}', "application/json"))
    assert await ask(hub).all_tags() == ["a", "b"]
    hub.on("GET", "/v2/a/b/tags", act.body(b'{"tags": null}', "application/json"))
    assert await ask(hub).all_tags() == []


@pytest.mark.parametrize(
    "link", ["http://127.0.0.1:1/v2/a/b/tags/list", "/v2/a/b/tags/list?n=1000", "//evil/v2/", "/x"]
)
async def test_a_list_goes_on_at_the_same_upstream_only_and_ends(hub: Scripted, ask: Ask, link: str) -> None:
    page = act.body(b'{"tags": []}', "application/json", Link=f'<{link}>; rel="next"')
    hub.on("GET", "/v2/a/b/tags", page)
    with pytest.raises(UpstreamUnavailable):
        await ask(hub).all_tags()
    assert len(hub.requests) == 1


async def test_referrers(hub: Scripted, ask: Ask) -> None:
    subject = hub.image("a/b", "latest")
    body = {**json.loads(EMPTY), "subject": {"mediaType": IMAGE_MANIFEST, "digest": str(subject), "size": len(EMPTY)}}
    referrer = hub.image("a/b", "unused", json.dumps(body).encode())
    assert [each.digest for each in await ask(hub).list_referrers(subject)] == [referrer]


async def test_referrers_of_an_upstream_without_them(hub: Scripted, ask: Ask) -> None:
    """The fallback tag, and nothing where that is not there either."""
    hub.on("GET", "/v2/a/b/referrers/", act.error(404, "NOT_FOUND"))
    repository = ask(hub)
    assert await repository.list_referrers(NOWHERE) == []
    entry = {"mediaType": IMAGE_MANIFEST, "digest": str(Digest.of(b"r")), "size": 1}
    index = json.dumps({"schemaVersion": 2, "mediaType": IMAGE_INDEX, "manifests": [entry]}).encode()
    hub.image("a/b", f"sha256-{NOWHERE.hex}", index)
    assert [each.digest for each in await repository.list_referrers(NOWHERE)] == [Digest.of(b"r")]


async def test_connections_are_kept(hub: Scripted, ask: Ask) -> None:
    digest = hub.blob("a/b", DATA)
    repository = ask(hub)
    for _ in range(5):
        await repository.stat_blob(digest)
        await read(await repository.open_blob(digest))
    assert hub.connections == 2  # one of each client


# An upstream that misbehaves

MANIFEST, BLOB = "/v2/a/b/manifests/", "/v2/a/b/blobs/"
OTHER = manifest(99)

WRONG_MANIFESTS: dict[str, Act] = {
    "html": act.html(200),
    "html-404": act.html(404),
    "html-403": act.html(403),
    "no-json": act.body(b"surprise", IMAGE_MANIFEST),
    "no-manifest": act.body(b"[]", IMAGE_MANIFEST),
    "no-version": act.body(b"{}", IMAGE_MANIFEST),
    "schema-1": act.body(b'{"schemaVersion": 1}', IMAGE_MANIFEST),
    "header-names-another": act.body(OTHER, IMAGE_MANIFEST, Docker_Content_Digest=str(Digest.of(b"x"))),
    "too-large": act.body(b" " * (4 << 20) + OTHER, IMAGE_MANIFEST),
    "endless": act.endless(IMAGE_MANIFEST),
    "gzip": act.gzipped(OTHER, IMAGE_MANIFEST),
    "short": act.short(len(OTHER), OTHER[:-1]),
    "broken-off": act.reset(OTHER[:5], len(OTHER)),
    "chunks-without-end": act.chunked(OTHER, ends=False, content_type=IMAGE_MANIFEST),
    "20000-headers": act.flood(20_000),
    "no-http": act.raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "nul-in-header": act.raw(b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n"),
    "no-answer": act.raw(b""),
    "reset": act.reset(),
    "500": act.status(500),
    "502": act.html(502),
    "504": act.status(504),
    "408": act.status(408),
    "304": act.status(304),
    "206": act.status(206, OTHER),
    "redirect-without-location": act.status(307),
    "unknown-in-html": act.status(404, b"MANIFEST_UNKNOWN", Content_Type="text/html"),
}


@pytest.mark.parametrize("name", WRONG_MANIFESTS)
async def test_a_wrong_manifest_is_a_fault_and_never_unknown(hub: Scripted, ask: Ask, name: str) -> None:
    hub.image("a/b", "latest")
    hub.on("*", MANIFEST, WRONG_MANIFESTS[name])
    with pytest.raises(UpstreamUnavailable) as caught:
        await ask(hub).get_manifest(LATEST)
    assert str(hub.port) not in str(caught.value)


@pytest.mark.parametrize("name", WRONG_MANIFESTS)
async def test_it_is_right_again_when_the_upstream_is(hub: Scripted, ask: Ask, name: str) -> None:
    """P7: what passes after a moment is asked for again at once; else the next pull is right."""
    digest = hub.image("a/b", "latest")
    hub.on("*", MANIFEST, WRONG_MANIFESTS[name], times=1)
    repository = ask(hub)
    try:
        found = await repository.get_manifest(LATEST)
    except UpstreamUnavailable:
        found = await repository.get_manifest(LATEST)
    assert found.digest == digest


async def test_wrong_bytes_by_digest(hub: Scripted, ask: Ask) -> None:
    digest = hub.image("a/b", "latest")
    hub.on("GET", MANIFEST, act.body(OTHER, IMAGE_MANIFEST))
    with pytest.raises(UpstreamUnavailable):
        await ask(hub).get_manifest(digest)


@pytest.mark.parametrize("header", ["../../x", "md5:aa", "sha256:..", "", "sha256:" + "0" * 63])
async def test_a_digest_that_is_none_is_not_used(hub: Scripted, ask: Ask, header: str) -> None:
    """P6: what we computed counts."""
    hub.on("*", MANIFEST, act.body(OTHER, IMAGE_MANIFEST, Docker_Content_Digest=header))
    found = await ask(hub).get_manifest(LATEST)
    assert found.digest == Digest.of(OTHER)
    head = await ask(hub).head_manifest(LATEST)
    assert head is not None
    assert head.digest is None


async def test_a_digest_of_another_algorithm(hub: Scripted, ask: Ask) -> None:
    """Asked by sha256 and answered with sha512: both must be those of the bytes."""
    hub.on("*", MANIFEST, act.body(OTHER, IMAGE_MANIFEST, Docker_Content_Digest=str(Digest.of(OTHER, "sha512"))))
    assert (await ask(hub).get_manifest(Digest.of(OTHER))).digest == Digest.of(OTHER)
    assert (await ask(hub).get_manifest(LATEST)).digest == Digest.of(OTHER, "sha512")


async def test_the_type_is_that_of_the_bytes(hub: Scripted, ask: Ask) -> None:
    """CVE-2021-41190: the cache would read it so."""
    hub.on("*", MANIFEST, act.body(OTHER, IMAGE_INDEX))
    assert (await ask(hub).get_manifest(LATEST)).media_type == IMAGE_MANIFEST


WRONG_BLOBS: dict[str, Act] = {
    "html": act.html(200),
    "html-404": act.html(404),
    "short": act.short(len(DATA), DATA[:-1]),
    "broken-off": act.reset(DATA[:100], len(DATA)),
    "chunks-without-end": act.chunked(DATA, ends=False),
    "gzip": act.gzipped(DATA),
    "part-unasked": act.status(206, DATA[:10], Content_Range=f"bytes 0-9/{len(DATA)}"),
    "chunked-longer": act.chunked(DATA + b"!"),
    "chunked-shorter": act.chunked(DATA[:-1]),
    "500": act.status(500),
    "no-answer": act.raw(b""),
    "20000-headers": act.flood(20_000),
    "no-http": act.raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "204": act.status(204),
    "trailers": act.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: y\r\n" * 20_000),
}


@pytest.mark.parametrize("name", WRONG_BLOBS)
async def test_a_wrong_blob_never_ends_well(hub: Scripted, ask: Ask, name: str) -> None:
    """P7, P8, F29: at its head where one can know it, else at the end of its bytes."""
    digest = hub.blob("a/b", DATA)
    hub.on("GET", BLOB, WRONG_BLOBS[name])
    with pytest.raises(UpstreamUnavailable):
        await read(await ask(hub).open_blob(digest))


WRONG_PARTS = {
    "another start": (act.status(206, DATA[:10], Content_Range=f"bytes 0-9/{len(DATA)}")),
    "longer": (act.status(206, DATA[100:210], Content_Range=f"bytes 100-209/{len(DATA)}")),
    "length disagrees": (act.status(206, DATA[100:150], Content_Range=f"bytes 100-199/{len(DATA)}")),
    "beyond the total": (act.status(206, DATA[100:200], Content_Range="bytes 100-199/150")),
    "several": (act.status(206, DATA[100:200], Content_Type="multipart/byteranges; boundary=x")),
    "not said": (act.status(206, DATA[100:200])),
}


@pytest.mark.parametrize("name", WRONG_PARTS)
async def test_a_wrong_part(hub: Scripted, ask: Ask, name: str) -> None:
    hub.on("GET", BLOB, WRONG_PARTS[name])
    with pytest.raises(UpstreamUnavailable):
        await read(await ask(hub).open_blob(hub.blob("a/b", DATA), RangeRequest(100, 200)))


REFUSALS: dict[str, tuple[Act, type[Exception]]] = {
    "403": (act.error(403, "DENIED"), UpstreamDenied),
    "451": (act.status(451), UpstreamDenied),
    "401-without-challenge": (act.error(401, "UNAUTHORIZED"), UpstreamDenied),
    "404-without-body": (act.status(404), ManifestUnknown),
    "404-name": (act.error(404, "NAME_UNKNOWN"), ManifestUnknown),
    "400-name": (act.error(400, "NAME_INVALID"), ManifestUnknown),
    "410": (act.status(410), ManifestUnknown),
    "400": (act.error(400, "UNSUPPORTED"), UpstreamUnavailable),
    "405": (act.status(405), UpstreamUnavailable),
    "503": (act.status(503, Retry_After="7"), UpstreamBusy),
}


@pytest.mark.parametrize("name", REFUSALS)
async def test_refusal(hub: Scripted, ask: Ask, name: str) -> None:
    behaviour, expected = REFUSALS[name]
    hub.on("*", MANIFEST, behaviour)
    with pytest.raises(expected) as caught:
        await ask(hub).get_manifest(parse_tag("x"))
    assert type(caught.value) is expected


# A slow upstream


@pytest.mark.slow
async def test_no_first_byte(hub: Scripted, ask: Ask) -> None:
    """F28: asked once; a second time-out would double the wait."""
    hub.on("*", "/v2/", act.stall())
    repository = ask(hub, deadlines=FAST)
    for call in (repository.get_manifest(LATEST), repository.stat_blob(NOWHERE), repository.open_blob(NOWHERE)):
        with pytest.raises(UpstreamTimeout):
            await call
    assert len(hub.requests) == 3


@pytest.mark.parametrize("slow", [act.stall(b"xx", 10_000), act.trickle(10_000, 0.02)], ids=["stall", "trickle"])
async def test_a_body_that_hardly_comes(hub: Scripted, ask: Ask, slow: Act) -> None:
    """P12: one byte every now and then never trips a read time-out; the minimum rate ends it."""
    hub.on("GET", "/v2/", slow)
    repository = ask(hub, deadlines=FAST)
    with pytest.raises(UpstreamTimeout):
        await read(await repository.open_blob(NOWHERE))


@pytest.mark.slow
async def test_a_manifest_that_hardly_comes(hub: Scripted, ask: Ask) -> None:
    hub.on("GET", "/v2/", act.trickle(10_000, 0.02))
    with pytest.raises(UpstreamTimeout):
        await ask(hub, deadlines=FAST).get_manifest(LATEST)


@pytest.mark.slow
async def test_a_slow_reader_is_not_a_slow_upstream(hub: Scripted, ask: Ask) -> None:
    """Only the time counts in which we wait for the upstream: it may send what it likes meanwhile."""
    data = DATA * 400  # more than waits in any buffer on its way
    digest = hub.blob("a/b", data)
    got = b""
    async with await ask(hub, deadlines=FAST).open_blob(digest) as reader:
        async for chunk in reader.chunks():
            if not got:
                await asyncio.sleep(FAST.window * 3)
            got += chunk
    assert got == data

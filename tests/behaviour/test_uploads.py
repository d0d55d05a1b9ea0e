"""Upload sessions (rows 34 to 65): after every refusal the session goes on as if nothing had been asked."""

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from registry.app import create_app
from registry.config import Config
from registry.config.model import StorageConfig
from registry.serving.lifespan import lifespan
from storage import layout
from storage.content import ContentStore
from storage.drivers import create
from storage.purge import purge_uploads
from tests import rawsocket
from tests.api import Api, digest_of, error_of, in_pieces, with_query
from tests.behaviour.table import ABSENT, LAYER_DIGEST, NAME, Bad, Wire, World, by_id

HEAD, TAIL = b"01234", b"56789"
WHOLE = HEAD + TAIL
DIGEST = digest_of(WHOLE)
MD5 = "md5:781e5e245d69b566979b86e28d23f2c7"
SESSION = "3b1f7a5e-0000-4000-8000-000000000000"


async def begun(api: Api, name: str = NAME) -> str:
    """The Location of a session that holds HEAD."""
    response = await api.http.patch(await api.start(name), content=HEAD, headers={"Content-Range": "0-4"})
    assert (response.status_code, response.headers["Range"]) == (202, "0-4")
    location: str = response.headers["Location"]
    return location


async def goes_on(api: Api, location: str, name: str = NAME) -> None:
    """The session holds HEAD, takes TAIL and becomes the blob; then the blob goes, for the next test."""
    status = await api.http.get(location)
    assert (status.status_code, status.headers["Range"], status.content) == (204, "0-4", b"")
    response = await api.http.patch(status.headers["Location"], content=TAIL, headers={"Content-Range": "5-9"})
    assert (response.status_code, response.headers["Range"]) == (202, "0-9")
    response = await api.http.put(with_query(response.headers["Location"], digest=DIGEST))
    assert response.status_code == 201
    assert (await api.get(f"/v2/{name}/blobs/{DIGEST}")).content == WHOLE


async def absent(api: Api, digest: str, name: str = NAME) -> None:
    assert error_of(await api.get(f"/v2/{name}/blobs/{digest}")) == (404, "BLOB_UNKNOWN")


@dataclass(frozen=True)
class Step:
    """A bad request to a session that holds HEAD. query: what is added to its Location, as it stands on the wire."""

    row: str
    what: str
    method: str
    status: int
    code: str
    query: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_chunked: bool = False

    @property
    def id(self) -> str:
        return f"row-{self.row}-{self.what}"

    async def send(self, api: Api, location: str) -> httpx.Response:
        content = in_pieces(self.body[:1], self.body[1:]) if self.is_chunked else self.body or None
        fields = [(name.encode(), value.encode("latin-1")) for name, value in self.fields.items()]
        return await api.http.request(self.method, location + self.query, headers=fields, content=content)


def chunk(row: str, what: str, content_range: str, status: int, code: str, body: bytes = TAIL) -> list[Step]:
    """The same bad Content-Range on a PATCH and on a closing PUT."""
    fields = {"Content-Range": content_range}
    return [
        Step(row, f"patch-{what}", "PATCH", status, code, "", fields, body),
        Step(row, f"put-{what}", "PUT", status, code, f"&digest={DIGEST}", fields, body),
    ]


STEPS = [
    Step("34", "put-without-digest", "PUT", 400, "DIGEST_INVALID"),
    Step("34", "put-without-digest-with-body", "PUT", 400, "DIGEST_INVALID", body=TAIL),
    Step("34", "put-with-empty-digest", "PUT", 400, "DIGEST_INVALID", "&digest="),
    Step("35", "put-malformed", "PUT", 400, "DIGEST_INVALID", "&digest=sha256:bad", body=TAIL),
    Step("35", "put-md5", "PUT", 400, "DIGEST_INVALID", f"&digest={MD5}", body=TAIL),
    Step("35", "put-line-feed", "PUT", 400, "DIGEST_INVALID", f"&digest={DIGEST}%0A", body=TAIL),
    Step("35", "put-not-utf8", "PUT", 400, "DIGEST_INVALID", "&digest=%ff", body=TAIL),
    Step("36", "put-wrong-digest-without-body", "PUT", 400, "DIGEST_INVALID", f"&digest={ABSENT}"),
    Step("36", "put-wrong-sha512-without-body", "PUT", 400, "DIGEST_INVALID", f"&digest={digest_of(b'x', 'sha512')}"),
    Step("37", "two-digests", "PUT", 400, "DIGEST_INVALID", f"&digest={DIGEST}&digest={DIGEST}", body=TAIL),
    Step("37", "two-states", "PATCH", 400, "UNSUPPORTED", "&_state=x", body=TAIL),
    *chunk("44", "gap", "7-11", 416, "BLOB_UPLOAD_INVALID"),
    *chunk("45", "too-few-bytes", "5-14", 400, "SIZE_INVALID"),
    *chunk("45", "too-many-bytes", "5-8", 400, "SIZE_INVALID"),
    *chunk("46", "reversed", "4-0", 416, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "unit", "bytes 5-9/10", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "range-header", "bytes=5-9", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "total", "5-9/10", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "letters", "a-b", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "negative", "-1-3", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "open", "5-", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "two", "5-6,7-9", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "20-digits", f"5-{'9' * 20}", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "5000-digits", f"5-{'9' * 5000}", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "arabic", "\u0665-9".encode().decode("latin-1"), 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "superscript", "\u00b2-9", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "underscore", "0_5-9", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "plus", "+5-9", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("47", "empty", "", 400, "BLOB_UPLOAD_INVALID"),
    *chunk("48", "repeat", "0-4", 416, "BLOB_UPLOAD_INVALID", HEAD),
    *chunk("48", "overlap", "3-7", 416, "BLOB_UPLOAD_INVALID"),
    *chunk("50", "wrong-start", "0-4", 416, "BLOB_UPLOAD_INVALID"),
    Step("48", "chunked-gap", "PATCH", 416, "BLOB_UPLOAD_INVALID", "", {"Content-Range": "7-11"}, TAIL, True),
    Step("50", "put-empty-at-wrong-place", "PUT", 416, "BLOB_UPLOAD_INVALID", f"&digest={DIGEST}",
         {"Content-Range": "9-9"}, b"x"),
]  # fmt: skip


def test_steps_are_distinct() -> None:
    assert len({step.id for step in STEPS}) == len(STEPS)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.id)
async def test_session_goes_on(api: Api, step: Step) -> None:
    location = await begun(api)
    response = await step.send(api, location)
    assert error_of(response) == (step.status, step.code), response.text
    if step.status == 416 and "reversed" not in step.what:
        assert response.headers["Range"] == "0-4"
        location = response.headers["Location"]
    await absent(api, DIGEST)
    await goes_on(api, location)


TWICE = f"mount={LAYER_DIGEST}&mount={ABSENT}"
POSTS = f"/v2/{NAME}/blobs/uploads/"
AT_SESSION = f"{POSTS}{SESSION}"
REFUSED = [
    *(
        Bad("41", f"{method}-{what}", method, POSTS + id, 404, "BLOB_UPLOAD_UNKNOWN")
        for what, id in {
            "random": SESSION,
            "no-uuid": "x",
            "dots": "..",
            "dots-escaped": "..%2f..%2fx",
            "dots-and-slashes": "../../x",
            "percent": "%25",
            "long": "a" * 5000,
        }.items()
        for method in ("GET", "PATCH", "PUT", "DELETE")
    ),
    *(
        Bad("42", f"{method}-{what}", method, f"{AT_SESSION}?_state={state}", 404, "BLOB_UPLOAD_UNKNOWN")
        for what, state in {
            "empty": "",
            "letters": "abc",
            "no-base64": "%21%21",
            "zeros": "A" * 400,
            "not-ascii": "%C3%A9",
            "long": "A" * 20_000,
        }.items()
        for method in ("GET", "PATCH", "PUT", "DELETE")
    ),
    Bad("61", "wrong-digest", "POST", f"{POSTS}?digest={ABSENT}", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "wrong-sha512", "POST", f"{POSTS}?digest={digest_of(b'', 'sha512')}", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "malformed", "POST", f"{POSTS}?digest=sha256:bad", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "empty", "POST", f"{POSTS}?digest=", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "no-body", "POST", f"{POSTS}?digest={ABSENT}", 400, "DIGEST_INVALID"),
    Bad("61", "md5", "POST", f"{POSTS}?digest={MD5}", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "two-digests", "POST", f"{POSTS}?digest={DIGEST}&digest={DIGEST}", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("61", "digest-of-what-is-here", "POST", f"{POSTS}?digest={LAYER_DIGEST}", 400, "DIGEST_INVALID", body=WHOLE),
    Bad("62", "md5", "POST", f"{POSTS}?digest-algorithm=md5", 400, "DIGEST_INVALID"),
    Bad("62", "upper-case", "POST", f"{POSTS}?digest-algorithm=SHA512", 400, "DIGEST_INVALID"),
    Bad("62", "shake", "POST", f"{POSTS}?digest-algorithm=shake_128", 400, "DIGEST_INVALID"),
    Bad("63", "two-mounts", "POST", f"{POSTS}?{TWICE}&from=b", 400, "UNSUPPORTED"),
    Bad("63", "two-sources", "POST", f"{POSTS}?mount={ABSENT}&from=b&from={NAME}", 400, "UNSUPPORTED"),
]


@by_id(REFUSED)
async def test_refused(wire: Wire, case: Bad) -> None:
    await wire.refuses(case)


BAD_QUERIES = ("put-line-feed", "put-not-utf8", "two-digests")
"""Steps that are refused before anybody looks for the session."""


def without_session(step: Step) -> Bad:
    """The same request to a session that does not exist."""
    status, code = (step.status, step.code) if step.what in BAD_QUERIES else (404, "BLOB_UPLOAD_UNKNOWN")
    target = AT_SESSION + step.query.replace("&", "?", 1)
    return Bad(step.row, step.what, step.method, target, status, code, step.fields, step.body)


CORPUS = [*REFUSED, *(without_session(step) for step in STEPS)]


async def test_row_36_wrong_digest_with_a_body_ends_the_session(api: Api) -> None:
    location = await begun(api)
    response = await api.http.put(with_query(location, digest=ABSENT), content=TAIL)
    assert error_of(response) == (400, "DIGEST_INVALID")
    await absent(api, ABSENT)
    await absent(api, DIGEST)
    for method, content in (("PUT", TAIL), ("PUT", b""), ("PATCH", TAIL), ("GET", b""), ("DELETE", b"")):
        response = await api.http.request(method, with_query(location, digest=DIGEST), content=content)
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")
    await absent(api, DIGEST)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_row_36_right_digest_after_a_wrong_one(api: Api, algorithm: str) -> None:
    location = await begun(api)
    for wrong in (ABSENT, digest_of(b"wrong", "sha512"), DIGEST):
        response = await api.http.put(with_query(location, digest=wrong))
        assert error_of(response) == (400, "DIGEST_INVALID")
    right = digest_of(HEAD, algorithm)
    response = await api.http.put(with_query(location, digest=right))
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (201, right)
    assert (await api.get(f"/v2/{NAME}/blobs/{right}")).content == HEAD


async def test_rows_38_39_after_the_commit(api: Api) -> None:
    location = await begun(api)
    close = with_query(location, digest=digest_of(HEAD))
    assert (await api.http.put(close)).status_code == 201
    again = await api.http.put(close)  # its first answer may have been lost
    assert (again.status_code, again.headers["Docker-Content-Digest"]) == (201, digest_of(HEAD))
    assert error_of(await api.http.put(with_query(location, digest=ABSENT))) == (404, "BLOB_UPLOAD_UNKNOWN")
    for method in ("PATCH", "GET", "DELETE"):
        response = await api.http.request(method, location, content=TAIL if method == "PATCH" else None)
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN"), method
    assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(HEAD)}")).content == HEAD


async def test_row_40_after_a_cancel(api: Api) -> None:
    location = await begun(api)
    response = await api.http.delete(location)
    assert (response.status_code, response.content) == (204, b"")
    for method in ("DELETE", "GET", "PATCH", "PUT"):
        response = await api.http.request(method, with_query(location, digest=digest_of(HEAD)))
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN"), method
    await absent(api, digest_of(HEAD))


async def test_row_42_forged_state(api: Api) -> None:
    """Any byte of the state that is not as it was signed, and the session is unknown; it goes on with the right one."""
    location = await begun(api)
    path, _, state = location.partition("?_state=")
    for at in (0, 20, 42, 60, 100, len(state) - 5):
        forged = state[:at] + ("A" if state[at] != "A" else "B") + state[at + 1 :]
        response = await api.http.patch(f"{path}?_state={forged}", content=TAIL)
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN"), at
    assert error_of(await api.http.patch(f"{path}?_state={state[:-8]}", content=TAIL)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert error_of(await api.http.patch(path, content=TAIL)) == (404, "BLOB_UPLOAD_UNKNOWN")
    await goes_on(api, location)


async def test_row_42_state_of_another_session(api: Api) -> None:
    one, other = await begun(api), await begun(api)
    mixed = one.partition("?")[0] + "?" + other.partition("?")[2]
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        response = await api.http.request(method, with_query(mixed, digest=DIGEST))
        assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")
    await goes_on(api, one)


@pytest.mark.parametrize("method", ["GET", "PATCH", "PUT", "DELETE"])
@pytest.mark.parametrize("other", ["b", "a/b", "a/blobs/uploads"])
async def test_row_43_session_of_another_repository(api: Api, other: str, method: str) -> None:
    location = await begun(api)
    moved = location.replace(f"/v2/{NAME}/", f"/v2/{other}/", 1)
    response = await api.http.request(method, with_query(moved, digest=digest_of(HEAD)))
    assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")
    await absent(api, digest_of(HEAD), other)
    await goes_on(api, location)


async def test_row_43_same_id_in_a_name_that_reads_alike(api: Api) -> None:
    """`a/b` + `c` is not `a` + `b/c`: what is signed is no concatenation (CVE-2026-58426)."""
    location = await begun(api, "a/b")
    response = await api.http.get(location.replace("/v2/a/b/blobs", "/v2/a/blobs", 1))
    assert error_of(response) == (404, "BLOB_UPLOAD_UNKNOWN")
    await goes_on(api, location, "a/b")


async def test_row_44_gap_on_an_empty_session(api: Api) -> None:
    location = await api.start(NAME)
    response = await api.http.patch(location, content=TAIL, headers={"Content-Range": "5-9"})
    assert error_of(response) == (416, "BLOB_UPLOAD_INVALID")
    assert response.headers["Range"] == "0-0"
    response = await api.http.patch(response.headers["Location"], content=HEAD, headers={"Content-Range": "0-4"})
    assert (response.status_code, response.headers["Range"]) == (202, "0-4")


@pytest.mark.parametrize(("span", "stored"), [("5-14", "0-9"), ("5-7", None)])
async def test_row_45_chunked_body_of_another_length(api: Api, span: str, stored: str | None) -> None:
    """Its length shows only while it is read: what is kept of it is said by Range, as after a broken connection."""
    location = await begun(api)
    response = await api.http.patch(location, content=in_pieces(b"56", b"78", b"9"), headers={"Content-Range": span})
    assert error_of(response) == (400, "SIZE_INVALID")
    status = await api.http.get(location)
    assert status.status_code == 204
    end = int(status.headers["Range"].removeprefix("0-")) + 1
    assert stored is None or status.headers["Range"] == stored
    assert 5 <= end <= 10
    response = await api.http.put(with_query(status.headers["Location"], digest=DIGEST), content=WHOLE[end:])
    assert response.status_code == 201


async def test_row_49_next_chunk_to_the_first_location(api: Api) -> None:
    first = await api.start(NAME)
    assert (await api.http.patch(first, content=HEAD)).status_code == 202
    stale = await api.http.patch(first, content=TAIL)  # where it stood, it does not stand any more
    assert error_of(stale) == (416, "BLOB_UPLOAD_INVALID")
    status = await api.http.get(first)
    assert (status.status_code, status.headers["Range"]) == (204, "0-4")
    placed = await api.http.patch(first, content=TAIL, headers={"Content-Range": "5-9"})  # says where it belongs
    assert (placed.status_code, placed.headers["Range"]) == (202, "0-9")
    assert (await api.http.put(with_query(placed.headers["Location"], digest=DIGEST))).status_code == 201


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_row_51_streamed(api: Api, is_chunked: bool) -> None:
    content = in_pieces(HEAD, TAIL) if is_chunked else WHOLE
    response = await api.http.patch(await api.start(NAME), content=content)
    assert (response.status_code, response.headers["Range"]) == (202, "0-9")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "%"]
)
async def test_row_52_any_content_type(api: Api, media_type: str) -> None:
    response = await api.http.patch(await api.start(NAME), content=HEAD, headers={"Content-Type": media_type})
    assert (response.status_code, response.headers["Range"]) == (202, "0-4")
    await goes_on(api, response.headers["Location"])


async def test_row_53_empty_chunk(api: Api) -> None:
    response = await api.http.patch(await api.start(NAME), content=b"")
    assert (response.status_code, response.headers["Range"]) == (202, "0-0")
    response = await api.http.patch(response.headers["Location"], content=HEAD, headers={"Content-Range": "0-4"})
    response = await api.http.patch(response.headers["Location"], content=b"")
    assert (response.status_code, response.headers["Range"]) == (202, "0-4")
    await goes_on(api, response.headers["Location"])


def path_of(location: str) -> str:
    parts = urlsplit(location)
    return f"{parts.path}?{parts.query}"


BROKEN = {
    "54-content-length": ("Content-Length: 100", TAIL),
    "55-chunked": ("Transfer-Encoding: chunked", b"5\r\n" + TAIL + b"\r\n"),
    "55-inside-a-chunk": ("Transfer-Encoding: chunked", b"64\r\n" + TAIL),
}


@pytest.mark.parametrize("method", ["PATCH", "PUT", "POST"])
@pytest.mark.parametrize("is_reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("how", BROKEN, ids=lambda how: f"row-{how}")
async def test_broken_connection(wire: Wire, how: str, is_reset: bool, method: str) -> None:
    """What was kept is said by the next GET, never committed; the client goes on from there."""
    location = await begun(wire.api)
    before = wire.world.files()
    framing, body = BROKEN[how]
    query = f"?digest={digest_of(TAIL)}" if method == "POST" else f"&digest={DIGEST}" if method == "PUT" else ""
    target = POSTS + query if method == "POST" else path_of(location) + query
    with rawsocket.connected(wire.server.host, wire.server.port) as client:
        client.send(rawsocket.request(method, target, framing) + body)
        if is_reset:
            client.reset()
        else:
            client.socket.shutdown(socket.SHUT_WR)
            assert client.rest() == b""  # nobody is answered
    await absent(wire.api, digest_of(TAIL))
    await absent(wire.api, DIGEST)
    status = await wire.api.http.get(location)
    assert status.status_code == 204
    end = int(status.headers["Range"].removeprefix("0-")) + 1
    assert end in ((5,) if method == "POST" else (5, 10))
    if method == "POST":  # its session has no Location that anybody knows: it goes with the connection
        for _ in range(1000):
            if wire.world.files() == before:
                break
            await wire.api.get("/v2/")
        assert wire.world.files() == before
    await finished_in_spite_of(wire.api, status.headers["Location"], WHOLE[end:])


async def finished_in_spite_of(api: Api, location: str, rest: bytes) -> None:
    """Finish a session whose broken request may still be running in the server: ask again where it says so."""
    for _ in range(100):
        response = await api.http.put(with_query(location, digest=DIGEST), content=rest)
        if response.status_code == 201:
            break
        assert error_of(response) == (416, "BLOB_UPLOAD_INVALID")
        location = response.headers["Location"]
        rest = WHOLE[int(response.headers["Range"].removeprefix("0-")) + 1 :]
    assert (await api.get(f"/v2/{NAME}/blobs/{DIGEST}")).content == WHOLE
    assert (await api.http.delete(f"/v2/{NAME}/blobs/{DIGEST}")).status_code == 202


async def slowly(gate: asyncio.Event, first: bytes, *rest: bytes) -> AsyncIterator[bytes]:
    """A body whose second piece comes when the gate opens."""
    yield first
    await gate.wait()
    for piece in rest:
        yield piece


async def test_row_58_two_patches_at_one_offset(api: Api) -> None:
    location = await begun(api)
    gate = asyncio.Event()
    bodies = (b"56789", b"abcde")
    both = [
        asyncio.create_task(
            api.http.patch(location, content=slowly(gate, body[:2], body[2:]), headers={"Content-Range": "5-9"})
        )
        for body in bodies
    ]
    await asyncio.sleep(0)
    gate.set()
    answers = [await task for task in both]
    assert sorted(r.status_code for r in answers) == [202, 416]
    winner = next(i for i, r in enumerate(answers) if r.status_code == 202)
    digest = digest_of(HEAD + bodies[winner])
    response = await api.http.put(with_query(answers[winner].headers["Location"], digest=digest))
    assert response.status_code == 201
    assert (await api.get(f"/v2/{NAME}/blobs/{digest}")).content == HEAD + bodies[winner]


async def test_row_59_two_closing_puts(api: Api) -> None:
    location = await begun(api)
    close = with_query(location, digest=digest_of(HEAD))
    answers = await asyncio.gather(*(api.http.put(close) for _ in range(2)))
    assert 201 in [r.status_code for r in answers]
    assert {r.status_code for r in answers} <= {201, 404, 416}
    assert (await api.get(f"/v2/{NAME}/blobs/{digest_of(HEAD)}")).content == HEAD


@pytest.mark.parametrize("rival", ["PATCH", "DELETE", "GET"])
async def test_row_60_rivals_of_a_commit(api: Api, rival: str) -> None:
    """Whoever wins: no wrong blob under the digest, and no answer but the ones that say what happened."""
    for _ in range(10):
        location = await begun(api)
        close = with_query(location, digest=digest_of(HEAD))
        commit, other = await asyncio.gather(
            api.http.put(close), api.http.request(rival, location, content=TAIL if rival == "PATCH" else None)
        )
        assert commit.status_code in (201, 400, 404, 416), commit.text
        assert other.status_code in (202, 204, 404, 416), other.text
        found = await api.get(f"/v2/{NAME}/blobs/{digest_of(HEAD)}")
        assert (found.status_code, found.content) == (200, HEAD) or found.status_code == 404
        assert found.status_code == 200 or commit.status_code != 201


async def test_row_60_cancel_while_a_chunk_arrives(api: Api) -> None:
    location = await begun(api)
    gate = asyncio.Event()
    patch = asyncio.create_task(api.http.patch(location, content=slowly(gate, b"56", b"789")))
    await asyncio.sleep(0)
    cancelled = await api.http.delete(location)
    gate.set()
    assert cancelled.status_code == 204
    assert (await patch).status_code in (202, 404, 416)
    assert error_of(await api.http.put(with_query(location, digest=DIGEST))) == (404, "BLOB_UPLOAD_UNKNOWN")
    await absent(api, DIGEST)


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_row_61_push_at_once(api: Api, algorithm: str, is_chunked: bool) -> None:
    digest = digest_of(WHOLE, algorithm)
    content = in_pieces(HEAD, TAIL) if is_chunked else WHOLE
    response = await api.http.post(f"{POSTS}?digest={digest}", content=content)
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (201, digest)
    assert (await api.get(response.headers["Location"])).content == WHOLE


MOUNTS = {
    "malformed": "mount=bad&from=b",
    "md5": f"mount={MD5}&from=b",
    "empty": "mount=&from=",
    "bad-source": f"mount={LAYER_DIGEST}&from=../x",
    "escaped-bad-source": f"mount={LAYER_DIGEST}&from=%2e%2e%2fx",
    "upper-case-source": f"mount={LAYER_DIGEST}&from=A",
    "long-source": f"mount={LAYER_DIGEST}&from={'a' * 300}",
    "unknown-source": f"mount={LAYER_DIGEST}&from=nope",
    "absent-blob": f"mount={ABSENT}&from={NAME}",
    "absent-blob-of-anywhere": f"mount={ABSENT}",
    "source-alone": f"from={NAME}",
}


@pytest.mark.parametrize("query", MOUNTS.values(), ids=[f"row-63-{what}" for what in MOUNTS])
async def test_mount_falls_back(world: World, query: str) -> None:
    """An ordinary session, that works."""
    api = world.api
    response = await api.http.post(f"/v2/other/blobs/uploads/?{query}")
    assert response.status_code == 202
    response = await api.http.put(with_query(response.headers["Location"], digest=DIGEST), content=WHOLE)
    assert response.status_code == 201
    assert (await api.get(f"/v2/other/blobs/{DIGEST}")).content == WHOLE
    await absent(api, LAYER_DIGEST, "other")


@pytest.mark.parametrize("query", [f"&from={NAME}", ""], ids=["from", "anywhere"])
@pytest.mark.parametrize("target", ["other", NAME])
async def test_row_64_mount(world: World, target: str, query: str) -> None:
    api = world.api
    response = await api.http.post(f"/v2/{target}/blobs/uploads/?mount={LAYER_DIGEST}{query}")
    assert (response.status_code, response.headers["Docker-Content-Digest"]) == (201, LAYER_DIGEST)
    assert response.headers["Location"] == f"/v2/{target}/blobs/{LAYER_DIGEST}"
    assert (await api.get(response.headers["Location"])).status_code == 200


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
async def test_row_65_empty_blob(api: Api, algorithm: str) -> None:
    digest = digest_of(b"", algorithm)
    response = await api.http.put(with_query(await api.start(NAME), digest=digest))
    assert response.status_code == 201
    got = await api.get(f"/v2/{NAME}/blobs/{digest}")
    assert (got.status_code, got.content, got.headers["Content-Length"]) == (200, b"", "0")
    head = await api.http.head(f"/v2/{NAME}/blobs/{digest}")
    assert (head.status_code, head.headers["Content-Length"]) == (200, "0")


async def test_row_66_sessions_that_nobody_uses(tmp_path: Path) -> None:
    """Each is two small objects, and the purge takes them all, but no image."""
    parameters = {"rootdirectory": str(tmp_path)}
    app = create_app(Config(storage=StorageConfig(driver="filesystem", parameters=parameters)))
    async with (
        lifespan(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://registry") as client,
    ):
        world = await World(Api(client), tmp_path).begin()
        before = await world.seen()
        locations = [await world.api.start(NAME) for _ in range(50)]
        assert len(world.files() - before["files"]) == 2 * len(locations)
        store = ContentStore(create("filesystem", {**parameters, "scratch": layout.SCRATCH}))
        assert (await purge_uploads(store, 3600.0)).sessions == 0
        assert (await purge_uploads(store, -3600.0)).sessions == len(locations)  # as if an hour had passed
        await store.aclose()
        assert await world.seen() == before
        assert error_of(await client.get(locations[0])) == (404, "BLOB_UPLOAD_UNKNOWN")

"""Uploads in progress that change the server between two requests, as behind a load balancer over one bucket.

State is in the bucket alone: distribution goes on with ours, and we with its, wherever both can. The one thing that it
cannot is a session of ours that has no byte yet, unless `uploads.shareable` is on: we begin it with its first bytes.
"""

import random
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.api import digest_of, with_query
from tests.s3.servers import S3Server

from .buckets import BucketLab
from .content import answered, check_blob, path_of
from .corpora import noise
from .peers import OURS, PEERS, V2, V3, Program
from .test_uploads import PIECES, ROUTES, WHOLE, name_of

pytestmark = [pytest.mark.interop, pytest.mark.slow]

SCHEDULES = 12
MIB = 1 << 20


@dataclass
class Farm:
    """Registries on one bucket, each started when it is first asked for. Every test has a repository of its own."""

    bucket: BucketLab
    shareable: bool
    stack: ExitStack
    running: dict[tuple[Program, int], httpx.Client] = field(default_factory=dict)

    def at(self, program: Program, number: int = 0) -> httpx.Client:
        """number: which of several of the same program."""
        if (program, number) not in self.running:
            serving = self.bucket.serving(program, uploads={"shareable": self.shareable})
            self.running[program, number] = self.stack.enter_context(serving)
        return self.running[program, number]

    def leftovers(self, name: str) -> list[str]:
        """Keys and open uploads of sessions of a repository, and open uploads of any blob.

        But for hashstates, distribution's notes of how far it has hashed: they cost us a list to find, so what we end
        of its sessions leaves them to the purge of uploads.
        """
        of_sessions = [
            key for key in self.bucket.listed("hashstates") if key.startswith(f"repositories/{name}/_uploads/")
        ]
        opened = [key for key in self.bucket.open_uploads() if key.startswith((f"repositories/{name}/", "blobs/"))]
        return of_sessions + opened


@pytest.fixture(scope="module")
def farms(tmp_path_factory: pytest.TempPathFactory, seaweedfs: S3Server) -> Iterator[dict[bool, Farm]]:
    """By whether uploads of ours are shareable."""
    with ExitStack() as stack:
        folders = {shareable: tmp_path_factory.mktemp(f"farm-{shareable}") for shareable in (True, False)}
        yield {
            shareable: Farm(BucketLab.new(folder, seaweedfs), shareable, stack) for shareable, folder in folders.items()
        }


@pytest.fixture
def farm(farms: dict[bool, Farm]) -> Farm:
    return farms[True]


@pytest.fixture(autouse=True)
def logs(farms: dict[bool, Farm]) -> Iterator[None]:
    """The ends of them, which pytest shows with a test that failed."""
    yield
    for farm in farms.values():
        for log in sorted(farm.bucket.folder.glob("*.log")):
            print(f"--- {log}\n{log.read_text(errors='replace')[-3000:]}")


@pytest.fixture
def repository(tmp_path: Path) -> str:
    """The test's own."""
    return f"uploads/{tmp_path.name.lower().replace('_', '-')}"


@pytest.mark.parametrize("closing_body", [False, True], ids=["empty-put", "put-with-body"])
@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_an_upload_goes_from_server_to_server(
    farm: Farm, repository: str, route: tuple[Program, ...], closing_body: bool
) -> None:
    post, first, second, put = (farm.at(program) for program in route)
    location = path_of(answered(post.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    location = path_of(answered(first.patch(location, content=PIECES[0]), 202).headers["Location"])
    status = answered(second.get(location), 204)
    assert status.headers["Range"] == f"0-{len(PIECES[0]) - 1}"
    location = path_of(status.headers["Location"])
    sent = answered(second.patch(location, content=PIECES[1]), 202)
    assert sent.headers["Range"] == f"0-{len(PIECES[0] + PIECES[1]) - 1}"
    location, last = path_of(sent.headers["Location"]), PIECES[2]
    if not closing_body:
        location, last = path_of(answered(put.patch(location, content=last), 202).headers["Location"]), b""
    answered(put.put(with_query(location, digest=digest_of(WHOLE)), content=last), 201)
    for program in set(route):
        check_blob(farm.at(program), repository, digest_of(WHOLE), WHOLE)
    assert not farm.leftovers(repository)


@pytest.mark.parametrize("peers", [pytest.param(PEERS, id="both")])
@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_a_random_schedule_over_two_of_ours_and_both_peers(
    farm: Farm, repository: str, seed: int, peers: tuple[Program, ...]
) -> None:
    chance = random.Random(seed)
    at = {f"{OURS.name}-{number}": farm.at(OURS, number) for number in (0, 1)} | {
        peer.name: farm.at(peer) for peer in peers
    }
    story: list[str] = []

    def any_of_them(step: str) -> httpx.Client:
        name = chance.choice(sorted(at))
        story.append(f"{step} at {name}")
        print(story[-1])
        return at[name]

    def size() -> int:
        return chance.choice([1, 5 * MIB - 1, 5 * MIB, 10 * MIB, chance.randint(1, 12 * MIB), chance.randint(1, 9999)])

    data, location = b"", f"/v2/{repository}/blobs/uploads/"
    location = path_of(answered(any_of_them("POST").post(location), 202).headers["Location"])
    for _ in range(chance.randint(1, 5)):
        piece = chance.randbytes(size())
        sent = answered(any_of_them(f"PATCH of {len(piece)}").patch(location, content=piece), 202)
        data, location = data + piece, path_of(sent.headers["Location"])
        assert sent.headers["Range"] == f"0-{len(data) - 1}"
        if chance.random() < 0.3:
            status = answered(any_of_them("GET").get(location), 204)
            assert status.headers["Range"] == f"0-{len(data) - 1}"
            location = path_of(status.headers["Location"])
    closing = chance.randbytes(size()) if chance.random() < 0.3 else b""
    data += closing
    http = any_of_them(f"PUT of {len(closing)}")
    answered(http.put(with_query(location, digest=digest_of(data)), content=closing), 201)
    for http in at.values():
        check_blob(http, repository, digest_of(data), data)
    assert not farm.leftovers(repository)


@pytest.mark.parametrize("route", [(OURS, V2), (V2, OURS), (OURS, V3), (V3, OURS)], ids=name_of)
def test_a_session_can_be_cancelled_elsewhere(farm: Farm, repository: str, route: tuple[Program, ...]) -> None:
    begun, ended = (farm.at(program) for program in route)
    location = path_of(answered(begun.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    location = path_of(answered(begun.patch(location, content=PIECES[0]), 202).headers["Location"])
    answered(ended.delete(location), 204)
    answered(begun.get(location), 404)
    assert not [key for key in farm.leftovers(repository) if key.endswith("/data")]


@pytest.mark.parametrize("route", [(OURS, V2), (V2, OURS), (OURS, V3), (V3, OURS)], ids=name_of)
def test_a_wrong_digest_is_refused_across_servers(farm: Farm, repository: str, route: tuple[Program, ...]) -> None:
    begun, ended = (farm.at(program) for program in route)
    location = path_of(answered(begun.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    location = path_of(answered(begun.patch(location, content=noise("mine", 5000)), 202).headers["Location"])
    wrong = digest_of(noise("another's", 5000))
    answered(ended.put(with_query(location, digest=wrong)), 400)
    for http in (begun, ended):
        answered(http.head(f"/v2/{repository}/blobs/{wrong}"), 404)


def test_a_state_of_another_session_is_refused(farm: Farm, repository: str, peer: Program) -> None:
    theirs, ours = farm.at(peer), farm.at(OURS)
    location = path_of(answered(theirs.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    other = path_of(answered(theirs.post("/v2/another/blobs/uploads/"), 202).headers["Location"])
    forged = httpx.URL(location).copy_set_param("_state", httpx.URL(other).params["_state"])
    answered(ours.patch(str(forged), content=b"x"), 404)
    answered(ours.patch(location.partition("?")[0], content=b"x"), 404)


# With uploads.shareable off, as it is unless it is set


def code_of(response: httpx.Response) -> str:
    code: str = response.json()["errors"][0]["code"]
    return code


def test_without_the_setting_a_peer_does_not_know_what_has_no_byte(
    farms: dict[bool, Farm], repository: str, peer: Program
) -> None:
    """It says 404, and our session is as good as before."""
    ours, theirs = farms[False].at(OURS), farms[False].at(peer)
    location = path_of(answered(ours.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    assert code_of(answered(theirs.get(location), 404)) == "BLOB_UPLOAD_UNKNOWN"
    assert code_of(answered(theirs.patch(location, content=PIECES[0]), 404)) == "BLOB_UPLOAD_UNKNOWN"
    closing = with_query(location, digest=digest_of(WHOLE))
    assert code_of(answered(theirs.put(closing, content=WHOLE), 404)) == "BLOB_UPLOAD_UNKNOWN"
    assert not farms[False].leftovers(repository)
    location = path_of(answered(ours.patch(location, content=WHOLE), 202).headers["Location"])
    answered(ours.put(with_query(location, digest=digest_of(WHOLE))), 201)
    for http in (ours, theirs):
        check_blob(http, repository, digest_of(WHOLE), WHOLE)
    assert not farms[False].leftovers(repository)


@pytest.mark.parametrize("route", [route for route in ROUTES if route[0] is not OURS or route[1] is OURS], ids=name_of)
def test_without_the_setting_uploads_still_move_once_they_have_bytes(
    farms: dict[bool, Farm], repository: str, route: tuple[Program, ...]
) -> None:
    post, first, second, put = (farms[False].at(program) for program in route)
    location = path_of(answered(post.post(f"/v2/{repository}/blobs/uploads/"), 202).headers["Location"])
    for http, piece in ((first, PIECES[0]), (second, PIECES[1])):
        location = path_of(answered(http.patch(location, content=piece), 202).headers["Location"])
    data = PIECES[0] + PIECES[1]
    answered(put.put(with_query(location, digest=digest_of(data))), 201)
    for program in set(route):
        check_blob(farms[False].at(program), repository, digest_of(data), data)
    assert not farms[False].leftovers(repository)

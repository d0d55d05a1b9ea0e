"""Uploads in progress that change the server between two requests, as behind a load balancer over one folder."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.api import digest_of, with_query

from .content import Content, answered, check_blob, path_of
from .corpora import noise
from .peers import OURS, V2, V3, Lab, Program

pytestmark = [pytest.mark.interop, pytest.mark.slow]

PIECES = [noise("one", 700_000), noise("two", 5_300_000), noise("three", 300_000)]
WHOLE = b"".join(PIECES)

ROUTES = [
    (a, b, c, d)
    for peer in (V2, V3)
    for a, b, c, d in [
        (OURS, peer, OURS, peer),
        (peer, OURS, peer, OURS),
        (OURS, OURS, peer, peer),
        (peer, peer, OURS, OURS),
        (OURS, peer, peer, OURS),
        (peer, OURS, OURS, peer),
    ]
] + [(V3, OURS, V2, OURS), (V2, OURS, V3, V2)]
"""Who takes the POST, the two PATCHes, and the PUT."""


def name_of(route: tuple[Program, ...]) -> str:
    return "-".join(program.name.replace("distribution-", "v") for program in route)


@contextmanager
def farm(lab: Lab, programs: set[Program]) -> Iterator[dict[Program, httpx.Client]]:
    """Each of the programs, started once, all over one folder."""
    with ExitStack() as stack:
        yield {program: stack.enter_context(lab.serving(program)) for program in programs}


@pytest.mark.parametrize("closing_body", [False, True], ids=["empty-put", "put-with-body"])
@pytest.mark.parametrize("route", ROUTES, ids=name_of)
def test_an_upload_goes_from_server_to_server(lab: Lab, route: tuple[Program, ...], closing_body: bool) -> None:
    post, first, second, put = route
    with farm(lab, set(route)) as at:
        location = path_of(answered(at[post].post("/v2/a/b/blobs/uploads/"), 202).headers["Location"])
        location = path_of(answered(at[first].patch(location, content=PIECES[0]), 202).headers["Location"])
        status = answered(at[second].get(location), 204)
        assert status.headers["Range"] == f"0-{len(PIECES[0]) - 1}"
        location = path_of(status.headers["Location"])
        sent = answered(at[second].patch(location, content=PIECES[1]), 202)
        assert sent.headers["Range"] == f"0-{len(PIECES[0] + PIECES[1]) - 1}"
        location, last = path_of(sent.headers["Location"]), PIECES[2]
        if not closing_body:
            location, last = path_of(answered(at[put].patch(location, content=last), 202).headers["Location"]), b""
        answered(at[put].put(with_query(location, digest=digest_of(WHOLE)), content=last), 201)
        for http in at.values():
            check_blob(http, "a/b", digest_of(WHOLE), WHOLE)
        assert not list(lab.store.rglob("_uploads/*/*"))


@pytest.mark.parametrize("route", [(OURS, V2), (V2, OURS), (OURS, V3), (V3, OURS)], ids=name_of)
def test_a_session_can_be_cancelled_elsewhere(lab: Lab, route: tuple[Program, ...]) -> None:
    begun, ended = route
    with farm(lab, set(route)) as at:
        location = path_of(answered(at[begun].post("/v2/a/blobs/uploads/"), 202).headers["Location"])
        location = path_of(answered(at[begun].patch(location, content=PIECES[0]), 202).headers["Location"])
        answered(at[ended].delete(location), 204)
        answered(at[begun].get(location), 404)
        assert not list(lab.store.rglob("_uploads/*/data"))


@pytest.mark.parametrize("route", [(OURS, V2), (V2, OURS), (OURS, V3), (V3, OURS)], ids=name_of)
def test_a_wrong_digest_is_refused_across_servers(lab: Lab, route: tuple[Program, ...]) -> None:
    begun, ended = route
    with farm(lab, set(route)) as at:
        location = path_of(answered(at[begun].post("/v2/a/blobs/uploads/"), 202).headers["Location"])
        location = path_of(answered(at[begun].patch(location, content=PIECES[0]), 202).headers["Location"])
        wrong = digest_of(PIECES[1])
        answered(at[ended].put(with_query(location, digest=wrong)), 400)
        for http in at.values():
            answered(http.head(f"/v2/a/blobs/{wrong}"), 404)


def test_a_state_of_another_session_is_refused(lab: Lab, peer: Program) -> None:
    with farm(lab, {OURS, peer}) as at:
        location = path_of(answered(at[peer].post("/v2/a/blobs/uploads/"), 202).headers["Location"])
        other = path_of(answered(at[peer].post("/v2/b/blobs/uploads/"), 202).headers["Location"])
        state = httpx.URL(other).params["_state"]
        forged = httpx.URL(location).copy_set_param("_state", state)
        answered(at[OURS].patch(str(forged), content=b"x"), 404)
        answered(at[OURS].patch(location.partition("?")[0], content=b"x"), 404)


def test_an_upload_in_progress_outlives_the_peers_collector(lab: Lab, peer: Program) -> None:
    content = Content()
    with lab.serving(OURS) as ours:
        content.image(ours, "a", noise("a", 1000), tag="t")
        location = answered(ours.post("/v2/a/blobs/uploads/"), 202).headers["Location"]
        location = answered(ours.patch(location, content=PIECES[0]), 202).headers["Location"]
        lab.garbage_collect(peer)
        location = answered(ours.patch(location, content=PIECES[2]), 202).headers["Location"]
        data = PIECES[0] + PIECES[2]
        answered(ours.put(with_query(location, digest=digest_of(data))), 201)
        check_blob(ours, "a", digest_of(data), data)
        content.check(ours)

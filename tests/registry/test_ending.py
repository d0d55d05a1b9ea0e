"""The end of `registry serve` as whoever runs it sees it: readiness, the delay for balancers, what is finished."""

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.api import digest_of
from tests.rawsocket import Response, connected, request
from tests.registry.processes.test_workers import MIB, Registry, refuses, serving, wait_until

pytestmark = pytest.mark.slow

DELAY = {"REGISTRY_HTTP_SHUTDOWNDELAY": "1s"}


def ask(registry: Registry, path: str) -> Response:
    with connected(*registry.place) as client:
        client.send(request("GET", path))
        return client.response()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_f39_in_the_delay_all_is_answered_and_nobody_is_sent_here(tmp_path: Path, workers: str) -> None:
    with serving(tmp_path, "--workers", workers, **DELAY) as registry, ExitStack() as stack:
        blob = registry.push(os.urandom(24 * MIB))
        idle, busy = (stack.enter_context(connected(*registry.place)) for _ in range(2))
        idle.send(request("GET", "/v2/"))
        assert "connection" not in idle.response().headers
        busy.send(request("GET", blob))
        busy.exactly(1)
        assert ask(registry, "/readyz").status == 200
        registry.process.terminate()
        wait_until(lambda: ask(registry, "/readyz").status == 503)
        wait_until(lambda: registry.errors.read_text().count('msg="stopping; ') == int(workers))
        answer = ask(registry, "/v2/")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        idle.send(request("GET", "/v2/"))
        assert idle.response().headers["connection"] == "close"
        assert idle.rest() == b""
        wait_until(lambda: refuses(registry.place))
        busy.exactly(24 * MIB)
        assert registry.ended() == 0


def test_f39_what_is_waited_for_is_in_the_log(tmp_path: Path) -> None:
    with serving(tmp_path) as registry, connected(*registry.place) as pull, connected(*registry.place) as push:
        blob = registry.push(os.urandom(24 * MIB))
        pull.send(request("GET", blob))
        pull.exactly(1)
        push.send(request("POST", "/v2/a/blobs/uploads/?digest=" + digest_of(b"12"), "Content-Length: 2") + b"1")
        ask(registry, "/v2/")  # whose answer comes after both have arrived
        registry.process.terminate()
        wait_until(lambda: registry.said("stopping; 2 requests are running, 1 of them uploads"))
        assert not registry.said("stopped")
        push.send(b"2")
        assert push.response().status == 201
        pull.exactly(24 * MIB)
        assert registry.ended() == 0
        assert registry.said("stopped; all requests have finished")


def test_second_signal_ends_the_delay_at_once(tmp_path: Path) -> None:
    with serving(tmp_path, REGISTRY_HTTP_SHUTDOWNDELAY="1h") as registry:
        registry.process.terminate()
        wait_until(lambda: ask(registry, "/readyz").status == 503)
        registry.process.terminate()
        assert registry.ended() == 128 + signal.SIGTERM


def test_f39_an_upload_that_was_cut_off_goes_on_after_the_restart(tmp_path: Path) -> None:
    content = os.urandom(2 * MIB)
    with serving(tmp_path, REGISTRY_HTTP_DRAINTIMEOUT="100ms") as registry:
        location = registry.ask(request("POST", "/v2/a/blobs/uploads/")).headers["location"]
        with connected(*registry.place) as push:
            push.send(request("PATCH", location, f"Content-Length: {len(content)}") + content[:MIB])
            ask(registry, "/v2/")
            registry.process.terminate()
            assert registry.ended() == 0
        assert registry.said("draintimeout is over")
    with serving(tmp_path) as registry:
        status = registry.ask(request("GET", location))
        offset = int(status.headers["range"].removeprefix("0-")) + 1
        assert MIB // 2 < offset <= MIB
        rest = content[offset:]
        span = f"Content-Range: {offset}-{len(content) - 1}"
        patched = registry.ask(request("PATCH", status.headers["location"], span, body=rest))
        assert patched.status == 202
        digest = digest_of(content)
        assert registry.ask(request("PUT", f"{patched.headers['location']}&digest={digest}")).status == 201
        assert registry.ask(request("GET", f"/v2/a/blobs/{digest}")).body == content

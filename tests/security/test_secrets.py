"""S11: no password, session state or secret in logs, error bodies or command lines, at the level that says most."""

from pathlib import Path

import bcrypt
import httpx
import pytest

from tests.api import IMAGE, digest_of, image, with_query
from tests.security.process import Process, serving

PASSWORD = "canary-password-of-alice"
WRONG = "canary-that-was-mistyped"
SECRET = "canary-secret-that-signs-sessions"
TOKEN = "canary-token-in-a-query"
COOKIE = "canary-cookie"
DATA = b"canary-content-of-a-layer"


class Conversation:
    """A client that remembers every `_state` it was given, and every error body."""

    def __init__(self, process: Process) -> None:
        self.client = httpx.Client(base_url=process.url, verify=False, headers={"Cookie": f"session={COOKIE}"})
        self.canaries = {PASSWORD, WRONG, SECRET, TOKEN, COOKIE, DATA.decode()}
        self.errors: list[str] = []

    def ask(self, method: str, target: str, status: int, *, auth: str = PASSWORD, **more: object) -> httpx.Response:
        response = self.client.request(method, target, auth=("alice", auth), **more)  # type: ignore[arg-type]
        assert response.status_code == status, (method, target, response.text)
        if state := httpx.URL(response.headers.get("Location", "")).params.get("_state"):
            self.canaries.add(state)
        if response.status_code >= 400:
            self.errors.append(response.text)
        credentials = response.request.headers["Authorization"].removeprefix("Basic ")
        self.canaries.add(credentials)
        return response


def talk(say: Conversation) -> None:
    """A push, a pull, and a representative set of what goes wrong."""
    ask = say.ask
    typed = {"Content-Type": IMAGE}
    ask("GET", "/v2/", 200)
    ask("GET", "/v2/", 401, auth=WRONG)
    ask("GET", f"/v2/_catalog?access_token={TOKEN}", 401, auth=WRONG)
    for data in (b"{}", DATA):
        location = ask("POST", "/v2/a/blobs/uploads/", 202).headers["Location"]
        location = ask("PATCH", location, 202, content=data[:1]).headers["Location"]
        ask("PATCH", location, 416, content=b"x", headers={"Content-Range": "9-9"})
        ask("PATCH", location, 400, content=b"x", headers={"Content-Range": "x"})
        ask("GET", location, 204)
        ask("PUT", location, 400, content=b"")
        ask("PUT", with_query(location, digest="sha256:x"), 400, content=b"")
        ask("PUT", with_query(location, digest=digest_of(b"")), 400, content=b"")
        ask("PUT", location + "&digest=a&digest=b", 400, content=b"")
        ask("PUT", location + "&%5Fstate=again", 400, content=b"")
        ask("GET", location[:-4], 404)
        ask("PUT", with_query(location, digest=digest_of(data)), 201, content=data[1:])
        ask("GET", location, 404)
    location = ask("POST", "/v2/a/blobs/uploads/", 202).headers["Location"]
    ask("DELETE", location.replace("/a/", "/b/"), 404)
    ask("TRACE", location, 405)
    ask("DELETE", location, 204)
    ask("PUT", "/v2/a/manifests/v1", 201, content=image(b"{}", (DATA,)), headers=typed)
    ask("PUT", "/v2/a/manifests/v1", 400, content=b"{", headers=typed)
    ask("GET", "/v2/a/manifests/v1", 200)
    ask("GET", f"/v2/a/blobs/{digest_of(DATA)}", 200)
    ask("GET", f"/v2/a/blobs/{digest_of(DATA)}", 416, headers={"Range": "bytes=900-"})
    ask("GET", f"/v2/a/manifests/none?access_token={TOKEN}", 404)
    ask("DELETE", "/v2/a/manifests/v1", 405)
    ask("GET", f"/nowhere?access_token={TOKEN}", 404)


@pytest.mark.slow
def test_s11_no_secret_is_told(tmp_path: Path) -> None:
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"alice:{hashed}\nbroken:canary-{hashed}\n")
    config = {
        "log": {"level": "debug", "formatter": "text"},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "data")}},
        "auth": {"htpasswd": {"path": str(tmp_path / "htpasswd")}},
    }
    with serving(tmp_path, config, REGISTRY_HTTP_SECRET=SECRET) as process:
        say = Conversation(process)
        talk(say)
        # a fault, whose reason goes into the log with all its causes
        blob = digest_of(DATA).partition(":")[2]
        (tmp_path / f"data/docker/registry/v2/blobs/sha256/{blob[:2]}/{blob}/data").write_bytes(b"")
        say.ask("GET", f"/v2/a/blobs/sha256:{blob}", 503)
        command_line = Path(f"/proc/{process.pid}/cmdline").read_text()
        say.client.close()
    said = (tmp_path / "registry.log").read_text()
    assert "request failed" in said, "the fault is in the log"
    assert "/v2/a/blobs/uploads/" in said, "the requests are in the log"
    assert len(say.errors) > 15
    assert len(say.canaries) > 10
    for canary in [*say.canaries, hashed]:
        assert canary not in said
        assert canary not in command_line
        for body in say.errors:
            assert canary not in body

"""Clients under a rolling restart: they push and pull whole images, check every byte, and try again as docker does.

What docker tries again, and how often: each blob, up or down, five times; a manifest not at all, but for what Go's HTTP
client does by itself, which repeats a request on a kept connection that had ended before it was sent.
"""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count

import httpx

from tests.api import IMAGE, digest_of, image

ATTEMPTS = 5
PIECE = 64 << 10
PAUSE = 0.01
"""Seconds between two pieces of a slow body: of 4 MiB it makes more than half a second."""
MIB = 1 << 20


class Failed(Exception):
    """An operation that a user would see fail."""


@dataclass
class Counts:
    """What all clients together have seen. repeated: attempts that failed and were repeated, with why."""

    pushed: int = 0
    pulled: int = 0
    failed: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    images: list[tuple[str, str, bytes]] = field(default_factory=list)
    """Repository, tag and manifest of what was pushed."""


class Client:
    """One of them, with connections that it keeps."""

    def __init__(self, url: str, name: str, size: int, counts: Counts, *, slow: bool) -> None:
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._name, self._size, self._counts, self._slow = name, size, counts, slow

    def close(self) -> None:
        self._http.close()

    def push(self, number: int) -> None:
        layer, config = os.urandom(self._size), b'{"number": %d}' % number
        for blob in (layer, config):
            self._again("push of a blob", lambda blob=blob: self._push_blob(blob))  # type: ignore[misc]
        manifest, tag = image(config, (layer,)), f"v{number}"
        put = self._send("PUT", f"/v2/{self._name}/manifests/{tag}", content=manifest, headers={"Content-Type": IMAGE})
        self._expect(put, 201)
        self._counts.images.append((self._name, tag, manifest))
        self._counts.pushed += 1

    def pull(self, number: int) -> None:
        if not self._counts.images:
            return
        name, tag, manifest = self._counts.images[-1 - number % min(len(self._counts.images), 8)]
        got = self._send("GET", f"/v2/{name}/manifests/{tag}", headers={"Accept": IMAGE})
        self._expect(got, 200)
        if got.content != manifest:
            raise Failed(f"{name}:{tag} is not what was pushed")
        body = got.json()
        for blob in (body["config"], *body["layers"]):
            self._again("pull of a blob", lambda blob=blob: self._pull_blob(name, blob["digest"]))  # type: ignore[misc]
        self._counts.pulled += 1

    def _push_blob(self, blob: bytes) -> None:
        started = self._send("POST", f"/v2/{self._name}/blobs/uploads/")
        self._expect(started, 202)
        location, half = started.headers["Location"], len(blob) // 2
        for piece, span in ((blob[:half], f"0-{half - 1}"), (blob[half:], f"{half}-{len(blob) - 1}")):
            sent = self._http.patch(
                location,
                content=self._pieces(piece),
                headers={"Content-Range": span, "Content-Length": str(len(piece))},
            )
            self._expect(sent, 202)
            location = sent.headers["Location"]
        joint = "&" if "?" in location else "?"
        self._expect(self._send("PUT", f"{location}{joint}digest={digest_of(blob)}"), 201)

    def _pieces(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), PIECE):
            if self._slow:
                threading.Event().wait(PAUSE)
            yield data[start : start + PIECE]

    def _pull_blob(self, name: str, digest: str) -> None:
        data = b""
        with self._http.stream("GET", f"/v2/{name}/blobs/{digest}") as response:
            if response.status_code != 200:
                response.read()
            self._expect(response, 200)
            for piece in response.iter_raw(PIECE):
                if self._slow:
                    threading.Event().wait(PAUSE)
                data += piece
        if digest_of(data) != digest:
            raise Failed(f"{digest} is not what was pushed")

    def _send(self, method: str, path: str, **options: object) -> httpx.Response:
        """Twice where a kept connection has ended meanwhile: Go repeats what cannot have been read."""
        try:
            return self._http.request(method, path, **options)  # type: ignore[arg-type]
        except (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as exc:
            self._counts.repeated.append(f"{method}: {exc!r}")
            return self._http.request(method, path, **options)  # type: ignore[arg-type]

    def _again(self, what: str, action: Callable[[], None]) -> None:
        for attempt in range(ATTEMPTS):
            try:
                return action()
            except (Failed, httpx.HTTPError) as exc:
                if attempt == ATTEMPTS - 1:
                    raise
                self._counts.repeated.append(f"{what}: {exc!r}")
                threading.Event().wait(0.1 * 2**attempt)
        return None

    def _expect(self, response: httpx.Response, status: int) -> None:
        if response.status_code != status:
            raise Failed(
                f"{response.request.method} {response.request.url.path}: {response.status_code} {response.text}"
            )

    def run(self, action: Callable[[int], None], stop: threading.Event) -> None:
        for number in count():
            if stop.is_set():
                return
            try:
                action(number)
            except (Failed, httpx.HTTPError) as exc:
                self._counts.failed.append(repr(exc))

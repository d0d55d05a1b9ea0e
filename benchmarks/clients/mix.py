"""Everything at once: a thread for each kind of client, well behaved or not, every byte checked. For benchmarks.soak.

spec: port, repository, seconds, large and small ({path, digest, file}), pushed (as in the client `push`: file, size,
blobs), manifest ({digest, tag, body}), tags. Result: done (what each kind has done), wrong (answers that were not as
they must be, the first ones as text).

Kinds that misbehave leave in the middle of a pull, in the middle of a push, or stop reading or sending and wait until
the server ends them; that it never does, is wrong.
"""

import hashlib
import http.client
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import LoadFailed, read_spec, report
from .http import connect, header, path_of, read_answer, read_head, request, status_of
from .push import BYTES, Push

PAUSE = 0.1
"""Seconds between the deeds of a kind: a load for hours, not a race."""
PATIENCE = 90
STALL_SECONDS = 45
"""Longer than any client may stall: 30 s, and the time until it is looked at."""
MIB = 1 << 20
RESET = struct.pack("ii", 1, 0)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"


class Mix:
    """What the threads share. dice: seeded for each, so that a run can be had again."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec = spec
        self.port: int = spec["port"]
        self.repository: str = spec["repository"]
        self.done: dict[str, int] = {}
        self.wrong: list[str] = []
        self.end = time.monotonic() + spec["seconds"]
        self.large = Path(spec["large"]["file"])
        self.large_size = self.large.stat().st_size

    def run(self) -> None:
        kinds: list[Callable[[random.Random], None]] = [self.pull_small, self.pull_large, self.ranges, self.push]
        kinds += [self.push_aborted, self.manifests, self.missing, self.leave, self.stall_reading, self.stall_sending]
        kinds += [self.lists, self.pull_small, self.ranges, self.push, self.manifests]
        threads = [threading.Thread(target=self._repeat, args=(kind, n)) for n, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _repeat(self, kind: Callable[[random.Random], None], number: int) -> None:
        dice, name = random.Random(number), kind.__name__
        while time.monotonic() < self.end and len(self.wrong) < 20:
            try:
                kind(dice)
            except (OSError, LoadFailed, http.client.HTTPException) as exc:
                self.wrong.append(f"{name}: {exc!r}")
            self.done[name] = self.done.get(name, 0) + 1
            time.sleep(PAUSE)

    def ask(
        self, status: int, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            data = answer.read()
        finally:
            connection.close()
        if answer.status != status:
            raise LoadFailed(f"{method} {path}: {answer.status} instead of {status}: {data[:200]!r}")
        return answer.headers, data

    def expect(self, fact: bool, what: str) -> None:
        if not fact:
            raise LoadFailed(what)

    # Pulls

    def pull_small(self, dice: random.Random) -> None:
        self._pull(self.spec["small"])

    def pull_large(self, dice: random.Random) -> None:
        self._pull(self.spec["large"])

    def _pull(self, blob: dict[str, str]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        try:
            connection.request("GET", blob["path"])
            answer, running = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(MIB):
                running.update(piece)
        finally:
            connection.close()
        self.expect(f"sha256:{running.hexdigest()}" == blob["digest"], f"other bytes of {blob['path']}")

    def ranges(self, dice: random.Random) -> None:
        start, size = dice.randrange(self.large_size), dice.choice((1, 1000, MIB, 5 * MIB))
        end = min(start + size, self.large_size)
        _, body = self.ask(206, "GET", self.spec["large"]["path"], {"Range": f"bytes={start}-{end - 1}"})
        with self.large.open("rb") as file:
            file.seek(start)
            self.expect(body == file.read(end - start), f"other bytes {start} to {end}")

    def leave(self, dice: random.Random) -> None:
        """In the middle of a pull: by a close, or by a reset."""
        with connect(self.port) as sock:
            sock.sendall(request("GET", self.spec["large"]["path"], self.port))
            head, _ = read_head(sock)
            self.expect(status_of(head) == 200, repr(head[:100]))
            for _ in range(dice.randrange(20)):
                sock.recv(MIB)
            if dice.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def stall_reading(self, dice: random.Random) -> None:
        with connect(self.port) as sock:
            sock.sendall(request("GET", self.spec["large"]["path"], self.port))
            read_head(sock)
            self._wait(STALL_SECONDS)
            if time.monotonic() > self.end:
                return
            # the kernel keeps a reset from a reader that has no room, so it is seen only now
            left = self.large_size
            try:
                while left > 0 and (more := len(sock.recv(MIB))):
                    left -= more
            except ConnectionResetError:
                return
            self.expect(left > 0, "a stalled reader was not ended")

    # Pushes

    def push(self, dice: random.Random) -> None:
        spec = self.spec["pushed"]
        mode = dice.choice(("stream", "docker", "chunked", "monolithic"))
        blob = dice.choice(spec["blobs"])
        pushing = Push({**spec, "port": self.port, "repository": self.repository, "mode": mode}, blob)
        pushing.run()
        if pushing.error:
            raise LoadFailed(f"{mode}: {pushing.error}")
        headers, _ = self.ask(200, "HEAD", f"/v2/{self.repository}/blobs/{blob['digest']}")
        self.expect(headers["Content-Length"] == str(pushing.size), "another size of a pushed blob")

    def _begin(self, sock: socket.socket) -> str:
        sock.sendall(request("POST", f"/v2/{self.repository}/blobs/uploads/", self.port, "Content-Length: 0"))
        head, _ = read_answer(sock, 202)
        return path_of(header(head, "location") or "")

    def push_aborted(self, dice: random.Random) -> None:
        """In the middle of a PATCH, with or without a length; the session says what came, and is cancelled."""
        with connect(self.port) as sock:
            location, half, chunked = self._begin(sock), dice.randrange(4 * MIB), dice.random() < 0.5
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {8 * MIB}"
            sock.sendall(request("PATCH", location, self.port, framing, BYTES))
            sock.sendall((b"%x\r\n" % (8 * MIB) if chunked else b"") + bytes(half))
            if dice.random() < 0.5:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        headers, _ = self.ask(204, "GET", location)
        self.expect(int(headers["Range"].removeprefix("0-")) <= half, "more than was sent")
        self.ask(204, "DELETE", location)

    def stall_sending(self, dice: random.Random) -> None:
        with connect(self.port) as sock:
            location = self._begin(sock)
            sock.sendall(request("PATCH", location, self.port, f"Content-Length: {8 * MIB}", BYTES))
            sock.sendall(bytes(dice.randrange(4 * MIB)))
            self._wait(STALL_SECONDS)
            if time.monotonic() < self.end:
                sock.setblocking(False)
                try:
                    self.expect(sock.recv(1) == b"", "a stalled sender got an answer")
                except BlockingIOError:
                    raise LoadFailed("a stalled sender was not ended") from None
                except ConnectionResetError:
                    pass
        self.ask(204, "DELETE", location)

    def _wait(self, seconds: float) -> None:
        """Or until the run is over."""
        time.sleep(max(0.0, min(seconds, self.end - time.monotonic())))

    # Small things

    def manifests(self, dice: random.Random) -> None:
        manifest = self.spec["manifest"]
        body = manifest["body"].encode()
        for reference in (manifest["tag"], manifest["digest"]):
            headers, got = self.ask(200, "GET", f"/v2/{self.repository}/manifests/{reference}", {"Accept": MANIFEST})
            self.expect(got == body and headers["Docker-Content-Digest"] == manifest["digest"], "another manifest")
        path = f"/v2/{self.repository}/manifests/pushed-{dice.randrange(5)}"
        self.ask(201, "PUT", path, {"Content-Type": MANIFEST}, body)
        _, got = self.ask(200, "GET", path, {"Accept": MANIFEST})
        self.expect(got == body, "another manifest than was pushed")

    def missing(self, dice: random.Random) -> None:
        digest = f"sha256:{dice.randbytes(32).hex()}"
        for path in (f"blobs/{digest}", f"manifests/{digest}", "manifests/none", f"referrers/{digest}"):
            self.ask(200 if "referrers" in path else 404, "GET", f"/v2/{self.repository}/{path}")
            self.ask(404, "GET", f"/v2/{path}")
        self.ask(404, "GET", "/v2/no/such/repository/tags/list")

    def lists(self, dice: random.Random) -> None:
        _, body = self.ask(200, "GET", f"/v2/{self.repository}/tags/list?n=1000")
        self.expect(set(self.spec["tags"]) <= set(_strings(body)), "a tag is missing")
        _, body = self.ask(200, "GET", "/v2/_catalog?n=100")
        self.expect(self.repository in _strings(body), "a repository is missing")


def _strings(body: bytes) -> list[str]:
    return body.decode().split('"')


def run(spec: dict[str, Any]) -> dict[str, Any]:
    mix = Mix(spec)
    mix.run()
    return {"done": mix.done, "wrong": mix.wrong}


if __name__ == "__main__":
    report(run(read_spec()))

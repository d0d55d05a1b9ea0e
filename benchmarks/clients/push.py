"""Uploads at once: a thread per client, bodies by sendfile from one file in the page cache.

Every blob is the file and 16 bytes of its own behind, so that each push has a new digest that costs nothing to know.
spec: port, repository, mode, file, size (of the file), blobs ([{tail, digest}], one per client), chunk.
Modes: stream (POST, PATCH, PUT), docker (the same with Transfer-Encoding: chunked in 32 KiB, as Go sends it), chunked
(a PATCH per `chunk` bytes with Content-Range), monolithic (POST, PUT, as containerd does). Result: seconds, bytes.
"""

import mmap
import os
import threading
import time
from pathlib import Path
from typing import Any

from . import LoadFailed, read_spec, report
from .http import connect, header, path_of, read_answer, request

GO_CHUNK = 32 * 1024
BYTES = "Content-Type: application/octet-stream"


class Push:
    """One client and its blob."""

    def __init__(self, spec: dict[str, Any], blob: dict[str, str]) -> None:
        self.sock = connect(spec["port"])
        self._port: int = spec["port"]
        self._repository: str = spec["repository"]
        self._mode: str = spec["mode"]
        self._chunk: int = spec["chunk"]
        self._file_size: int = spec["size"]
        self._tail = bytes.fromhex(blob["tail"])
        self._digest = blob["digest"]
        self._file = Path(spec["file"]).open("rb")  # noqa: SIM115 - run() closes it
        self.size = self._file_size + len(self._tail)
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self._push()
        except (OSError, LoadFailed) as exc:
            self.error = exc
        finally:
            self._file.close()
            self.sock.close()

    def _push(self) -> None:
        location = self._ask("POST", f"/v2/{self._repository}/blobs/uploads/", 202, 0, 0)
        if self._mode == "stream":
            location = self._ask("PATCH", location, 202, 0, self.size, BYTES)
        elif self._mode == "docker":
            location = self._patch_as_go(location)
        elif self._mode == "chunked":
            for start in range(0, self.size, self._chunk):
                end = min(start + self._chunk, self.size)
                location = self._ask("PATCH", location, 202, start, end, BYTES, f"Content-Range: {start}-{end - 1}")
        last = f"{location}{'&' if '?' in location else '?'}digest={self._digest}"
        self._ask("PUT", last, 201, 0, self.size if self._mode == "monolithic" else 0, BYTES)

    def _ask(self, method: str, path: str, expected: int, start: int, end: int, *lines: str) -> str:
        """Send a request whose body are the blob's bytes start to end; the Location in the answer."""
        self.sock.sendall(request(method, path, self._port, f"Content-Length: {end - start}", *lines))
        self._send(start, end)
        return self._location(expected)

    def _location(self, expected: int) -> str:
        head, _ = read_answer(self.sock, expected)
        location = header(head, "location")
        if location is None:
            raise LoadFailed(f"no Location in {head[:200]!r}")
        return path_of(location)

    def _send(self, start: int, end: int) -> None:
        while start < min(end, self._file_size):
            start += os.sendfile(self.sock.fileno(), self._file.fileno(), start, min(end, self._file_size) - start)
        if end > start:
            self.sock.sendall(self._tail[start - self._file_size : end - self._file_size])

    def _patch_as_go(self, location: str) -> str:
        self.sock.sendall(request("PATCH", location, self._port, "Transfer-Encoding: chunked", BYTES))
        with mmap.mmap(self._file.fileno(), 0, prot=mmap.PROT_READ) as content, memoryview(content) as view:
            for start in range(0, self._file_size, GO_CHUNK):
                with view[start : start + GO_CHUNK] as part:
                    self.sock.sendall(b"".join((b"%x\r\n" % len(part), part, b"\r\n")))
        self.sock.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self._tail), self._tail))
        return self._location(202)


def run(spec: dict[str, Any]) -> dict[str, Any]:
    pushes = [Push(spec, blob) for blob in spec["blobs"]]
    threads = [threading.Thread(target=push.run) for push in pushes]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    for push in pushes:
        if push.error is not None:
            raise LoadFailed(f"{spec['mode']}: {push.error}")
    return {"seconds": seconds, "bytes": sum(push.size for push in pushes)}


if __name__ == "__main__":
    report(run(read_spec()))

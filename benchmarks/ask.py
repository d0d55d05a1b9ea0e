"""One request outside the clock: is the answer that a case is about to time the right one?"""

import hashlib
import http.client
from dataclasses import dataclass

from benchmarks.clients import LoadFailed
from benchmarks.servers import Running

PATIENCE_SECONDS = 120
PIECE = 1 << 20


@dataclass(frozen=True)
class Answer:
    """What came back. body: its first bytes, all of it where it is no blob."""

    length: str | None
    size: int
    digest: str
    body: bytes


def ask(server: Running, method: str, path: str, headers: dict[str, str] | None = None) -> Answer:
    """Raises LoadFailed unless the status is 200."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE_SECONDS)
    try:
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        running, size, body = hashlib.sha256(), 0, b""
        while piece := answer.read(PIECE):
            running.update(piece)
            size += len(piece)
            body = body or piece
    except (OSError, http.client.HTTPException) as exc:
        raise LoadFailed(f"{server.server.name}: {method} {path}: {exc!r}") from exc
    finally:
        connection.close()
    if answer.status != 200:
        raise LoadFailed(f"{server.server.name}: {method} {path}: status {answer.status}, {body[:300]!r}")
    return Answer(answer.headers["Content-Length"], size, f"sha256:{running.hexdigest()}", body)

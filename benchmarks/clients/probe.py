"""How long a small request takes while others load the server: GET /v2/, one after the other, until input is closed.

spec: port, gap (seconds between an answer and the next request). Result: ms, the list of all latencies.
"""

import select
import sys
import time
from typing import Any

from . import read_spec, report
from .http import connect, read_answer, request


def run(spec: dict[str, Any]) -> dict[str, Any]:
    sock = connect(spec["port"])
    head = request("GET", "/v2/", spec["port"])
    latencies = []
    while not select.select([sys.stdin], [], [], spec["gap"])[0]:
        start = time.perf_counter()
        sock.sendall(head)
        read_answer(sock, 200)
        latencies.append((time.perf_counter() - start) * 1000)
    sock.close()
    return {"ms": latencies}


if __name__ == "__main__":
    report(run(read_spec()))

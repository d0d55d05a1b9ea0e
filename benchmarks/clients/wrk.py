"""wrk, for small requests over kept connections."""

import json
import subprocess
from pathlib import Path

from . import LoadFailed

SCRIPT = Path(__file__).with_name("wrk.lua")
MARK = "JSON "
LARGEST_HEAD = 4096


def wrk(url: str, connections: int, seconds: int, size: int, *headers: str) -> dict[str, float]:
    """Requests/s and latencies of GETs whose answers have bodies of `size` bytes. Raises LoadFailed."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", str(SCRIPT)]
    for header in headers:
        command += ["-H", header]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LoadFailed(f"wrk: {done.stderr.strip() or done.stdout.strip()}")
    return parse(done.stdout, connections, size)


def parse(output: str, connections: int, size: int) -> dict[str, float]:
    """What wrk.lua printed. Raises LoadFailed when an answer was an error or of another length."""
    line = next((line for line in output.splitlines() if line.startswith(MARK)), None)
    if line is None:
        raise LoadFailed(f"wrk printed no result: {output[-300:]}")
    said: dict[str, int] = json.loads(line.removeprefix(MARK))
    if said["bad_status"] or said["socket_errors"] or said["timeouts"]:
        raise LoadFailed(f"wrk saw errors: {line}")
    if not said["requests"]:
        raise LoadFailed("wrk saw no answer at all")
    # wrk counts the bytes of the answers that were under way at the end, too
    least = said["requests"] * size
    most = (said["requests"] + connections) * (size + LARGEST_HEAD)
    if not least < said["bytes"] <= most:
        raise LoadFailed(f"{said['bytes']} bytes in {said['requests']} answers: not bodies of {size}")
    return {
        "requests": said["requests"],
        "bytes": least,
        "req_s": said["requests"] / (said["us"] / 1e6),
        "p50_ms": said["p50_us"] / 1000,
        "p99_ms": said["p99_us"] / 1000,
        "max_ms": said["max_us"] / 1000,
    }

"""Everything at once for minutes: does memory stay flat, do open files return, is every answer right?

`make soak` runs ten minutes (QUICK=1 one) and writes soak.json and soak.md into the results. It fails when an answer is
wrong, when open files are more than at the start once the clients have left, or when the mean of resident memory in the
last 30 % of the time is more than GROWTH_MB above its mean in the 30 % before.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from . import machine, processes
from .__main__ import RESULTS, WORK
from .clients import finish, start
from .lab import MIB, say
from .report import table
from .servers import OURS, Running, running
from .store import BLOCK, Blob, Store, blocks, small_image
from .suites.push import Source

REPOSITORY = "bench/soak"
TAGS = [f"v{number}" for number in range(50)]
GROWTH_MB = 8.0
"""Of the last 30 % over the 30 % before. A leak of 16 kB a second would make as much in eight minutes."""
SETTLE_SECONDS = 60.0
WARM_SECONDS = 5.0


@dataclass(frozen=True)
class Moment:
    """What the server held: seconds since the start; megabytes (10^6); open descriptors."""

    seconds: float
    rss_mb: float
    pss_mb: float
    files: int


def observe(pid: int, since: float) -> Moment:
    rss, pss = processes.rss_mb(pid), processes.pss_mb(pid)
    return Moment(round(time.monotonic() - since, 1), round(rss, 2), round(pss, 2), processes.open_files(pid))


def mean_rss(moments: list[Moment], first: float, last: float) -> float:
    """Between two parts of the whole time."""
    whole = moments[-1].seconds
    return statistics.fmean(m.rss_mb for m in moments if first * whole <= m.seconds <= last * whole)


def growth_mb(moments: list[Moment]) -> float:
    return mean_rss(moments, 0.7, 1.0) - mean_rss(moments, 0.3, 0.6)


def slope_mb_min(moments: list[Moment]) -> float:
    """Of the last 70 % of the time: what starts up has started up."""
    late = [m for m in moments if m.seconds >= 0.3 * moments[-1].seconds]
    return statistics.linear_regression([m.seconds / 60 for m in late], [m.rss_mb for m in late]).slope


def seed(store: Store, folder: Path) -> dict[str, Any]:
    """Fill the store. Returns what the client `mix` has to know of it."""
    made = {}
    # ours are files of their own, so that a range can be compared with the source
    for name, size in (("large", 100 * MIB), ("small", MIB)):
        content = folder / name
        with content.open("wb") as file:
            for block in blocks(size):
                file.write(block)
        with content.open("rb") as file:
            made[name] = store.add_blob(REPOSITORY, iter(lambda file=file: file.read(BLOCK), b""))  # type: ignore[misc]
    source = Source(folder / "pushed", 16 * MIB)
    image = small_image(store, REPOSITORY, *TAGS)
    digest = image.digest.removeprefix("sha256:")
    body = (store.root / f"docker/registry/v2/blobs/sha256/{digest[:2]}/{digest}/data").read_text()
    return {
        "repository": REPOSITORY,
        "tags": TAGS,
        **{name: about(blob, folder / name) for name, blob in made.items()},
        "pushed": {"file": str(source.path), "size": source.size, "blobs": source.blobs(8), "chunk": 4 * MIB},
        "manifest": {"digest": image.digest, "tag": TAGS[0], "body": body},
    }


def about(blob: Blob, file: Path) -> dict[str, str]:
    return {"path": f"/v2/{REPOSITORY}/blobs/{blob.digest}", "digest": blob.digest, "file": str(file)}


def load(server: Running, spec: dict[str, Any], seconds: float) -> tuple[list[Moment], dict[str, Any]]:
    """Run the mix for so long, and look at the server each second."""
    began, moments = time.monotonic(), []
    client = start("mix", {**spec, "port": server.port, "seconds": seconds})
    try:
        while client.poll() is None and time.monotonic() - began < seconds:
            moments.append(observe(server.pid, began))
            time.sleep(1)
        return moments, finish(client)
    finally:
        client.kill()
        client.wait()


def settled(server: Running, files: int) -> int:
    """How many descriptors are open, once they are back to `files` or time is up."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while (found := processes.open_files(server.pid)) > files and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def soak(seconds: float, work: Path, facts: dict[str, str]) -> dict[str, Any]:
    """Everything that was seen. facts: of the machine."""
    with tempfile.TemporaryDirectory(prefix="moorage-soak-", dir=work) as name, ExitStack() as stack:
        folder = Path(name)
        spec = seed(Store(folder / "store"), folder)
        server = stack.enter_context(running(OURS, folder / "store", folder / "servers"))
        processes.reset_peak(server.pid)
        rest = observe(server.pid, time.monotonic())
        _, warm = load(server, spec, WARM_SECONDS)
        files = settled(server, rest.files)
        say(f"at rest {rest.rss_mb:.0f} MB; the load begins with {files} open files, {seconds / 60:.0f} minutes")
        moments, seen = load(server, spec, seconds)
        after = settled(server, files)
        peak = processes.peak_mb(server.pid)
        log = (folder / "servers" / f"{OURS.name}.log").read_text(errors="replace")
    return {
        "date": machine.today(),
        "seconds": seconds,
        "machine": facts,
        "version": OURS.version(),
        "rest": asdict(rest),
        "files": {"before": files, "during": max(m.files for m in moments), "after": after},
        "growth_mb": round(growth_mb(moments), 2),
        "slope_mb_min": round(slope_mb_min(moments), 3),
        "peak_mb": round(peak, 1),
        "done": seen["done"],
        "wrong": warm["wrong"] + seen["wrong"],
        "log": log[-2000:],
        "moments": [asdict(m) for m in moments],
    }


def faults(found: dict[str, Any]) -> list[str]:
    """What makes the run a failure."""
    said = [f"wrong answer: {text}" for text in found["wrong"]]
    if found["files"]["after"] > found["files"]["before"]:
        said.append(f"open files: {found['files']['after']} afterwards, {found['files']['before']} before")
    if found["growth_mb"] > GROWTH_MB:
        said.append(f"memory grew by {found['growth_mb']} MB in the last 30 % of the time")
    return said


def page(found: dict[str, Any]) -> str:
    moments = [Moment(**m) for m in found["moments"]]
    minute = min(moments, key=lambda m: abs(m.seconds - 60))
    rows = [("at rest", Moment(**found["rest"])), ("start of the load", moments[0]), ("after 1 minute", minute)]
    rows.append(("end of the load", moments[-1]))
    cells = [[name, f"{m.rss_mb:.1f}", f"{m.pss_mb:.1f}", str(m.files)] for name, m in rows]
    files, done = found["files"], ", ".join(f"{name} {count:,}" for name, count in sorted(found["done"].items()))
    verdict = faults(found)
    lines = ["# Soak", "", *table(["", "RSS MB", "PSS MB", "open files"], cells), ""]
    lines += [
        f"{found['date']}, {found['seconds'] / 60:.0f} minutes, Moorage {found['version']}. Slope of the last 70 % of",
        f"the time: {found['slope_mb_min']} MB a minute; last 30 % over the 30 % before: {found['growth_mb']} MB",
        f"(at most {GROWTH_MB}); peak {found['peak_mb']} MB. Open files: {files['before']} before, at most",
        f"{files['during']} during, {files['after']} once all clients had left.",
        "",
        f"Done: {done}. Wrong answers: {len(found['wrong'])}.",
        "",
        *([f"- **{text}**" for text in verdict] or ["No faults."]),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--work", type=Path, default=WORK, help="where the store is: a folder on a disk")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the results go")
    options = parser.parse_args()
    try:
        facts = machine.describe(options.work)
    except machine.NotADisk as exc:
        sys.exit(f"benchmarks: {exc}")
    found = soak(options.minutes * 60, options.work, facts)
    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "soak.json").write_text(json.dumps(found) + "\n")
    text = page(found)
    (options.results / "soak.md").write_text(text)
    say(text)
    return 1 if faults(found) else 0


if __name__ == "__main__":
    sys.exit(main())

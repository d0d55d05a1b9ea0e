"""Run the conformance suites and say whether everything passed: `python -m conformance.run [RUN ...]`.

Each run has a registry of its own on a free port and a folder of its own; what it leaves for reading is in
build/conformance/<run>. The exit code is 0 only when no check failed, broke or was skipped, but for those that
expected.yaml names, and when each of these still does.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from conformance import preload, server, suites
from conformance.suites import Finding, Outcome
from tests.s3 import servers

RESULTS = suites.HERE.parent / "build" / "conformance"
COLUMNS = ("pass", "fail", "error", "skip", "disabled")


@dataclass(frozen=True)
class Result:
    run: str
    seconds: float
    outcome: Outcome | None = None
    problem: str | None = None  # why there is no outcome
    not_run: str | None = None  # why it was left out
    objections: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        return self.problem is None and not self.objections


Named = Iterator[tuple[str, Callable[[Path], Outcome]]]


def on_memory(version: str) -> Named:
    def run(folder: Path) -> Outcome:
        with server.running({"inmemory": {}}, folder) as address:
            return suites.run_suite(address, folder, version, suites.settings())

    yield f"memory-{version}", run


def on_filesystem(version: str) -> Named:
    def run(folder: Path) -> Outcome:
        with tempfile.TemporaryDirectory() as data, server.running(_files(data), folder) as address:
            return suites.run_suite(address, folder, version, suites.settings())

    yield f"filesystem-{version}", run


def on_s3(version: str) -> Named:
    """On SeaweedFS. Blobs come from the registry itself: a store's own answers have no digest header."""

    def run(folder: Path) -> Outcome:
        with servers.seaweedfs_server() as store:
            storage: dict[str, object] = {"s3": store.parameters(store.new_bucket()), "redirect": {"disable": True}}
            with server.running(storage, folder) as address:
                return suites.run_suite(address, folder, version, suites.settings())

    yield f"s3-{version}", run


def read_only() -> Named:
    """Two runs over one folder: the suite fills it, then meets it read-only."""
    with tempfile.TemporaryDirectory() as data:
        contents: list[preload.Content] = []

        def fill(folder: Path) -> Outcome:
            with server.running(_files(data), folder) as address:
                outcome = suites.run_suite(address, folder, "dev", suites.settings("oci-preload.yaml"))
                contents.append(preload.list_content(address, suites.REPOSITORY))
                return outcome

        def read(folder: Path) -> Outcome:
            if not contents:
                raise preload.PreloadFailed("there is nothing to read: the preload failed")
            given = suites.settings("oci-readonly.yaml") | {"roData": vars(contents[0])}
            with server.running(_files(data), folder, read_only=True) as address:
                if not preload.refuses_push(address, suites.REPOSITORY):
                    raise server.ServerFailed("a push to the read-only registry was not refused with 405")
                return suites.run_suite(address, folder, "dev", given)

        yield "filesystem-preload", fill
        yield "filesystem-readonly", read


def old_suite() -> Named:
    def run(folder: Path) -> Outcome:
        with tempfile.TemporaryDirectory() as data, server.running(_files(data), folder) as address:
            return suites.run_old_suite(address, folder)

    yield "filesystem-1.1.1", run


PLAN: Mapping[str, Callable[[], Named]] = {
    "memory-1.1": lambda: on_memory("1.1"),
    "memory-dev": lambda: on_memory("dev"),
    "filesystem-1.1": lambda: on_filesystem("1.1"),
    "filesystem-dev": lambda: on_filesystem("dev"),
    "s3-1.1": lambda: on_s3("1.1"),
    "s3-dev": lambda: on_s3("dev"),
    "readonly": read_only,
    "1.1.1": old_suite,
}


def judge(outcome: Outcome, expected: Mapping[Finding, str]) -> tuple[str, ...]:
    """What speaks against a run: every finding that is not expected, and everything expected that was not found."""
    unexpected = [_label(finding) for finding in outcome.findings if finding not in expected]
    stale = [f"expected, but not so: {_label(finding)}" for finding in expected if finding not in outcome.findings]
    unnamed = not outcome.findings and any(outcome.counts[status] for status in suites.BAD)
    return (*unexpected, *stale, *(["the totals tell of checks that the report does not name"] if unnamed else []))


def read_expected(text: str) -> dict[str, dict[Finding, str]]:
    """Run -> what is expected in it -> why."""
    runs = yaml.safe_load(text)
    return {
        run: {Finding(entry["check"], entry["status"], entry["times"]): entry["reason"] for entry in entries}
        for run, entries in runs.items()
    }


def perform(name: str, run: Callable[[Path], Outcome], expected: Mapping[Finding, str]) -> Result:
    if name.endswith("1.1.1") and not suites.OLD_SUITE.exists():
        return Result(name, 0, not_run=f"there is no {suites.OLD_SUITE} (conformance/README.md)")
    folder = RESULTS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    start = time.monotonic()
    try:
        outcome = run(folder)
    except (
        server.ServerFailed,
        servers.ServerFailed,
        suites.SuiteFailed,
        preload.PreloadFailed,
        httpx.HTTPError,
        OSError,
    ) as error:
        return Result(name, time.monotonic() - start, problem=str(error) or repr(error))
    return Result(name, time.monotonic() - start, outcome, objections=judge(outcome, expected))


def show(result: Result, expected: Mapping[Finding, str]) -> None:
    if result.not_run:
        print(f"{result.run}: not run: {result.not_run}", flush=True)
        return
    if result.outcome is None:
        print(f"{result.run}: {result.problem}", flush=True)
        return
    totals = ", ".join(f"{result.outcome.counts[status]} {status}" for status in COLUMNS)
    print(f"{result.run}: {totals} in {result.seconds:.1f} s", flush=True)
    for objection in result.objections:
        print(f"  {objection}")
    for finding, reason in expected.items():
        if finding in result.outcome.findings:
            print(f"  expected: {_label(finding)}: {reason}")


def summarize(results: list[Result]) -> bool:
    """Print the table and the closing line; returns whether everything is as it should be."""
    print(f"\n{'run':22}" + "".join(f"{column:>10}" for column in COLUMNS))
    total = dict.fromkeys(COLUMNS, 0)
    for result in results:
        counts = result.outcome.counts if result.outcome else None
        cells = "".join(f"{counts[column]:>10}" for column in COLUMNS) if counts else "   " + _why(result)
        print(f"{result.run:22}{cells}")
        for column in COLUMNS:
            total[column] += counts[column] if counts else 0
    # A run that objects only to skips, or to a check that passes, has failed all the same.
    failed = max(total["fail"] + total["error"], sum(not result.good for result in results))
    print(f"\nreports: {RESULTS}")
    print(f"{total['pass']} passed, {failed} failed, {total['skip']} skipped")
    return all(result.good for result in results)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m conformance.run", description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="*", help=f"any of {', '.join(PLAN)}; all when none is named")
    chosen = parser.parse_args().run or list(PLAN)
    if unknown := sorted(set(chosen) - set(PLAN)):
        parser.error(f"no such run: {', '.join(unknown)}; there are {', '.join(PLAN)}")
    if not suites.SUITE.exists():
        print(f"There is no {suites.SUITE}: run `make tools`.")
        return 2
    expected = read_expected((suites.HERE / "expected.yaml").read_text())
    results = []
    for plan in chosen:
        for name, run in PLAN[plan]():
            results.append(perform(name, run, expected.get(name, {})))
            show(results[-1], expected.get(name, {}))
    return 0 if summarize(results) else 1


def _files(data: str) -> dict[str, object]:
    return {"filesystem": {"rootdirectory": data}}


def _label(finding: Finding) -> str:
    return f"{finding.status}: {finding.check}" + (f" ({finding.times} times)" if finding.times > 1 else "")


def _why(result: Result) -> str:
    return "not run" if result.not_run else f"broken: {result.problem}"


if __name__ == "__main__":
    sys.exit(main())

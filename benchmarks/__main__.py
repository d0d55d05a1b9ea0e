"""The command line: `make bench`, `make bench QUICK=1`, `make bench ONLY=pull,push`.

Results go into benchmarks/results, those of other scales into a folder of their own, so that a quick run never
overwrites a full one. Each suite is saved when it is done: a run that is interrupted loses one suite at most.
"""

import argparse
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from . import machine, plots, report
from .clients import ROOT, LoadFailed
from .lab import SCALES, Lab, say
from .results import Results, SuiteResult, load
from .servers import DidNotStart, missing, present
from .suites import SUITES, Suite

RESULTS = Path(__file__).with_name("results")
WORK = Path("/var/tmp")


def main() -> int:
    options = parser().parse_args()
    # so that a run that is ended from outside ends its servers and removes its stores
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder: Path = options.results or (RESULTS if options.scale == "full" else RESULTS / options.scale)
    folder.mkdir(parents=True, exist_ok=True)
    results = load(folder / "results.json")
    failures = [] if options.report else measure(options, results, folder)
    write(results, folder)
    if options.readme:
        readme = ROOT / "README.md"
        readme.write_text(report.put_into(readme.read_text(), report.highlights(results)))
    for failure in failures:
        say(f"FAILED {failure}")
    return 1 if failures else 0


def parser() -> argparse.ArgumentParser:
    names = ", ".join(suite.name for suite in SUITES)
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--scale", choices=SCALES, default="full")
    parser.add_argument("--only", default="", help=f"suites to run, with commas: {names}")
    parser.add_argument("--work", type=Path, default=WORK, help="where the stores are: a folder on a disk")
    parser.add_argument("--results", type=Path, help="where the results go")
    parser.add_argument("--report", action="store_true", help="measure nothing, write tables and plots again")
    parser.add_argument("--readme", action="store_true", help="put the short table into the project's README")
    return parser


def chosen(only: str) -> list[Suite]:
    names = {name for name in only.replace(" ", "").split(",") if name}
    unknown = names - {suite.name for suite in SUITES}
    known = ", ".join(suite.name for suite in SUITES)
    if unknown:
        sys.exit(f"benchmarks: no suite is called {', '.join(sorted(unknown))}; there are {known}")
    return [suite for suite in SUITES if not names or suite.name in names]


def measure(options: argparse.Namespace, results: Results, folder: Path) -> list[str]:
    """Run the suites, each saved when it is done. Returns what failed; the other suites run all the same."""
    suites = chosen(options.only)
    if shutil.which("wrk") is None:
        sys.exit("benchmarks: wrk is not installed; `make bench-packages` brings it")
    for name, why in missing().items():
        say(f"missing: {name} ({why})")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="moorage-bench-", dir=options.work) as work:
        lab = Lab(SCALES[options.scale], Path(work))
        try:
            facts = machine.describe(lab.work)
        except machine.NotADisk as exc:
            sys.exit(f"benchmarks: {exc}")
        say(", ".join(f"{name}: {value}" for name, value in facts.items()))
        for suite in suites:
            say(f"{suite.name}: {suite.about}")
            try:
                result = run(suite, lab, facts)
            except (LoadFailed, DidNotStart) as exc:
                lab.failed.append(f"{suite.name}: {exc}")
                continue
            if result.cases:
                results.suites[suite.name] = result
                results.suites = {s.name: results.suites[s.name] for s in SUITES if s.name in results.suites}
                results.save(folder / "results.json")
            say(f"  ({time.monotonic() - began:.0f} s since the start)")
    return lab.failed


def run(suite: Suite, lab: Lab, facts: dict[str, str]) -> SuiteResult:
    return SuiteResult(
        suite=suite.name,
        date=machine.today(),
        scale=lab.scale.name,
        machine=facts,
        versions={server.name: server.version() for server in present(suite.servers)},
        missing=missing(suite.servers),
        cases=list(suite.run(lab)),
    )


def write(results: Results, folder: Path) -> None:
    made = plots.draw(results, folder)
    if made is None:
        say("plots: left out, matplotlib is not installed (pip install -e '.[bench]')")
    about = {suite.name: suite.about for suite in SUITES}
    (folder / "README.md").write_text(report.page(results, about, made or []))
    say("\n".join(report.goals_table(results)))
    say(f"results: {folder}")


if __name__ == "__main__":
    sys.exit(main())

"""Run one suite against a registry that listens, and read what it found.

`conformance` is the suite of today; `conformance-1.1.1` is the one before it was written anew, with other checks. Both
take part of their configuration from OCI_* variables: those of the caller are kept away from them.
The suite of today exits 0 when it could not even read its configuration, and panics after its report when push is off:
exit codes and report files prove nothing here, what it prints does.
"""

import os
import re
import subprocess
import textwrap
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

HERE = Path(__file__).parent
TOOLS = HERE.parent / ".tools" / "bin"
SUITE = TOOLS / "conformance"
OLD_SUITE = TOOLS / "conformance-1.1.1"
REPOSITORY = "conformance/repo1"
OTHER_REPOSITORY = "conformance/repo2"
SUITE_SECONDS = 600.0

# As the suite of today prints them, and as we count them.
STATUSES = {"Pass": "pass", "FAIL": "fail", "Error": "error", "Skip": "skip", "Disabled": "disabled"}
# As ginkgo writes them. What is not here (panicked, timedout, interrupted, ...) is an error.
OLD_STATUSES = {"passed": "pass", "failed": "fail", "skipped": "skip", "pending": "skip"}
BAD = ("fail", "error", "skip")

_NODE = re.compile(
    r"^(?P<indent> *)(?P<name>OCI Conformance Test.*): (?P<status>Pass|FAIL|Error|Skip|Disabled|Unknown)$"
)
_COUNT = re.compile(r"^  (?P<status>Pass|FAIL|Error|Skip|Disabled)\.+: +(?P<count>\d+)$")


class SuiteFailed(Exception):
    """The suite did not run, or its report cannot be read."""


@dataclass(frozen=True, order=True)
class Finding:
    """A check that did not pass. `times` counts the checks of this name and status."""

    check: str
    status: str
    times: int = 1


@dataclass(frozen=True)
class Outcome:
    counts: Mapping[str, int]
    findings: tuple[Finding, ...]


def settings(*overlays: str) -> dict[str, object]:
    """oci.yaml with each of the named files laid over it, in order."""
    merged: dict[str, object] = {}
    for name in ("oci.yaml", *overlays):
        merged = _lay_over(merged, yaml.safe_load((HERE / name).read_text()))
    return merged


def run_suite(address: str, folder: Path, version: str, given: Mapping[str, object]) -> Outcome:
    """Run the suite of today; its reports go into `folder`. Raises SuiteFailed."""
    config = folder / "oci-conformance.yaml"
    own = {"version": version, "registry": address, "resultsDir": str(folder)}
    config.write_text(yaml.safe_dump({**given, **own}, sort_keys=False))
    output = _run(SUITE, folder, {"OCI_CONFIGURATION": str(config)})
    refuse_unknown_switches(output, given)
    return parse_report(output)


def run_old_suite(address: str, folder: Path) -> Outcome:
    """Run the 1.1.1 suite, every workflow on; its reports go into `folder`. Raises SuiteFailed."""
    workflows = ("PULL", "PUSH", "CONTENT_DISCOVERY", "CONTENT_MANAGEMENT")
    variables = {
        "OCI_ROOT_URL": f"http://{address}",
        "OCI_NAMESPACE": REPOSITORY,
        "OCI_CROSSMOUNT_NAMESPACE": OTHER_REPOSITORY,
        "OCI_AUTOMATIC_CROSSMOUNT": "1",
        "OCI_REPORT_DIR": str(folder),
    }
    _run(OLD_SUITE, folder, variables | {f"OCI_TEST_{workflow}": "1" for workflow in workflows})
    return parse_old_report((folder / "junit.xml").read_bytes())


def parse_report(output: str) -> Outcome:
    """Read the tree and the totals that the suite prints.

    The tree, not its JUnit file: that calls disabled checks skipped, and has no place for an error above the leaves.
    """
    matches = [match for line in output.splitlines() if (match := _NODE.match(line))]
    nodes = [(len(m["indent"]), m["name"], STATUSES.get(m["status"], "unknown")) for m in matches]
    found = [nodes[i][1:] for i in range(len(nodes)) if nodes[i][2] in BAD and not _is_inherited(nodes, i)]
    counts = {STATUSES[m["status"]]: int(m["count"]) for line in output.splitlines() if (m := _COUNT.match(line))}
    if set(counts) != set(STATUSES.values()) or counts["pass"] == 0:
        raise SuiteFailed("the suite printed no totals, or nothing passed")
    return Outcome(counts, _findings([(name.removeprefix("OCI Conformance Test/"), status) for name, status in found]))


def parse_old_report(junit: bytes) -> Outcome:
    """Read ginkgo's JUnit file. Raises SuiteFailed."""
    results = [
        (str(case.get("name")).removeprefix("OCI Distribution Conformance Tests "), str(case.get("status")))
        for case in ET.fromstring(junit).iter("testcase")
        if not str(case.get("name")).startswith("[")  # ginkgo's own steps, such as writing the report
    ]
    translated = [(name, OLD_STATUSES.get(status, "error")) for name, status in results]
    counts = {status: sum(found == status for _, found in translated) for status in STATUSES.values()}
    if counts["pass"] == 0:
        raise SuiteFailed("nothing passed")
    return Outcome(counts, _findings([(name, status) for name, status in translated if status in BAD]))


def switched_off(settings: object, prefix: str = "") -> list[str]:
    """The dotted names of the switches that are off."""
    if isinstance(settings, Mapping):
        return [name for key in settings for name in switched_off(settings[key], f"{prefix}.{key}" if prefix else key)]
    return [prefix] if settings is False else []


def _is_inherited(nodes: list[tuple[int, str, str]], index: int) -> bool:
    """Whether a node has its status from a node below it."""
    indent, _, status = nodes[index]
    for below in nodes[index + 1 :]:
        if below[0] <= indent:
            return False
        if below[2] == status:
            return True
    return False


def _findings(results: list[tuple[str, str]]) -> tuple[Finding, ...]:
    return tuple(Finding(check, status, results.count((check, status))) for check, status in sorted(set(results)))


def refuse_unknown_switches(output: str, given: Mapping[str, object]) -> None:
    """A newer suite brings new checks, off by default: they must not stay off because nobody looked.

    The configuration is read from what the suite prints: its results.yaml is not written when push is off (it panics).
    """
    printed = re.search(r"^Configuration:\n(.*?)^OCI Conformance Result:", output, re.MULTILINE | re.DOTALL)
    if printed is None:
        raise SuiteFailed(f"the suite printed no configuration, its last line is: {output.strip()[-200:]}")
    effective = yaml.safe_load(textwrap.dedent(printed[1]))
    for part in ("apis", "data"):
        off = set(switched_off(effective[part], part)) - set(switched_off(given[part], part))
        if off:
            raise SuiteFailed(f"the suite has switches that conformance/oci.yaml does not turn on: {sorted(off)}")


def _lay_over(base: Mapping[str, object], top: Mapping[str, object]) -> dict[str, object]:
    merged = dict(base)
    for key, value in top.items():
        under = merged.get(key)
        merged[key] = _lay_over(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
    return merged


def _run(suite: Path, folder: Path, variables: Mapping[str, str]) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCI_")}
    try:
        done = subprocess.run(
            [str(suite)],
            cwd=folder,
            env=environment | dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=SUITE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise SuiteFailed(f"the suite did not end within {SUITE_SECONDS:.0f} s") from error
    (folder / "suite.log").write_text(done.stdout)
    return done.stdout

"""Does the runner see what the suites say? `make conformance` asks first: one that errs towards green is useless."""

import pytest

from conformance import run, suites
from conformance.preload import Content
from conformance.suites import Finding, Outcome, SuiteFailed

REPORT = """\
Test results
OCI Conformance Test: Error
  OCI Conformance Test/ping: Pass
  OCI Conformance Test/blobs: Error
    OCI Conformance Test/blobs/get: FAIL
     - unexpected status, the registry said:
OCI Conformance Test is what this line only pretends to report: Pass or so
    OCI Conformance Test/blobs/head: Skip
    OCI Conformance Test/blobs/head: Skip
    OCI Conformance Test/blobs/put: Pass
  OCI Conformance Test/tags: FAIL
    OCI Conformance Test/tags/list: FAIL

Configuration:
  version: dev
  apis:
    pull: true
    tags:
      list: {list}
  data:
    sha512: true

OCI Conformance Result: FAIL
  Disabled......................:          3
  Skip..........................:          2
  Pass..........................:         {passed}
  FAIL..........................:          2
  Error.........................:          1
  Total.........................:         20
"""
JUNIT = """\
<testsuites><testsuite>
  <testcase name="OCI Distribution Conformance Tests Pull blob" status="passed"/>
  <testcase name="OCI Distribution Conformance Tests Pull tag" status="failed"/>
  <testcase name="OCI Distribution Conformance Tests Pull tag" status="failed"/>
  <testcase name="OCI Distribution Conformance Tests Push blob" status="panicked"/>
  <testcase name="OCI Distribution Conformance Tests Push tag" status="skipped"/>
  <testcase name="[ReportAfterSuite]" status="passed"/>
</testsuite></testsuites>"""
NONE = dict.fromkeys(run.COLUMNS, 0)


def report(*, tag_list: str = "true", passed: int = 12) -> str:
    return REPORT.format(list=tag_list, passed=passed)


def test_the_report_names_each_check_where_it_failed() -> None:
    outcome = suites.parse_report(report())
    assert outcome.counts == {"pass": 12, "fail": 2, "error": 1, "skip": 2, "disabled": 3}
    assert outcome.findings == (
        Finding("blobs", "error"),  # above the leaves: no check below it is in error
        Finding("blobs/get", "fail"),
        Finding("blobs/head", "skip", 2),
        Finding("tags/list", "fail"),
    )


@pytest.mark.parametrize(
    "output", ["", "failed to load config\n", report(passed=0)], ids=["empty", "config", "all fail"]
)
def test_a_suite_that_checked_nothing_has_failed(output: str) -> None:
    with pytest.raises(SuiteFailed):
        suites.parse_report(output)


def test_the_old_report_is_read_too() -> None:
    outcome = suites.parse_old_report(JUNIT.encode())
    assert outcome.counts == NONE | {"pass": 1, "fail": 2, "error": 1, "skip": 1}
    assert outcome.findings == (
        Finding("Pull tag", "fail", 2),
        Finding("Push blob", "error"),
        Finding("Push tag", "skip"),
    )


def test_a_switch_that_is_off_without_our_asking_stops_the_run() -> None:
    given = {"apis": {"pull": True, "tags": {}}, "data": {"sha512": True}}
    suites.refuse_unknown_switches(report(), given)
    with pytest.raises(SuiteFailed, match=r"apis\.tags\.list"):
        suites.refuse_unknown_switches(report(tag_list="false"), given)
    suites.refuse_unknown_switches(report(tag_list="false"), {"apis": {"tags": {"list": False}}, "data": {}})


def test_only_the_named_overlays_switch_anything_off() -> None:
    assert suites.switched_off(suites.settings()) == []
    assert "data.sparse" in suites.switched_off(suites.settings("oci-preload.yaml"))
    assert "apis.push" in suites.switched_off(suites.settings("oci-readonly.yaml"))


def test_every_finding_counts_unless_it_is_expected() -> None:
    skipped, failed = Finding("a", "skip"), Finding("b", "fail", 2)
    outcome = Outcome(NONE | {"pass": 1, "skip": 1, "fail": 2}, (skipped, failed))
    assert run.judge(outcome, {}) == ("skip: a", "fail: b (2 times)")
    assert run.judge(outcome, {skipped: "why"}) == ("fail: b (2 times)",)
    assert run.judge(outcome, {skipped: "why", failed: "why"}) == ()


def test_an_expected_finding_that_is_gone_counts_too() -> None:
    fewer = Outcome(NONE | {"pass": 2, "fail": 1}, (Finding("b", "fail"),))
    assert run.judge(fewer, {Finding("b", "fail", 2): "why"}) == (
        "fail: b",
        "expected, but not so: fail: b (2 times)",
    )


def test_totals_without_names_are_not_good() -> None:
    assert run.judge(Outcome(NONE | {"pass": 2, "error": 1}, ()), {}) != ()
    assert run.judge(Outcome(NONE | {"pass": 2, "disabled": 1}, ()), {}) == ()


def test_the_expected_list_names_runs_that_exist() -> None:
    expected = run.read_expected((suites.HERE / "expected.yaml").read_text())
    assert set(expected) <= {name for plan in run.PLAN.values() for name, _ in plan()}
    assert all(reason for findings in expected.values() for reason in findings.values())


def test_content_is_what_the_manifests_name() -> None:
    content = Content()
    below = content.add_manifest("sha256:index", b'{"manifests": [{"digest": "sha256:image"}]}')
    image = b'{"config": {"digest": "sha256:c"}, "layers": [{"digest": "sha256:c"}], "subject": {"digest": "sha256:s"}}'
    assert below == ["sha256:image"]
    assert content.add_manifest("sha256:image", image) == []
    assert content == Content([], ["sha256:index", "sha256:image"], ["sha256:c"], ["sha256:s"])

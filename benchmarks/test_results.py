"""Tests of the results file: nothing is lost on the way, and a partial run replaces its part only."""

from pathlib import Path

from benchmarks.results import Case, Results, SuiteResult, load
from benchmarks.stats import Summary


def suite(name: str, *cases: Case) -> SuiteResult:
    return SuiteResult(name, "2026-01-01", "quick", {"cores": "2"}, {"moorage": "1"}, {"zot": "no"}, list(cases))


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    case = Case("a", "gb_s", {"moorage": [{"gb_s": 1.5, "peak_mb": 30.0}]}, {"nginx": "failed: x"})
    results = Results({"pull": suite("pull", case)})
    results.save(path)
    assert load(path).suites == results.suites
    assert [entry.name for entry in tmp_path.iterdir()] == ["results.json"]


def test_no_file_is_no_results(tmp_path: Path) -> None:
    assert load(tmp_path / "absent.json").suites == {}


def test_a_partial_run_leaves_the_other_suites(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    Results({"pull": suite("pull", Case("old", "gb_s")), "push": suite("push", Case("p", "gb_s"))}).save(path)
    again = load(path)
    again.suites["pull"] = suite("pull", Case("new", "gb_s"))
    again.save(path)
    assert [case.name for _, case in load(path).cases()] == ["new", "p"]


def test_figures_and_ratios_of_a_case() -> None:
    case = Case("a", "gb_s", {"moorage": [{"gb_s": 4.0, "cpu_s_gb": 1.0}], "nginx": [{"gb_s": 2.0}]})
    assert case.figure("moorage") == Summary(4.0, 4.0, 4.0, 1)
    assert case.figure("absent") is None
    assert case.ratio("nginx") == Summary(2.0, 2.0, 2.0, 1)
    assert case.ratio("nginx", "cpu_s_gb") is None

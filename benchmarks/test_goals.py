"""Tests of the goals: what is met, what is not, what nobody measured; every goal names a case of a suite."""

import ast
import re
from pathlib import Path

import pytest

from benchmarks.goals import GOALS, V3, at_most, growth, peak, ratio
from benchmarks.lab import FULL
from benchmarks.results import Case, Results, SuiteResult
from benchmarks.suites import proxy, push, s3


def results(suite: str, *cases: Case) -> Results:
    return Results({suite: SuiteResult(suite, "", "full", {}, {}, {}, list(cases))})


def case(name: str, metric: str, ours: list[float], theirs: list[float]) -> Case:
    samples = {"moorage": [{metric: value} for value in ours], V3: [{metric: value} for value in theirs]}
    return Case(name, metric, samples)


@pytest.mark.parametrize(
    ("least", "most", "word"),
    [(2.0, None, "met"), (2.1, None, "**not met**"), (None, 2.0, "met"), (None, 1.9, "**not met**")],
)
def test_ratio_goal(least: float | None, most: float | None, word: str) -> None:
    found = ratio("pull", "a", V3, least, most)(results("pull", case("a", "gb_s", [4.0, 5.0], [2.0, 2.5])))
    assert found.word == word
    assert found.found == "2.00 x (2.00 to 2.00)"


def test_what_no_suite_measured_is_not_met_and_not_missed() -> None:
    nothing = Results()
    assert {goal.check(nothing).word for goal in GOALS} == {"not measured"}
    only_ours = results("pull", Case("a", "gb_s", {"moorage": [{"gb_s": 1.0}]}))
    assert ratio("pull", "a", V3, 1.0)(only_ours).met is None


@pytest.mark.parametrize(("seconds", "met"), [(0.49, True), (0.51, False)])
def test_limit_goal(seconds: float, met: bool) -> None:
    found = results("start", case("first answer", "s", [seconds], []))
    assert at_most("start", "first answer", 0.5, "s")(found).met is met


@pytest.mark.parametrize(("after", "met"), [(2.0, True), (2.1, False)])
def test_growth_goal(after: float, met: bool) -> None:
    small = case("tags of 100, a page of 100", "ms", [1.0], [])
    large = case("tags of 10,000, a page of 100", "ms", [after], [])
    assert growth("tags")(results("lists", small, large)).met is met
    assert growth("tags")(results("lists", small)).met is None


def test_peak_is_the_highest_sample_of_ours() -> None:
    calm = Case("calm", "gb_s", {"moorage": [{"peak_mb": 20.0}, {"peak_mb": 160.0}], V3: [{"peak_mb": 900.0}]})
    found = peak(results("pull", calm))
    assert (found.met, found.found) == (False, "160 MB (pull, calm)")


def test_goals_name_cases_that_the_suites_take() -> None:
    """A renamed case would leave its goal unmeasured for ever, and nobody would be told."""
    pulls = {f"{blob} by {clients}" for blob in FULL.blobs for clients in FULL.clients}
    pushes = {f"{mode} by {clients}" for mode in push.MODES for clients in push.CLIENTS}
    lists = {f"{kind} of {n:,}, a page of 100" for kind in ("tags", "catalog") for n in FULL.entries}
    ways = {f"{way.name}: blob by {clients}" for way in s3.WAYS for clients in (1, s3.CLIENTS)}
    caches = {f"{way}: cold by {clients}" for way in proxy.WAYS for clients in proxy.COLD}
    caches |= {f"warm by {clients}" for clients in proxy.WARM}
    suites = Path(__file__).parent / "suites"
    trees = [ast.parse(path.read_text()) for path in suites.glob("*.py")]
    literal = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    named = set(re.findall(r'(?:ratio|at_most)\("\w+", "([^"]+)"', (suites.parent / "goals.py").read_text()))
    assert named
    assert named <= pulls | pushes | ways | caches | literal
    assert {"tags of 10,000, a page of 100", "catalog of 10,000, a page of 100"} <= lists

"""Tests of the tables: missing peers have their column, and the README is changed between its marks only."""

import pytest

from benchmarks.report import README_BEGIN, README_END, highlights, page, put_into, suite_tables
from benchmarks.results import Case, Results, SuiteResult

CASE = Case(
    "1 GiB by 1",
    "gb_s",
    {
        "moorage": [{"gb_s": 3.0, "cpu_s_gb": 0.3}, {"gb_s": 4.0, "cpu_s_gb": 0.4}],
        "distribution-3": [{"gb_s": 1.5, "cpu_s_gb": 0.6}, {"gb_s": 2.0, "cpu_s_gb": 0.8}],
    },
    {"nginx": "failed: it was tired"},
)
RESULT = SuiteResult("pull", "today", "full", {"cores": "2"}, {"moorage": "0.1"}, {"zot": "cannot be built"}, [CASE])


def test_table_of_a_suite() -> None:
    lines = suite_tables(RESULT)
    assert lines[0] == (
        "|  |  | Moorage | distribution v3 | zot (missing) | nginx "
        "| ours / distribution v3 | ours / zot | ours / nginx |"
    )
    assert lines[2] == "| 1 GiB by 1 | GB/s | 3.50 (3.00 to 4.00) | 1.75 (1.50 to 2.00) | - | - * | 2.00 x | - | - |"
    assert "| 1 GiB by 1 | CPU s/GB | 0.35 | 0.70 | - | - |" in lines
    assert lines[-1] == "- 1 GiB by 1: nginx failed: it was tired"


def test_page_says_when_where_and_what_is_missing() -> None:
    text = page(Results({"pull": RESULT}), {"pull": "blobs"}, ["pull.svg"])
    assert "today, full run. Moorage 0.1. **Missing: zot** (cannot be built). Machine: cores 2." in text
    assert "| pull of 1 GiB, 1 client, beside distribution v3 | >= 1.6 x | 2.00 x (2.00 to 2.00) | met |" in text
    assert "![pull](pull.svg)" in text


def test_highlights_are_some_rows() -> None:
    assert "| pull: 1 GiB by 1 | GB/s | 3.50 | 1.75 | - | - | 2.00 x |" in highlights(Results({"pull": RESULT}))
    assert highlights(Results()) == "No results yet."


def test_readme_is_changed_between_its_marks() -> None:
    readme = f"# A\n{README_BEGIN}\nold\n{README_END}\n# B\n"
    assert put_into(readme, "new") == f"# A\n{README_BEGIN}\nnew\n{README_END}\n# B\n"


@pytest.mark.parametrize("readme", ["", README_BEGIN, README_END])
def test_readme_without_marks_is_refused(readme: str) -> None:
    with pytest.raises(ValueError, match="in the README"):
        put_into(readme, "new")

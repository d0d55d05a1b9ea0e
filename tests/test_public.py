"""What is shown to others is described: every module says its job, every public name of a contract has a docstring."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(path for package in ("registry", "storage") for path in (ROOT / package).rglob("*.py"))
TESTS = sorted(f"storage.testing.{path.stem}" for path in (ROOT / "storage/testing").glob("[!_]*.py"))
CONTRACTS = ["storage.driver", "storage.repository", "storage.errors", "storage.testing", *TESTS]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_says_its_job(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, path
    assert len(docstring) > 20


@pytest.mark.parametrize("name", CONTRACTS)
def test_contract_is_written(name: str) -> None:
    module = importlib.import_module(name)
    for label, thing in vars(module).items():
        if label.startswith("_") or getattr(thing, "__module__", None) != name or not inspect.isclass(thing):
            continue
        if issubclass(thing, Exception):
            continue  # the tree at the top of the module says what each means
        assert inspect.getdoc(thing), label
        for verb, function in vars(thing).items():
            if not verb.startswith(("_", "test")) and inspect.isfunction(function) and name == "storage.driver":
                assert inspect.getdoc(function), f"{label}.{verb}"

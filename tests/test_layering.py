"""Who may import whom (docs/design.md): read from the source, so that lazy imports count as well."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

PURE_STORAGE = ["errors", "digest", "names", "ranges", "strict_json", "descriptor", "manifest", "layout", "rules"]
"""Import the standard library and each other, and have nothing async."""

PURE_REGISTRY = ["headers", "routes", "urls", "policy", "upload_state"]
"""Neither Starlette nor a client library."""

FRAMEWORKS = {"starlette", "uvicorn", "httptools", "uvloop", "httpx", "anyio"}

STORAGE_PUBLIC_TO_HANDLERS = {
    "storage.digest",
    "storage.errors",
    "storage.manifest",
    "storage.names",
    "storage.ranges",
    "storage.repository",
}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, at any depth of it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None or node.level, path
            base = node.module or ""
            if node.level:
                package = ".".join(path.relative_to(ROOT).parts[: -node.level])
                base = f"{package}.{base}".rstrip(".")
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def tops(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


@pytest.mark.parametrize("path", modules("storage"), ids=str)
def test_storage_knows_nothing_of_http(path: Path) -> None:
    assert not tops(path) & (FRAMEWORKS | {"registry"})


@pytest.mark.parametrize("name", PURE_STORAGE)
def test_pure_storage(name: str) -> None:
    path = ROOT / "storage" / f"{name}.py"
    ours = {f"storage.{other}" for other in PURE_STORAGE}
    foreign = {found for found in imports(path) if found.startswith("storage") and not found.startswith(tuple(ours))}
    assert not foreign - {"storage"}
    assert "asyncio" not in tops(path)
    assert not [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.AsyncFunctionDef)]


@pytest.mark.parametrize("path", modules("storage/drivers"), ids=str)
def test_drivers_see_keys_bytes_and_ranges(path: Path) -> None:
    allowed = ("storage.direct", "storage.driver", "storage.drivers", "storage.errors", "storage.ranges")
    assert not [n for n in imports(path) if n.startswith("storage.") and not n.startswith(allowed)]


@pytest.mark.parametrize("name", PURE_REGISTRY)
def test_pure_registry(name: str) -> None:
    assert not tops(ROOT / "registry" / f"{name}.py") & FRAMEWORKS - (set() if name != "routes" else {"starlette"})


@pytest.mark.parametrize("path", modules("registry/handlers"), ids=str)
def test_handlers_know_no_store_and_no_settings(path: Path) -> None:
    found = set(imports(path))
    storage = {n for n in found if n.startswith("storage.")}
    assert not [n for n in storage if ".".join(n.split(".")[:2]) not in STORAGE_PUBLIC_TO_HANDLERS]
    assert not [n for n in found if n.startswith(("registry.config", "registry.app", "registry.dispatch", "httpx"))]


@pytest.mark.parametrize("path", modules("registry/serving"), ids=str)
def test_the_server_knows_no_registry(path: Path) -> None:
    parts = ("app", "chores", "dispatch", "handlers", "proxy", "routes", "services", "stores")
    unknown = ("storage", *(f"registry.{part}" for part in parts))
    assert not [name for name in imports(path) if name.startswith(unknown)]


def test_only_app_and_commands_join_the_parts() -> None:
    joined = {"registry.app", "storage.drivers", "storage.content"}
    allowed = {"app.py", "chores.py", "stores.py", "__main__.py", "pytest_plugin.py", "services.py"}
    for path in modules("registry"):
        if path.name not in allowed and path.parent.name != "commands":
            assert not [n for n in imports(path) if any(f"{n}.".startswith(f"{part}.") for part in joined)], path

"""Whatever stands in a file or a variable: a Config or a ConfigError, nothing else, and never a secret in words."""

from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.config import ConfigError, load, schema, show, status

HIDDEN = "hunter2"
PATHS = [
    *schema.known_paths(),
    *(row.key for row in status.ROWS),
    *status.GO_NAMES,
    "auth.htpasswd",
    "http.headers.x",
    "zz",
]
SEGMENTS = sorted({segment for path in PATHS for segment in path.split(".")} | {"", "0", "1", "x", "secretkey"})

names = st.one_of(st.sampled_from(PATHS), st.lists(st.sampled_from(SEGMENTS), min_size=1, max_size=5).map(".".join))
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.sampled_from([HIDDEN, "1h", ":1"]),
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(SEGMENTS), st.text(max_size=4)), inner, max_size=4),
    ),
    max_leaves=12,
)
payloads = st.one_of(
    trees.map(lambda tree: yaml.safe_dump(tree)),
    st.text(max_size=12),
    st.sampled_from(["{", "[a", "*x", "&a [*a]", "!!int x", "!x y"]),
)
environs = st.dictionaries(names.map(lambda path: "REGISTRY_" + path.upper().replace(".", "_")), payloads, max_size=5)
deterministic = settings(
    derandomize=True, max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def load_or_refuse(path: Path | None, environ: dict[str, str]) -> str:
    """All that a user may see of it."""
    try:
        loaded = load(path, environ)
    except ConfigError as exc:
        return str(exc)
    return "\n".join([*show.lines(loaded), *loaded.warnings])


@pytest.mark.slow
@given(environ=environs)
@deterministic
def test_variables(environ: dict[str, str]) -> None:
    load_or_refuse(None, environ)


@pytest.mark.slow
@given(tree=st.dictionaries(st.sampled_from(SEGMENTS), trees, max_size=5), environ=environs)
@deterministic
def test_files(tmp_path: Path, tree: dict[str, object], environ: dict[str, str]) -> None:
    path = tmp_path / "config.yml"
    path.write_text(yaml.safe_dump({**tree, "version": 0.1}))
    load_or_refuse(path, environ)


@pytest.mark.slow
@given(text=st.text(max_size=60))
@deterministic
def test_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(
        f"version: 0.1\n{text}", encoding="utf-8", errors="surrogateescape" if text.isascii() else "replace"
    )
    load_or_refuse(path, {})


@pytest.mark.slow
@given(
    name=st.sampled_from(
        ["REGISTRY_HTTP_SECRET", "REGISTRY_PROXY_PASSWORD", "REGISTRY_STORAGE_S3_SECRETKEY", "REGISTRY_REDIS_PASSWORD"]
    ),
    before=st.text(max_size=6),
    after=st.text(max_size=6),
    environ=environs,
)
@deterministic
def test_no_secret_is_told(name: str, before: str, after: str, environ: dict[str, str]) -> None:
    others = {key: value.replace(HIDDEN, "") for key, value in environ.items()}
    assert HIDDEN not in load_or_refuse(None, {**others, name: f"{before}{HIDDEN}{after}"})

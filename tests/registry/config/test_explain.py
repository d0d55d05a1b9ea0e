"""What is said of a text that is no YAML, by the mistakes that people make. No text of the file is in it."""

from pathlib import Path

import pytest

from registry.config import ConfigError, load

TAB = "a tab; YAML is indented by spaces alone"
INDENT = "this line is not indented as those that it belongs to"
BRACKET = "a comma is missing, a value with brackets in it needs quotes, or a bracket is never closed"
COLON = "a colon too many: the line is indented too far, or a value with a colon in it needs quotes"
NO_COLON = "this line has no colon with a space behind it"
BACKSLASH = "in double quotes a backslash needs another one; or use single quotes"
STAR = "a value that begins with * or & needs quotes"

MISTAKES = {
    "a tab": ("http:\n\taddr: s3cret\n", TAB, "3:1"),
    "a tab behind a dash": ("a:\n  -\ts3cret\n", TAB, "3:4"),
    "outdented by too little": ("storage:\n  filesystem:\n    rootdirectory: s3cret\n   delete:\n", INDENT, "5:4"),
    "a list's item": ("a:\n  - s3cret\n b: 1\n", INDENT, "4:2"),
    "indented too far": ("a: s3cret\n  b: 1\n", COLON, "3:4"),
    "a colon in a value": ("a: s3cret: b\n", COLON, "2:10"),
    "no colon": ("a: 1\ns3cret\nc: 2\n", NO_COLON, "3:1"),
    "a merge's mark": ("<<<<<<< s3cret\na: 1\n", NO_COLON, "2:1"),
    "an open quote": ('a: "s3cret\nb: 1\n', "a quote that is opened here is never closed", "2:4"),
    "text behind a quote": ('a: "s3cret" s3cret\n', "text behind a closing quote", "2:13"),
    "a Windows path": ('a: "s3cret\\w"\n', BACKSLASH, "2:12"),
    "an open bracket": ("a: {b: s3cret\nc: 2\n", BRACKET, "3:2"),
    "a variable's name": ("a: {b: ${S3CRET}}\n", BRACKET, "2:9"),
    "a percent": ("a: %s3cret\n", "a value that begins with % needs quotes", "2:4"),
    "an at": ("a: @s3cret\n", "a value that begins with @ needs quotes", "2:4"),
    "a star": ("a: *s3cret\n", STAR, "2:4"),
    "a star alone": ("a: [*]\n", STAR, "2:5"),
    "an and": ("a: & s3cret\n", STAR, "2:4"),
    "a control character": ("a: s3cret\0\n", "the character U+0000 is not allowed", "2"),
    "one that only YAML knows": ("a: > s3cret\n", "expected a comment or a line break, but found 's'", "2:6"),
}


@pytest.mark.parametrize(("text", "said", "place"), MISTAKES.values(), ids=MISTAKES)
def test_no_yaml(tmp_path: Path, text: str, said: str, place: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"version: 0.1\n{text}")
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value) == f"the configuration is not valid YAML: {said} ({path}:{place})"


EMPTY = "the configuration is empty: expected `version: 0.1` and the settings, each at the start of its line (FILE)"
KEY = "a key must be a word, not a list or map; is a {{ template }} not filled in? (FILE:2)"
SPACE = "with a space behind the colon and none before it"

SHAPES = {
    "": EMPTY,
    "# all\n": EMPTY,
    "[a]\n": EMPTY.replace("empty", "no map of settings").replace("FILE", "FILE:1"),
    "version: 0.1\n? [a]\n: b\n": KEY,
    "version: 0.1\nhttp: {{ .x }}\n": KEY,
    "version: 0.1\nhttp:\n  addr:5000\n": f"http: write `addr: ...`, {SPACE} (FILE:3)",
    "version: 0.1\nhttp:\n  secret :s3cret\n": f"http: write `secret: ...`, {SPACE} (FILE:3)",
    "version: 0.1\nproxy: {password:s3cret}\n": f"proxy: write `password: ...`, {SPACE} (FILE:2)",
    "version: 0.1\nstorage: {delete: true}\n": (
        "storage.delete: expected a map such as {enabled: ...}, found 'true'; write {enabled: true} (FILE:2)"
    ),
}


@pytest.mark.parametrize("text", SHAPES)
def test_the_wrong_shape(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    assert str(caught.value).replace(str(path), "FILE") == SHAPES[text]


QUOTES = "in a variable quotes are part of the value"

VARIABLES = {
    "REGISTRY_HTTP_HEADERS_X-A=*": f'http.headers.x-a: is not valid YAML: {STAR}; {QUOTES}: ["..."]',
    "REGISTRY_STORAGE_DELETE_ENABLED={": (
        "storage.delete.enabled: is not valid YAML: a value is missing, or one with brackets in it needs quotes; "
        f'{QUOTES}: "..."'
    ),
    "REGISTRY_HTTP_HEADERS_X-A=nosniff": (
        "http.headers: expected a list as the value of x-a, such as [nosniff], found 'nosniff'"
    ),
    "REGISTRY_STORAGE_DELETE=true": (
        "storage.delete: expected a map such as {enabled: ...}, found 'true'; "
        "write REGISTRY_STORAGE_DELETE_ENABLED=true"
    ),
    "REGISTRY_LOG=debug": "log: expected a map such as {level: ...}, found 'debug'",
    "REGISTRY_AUTH=basic": (
        "auth.basic: is not a setting, and may be meant to protect; there are: auth.htpasswd, auth.token, auth.silly"
    ),
    "REGISTRY_STORAGE_PATH=/registry": ("storage.path: is neither a setting of storage nor a driver that is installed"),
    "REGISTRY_STORAGE_FILESYSTEM_ROOTDIR=/srv": (
        "storage.filesystem.rootdir: is not a setting, and may be meant to choose what is served; "
        "did you mean REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY?"
    ),
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_wrong_variables(variable: str) -> None:
    name, _, value = variable.partition("=")
    with pytest.raises(ConfigError) as caught:
        load(None, {name: value, "REGISTRY_HTTP_SECRET": "s3cret"})
    assert str(caught.value) == f"{VARIABLES[variable]} ({name})"


def test_other_software_may_have_variables_of_its_own() -> None:
    loaded = load(None, {"REGISTRY_STORGE": "s3", "REGISTRY_USER": "me"})
    assert len(loaded.warnings) == 2


def test_nothing_fills_in_a_variable(tmp_path: Path) -> None:
    """Nor is it named where it may be part of a password."""
    path = tmp_path / "config.yml"
    path.write_text('version: 0.1\nhttp: {secret: "a${b}c"}\nstorage: {filesystem: {rootdirectory: "/${WHERE}"}}\n')
    folder = "STORAGE_FILESYSTEM_ROOTDIRECTORY"
    assert set(load(path, {}).warnings) == {
        f"http.secret: nothing fills in ${{...}}; to have it from the environment set REGISTRY_HTTP_SECRET ({path}:2)",
        "storage.filesystem.rootdirectory: nothing fills in ${WHERE}; to have it from the environment set"
        f" REGISTRY_{folder} ({path}:3)",
    }
    assert load(path, {"REGISTRY_HTTP_SECRET": "s", f"REGISTRY_{folder}": "/a"}).warnings == ()

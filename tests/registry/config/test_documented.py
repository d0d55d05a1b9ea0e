"""config.example.yaml and docs/configuration.md against the code: every setting with its default, and nothing else."""

import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from registry.config import Config, load, secrets, show, status
from registry.config.model import HtpasswdConfig

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config.example.yaml"
PAGE = ROOT / "docs" / "configuration.md"


def settings() -> dict[str, str]:
    found = {path: secrets.show("", value) for path, value in show.settings(Config())}
    del found["auth"]
    return found | {"auth.htpasswd.path": "required", "auth.htpasswd.realm": HtpasswdConfig().realm}


def with_auth() -> str:
    """The example with its one block that is commented out, as it is no default."""
    return re.sub(r"^# (auth:|  htpasswd:|    path:|    realm:)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def leaves(tree: object, path: str = "") -> Iterator[str]:
    if isinstance(tree, dict) and tree:
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}" if path else key)
    else:
        yield path


def table(heading: str) -> list[list[str]]:
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("|")]
    return rows[2:]


def test_the_example_is_the_defaults() -> None:
    loaded = load(EXAMPLE, {})
    assert (loaded.config, loaded.warnings) == (Config(), ())


def test_the_example_has_every_setting_and_nothing_else() -> None:
    assert set(leaves(yaml.safe_load(with_auth()))) == {"version", *settings()}


def test_the_example_with_its_comment_removed_works(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(with_auth())
    loaded = load(tmp_path / "config.yml", {})
    assert loaded.warnings == ()
    assert loaded.config.auth.htpasswd == HtpasswdConfig(path="/etc/registry/htpasswd")


def test_every_line_of_the_example_with_a_value_says_what_it_is() -> None:
    for line in EXAMPLE.read_text().splitlines():
        if re.match(r"[# ]*[a-z]+: +[^#\s]", line):
            assert re.search(r" # \S", line), line


def test_the_page_has_every_setting_with_its_default() -> None:
    assert {row[0].strip("`"): row[1].strip("`") for row in table("Settings")} == settings()
    assert all(len(row) == 3 and row[2] for row in table("Settings"))


def test_the_page_has_every_key_of_distribution_with_what_becomes_of_it() -> None:
    rows = [(row.key, row.status.value, row.why) for row in status.ROWS]
    assert [(key.strip("`"), state, why) for key, state, why in table("Keys of distribution")] == rows

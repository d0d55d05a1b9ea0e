"""config.example.yaml and docs/configuration.md against the code: every setting with its default, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import yaml

from registry.config import Config, load, secrets, show, status
from registry.config.model import DRIVERS, HtpasswdConfig, S3Config, StorageConfig
from storage.drivers.s3.settings import S3Settings

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "config.example.yaml"
PAGE = ROOT / "docs" / "configuration.md"


def settings() -> dict[str, str]:
    found = {path: secrets.show("", value) for path, value in show.settings(Config())}
    del found["auth"]
    return found | s3() | {"auth.htpasswd.path": "required", "auth.htpasswd.realm": HtpasswdConfig().realm}


def s3() -> dict[str, str]:
    storage = StorageConfig(
        driver="s3", parameters={each.name: getattr(S3Config(), each.name) for each in fields(S3Config)}
    )
    shown = {path: secrets.show("", value) for path, value in show.settings(storage, "storage.")}
    found = {path: value for path, value in shown.items() if path.startswith("storage.s3.")}
    return found | {"storage.s3.bucket": "required"}


def with_comments() -> str:
    """The example with the blocks that are commented out, as they are no defaults."""
    return re.sub(r"^# ( *[a-z0-9]+:)", r"\1", EXAMPLE.read_text(), flags=re.MULTILINE)


def with_s3_alone() -> str:
    return re.sub(r"^  filesystem:\n( {4}.*\n)+", "", with_comments(), flags=re.MULTILINE)


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
    assert set(leaves(yaml.safe_load(with_comments()))) == {"version", *settings()}


def test_the_example_with_its_comments_removed_works(tmp_path: Path) -> None:
    (tmp_path / "config.yml").write_text(with_s3_alone())
    loaded = load(tmp_path / "config.yml", {})
    assert loaded.warnings == ()
    assert loaded.config.auth.htpasswd == HtpasswdConfig(path="/etc/registry/htpasswd")
    defaults = {each.name: getattr(S3Config(), each.name) for each in fields(S3Config)}
    assert loaded.config.storage.parameters == defaults | {"bucket": "my-bucket"}


def test_the_driver_knows_every_parameter_of_s3_and_has_the_same_defaults() -> None:
    given = {each.name: getattr(S3Config(), each.name) for each in fields(S3Config)}
    parsed = S3Settings.parse(given | {"bucket": "b", "region": "r"})
    assert parsed == S3Settings(bucket="b", region="r")
    assert set(given) == {each.name for each in fields(S3Settings)} | {"v4auth"}
    assert DRIVERS["s3aws"] is S3Config


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

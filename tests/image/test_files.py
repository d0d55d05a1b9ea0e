"""What can be said about the image without docker: the pins cover what pyproject.toml asks for."""

import re
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

from registry.arguments import COMMANDS
from registry.config import Config, load

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "deploy" / "image"
EXTRAS = ("s3", "proxy", "urls", "metrics", "tracing")


def pins(name: str) -> dict[str, str]:
    text = (IMAGE / name).read_text()
    blocks = re.findall(r"^([\w.-]+)==(\S+)(.*(?:\n    .*)*)", text, re.MULTILINE)
    assert all("--hash=sha256:" in block for _, _, block in blocks)
    return {package: version for package, version, _ in blocks}


def covers(found: dict[str, str], wanted: list[str]) -> None:
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(found.get(requirement.name, "0")), f"{requirement}: make image-lock"


def test_pins() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    wanted = [*project["project"]["dependencies"], *(each for extra in EXTRAS for each in extras[extra])]
    covers(pins("requirements.txt"), wanted)
    covers(pins("build.txt"), project["build-system"]["requires"])


def test_the_configuration_loads_without_a_warning() -> None:
    loaded = load(IMAGE / "config.yml", {})
    assert not loaded.warnings
    assert loaded.config.storage == Config().storage
    assert loaded.config.http.addr == ":5000"


def test_the_scripts_are_scripts() -> None:
    for name in ("entrypoint.sh", "lock"):
        subprocess.run(["sh", "-n", IMAGE / name], check=True)
    for name in ("entrypoint.sh", "registry", "lock"):
        assert (IMAGE / name).stat().st_mode & 0o111, name


def test_the_entry_point_knows_every_command() -> None:
    """`docker run IMAGE doctor CONFIG`: as garbage-collect of registry:2."""
    listed = re.search(r"^  serve (.*) -\*\)", (IMAGE / "entrypoint.sh").read_text(), re.MULTILINE)
    assert listed
    assert {"serve", *listed[1].replace("|", " ").split()} == {command.name for command in COMMANDS}

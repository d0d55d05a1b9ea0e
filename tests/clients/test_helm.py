"""helm: charts in a registry."""

import re
from pathlib import Path

import pytest

from .api import Registry
from .images import sha256
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients

PLAIN = "--plain-http"


def test_push_pull_chart(shell: Shell, registry: Registry, repository: str, folder: Path) -> None:
    shell("helm", "create", folder / "harbour")
    shell("helm", "package", folder / "harbour", "--version", "1.2.3+build.4", "--destination", folder)
    [package] = folder.glob("harbour-*.tgz")
    said = shell("helm", "push", PLAIN, package, f"oci://{registry.host}/{repository}").both
    found = re.search(r"Digest: (sha256:[0-9a-f]{64})", said)
    assert found is not None
    chart = f"{repository}/harbour"
    assert registry.tags(chart) == ["1.2.3_build.4"]  # "+" is no character of a tag
    assert registry.check_complete(chart, "1.2.3_build.4") == found.group(1)
    layers = [layer["digest"] for layer in registry.manifest(chart, "1.2.3_build.4").json["layers"]]
    assert layers == [sha256(package.read_bytes())]

    address = f"oci://{registry.host}/{chart}"
    clean = folder / "clean"
    clean.mkdir()
    shell("helm", "pull", PLAIN, address, "--version", "1.2.3+build.4", "--destination", clean)
    assert (clean / package.name).read_bytes() == package.read_bytes()
    assert "name: harbour" in shell("helm", "show", "chart", PLAIN, address).out  # the newest: reads the tag list
    assert "kind: Deployment" in shell("helm", "template", PLAIN, "release", address).out


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, folder: Path) -> None:
    trusted = ("--ca-file", secured.authority)
    fresh_shell("helm", "create", folder / "harbour")
    fresh_shell("helm", "package", folder / "harbour", "--version", "1.0.0", "--destination", folder)
    push = ("push", *trusted, folder / "harbour-1.0.0.tgz", f"oci://{secured.host}/{repository}")
    fresh_shell.refused("helm", *push)
    login = ("registry", "login", secured.host, *trusted, "--username", USER, "--password-stdin")
    fresh_shell("helm", *login, stdin=PASSWORD.encode())
    fresh_shell("helm", *push)
    [layer] = secured.registry.manifest(f"{repository}/harbour", "1.0.0").json["layers"]
    assert layer["digest"] == sha256((folder / "harbour-1.0.0.tgz").read_bytes())
    fresh_shell("helm", "pull", *trusted, f"oci://{secured.host}/{repository}/harbour", "--untar", cwd=folder / "home")
    assert (folder / "home" / "harbour" / "Chart.yaml").exists()

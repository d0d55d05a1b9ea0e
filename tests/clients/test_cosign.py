"""cosign: signatures and attestations as referrers, with a key pair; no service of Sigstore is asked."""

import json
from pathlib import Path

import pytest

from .api import Registry
from .images import HERE, OTHER, Layout
from .secured import PASSWORD, USER, Secured
from .shell import Shell

pytestmark = pytest.mark.clients

KEY_PASSWORD = {"COSIGN_PASSWORD": ""}


def test_sign_verify_attest(shell: Shell, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    registry.push_layout(repository, layout, HERE, OTHER)
    subject, image = layout.digests[HERE], f"{registry.host}/{repository}@{layout.digests[HERE]}"
    key, public, services = folder / "key.key", folder / "key.pub", folder / "services.json"
    shell("cosign", "generate-key-pair", "--output-key-prefix", folder / "key", env=KEY_PASSWORD)
    shell("cosign", "signing-config", "create", "--out", services)
    offline = ("--key", key, "--signing-config", services, "--yes")
    shell("cosign", "sign", *offline, image, env=KEY_PASSWORD)
    if registry.has_referrers_api():
        assert registry.tags(repository) == sorted([HERE, OTHER])

    check = ("--key", public, "--insecure-ignore-tlog")
    [signed] = json.loads(shell("cosign", "verify", *check, image).out)
    assert signed["critical"]["image"]["docker-manifest-digest"] == subject
    unsigned = f"{registry.host}/{repository}@{layout.digests[OTHER]}"
    assert "no signatures found" in shell.refused("cosign", "verify", *check, unsigned).err

    (folder / "predicate.json").write_text('{"built": "here"}')
    predicate = ("--predicate", folder / "predicate.json", "--type", "custom")
    shell("cosign", "attest", *offline, *predicate, image, env=KEY_PASSWORD)
    shell("cosign", "verify-attestation", *check, "--type", "custom", image)
    referrers = registry.referrers(repository, subject)
    assert len(referrers) == 2
    for entry in referrers:
        assert registry.check_complete(repository, entry["digest"]) == entry["digest"]


def test_login_over_tls(fresh_shell: Shell, secured: Secured, repository: str, layout: Layout, folder: Path) -> None:
    secured.registry.push_layout(repository, layout, HERE)
    image = f"{secured.host}/{repository}@{layout.digests[HERE]}"
    trusted = ("--registry-cacert", secured.authority)
    fresh_shell("cosign", "generate-key-pair", "--output-key-prefix", folder / "key", env=KEY_PASSWORD)
    fresh_shell("cosign", "signing-config", "create", "--out", folder / "services.json")
    offline = ("--key", folder / "key.key", "--signing-config", folder / "services.json", "--yes")
    sign = ("cosign", "sign", *trusted, *offline, image)
    fresh_shell.refused(*sign, env=KEY_PASSWORD)
    fresh_shell("cosign", "login", secured.host, "--username", USER, "--password-stdin", stdin=PASSWORD.encode())
    fresh_shell(*sign, env=KEY_PASSWORD)
    [signature] = secured.registry.referrers(repository, layout.digests[HERE])
    assert secured.registry.check_complete(repository, signature["digest"]) == signature["digest"]
    fresh_shell("cosign", "verify", *trusted, "--key", folder / "key.pub", "--insecure-ignore-tlog", image)

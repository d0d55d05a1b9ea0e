"""What a manifest must and may name, as the operator has set it."""

import json
import time

import pytest
import re2

from storage.digest import Digest
from storage.errors import ManifestInvalid
from storage.manifest import Platform, parse
from storage.rules import AnyOf, ManifestRules
from tests.api import INDEX, LAYER, descriptor, image, index

FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"


def any_of(*patterns: str) -> AnyOf:
    return AnyOf(tuple(re2.compile(pattern) for pattern in patterns))


def foreign(url: str) -> bytes:
    document = json.loads(image())
    document["layers"] = [descriptor(b"far away", FOREIGN, urls=[url])]
    return json.dumps(document).encode()


@pytest.mark.parametrize(
    ("url", "rules", "holds"),
    [
        ("https://example.com/x", ManifestRules(), True),
        ("ftp://example.com/x", ManifestRules(), False),
        ("https://example.com/x", ManifestRules(allow=any_of("^https://example")), True),
        ("https://example.org/x", ManifestRules(allow=any_of("^https://example.com", "^https://example.org")), True),
        ("https://other.org/x", ManifestRules(allow=any_of("^https://example")), False),
        ("https://example.com/x", ManifestRules(deny=any_of("example")), False),
        ("https://EXAMPLE.com/x", ManifestRules(deny=any_of("nothing", "(?i)example")), False),
    ],
)
def test_urls(url: str, rules: ManifestRules, holds: bool) -> None:
    manifest = parse(foreign(url), None)
    if holds:
        rules.check(manifest)
    else:
        with pytest.raises(ManifestInvalid, match=r"validation\.manifests\.urls"):
            rules.check(manifest)


def test_a_pattern_of_distributions_documentation_takes_no_time() -> None:
    """Python's own expressions need seconds for 60 characters of this, and four times that for two labels more."""
    rules = ManifestRules(allow=any_of(r"^https?://([^/]+\.)*example\.com/"))
    manifest = parse(foreign("https://" + "a." * 2000 + "org/"), None)
    started = time.process_time()
    with pytest.raises(ManifestInvalid):
        rules.check(manifest)
    assert time.process_time() - started < 1


def test_all_that_is_named_is_required() -> None:
    manifest = parse(image(b"{}", (b"one", b"two")), None)
    assert ManifestRules().required(manifest) == {Digest.of(data) for data in (b"{}", b"one", b"two")}
    assert ManifestRules(sparse=True).required(manifest) == set()


@pytest.mark.parametrize(
    ("platforms", "required"),
    [
        (None, {b"amd", b"arm"}),
        ((), set()),
        ((Platform(os="linux", architecture="arm64"),), {b"arm"}),
        ((Platform(os="windows", architecture="arm64"),), set()),
    ],
)
def test_children_of_listed_platforms_are_required(
    platforms: tuple[Platform, ...] | None, required: set[bytes]
) -> None:
    children = [
        descriptor(b"amd", LAYER, platform={"os": "linux", "architecture": "amd64"}),
        descriptor(b"arm", LAYER, platform={"os": "linux", "architecture": "arm64"}),
    ]
    manifest = parse(index(*children), INDEX)
    assert ManifestRules(platforms=platforms).required(manifest) == {Digest.of(data) for data in required}

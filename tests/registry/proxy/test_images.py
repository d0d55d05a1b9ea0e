"""Names of images, as clients write them."""

import pytest

from registry.proxy.images import parse_image
from storage.digest import Digest

DIGEST = str(Digest.of(b"image"))


@pytest.mark.parametrize(
    ("text", "host", "name", "reference"),
    [
        ("alpine", "", "alpine", "latest"),
        ("alpine:3.20", "", "alpine", "3.20"),
        ("team/app", "", "team/app", "latest"),
        ("docker.io/library/alpine:3", "docker.io", "library/alpine", "3"),
        ("GHCR.io/x/y", "ghcr.io", "x/y", "latest"),
        (f"ghcr.io/x/y@{DIGEST}", "ghcr.io", "x/y", DIGEST),
        (f"ghcr.io/x/y:v1@{DIGEST}", "ghcr.io", "x/y", DIGEST),
        ("hub.lan:5000/app:v1", "hub.lan:5000", "app", "v1"),
        ("localhost/app", "localhost", "app", "latest"),
        ("hub/team/app:v1", "", "hub/team/app", "v1"),
        ("app.web:v1", "", "app.web", "v1"),
    ],
)
def test_names(text: str, host: str, name: str, reference: str) -> None:
    found = parse_image(text)
    assert (found.host, found.name, str(found.reference), found.text) == (host, name, reference, text)


@pytest.mark.parametrize(
    "text", ["", "Alpine", "alpine:", "alpine@", "alpine@sha256:0", "https://ghcr.io/x", "a:b:c", "ghcr.io/", "a b"]
)
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="is not the name of an image"):
        parse_image(text)

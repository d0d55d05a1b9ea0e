"""`proxy`, `upstreams` and `hosted` in a whole configuration: what excludes what, and where the error is."""

from pathlib import Path

import pytest

from registry.config import ConfigError, load, show

GHCR = "upstreams: [{url: 'https://ghcr.io', password: hunter2, username: u}]"


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yml"
    path.write_text(f"version: 0.1\n{text}\n")
    return path


def test_read(tmp_path: Path) -> None:
    found = load(write(tmp_path, f"{GHCR}\nhosted: [team/**]\n"), {})
    (upstream,) = found.config.upstreams
    assert (upstream.called, found.config.hosted, found.warnings) == ("ghcr.io", ("team/**",), ())
    shown = "\n".join(show.lines(found))
    assert "upstreams.0.url" in shown
    assert "hunter2" not in shown


def test_of_distribution() -> None:
    environ = {"REGISTRY_PROXY_REMOTEURL": "https://registry-1.docker.io", "REGISTRY_PROXY_USERNAME": "u"}
    proxy = load(None, environ).config.proxy
    assert (proxy.remoteurl, proxy.username) == ("https://registry-1.docker.io", "u")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("proxy: {remoteurl: nowhere}", "proxy.remoteurl"),
        ("upstreams: [{name: a}]", "upstreams.0.url"),
        ("upstreams: [{url: 'https://a', default: true}, {url: 'https://b', default: true}]", "upstreams.1.default"),
        ("upstreams: [{url: 'https://a', deleted: perhaps}]", "upstreams.0.deleted"),
        (f"proxy: {{remoteurl: 'https://a'}}\n{GHCR}", "upstreams"),
        ("hosted: [a, B]", "hosted.1"),
        (f"storage: {{maintenance: {{readonly: {{enabled: true}}}}}}\n{GHCR}", "storage.maintenance.readonly.enabled"),
    ],
)
def test_refused(tmp_path: Path, text: str, path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text), {})
    assert caught.value.path == path
    assert "config.yml:" in str(caught.value)

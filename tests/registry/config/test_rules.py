from pathlib import Path

import pytest

from registry.config import ConfigError, Loaded, load


def load_text(tmp_path: Path, text: str) -> Loaded:
    (tmp_path / "config.yml").write_text(f"version: 0.1\n{text}\n")
    return load(tmp_path / "config.yml", {})


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    return str(caught.value).replace(str(tmp_path / "config.yml"), "FILE")


@pytest.mark.parametrize(
    "addr", [":5000", ":0", "localhost:80", "1.2.3.4:65535", "'[::1]:5000'", "'[fe80::1%eth0]:1'", ":http"]
)
def test_addresses(tmp_path: Path, addr: str) -> None:
    assert load_text(tmp_path, f"http:\n  addr: {addr}").config.http.addr == addr.strip("'")


@pytest.mark.parametrize(
    "addr", ["localhost", "5000", "::1", "::1:5000", ":65536", "a b:1", "'[::1]'", "host:", "/run/x"]
)
def test_wrong_addresses(tmp_path: Path, addr: str) -> None:
    text = problem(tmp_path, f"http: {{addr: '{addr.strip(chr(39))}'}}")
    assert text == f"""http.addr: expected HOST:PORT or :PORT, such as ":5000", found {addr.strip("'")!r} (FILE:2)"""


def test_a_unix_socket_needs_its_path(tmp_path: Path) -> None:
    assert load_text(tmp_path, "http: {net: unix, addr: /run/x.sock}").config.http.addr == "/run/x.sock"
    assert problem(tmp_path, "http: {net: unix}") == (
        'http.addr: expected the path of a socket, since http.net is "unix" (FILE:2)'
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{certificate: /c}",
            "http.tls.key: expected a path, since http.tls.certificate is set, found nothing (FILE:2)",
        ),
        ("{key: /k}", "http.tls.certificate: expected a path, since http.tls.key is set, found nothing (FILE:2)"),
        (
            "{clientcas: [/a]}",
            "http.tls.clientcas: cannot be kept: without http.tls.certificate there is no TLS (FILE:2)",
        ),
        (
            "{certificate: /c, key: /k, clientauth: require-any-client-cert}",
            "http.tls.clientauth: cannot be kept: http.tls.clientcas names no CA (FILE:2)",
        ),
        (
            "{certificate: /c, key: /k, clientcas: [/a], clientauth: always}",
            "http.tls.clientauth: expected one of request-client-cert, require-any-client-cert, "
            "verify-client-cert-if-given, require-and-verify-client-cert, found 'always' (FILE:2)",
        ),
        (
            "{certificate: /c, key: /k, minimumtls: ssl3}",
            "http.tls.minimumtls: expected one of tls1.0, tls1.1, tls1.2, tls1.3, found 'ssl3' (FILE:2)",
        ),
    ],
)
def test_a_protection_by_halves_stops_the_start(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, f"http: {{tls: {text}}}") == expected


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("{minimumtls: tls1.3}", "http.tls.minimumtls has no effect: without http.tls.certificate there is no TLS"),
        ("{ciphersuites: [A]}", "http.tls.ciphersuites has no effect: without http.tls.certificate there is no TLS"),
        (
            "{certificate: /c, key: /k, minimumtls: tls1.3, ciphersuites: [A]}",
            "http.tls.ciphersuites has no effect: the suites of TLS 1.3 cannot be chosen",
        ),
    ],
)
def test_tls_settings_without_an_effect_are_warnings(tmp_path: Path, text: str, warning: str) -> None:
    loaded = load_text(tmp_path, f"http: {{tls: {text}}}")
    assert loaded.warnings == (f"{warning} ({tmp_path}/config.yml:2)",)


def test_htpasswd_needs_its_file(tmp_path: Path) -> None:
    assert problem(tmp_path, "auth: {htpasswd: {realm: r}}") == (
        "auth.htpasswd.path: expected the path of a file made by `htpasswd -Bc`, found nothing (FILE:2)"
    )


def test_absolute_urls_need_a_host(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, "http: {relativeurls: false}")
    assert loaded.warnings == (
        "http.relativeurls has no effect: URLs are absolute only when http.host says with what "
        f"({tmp_path}/config.yml:2)",
    )
    assert load_text(tmp_path, "http: {relativeurls: false, host: https://a}").warnings == ()


def test_disabled_validation_relaxes_what_distribution_relaxes(tmp_path: Path) -> None:
    """Not whether the blobs of an image must be there: distribution checks those in every case."""
    rules = "manifests: {sparse: false, urls: {allow: [a], deny: [b]}, indexes: {platforms: all}}"
    manifests = load_text(tmp_path, f"validation: {{disabled: true, {rules}}}").config.validation.manifests
    assert manifests.indexes.platforms == "none"
    assert (manifests.urls.allow, manifests.urls.deny, manifests.sparse) == ((), (), False)


def test_a_list_of_no_platforms_means_all(tmp_path: Path) -> None:
    loaded = load_text(tmp_path, "validation: {manifests: {indexes: {platforms: list}}}")
    assert loaded.config.validation.manifests.indexes.platforms == "all"
    assert len(loaded.warnings) == 1


@pytest.mark.parametrize(
    ("storage", "linkttl", "heeded"),
    [
        ("{}", "5m", True),
        ("{delete: {enabled: true}}", "5m", False),
        ("{delete: {enabled: true}}", "0s", True),
        ("{delete: {enabled: true}}", "", True),
        ("{delete: {enabled: true}, maintenance: {readonly: {enabled: true}}}", "5m", True),
    ],
)
def test_links_are_not_believed_where_they_are_deleted(
    tmp_path: Path, storage: str, linkttl: str, heeded: bool
) -> None:
    warnings = load_text(tmp_path, f"cache: {{linkttl: {linkttl}}}\nstorage: {storage}").warnings
    told = "cache.linkttl has no effect: with storage.delete.enabled a delete has to hold at once"
    assert warnings == (() if heeded else (f"{told} ({tmp_path}/config.yml:2)",))

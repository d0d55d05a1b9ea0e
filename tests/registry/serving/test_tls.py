"""Settings of `http.tls`, seen from a client's handshake. The handshakes run in memory."""

import ssl
import warnings
from pathlib import Path
from typing import Any

import pytest
import trustme

from registry.config import ConfigError
from registry.config.model import TLSConfig
from registry.serving.tls import ALWAYS_ON, DEFAULT_SUITES, SUITES, server_context

CBC = "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA"


@pytest.fixture(scope="module")
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(ca: trustme.CA, tmp_path: Path) -> dict[str, str]:
    """Paths of a certificate for `localhost` and its key."""
    issued = ca.issue_cert("localhost")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(str(key))
    return {"certificate": str(certificate), "key": str(key)}


def context(**settings: Any) -> ssl.SSLContext:
    made = server_context(TLSConfig(**settings))
    assert made is not None
    return made


def client(ca: trustme.CA, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """Trusts ca and offers everything, or one version only."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca.configure_trust(made)
    made.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if version:
            made.minimum_version = made.maximum_version = version
    return made


def handshake(
    server: ssl.SSLContext, client: ssl.SSLContext, server_name: str | None = "localhost"
) -> tuple[str | None, str]:
    """Version and cipher suite. Raises ssl.SSLError."""
    side = connected(server, client, server_name)
    cipher = side.cipher()
    assert cipher
    return side.version(), cipher[0]


def connected(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    server_name: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> ssl.SSLObject:
    """The client's side, which may resume a session. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        client.wrap_bio(to_client, to_server, server_hostname=server_name, session=session),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    waiting = sides
    for _ in range(10):
        still = []
        for side in waiting:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                still.append(side)
        waiting = still
    assert not waiting
    with pytest.raises(ssl.SSLWantReadError):  # what TLS 1.3 says of a client's certificate comes after the handshake
        sides[0].read(1)
    return sides[0]


def test_no_tls_without_a_certificate() -> None:
    assert server_context(TLSConfig()) is None


@pytest.mark.parametrize(
    ("minimum", "offered", "agreed"),
    [
        ("tls1.2", None, "TLSv1.3"),
        ("tls1.2", ssl.TLSVersion.TLSv1_2, "TLSv1.2"),
        ("tls1.2", ssl.TLSVersion.TLSv1_1, None),
        ("tls1.3", ssl.TLSVersion.TLSv1_3, "TLSv1.3"),
        ("tls1.3", ssl.TLSVersion.TLSv1_2, None),
        ("tls1.1", ssl.TLSVersion.TLSv1_1, "TLSv1.1"),
        ("tls1.1", ssl.TLSVersion.TLSv1, None),
        ("tls1.0", ssl.TLSVersion.TLSv1, "TLSv1"),
    ],
)
def test_minimum_version(
    ca: trustme.CA, files: dict[str, str], minimum: str, offered: ssl.TLSVersion | None, agreed: str | None
) -> None:
    old = {"ciphersuites": (CBC,)} if minimum in ("tls1.0", "tls1.1") else {}
    server = context(**files, minimumtls=minimum, **old)
    if agreed:
        assert handshake(server, client(ca, offered))[0] == agreed
    else:
        with pytest.raises(ssl.SSLError):
            handshake(server, client(ca, offered))


def test_default_suites(files: dict[str, str]) -> None:
    names = {suite["name"] for suite in context(**files).get_ciphers()}
    assert names == {SUITES[name] for name in DEFAULT_SUITES} | set(TLS13)


TLS13 = ("TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256", "TLS_AES_128_GCM_SHA256")


def test_chosen_suite(ca: trustme.CA, files: dict[str, str]) -> None:
    server = context(**files, ciphersuites=(CBC, *ALWAYS_ON))
    assert handshake(server, client(ca, ssl.TLSVersion.TLSv1_2)) == ("TLSv1.2", SUITES[CBC])
    assert {suite["name"] for suite in server.get_ciphers()} == {SUITES[CBC], *TLS13}


def test_suites_mean_nothing_from_1_3(files: dict[str, str]) -> None:
    assert context(**files, minimumtls="tls1.3", ciphersuites=("anything",)).get_ciphers()


def test_suite_that_openssl_lacks_is_left_out(files: dict[str, str], caplog: pytest.LogCaptureFixture) -> None:
    server = context(**files, ciphersuites=("TLS_RSA_WITH_RC4_128_SHA", CBC))
    assert {suite["name"] for suite in server.get_ciphers()} == {SUITES[CBC], *TLS13}
    assert "TLS_RSA_WITH_RC4_128_SHA" in caplog.text


def test_alpn_offers_http_1_1(ca: trustme.CA, files: dict[str, str]) -> None:
    offering = client(ca)
    offering.set_alpn_protocols(["h2", "http/1.1"])
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = offering.wrap_bio(to_client, to_server, server_hostname="localhost")
    answering = context(**files).wrap_bio(to_server, to_client, server_side=True)
    with pytest.raises(ssl.SSLWantReadError):
        asking.do_handshake()
    with pytest.raises(ssl.SSLWantReadError):
        answering.do_handshake()
    asking.do_handshake()
    assert asking.selected_alpn_protocol() == "http/1.1"


@pytest.fixture
def clientcas(tmp_path: Path) -> tuple[trustme.CA, tuple[str, ...]]:
    """A CA for clients, and the files that name it and one more."""
    ours, other = trustme.CA(), trustme.CA()
    paths = tmp_path / "ours.pem", tmp_path / "other.pem"
    for authority, path in zip((ours, other), paths, strict=True):
        authority.cert_pem.write_to_path(str(path))
    return ours, tuple(map(str, paths))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
@pytest.mark.parametrize(
    ("mode", "accepted"),
    [
        (None, {"trusted"}),
        ("require-and-verify-client-cert", {"trusted"}),
        ("verify-client-cert-if-given", {"trusted", "none"}),
        ("request-client-cert", {"trusted", "none", "stranger"}),
    ],
)
def test_client_certificates(
    ca: trustme.CA,
    files: dict[str, str],
    clientcas: tuple[trustme.CA, tuple[str, ...]],
    mode: str | None,
    accepted: set[str],
    version: ssl.TLSVersion,
) -> None:
    authority, paths = clientcas
    server = context(**files, clientcas=paths, **({"clientauth": mode} if mode else {}))
    for who, issuer in (("none", None), ("trusted", authority), ("stranger", trustme.CA())):
        presenting = client(ca, version)
        if issuer:
            issuer.issue_cert("client").configure_cert(presenting)
        if who in accepted:
            handshake(server, presenting)
        else:
            with pytest.raises(ssl.SSLError):
                handshake(server, presenting)


def test_clientauth_without_clientcas_means_nothing(ca: trustme.CA, files: dict[str, str]) -> None:
    handshake(context(**files, clientauth="require-any-client-cert"), client(ca))


def test_what_cannot_be(files: dict[str, str], clientcas: tuple[trustme.CA, tuple[str, ...]], tmp_path: Path) -> None:
    """Each stops the start and names its setting."""
    text, key = tmp_path / "text", tmp_path / "other.key"
    text.write_text("not PEM")
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(key))
    rows: dict[str, dict[str, Any]] = {
        "http.tls.clientauth": {**files, "clientcas": clientcas[1], "clientauth": "require-any-client-cert"},
        "http.tls.clientcas": {**files, "clientcas": (str(text),)},
        "http.tls.ciphersuites": {**files, "ciphersuites": ("TLS_MADE_UP",)},
        "http.tls.ciphersuites ": {**files, "ciphersuites": ALWAYS_ON},
        "http.tls.key": {"certificate": files["certificate"]},
        "http.tls.certificate": {"key": files["key"]},
        "http.tls.certificate ": {**files, "key": str(key)},
        "http.tls.certificate  ": {**files, "certificate": str(text)},
    }
    for path, settings in rows.items():
        with pytest.raises(ConfigError) as caught:
            server_context(TLSConfig(**settings))
        assert caught.value.path == path.strip()
        assert "None" not in str(caught.value)


def test_encrypted_key_does_not_ask_for_a_passphrase(files: dict[str, str]) -> None:
    from cryptography.hazmat.primitives import serialization

    key = Path(files["key"])
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    secret = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.TraditionalOpenSSL, secret
    key.write_bytes(private.private_bytes(serialization.Encoding.PEM, *form))
    with pytest.raises(ConfigError, match="encrypted"):
        context(**files)


@pytest.mark.parametrize("setting", ["certificate", "key", "clientcas"])
def test_missing_file_is_named(files: dict[str, str], setting: str, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing.pem")
    value: Any = (missing,) if setting == "clientcas" else missing
    with pytest.raises(FileNotFoundError) as caught:
        context(**{**files, setting: value})
    assert caught.value.filename == missing

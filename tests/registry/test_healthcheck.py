"""What the image's HEALTHCHECK asks, and what counts as an answer."""

import socket
import ssl
import threading
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from registry.app import create_app
from registry.commands import healthcheck
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.config.model import AuthConfig, HtpasswdConfig, HTTPConfig, TLSConfig
from registry.serving.server import running

LIVE, READY = Namespace(ready=False), Namespace(ready=True)
TLS = TLSConfig(certificate="some", key="some")


@contextmanager
def answering(reply: bytes, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A server that answers one request; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            if context:
                with suppress(ssl.SSLError), context.wrap_socket(connection, server_side=True) as secured:
                    secured.recv(4096)
                    secured.sendall(reply)
                return
            with connection:
                connection.recv(4096)
                connection.sendall(reply)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listener.getsockname()[1]
        thread.join()


def at(port: int) -> Config:
    return Config(http=HTTPConfig(addr=f"127.0.0.1:{port}"))


def test_it_lives() -> None:
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") as port:
        assert healthcheck.run(at(port), LIVE) == 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", r"/livez at .* answers 503$"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "answers 404"),
        (b"", "no answer"),
        (b"?\r\n", "no answer"),
    ],
)
def test_it_does_not(reply: bytes, said: str) -> None:
    with answering(reply) as port, pytest.raises(Refusal, match=said):
        healthcheck.run(at(port), LIVE)


def test_why_it_is_not_ready() -> None:
    with (
        answering(b"HTTP/1.1 503 Sorry\r\nContent-Length: 4\r\n\r\nthis") as port,
        pytest.raises(Refusal, match=r"/readyz at .* answers 503 this$"),
    ):
        healthcheck.run(at(port), READY)


def test_of_a_registry(config: Config, tmp_path: Path) -> None:
    """Whatever it says at /v2/, and without a login."""
    (tmp_path / "users").write_text("")
    auth = AuthConfig(htpasswd=HtpasswdConfig(path=str(tmp_path / "users")))
    secured = replace(config, auth=auth, http=HTTPConfig(prefix="/some/where/"))
    app = create_app(secured)
    with running(app, secured) as server:
        asked = replace(secured, http=replace(secured.http, addr=server.address))
        assert healthcheck.run(asked, LIVE) == healthcheck.run(asked, READY) == 0
        app.health.stop()
        assert healthcheck.run(asked, LIVE) == 0
        with pytest.raises(Refusal, match=r'503 {"ready": false, .*"stopping"'):
            healthcheck.run(asked, READY)


@pytest.mark.parametrize("client", [ssl.CERT_NONE, ssl.CERT_REQUIRED])
def test_tls(client: ssl.VerifyMode) -> None:
    """Whatever name the certificate is for, and where a client's certificate is wanted, which we have not got."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("registry.example.com").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = client
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", context) as port:
        http = HTTPConfig(addr=f"127.0.0.1:{port}", tls=replace(TLS, clientcas=("some",) if client else ()))
        assert healthcheck.run(Config(http=http), LIVE) == 0


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for http in (HTTPConfig(addr=f"127.0.0.1:{port}"), HTTPConfig(net="unix", addr=str(tmp_path / "socket"))):
        with pytest.raises(Refusal, match="no answer"):
            healthcheck.run(Config(http=http), LIVE)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/opt/moorage/bin/python3", "-I", "/bin/registry", "serve", "/etc/x.yml"], Path("/etc/x.yml")),
        (["python3", "/bin/registry", "serve", "--workers", "2", "x.yml"], Path("x.yml")),
        (["python3", "/bin/registry", "serve", "--workers=2", "x.yml"], Path("x.yml")),
        (["python3", "/bin/registry", "serve"], None),
        (["python3", "/bin/registry", "x.yml"], Path("x.yml")),
        (["python3", "/bin/registry", "doctor", "x.yml"], None),
        (["python3", "/bin/registry", "healthcheck"], None),
        (["tini", "--", "sleep", "serve", "x.yml"], None),
    ],
)
def test_the_configuration_of_who_serves(tmp_path: Path, words: list[str], expected: Path | None) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "cmdline").write_bytes("\0".join([*words, ""]).encode())
    (tmp_path / "self").mkdir()
    (tmp_path / "8").mkdir()  # has ended
    assert healthcheck.serving_config(tmp_path) == expected

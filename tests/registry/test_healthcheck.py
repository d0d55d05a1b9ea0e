"""What the image's HEALTHCHECK asks, and what counts as an answer."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from registry.commands import healthcheck
from registry.commands.refusal import Refusal
from registry.config import Config
from registry.config.model import HTTPConfig, TLSConfig

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


@pytest.mark.parametrize("status", [b"200 OK", b"401 Unauthorized", b"404 Not Found"])
def test_it_lives(status: bytes) -> None:
    with answering(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n") as port:
        assert healthcheck.run(at(port)) == 0


@pytest.mark.parametrize(
    ("reply", "said"),
    [(b"HTTP/1.1 503 Sorry\r\nContent-Length: 0\r\n\r\n", "answers 503"), (b"", "no answer"), (b"?\r\n", "no answer")],
)
def test_it_does_not(reply: bytes, said: str) -> None:
    with answering(reply) as port, pytest.raises(Refusal, match=said):
        healthcheck.run(at(port))


@pytest.mark.parametrize("client", [ssl.CERT_NONE, ssl.CERT_REQUIRED])
def test_tls(client: ssl.VerifyMode) -> None:
    """Whatever name the certificate is for, and where a client's certificate is wanted, which we have not got."""
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("registry.example.com").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = client
    with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", context) as port:
        http = HTTPConfig(addr=f"127.0.0.1:{port}", tls=replace(TLS, clientcas=("some",) if client else ()))
        assert healthcheck.run(Config(http=http)) == 0


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    for http in (HTTPConfig(addr=f"127.0.0.1:{port}"), HTTPConfig(net="unix", addr=str(tmp_path / "socket"))):
        with pytest.raises(Refusal, match="no answer"):
            healthcheck.run(Config(http=http))


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

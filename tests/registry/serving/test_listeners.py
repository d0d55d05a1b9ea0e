"""Addresses as `http.addr` has them, against the kernel."""

import errno
import os
import socket
from pathlib import Path

import pytest

from registry.serving.listeners import listening, printable, split_address


@pytest.mark.parametrize(
    ("addr", "expected"),
    [
        (":5000", ("", "5000")),
        ("127.0.0.1:5001", ("127.0.0.1", "5001")),
        ("[::1]:5000", ("::1", "5000")),
        ("[::]:0", ("::", "0")),
        ("localhost:http", ("localhost", "http")),
    ],
)
def test_split(addr: str, expected: tuple[str, str]) -> None:
    assert split_address(addr) == expected


@pytest.mark.parametrize("addr", ["", "5000", "localhost", "127.0.0.1:", "::1:5000", "[::1]", "http://localhost:5000/"])
def test_what_is_no_address(addr: str) -> None:
    with pytest.raises(OSError) as caught, listening("tcp", addr):  # noqa: PT011 - errno is what is checked
        pass
    assert caught.value.errno in (errno.EINVAL, errno.EADDRNOTAVAIL)


def test_every_address_means_both_families_and_one_port() -> None:
    with listening("tcp", ":0") as sockets:
        assert [sock.family for sock in sockets] == [socket.AF_INET, socket.AF_INET6]
        port = sockets[0].getsockname()[1]
        assert [printable(sock) for sock in sockets] == [f"0.0.0.0:{port}", f"[::]:{port}"]
        for place in ("127.0.0.1", "::1"):
            socket.create_connection((place, port)).close()


@pytest.mark.parametrize(("addr", "name"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1")])
def test_one_address(addr: str, name: str) -> None:
    with listening("tcp", addr) as (sock,):
        assert sock.getsockname()[0] == name


def test_a_name() -> None:
    with listening("tcp", "localhost:0") as sockets:
        assert {sock.getsockname()[0] for sock in sockets} <= {"127.0.0.1", "::1"}


def test_taken_port_keeps_errno_and_address() -> None:
    with listening("tcp", "127.0.0.1:0") as (sock,):
        addr = printable(sock)
        with pytest.raises(OSError, match=addr) as caught, listening("tcp", addr):
            pass
        assert caught.value.errno == errno.EADDRINUSE


def test_taken_on_one_family_only() -> None:
    """Serving half of the addresses would leave clients to another registry."""
    with listening("tcp", "[::]:0") as (sock,):
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match="in use") as caught, listening("tcp", f":{port}"):
            pass
        assert caught.value.errno == errno.EADDRINUSE


def test_foreign_address() -> None:
    with pytest.raises(OSError, match=r"192\.0\.2\.1:0") as caught, listening("tcp", "192.0.2.1:0"):
        pass
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_accepted_sockets_inherit_what_is_set_once() -> None:
    with (
        listening("tcp", "127.0.0.1:0", unacknowledged=30) as (sock,),
        socket.create_connection(sock.getsockname()),
    ):
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 30_000


def test_unix_socket_comes_and_goes(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    with listening("unix", path) as (sock,):
        assert printable(sock) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
    assert not os.path.exists(path)


def test_stale_unix_socket_is_replaced(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with listening("unix", path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def test_unix_socket_of_the_living_is_left_alone(tmp_path: Path) -> None:
    path = str(tmp_path / "r.sock")
    with listening("unix", path):
        with pytest.raises(OSError, match="in use") as caught, listening("unix", path):
            pass
        assert caught.value.errno == errno.EADDRINUSE
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)


def test_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    path.write_text("precious")
    with pytest.raises(FileExistsError), listening("unix", str(path)):
        pass
    assert path.read_text() == "precious"


@pytest.mark.parametrize("path", ["missing/r.sock", "x" * 200])
def test_unix_path_that_cannot_be(tmp_path: Path, path: str) -> None:
    with pytest.raises(OSError, match=r"r\.sock|xxx"), listening("unix", str(tmp_path / path)):
        pass

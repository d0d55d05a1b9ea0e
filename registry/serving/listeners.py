"""From `http.addr` and `http.net` to listening sockets.

Rules, where distribution has them, are those of Go's net.Listen: `:5000` is every address of the machine, IPv4 and
IPv6; a port may be 0 (any free one) or a name. A socket file that another process still listens on is left alone.
Sockets listen from here on, so that a taken port shows before anything is started.

Several processes get a listener each (SO_REUSEPORT), because of a shared one whoever wakes first takes all that wait.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

BACKLOG = 2048
KEEP_ALIVE = 180
"""Seconds until the kernel asks an idle peer whether it still lives: as distribution's listener does."""
_NOT_HERE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""bind() on a machine without IPv6, or with IPv6 switched off."""


@contextmanager
def listening(net: str, addr: str, *, unacknowledged: float = 0) -> Iterator[list[socket.socket]]:
    """Listening sockets for addr, closed at the end. Raises OSError, with errno, when that cannot be.

    unacknowledged: seconds after which the kernel drops a connection whose peer takes nothing more, also one that
    this process has closed already; 0 leaves the kernel's default of many minutes.
    """
    with ExitStack() as stack:
        if net == "unix":
            yield [stack.enter_context(_unix(addr))]
            return
        host, port = split_address(addr)
        sockets: list[socket.socket] = []
        for family, place in _places(host, port):
            # With port 0 the first socket chooses, and the others follow.
            wanted = sockets[0].getsockname()[1] if sockets else place[1]
            try:
                sockets.append(stack.enter_context(_tcp(family, (place[0], wanted, *place[2:]), unacknowledged)))
            except OSError as exc:
                if exc.errno in _NOT_HERE and len(_places(host, port)) > 1:
                    continue
                raise OSError(exc.errno, exc.strerror, addr) from exc
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, os.strerror(errno.EADDRNOTAVAIL), addr)
        yield sockets


@contextmanager
def listening_each(
    net: str, addr: str, count: int, *, unacknowledged: float = 0
) -> Iterator[list[list[socket.socket]]]:
    """The listening sockets of each of `count` processes, as `listening` makes them for one.

    The kernel spreads connections over them. A unix socket cannot be had twice, so all share one.
    """
    with listening(net, addr, unacknowledged=unacknowledged) as first, ExitStack() as stack:
        if net == "unix":
            yield [first] * count
            return
        for sock in first:
            # Not before it listens: a port on which somebody else does, even with this option, counts as taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        others = [
            [stack.enter_context(_tcp(sock.family, sock.getsockname(), unacknowledged, share=True)) for sock in first]
            for _ in range(1, count)
        ]
        yield [first, *others]


def split_address(addr: str) -> tuple[str, str]:
    """`host:port`, `[::1]:port` or `:port` as (host, port). Raises OSError for anything else."""
    host, colon, port = addr.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port or (":" in host and not bracketed):
        raise OSError(errno.EINVAL, "an address looks like :5000, 127.0.0.1:5000 or [::1]:5000", addr)
    return (host[1:-1] if bracketed else host), port


def printable(sock: socket.socket) -> str:
    """What a socket listens on, for people: `0.0.0.0:5000`, `[::]:5000`, `unix:/run/registry.sock`."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return f"unix:{name}"
    return f"[{name[0]}]:{name[1]}" if sock.family == socket.AF_INET6 else f"{name[0]}:{name[1]}"


def _places(host: str, port: str) -> list[tuple[socket.AddressFamily, tuple[str, int]]]:
    """Addresses to bind, IPv4 first."""
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise OSError(errno.EADDRNOTAVAIL, exc.strerror, f"{host}:{port}") from exc
    return sorted({(family, place) for family, _, _, _, place in found})  # type: ignore[misc] # only AF_INET and AF_INET6


def _tcp(family: int, place: tuple[str, int], unacknowledged: float, *, share: bool = False) -> socket.socket:
    """share: with the listeners that this address has already."""
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            # Else this socket would want the IPv4 port as well; with two, clients of IPv4 are logged as such.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Accepted sockets inherit these, which saves the calls for each connection.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE)
        if unacknowledged:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(unacknowledged * 1000))
        sock.bind(place)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


@contextmanager
def _unix(path: str) -> Iterator[socket.socket]:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        _remove_stale(path)
        try:
            sock.bind(path)
        except OSError as exc:
            raise OSError(exc.errno or errno.EINVAL, exc.strerror or str(exc), path) from exc
        try:
            sock.listen(BACKLOG)
            yield sock
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)


def _remove_stale(path: str) -> None:
    """Remove the socket file of a process that is gone. Raises OSError when it is no socket, or alive."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "exists and is not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), path)

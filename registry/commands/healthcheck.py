"""`registry healthcheck`: does the registry of this machine or container answer? For the image's HEALTHCHECK.

It asks `/livez` at the address that the settings say, or with --ready `/readyz`. A registry that wants a client's
certificate, which we have not got, lives.
"""

import argparse
import http.client
import os
import socket
import ssl
from contextlib import closing
from pathlib import Path

from registry.commands.refusal import Refusal
from registry.config import Config
from registry.serving.listeners import split_address

TIMEOUT = 4.0
"""Seconds; less than the image's own for the whole command, so that there is a line that says why."""
_SHOWN = 1000
"""Bytes of the answer."""
EVERY = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # where to ask what listens everywhere


def serving_config(processes: Path = Path("/proc")) -> Path | None:
    """The configuration that the registry of this container was started with; None: none, or nobody serves."""
    numbers = sorted(int(entry.name) for entry in processes.iterdir() if entry.name.isdecimal())
    for number in numbers:
        if number == os.getpid():
            continue
        try:
            words = (processes / str(number) / "cmdline").read_bytes().split(b"\0")
        except OSError:  # it has ended meanwhile
            continue
        arguments = [os.fsdecode(word) for word in words if word]
        while arguments and Path(arguments[0]).name != "registry":
            arguments.pop(0)
        match arguments[1:]:
            case ["serve", *rest]:
                return _configuration(rest)
            case [only] if "/" in only or "." in only:  # a configuration alone means serve, too
                return Path(only)
    return None


def _configuration(arguments: list[str]) -> Path | None:
    """The one argument of `serve` that is neither an option nor its value."""
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--workers":
            next(waiting, None)
        elif not argument.startswith("-"):
            return Path(argument)
    return None


def run(config: Config, options: argparse.Namespace) -> int:
    """Raises Refusal, with what is wrong."""
    addr, path = config.http.addr, "/readyz" if options.ready else "/livez"
    try:
        status, said = _ask(config, path)
    except (OSError, http.client.HTTPException) as exc:
        # TLS 1.3 refuses after the handshake, by an alert that a reset of the connection may overtake.
        if config.http.tls.clientcas and isinstance(exc, ssl.SSLError | ConnectionResetError):
            return 0
        raise Refusal(f"healthcheck: no answer at {addr}: {str(exc) or type(exc).__name__}") from exc
    if status != 200:
        raise Refusal(f"healthcheck: {path} at {addr} answers {status} {said}".rstrip())
    return 0


def _ask(config: Config, path: str) -> tuple[int, str]:
    """Status and body of the answer."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
    with closing(connection):
        connection.sock = _connected(config)
        if config.http.tls.certificate:
            context = ssl.create_default_context()
            context.check_hostname = False  # it is the certificate of a name that we do not know, on this machine
            context.verify_mode = ssl.CERT_NONE
            connection.sock = context.wrap_socket(connection.sock)
        connection.request("GET", path, headers={"Connection": "close", "User-Agent": "moorage-healthcheck"})
        with connection.getresponse() as response:
            return response.status, response.read(_SHOWN).decode("utf-8", "replace")


def _connected(config: Config) -> socket.socket:
    if config.http.net == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        try:
            sock.connect(config.http.addr)
        except OSError:
            sock.close()
            raise
        return sock
    host, port = split_address(config.http.addr)
    return socket.create_connection((EVERY.get(host, host), int(port)), timeout=TIMEOUT)

"""`registry healthcheck`: does the registry of this machine or container answer? For the image's HEALTHCHECK.

It asks `/v2/` at the address that the settings say. An answer below 500 is one: a login that is asked for (401) is a
registry that lives, and so is one that wants a client's certificate, which we have not got.
"""

import http.client
import os
import socket
import ssl
from pathlib import Path

from registry.commands.refusal import Refusal
from registry.config import Config
from registry.listeners import split_address

TIMEOUT = 4.0
"""Seconds; less than the image's own for the whole command, so that there is a line that says why."""
EVERY = {"": "localhost", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 # where to ask what listens everywhere
LIVES = ("CERTIFICATE_REQUIRED", "HANDSHAKE_FAILURE", "BAD_CERTIFICATE")
"""What TLS servers say to a client without a certificate; of OpenSSL, without its TLSV13_ALERT_ and the like."""


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
        if "serve" in arguments and any(Path(each).name == "registry" for each in arguments[:3]):
            return _configuration(arguments[arguments.index("serve") + 1 :])
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


def run(config: Config) -> int:
    """Raises Refusal, with what is wrong."""
    addr, path = config.http.addr, f"{config.http.prefix.rstrip('/')}/v2/"
    try:
        status = _ask(config, path)
    except ssl.SSLError as exc:
        if any(word in (exc.reason or "") for word in LIVES):
            return 0
        raise Refusal(f"healthcheck: no TLS at {addr}: {exc.reason}") from exc
    except (OSError, http.client.HTTPException) as exc:
        raise Refusal(f"healthcheck: no answer at {addr}: {str(exc) or type(exc).__name__}") from exc
    if status >= 500:
        raise Refusal(f"healthcheck: {path} at {addr} answers {status}")
    return 0


def _ask(config: Config, path: str) -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("localhost", timeout=TIMEOUT)
    with _connected(config) as sock:
        if config.http.tls.certificate:
            context = ssl.create_default_context()
            context.check_hostname = False  # it is the certificate of a name that we do not know, on this machine
            context.verify_mode = ssl.CERT_NONE
            sock = context.wrap_socket(sock)
        connection.sock = sock
        connection.request("GET", path, headers={"Connection": "close", "User-Agent": "moorage-healthcheck"})
        status = connection.getresponse().status
        connection.close()
    return status


def _connected(config: Config) -> socket.socket:
    if config.http.net == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(TIMEOUT)
        sock.connect(config.http.addr)
        return sock
    host, port = split_address(config.http.addr)
    return socket.create_connection((EVERY.get(host, host), int(port)), timeout=TIMEOUT)

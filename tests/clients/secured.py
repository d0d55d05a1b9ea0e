"""A second registry as one runs it on a network: TLS with a private authority, names and passwords in an htpasswd file.

It listens at the machine's own address where there is one: docker does not check certificates of `localhost`.
"""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import httpx
import trustme

from . import daemons
from .api import Registry
from .shell import Shell

USER = "harbourmaster"
PASSWORD = "not a secret"  # a space: it has to survive every client's configuration file


@dataclass(frozen=True)
class Secured:
    """The registry with TLS and passwords."""

    registry: Registry
    """How the tests look into it: with the authority and a password."""
    certificates: Path
    """A folder with the authority as `ca.crt`, the form of docker's certs.d and of podman's --cert-dir."""

    @property
    def host(self) -> str:
        return self.registry.host

    @property
    def authority(self) -> Path:
        return self.certificates / "ca.crt"


@contextmanager
def secured_registry(shell: Shell, folder: Path, log: Path) -> Iterator[Secured]:
    """Run it for the time of the block."""
    host = own_address()
    certificates = folder / "certs"
    certificates.mkdir(parents=True)
    authority = trustme.CA()
    issued = authority.issue_cert(host)
    authority.cert_pem.write_to_path(certificates / "ca.crt")
    issued.private_key_pem.write_to_path(folder / "server.key")
    for part in issued.cert_chain_pems:
        part.write_to_path(folder / "server.crt", append=True)
    password = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(5)).decode()
    (folder / "htpasswd").write_text(f"{USER}:{password}\n")
    more = {
        "http": {"tls": {"certificate": f"{folder}/server.crt", "key": f"{folder}/server.key"}},
        "auth": {"htpasswd": {"realm": "harbour", "path": f"{folder}/htpasswd"}},
    }
    with daemons.registry(shell, folder / "registry", log, host=host, more=more) as port:
        address = f"{host}:{port}"
        trusted = ssl.create_default_context(cafile=certificates / "ca.crt")
        with httpx.Client(
            base_url=f"https://{address}", verify=trusted, auth=(USER, PASSWORD), trust_env=False
        ) as http:
            yield Secured(Registry(address, http), certificates)


def own_address() -> str:
    """The address by which this machine would talk to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of RFC 5737, for examples
        except OSError:
            return "127.0.0.1"
        address: str = probe.getsockname()[0]
        return address

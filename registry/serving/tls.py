"""From `http.tls` to an SSLContext, with distribution's names and defaults.

distribution names cipher suites as Go does. As there, suites of TLS 1.3 may be listed but cannot be chosen: they are
always on. A suite that this OpenSSL lacks is left out with a warning, as fewer suites protect no less; anything else
that cannot be done stops the start, because a setting that protects is never ignored.
"""

import logging
import ssl
import warnings
from pathlib import Path

from registry.config import ConfigError
from registry.config.model import TLSConfig

logger = logging.getLogger(__name__)

VERSIONS = {
    "tls1.0": ssl.TLSVersion.TLSv1,
    "tls1.1": ssl.TLSVersion.TLSv1_1,
    "tls1.2": ssl.TLSVersion.TLSv1_2,
    "tls1.3": ssl.TLSVersion.TLSv1_3,
}

SUITES = {
    "TLS_RSA_WITH_RC4_128_SHA": "RC4-SHA",
    "TLS_ECDHE_RSA_WITH_RC4_128_SHA": "ECDHE-RSA-RC4-SHA",
    "TLS_ECDHE_ECDSA_WITH_RC4_128_SHA": "ECDHE-ECDSA-RC4-SHA",
    "TLS_RSA_WITH_3DES_EDE_CBC_SHA": "DES-CBC3-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA": "AES128-SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA": "AES256-SHA",
    "TLS_RSA_WITH_AES_128_CBC_SHA256": "AES128-SHA256",
    "TLS_RSA_WITH_AES_128_GCM_SHA256": "AES128-GCM-SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384": "AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256": "ECDHE-ECDSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA": "ECDHE-RSA-DES-CBC3-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256": "ECDHE-RSA-AES128-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
}
ALWAYS_ON = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")
DEFAULT_SUITES = (
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
)

CLIENT_AUTH = {
    # Go asks for a certificate and looks at none; nobody here wants to see it either, so it is not asked for.
    "request-client-cert": ssl.CERT_NONE,
    "verify-client-cert-if-given": ssl.CERT_OPTIONAL,
    "require-and-verify-client-cert": ssl.CERT_REQUIRED,
}


class ServerContext(ssl.SSLContext):
    """One that a server keeps for its life, while new connections are made by its `successor`, once there is one.

    So what the successor does not trust is shut out at once: it has keys of its own for the tickets of sessions, and
    what was resumed by the old ones would not be verified anew.
    """

    successor: ssl.SSLContext | None = None

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        wrap = self.successor.wrap_bio if self.successor else super().wrap_bio
        return wrap(incoming, outgoing, server_side, server_hostname, session)


def server_context(config: TLSConfig) -> ServerContext | None:
    """None for plain HTTP. Raises OSError for a file that cannot be read, ConfigError for what cannot be done."""
    if not config.certificate and not config.key:
        return None
    context = ServerContext(ssl.PROTOCOL_TLS_SERVER)
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client could have us compute keys for ever
    context.set_alpn_protocols(["http/1.1"])
    _set_version(context, config.minimumtls)
    if config.minimumtls != "tls1.3":
        _set_suites(context, config)
    _load_certificate(context, config)
    _set_client_auth(context, config)
    return context


def replace_files(context: ServerContext, config: TLSConfig) -> None:
    """New connections see the certificate, key and CAs that stand in the files now.

    Raises as server_context does, and has changed nothing then.
    """
    context.successor = server_context(config)


def _set_version(context: ssl.SSLContext, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 1.0 and 1.1: whoever names them knows why
        context.minimum_version = VERSIONS[name]


def _set_suites(context: ssl.SSLContext, config: TLSConfig) -> None:
    names = [name for name in config.ciphersuites or DEFAULT_SUITES if name not in ALWAYS_ON]
    for name in names:
        if name not in SUITES:
            raise ConfigError("http.tls.ciphersuites", f"{name} is not a known suite; known: {', '.join(SUITES)}")
    # OpenSSL signs the handshakes of 1.0 and 1.1 (SHA-1) at its lowest level of security only.
    level = ":@SECLEVEL=0" if config.minimumtls in ("tls1.0", "tls1.1") else ""
    here = [name for name in names if _has(context, SUITES[name] + level)]
    if not here:
        problem = "none of them is a suite of TLS 1.2 in this OpenSSL; those of 1.3 alone need minimumtls: tls1.3"
        raise ConfigError("http.tls.ciphersuites", problem)
    if here != names:
        missing = [name for name in names if name not in here]
        logger.warning("http.tls.ciphersuites: this OpenSSL has no %s", ", ".join(missing))
    context.set_ciphers(":".join(SUITES[name] for name in here) + level)


def _has(context: ssl.SSLContext, suite: str) -> bool:
    try:
        context.set_ciphers(suite)
    except ssl.SSLError:
        return False
    return True


def _load_certificate(context: ssl.SSLContext, config: TLSConfig) -> None:
    files = {"certificate": config.certificate, "key": config.key}
    for setting, path in files.items():
        if not path:
            raise ConfigError(f"http.tls.{setting}", "TLS needs both http.tls.certificate and http.tls.key")
    for path in files.values():
        Path(path).read_bytes()  # OpenSSL's error would not name the file

    def no_passphrase() -> str:
        raise ConfigError("http.tls.key", f"{config.key} is encrypted; give a key without a passphrase")

    try:
        context.load_cert_chain(config.certificate, config.key, no_passphrase)
    except ssl.SSLError as exc:
        problem = f"{config.certificate} and {config.key} are no PEM certificate with its key: {exc.reason or exc}"
        raise ConfigError("http.tls.certificate", problem) from exc


def _set_client_auth(context: ssl.SSLContext, config: TLSConfig) -> None:
    """As in distribution, clientauth means nothing without clientcas."""
    if not config.clientcas:
        return
    if config.clientauth not in CLIENT_AUTH:
        problem = f"{config.clientauth} is not possible here; {', '.join(CLIENT_AUTH)} are"
        raise ConfigError("http.tls.clientauth", problem)
    context.verify_mode = CLIENT_AUTH[config.clientauth]
    for path in config.clientcas:
        Path(path).read_bytes()
        try:
            context.load_verify_locations(path)
        except ssl.SSLError as exc:
            raise ConfigError("http.tls.clientcas", f"{path} holds no PEM certificate: {exc.reason}") from exc

"""SIGHUP: what changes, what is named, and what a broken configuration leaves as it was (F40)."""

import json
import logging
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trustme

from registry.auth import Htpasswd
from registry.config import Config, Loaded, load
from registry.processes.reload import Reloader, changes
from registry.serving.tls import ServerContext, server_context
from tests.rawsocket import RawConnection, request
from tests.registry.processes.test_workers import PATIENCE, Registry, serving, wait_until
from tests.registry.serving.test_tls import client, connected, handshake

FILE = "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {root}}}}}\n"


class Settings:
    """A configuration file that the tests write again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "config.yml"
        self.write()

    def write(self, more: str = "") -> None:
        self.path.write_text(FILE.format(root=self.folder / "data") + more)

    def load(self) -> Loaded:
        return load(self.path, {})


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path)


@pytest.fixture(autouse=True)
def _hear_all(caplog: pytest.LogCaptureFixture) -> None:
    """Under the level that a test sets by the configuration."""
    caplog.handler.setLevel(logging.DEBUG)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_log_and_the_names_of_the_rest(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    reload = Reloader(settings.load(), settings.load)
    settings.write("log: {level: debug, formatter: json, fields: {a: b}}\nlimits: {keepalive: 9s}\nhttp: {secret: s}\n")
    assert reload(None)
    done, waiting = lines(capsys)
    assert done["reloaded"] == "log.fields, log.fields.a, log.formatter, log.level"
    assert done["a"] == "b"
    assert logging.getLogger().level == logging.DEBUG
    assert waiting["msg"] == ("these settings have changed, too, and need a restart: http.secret, limits.keepalive")
    assert reload(None)
    again, waiting_still = lines(capsys)
    assert (again["reloaded"], waiting_still["msg"]) == ("nothing", waiting["msg"])


def test_another_process_says_it(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    reload = Reloader(settings.load(), settings.load)
    reload.quiet = True
    settings.write("limits: {keepalive: 9s}\nnonsense: 1\n")
    assert reload(None)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "broken",
    ["log: {level: loud}", "log: [", "auth: {htpasswd: {path: /missing}}", "http: {tls: {certificate: /missing}}"],
)
def test_f40_a_broken_configuration_changes_nothing(
    settings: Settings, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    reload = Reloader(settings.load(), settings.load)
    before = logging.getLogger().level
    settings.write(f"{broken}\n")
    assert not reload(None)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.getMessage().startswith("nothing was reloaded, as the configuration cannot be used: ")
    assert logging.getLogger().level == before
    settings.write("log: {level: error}\n")
    assert reload(None)
    assert logging.getLogger().level == logging.ERROR


def test_a_file_that_is_gone(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    reload = Reloader(settings.load(), settings.load)
    settings.path.unlink()
    assert not reload(None)
    assert "config.yml" in caplog.text


def test_changes() -> None:
    assert changes(Config(), Config()) == set()


# TLS.


class Pair:
    """A certificate and its key in files, as Kubernetes mounts them: by a link to a folder that is swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, 0
        self.link = folder / "..data"
        folder.mkdir(exist_ok=True)
        self.swap(trustme.CA())

    def swap(self, authority: trustme.CA) -> None:
        self.count += 1
        made = self.folder / f"..{self.count}"
        made.mkdir()
        issued = authority.issue_cert("localhost", "127.0.0.1")
        (made / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(made / "tls.key"))
        (self.folder / "new").symlink_to(made)
        (self.folder / "new").rename(self.link)
        self.authority = authority

    @property
    def setting(self) -> str:
        pair = {"certificate": str(self.link / "tls.crt"), "key": str(self.link / "tls.key")}
        return f"http: {{tls: {json.dumps(pair)}}}\n"


def accepts(context: ssl.SSLContext, authority: trustme.CA) -> bool:
    try:
        handshake(context, client(authority))
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_f40_a_certificate_is_swapped(settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    pair = Pair(tmp_path)
    settings.write(pair.setting)
    loaded = settings.load()
    context = server_context(loaded.config.http.tls)
    assert context is not None
    reload, old, new = Reloader(loaded, settings.load), pair.authority, trustme.CA()
    pair.swap(new)
    assert accepts(context, old)
    assert reload(context)
    assert (accepts(context, old), accepts(context, new)) == (False, True)


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key"])
def test_f40_a_certificate_that_cannot_be_used_is_not_taken(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """Also one that is fine by itself, beside a key that is not its own."""
    pair = Pair(tmp_path)
    settings.write(pair.setting)
    loaded = settings.load()
    context = server_context(loaded.config.http.tls)
    assert context is not None
    reload = Reloader(loaded, settings.load)
    for content in (b"nonsense", b"", _other_half(broken)):
        (pair.link / broken).write_bytes(content)
        assert not reload(context)
        assert accepts(context, pair.authority)
    assert len(caplog.records) == 3


def _other_half(name: str) -> bytes:
    issued = trustme.CA().issue_cert("localhost")
    return issued.cert_chain_pems[0].bytes() if name == "tls.crt" else issued.private_key_pem.bytes()


@pytest.mark.parametrize(("before", "after"), [(True, False), (False, True)])
def test_tls_on_or_off_needs_a_restart(
    settings: Settings, tmp_path: Path, before: bool, after: bool, caplog: pytest.LogCaptureFixture
) -> None:
    pair = Pair(tmp_path)
    settings.write(pair.setting if before else "")
    loaded = settings.load()
    context = server_context(loaded.config.http.tls)
    reload = Reloader(loaded, settings.load)
    settings.write(pair.setting if after else "")
    assert reload(context)
    assert context is None or accepts(context, pair.authority)


def test_another_path_of_the_certificate(settings: Settings, tmp_path: Path) -> None:
    one, other = Pair(tmp_path / "one"), Pair(tmp_path / "other")
    settings.write(one.setting)
    loaded = settings.load()
    context = server_context(loaded.config.http.tls)
    assert context is not None
    reload = Reloader(loaded, settings.load)
    settings.write(other.setting)
    assert reload(context)
    assert accepts(context, other.authority)
    other.swap(trustme.CA())
    assert reload(context)
    assert accepts(context, other.authority)


def admits(server: ssl.SSLContext, server_authority: trustme.CA, issuer: trustme.CA, server_name: str | None) -> bool:
    """A client with a certificate of `issuer`."""
    visitor = client(server_authority)
    visitor.check_hostname = server_name is not None
    issuer.issue_cert("visitor").configure_cert(visitor)
    try:
        handshake(server, visitor, server_name)
    except ssl.SSLCertVerificationError:
        return False
    return True


def asking_for_certificates(settings: Settings, pair: Pair, authorities: Path) -> tuple[Loaded, ServerContext]:
    """A registry that wants them of its clients."""
    files = {"certificate": f"{pair.link}/tls.crt", "key": f"{pair.link}/tls.key", "clientcas": [str(authorities)]}
    settings.write(f"http: {{tls: {json.dumps(files)}}}\n")
    loaded = settings.load()
    context = server_context(loaded.config.http.tls)
    assert context is not None
    return loaded, context


@pytest.mark.parametrize("server_name", ["localhost", None])
def test_f40_client_authorities_are_swapped(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str], server_name: str | None
) -> None:
    """The one that is gone is no longer trusted, also by a client that names no server."""
    pair, first, second = Pair(tmp_path), trustme.CA(), trustme.CA()
    pem = tmp_path / "clients.pem"
    first.cert_pem.write_to_path(str(pem))
    loaded, context = asking_for_certificates(settings, pair, pem)
    reload = Reloader(loaded, settings.load)

    def admitted() -> tuple[bool, bool]:
        first_is, second_is = (admits(context, pair.authority, each, server_name) for each in (first, second))
        return first_is, second_is

    assert admitted() == (True, False)
    second.cert_pem.write_to_path(str(pem))
    assert reload(context)
    assert admitted() == (False, True)
    assert 'reloaded="http.tls.certificate, http.tls.clientcas"' in capsys.readouterr().err
    pem.write_text("nonsense")
    assert not reload(context)
    assert admitted() == (False, True)
    second.cert_pem.write_to_path(str(pem))
    settings.write(pair.setting)
    assert reload(context)
    assert "need a restart: http.tls.clientcas" in capsys.readouterr().err
    assert admitted() == (False, True)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_whose_authority_is_gone_resumes_no_session(
    settings: Settings, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    """Resumed, it would not be asked for a certificate, and get a ticket for the next time."""
    pair, first, second = Pair(tmp_path), trustme.CA(), trustme.CA()
    pem = tmp_path / "clients.pem"
    first.cert_pem.write_to_path(str(pem))
    loaded, context = asking_for_certificates(settings, pair, pem)
    visitor = client(pair.authority, version)
    first.issue_cert("visitor").configure_cert(visitor)
    session = connected(context, visitor).session
    assert connected(context, visitor, session=session).session_reused
    reload = Reloader(loaded, settings.load)
    second.cert_pem.write_to_path(str(pem))
    assert reload(context)
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(context, visitor, session=session)


# What needs no signal.


def test_f40_users_are_swapped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As Kubernetes swaps a mounted Secret, to one that is broken, too."""
    one, other = ("$2y$05$" + letter * 53 for letter in "ab")

    def swap(name: str, content: str) -> None:
        made = tmp_path / name
        made.mkdir()
        (made / "htpasswd").write_text(content)
        (tmp_path / "new").symlink_to(made)
        (tmp_path / "new").rename(tmp_path / "..data")

    swap("1", f"me:{one}\n")
    users = Htpasswd(tmp_path / "..data" / "htpasswd")
    assert users.hash_of("me") == one.encode()
    swap("2", f"me:{other}\n")
    assert users.hash_of("me") == other.encode()
    swap("3", "nonsense\n")
    assert users.hash_of("me") == other.encode()
    assert "the htpasswd file is broken, going on with what it said before" in caplog.text
    swap("4", f"you:{one}\n")
    assert (users.hash_of("me"), users.hash_of("you")) == (None, one.encode())


# Real processes.


@contextmanager
def connection_to(registry: Registry, authority: trustme.CA) -> Iterator[RawConnection]:
    with (
        socket.create_connection(registry.place, PATIENCE) as sock,
        client(authority).wrap_socket(sock, server_hostname="127.0.0.1") as wrapped,
    ):
        yield RawConnection(wrapped)


def answers(connection: RawConnection) -> bool:
    connection.send(request("GET", "/v2/"))
    return connection.response().status == 200


def trusts(registry: Registry, authority: trustme.CA) -> bool:
    try:
        with connection_to(registry, authority) as connection:
            return answers(connection)
    except ssl.SSLCertVerificationError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_sighup_under_way(tmp_path: Path, workers: str) -> None:
    """A connection goes on, new ones see the new certificate; in every worker, and in one that comes later."""
    pair, settings = Pair(tmp_path), Settings(tmp_path)
    settings.write(f"{pair.setting}log: {{level: info}}\n")
    old = pair.authority
    with serving(tmp_path, "--workers", workers, str(settings.path)) as registry, connection_to(registry, old) as kept:
        assert answers(kept)
        pair.swap(trustme.CA())
        settings.write(f"{pair.setting}log: {{level: error}}\n")
        registry.process.send_signal(signal.SIGHUP)
        wait_until(lambda: registry.said("the configuration was read again"))
        wait_until(lambda: all(trusts(registry, pair.authority) for _ in range(20)))
        assert answers(kept)
        if workers == "2":
            before = registry.workers()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            wait_until(lambda: len(registry.workers() - before) == 2)
            assert all(trusts(registry, pair.authority) for _ in range(20))
        assert not trusts(registry, old)
        settings.write("log: {level: loud}\n")
        registry.process.send_signal(signal.SIGHUP)
        wait_until(lambda: registry.said("nothing was reloaded"))
        assert registry.errors.read_text().count("nothing was reloaded") == 1
        assert trusts(registry, pair.authority)
        registry.process.terminate()
        assert registry.ended() == 0
        assert "GET /v2/" in registry.errors.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_terminal_that_goes_away_stops_the_registry(tmp_path: Path, workers: str) -> None:
    """As it did before SIGHUP meant anything: nobody would know that it still runs."""
    ours, theirs = os.openpty()
    storage = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(tmp_path / "data")}
    with subprocess.Popen(
        [sys.executable, "-m", "registry", "serve", "--workers", workers],
        stdin=theirs,
        stdout=subprocess.PIPE,
        env={**os.environ, **storage, "REGISTRY_HTTP_ADDR": "127.0.0.1:0"},
        text=True,
    ) as child:
        try:
            assert child.stdout is not None
            while "  try " not in child.stdout.readline():
                pass
            os.close(theirs)
            os.close(ours)
            child.send_signal(signal.SIGHUP)
            assert child.wait(PATIENCE) == 0
        finally:
            child.kill()

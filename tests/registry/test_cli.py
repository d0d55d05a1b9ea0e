"""The command line as users have it: as a process where it serves, in this process where it only prints."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import pytest
import trustme

from registry import cli
from registry.arguments import COMMANDS
from registry.version import version

HEAVY = ("starlette", "uvicorn", "httptools", "yaml", "asyncio", "ssl", "bcrypt", "aiofiles", "registry.config")


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("REGISTRY_")]:
        monkeypatch.delenv(name)


class Process:
    """A `registry` that has said where it listens. facts: its banner."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.title, self.facts = process, "", dict[str, str]()

    def read_banner(self) -> None:
        assert self.process.stdout is not None
        self.title = self.process.stdout.readline().strip()
        while "try" not in self.facts and (line := self.process.stdout.readline()):
            name, _, value = line.strip().partition(" ")
            self.facts[name] = value.strip()

    @property
    def url(self) -> str:
        return self.facts["listening"].partition(" and ")[0]

    def stop(self) -> tuple[int, str, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=20)
        return self.process.returncode, out, err


@contextmanager
def registry(*arguments: str, banner: bool = True, **environ: str) -> Iterator[Process]:
    command = [sys.executable, "-m", "registry", *arguments]
    environ = {"REGISTRY_HTTP_ADDR": "127.0.0.1:0", "REGISTRY_STORAGE": "inmemory", **environ}
    process = subprocess.Popen(
        command, env={**os.environ, **environ}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        try:
            running = Process(process)
            if banner:
                running.read_banner()
            yield running
        finally:
            process.kill()


def refused(*arguments: str, **environ: str) -> str:
    """The one line with which it ends."""
    with registry(*arguments, banner=False, **environ) as running:
        out, err = running.process.communicate(timeout=20)
    assert running.process.returncode == 1
    assert out == ""
    assert err.startswith("registry: ")
    assert err.count("\n") == 1
    return err.removeprefix("registry: ").strip()


@pytest.mark.parametrize("argument", ["-v", "--version"])
def test_version(capsys: pytest.CaptureFixture[str], argument: str) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([argument])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"moorage {version()}\n"


def test_the_version_is_quick_to_find() -> None:
    code = (
        "import sys\nfrom registry.cli import main\n"
        "try: main(['--version'])\n"
        "except SystemExit: print(*sorted(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()).isdisjoint(HEAVY)


def test_without_arguments_it_says_what_can_be_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    out = capsys.readouterr().out
    assert all(command.name in out for command in COMMANDS)


def test_each_command_is_run_by_something() -> None:
    assert list(cli.RUN) == [command.name for command in COMMANDS]


def test_check_config_shows_what_holds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "config.yml").write_text(
        f"version: 0.1\nhttp: {{secret: hunter2, adr: ':1'}}\nstorage: {{filesystem: {{rootdirectory: {tmp_path}}}}}\n"
    )
    monkeypatch.setenv("REGISTRY_TAGS_MAXTAGS", "7")
    assert cli.main(["check-config", str(tmp_path / "config.yml")]) == 0
    out, err = capsys.readouterr()
    rows = [line.split(maxsplit=2) for line in out.splitlines()]
    assert ["http.secret", "******", f"{tmp_path}/config.yml:2"] in rows
    assert ["tags.maxtags", "7", "REGISTRY_TAGS_MAXTAGS"] in rows
    assert ["http.addr", ":5000", "default"] in rows
    assert err == (
        "registry: warning: http.adr is not a setting, and has no effect; did you mean http.addr? "
        f"({tmp_path}/config.yml:2)\n"
    )
    assert "hunter2" not in out


@pytest.mark.parametrize("command", ["serve", "check-config"])
@pytest.mark.parametrize(
    ("environ", "line"),
    [
        ({"REGISTRY_TAGS_MAXTAGS": "x"}, "tags.maxtags: expected a whole number, found 'x' (REGISTRY_TAGS_MAXTAGS)"),
        ({"REGISTRY_STORAGE": "gcs"}, "storage.gcs: there is no driver for Google Cloud Storage (REGISTRY_STORAGE)"),
        (
            {"REGISTRY_CONFIGURATION_PATH": "/x.yml"},
            "there is no such configuration: check the path, and in a container the volume that it should be in"
            " (/x.yml)",
        ),
        (
            {"REGISTRY_AUTH_HTPASSWD_PATH": "/none"},
            "auth.htpasswd.path: cannot read /none: No such file or directory; make it with `htpasswd -Bc /none USER` "
            "(Debian: apache2-utils) (REGISTRY_AUTH_HTPASSWD_PATH)",
        ),
        (
            {"REGISTRY_HTTP_TLS_CERTIFICATE": "/c.pem", "REGISTRY_HTTP_TLS_KEY": "/k.pem"},
            "http.tls.certificate: cannot read /c.pem: No such file or directory; check the path and who may read it "
            "(REGISTRY_HTTP_TLS_CERTIFICATE)",
        ),
        (
            {"REGISTRY_STORAGE": "filesystem", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/dev/null/x"},
            "storage.filesystem.rootdirectory: /dev/null is not a folder (REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY)",
        ),
    ],
)
def test_what_cannot_be_is_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    environ: dict[str, str],
    line: str,
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert cli.main([command]) == 1
    assert capsys.readouterr().err == f"registry: {line}\n"


@pytest.mark.parametrize(
    ("key", "environ", "said", "origin"),
    [
        (
            "other.pem",
            {},
            "http.tls.certificate: {0}/cert.pem and {0}/other.pem are no",
            "REGISTRY_HTTP_TLS_CERTIFICATE",
        ),
        (
            "key.pem",
            {"REGISTRY_HTTP_TLS": "{{certificate: {0}/cert.pem, key: {0}/key.pem, ciphersuites: [NONE]}}"},
            "http.tls.ciphersuites: NONE is not a known suite",
            "REGISTRY_HTTP_TLS",
        ),
    ],
)
def test_tls_that_cannot_be_is_one_line_with_its_origin(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    key: str,
    environ: dict[str, str],
    said: str,
    origin: str,
) -> None:
    """What registry/serving/tls.py finds out; it does not know where a setting came from."""
    authority = trustme.CA()
    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    one.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    one.private_key_pem.write_to_path(tmp_path / "key.pem")
    other.private_key_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("REGISTRY_STORAGE", "inmemory")
    monkeypatch.setenv("REGISTRY_HTTP_TLS_CERTIFICATE", str(tmp_path / "cert.pem"))
    monkeypatch.setenv("REGISTRY_HTTP_TLS_KEY", str(tmp_path / key))
    for name, value in environ.items():
        monkeypatch.setenv(name, value.format(tmp_path))
    assert cli.main(["check-config"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"registry: {said.format(tmp_path)}")
    assert err.endswith(f"({origin})\n")
    assert err.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [["serve"], []])
def test_it_serves_says_so_and_ends_well(tmp_path: Path, words: list[str]) -> None:
    """With `serve` and, as registry:2 is called, with a path alone."""
    (tmp_path / "config.yml").write_text("version: 0.1\nstorage: {delete: {enabled: true}}\n")
    root = tmp_path / "data"
    environ = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root), "REGISTRY_STORAGE": "{delete: {enabled: true}}"}
    with registry(*words, str(tmp_path / "config.yml"), banner=True, **environ) as running:
        port = running.url.rpartition(":")[2]
        assert running.title == f"Moorage {version()}"
        assert running.facts == {
            "listening": f"http://127.0.0.1:{port}",
            "storage": f"filesystem in {root}",
            "mode": "read and write, deletes on, no authentication: open to everyone",
            "config": f"{tmp_path}/config.yml",
            "try": "docker pull alpine && docker tag alpine {0}/alpine && docker push {0}/alpine".format(
                f"localhost:{port}"
            ),
        }
        assert httpx.get(f"{running.url}/v2/").status_code == 200
        status, out, err = running.stop()
    assert (status, out) == (0, "")
    assert 'msg="GET /v2/ 200"' in err
    assert f"{root} holds no images: a new registry begins here" in err


@pytest.mark.slow
def test_json_is_json_from_the_first_line() -> None:
    environ = {"REGISTRY_LOG_FORMATTER": "json", "REGISTRY_STORAGE_TAG_CONCURRENCYLIMIT": "8"}
    with registry("serve", banner=False, **environ) as running:
        assert running.process.stderr is not None
        warning, started = (json.loads(running.process.stderr.readline()) for _ in range(2))
        status, out, _ = running.stop()
    assert (warning["level"], warning["msg"].partition(":")[0]) == ("warning", "storage.tag has no effect")
    assert (started["msg"], started["storage"]) == ("started", "inmemory")
    assert started["listening"].startswith("http://127.0.0.1:")
    assert (status, out) == (0, "")


@pytest.mark.slow
def test_a_port_that_is_taken_is_one_line() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        addr = f"127.0.0.1:{taken.getsockname()[1]}"
        line = refused("serve", REGISTRY_HTTP_ADDR=addr)
    assert line.startswith(
        f"cannot listen on {addr}: stop the process that holds it (`ss -lnp`), or choose another with"
    )


@pytest.mark.slow
def test_other_places_where_it_cannot_listen(tmp_path: Path) -> None:
    assert "this machine has no such address" in refused("serve", REGISTRY_HTTP_ADDR="192.0.2.1:0")
    unix = {"REGISTRY_HTTP_NET": "unix", "REGISTRY_HTTP_ADDR": str(tmp_path / "none" / "x.sock")}
    assert "No such file or directory" in refused("serve", **unix)


@pytest.mark.slow
def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "r.sock"
    with registry("serve", REGISTRY_HTTP_NET="unix", REGISTRY_HTTP_ADDR=str(path)) as running:
        assert running.facts["listening"] == f"unix:{path}"
        assert running.facts["try"] == f"curl --unix-socket {path} http://localhost/v2/"
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            assert client.get("http://localhost/v2/").status_code == 200


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make another")
def test_a_folder_that_the_driver_cannot_make_is_one_line() -> None:
    environ = {"REGISTRY_STORAGE": "filesystem", "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/proc/moorage"}
    assert "/proc" in refused("serve", **environ)

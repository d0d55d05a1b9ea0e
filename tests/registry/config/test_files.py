import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from registry.config import ConfigError, load
from registry.config.files import check_files, doubt


def problem(**environ: str) -> str:
    loaded = load(None, environ)
    with pytest.raises(ConfigError) as caught:
        check_files(loaded)
    return str(caught.value)


def test_a_folder_that_exists_or_can_be_made(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "not" / "yet"):
        check_files(load(None, {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(root)}))
    assert not (tmp_path / "not").exists()


def test_a_folder_without_images_may_lack_its_volume(tmp_path: Path) -> None:
    writer = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": str(tmp_path)}
    replica = writer | {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}
    assert doubt(load(None, writer).config).startswith(f"{tmp_path} holds no images: a new registry begins here; if")
    assert "nothing can be pushed here: mount its volume" in doubt(load(None, replica).config)
    cache = writer | {"REGISTRY_PROXY_REMOTEURL": "https://upstream.example"}
    assert doubt(load(None, cache).config) == ""
    (tmp_path / "docker/registry/v2").mkdir(parents=True)
    for environ in (writer, replica, cache, {"REGISTRY_STORAGE": "inmemory"}):
        assert doubt(load(None, environ).config) == ""


def test_drivers_without_a_folder_need_none() -> None:
    check_files(load(None, {"REGISTRY_STORAGE": "inmemory"}))


@pytest.mark.parametrize("setting", ["proxy.remoteurl", "upstreams"])
def test_a_cache_that_is_no_folder_needs_one_besides(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    upstreams = {
        "proxy.remoteurl": {"REGISTRY_PROXY_REMOTEURL": "https://upstream.example"},
        "upstreams": {"REGISTRY_UPSTREAMS": '[{"url": "https://upstream.example"}]'},
    }
    environ = {"REGISTRY_STORAGE": "inmemory", **upstreams[setting]}
    check_files(load(None, environ))
    monkeypatch.setattr(tempfile, "tempdir", None)  # it looks once in a process
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/dev/null"])
    text = problem(**environ)
    assert text.startswith(f"{setting}: ")
    assert f"of user {os.getuid()} in TMPDIR" in text


def test_a_file_in_the_way_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    name = "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"
    assert problem(**{name: str(tmp_path / "file" / "data")}) == (
        f"storage.filesystem.rootdirectory: {tmp_path}/file is not a folder ({name})"
    )


AS_NOBODY = """
import os, sys
from registry.config import ConfigError, load
from registry.config.files import check_files
if os.getuid() == 0:  # root may write everywhere
    os.setuid(65534)
for readonly in ("true", "false"):
    environ = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": sys.argv[1]}
    environ["REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED"] = readonly
    try:
        check_files(load(None, environ))
        print("fine")
    except ConfigError as exc:
        print(exc)
"""


def test_a_folder_that_cannot_be_written_is_enough_for_reading() -> None:
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", AS_NOBODY, root], capture_output=True, text=True)
    assert done.stderr == ""
    user, name = os.getuid() or 65534, "REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY"
    assert done.stdout.splitlines() == [
        "fine",
        f"storage.filesystem.rootdirectory: {root} cannot be written to by user {user}: "
        f"`chown -R {user} {root}`, or name another folder in {name} ({name})",
    ]


def test_a_missing_htpasswd_file_says_how_to_make_it(tmp_path: Path) -> None:
    path = tmp_path / "htpasswd"
    text = problem(REGISTRY_AUTH_HTPASSWD_PATH=str(path))
    assert text == (
        f"auth.htpasswd.path: cannot read {path}: No such file or directory; make it with `htpasswd -Bc {path} USER` "
        "(Debian: apache2-utils) (REGISTRY_AUTH_HTPASSWD_PATH)"
    )
    assert not path.exists()


def test_a_folder_in_place_of_the_htpasswd_file(tmp_path: Path) -> None:
    """As the configuration of Debian's docker-registry has it."""
    file = tmp_path / "htpasswd"
    assert problem(REGISTRY_AUTH_HTPASSWD_PATH=str(tmp_path)) == (
        f"auth.htpasswd.path: cannot read {tmp_path}: Is a directory; make it with `htpasswd -Bc {file} USER` "
        f"(Debian: apache2-utils) and name {file} (REGISTRY_AUTH_HTPASSWD_PATH)"
    )
    assert "Is a directory" in problem(REGISTRY_AUTH_HTPASSWD_PATH=str(tmp_path))


@pytest.mark.parametrize("missing", ["certificate", "key", "clientcas"])
def test_missing_tls_files(tmp_path: Path, missing: str) -> None:
    environ = {}
    for name in ("certificate", "key", "clientcas"):
        path = tmp_path / name
        if name != missing:
            path.write_text("")
        environ[f"REGISTRY_HTTP_TLS_{name.upper()}"] = f"[{path}]" if name == "clientcas" else str(path)
    assert problem(**environ) == (
        f"http.tls.{missing}: cannot read {tmp_path / missing}: No such file or directory; check the path and who may "
        f"read it (REGISTRY_HTTP_TLS_{missing.upper()})"
    )

import json
from pathlib import Path

import pytest

from registry.config import ConfigError, load, secrets, show

HIDDEN = "hunter2"


def lines(**environ: str) -> list[str]:
    return show.lines(load(None, environ))


def test_each_setting_with_value_and_origin() -> None:
    found = lines(REGISTRY_HTTP_ADDR=":5001", REGISTRY_LOG_FIELDS="{service: a, shard: 2}", REGISTRY_AUTH="none")
    split = [line.split(maxsplit=2) for line in found]
    assert ["http.addr", ":5001", "REGISTRY_HTTP_ADDR"] in split
    assert ["log.fields.shard", "2", "REGISTRY_LOG_FIELDS"] in split
    assert ["storage.maintenance.uploadpurging.age", "168h", "default"] in split
    assert ["http.tls.clientcas", "[]", "default"] in split
    assert ["storage.filesystem.rootdirectory", "/var/lib/registry", "default"] in split
    assert ["auth", "none", "REGISTRY_AUTH"] in split


def test_columns_are_aligned_however_long_a_value_is() -> None:
    found = lines(REGISTRY_HTTP_PREFIX="/" + "a" * 100)
    starts = {line.index("default") for line in found if line.endswith("default")}
    assert len(starts) == 1
    assert max(len(line) for line in found if "http.prefix" not in line) < 130


def test_lists_of_maps_are_shown_item_by_item() -> None:
    found = lines(REGISTRY_VALIDATION_MANIFESTS_INDEXES="{platforms: list, platformlist: [{os: linux}]}")
    assert any(line.startswith("validation.manifests.indexes.platformlist.0.os ") and "linux" in line for line in found)


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_HTTP_SECRET": HIDDEN},
        {"REGISTRY_LOG_FIELDS": json.dumps({"apitoken": HIDDEN, "deep": {"x": [{"password": HIDDEN}]}})},
        {"REGISTRY_HTTP_HEADERS": json.dumps({"Authorization": [HIDDEN], "Set-Cookie": [HIDDEN]})},
        {"REGISTRY_LOG_FIELDS": json.dumps({"upstream": f"https://user:{HIDDEN}@example.com/"})},
    ],
)
def test_no_secret_is_shown(environ: dict[str, str]) -> None:
    text = "\n".join(lines(**environ))
    assert HIDDEN not in text
    assert secrets.MASK in text


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_HTTP_SECRET": f"[{HIDDEN}]"},
        {"REGISTRY_HTTP_SECRET": f'"{HIDDEN}\\n"'},
        {"REGISTRY_HTTP": f"{{secret: '{HIDDEN}', addr: [x]}}"},
        {"REGISTRY_HTTP": f"{{secret: *{HIDDEN}}}"},
        {"REGISTRY_HTTP": f"secret: {HIDDEN}: x"},
        {"REGISTRY_HTTP": f"{{secret: '{HIDDEN}"},
        {"REGISTRY_STORAGE": f"{{gcs: {{secretkey: {HIDDEN}}}}}"},
        {"REGISTRY_PROXY": f"{{remoteurl: 'ftp://a', password: {HIDDEN}}}"},
        {"REGISTRY_AUTH_TOKEN_SECRET": HIDDEN},
    ],
)
def test_no_secret_is_in_an_error(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert HIDDEN not in str(caught.value)


def test_no_secret_is_in_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(f"version: 0.1\nredis: {{password: {HIDDEN}}}\nhtp: {{secret: {HIDDEN}}}\n")
    warnings = load(path, {"REGISTRY_DUCKS_SECRET": HIDDEN}).warnings
    assert len(warnings) == 3
    assert not any(HIDDEN in each for each in warnings)


@pytest.mark.parametrize(
    "path", ["http.secret", "storage.s3.secretkey", "storage.s3.accesskey", "proxy.password", "storage.x.sessiontoken"]
)
def test_secrets_by_name(path: str) -> None:
    assert secrets.is_secret(path)
    assert secrets.show(path, HIDDEN) == secrets.MASK
    assert secrets.show(path, "") == '""'  # that none is set is no secret


@pytest.mark.parametrize(
    "path",
    [
        "http.tls.key",
        "auth.htpasswd.path",
        "auth.htpasswd.realm",
        "http.tls.certificate",
        "storage.filesystem.rootdirectory",
        "http.addr",
    ],
)
def test_paths_of_files_are_no_secrets(path: str) -> None:
    assert not secrets.is_secret(path)


def test_control_characters_are_escaped() -> None:
    assert secrets.show("a", "x\x1b[2J\u2028\n") == "x\\x1b[2J\\u2028\\n"

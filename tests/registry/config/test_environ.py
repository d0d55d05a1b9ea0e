"""The rules of distribution's parser.go, each as a test; the numbers are those of environ.py."""

from pathlib import Path

import pytest

from registry.config import Config, ConfigError, Loaded, load
from registry.config.environ import overlay
from registry.config.tree import Table, plain


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


def load_over(path: Path, text: str, environ: dict[str, str]) -> Loaded:
    path.write_text(f"version: 0.1\n{text}\n")
    return load(path, environ)


def problem(environ: dict[str, str]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    return str(caught.value)


def test_1_the_name_is_the_path_and_the_origin() -> None:
    loaded = load(None, {"REGISTRY_HTTP_TLS_CERTIFICATE": "/c.pem", "REGISTRY_HTTP_TLS_KEY": "/k.pem"})
    assert (loaded.config.http.tls.certificate, loaded.config.http.tls.key) == ("/c.pem", "/k.pem")
    assert loaded.origins["http.tls.key"] == "REGISTRY_HTTP_TLS_KEY"


def test_1_other_variables_are_nobodys_business() -> None:
    loaded = load(None, {"HOME": "/", "REGISTRYHTTP": "x", "registry_http_addr": ":1", "REGISTRY_VERSION": "0.1"})
    assert (loaded.config, loaded.warnings) == (Config(), ())


def test_2_the_shorter_name_applies_first_and_replaces_the_whole_map(path: Path) -> None:
    text = "storage: {filesystem: {rootdirectory: /a}, delete: {enabled: true}}"
    environ = {"REGISTRY_STORAGE_FILESYSTEM_ROOTDIRECTORY": "/b", "REGISTRY_STORAGE": "filesystem"}
    storage = load_over(path, text, environ).config.storage
    assert storage.parameters == {"rootdirectory": "/b"}
    assert not storage.delete.enabled
    assert load_over(path, text, {"REGISTRY_STORAGE": "inmemory"}).config.storage.driver == "inmemory"


def test_2_a_second_driver_beside_the_files_stops_the_start(path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_over(path, "storage: {filesystem: {rootdirectory: /a}}", {"REGISTRY_STORAGE_S3_BUCKET": "b"})
    assert str(caught.value).replace(str(path), "FILE") == (
        "storage: expected one driver, found 2: filesystem from FILE:2, s3 from REGISTRY_STORAGE_S3_BUCKET; "
        "keep one, or choose with REGISTRY_STORAGE=NAME, which replaces all that the file says of storage"
    )


@pytest.mark.parametrize(
    ("payload", "expected"), [("{enabled: true}", True), ('{"enabled": true}', True), ("{}", False), ("", False)]
)
def test_3_a_value_is_yaml_and_a_map_replaces_the_map(path: Path, payload: str, expected: bool) -> None:
    config = load_over(path, "storage: {delete: {enabled: false}}", {"REGISTRY_STORAGE_DELETE": payload}).config
    assert config.storage.delete.enabled is expected


def test_3_a_replaced_map_loses_what_the_file_had(path: Path) -> None:
    config = load_over(path, "log: {level: debug, formatter: json}", {"REGISTRY_LOG": "{level: error}"}).config
    assert (config.log.level, config.log.formatter) == ("error", "text")


@pytest.mark.parametrize(
    ("name", "payload", "secret"),
    [
        ("REGISTRY_HTTP_SECRET", "0123456", "0123456"),
        ("REGISTRY_HTTP_SECRET", "true", "true"),
        ("REGISTRY_HTTP_SECRET", "a # b", "a"),  # a comment, for distribution as well
        ("REGISTRY_HTTP_SECRET", "'a # b'", "a # b"),
        ("REGISTRY_HTTP_SECRET", "@home", "@home"),  # no YAML: distribution would not start
        ("REGISTRY_HTTP_SECRET", "*star", "*star"),
        ("REGISTRY_HTTP_SECRET", "{brace", "{brace"),
    ],
)
def test_3_plain_text_needs_no_quotes(name: str, payload: str, secret: str) -> None:
    assert load(None, {name: payload}).config.http.secret == secret


@pytest.mark.parametrize("addr", [":5001", "0.0.0.0:80", "localhost:5000", "[::1]:5000", "'[::1]:5000'"])
def test_3_addresses_need_no_quotes(addr: str) -> None:
    assert load(None, {"REGISTRY_HTTP_ADDR": addr}).config.http.addr == addr.strip("'")


def test_3_a_value_that_is_no_yaml_is_not_quoted() -> None:
    text = problem({"REGISTRY_LOG_FIELDS": "{token: *hidden}"})
    assert text == (
        "log.fields: is not valid YAML: a value that begins with * or & needs quotes; "
        'in a variable quotes are part of the value: "..." (REGISTRY_LOG_FIELDS)'
    )


def test_4_lists_by_index(path: Path) -> None:
    text = "http: {tls: {certificate: /c, key: /k, clientcas: [/1, /2]}}"
    environ = {"REGISTRY_HTTP_TLS_CLIENTCAS_1": "/two", "REGISTRY_HTTP_TLS_CLIENTCAS_2": "/three"}
    loaded = load_over(path, text, environ)
    assert loaded.config.http.tls.clientcas == ("/1", "/two", "/three")
    assert loaded.origins["http.tls.clientcas"] == (
        f"{path}:2, REGISTRY_HTTP_TLS_CLIENTCAS_1, REGISTRY_HTTP_TLS_CLIENTCAS_2"
    )


def test_4_lists_from_nothing_and_of_maps() -> None:
    environ = {
        "REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMS": "List",
        "REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST_0_OS": "linux",
        "REGISTRY_VALIDATION_MANIFESTS_INDEXES_PLATFORMLIST_0_ARCHITECTURE": "arm64",
        "REGISTRY_VALIDATION_MANIFESTS_URLS_ALLOW_0": "^https://a/",
        "REGISTRY_HTTP_HEADERS_X-A_0": "one",
    }
    config = load(None, environ).config
    indexes = config.validation.manifests.indexes
    assert indexes.platforms == "list"
    assert [(each.os, each.architecture) for each in indexes.platformlist] == [("linux", "arm64")]
    assert config.validation.manifests.urls.allow == ("^https://a/",)
    assert config.http.headers == {"x-a": ("one",)}


@pytest.mark.parametrize(("index", "said"), [("1", "'1'"), ("x", "'x'"), ("01000000", "'01000000'")])
def test_4_an_index_past_the_end_stops_the_start(index: str, said: str) -> None:
    name = f"REGISTRY_HTTP_TLS_CLIENTCAS_{index.upper()}"
    assert problem({name: "/ca"}) == (f"http.tls.clientcas: the next index of this list is 0, found {said} ({name})")


def test_5_map_keys_without_regard_to_case_and_made_lower(path: Path) -> None:
    text = "http: {headers: {X-One: [a], X-Two: [b]}}"
    config = load_over(path, text, {"REGISTRY_HTTP_HEADERS_X-ONE": "[c]", "REGISTRY_HTTP_HEADERS_X-NEW": "[d]"}).config
    assert config.http.headers == {"X-One": ("c",), "X-Two": ("b",), "x-new": ("d",)}
    assert load(None, {"REGISTRY_LOG_FIELDS_SERVICE": "registry"}).config.log.fields == {"service": "registry"}


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"},
        {"REGISTRY_STORAGE_MAINTENANCE_READONLY": '{"enabled":true}'},
        {"REGISTRY_STORAGE_MAINTENANCE": "{readonly: {enabled: true}}"},
        {
            "REGISTRY_STORAGE_MAINTENANCE_READONLY": "{enabled: no}",
            "REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "y",
        },
    ],
)
@pytest.mark.parametrize("text", ["", "storage: inmemory", "storage: {maintenance: {readonly: {enabled: false}}}"])
def test_6_read_only_in_either_spelling(path: Path, text: str, environ: dict[str, str]) -> None:
    assert load_over(path, text, environ).config.storage.maintenance.readonly.enabled
    assert load(None, environ).config.storage.maintenance.readonly.enabled


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING_ENABLED": "false"},
        {"REGISTRY_STORAGE_MAINTENANCE_UPLOADPURGING": "{enabled: false}"},
    ],
)
def test_6_upload_purging_in_either_spelling(environ: dict[str, str]) -> None:
    purging = load(None, environ).config.storage.maintenance.uploadpurging
    assert (purging.enabled, purging.age) == (False, 168 * 3600)


def test_6_a_map_is_needed_where_a_map_belongs() -> None:
    assert problem({"REGISTRY_STORAGE_MAINTENANCE_READONLY": "true"}) == (
        "storage.maintenance.readonly: expected a map such as {enabled: ...}, found 'true'; "
        "write REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED=true (REGISTRY_STORAGE_MAINTENANCE_READONLY)"
    )
    both = {"REGISTRY_HTTP_TLS": "yes", "REGISTRY_HTTP_TLS_KEY": "/k"}
    assert problem(both) == (
        "http.tls: holds a single value (REGISTRY_HTTP_TLS), so nothing can be set below it (REGISTRY_HTTP_TLS_KEY)"
    )


def test_6_the_short_forms_of_storage_and_auth(path: Path) -> None:
    environ = {"REGISTRY_STORAGE_DELETE_ENABLED": "true", "REGISTRY_AUTH_HTPASSWD_PATH": "/x"}
    config = load_over(path, "storage: inmemory\nauth: htpasswd", environ).config
    assert (config.storage.driver, config.storage.delete.enabled) == ("inmemory", True)
    assert config.auth.htpasswd is not None
    environ = {"REGISTRY_AUTH": "htpasswd", "REGISTRY_AUTH_HTPASSWD_REALM": "r", "REGISTRY_AUTH_HTPASSWD_PATH": "/x"}
    htpasswd = load(None, environ).config.auth.htpasswd
    assert htpasswd is not None
    assert (htpasswd.realm, htpasswd.path) == ("r", "/x")


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("REGISTRY_DUCKS", "ducks is not a setting, and has no effect (REGISTRY_DUCKS)"),
        ("REGISTRY_HTTP_ADR", "http.adr is not a setting, and has no effect; did you mean REGISTRY_HTTP_ADDR?"),
        ("REGISTRY_HTTP_ADDR_PORT", "http.addr.port is not a setting, and has no effect"),
        ("REGISTRY__HTTP", "_http is not a setting, and has no effect"),
        ("REGISTRY_", " is not a setting, and has no effect"),
        ("REGISTRY_LOG_LEVL_X", "log.levl is not a setting, and has no effect; did you mean REGISTRY_LOG_LEVEL?"),
    ],
)
def test_7_what_leads_nowhere_is_a_warning(name: str, warning: str) -> None:
    loaded = load(None, {name: "{not: [yaml"})
    assert loaded.config == Config()
    assert len(loaded.warnings) == 1
    assert loaded.warnings[0].startswith(warning)
    assert loaded.warnings[0].endswith(f"({name})")


def test_7_what_may_protect_is_not() -> None:
    assert problem({"REGISTRY_HTTP_TLS_CLIENTCA": "[/ca]"}) == (
        "http.tls.clientca: is not a setting, and may be meant to protect; did you mean REGISTRY_HTTP_TLS_CLIENTCAS? "
        "(REGISTRY_HTTP_TLS_CLIENTCA)"
    )


def test_7_podmans_password_file_is_no_setting() -> None:
    loaded = load(None, {"REGISTRY_AUTH_FILE": "/run/user/0/containers/auth.json"})
    assert loaded.config == Config()
    assert not loaded.warnings


def test_7_kubernetes_announces_services_called_registry() -> None:
    environ = {
        "REGISTRY_SERVICE_HOST": "10.0.0.1",
        "REGISTRY_SERVICE_PORT": "5000",
        "REGISTRY_SERVICE_PORT_HTTP": "5000",
        "REGISTRY_PORT": "tcp://10.0.0.1:5000",
        "REGISTRY_PORT_5000_TCP": "tcp://10.0.0.1:5000",
        "REGISTRY_PORT_5000_TCP_PROTO": "tcp",
        "REGISTRY_PORT_5000_TCP_ADDR": "10.0.0.1",
        "REGISTRY_AUTH_SERVICE_HOST": "10.0.0.2",
        "REGISTRY_AUTH_PORT": "tcp://10.0.0.2:80",
        "REGISTRY_REDIS_PORT_6379_TCP_PORT": "6379",
    }
    loaded = load(None, environ)
    assert (loaded.config, loaded.warnings) == (Config(), ())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "REGISTRY_NOTIFICATIONS_EVENTCONFIG_INCLUDEREFERENCES",
            {"notifications": {"events": {"includereferences": 1}}},
        ),
        ("REGISTRY_NOTIFICATIONS_EVENTS_INCLUDEREFERENCES", {"notifications": {"events": {"includereferences": 1}}}),
        ("REGISTRY_HEALTH_FILECHECKERS_0_FILE", {"health": {"file": [{"file": 1}]}}),
        ("REGISTRY_HEALTH_HTTPCHECKERS", {"health": {"http": 1}}),
        ("REGISTRY_HEALTH_TCPCHECKERS", {"health": {"tcp": 1}}),
        ("REGISTRY_REDIS_OPTIONS_PASSWORD", {"redis": {"password": 1}}),
        ("REGISTRY_REDIS_PASSWORD", {"redis": {"password": 1}}),
        ("REGISTRY_COMPATIBILITY_SCHEMA1_TRUSTKEY", {"compatibility": {"schema1": {"signingkeyfile": 1}}}),
        ("REGISTRY_LOG_HOOKS_0_MAILOPTIONS_FROM", {"log": {"hooks": {"0": {"options": {"from": 1}}}}}),
    ],
)
def test_names_from_gos_fields_mean_the_same_as_the_files(name: str, expected: object) -> None:
    root = Table()
    overlay(root, {name: "1"}, lambda path, origin: pytest.fail(f"{path} {origin}"))
    assert plain(root) == expected


def test_below_a_key_without_effect_anything_goes(path: Path) -> None:
    environ = {
        "REGISTRY_REDIS": "redis:6379",
        "REGISTRY_REDIS_ADDRS": "[a]",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS_7_URL": "u",
        "REGISTRY_NOTIFICATIONS_ENDPOINTS_0_URL": "u",
    }
    loaded = load_over(path, "notifications: {endpoints: [{url: a}]}", environ)
    assert loaded.config == Config()
    assert len(loaded.warnings) == 2


@pytest.mark.parametrize("name", ["REGISTRY_STORAGE", "REGISTRY_AUTH", "REGISTRY_LOG_LEVEL", "REGISTRY_HTTP"])
def test_an_empty_variable_leaves_the_default(name: str) -> None:
    assert load(None, {name: ""}).config == Config()

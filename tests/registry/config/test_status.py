"""What becomes of distribution's keys that have no field. EVERY_KEY is the whole of them, 2.8 and 3.1."""

from pathlib import Path

import pytest
import yaml

from registry.config import Config, ConfigError, load, schema, status

# One block per row of status.py, each with values as distribution's own documentation has them.
STOPS = {
    "storage.gcs": "storage: {gcs: {bucket: b, keyfile: /k, credentials: {type: service_account}}}",
    "storage.azure": "storage: {azure: {accountname: a, accountkey: k, container: c, max_retries: 10}}",
    "storage.oss": "storage: oss",
    "storage.swift": "storage: {swift: {container: c}}",
    "storage.filesystem.encrypt": "storage: {filesystem: {encrypt: true}}",
    "storage.filesystem.keyid": "storage: {filesystem: {keyid: k}}",
    "storage.inmemory.encrypt": "storage: {inmemory: {encrypt: true}}",
    "storage.inmemory.keyid": "storage: {inmemory: {keyid: k}}",
    "auth.token": "auth: {token: {realm: r, service: s, issuer: i, rootcertbundle: /c, jwks: /j, autoredirect: true}}",
    "auth.silly": "auth: silly",
    "middleware": "middleware: {storage: [{name: cloudfront, options: {baseurl: b}}]}",
    "http.tls.letsencrypt": "http: {tls: {letsencrypt: {cachefile: /c, email: e, hosts: [h], directoryurl: d}}}",
    "policy": "policy: {repository: {classes: [image]}}",
}
IGNORED = {
    "log.hooks": "log: {hooks: [{type: mail, levels: [panic], options: {smtp: {addr: a, password: p}, to: [t]}}]}",
    "log.reportcaller": "log: {reportcaller: true}",
    "storage.filesystem.maxthreads": "storage: {filesystem: {maxthreads: 100}}",
    "storage.cache": "storage: {cache: {blobdescriptor: redis, blobdescriptorsize: 10000, layerinfo: inmemory}}",
    "storage.tag": "storage: {tag: {concurrencylimit: 8}}",
    "http.http2": "http: {http2: {disabled: false}}",
    "http.h2c": "http: {h2c: {enabled: true}}",
    "notifications": "notifications: {events: {includereferences: true}, endpoints: [{name: a, url: u, timeout: 1s}]}",
    "redis": "redis: {tls: {certificate: /c, rootcas: [/r]}, addrs: ['a:6379'], password: p, pool: {maxidle: 16}}",
    "compatibility": "compatibility: {schema1: {signingkeyfile: /k, enabled: true}}",
    "reporting": "reporting: {bugsnag: {apikey: k}, newrelic: {licensekey: k, name: n, verbose: true}}",
}
RENAMED = {"loglevel": "loglevel: info", "validation.enabled": "validation: {enabled: true}"}
WORKS = """
version: 0.1
log: {accesslog: {disabled: true}, level: debug, formatter: logstash, fields: {service: registry}}
storage:
  filesystem: {rootdirectory: /var/lib/registry}
  delete: {enabled: false}
  redirect: {disable: true}
  maintenance:
    uploadpurging: {enabled: true, age: 168h, interval: 24h, dryrun: false}
    readonly: {enabled: false}
auth: {htpasswd: {realm: basic-realm, path: /path/to/htpasswd}}
catalog: {maxentries: 1000}
tags: {maxtags: 1000}
http:
  addr: localhost:5000
  net: tcp
  prefix: /my/nested/registry/
  host: https://myregistryaddress.org:5000
  secret: asecretforlocaldevelopment
  relativeurls: false
  draintimeout: 60s
  tls:
    certificate: /path/to/x509/public
    key: /path/to/x509/private
    clientcas: [/path/to/ca.pem, /path/to/another/ca.pem]
    clientauth: require-and-verify-client-cert
    minimumtls: tls1.2
    ciphersuites: [TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384]
  headers: {X-Content-Type-Options: [nosniff]}
  debug: {addr: 'localhost:5001', prometheus: {enabled: true, path: /metrics}}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
  file: [{file: /path/to/checked/file, interval: 10s}]
  http:
    - uri: http://server.to.check/must/return/200
      headers: {Authorization: [Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==]}
      statuscode: 200
      timeout: 3s
      interval: 10s
      threshold: 3
  tcp: [{addr: 'redis-server.domain.com:6379', timeout: 3s, interval: 10s, threshold: 3}]
validation:
  disabled: false
  manifests:
    urls: {allow: ['^https?://example\\.com/'], deny: ['^https?://www\\.example\\.com/']}
    indexes: {platforms: List, platformlist: [{architecture: amd64, os: linux}]}
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "config.yml"
    path.write_text(f"version: 0.1\n{text}\n")
    return path


def test_each_row_of_the_table_is_tested_here() -> None:
    expected = {status.Status.STOPS: STOPS, status.Status.IGNORED: IGNORED, status.Status.RENAMED: RENAMED}
    assert {row.key: row.status for row in status.ROWS} == {
        key: state for state, blocks in expected.items() for key in blocks
    }


def test_no_row_is_for_a_key_that_works() -> None:
    assert not {row.key for row in status.ROWS} & set(schema.known_paths())


@pytest.mark.parametrize("key", STOPS)
def test_what_protects_or_picks_stops_the_start_and_is_named(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, STOPS[key])
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    row = status.find_row(key)
    assert row is not None
    assert str(caught.value) == f"{caught.value.path}: {row.why} ({path}:2)"
    assert f"{caught.value.path}.".startswith(f"{key}.")


@pytest.mark.parametrize("key", IGNORED)
def test_what_only_tunes_is_one_warning(tmp_path: Path, key: str) -> None:
    path = write(tmp_path, IGNORED[key])
    loaded = load(path, {})
    row = status.find_row(key)
    assert row is not None
    assert loaded.warnings == (f"{key} has no effect: {row.why} ({path}:2)",)
    assert loaded.config == Config()


def test_all_that_only_tunes_at_once_is_one_warning_each(tmp_path: Path) -> None:
    """Also across the levels that they share."""
    root: dict[str, object] = {}
    for block in IGNORED.values():
        _merge(root, yaml.safe_load(block))
    loaded = load(write(tmp_path, yaml.safe_dump(root)), {})
    assert sorted(each.partition(" ")[0] for each in loaded.warnings) == sorted(IGNORED)
    assert loaded.config == Config()


def _merge(into: dict[str, object], more: dict[str, object]) -> None:
    for key, value in more.items():
        found = into.setdefault(key, value)
        if isinstance(found, dict) and isinstance(value, dict) and found is not value:
            _merge(found, value)


def test_what_works_gives_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(WORKS)
    assert load(path, {}).warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "middleware: {storage: [{name: cloudfront, disabled: true, options: {baseurl: b}}], registry: []}",
        "proxy: {remoteurl: '', username: '', password: ''}",
        "proxy:",
        "policy: {repository: {classes: []}}",
        "http: {tls: {letsencrypt: {cachefile: '', email: '', hosts: []}}, http2: {disabled: true}}",
        "notifications: {endpoints: [{name: a, disabled: true, url: u}]}",
        "storage: {filesystem: {encrypt: , keyid: ''}}",
        "log: {hooks: [{type: mail, disabled: true}]}",
    ],
)
def test_a_key_that_says_nothing_neither_stops_nor_warns(tmp_path: Path, text: str) -> None:
    loaded = load(write(tmp_path, text), {})
    assert (loaded.config, loaded.warnings) == (Config(), ())


@pytest.mark.parametrize(
    "environ",
    [
        {"REGISTRY_STORAGE": "gcs"},
        {"REGISTRY_STORAGE": "gcs", "REGISTRY_STORAGE_GCS_BUCKET": "b"},
        {"REGISTRY_STORAGE_GCS_BUCKET": "b"},
        {"REGISTRY_AUTH": "token"},
        {"REGISTRY_AUTH_TOKEN_REALM": "r"},
        {"REGISTRY_MIDDLEWARE_STORAGE_0_NAME": "cloudfront"},
        {"REGISTRY_POLICY_REPOSITORY_CLASSES_0": "image"},
        {"REGISTRY_HTTP_TLS_LETSENCRYPT_HOSTS_0": "h"},
        {"REGISTRY_STORAGE_FILESYSTEM_ENCRYPT": "true"},
    ],
)
def test_a_variable_stops_the_start_just_as_well(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigError) as caught:
        load(None, environ)
    assert set(caught.value.origin.split(", ")) <= set(environ)
    assert caught.value.origin


@pytest.mark.parametrize("text", ["auth: none", "auth: {none: }", "auth: {NONE: {}}", "auth: {}", "auth:"])
def test_no_authentication_on_purpose(tmp_path: Path, text: str) -> None:
    loaded = load(write(tmp_path, text), {})
    assert (loaded.config, loaded.warnings) == (Config(), ())


def test_two_methods_of_authentication_stop_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="auth: expected one method, found 2: htpasswd, none"):
        load(write(tmp_path, "auth: {htpasswd: {path: /x}, none: {}}"), {})


def test_a_method_of_authentication_that_nobody_knows_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auth\.ldap: is not a setting, and may be meant to protect"):
        load(write(tmp_path, "auth: ldap"), {})

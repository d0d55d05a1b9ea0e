"""A config.yml as people have it for registry:2 and registry:3: each key of it works, or a warning names it."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from registry.config import load

TEXT = """
version: 0.1
log:
  accesslog: {disabled: true}
  level: info
  formatter: text
  fields: {service: registry, environment: production}
  hooks: [{type: mail, levels: [panic], options: {from: a@b, to: [c@d]}}]
storage:
  filesystem: {rootdirectory: /srv/registry, maxthreads: 100}
  cache: {blobdescriptor: redis, blobdescriptorsize: 10000}
  tag: {concurrencylimit: 8}
  delete: {enabled: true}
  redirect: {disable: true}
  maintenance:
    uploadpurging: {enabled: true, age: 168h, interval: 24h, dryrun: false}
    readonly: {enabled: false}
auth:
  htpasswd: {realm: basic-realm, path: /auth/htpasswd}
http:
  addr: :5000
  net: tcp
  prefix: /images/
  host: https://registry.example.com
  secret: asecretforlocaldevelopment
  relativeurls: false
  draintimeout: 60s
  tls: {certificate: /tls.crt, key: /tls.key, minimumtls: tls1.2, clientcas: [/ca.pem], letsencrypt: {email: ""}}
  debug: {addr: ":5001", prometheus: {enabled: true, path: /metrics}}
  headers: {X-Content-Type-Options: [nosniff], Access-Control-Allow-Origin: ["*"]}
  http2: {disabled: false}
  h2c: {enabled: true}
notifications:
  events: {includereferences: true}
  endpoints: [{name: alistener, url: "https://me.example/event", headers: {Authorization: [Bearer x]}, timeout: 1s}]
redis:
  addr: localhost:6379
  pool: {maxidle: 16, maxactive: 64, idletimeout: 300s}
health:
  storagedriver: {enabled: true, interval: 10s, threshold: 3}
  file: [{file: /down, interval: 10s}]
  http: [{uri: "http://server.to.check/must/return/200", headers: {Authorization: [Basic x]}, statuscode: 200}]
  tcp: [{addr: "redis-server.domain.com:6379", timeout: 3s, interval: 10s, threshold: 10}]
proxy: {remoteurl: "", username: "", password: "", ttl: 168h}
validation:
  manifests:
    urls: {allow: ["^https?://"]}
    indexes: {platforms: List, platformlist: [{os: linux, architecture: arm64}]}
catalog: {maxentries: 1000}
"""


def leaves(node: object, path: str = "") -> Iterator[str]:
    """The paths of all that says something."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and node and isinstance(node[0], dict):
        for number, value in enumerate(node):
            yield from leaves(value, f"{path}.{number}")
    elif node not in ("", None):
        yield path


def test_no_key_is_passed_over_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(TEXT)
    loaded = load(path, {})
    warned = {warning.partition(" ")[0] for warning in loaded.warnings}
    assert warned == {
        "log.hooks",
        "storage.filesystem.maxthreads",
        "storage.cache",
        "storage.tag",
        "http.http2",
        "http.h2c",
        "notifications",
        "redis",
    }
    silent = [
        leaf
        for leaf in leaves(yaml.safe_load(TEXT))
        if not loaded.origins.get(leaf, "").startswith(str(path))
        and not any(f"{leaf}.".startswith(f"{key}.") for key in warned)
    ]
    assert silent == ["version"]

import os
from pathlib import Path

import pytest

from registry.config import Config, ConfigError, Loaded, load


@pytest.fixture
def write(tmp_path: Path) -> Path:
    return tmp_path / "config.yml"


def load_text(path: Path, text: str, **environ: str) -> Loaded:
    path.write_text(text)
    return load(path, environ)


def problem(path: Path, text: str, **environ: str) -> str:
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return str(caught.value).replace(str(path), "FILE")


def test_without_file_and_variables_the_defaults_hold() -> None:
    loaded = load(None, {})
    assert loaded.config == Config()
    assert loaded.warnings == ()
    assert loaded.source == "built-in defaults"
    assert set(loaded.origins.values()) == {"default"}
    assert loaded.config.storage.driver == "filesystem"
    assert loaded.config.storage.parameters == {"rootdirectory": "/var/lib/registry"}
    assert loaded.config.http.addr == ":5000"
    assert loaded.config.auth.htpasswd is None


def test_settings_are_frozen_throughout() -> None:
    config = load(None, {"REGISTRY_HTTP_HEADERS": "{X-Foo: [a]}"}).config
    with pytest.raises(AttributeError):
        config.http.addr = ":1"  # type: ignore[misc]
    with pytest.raises(TypeError):
        config.http.headers["X-Bar"] = ("b",)  # type: ignore[index]
    with pytest.raises(TypeError):
        config.storage.parameters["rootdirectory"] = "/"  # type: ignore[index]


def test_a_file_is_read_and_each_setting_knows_its_line(write: Path) -> None:
    loaded = load_text(
        write,
        "version: 0.1\n"
        "log:\n"
        "  level: WARN\n"
        "  fields: {service: registry, shard: 3}\n"
        "storage:\n"
        "  filesystem:\n"
        "    rootdirectory: ./data\n"
        "  delete: {enabled: true}\n"
        "  maintenance: {uploadpurging: {enabled: true, age: 1h30m, interval: 24h, dryrun: false}}\n"
        "http:\n"
        "  addr: 127.0.0.1:5001\n"
        "  headers:\n"
        "    X-Content-Type-Options: [nosniff]\n"
        "auth: {htpasswd: {realm: basic-realm, path: /etc/htpasswd}}\n",
    )
    config, origins = loaded.config, loaded.origins
    assert loaded.warnings == ()
    assert (config.log.level, config.log.fields) == ("warn", {"service": "registry", "shard": 3})
    assert config.storage.parameters == {"rootdirectory": "./data"}
    assert config.storage.delete.enabled
    assert config.storage.maintenance.uploadpurging.age == 5400.0
    assert config.http.headers == {"X-Content-Type-Options": ("nosniff",)}
    assert config.auth.htpasswd is not None
    assert (config.auth.htpasswd.realm, config.auth.htpasswd.path) == ("basic-realm", "/etc/htpasswd")
    assert origins["log.level"] == f"{write}:3"
    assert origins["storage.filesystem.rootdirectory"] == f"{write}:7"
    assert origins["http.addr"] == f"{write}:11"
    assert origins["http.headers.X-Content-Type-Options"] == f"{write}:13"
    assert origins["tags.maxtags"] == "default"


def test_the_path_may_come_from_a_variable_and_an_argument_beats_it(tmp_path: Path) -> None:
    for name, tags in (("one.yml", 1), ("two.yml", 2)):
        (tmp_path / name).write_text(f"version: 0.1\ntags: {{maxtags: {tags}}}\n")
    environ = {"REGISTRY_CONFIGURATION_PATH": str(tmp_path / "one.yml")}
    assert load(None, environ).config.tags.maxtags == 1
    assert load(tmp_path / "two.yml", environ).config.tags.maxtags == 2
    assert load(None, environ).warnings == ()
    assert load(None, {"REGISTRY_CONFIGURATION_PATH": ""}).config == Config()


def test_variables_count_with_and_without_a_file(write: Path) -> None:
    assert load(None, {"REGISTRY_TAGS_MAXTAGS": "7"}).config.tags.maxtags == 7
    assert load_text(write, "version: 0.1\ntags: {maxtags: 2}\n", REGISTRY_TAGS_MAXTAGS="7").config.tags.maxtags == 7


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log: {level: info}\n", "version: expected `version: 0.1` at the top of the file, found nothing (FILE)"),
        ("version: 0.2\n", "version: expected `version: 0.1` at the top of the file, found '0.2' (FILE:1)"),
        ("version: 0.1\nlog: &log {a: *log}\n", "the configuration is nested too deeply, or too large (FILE:2)"),
        (
            "version: 0.1\na: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
            "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
            "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n",
            "the configuration is nested too deeply, or too large (FILE:2)",
        ),
        ("version: 0.1\nhttp: yes\n", "http: expected a map such as {addr: ...}, found 'yes' (FILE:2)"),
        ("version: 0.1\nhttp: {addr: [a]}\n", "http.addr: expected text, found a list (FILE:2)"),
        (
            "version: 0.1\nlog:\n  level: loud\n",
            "log.level: expected one of error, warn, info, debug, found 'loud' (FILE:3)",
        ),
        (
            "version: 0.1\nhttp: {tls: {clientcas: /ca.pem}}\n",
            "http.tls.clientcas: expected a list such as [a, b], found '/ca.pem' (FILE:2)",
        ),
        (
            "version: 0.1\nlog: {fields: [a]}\n",
            "log.fields: expected a map such as {key: value}, found a list (FILE:2)",
        ),
        (
            "version: 0.1\nvalidation: {manifests: {indexes: {platformlist: linux}}}\n",
            "validation.manifests.indexes.platformlist: expected a list of maps, found 'linux' (FILE:2)",
        ),
        (
            "version: 0.1\nvalidation: {manifests: {indexes: {platformlist: [linux]}}}\n",
            "validation.manifests.indexes.platformlist.0: expected a map such as {architecture: ...}, "
            "found 'linux' (FILE:2)",
        ),
        (
            "version: 0.1\nlog: {level: {a: b}}\n",
            "log.level: expected one of error, warn, info, debug, found a map (FILE:2)",
        ),
        (
            "version: 0.1\nstorage: {filesystem: {rootdirectory: '  '}}\n",
            "storage.filesystem.rootdirectory: expected text, found '  ' (FILE:2)",
        ),
        ("version: 0.1\nhttp: {secret: [a]}\n", "http.secret: expected text, found a list (FILE:2)"),
        (
            'version: 0.1\nhttp: {secret: "s3cret\\n"}\n',
            "http.secret: expected text without line breaks and control characters, found ****** (FILE:2)",
        ),
    ],
)
def test_a_wrong_file_stops_the_start(write: Path, text: str, expected: str) -> None:
    assert problem(write, text) == expected


def test_a_file_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no such configuration: check the path, .*none\.yml"):
        load(tmp_path / "none.yml", {})
    with pytest.raises(ConfigError, match="the configuration is a folder: name the file in it; docker makes"):
        load(tmp_path, {})
    with pytest.raises(ConfigError, match="cannot read the configuration: File name too long"):
        load(tmp_path / ("x" * 300), {})
    (tmp_path / "latin.yml").write_bytes(b"version: 0.1\nlog: {fields: {a: \xe9}}\n")
    with pytest.raises(ConfigError, match="is not a text file in UTF-8: save it as one"):
        load(tmp_path / "latin.yml", {})


def test_a_file_that_this_user_may_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read all, so a file that nobody may open stands for it."""

    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigError, match=rf"^user {os.geteuid()} may not read the configuration: let that user"):
        load(tmp_path / "config.yml", {})


def test_strings_take_the_text_as_it_is_written(write: Path) -> None:
    """As Go's YAML does: replicas of both servers must end with the same secret."""
    loaded = load_text(
        write,
        "version: 0.1\nhttp: {secret: 0123, prefix: no}\n"
        "storage: {filesystem: {rootdirectory: 2026-11-22}}\nauth: {htpasswd: {realm: 1e3, path: 0x10}}\n",
    )
    assert loaded.config.http.secret == "0123"
    assert loaded.config.http.prefix == "/no/"
    assert loaded.config.storage.parameters == {"rootdirectory": "2026-11-22"}
    assert loaded.config.auth.htpasswd is not None
    assert (loaded.config.auth.htpasswd.realm, loaded.config.auth.htpasswd.path) == ("1e3", "0x10")


def test_an_empty_value_is_the_default(write: Path) -> None:
    text = (
        'version: 0.1\nlog:\nhttp: {addr: , tls: {key: ""}, headers: ~}\ntags: {maxtags: ""}\nstorage: {filesystem: }\n'
    )
    assert load_text(write, text).config == Config()


def test_merge_keys_and_aliases(write: Path) -> None:
    text = "version: 0.1\nhttp: &h {addr: ':1', prefix: /a/}\nlog: {fields: {<<: *h, addr: x}}\n"
    loaded = load_text(write, text)
    assert loaded.config.log.fields == {"addr": "x", "prefix": "/a/"}
    assert loaded.warnings == ()


def test_of_a_key_given_twice_the_last_counts(write: Path) -> None:
    loaded = load_text(write, "version: 0.1\ntags: {maxtags: 1, maxtags: 2}\n")
    assert loaded.config.tags.maxtags == 2
    assert loaded.warnings == (f"maxtags: given more than once in one map; the last one counts ({write}:2)",)


def test_tabs_between_tokens_are_blanks(write: Path) -> None:
    """As for Go's parser: an editor leaves them at the end of a line, and before a comment."""
    write.write_text("version:\t0.1\nhttp:\t# here\n  addr: :5001\t# there\nlog: {level:\tdebug,\tformatter: json}\t\n")
    loaded = load(write, {})
    assert (loaded.config.http.addr, loaded.config.log.level, loaded.config.log.formatter) == (":5001", "debug", "json")


def test_a_second_document_stops_the_start(write: Path) -> None:
    """Distribution passes over it; but it may hold what protects."""
    assert problem(write, "version: 0.1\n---\nauth: {htpasswd: {path: /users}}\n") == (
        "the configuration has a second document here, which nothing would read: remove the --- before it (FILE:3)"
    )
    for harmless in ("---\nversion: 0.1\n", "version: 0.1\n---\n", "version: 0.1\n...\n---\n# the end\n"):
        assert load_text(write, harmless).config == Config()


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bom.yml").write_bytes(b"\xef\xbb\xbfversion: 0.1\ntags: {maxtags: 9}\n")
    assert load(tmp_path / "bom.yml", {}).config.tags.maxtags == 9


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("http: {adr: ':1'}", "http.adr is not a setting, and has no effect; did you mean http.addr? (FILE:2)"),
        ("htp: {addr: ':1'}", "htp is not a setting, and has no effect; did you mean http? (FILE:2)"),
        ("zzz: 1", "zzz is not a setting, and has no effect (FILE:2)"),
        (
            "log: {region: x}",
            "log.region is not a setting, and has no effect; did you mean storage.s3.region? (FILE:2)",
        ),
        ("x-auth: {a: b}", "x-auth is not a setting, and has no effect; did you mean auth? (FILE:2)"),
        ("log: {hook: [a]}", "log.hook is not a setting, and has no effect; did you mean log.hooks? (FILE:2)"),
    ],
)
def test_an_unknown_key_is_a_warning_with_the_nearest_known(write: Path, text: str, warning: str) -> None:
    loaded = load_text(write, f"version: 0.1\n{text}\n")
    assert tuple(each.replace(str(write), "FILE") for each in loaded.warnings) == (warning,)
    assert loaded.config == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "http: {tls: {clientca: [/ca.pem]}}",
            "http.tls.clientca: is not a setting, and may be meant to protect; "
            "did you mean http.tls.clientcas? (FILE:2)",
        ),
        (
            "auth: {htpaswd: {path: /x}}",
            "auth.htpaswd: is not a setting, and may be meant to protect; did you mean auth.htpasswd? (FILE:2)",
        ),
        (
            "auth: {htpasswd: {users: [a]}}",
            "auth.htpasswd.users: is not a setting, and may be meant to protect; "
            "there are: auth.htpasswd.path, auth.htpasswd.realm (FILE:2)",
        ),
        (
            "validation: {manifest: {}}",
            "validation.manifest: is not a setting, and may be meant to protect; "
            "did you mean validation.manifests? (FILE:2)",
        ),
        *(
            (text, f"{key}: is not a setting, and may be meant to choose what is served; did you mean {near}? (FILE:2)")
            for text, key, near in (
                ("auht: {htpasswd: {path: /x}}", "auht", "auth"),
                ("htpasswd: {path: /x}", "htpasswd", "auth.htpasswd"),
                ("storge: {filesystem: {}}", "storge", "storage"),
                ("filesystem: {rootdirectory: /x}", "filesystem", "storage.filesystem"),
                ("readonly: {enabled: true}", "readonly", "storage.maintenance.readonly"),
                (
                    "storage: {filesystem: {rootdir: /x}}",
                    "storage.filesystem.rootdir",
                    "storage.filesystem.rootdirectory",
                ),
                ("proxi: {remoteurl: https://a}", "proxi", "proxy"),
                ("http: {letsencrypt: {email: a@b}}", "http.letsencrypt", "http.tls.letsencrypt"),
            )
        ),
    ],
)
def test_an_unknown_key_that_may_protect_stops_the_start(write: Path, text: str, expected: str) -> None:
    assert problem(write, f"version: 0.1\n{text}\n") == expected


def test_a_bare_duration_is_nanoseconds_and_warns(write: Path) -> None:
    loaded = load_text(write, "version: 0.1\nhttp: {draintimeout: 60}\nlimits: {keepalive: 0}\n")
    assert loaded.config.http.draintimeout == pytest.approx(60e-9)
    assert loaded.config.limits.keepalive == 0.0
    assert loaded.warnings == (f"http.draintimeout: 60 means nanoseconds; for seconds write 60s ({write}:2)",)


def test_old_names(write: Path) -> None:
    loaded = load_text(write, "version: 0.1\nloglevel: debug\nvalidation: {enabled: true, disabled: true}\n")
    assert loaded.config.log.level == "debug"
    assert not loaded.config.validation.disabled
    assert [each.partition(" (")[0] for each in loaded.warnings] == [
        "loglevel is deprecated: use log.level",
        "validation.enabled is deprecated: validation is on unless validation.disabled is true",
    ]
    loaded = load_text(write, "version: 0.1\nloglevel: debug\nlog: {level: error}\nvalidation: {enabled: false}\n")
    assert loaded.config.log.level == "error"
    assert not loaded.config.validation.disabled
    assert loaded.warnings[0].startswith("loglevel has no effect beside log.level")
    assert load_text(write, "version: 0.1\nlog:\n", REGISTRY_LOGLEVEL="error").config.log.level == "error"
    assert "log.level: expected one of" in problem(write, "version: 0.1\nloglevel: derp\n")


def test_free_values_that_yaml_cannot_make_something_of_stay_text(write: Path) -> None:
    loaded = load_text(write, "version: 0.1\nlog: {fields: {a: !vault x, b: 2026-02-31}}\n")
    assert loaded.config.log.fields == {"a": "x", "b": "2026-02-31"}


def test_the_origin_of_a_setting_and_of_a_level(write: Path) -> None:
    loaded = load_text(write, "version: 0.1\nhttp: {tls: {certificate: /c, key: /k}}\n", REGISTRY_HTTP_TLS_KEY="/x")
    assert loaded.origin("http.tls.key") == "REGISTRY_HTTP_TLS_KEY"
    assert loaded.origin("http.tls") == f"{write}:2"
    assert loaded.origin("http.addr") == ""
    assert loaded.origin("nothing") == ""

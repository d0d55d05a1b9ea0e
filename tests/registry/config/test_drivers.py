"""The driver's name is a key beside the settings of `storage`; third parties bring more by an entry point."""

from pathlib import Path

import pytest

from registry.config import ConfigError, Loaded, load


@pytest.fixture(autouse=True)
def installed_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that offers the driver "pigeon", as pip would leave it behind."""
    info = tmp_path / "site" / "pigeons-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[moorage.drivers]\npigeon = pigeons:PigeonDriver\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))


def load_text(tmp_path: Path, text: str, **environ: str) -> Loaded:
    (tmp_path / "config.yml").write_text(f"version: 0.1\n{text}\n")
    return load(tmp_path / "config.yml", environ)


def problem(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_text(tmp_path, text)
    return str(caught.value).replace(f"{tmp_path}/config.yml", "FILE")


def test_parameters_of_a_third_party_pass_as_yaml_gave_them(tmp_path: Path) -> None:
    text = "storage: {pigeon: {loft: /roof, birds: 3, speed: 1.5, night: no, ring: '7', keyid: k, names: [a, {b: c}]}}"
    loaded = load_text(tmp_path, text)
    assert loaded.config.storage.driver == "pigeon"
    assert loaded.config.storage.parameters == {
        "loft": "/roof",
        "birds": 3,
        "speed": 1.5,
        "night": False,
        "ring": "7",
        "keyid": "k",
        "names": ["a", {"b": "c"}],
    }
    assert loaded.warnings == ()
    assert loaded.origins["storage.pigeon.birds"] == f"{tmp_path}/config.yml:2"


def test_variables_reach_a_third_partys_parameters(tmp_path: Path) -> None:
    environ = {"REGISTRY_STORAGE": "pigeon", "REGISTRY_STORAGE_PIGEON_BIRDS": "4"}
    storage = load_text(tmp_path, "storage: {filesystem: {rootdirectory: /a}}", **environ).config.storage
    assert (storage.driver, storage.parameters) == ("pigeon", {"birds": 4})
    storage = load_text(
        tmp_path, "storage: {pigeon: {Names: [a, b]}}", REGISTRY_STORAGE_PIGEON_NAMES_2="c"
    ).config.storage
    assert storage.parameters == {"Names": ["a", "b", "c"]}


@pytest.mark.parametrize(
    "text", ["storage: pigeon", "storage: {pigeon: }", "storage: {pigeon: {}, delete: {enabled: false}}"]
)
def test_a_driver_without_parameters(tmp_path: Path, text: str) -> None:
    storage = load_text(tmp_path, text).config.storage
    assert (storage.driver, storage.parameters) == ("pigeon", {})


def test_the_in_memory_driver_has_no_parameters(tmp_path: Path) -> None:
    assert load_text(tmp_path, "storage: inmemory").config.storage.parameters == {}
    loaded = load_text(tmp_path, "storage: {inmemory: {quota: 3}}")
    assert loaded.warnings == (f"storage.inmemory.quota is not a setting, and has no effect ({tmp_path}/config.yml:2)",)


def test_settings_without_a_driver_belong_to_the_filesystem(tmp_path: Path) -> None:
    storage = load_text(
        tmp_path, "storage: {delete: {enabled: true}, cache: {blobdescriptor: inmemory}}"
    ).config.storage
    assert (storage.driver, storage.delete.enabled) == ("filesystem", True)
    assert storage.parameters == {"rootdirectory": "/var/lib/registry"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "{rados: {}, inmemory: {}}",
            "storage.rados: is neither a setting of storage nor a driver that is installed (FILE:2)",
        ),
        (
            "{pigeon: {}, inmemory: {}}",
            "storage: expected one driver, found 2: pigeon from FILE:2, inmemory from FILE:2; "
            "keep one, or choose with REGISTRY_STORAGE=NAME, which replaces all that the file says of storage",
        ),
        (
            "{filesytem: {rootdirectory: /a}}",
            "storage.filesytem: is neither a setting of storage nor a driver that is "
            "installed; did you mean filesystem? (FILE:2)",
        ),
        (
            "{delte: {enabled: true}}",
            "storage.delte: is neither a setting of storage nor a driver that is installed; "
            "did you mean delete? (FILE:2)",
        ),
        ("rados", "storage.rados: is neither a setting of storage nor a driver that is installed (FILE:2)"),
        ("[a]", "storage: expected a map such as {filesystem: ...}, found a list (FILE:2)"),
        (
            "{filesystem: /data}",
            "storage.filesystem: expected a map such as {rootdirectory: ...}, found '/data' (FILE:2)",
        ),
        ("{filesystem: {rootdirectory: []}}", "storage.filesystem.rootdirectory: expected text, found a list (FILE:2)"),
    ],
)
def test_what_is_no_driver_stops_the_start(tmp_path: Path, text: str, expected: str) -> None:
    assert problem(tmp_path, f"storage: {text}") == expected

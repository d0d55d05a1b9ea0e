from registry.config import Config, load


def test_without_file_and_variables_the_defaults_hold() -> None:
    loaded = load(None, {})
    assert loaded.config == Config()
    assert loaded.warnings == ()
    assert loaded.config.storage.driver == "filesystem"
    assert loaded.config.storage.parameters == {"rootdirectory": "/var/lib/registry"}
    assert loaded.config.http.addr == ":5000"

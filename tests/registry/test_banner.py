import pytest

from registry.banner import banner
from registry.config import load

HERE = ["0.0.0.0:5000", "[::]:5000"]


@pytest.mark.parametrize(
    ("environ", "addresses", "command"),
    [
        (
            {},
            HERE,
            "docker pull alpine && docker tag alpine localhost:5000/alpine && docker push localhost:5000/alpine",
        ),
        (
            {"REGISTRY_AUTH_HTPASSWD_PATH": "/x"},
            HERE,
            "docker login localhost:5000 && docker pull alpine && docker tag alpine localhost:5000/alpine "
            "&& docker push localhost:5000/alpine",
        ),
        ({"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}, HERE, "docker pull localhost:5000/NAME:TAG"),
        (
            {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true", "REGISTRY_HTTP_HOST": "https://r.example.com"},
            HERE,
            "docker pull r.example.com/NAME:TAG",
        ),
        (
            {"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"},
            ["192.0.2.7:80"],
            "docker pull 192.0.2.7:80/NAME:TAG",
        ),
        ({"REGISTRY_HTTP_PREFIX": "/r/"}, HERE, "curl http://localhost:5000/r/v2/"),
        ({}, ["unix:/run/r.sock"], "curl --unix-socket /run/r.sock http://localhost/v2/"),
        (
            {"REGISTRY_HTTP_PREFIX": "r"},
            ["unix:/run/r.sock"],
            "curl --unix-socket /run/r.sock http://localhost/r/v2/",
        ),
    ],
)
def test_a_command_to_try(environ: dict[str, str], addresses: list[str], command: str) -> None:
    assert banner(load(None, environ), addresses)["try"] == command


@pytest.mark.parametrize(
    ("environ", "mode"),
    [
        ({}, "read and write, deletes off, no authentication: open to everyone"),
        (
            {"REGISTRY_STORAGE_DELETE_ENABLED": "true", "REGISTRY_AUTH_HTPASSWD_PATH": "/x"},
            "read and write, deletes on, users from htpasswd",
        ),
        ({"REGISTRY_STORAGE_MAINTENANCE_READONLY_ENABLED": "true"}, "read-only, no authentication: open to everyone"),
    ],
)
def test_the_mode(environ: dict[str, str], mode: str) -> None:
    assert banner(load(None, environ), HERE)["mode"] == mode


def test_where_and_on_what() -> None:
    tls = {"REGISTRY_HTTP_TLS_CERTIFICATE": "/c", "REGISTRY_HTTP_TLS_KEY": "/k", "REGISTRY_STORAGE": "inmemory"}
    facts = banner(load(None, tls), HERE)
    assert facts["listening"] == "https://0.0.0.0:5000 and https://[::]:5000"
    assert facts["storage"] == "inmemory"
    assert banner(load(None, {}), HERE)["storage"] == "filesystem in /var/lib/registry"

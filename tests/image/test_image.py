"""The image as operators run it: over what registry:2 wrote as root, as any user, read-only, behind its environment."""

import gzip
import json
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.clients.shell import Shell
from tests.interop import peers
from tests.ports import free_port

from .containers import no_capabilities, pull, push, push_and_pull, running, status, stop, wait_until_healthy

pytestmark = pytest.mark.image

MOST_COMPRESSED = 35_000_000


@pytest.fixture
def volume(workspace: Path) -> Iterator[Path]:
    folder = workspace / "volume"
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_fresh_volume_is_nobodys(docker: Shell, image: str, small: str) -> None:
    with running(docker, image) as (container, address):
        found = status(docker, container)
        assert found["Uid"] == ["10001"] * 4
        assert found["Groups"] == ["10001"]
        assert no_capabilities(found)
        push_and_pull(docker, small, address)
        assert "team/small" in docker("docker", "exec", container, "ls", "-R", "/var/lib/registry").out
        said = docker("docker", "exec", container, "registry", "garbage-collect", "/etc/docker/registry/config.yml")
        assert "3 blobs marked" in said.both
        stop(docker, container)


def test_what_watches_it(docker: Shell, image: str, small: str) -> None:
    """Load balancers ask the registry's port, Prometheus the debug address."""
    debug = f"localhost:{free_port()}"
    options = ("--env", f"REGISTRY_HTTP_DEBUG_ADDR={debug}", "--env", "REGISTRY_HTTP_DEBUG_PROMETHEUS_ENABLED=true")
    with running(docker, image, *options) as (container, address):
        push_and_pull(docker, small, address)
        for place in (address, debug):
            assert json.loads(get(f"http://{place}/readyz"))["ready"] is True
        counted = get(f"http://{debug}/metrics")
        assert re.search(r'^registry_http_requests_total\{.*code="201".*\} [1-9]', counted, re.MULTILINE), counted
        assert "process_resident_memory_bytes" in counted
        docker("docker", "exec", container, "registry", "healthcheck", "--ready")
        stop(docker, container)


def test_traces(docker: Shell, image: str) -> None:
    with running(docker, image, "--env", "OTEL_TRACES_EXPORTER=console") as (container, address):
        get(f"http://{address}/v2/")
        stop(docker, container)  # what is recorded is sent in groups, the last of them at the end
        assert '"url.path": "/v2/"' in docker("docker", "logs", container).out


def get(url: str) -> str:
    """What a page says, which must be there."""
    return httpx.get(url, trust_env=False).raise_for_status().text


def test_a_chosen_user(docker: Shell, image: str, small: str, volume: Path) -> None:
    shutil.chown(volume, 4711, 4712)
    options = ("--user", "4711:4712", "--volume", f"{volume}:/var/lib/registry", "--cap-drop", "ALL")
    with running(docker, image, *options) as (container, address):
        assert status(docker, container)["Uid"] == ["4711"] * 4
        push_and_pull(docker, small, address)
        assert {path.stat().st_uid for path in volume.rglob("*")} == {4711}
        stop(docker, container)


@pytest.mark.parametrize("folder_of", [0, 4711])
def test_what_registry_2_wrote_as_root(
    docker: Shell, image: str, small: str, volume: Path, workspace: Path, folder_of: int
) -> None:
    """folder_of: docker makes a missing folder as root; one that a user made stays his, with root's files in it."""
    port = free_port()
    config = peers.write_config(workspace / "two", volume, port)
    with peers.started(peers.V2, config, port, workspace / "two.log"):
        push_and_pull(docker, small, f"localhost:{port}")
    shutil.chown(volume, folder_of)
    with running(docker, image, "--volume", f"{volume}:/var/lib/registry") as (container, address):
        found = status(docker, container)
        assert found["Uid"] == ["0"] * 4
        kept = {0: 0, 4711: 1 << 1}[folder_of]  # CAP_DAC_OVERRIDE, for the folder that is not root's
        assert int(found["CapEff"][0], 16) == int(found["CapBnd"][0], 16) == kept
        assert no_capabilities(found) == (kept == 0)
        pull(docker, small, f"{address}/team/small:1")
        push(docker, small, f"{address}/team/other:1")
        stop(docker, container)
    with peers.started(peers.V2, config, port, workspace / "two.log"):  # and back
        pull(docker, small, f"localhost:{port}/team/other:1")


def test_a_container_that_may_not_change_users(docker: Shell, image: str, volume: Path) -> None:
    shutil.chown(volume, 4711, 4712)
    options = ("--network", "host", "--cap-drop", "ALL", "--volume", f"{volume}:/var/lib/registry")
    said = docker.refused("docker", "run", "--rm", *options, image)
    assert "start it with --user 4711:4712" in said.err


@pytest.mark.parametrize(
    "place", ["/etc/docker/registry/config.yml", "/etc/distribution/config.yml", "/etc/distribution"]
)
def test_a_mounted_configuration(docker: Shell, image: str, workspace: Path, place: str) -> None:
    """At either path of the official images, as a file or as its folder (as Kubernetes does)."""
    folder = workspace / "config"
    folder.mkdir(exist_ok=True)
    (folder / "config.yml").write_text("version: 0.1\nstorage: {inmemory: {}}\n")
    source = folder if place.endswith("distribution") else folder / "config.yml"
    mounted = ("--volume", f"{source}:{place}:ro")
    for path in ("/etc/distribution/config.yml", "/etc/docker/registry/config.yml"):
        assert "inmemory" in docker("docker", "run", "--rm", *mounted, image, "check-config", path).out


@pytest.mark.parametrize(
    "arguments",
    [
        ("/mine.yml",),
        ("serve", "/mine.yml"),
        ("registry", "serve", "/mine.yml"),
        ("/bin/registry", "/mine.yml"),
    ],
)
def test_ways_to_start_it(docker: Shell, image: str, workspace: Path, arguments: tuple[str, ...]) -> None:
    """The health check finds a configuration that was named in any of them."""
    path = workspace / "mine.yml"
    path.write_text("version: 0.1\nstorage: {inmemory: {}}\nhttp: {net: unix, addr: /tmp/mine.sock}\n")
    options = ("--detach", "--network", "none", "--read-only", "--tmpfs", "/tmp", "--health-interval", "1s")
    container = docker("docker", "run", *options, "--volume", f"{path}:/mine.yml:ro", image, *arguments).out.strip()
    try:
        wait_until_healthy(docker, container)
        stop(docker, container)
    finally:
        docker("docker", "rm", "--force", "--volumes", container)


def test_the_version_and_other_programs(docker: Shell, image: str) -> None:
    for arguments in (("--version",), ("registry", "--version"), ("/bin/registry", "-v"), ("help",)):
        assert "moorage" in docker("docker", "run", "--rm", image, *arguments).out or arguments == ("help",)
    assert docker("docker", "run", "--rm", image, "echo", "hello").out == "hello\n"
    assert "no answer" in docker.refused("docker", "run", "--rm", "--network", "none", image, "healthcheck").err


def test_every_extra_is_there(docker: Shell, image: str) -> None:
    """Also the services of botocore that are left, which clients are made of."""
    code = (
        "import botocore.session, httpx, aiobotocore, re2, registry.proxy.upstream\n"
        "session = botocore.session.get_session()\n"
        "for name in ('s3', 'sts', 'sso', 'sso-oidc', 'ecr'): session.create_client(name, 'us-east-1')\n"
    )
    docker("docker", "run", "--rm", "--read-only", image, "/opt/moorage/bin/python3", "-c", code)


def test_there_is_nothing_to_build_with(docker: Shell, image: str) -> None:
    code = "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('pip', 'setuptools', 'uv')))"
    docker("docker", "run", "--rm", image, "/opt/moorage/bin/python3", "-c", code)


def test_size(docker: Shell, image: str, bases: str, workspace: Path) -> None:
    """Compressed, above the base: what each instance pulls when the base is there."""
    path = workspace / "image.tar"
    docker("docker", "save", "--output", path, image)
    above = len(json.loads(docker("docker", "inspect", "--format", "{{json .RootFS.Layers}}", bases).out))
    size = 0
    with tarfile.open(path) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None
        for layer in json.load(manifest)[0]["Layers"][above:]:
            content = tar.extractfile(layer)
            assert content is not None
            size += len(gzip.compress(content.read(), 6))
    path.unlink()
    print(f"compressed, above the base: {size / 1e6:.1f} MB")
    assert size < MOST_COMPRESSED


def test_nothing_is_compiled_at_a_start(docker: Shell, image: str) -> None:
    """Python would say which module it compiles, and compile it again at each start of a read-only container."""
    code = "import registry.app, registry.serving.server, storage.drivers.s3"
    script = f"/opt/moorage/bin/python3 -v -c '{code}' 2>&1 | grep -c 'code object from /'"
    done = subprocess.run(
        ["docker", "run", "--rm", "--read-only", image, "sh", "-c", script],
        env=docker.env,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "0"

"""The pull-through cache by the clients of a fleet: Docker Hub's names and another registry's, pulled twice.

The upstreams are CNCF distributions and are stopped before the second pull, for which each client forgets all it has.
No name server knows the names: only the clients' settings lead to the cache (docs/proxy.md has them as tested here).
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.interop.peers import V3, started, write_config
from tests.ports import free_port

from . import daemons
from .api import Registry
from .images import GREETING, HERE, OTHER, Layout
from .shell import Shell
from .test_containerd import Ctr
from .test_docker import Docker
from .test_podman import podman_in, run
from .tools import find

pytestmark = pytest.mark.clients

HUB, OTHER_REGISTRY = "docker.io", "registry.test"
MULTI = "multi"


@dataclass
class Cache:
    """stop_upstreams: from then on, only what is cached can be pulled."""

    host: str
    stop_upstreams: Callable[[], None]

    @property
    def url(self) -> str:
        return f"http://{self.host}"


def push_to_upstream(stack: ExitStack, folder: Path, layout: Layout, repository: str) -> str:
    """The URL of a distribution that holds the layout and runs until the stack ends."""
    port = free_port()
    (folder / "data").mkdir(parents=True)
    stack.enter_context(started(V3, write_config(folder, folder / "data", port), port, folder / "upstream.log"))
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False) as http:
        Registry(f"127.0.0.1:{port}", http).push_layout(repository, layout, *layout.digests)
    return f"http://127.0.0.1:{port}"


@pytest.fixture
def cache(shell: Shell, folder: Path, layout: Layout) -> Iterator[Cache]:
    with ExitStack() as upstreams:
        hub = push_to_upstream(upstreams, folder / "hub", layout, "library/app")
        other = push_to_upstream(upstreams, folder / "other", layout, "team/app")
        more = {
            "upstreams": [
                {"url": hub, "name": HUB, "default": True, "ttl": "0s", "privatenetworks": True},
                {"url": other, "name": OTHER_REGISTRY, "ttl": "0s", "privatenetworks": True},
            ]
        }
        with daemons.registry(shell, folder / "cache", folder / "cache.log", more=more) as port:
            yield Cache(f"localhost:{port}", upstreams.close)


def pull_twice(cache: Cache, pull: Callable[[str], str], forget: Callable[[], None], *images: str) -> list[str]:
    """The digests, the same both times."""
    first = [pull(image) for image in images]
    forget()
    cache.stop_upstreams()
    assert [pull(image) for image in images] == first
    return first


def test_docker_by_registry_mirrors_and_by_prefix(
    cache: Cache, shell: Shell, folder: Path, layout: Layout, containerd_address: Path
) -> None:
    settings = {"registry-mirrors": [cache.url]}
    with daemons.dockerd(
        shell, folder / "dockerd", folder / "dockerd.log", containerd_address, settings=settings, namespace="mirrored"
    ) as host:
        docker = Docker(shell, host)
        images = ("app:multi", f"{cache.host}/{OTHER_REGISTRY}/team/app:{HERE}", f"app@{layout.digests[HERE]}")
        found = pull_twice(cache, docker.pull, docker.forget_everything, *images)
        assert found == [layout.digests[MULTI], layout.digests[HERE], layout.digests[HERE]]
        assert docker.run("app:multi") == GREETING
        docker.forget_everything()


def test_containerd_by_one_hosts_toml_for_all(
    cache: Cache, shell: Shell, folder: Path, layout: Layout, containerd_address: Path
) -> None:
    ctr = Ctr(shell, containerd_address, folder / "certs.d")
    ctr.add_mirror(cache.url)
    images = (f"{HUB}/library/app:multi", f"{OTHER_REGISTRY}/team/app:{HERE}")
    found = pull_twice(cache, ctr.pull, ctr.forget_everything, *images)
    assert found == [layout.digests[MULTI], layout.digests[HERE]]
    assert ctr.run(images[0], "cat", "/greeting") == GREETING
    ctr.forget_everything()


@pytest.mark.skipif(find("podman") is None, reason="podman is not installed: make clients-packages")
def test_podman_by_registries_conf(cache: Cache, fresh_shell: Shell, folder: Path, layout: Layout) -> None:
    conf = folder / "registries.conf"
    conf.write_text(
        "".join(
            f'[[registry]]\nlocation = "{name}"\n[[registry.mirror]]\nlocation = "{cache.host}/{name}"\n'
            "insecure = true\n"
            for name in (HUB, OTHER_REGISTRY)
        )
    )
    fresh_shell.env["CONTAINERS_REGISTRIES_CONF"] = str(conf)
    podman = podman_in(fresh_shell, folder)
    images = (f"{HUB}/library/app:{HERE}", f"{OTHER_REGISTRY}/team/app:{OTHER}")
    found = pull_twice(cache, lambda image: podman.pull(image, "--quiet"), podman.forget_everything, *images)
    assert found == [layout.digests[HERE], layout.digests[OTHER]]
    assert run(podman, images[0]) == GREETING
    podman.forget_everything()

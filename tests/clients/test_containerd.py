"""containerd by its `ctr`; it finds the registry through hosts.toml."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .api import Registry
from .images import GREETING, HERE, OTHER, Layout, write_archive
from .secured import PASSWORD, USER, Secured
from .shell import Output, Shell

pytestmark = pytest.mark.clients


class Ctr:
    """The ctr command against the private containerd, with a folder of hosts.toml files."""

    def __init__(self, shell: Shell, address: Path, hosts: Path) -> None:
        self._shell = shell
        self._address = address
        self._hosts = hosts
        plugins = self("plugins", "ls").out.splitlines()
        # A work folder on overlayfs (tests inside a container) cannot carry another overlayfs.
        overlay = any(line.split()[1] == "overlayfs" and line.split()[-1] == "ok" for line in plugins if line)
        self._snapshotter = ("--snapshotter", "overlayfs" if overlay else "native")

    def __call__(self, *arguments: str | Path) -> Output:
        return self._shell("ctr", "--address", self._address, *arguments)

    def add_host(self, name: str, url: str, authority: Path | None = None) -> None:
        """Write hosts.toml: images named `name`/... come from, and go to, the registry at `url`."""
        folder = self._hosts / name
        folder.mkdir(parents=True)
        (folder / "hosts.toml").write_text(
            f'server = "{url}"\n\n[host."{url}"]\n  capabilities = ["pull", "resolve", "push"]\n'
            + (f'  ca = "{authority}"\n' if authority else "")
        )

    def add_mirror(self, url: str) -> None:
        """Write the hosts.toml for all registries that have none of their own: they are asked for at `url`."""
        (self._hosts / "_default").mkdir(parents=True)
        (self._hosts / "_default/hosts.toml").write_text(f'[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')

    def import_layout(self, layout: Layout, archive: Path, name: str) -> None:
        """Load every image of a layout, as `name`:<its reference>."""
        write_archive(layout, archive)
        self("images", "import", "--no-unpack", "--all-platforms", "--base-name", name, archive)

    def push(self, image: str, *options: str) -> None:
        self("images", "push", "--hosts-dir", self._hosts, *options, image)

    def pull(self, image: str, *options: str) -> str:
        """Pull; returns the digest of what is now stored under that name."""
        self("images", "pull", "--hosts-dir", self._hosts, *self._snapshotter, *options, image)
        [line] = self("images", "ls", f"name=={image}").out.splitlines()[1:]
        return line.split()[2]

    def pull_refused(self, image: str) -> str:
        arguments = ("images", "pull", "--hosts-dir", self._hosts, *self._snapshotter, image)
        return self._shell.refused("ctr", "--address", self._address, *arguments).err

    def run(self, image: str, *command: str) -> str:
        return self("run", "--rm", *self._snapshotter, image, "clients-test", *command).out

    def stored(self) -> set[str]:
        """The digests in the content store."""
        return set(self("content", "ls", "--quiet").out.split())

    def forget_everything(self) -> None:
        for image in self("images", "ls", "--quiet").out.split():
            self("images", "rm", "--sync", image)
        assert self.stored() == set()


@pytest.fixture
def ctr(shell: Shell, containerd_address: Path, registry: Registry, folder: Path) -> Iterator[Ctr]:
    ctr = Ctr(shell, containerd_address, folder / "certs.d")
    ctr.add_host(registry.host, f"http://{registry.host}")
    yield ctr
    ctr.forget_everything()


def test_push_index_pull_run(ctr: Ctr, registry: Registry, repository: str, layout: Layout, folder: Path) -> None:
    image = f"{registry.host}/{repository}"
    ctr.import_layout(layout, folder / "layout.tar", image)
    ctr.push(f"{image}:multi")
    assert registry.check_complete(repository, "multi") == layout.digests["multi"]

    ctr.forget_everything()
    assert ctr.pull(f"{image}:multi") == layout.digests["multi"]
    assert ctr.run(f"{image}:multi", "cat", "/greeting") == GREETING
    assert ctr.run(f"{image}:multi", "cat", "/platform") == f"linux/{HERE}\n"
    random_sum = ctr.run(f"{image}:multi", "sha256sum", "/random.bin").split()[0]
    assert random_sum == layout.random_digest.removeprefix("sha256:")


def test_pull_through_hosts_toml(ctr: Ctr, registry: Registry, published: str, layout: Layout) -> None:
    # No name server knows this name: only hosts.toml can lead to the registry, and containerd says so by ?ns=.
    ctr.add_host("moorage.invalid", f"http://{registry.host}")
    image = f"moorage.invalid/{published}"
    assert ctr.pull(f"{image}:{HERE}") == layout.digests[HERE]
    assert ctr.run(f"{image}:{HERE}", "cat", "/greeting") == GREETING
    named = f"{image}@{layout.digests['multi']}"
    assert ctr.pull(named) == layout.digests["multi"]


def test_pull_all_platforms(ctr: Ctr, registry: Registry, published: str, layout: Layout) -> None:
    image = f"{registry.host}/{published}:multi"
    assert ctr.pull(image, "--platform", f"linux/{OTHER}") == layout.digests["multi"]
    here = set(layout.below(HERE)) - set(layout.below(OTHER))
    assert ctr.stored() == set(layout.below("multi")) - here
    ctr.pull(image, "--all-platforms")
    assert ctr.stored() == set(layout.below("multi"))


def test_copy_to_another_repository(
    ctr: Ctr, registry: Registry, repository: str, published: str, layout: Layout
) -> None:
    source, target = f"{registry.host}/{published}:{HERE}", f"{registry.host}/{repository}:copy"
    ctr.pull(source)
    ctr("images", "tag", source, target)
    ctr.push(target)
    assert registry.check_complete(repository, "copy") == layout.digests[HERE]


def test_delete(ctr: Ctr, registry: Registry, repository: str, layout: Layout) -> None:
    registry.push_layout(repository, layout, HERE)
    image = f"{registry.host}/{repository}:{HERE}"
    assert ctr.pull(image) == layout.digests[HERE]
    registry.delete(repository, layout.digests[HERE])  # containerd itself has no command for it
    assert "not found" in ctr.pull_refused(image)


def test_password_over_tls(ctr: Ctr, secured: Secured, repository: str, layout: Layout, folder: Path) -> None:
    ctr.add_host(secured.host, f"https://{secured.host}", secured.authority)
    image, login = f"{secured.host}/{repository}", ("--user", f"{USER}:{PASSWORD}")
    ctr.import_layout(layout, folder / "layout.tar", image)
    ctr.push(f"{image}:multi", *login)
    assert secured.registry.check_complete(repository, "multi") == layout.digests["multi"]
    ctr.forget_everything()
    assert "401 Unauthorized" in ctr.pull_refused(f"{image}:multi")
    assert ctr.pull(f"{image}:multi", *login) == layout.digests["multi"]

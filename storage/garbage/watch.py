"""Watcher: told what a collection or an examination does, so that somebody can show it. This one shows nothing."""

from storage.digest import Digest
from storage.names import RepositoryName


class Watcher:
    def phase(self, what: str, total: int | None = None) -> None:
        """A new part begins. total: how many steps it will have, where that is known."""

    def step(self, count: int = 1) -> None:
        """That many steps of the part are done."""

    def manifest(self, name: RepositoryName, digest: Digest) -> None:
        """A manifest was removed, or would be."""

    def blob(self, digest: Digest, size: int) -> None:
        """A blob of size bytes was removed, or would be."""

    def link(self, name: RepositoryName, digest: Digest) -> None:
        """A layer link was removed, or would be."""

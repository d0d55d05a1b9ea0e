"""ManifestRules: what a pushed manifest must and may name, as the operator has set it. Pure.

The defaults are distribution's built-in ones: an image names blobs that are there, an index children that are there.
Its `validation.manifests` settings loosen or tighten them; `sparse` is ours.
"""

from dataclasses import dataclass

from storage.digest import Digest
from storage.errors import ManifestInvalid
from storage.manifest import Manifest, Platform, Searchable, required_blobs, required_children, url_violations


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Finds what one of the patterns finds. They are not joined: a flag such as `(?i)` belongs to one of them."""

    patterns: tuple[Searchable, ...]

    def search(self, text: str, /) -> object | None:
        return next((found for pattern in self.patterns if (found := pattern.search(text)) is not None), None)


@dataclass(frozen=True, slots=True)
class ManifestRules:
    """sparse: nothing needs to exist.   platforms: of the children of an index only those must; None: all must.

    allow, deny: for `urls` of layers: if there is an `allow`, a URL must match it, and never `deny`.
    """

    sparse: bool = False
    platforms: tuple[Platform, ...] | None = None
    allow: Searchable | None = None
    deny: Searchable | None = None

    def check(self, manifest: Manifest) -> None:
        """Raises ManifestInvalid for a URL that is not allowed."""
        if violations := url_violations(manifest, self.allow, self.deny):
            raise ManifestInvalid("; ".join(violations) + " (validation.manifests.urls)")

    def required(self, manifest: Manifest) -> frozenset[Digest]:
        """What the manifest names and must be in the repository before it."""
        if self.sparse:
            return frozenset()
        return frozenset(d.digest for d in (*required_blobs(manifest), *required_children(manifest, self.platforms)))

"""ManifestRules: what a pushed manifest must and may name, as the operator has set it. Pure.

The defaults are distribution's built-in ones: an image names blobs that are there, an index children that are there.
Its `validation.manifests` settings loosen or tighten them; `sparse` is ours.
"""

import re
from dataclasses import dataclass
from typing import Literal

from storage.errors import ManifestInvalid
from storage.manifest import Descriptor, Manifest, required_blobs, url_violations


@dataclass(frozen=True, slots=True)
class Platform:
    """Of an image index's child. Empty architecture or os matches none."""

    architecture: str
    os: str


@dataclass(frozen=True, slots=True)
class ManifestRules:
    """sparse: nothing needs to exist.   platforms: which children of an index must (list: those of platformlist).

    allow, deny: patterns for `urls` of layers (re.search): if there is an `allow`, a URL must match one; no `deny`.
    """

    sparse: bool = False
    platforms: Literal["all", "none", "list"] = "all"
    platformlist: tuple[Platform, ...] = ()
    allow: tuple[re.Pattern[str], ...] = ()
    deny: tuple[re.Pattern[str], ...] = ()

    def check(self, manifest: Manifest) -> None:
        """Raises ManifestInvalid for a URL that is not allowed."""
        if violations := url_violations(manifest, self.allow, self.deny):
            raise ManifestInvalid(
                "urls are not allowed here (validation.manifests.urls): " + "; ".join(violations[:10])
            )

    def required(self, manifest: Manifest) -> frozenset[Descriptor]:
        """What the manifest names and must be in the repository before it."""
        if self.sparse:
            return frozenset()
        return frozenset((*required_blobs(manifest), *(d for d in manifest.children if self._requires(d))))

    def _requires(self, child: Descriptor) -> bool:
        if self.platforms != "list":
            return self.platforms == "all"
        named = child.platform or {}
        return any(p.architecture == named.get("architecture") and p.os == named.get("os") for p in self.platformlist)

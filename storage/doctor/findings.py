"""What the doctor may find, and what becomes of it.

A fix never takes away what anybody can pull, nor bytes that somebody might want: damaged ones are set aside, under
`_moorage/damaged/`, so that a push stores them anew. What has no such fix is reported with what to do.
What is broken in a cache is dropped: the next pull fetches it.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    BLOB_EMPTY = "empty blob"
    BLOB_DAMAGED = "damaged blob"
    BLOB_STRAY = "stray file"
    LINK_DAMAGED = "damaged link"
    LINK_DANGLING = "link to nothing"
    MANIFEST_MISSING = "manifest to nothing"
    MANIFEST_DAMAGED = "damaged manifest"
    PART_MISSING = "missing part"
    PART_UNLINKED = "unlinked part"
    PART_SIZE = "part of wrong size"
    TAG_DAMAGED = "damaged tag"
    TAG_NOTHING = "tag to nothing"
    TAG_UNVOUCHED = "tag without revision"
    TAG_HALF = "half a tag"
    UPLOAD_ABANDONED = "abandoned upload"
    REFERRER_MISSING = "referrer not in the index"
    REFERRER_STALE = "stale entry in the index of referrers"


FIXES = {
    Kind.BLOB_EMPTY: "sets it aside, so that the next push stores it",
    Kind.BLOB_DAMAGED: "sets it aside, so that the next push stores it",
    Kind.LINK_DAMAGED: "writes it again where what it names is there, else removes it",
    Kind.LINK_DANGLING: "removes it",
    Kind.MANIFEST_MISSING: "removes the revision",
    Kind.PART_UNLINKED: "links it",
    Kind.TAG_DAMAGED: "points it at the one manifest that it has ever named, if there is only one",
    Kind.TAG_NOTHING: "removes the tag",
    Kind.TAG_HALF: "removes what is left of it",
    Kind.UPLOAD_ABANDONED: "removes it",
    Kind.REFERRER_MISSING: "enters it",
    Kind.REFERRER_STALE: "removes it",
}
"""What --fix does."""

_FETCHED = "and the next pull fetches it"

CACHE_FIXES = FIXES | {
    Kind.BLOB_EMPTY: f"drops it, {_FETCHED}",
    Kind.BLOB_DAMAGED: f"drops it, {_FETCHED}",
    Kind.MANIFEST_MISSING: f"removes the revision, {_FETCHED}",
    Kind.MANIFEST_DAMAGED: f"drops it, {_FETCHED}",
    Kind.PART_SIZE: f"drops the blob, {_FETCHED}",
    Kind.TAG_DAMAGED: f"points it at the one manifest that it has ever named, else removes it, {_FETCHED}",
    Kind.TAG_NOTHING: f"removes the tag, {_FETCHED}",
    Kind.TAG_UNVOUCHED: f"removes the tag, {_FETCHED}",
}
"""The same for what a cache alone has."""

CACHE_ADVICE = "let --fix mend it: what it drops, the next pull fetches"

ADVICE = {
    Kind.BLOB_EMPTY: "push an image again that has it",
    Kind.BLOB_DAMAGED: "push an image again that has it",
    Kind.BLOB_STRAY: "move it elsewhere: distribution's garbage collector stops at it",
    Kind.LINK_DAMAGED: "push the image again",
    Kind.LINK_DANGLING: "push the image again, or let --fix remove it",
    Kind.MANIFEST_MISSING: "push it again, or let --fix remove it; garbage-collect stops at it",
    Kind.MANIFEST_DAMAGED: "push it again, or delete it by digest; garbage-collect stops at it",
    Kind.PART_MISSING: "push the image again",
    Kind.PART_UNLINKED: "push the image again, or let --fix link it",
    Kind.PART_SIZE: "push the image again; --deep tells whether the blob or the manifest is wrong",
    Kind.TAG_DAMAGED: "push the tag again, or delete it",
    Kind.TAG_NOTHING: "push the tag again, or let --fix remove it",
    Kind.TAG_UNVOUCHED: "push the tag again if the image shall live, else delete the tag",
    Kind.TAG_HALF: "push the tag again, or let --fix remove it",
    Kind.UPLOAD_ABANDONED: "let --fix or garbage-collect remove it",
    Kind.REFERRER_MISSING: "let --fix enter it",
    Kind.REFERRER_STALE: "let --fix remove it",
}
"""What else to do about it."""

Repair = Callable[[], Awaitable[bool]]
"""Returns whether it is repaired; not if somebody has changed it since it was found."""


IMAGES = 3
"""That a finding names. A base layer may have thousands."""


@dataclass(frozen=True, slots=True)
class Image:
    """What people know a broken thing by. tag: "" where none leads to it; then manifest is the broken one.

    manifest: what the tag names.   through: "" or what that is to the broken manifest: its "index", or its "subject".
    """

    repository: str
    manifest: str
    tag: str = ""
    through: str = ""

    def __str__(self) -> str:
        if not self.tag:
            return f"{self.repository}@{self.manifest}"
        return f"{self.repository}:{self.tag}" + (f" (its {self.through} {self.manifest})" if self.through else "")


@dataclass(slots=True)
class Finding:
    """what: one line, without the repository. repair: None where nothing can be done here.

    images: the first of those that it spoils.   more: how many there are besides.   cached: a cache alone has it.
    """

    kind: Kind
    what: str
    repository: str = ""
    digest: str = ""
    repair: Repair | None = field(default=None, repr=False, compare=False)
    fixed: bool = False
    images: list[Image] = field(default_factory=list, compare=False)
    more: int = 0
    cached: bool = False

    @property
    def advice(self) -> str:
        return CACHE_ADVICE if self.cached and self.repair is not None else ADVICE[self.kind]

    @property
    def fix(self) -> str | None:
        """What --fix does; None: nothing."""
        if self.repair is None:
            return None
        return CACHE_FIXES[self.kind] if self.cached else FIXES[self.kind]

    def concerns(self, images: Sequence[Image]) -> None:
        room = IMAGES - len(self.images)
        self.images += images[:room]
        self.more += len(images[room:])

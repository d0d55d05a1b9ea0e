"""What a cache gives up first: images by their last use. Pure.

An image is a manifest, together with what lives by it: the images of an index, and the referrers of each. It was last
used when its manifest was, or whatever it lives by: who pulls an index and one image of it has used them all. So a part
that several have goes with the one that was used last, and none goes before what needs it.

The time of modification of a revision's link is when it was last used, or fetched (registry/proxy/uses.py).
"""

import math
from array import array
from collections.abc import Iterable
from dataclasses import dataclass

from storage.digest import Digest
from storage.garbage.manifests import Node, Survey
from storage.garbage.table import HELD, NEEDED, BlobTable
from storage.names import RepositoryName


@dataclass(frozen=True, slots=True)
class Image:
    """used: seconds since 1970, store's clock.   members: the first is what all others live by.

    places: what they name, in the table of blobs.
    """

    name: RepositoryName
    used: float
    members: tuple[Node, ...]
    places: "array[int]"


@dataclass(frozen=True, slots=True)
class Limits:
    """room: bytes that may be kept; math.inf: any.   oldest: what was used last at that time or before goes.

    recent: what was used since stays, whatever it takes: somebody may be pulling it.
    """

    room: float
    oldest: float
    recent: float


@dataclass(frozen=True, slots=True)
class Choice:
    """doomed: what goes.   size: bytes that only the cache has of what stays.   oldest: the first use among that."""

    doomed: list[Image]
    size: int
    oldest: float = math.inf


def images(survey: Survey) -> list[Image]:
    """What a repository has. A manifest that cannot be read is one of its own, used never: it is fetched again."""
    referrers: dict[Digest, list[Digest]] = {}
    for node in survey.nodes.values():
        if node.subject is not None:
            referrers.setdefault(node.subject, []).append(node.digest)
    found, taken = [], set()
    for root in sorted(survey.nodes.values(), key=_used, reverse=True):
        members, waiting = [], [root.digest]
        while waiting:
            digest = waiting.pop()
            member = survey.nodes.get(digest)
            if member is None or digest in taken or not (member.readable or member is root):
                continue
            taken.add(digest)
            members.append(member)
            waiting.extend(member.images)
            waiting.extend(referrers.get(digest, ()))
        if members:
            places = array("Q", (place for node in members for place in node.places))
            found.append(Image(survey.name, _used(root), tuple(members), places))
    return found


def choose(found: Iterable[Image], table: BlobTable, limits: Limits) -> Choice:
    """Keeps the images that were used last, as many as fit, and marks what they need. table: with sizes.

    What others hold takes no room: to give it up would win none.
    """
    doomed: list[Image] = []
    kept, oldest = 0, math.inf
    for image in sorted(found, key=lambda image: image.used, reverse=True):
        fresh = [place for place in dict.fromkeys(image.places) if not table.is_marked(place, NEEDED | HELD)]
        size = sum(table.size(place) for place in fresh)
        over = bool(doomed) or kept + size > limits.room  # nothing older stays in its stead
        if image.used <= limits.recent and (over or image.used <= limits.oldest):
            doomed.append(image)
            continue
        for place in fresh:
            table.mark(place)
        kept, oldest = kept + size, image.used
    doomed.reverse()
    return Choice(doomed, kept, oldest)


def _used(node: Node) -> float:
    return node.info.modified if node.info is not None and node.readable else -math.inf

"""What is done to two registries that share a store, whichever kind of store that is: pushes, deletes, a collection.

content: what both must serve afterwards.
"""

import httpx

from tests.api import digest_of

from .content import Content, answered, named_by_manifests, referrers_of, tags_of
from .corpora import noise, push_common, push_ours

ITS_LAYER = noise("l4", 11)
"""Of `library/plain:moved`."""
DEAD = noise("nobody names this", 2000)


def push_in_turns(content: Content, ours: httpx.Client, theirs: httpx.Client) -> None:
    for turn, (here, there) in enumerate([(ours, theirs), (theirs, ours)] * 2):
        content.image(here, "shared", noise(str(turn), 100 + turn), tag=f"t{turn}")
        content.image(here, "shared", noise(f"x{turn}", 100), tag="latest")
        # mounted from what the other may have pushed
        source = digest_of(noise(str(turn), 100 + turn))
        content.mounted(there, f"mounts/{turn}", "shared", source)
        content.image(there, f"mounts/{turn}", noise(str(turn), 100 + turn), tag="t")
        content.check(here)
        content.check(there)


def delete_with_ours(content: Content, ours: httpx.Client, theirs: httpx.Client) -> None:
    """No tag of the repository `a` is left."""
    push_common(ours, content)
    content.check(theirs)
    deleted = content.of("library/plain").tags["moved"]
    content.without_tag(ours, "library/plain", "v1")
    content.without_manifest(ours, "library/plain", deleted)
    content.without_blob(ours, "library/plain", digest_of(ITS_LAYER))
    for tag in list(content.of("a").tags):
        content.without_tag(ours, "a", tag)
    for http in (ours, theirs):
        content.check(http)
        answered(http.get("/v2/library/plain/manifests/v1"), 404)
        answered(http.get(f"/v2/library/plain/manifests/{deleted}"), 404)
        answered(http.get(f"/v2/library/plain/blobs/{digest_of(ITS_LAYER)}"), 404)
    assert tags_of(ours, "a") == []


def delete_with_theirs(content: Content, ours: httpx.Client, theirs: httpx.Client, *, tags: bool) -> None:
    """tags: can it delete a tag alone?"""
    push_common(ours, content)
    referrers = push_ours(ours, content)
    content.check(ours)  # whatever it remembers of that
    subject, signature = next((s, min(found)) for s, found in referrers.items() if len(found) > 1)
    deleted = content.of("library/plain").tags["moved"]
    content.without_manifest(theirs, "library/plain", deleted)
    content.without_manifest(theirs, "library/ours", signature)
    content.without_blob(theirs, "library/plain", digest_of(ITS_LAYER))
    if tags:
        content.without_tag(theirs, "library/plain", "v1")
        content.without_tag(theirs, "a", "t")
        assert tags_of(ours, "a") == []
    content.check(ours)
    answered(ours.get(f"/v2/library/plain/manifests/{deleted}"), 404)
    answered(ours.get(f"/v2/library/plain/blobs/{digest_of(ITS_LAYER)}"), 404)
    answered(ours.get("/v2/library/plain/manifests/moved"), 404)
    assert referrers_of(ours, "library/ours", subject) == referrers[subject] - {signature}
    # and what was deleted can be pushed again, to us
    content.image(ours, "library/plain", ITS_LAYER, tag="moved")
    content.check(ours)
    content.check(theirs)


class Collection:
    """A corpus of ours with a blob that nothing names, before and after the peer's collector has been there."""

    def __init__(self, content: Content, ours: httpx.Client) -> None:
        self.content = content
        push_common(ours, content)
        self.referrers = push_ours(ours, content)
        self._check_referrers(ours)
        content.blob(ours, "library/plain", DEAD)

    def check(self, ours: httpx.Client, theirs: httpx.Client) -> None:
        """What no manifest names is what a collector is for; all else must be there still."""
        named = named_by_manifests(self.content)
        for held in self.content.held.values():
            held.blobs = {digest: data for digest, data in held.blobs.items() if digest in named}
        answered(ours.get(f"/v2/library/plain/blobs/{digest_of(DEAD)}"), 404)
        self.content.check(ours)
        self.content.check(theirs)
        self._check_referrers(ours)
        # what was collected can be pushed again: no link of it makes us believe that we have it
        answered(ours.post(f"/v2/mounted/here/blobs/uploads/?mount={digest_of(DEAD)}&from=library/plain"), 202)
        self.content.blob(ours, "library/plain", DEAD)
        self.content.check(ours)
        self.content.check(theirs)

    def _check_referrers(self, ours: httpx.Client) -> None:
        for subject, found in self.referrers.items():
            assert referrers_of(ours, "library/ours", subject) == found


def check_ours_is_kept(before: dict[str, bytes], after: dict[str, bytes]) -> None:
    """Of what a store held before a peer's collection: all that only we know of."""
    ours = {key: data for key, data in before.items() if "_moorage" in key or "_referrers" in key}
    assert ours
    assert {key: after.get(key) for key in ours} == ours

"""What has happened at one upstream since this process began: plain numbers, for `registry upstreams` and metrics.

One Tally per upstream (`Upstream.tally`), added to where things happen, by one line each, in the event loop: no lock.
Whoever reads it gets numbers that only grow; rates and sums over processes are the reader's business.
"""

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """Counts, and sizes in bytes.

    requests: sent to the upstream, its token servers apart; a redirect that is followed belongs to its request.
    faults: of these, what was no answer, or one of 5xx.   limited: of these, 429.
    manifest_hits: answered from the cache, after a question whether it is still so, too.
    stale: of the hits, those that could not be compared as the upstream failed.   revalidations: such questions.
    manifest_misses: fetched for a client, or waited for while another's was fetched.
    blob_hits, blob_misses: likewise; ranges and redirects to the store count, a HEAD does not.
    hit_bytes: of the blobs that came from the cache.   fetched_bytes: of all bodies of manifests and blobs that came.
    fetched_manifest_bytes: of these, of manifests.
    sent_manifest_bytes, sent_blob_bytes: of what clients were given, as begun; a HEAD of a manifest counts as its GET.
    fills_begun, fills_ended: of whole blobs, into the cache.   fills_kept: of the ended, those that succeeded.
    evicted_manifests, evicted_blobs, evicted_bytes: removed from the cache, to keep its bounds.
    """

    requests: int = 0
    faults: int = 0
    limited: int = 0
    manifest_hits: int = 0
    stale: int = 0
    revalidations: int = 0
    manifest_misses: int = 0
    blob_hits: int = 0
    blob_misses: int = 0
    hit_bytes: int = 0
    fetched_bytes: int = 0
    fetched_manifest_bytes: int = 0
    sent_manifest_bytes: int = 0
    sent_blob_bytes: int = 0
    fills_begun: int = 0
    fills_ended: int = 0
    fills_kept: int = 0
    evicted_manifests: int = 0
    evicted_blobs: int = 0
    evicted_bytes: int = 0

    @property
    def hits(self) -> int:
        return self.manifest_hits + self.blob_hits

    @property
    def misses(self) -> int:
        return self.manifest_misses + self.blob_misses

    @property
    def hit_rate(self) -> float | None:
        """From 0 to 1; None: nobody has asked for anything."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None

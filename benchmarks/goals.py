"""What we want, as the rows of the project's performance goals, and whether the results meet it. Pure.

A goal is met by the median; `Verdict.found` has the lowest and highest ratio of a round, too, for a reader to judge the
noise. What no suite has measured is said to be so.
"""

from collections.abc import Callable
from dataclasses import dataclass

from .results import OURS, Results

V3 = "distribution-3"
NGINX = "nginx"
STORE = "seaweedfs"
NOT_MEASURED = "not measured"
PEAK_MB = 150
GROWTH = 2.0
"""How much longer a page may take when the store is 100 times as large: noise, and deeper folders."""


@dataclass(frozen=True)
class Verdict:
    """met: None where nothing was measured."""

    met: bool | None
    found: str

    @property
    def word(self) -> str:
        return NOT_MEASURED if self.met is None else "met" if self.met else "**not met**"


UNMEASURED = Verdict(None, "")
Check = Callable[[Results], Verdict]


@dataclass(frozen=True)
class Goal:
    """One row. wanted: as people read it."""

    name: str
    wanted: str
    check: Check


def ratio(
    suite: str, case: str, peer: str, least: float | None = None, most: float | None = None, metric: str = ""
) -> Check:
    """Our figure divided by the peer's lies between."""

    def check(results: Results) -> Verdict:
        row = results.case(suite, case)
        found = row.ratio(peer, metric or None) if row else None
        if found is None:
            return UNMEASURED
        met = (least is None or found.median >= least) and (most is None or found.median <= most)
        return Verdict(met, f"{found.median:.2f} x ({found.low:.2f} to {found.high:.2f})")

    return check


def at_most(suite: str, case: str, limit: float, unit: str) -> Check:
    def check(results: Results) -> Verdict:
        row = results.case(suite, case)
        found = row.figure(OURS) if row else None
        if found is None:
            return UNMEASURED
        return Verdict(found.median < limit, f"{found.median:.2f} {unit} ({found.low:.2f} to {found.high:.2f})")

    return check


def growth(kind: str, page: str = "a page of 100") -> Check:
    """The same page of the smallest and of the largest store."""

    def check(results: Results) -> Verdict:
        small = results.case("lists", f"{kind} of 100, {page}")
        large = results.case("lists", f"{kind} of 10,000, {page}")
        before, after = (row.figure(OURS) if row else None for row in (small, large))
        if before is None or after is None:
            return UNMEASURED
        return Verdict(after.median <= GROWTH * before.median, f"{after.median / before.median:.2f} x")

    return check


def peak(results: Results) -> Verdict:
    """The highest peak of ours in any case of any suite."""
    found = [
        (max(values), f"{suite}, {case.name}")
        for suite, case in results.cases()
        if (values := case.values(OURS, "peak_mb"))
    ]
    if not found:
        return UNMEASURED
    highest, where = max(found)
    return Verdict(highest < PEAK_MB, f"{highest:.0f} MB ({where})")


TAGS, CATALOG = "tags of 10,000, a page of 100", "catalog of 10,000, a page of 100"

GOALS = (
    Goal("pull of 1 GiB, 1 client, beside distribution v3", ">= 1.6 x", ratio("pull", "1 GiB by 1", V3, 1.6)),
    Goal("pull of 1 GiB, 1 client, beside nginx", ">= 1.0 x", ratio("pull", "1 GiB by 1", NGINX, 1.0)),
    Goal("16 pulls of 1 GiB, beside distribution v3", ">= 1.5 x", ratio("pull", "1 GiB by 16", V3, 1.5)),
    Goal("16 pulls of 1 GiB, beside nginx", ">= 1.0 x", ratio("pull", "1 GiB by 16", NGINX, 1.0)),
    Goal("CPU s/GB of 1 pull", "<= 0.6 x", ratio("pull", "1 GiB by 1", V3, most=0.6, metric="cpu_s_gb")),
    Goal("CPU s/GB of 16 pulls", "<= 0.6 x", ratio("pull", "1 GiB by 16", V3, most=0.6, metric="cpu_s_gb")),
    Goal("push, PATCH stream and PUT, 1 client", ">= 1.4 x", ratio("push", "stream by 1", V3, 1.4)),
    Goal("push, PATCH stream and PUT, 8 clients", ">= 1.1 x", ratio("push", "stream by 8", V3, 1.1)),
    Goal("manifest by tag, one process", ">= 3 x", ratio("small", "manifest by tag", V3, 3.0)),
    Goal("blob of 1 kB, 16 clients", ">= 4 x", ratio("pull", "1 kB by 16", V3, 4.0)),
    Goal("HEAD of a blob that is not there", ">= 2 x", ratio("small", "HEAD, missing", V3, 2.0)),
    Goal("page of 100 of 10,000 tags, time", "<= 1.0 x", ratio("lists", TAGS, V3, most=1.0)),
    Goal("page of 100 of 10,000 repositories, time", "<= 1.0 x", ratio("lists", CATALOG, V3, most=1.0)),
    Goal("tags: 100 times the store, the same page, time", f"<= {GROWTH:.0f} x", growth("tags")),
    Goal("catalog: 100 times the store, the same page, time", f"<= {GROWTH:.0f} x", growth("catalog")),
    Goal("memory, highest peak of all cases", f"< {PEAK_MB} MB", peak),
    Goal("start to the first answer, filesystem", "< 0.5 s", at_most("start", "first answer", 0.5, "s")),
    Goal("docker pull of the 2 GB image, time", "<= 1.0 x", ratio("whole", "docker pull", V3, most=1.0)),
    Goal("ctr pull of the 2 GB image, time", "<= 1.0 x", ratio("whole", "ctr pull", V3, most=1.0)),
    Goal("S3, 1 pull, beside a GET of the store", ">= 0.8 x", ratio("s3", "direct: blob by 1", STORE, 0.8)),
    Goal("S3 20 ms away, 1 pull, beside a GET of the store", ">= 0.8 x", ratio("s3", "20 ms: blob by 1", STORE, 0.8)),
    Goal("S3, 1 pull", ">= 1.0 x", ratio("s3", "direct: blob by 1", V3, 1.0)),
    Goal("S3, 16 pulls", ">= 1.0 x", ratio("s3", "direct: blob by 16", V3, 1.0)),
    Goal("S3 20 ms away, 1 pull", ">= 1.0 x", ratio("s3", "20 ms: blob by 1", V3, 1.0)),
    Goal("S3 20 ms away, 16 pulls", ">= 1.0 x", ratio("s3", "20 ms: blob by 16", V3, 1.0)),
    Goal("S3 at 90 MB/s per connection, 1 pull", ">= 3 x", ratio("s3", "20 ms and 90 MB/s: blob by 1", V3, 3.0)),
    Goal("S3 at 90 MB/s per connection, 16 pulls", ">= 1.0 x", ratio("s3", "20 ms and 90 MB/s: blob by 16", V3, 1.0)),
    Goal("S3, manifest by tag", ">= 1.5 x", ratio("s3", "manifest by tag", V3, 1.5)),
    Goal("S3, start to the first answer", "< 1 s", at_most("s3", "first answer", 1.0, "s")),
    Goal("proxy, cold, 1 client", ">= 1.0 x", ratio("proxy", "near: cold by 1", V3, 1.0)),
    Goal("proxy, cold, 50 clients", ">= 2.5 x", ratio("proxy", "near: cold by 50", V3, 2.5)),
    Goal("proxy, TLS upstream, cold, 1 client", ">= 1.0 x", ratio("proxy", "tls: cold by 1", V3, 1.0)),
    Goal("proxy, upstream 20 ms and 90 MB/s away, cold", ">= 1.0 x", ratio("proxy", "far: cold by 1", V3, 1.0)),
    Goal("proxy, first byte, upstream 20 ms away", "< 70 ms", at_most("proxy", "far: first byte", 70.0, "ms")),
    Goal("proxy, warm, 1 client", ">= 1.6 x", ratio("proxy", "warm by 1", V3, 1.6)),
    Goal("proxy, warm, 16 clients", ">= 1.5 x", ratio("proxy", "warm by 16", V3, 1.5)),
)

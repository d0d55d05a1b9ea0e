"""What a client of a killed registry may count on.

An answer settles a thing. A request without an answer leaves it open: it may have happened, wholly, or not; the first
look afterwards settles that too, because what was seen once must stay.
"""

from dataclasses import dataclass, field

ABSENT = None


@dataclass
class Thing:
    """One blob, manifest or tag: what may be found in its place. Bytes, or for a tag the digest; ABSENT is 404."""

    may_be: set[bytes | None] = field(default_factory=lambda: {ABSENT})

    def attempted(self, value: bytes | None) -> None:
        """A request that sets it was sent."""
        self.may_be = {*self.may_be, value}

    def settled(self, value: bytes | None) -> None:
        """It was acknowledged, or seen."""
        self.may_be = {value}

    def seen(self, value: bytes | None, what: str) -> None:
        """Fails unless that may be; settles it."""
        assert value in self.may_be, f"{what}: found {_short(value)}, allowed {[_short(v) for v in self.may_be]}"
        self.settled(value)

    @property
    def certain(self) -> bool:
        return len(self.may_be) == 1

    @property
    def present(self) -> bool:
        """Certainly there."""
        return self.certain and ABSENT not in self.may_be


@dataclass
class Upload:
    """A session that stays open. data: what it is to become; acknowledged, sent: bytes of it."""

    location: str
    data: bytes
    acknowledged: int = 0
    sent: int = 0


@dataclass
class Manifest(Thing):
    """blobs: digests that it names. subject: digest of what it refers to."""

    blobs: tuple[str, ...] = ()
    subject: str | None = None


@dataclass
class Model:
    """One client's repository, which nobody else writes to. touched: what the next look has to look at."""

    name: str
    blobs: dict[str, Thing] = field(default_factory=dict)
    manifests: dict[str, Manifest] = field(default_factory=dict)
    tags: dict[str, Thing] = field(default_factory=dict)
    uploads: list[Upload] = field(default_factory=list)
    touched: set[str] = field(default_factory=set)
    acknowledged: int = 0


def _short(value: bytes | None) -> str:
    return "nothing" if value is None else f"{value[:80]!r} ({len(value)} bytes)"

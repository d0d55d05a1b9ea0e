"""What a cache serves although it could not ask whether it is still so: the client is told."""

from dataclasses import dataclass

from storage.repository import StoredManifest


@dataclass(frozen=True, slots=True)
class StaleManifest(StoredManifest):
    """age: seconds since it was last known to be what the tag names.   why: a sentence for the client."""

    age: float
    why: str

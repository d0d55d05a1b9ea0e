"""What a registry may leave out where a call is dear, and for how long it may believe what it has seen. Pure.

Nothing here matters to a driver whose calls are cheap (StorageDriver.calls_are_dear): a filesystem is asked every time.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Thrift:
    """linkttl: seconds for which a link that was seen is taken to be there still; 0: it is read every time.

    read_only: nobody pushes through this registry, so a HEAD answers a puller, who has something else to fall back on;
    a pusher would skip an upload. deletes: may this or another registry on the store delete what is being pushed?
    shareable: an upload session is in the store from its POST on, so that distribution can go on with it.
    """

    linkttl: float = 0.0
    read_only: bool = False
    deletes: bool = True
    shareable: bool = False

"""OSError to our error tree, at one border: around each call into the filesystem, and around iteration.

What is absent is told from what is broken by the error number and by what the verb was about: a verb that looks for an
object finds none where the path cannot exist; a verb that makes one never answers ObjectNotFound.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EISDIR, ENAMETOOLONG, ENOENT, ENOSPC, ENOTDIR

from storage.errors import ObjectNotFound, StorageError, StorageFull, Unavailable

ABSENT = frozenset({ENOENT, ENOTDIR, EISDIR, ENAMETOOLONG})
"""A path that is a folder, that lies below a file, or that is longer than any name can be, holds no object."""

FULL = frozenset({ENOSPC, EDQUOT})


def translate(exc: OSError, key: str | None) -> StorageError:
    """key: the object that was looked for; None where a missing path is a fault of the store.

    A client may read the message, so it names no path; the OSError does, and is logged as the cause.
    """
    if exc.errno in FULL:
        return StorageFull()
    if key is not None and exc.errno in ABSENT:
        return ObjectNotFound(key)
    reason = os.strerror(exc.errno).lower() if exc.errno else "no reason is known"
    return Unavailable(f"the registry's storage failed: {reason}")


@contextmanager
def translated(key: str | None = None) -> Iterator[None]:
    """Raises every OSError of its block as one of ours; see `translate`."""
    try:
        yield
    except OSError as exc:
        raise translate(exc, key) from exc

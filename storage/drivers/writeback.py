"""Ask the kernel to write dirty pages of a file to the disk now, without waiting for it.

So a disk works while an upload still runs, and the fsync at its end finds little to do. It is a hint: durable is what
fsync has returned for, and what fails here is reported there. Linux alone has the call, Python has not.
"""

import ctypes
import os
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2


def _find() -> Callable[[int, int, int, int], int] | None:
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return call


_sync_file_range = _find() if os.name == "posix" else None


def start_writing(fd: int, offset: int, size: int) -> None:
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, size, _SYNC_FILE_RANGE_WRITE)

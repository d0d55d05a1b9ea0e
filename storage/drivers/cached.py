"""Files that the kernel holds in memory, reached without waiting for a disk: so cheap that no thread is needed.

openat2 with RESOLVE_CACHED (Linux 5.12) opens a path only if every step of it is in the cache of names, absent ones
included, and preadv with RWF_NOWAIT reads only pages that are in memory. Whatever would wait raises BlockingIOError,
and so does a system that knows neither; the caller then goes through a thread, which fills both caches for the next
time.

Python has no openat2; ctypes calls it in about a microsecond.
"""

import ctypes
import errno
import os

LARGEST = 64 << 10
"""Bytes that are read here: copying more takes the loop too long."""

PAGE = 4096
"""Bytes: the smallest page that there is. A read of the first brings all that the file has there, or nothing."""

_OPENAT2 = 437  # on every architecture: the number is newer than their differences
_AT_FDCWD = -100
_RESOLVE_CACHED = 0x20


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


_HOW = _OpenHow(os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK, 0, _RESOLVE_CACHED)
_BEFORE = (ctypes.c_long(_OPENAT2), ctypes.c_int(_AT_FDCWD))
_BEHIND = (ctypes.byref(_HOW), ctypes.c_size_t(ctypes.sizeof(_HOW)))
_UNKNOWN = frozenset((errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG))
"""What a kernel says that has no openat2, or a sandbox that forbids it (gVisor, older seccomp profiles)."""
_NO_FILE = frozenset((errno.EOPNOTSUPP, errno.ESPIPE))
"""What it says of tmpfs and overlayfs, which cannot tell what is in memory, and of a pipe."""


def _load() -> "ctypes._NamedFuncPointer | None":
    try:
        syscall = ctypes.CDLL(None, use_errno=True).syscall
    except (OSError, AttributeError):
        return None
    syscall.restype = ctypes.c_long
    return syscall


_syscall = _load()


def open_cached(path: str) -> int:
    """A descriptor for reading. Raises BlockingIOError where that may wait; other OSError as os.open does."""
    if _syscall is None:
        raise BlockingIOError
    fd = _syscall(*_BEFORE, path.encode("ascii" if path.isascii() else "utf-8", "surrogateescape"), *_BEHIND)
    if fd < 0:
        number = ctypes.get_errno()
        if number in _UNKNOWN:
            raise BlockingIOError
        raise OSError(number, os.strerror(number), path)  # EAGAIN makes a BlockingIOError
    return int(fd)


def read_first_page(path: str) -> bytes:
    """The whole of a regular file that is shorter than a page. Raises BlockingIOError for any other, and as above.

    Three calls into the kernel, without one that asks for the size: links are read so, with every request.
    """
    fd = open_cached(path)
    try:
        data = bytearray(PAGE)
        count = os.preadv(fd, (data,), 0, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno in _NO_FILE:
            raise BlockingIOError from exc
        raise
    finally:
        os.close(fd)
    if not 0 < count < PAGE:  # devices answer with nothing, or without end
        raise BlockingIOError
    return bytes(memoryview(data)[:count])


def read_cached(fd: int, offset: int, size: int) -> bytes:
    """size bytes of an open file. Raises BlockingIOError where that may wait, or fewer are there."""
    data = bytearray(size)
    try:
        count = os.preadv(fd, [data], offset, os.RWF_NOWAIT)
    except OSError as exc:
        if exc.errno == errno.EOPNOTSUPP:  # tmpfs and overlayfs cannot say
            raise BlockingIOError from exc
        raise
    if count != size:
        raise BlockingIOError
    return bytes(data)

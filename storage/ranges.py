"""Byte ranges: what a client asks for, and what that means for an object of known size. Half-open, in bytes. Pure."""

from dataclasses import dataclass

from storage.errors import RangeNotSatisfiable


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes start to stop - 1 of an object."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class RangeRequest:
    """One range of a Range header (RFC 9110 section 14.1.2): from `start` to `stop`, or the last `suffix` bytes.

    start: first byte; None for a suffix.   stop: one behind the last byte; None for "to the end".
    suffix: count of bytes at the end; None where start is given.
    """

    start: int | None = None
    stop: int | None = None
    suffix: int | None = None

    def resolve(self, size: int) -> ByteRange:
        """The bytes that this means in an object of `size` bytes. Raises RangeNotSatisfiable where it means none."""
        if self.suffix is not None:
            found = ByteRange(max(0, size - self.suffix), size)
        else:
            found = ByteRange(self.start or 0, size if self.stop is None else min(self.stop, size))
        if found.start >= found.stop:
            raise RangeNotSatisfiable(size)
        return found

"""The memory of a part: filled piece by piece, used again, and no more of it than the part has."""

import pytest

from storage.drivers.s3.parts import PartBuffer

MIB = 1 << 20


def held(part: PartBuffer) -> int:
    return memoryview(part.view.obj).nbytes


@pytest.mark.parametrize("piece", [1000, 65536, 3 * MIB])
def test_it_takes_what_has_room_and_gives_back_the_rest(piece: int) -> None:
    data, part = bytes(range(256)) * (4 * MIB // 256), PartBuffer(3 * MIB + 5)
    rest = b""
    for start in range(0, len(data), piece):
        rest += bytes(part.add(memoryview(data)[start : start + piece]))
    assert part.is_full
    assert part.view == data[: 3 * MIB + 5]
    assert rest == data[3 * MIB + 5 :]
    assert held(part) == 3 * MIB + 5


def test_another_part_in_the_same_memory() -> None:
    part = PartBuffer(2 * MIB)
    part.add(memoryview(b"a" * 2 * MIB))
    memory = part.view.obj
    part.begin(2 * MIB)
    part.add(memoryview(b"b" * (MIB + 1)))
    assert part.view == b"b" * (MIB + 1)
    assert part.view.obj is memory
    part.begin(3 * MIB)
    part.add(memoryview(b"c" * 3 * MIB))
    assert part.view == b"c" * 3 * MIB


def test_what_is_small_holds_little() -> None:
    part = PartBuffer(10 * MIB)
    assert (bytes(part.view), held(part)) == (b"", 0)
    for size in (1, 70_000, MIB):
        part.begin(10 * MIB)
        part.add(memoryview(b"x" * size))
        assert size <= held(part) <= 2 * size

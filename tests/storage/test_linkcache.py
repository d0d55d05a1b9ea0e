"""Links that are believed for a while, by a clock that the test turns."""

from dataclasses import dataclass

from storage.digest import Digest
from storage.linkcache import LinkCache

ONE, TWO = Digest.of(b"one"), Digest.of(b"two")


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def target(cache: LinkCache, key: str) -> Digest | None:
    known = cache.get(key)
    return known.target if known else None


def test_believed_for_so_long_from_before_the_store_was_asked() -> None:
    clock = Clock()
    cache = LinkCache(60.0, clock=clock)
    asked = clock.now
    clock.now += 10
    cache.keep("a", ONE, asked)
    clock.now += 49.9
    assert target(cache, "a") == ONE
    clock.now += 0.2
    assert target(cache, "a") is None


def test_never_with_zero() -> None:
    cache = LinkCache(0.0, clock=Clock())
    cache.keep("a", ONE, 1000.0)
    cache.vouch("b", ONE, 1000.0)
    assert target(cache, "a") is None
    assert target(cache, "b") is None


def test_only_so_many_the_least_used_first() -> None:
    cache = LinkCache(60.0, limit=2, clock=Clock())
    cache.keep("a", ONE, 1000.0)
    cache.keep("b", ONE, 1000.0)
    assert target(cache, "a") == ONE
    cache.keep("c", ONE, 1000.0)
    assert [target(cache, key) for key in "abc"] == [ONE, None, ONE]


def test_vouching_makes_nothing_older_than_it_is() -> None:
    clock = Clock()
    cache = LinkCache(60.0, clock=clock)
    cache.keep("a", ONE, 1000.0)
    cache.vouch("a", ONE, 990.0)
    clock.now = 1059.0
    assert target(cache, "a") == ONE
    cache.vouch("a", ONE, 1059.0)
    clock.now = 1118.0
    assert target(cache, "a") == ONE


def test_what_was_read_before_a_delete_is_not_kept_after_it() -> None:
    clock = Clock()
    cache = LinkCache(60.0, clock=clock)
    asked = clock.now
    clock.now += 1
    cache.drop("a")
    cache.keep("a", ONE, asked)
    assert target(cache, "a") is None


def test_nothing_vouches_for_what_was_deleted_until_it_is_read_again() -> None:
    clock = Clock()
    cache = LinkCache(60.0, clock=clock)
    cache.vouch("a", ONE, clock.now)
    cache.drop("a")
    clock.now += 1
    cache.vouch("a", ONE, clock.now)
    assert target(cache, "a") is None
    cache.keep("a", TWO, clock.now)
    assert target(cache, "a") == TWO
    cache.forget("a")
    cache.vouch("a", TWO, clock.now)
    assert target(cache, "a") == TWO


def test_deletes_that_are_remembered_are_bounded() -> None:
    cache = LinkCache(60.0, clock=Clock())
    for number in range(5000):
        cache.drop(str(number))
    assert len(cache._dropped) == 4096

"""Keys of the driver and whole keys of objects: rootdirectory goes before them, as distribution puts it there. Pure.

distribution trims slashes behind the root and then before the whole: `/pfx`, `pfx/` and `/pfx/` all give
`pfx/docker/...`.
"""

from storage.driver import check_key, is_key

LAST = "~"
"""Sorts behind every character of a key: `a/~` is behind all that lies below `a`."""


class Keys:
    """The keys below one rootdirectory."""

    def __init__(self, rootdirectory: str) -> None:
        root = rootdirectory.rstrip("/").lstrip("/")
        self.root = f"{root}/" if root else ""

    def of(self, key: str) -> str:
        """The whole key. Raises ValueError for what is no key."""
        return self.root + check_key(key)

    def below(self, prefix: str) -> str:
        """What the whole keys below a folder start with; "" is the root. Raises ValueError for what is no folder."""
        return f"{self.of(prefix)}/" if prefix else self.root

    def ours(self, whole: str) -> str | None:
        """The driver's key; None for what others have put into the bucket and no key can name."""
        key = whole[len(self.root) :]
        return key if is_key(key) else None


def plain(text: str) -> str:
    """Text as far as it is printable ASCII: sorts as the text or before it, and every store takes it (moto does not
    take others)."""
    for at, character in enumerate(text):
        if not "!" <= character <= LAST:
            return text[:at]
    return text

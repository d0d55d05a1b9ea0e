"""Lists in the order that the driver's contract wants, whatever the order of the store.

S3 lists in the order of bytes. Stores that keep a tree of folders (SeaweedFS) list folder by folder, `a/` before
`a-b/`, take StartAfter in that order too, and go on listing emptied folders where a delimiter is asked for. Which kind
it is, is asked once a process, when the first list has more than one page, and by one list alone: a read-only registry
may do no more. "What comes behind `x.~`?" has `x/` in its answer in the order of bytes, and not in that of a tree.

- Order of bytes: page by page, with delimiter where folders are wanted, leaping over what is not.
- Order of a tree, or lists of one page: all keys are read, without delimiter, and sorted. That costs memory, about
  300 bytes an object, and is right in every order.
- A store that was taken for the one and shows the other makes that one list Unavailable; the next is right.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterator

from storage.driver import ObjectInfo, check_key
from storage.drivers.s3.bucket import Bucket, Listed
from storage.drivers.s3.inorder import InOrder, overtaken
from storage.drivers.s3.keys import LAST, Keys, plain
from storage.errors import Unavailable

log = logging.getLogger(__name__)

_PAGE = 1000


class Lister:
    """The listing verbs over one bucket."""

    def __init__(self, bucket: Bucket, keys: Keys) -> None:
        self._bucket = bucket
        self._keys = keys
        self._is_tree: bool | None = None

    async def objects(self, prefix: str, after: str) -> AsyncIterator[ObjectInfo]:
        below, start = self._keys.below(prefix), self._keys.root + after
        whole = await self._whole(below)
        if whole is not None:
            for found in whole:
                if found.key > start and (info := self._info(found)):
                    yield info
            return
        async for found in self._from(below, max(below, self._keys.root + plain(after))):
            if found.key > start and (info := self._info(found)):
                yield info

    async def folders(self, prefix: str, after: str, limit: int | None, containing: str) -> list[str]:
        below = self._keys.below(prefix)
        if containing:
            check_key(containing)
        end = f"/{containing}"
        found = InOrder(limit, lambda name: max((f"{below}{y}{end}" for y in overtaken(name)), default=""))
        if limit == 0:
            return []
        whole = await self._whole(below)
        if whole is not None:
            pages: AsyncIterator[tuple[list[str], str]] = _once([listed.key for listed in whole])
        elif containing:
            pages = self._pages_leaping(below, below + plain(after), lambda rest: _behind_folder(rest, containing))
        else:
            pages = self._pages_of_folders(below, below + plain(after), _PAGE if limit is None else max(limit + 2, 100))
        async for keys, cursor in pages:
            for key in keys:
                name, slash, rest = key[len(below) :].partition("/")
                if slash and name > after and (not containing or rest == containing) and self._keys.ours(below + name):
                    found.add(name)
            if found.enough(cursor):
                break
        return found.names()

    async def folders_with(self, prefix: str, marker: str, hidden: str, after: str, limit: int | None) -> list[str]:
        """find_folders: paths below prefix of folders that have a folder `marker`."""
        below = self._keys.below(prefix)
        behind = after.split("/") if after else []
        found = InOrder(limit, lambda path: _barrier(below, path, marker), lambda path: path.split("/"))
        if limit == 0:
            return []
        whole = await self._whole(below)
        if whole is not None:
            pages: AsyncIterator[tuple[list[str], str]] = _once([listed.key for listed in whole])
        else:
            start = below + plain(behind[0]) if behind else ""
            pages = self._pages_leaping(below, start, lambda rest: _leap(rest, marker, hidden, behind))
        async for keys, cursor in pages:
            for key in keys:
                for path in _paths_with(key[len(below) :], marker, hidden):
                    if path.split("/") > behind and self._keys.ours(below + path):
                        found.add(path)
            if found.enough(cursor):
                break
        return found.names()

    async def everything(self, prefix: str) -> AsyncIterator[list[str]]:
        """Whole keys below a folder, in pages and in no order; also what no key of the driver can name."""
        token = None
        while True:
            page = await self._bucket.list_page(self._keys.below(prefix), token=token)
            if page.objects:
                yield [found.key for found in page.objects]
            if not (token := page.token):
                return

    # The store's order

    async def _whole(self, below: str) -> list[Listed] | None:
        """Every object below, sorted; None: there are more than a page, and the store lists by bytes."""
        if self._is_tree is False:
            return None
        page = await self._bucket.list_page(below)
        found = page.objects
        if page.token and self._is_tree is None and not await self._learn(below, found):
            return None
        while page.token:
            page = await self._bucket.list_page(below, token=page.token)
            found += page.objects
        return sorted(found, key=lambda listed: listed.key)

    async def _learn(self, below: str, found: list[Listed]) -> bool:
        """Is the store's order a tree's? Asked with the first folder that has been found below, or the one itself."""
        folders = (below + rest[: rest.index("/")] for f in found if "/" in (rest := f.key[len(below) :]))
        folder = next(folders, below.rstrip("/"))
        if not folder:
            return False  # objects alone, side by side: if folders come behind them, _check_order is there
        page = await self._bucket.list_page(folder, after=f"{folder}.{LAST}", limit=1)
        if page.objects and page.objects[0].key.startswith(f"{folder}/"):
            self._is_tree = False
        elif (await self._bucket.list_page(f"{folder}/", limit=1)).objects:
            self._is_tree = True
            log.warning("the S3 store lists folder by folder and not in order: lists are read whole and sorted")
        return self._is_tree is not False  # the folder has been emptied meanwhile: reading all is right in any case

    async def _from(self, below: str, start: str) -> AsyncIterator[Listed]:
        """In the order of bytes."""
        token, last = None, ""
        while True:
            page = await self._bucket.list_page(below, after="" if start <= below else start, token=token)
            for found in page.objects:
                self._check_order(last, found.key)
                last = found.key
                yield found
            if not (token := page.token):
                return

    def _check_order(self, last: str, key: str) -> None:
        if key <= last:
            self._is_tree = True
            raise Unavailable("the store lists in another order than it did before")

    # Pages of keys with the cursor behind them: all keys up to it have been listed, or are of no interest

    async def _pages_of_folders(self, below: str, start: str, wanted: int) -> AsyncIterator[tuple[list[str], str]]:
        token, last = None, ""
        while True:
            page = await self._bucket.list_page(
                below, after="" if start <= below else start, delimiter="/", token=token, limit=min(wanted, _PAGE)
            )
            for prefix in page.prefixes:
                self._check_order(last, prefix)
                last = prefix
            cursor = max([last, *(found.key for found in page.objects[-1:])])
            yield page.prefixes, cursor
            if not (token := page.token):
                return

    async def _pages_leaping(
        self, below: str, start: str, leap: Callable[[str], str]
    ) -> AsyncIterator[tuple[list[str], str]]:
        """leap: told the last key of a page, says before which key nothing is of interest ("" or one before it: none
        is left out); both relative to `below`."""
        token, last = None, ""
        while True:
            page = await self._bucket.list_page(below, after="" if start <= below else start, token=token)
            keys = [found.key for found in page.objects]
            for key in keys:
                self._check_order(last, key)
                last = key
            if not (token := page.token) or not keys:
                yield keys, LAST
                return
            there = below + leap(keys[-1][len(below) :])
            if there > keys[-1]:
                token, start = None, there
            yield keys, max(there, keys[-1])

    def _info(self, found: Listed) -> ObjectInfo | None:
        key = self._keys.ours(found.key)
        # whole seconds, as HEAD gives them
        return ObjectInfo(key, found.size, found.etag, float(int(found.modified))) if key else None


async def _once(keys: list[str]) -> AsyncIterator[tuple[list[str], str]]:
    yield keys, LAST


def _paths_with(rest: str, marker: str, hidden: str) -> Iterator[str]:
    """The folders on the way to a key that have `marker` in them, and are not within a hidden one."""
    folders = rest.split("/")[:-1]
    for at, folder in enumerate(folders):
        if folder == marker and at:
            yield "/".join(folders[:at])
        if folder.startswith(hidden):
            return


def _barrier(below: str, path: str, marker: str) -> str:
    """Up to where folders turn up that belong before `path`: below names that it overtakes, and at its ancestors."""
    parts = path.split("/")
    places = [f"{below}{other}/{LAST}" for other in overtaken(path)]
    places += [f"{below}{'/'.join(parts[:n])}/{marker}/{LAST}" for n in range(1, len(parts))]
    return max(places, default="")


def _behind_folder(rest: str, containing: str) -> str:
    """What else lies in a folder is of no interest once its object `containing` has been passed."""
    name, slash, within = rest.partition("/")
    return f"{name}/{LAST}" if slash and within >= containing else ""


def _leap(rest: str, marker: str, hidden: str, behind: list[str]) -> str:
    """The first key, relative to the listing, before which nothing is of interest; may lie before `rest`."""
    folders = rest.split("/")[:-1]
    same = 0
    while same < min(len(folders), len(behind)) and folders[same] == behind[same]:
        same += 1
    if same < min(len(folders), len(behind)) and folders[same] < behind[same]:
        return plain("/".join(behind[: same + 1]))
    for at, folder in enumerate(folders):
        if folder.startswith(hidden):
            base = "".join(f"{name}/" for name in folders[:at])
            if not marker.startswith(hidden):
                return ""
            return base + marker if folder < marker else f"{base}{hidden}{LAST}"
    return ""

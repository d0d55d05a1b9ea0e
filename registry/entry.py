"""The command `registry` as the image has it: what root starts does not stay root.

- The process becomes the owner of the store: of distribution's tree in it if there is one, else of its folder. So it
  writes as whoever wrote before, and a fresh volume is nobody's. Where the store is no folder (S3, memory),
  /var/lib/registry says by its owner whom to become, and need be of no use.
- If that owner is root, as it is where registry:2 has written, it stays root and gives up its capabilities. Two are
  kept where they are needed: to listen below port 1024, and to use root's tree in a folder that is another's.
- A user chosen from outside (`docker run --user`) is kept.
- It happens after the settings are read and before anything they name is opened, while there is one thread.
"""

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from registry import cli
from registry.commands.refusal import Refusal
from storage import layout

if TYPE_CHECKING:
    from registry.config import Config, Loaded

VOLUME = Path("/var/lib/registry")
TREE = Path(layout.ROOT)

# linux/capability.h and linux/prctl.h; Python has no names for them.
CAP_DAC_OVERRIDE, CAP_NET_BIND_SERVICE = 1, 10
_CAPABILITIES_MOST = 64
_CAPABILITY_VERSION_3 = 0x20080522
_PR_SET_KEEPCAPS, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 8, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_libc = ctypes.CDLL(None, use_errno=True)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.main(argv, settle=leave_root)


def leave_root(loaded: "Loaded") -> None:
    """Raises Refusal where the store's folder can be used neither as its owner nor as root."""
    if os.geteuid() != 0:
        return
    config = loaded.config
    store = store_folder(config)
    uid, gid = owner(store or _closest(VOLUME))
    keep = capabilities(config, uid, store)
    try:
        _become(uid, gid, keep)
    except PermissionError as exc:
        _give_up(keep)
        if store and not _usable(store, writing=not config.storage.maintenance.readonly.enabled):
            raise Refusal(
                f"may not become user {uid}, who owns {store}: the container has no capability for it"
                f" (cap_drop); start it with --user {uid}:{gid}"
            ) from exc


def store_folder(config: "Config") -> Path | None:
    """The closest that exists to where the store is; None: it is no folder."""
    if config.storage.driver != "filesystem":
        return None
    return _closest(Path(str(config.storage.parameters["rootdirectory"])))


def _closest(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _usable(folder: Path, *, writing: bool) -> bool:
    return os.access(folder, os.R_OK | os.X_OK | (os.W_OK if writing else 0))


def owner(folder: Path) -> tuple[int, int]:
    """(user, group) who owns the store in a folder."""
    tree = folder / TREE
    found = (tree if tree.exists() else folder).stat()
    return found.st_uid, found.st_gid


def capabilities(config: "Config", uid: int, store: Path | None) -> frozenset[int]:
    """What the user cannot do without."""
    keep = set()
    if store and uid == 0 and store.stat().st_uid != 0:
        keep.add(CAP_DAC_OVERRIDE)
    addresses = [config.http.addr] if config.http.net == "tcp" else []
    ports = [addr.rpartition(":")[2] for addr in (*addresses, config.http.debug.addr)]
    if any(port.isdecimal() and 0 < int(port) < _first_free_port() for port in ports):
        keep.add(CAP_NET_BIND_SERVICE)
    return frozenset(keep)


def _first_free_port() -> int:
    """The first that anybody may listen on: docker says 0 to its containers, but not on the host's network."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    except (OSError, ValueError):
        return 1024


def _become(uid: int, gid: int, keep: frozenset[int]) -> None:
    """Raises PermissionError where the container may not change users: it is root still then."""
    _bound(keep)
    if uid != 0:
        os.setgroups([gid])
        os.setresgid(gid, gid, gid)
        _prctl(_PR_SET_KEEPCAPS, 1)  # or there would be none left to keep one of
        os.setresuid(uid, uid, uid)
    _give_up(keep)


def _bound(keep: frozenset[int]) -> None:
    """What can be had again, by whatever is started. Before root is left: it takes CAP_SETPCAP."""
    with suppress(OSError):  # EINVAL behind the kernel's last; EPERM: no_new_privs holds it as well
        for number in range(_CAPABILITIES_MOST):
            if number not in keep:
                _prctl(_PR_CAPBSET_DROP, number)


def _give_up(keep: frozenset[int]) -> None:
    """Every capability but those, for this process and whatever it starts."""
    with suppress(OSError):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _capset(_permitted() & sum(1 << number for number in keep))


def _prctl(option: int, argument: int) -> None:
    longs = [ctypes.c_ulong(each) for each in (argument, 0, 0, 0)]
    if _libc.prctl(option, *longs) != 0:
        raise _error()


def _permitted() -> int:
    header, data = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if _libc.capget(header, data) != 0:
        raise _error()
    return int(data[1]) | int(data[4]) << 32


def _capset(mask: int) -> None:
    low, high = mask & 0xFFFFFFFF, mask >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)  # effective, permitted, inheritable; twice
    if _libc.capset(header, data) != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))

"""What a reader has to know about the machine. The folder of the stores must be on a disk."""

import os
import platform
import time
from pathlib import Path

NOT_A_DISK = {"tmpfs", "ramfs"}


class NotADisk(Exception):
    """The work folder is in memory, where no registry keeps its data."""


def describe(work: Path) -> dict[str, str]:
    """Raises NotADisk."""
    kind, device = filesystem_of(work)
    if kind in NOT_A_DISK:
        raise NotADisk(f"{work} is on {kind}: name a folder on a disk with WORK=")
    facts = dict(line.partition(":")[::2] for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    names = {name.strip(): value.strip() for name, value in facts.items()}
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": f"{os.cpu_count()} ({names.get('model name', platform.machine())}), shared by server and client",
        "memory": f"{memory / 1e9:.0f} GB",
        "kernel": platform.release(),
        "disk": f"{kind} on {device}",
        "python": platform.python_version(),
        "load": f"{os.getloadavg()[0]:.1f} before the run",
    }


def today() -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.gmtime()) + " UTC"


def filesystem_of(path: Path) -> tuple[str, str]:
    """The type of the file system that holds a path, and its device."""
    best = ("", "unknown", "unknown")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        point = left.split()[4]
        kind, device = right.split()[:2]
        # of two mounts on one point the later hides the earlier
        if path.resolve().is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind, device)
    return best[1], best[2]
